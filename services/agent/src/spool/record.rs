//! One request as a file: a line of JSON that describes it, then the request's bytes.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::Path;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::positions::Cover;

/// Raised when the file is to be read in another way. A file of a later version belongs to an agent that was here
/// before and may come back: it is left alone.
pub const VERSION: u32 = 1;
/// A description names a few files.
const LONGEST_HEADER: u64 = 1 << 20;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    #[serde(default = "first_version")]
    pub version: u32,
    pub items: u64,
    /// Length of the request: a shorter file was cut by a power loss.
    pub bytes: u64,
    /// A power loss can also leave a file at its length, but empty.
    #[serde(default)]
    pub hash: u64,
    /// Rises with each request that has `covers`; 0 for those without.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub generation: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub covers: Vec<Cover>,
}

fn first_version() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It is no whole file of ours, and never will be.
    #[error("the file is damaged: {0}")]
    Damaged(String),
    /// A newer agent wrote it.
    #[error("the file is of version {0}, which a newer agent writes")]
    Newer(u32),
    /// It may be read later.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Header {
    pub fn of(payload: &[u8], items: u64, generation: u64, covers: &[Cover]) -> Self {
        let (bytes, hash) = (payload.len() as u64, xxh3_64(payload));
        Self { version: VERSION, items, bytes, hash, generation, covers: covers.to_vec() }
    }

    pub fn encode(&self) -> io::Result<Vec<u8>> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        Ok(line)
    }
}

/// The description and the request.
pub fn read(path: &Path) -> Result<(Header, Vec<u8>), Unreadable> {
    let mut reader = BufReader::new(File::open(path)?);
    let mut line = Vec::new();
    (&mut reader).take(LONGEST_HEADER).read_until(b'\n', &mut line)?;
    let damaged = |why: &str| Unreadable::Damaged(why.to_owned());
    #[derive(Deserialize)]
    struct Version {
        #[serde(default = "first_version")]
        version: u32,
    }
    let version: Version =
        serde_json::from_slice(&line).map_err(|_| damaged("it does not begin with a description"))?;
    if version.version > VERSION {
        return Err(Unreadable::Newer(version.version));
    }
    let header: Header = serde_json::from_slice(&line).map_err(|error| damaged(&error.to_string()))?;
    let mut payload = Vec::new();
    reader.take(header.bytes.saturating_add(1)).read_to_end(&mut payload)?;
    if payload.len() as u64 != header.bytes {
        return Err(damaged("it does not have the length that it says"));
    }
    if header.hash != 0 && header.hash != xxh3_64(&payload) {
        return Err(damaged("it does not hold what was written"));
    }
    Ok((header, payload))
}

/// The places that a file of any version covers, as far as they can be read: an agent of another version that runs in
/// between must not send those lines again.
pub fn covers(path: &Path) -> Option<(u64, Vec<Cover>)> {
    #[derive(Deserialize)]
    struct Places {
        generation: u64,
        covers: Vec<Cover>,
    }
    let mut line = Vec::new();
    BufReader::new(File::open(path).ok()?).take(LONGEST_HEADER).read_until(b'\n', &mut line).ok()?;
    let places: Places = serde_json::from_slice(&line).ok()?;
    Some((places.generation, places.covers))
}
