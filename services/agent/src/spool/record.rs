//! One batch as a file: a line of JSON that describes it, then the OTLP request.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::tail::positions::Cover;

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    pub items: u64,
    /// Length of the request: a shorter file was cut by a power loss.
    pub bytes: u64,
    /// Rises with each batch that has `covers`; 0 for those without.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub generation: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub covers: Vec<Cover>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

pub fn header(header: &Header) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(header)?;
    line.push(b'\n');
    Ok(line)
}

/// The description, and the size of the whole file.
pub fn read_header(path: &Path) -> io::Result<(Header, u64)> {
    let (header, rest, length) = open(path)?;
    drop(rest);
    Ok((header, length))
}

pub fn read_payload(path: &Path) -> io::Result<Vec<u8>> {
    let (header, mut rest, _) = open(path)?;
    let mut payload = Vec::with_capacity(usize::try_from(header.bytes).unwrap_or_default());
    rest.read_to_end(&mut payload)?;
    Ok(payload)
}

fn open(path: &Path) -> io::Result<(Header, BufReader<File>, u64)> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line)?;
    let header: Header = serde_json::from_slice(&line)?;
    if length.checked_sub(line.len() as u64) != Some(header.bytes) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the file does not have the length that it says"));
    }
    Ok((header, reader, length))
}
