//! One open log file and how far it has been read.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use rustix::fs::{Mode, OFlags};
use xxhash_rust::xxh3::xxh3_64;

use super::encoding::{Encoding, LONGEST_MARK, MARK};
use super::lines::{Cutter, Line};
use crate::clock;
use crate::positions::{Position, Print};

/// Read at once.
const CHUNK_BYTES: usize = 16 * 1024;
const HEAD_BYTES: u64 = 256;
/// What was read last is read again with each chunk: it must still be there.
const RECENT_BYTES: usize = 1024;

#[derive(Debug)]
pub struct LogFile {
    file: File,
    place: PathBuf,
    position: Position,
    cutter: Cutter,
    /// Known once the first bytes are there.
    encoding: Option<Encoding>,
    /// The bytes before the place up to which it was read.
    recent: Vec<u8>,
    /// Size and modification time when it was last looked at.
    looked: (u64, i64, i64),
    warned: bool,
}

/// What one attempt to read gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chunk {
    More,
    End,
    /// What was read before is not there any more: the file was emptied, and perhaps written to since.
    Emptied,
}

/// What a file is to a position that was remembered.
#[derive(Debug)]
pub enum Known {
    Same(Box<LogFile>),
    /// The same file with another content.
    Emptied,
    Other,
}

impl LogFile {
    pub fn open_at_start(place: &Path, line_bytes: usize) -> io::Result<Self> {
        let (file, metadata) = open(place)?;
        let position = Position {
            device: metadata.dev(),
            inode: metadata.ino(),
            born: born(&metadata),
            seen: clock::unix_millis(),
            // Links may lead elsewhere tomorrow.
            place: place.canonicalize().ok().and_then(|place| place.to_str().map(str::to_owned)).unwrap_or_default(),
            ..Position::default()
        };
        Ok(Self {
            file,
            place: place.to_owned(),
            position,
            cutter: Cutter::new(line_bytes, false),
            encoding: None,
            recent: Vec::new(),
            looked: (0, 0, 0),
            warned: false,
        })
    }

    /// Lines that are there already are not read. A last line without an end counts as there: what completes it later
    /// is read as a line of its own.
    pub fn open_at_end(place: &Path, line_bytes: usize) -> io::Result<Self> {
        let mut file = Self::open_at_start(place, line_bytes)?;
        let end = file.file.metadata()?.len();
        file.go_to(end, line_bytes, false)?;
        Ok(file)
    }

    /// Goes on at `position`, if the file at `place` is still the one that it belongs to.
    pub fn resume(place: &Path, position: &Position, line_bytes: usize) -> io::Result<Known> {
        let mut file = Self::open_at_start(place, line_bytes)?;
        let made_anew = file.position.born != position.born && file.position.born != 0 && position.born != 0;
        if !is_file(position, &file.file.metadata()?) || made_anew {
            return Ok(Known::Other);
        }
        Ok(if file.continue_at(position, line_bytes)? { Known::Same(Box::new(file)) } else { Known::Emptied })
    }

    /// Goes on at `position` in a copy of the file that it belongs to.
    pub fn resume_copy(place: &Path, position: &Position, line_bytes: usize) -> io::Result<Option<Self>> {
        let mut file = Self::open_at_start(place, line_bytes)?;
        let copy = !file.position.is_same_file(position) && file.continue_at(position, line_bytes)?;
        Ok(copy.then_some(file))
    }

    fn continue_at(&mut self, position: &Position, line_bytes: usize) -> io::Result<bool> {
        let whole = self.file.metadata()?.len() >= position.offset;
        if !whole || !self.shows(position.head)? || !self.shows(position.last)? {
            return Ok(false);
        }
        self.go_to(position.offset, line_bytes, position.within_line)?;
        Ok(true)
    }

    fn go_to(&mut self, offset: u64, line_bytes: usize, within_line: bool) -> io::Result<()> {
        self.cutter = Cutter::new(line_bytes, within_line);
        self.recent = self.stretch(offset.saturating_sub(RECENT_BYTES as u64), offset)?;
        self.position.offset = offset;
        self.position.within_line = within_line;
        self.position.last = print(offset - self.recent.len() as u64, &self.recent);
        self.remember_head()
    }

    /// Begins again at the start of what is there now.
    pub fn restart(&mut self, line_bytes: usize) {
        self.cutter = Cutter::new(line_bytes, false);
        self.encoding = None;
        self.recent.clear();
        let Position { device, inode, born, seen, .. } = self.position;
        let place = std::mem::take(&mut self.position.place);
        self.position = Position { device, inode, born, seen, place, ..Position::default() };
    }

    pub fn is(&self, metadata: &Metadata) -> bool {
        self.position.is_at(metadata.dev(), metadata.ino())
    }

    pub fn position(&self) -> &Position {
        &self.position
    }

    /// Whether there is anything new, looking at size and time only. Says so once for each change.
    pub fn changed(&mut self) -> io::Result<bool> {
        let metadata = self.file.metadata()?;
        let now = (metadata.len(), metadata.mtime(), metadata.mtime_nsec());
        self.position.seen = clock::unix_millis();
        let unread = metadata.len() != self.read_to();
        Ok(std::mem::replace(&mut self.looked, now) != now || unread)
    }

    /// Reads one chunk, or of it the first `most` lines. It is read in one call together with what was read last, so that
    /// nobody can change the file in between.
    pub fn read(&mut self, lines: &mut Vec<Line>, most: usize) -> io::Result<Chunk> {
        if !self.shows(self.position.head)? {
            return Ok(Chunk::Emptied);
        }
        let begin = self.read_to() - self.recent.len() as u64;
        let mut bytes = [0; RECENT_BYTES + CHUNK_BYTES];
        let bytes = {
            let count = self.file.read_at(&mut bytes, begin)?;
            &bytes[..count]
        };
        let Some(fresh) = bytes.strip_prefix(self.recent.as_slice()) else { return Ok(Chunk::Emptied) };
        if fresh.is_empty() && self.file.metadata()?.len() < self.read_to() {
            return Ok(Chunk::Emptied);
        }
        let Some(encoding) = self.encoding()? else { return Ok(Chunk::End) };
        self.cutter.encoding = encoding;
        let fresh = if encoding == Encoding::Utf8 { self.without_reserve(fresh)? } else { fresh };
        let whole = fresh.len() - fresh.len() % encoding.unit_bytes();
        let before = lines.len();
        let used = self.cutter.feed(&fresh[..whole], lines, most);
        let bytes = &bytes[..self.recent.len() + used];
        self.unmark(&mut lines[before..]);
        self.advance(begin, bytes)?;
        self.warn(&lines[before..]);
        Ok(if used > 0 { Chunk::More } else { Chunk::End })
    }

    /// What stands after the last line end, once nobody will complete it.
    pub fn finish(&mut self) -> Option<Line> {
        let mut line = self.cutter.finish();
        self.unmark(line.as_mut_slice());
        self.position.offset += self.cutter.take_done();
        line
    }

    fn read_to(&self) -> u64 {
        self.position.offset + self.cutter.held()
    }

    /// Some programs reserve room for their log and write over it: NULs up to the end of the file are not there yet.
    fn without_reserve<'a>(&self, fresh: &'a [u8]) -> io::Result<&'a [u8]> {
        let text = fresh.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        if text == fresh.len() {
            return Ok(fresh);
        }
        let length = self.file.metadata()?.len();
        let reserved = self.stretch(length.saturating_sub(1), length)? == [0];
        Ok(if reserved { &fresh[..text] } else { fresh })
    }

    fn encoding(&mut self) -> io::Result<Option<Encoding>> {
        if self.encoding.is_none() {
            self.encoding = Encoding::of(&self.stretch(0, LONGEST_MARK as u64)?);
        }
        Ok(self.encoding)
    }

    /// A byte-order mark is no part of the first line.
    fn unmark(&self, lines: &mut [Line]) {
        if self.position.offset == 0
            && let Some(first) = lines.first_mut()
            && first.text.starts_with(MARK)
        {
            first.text.remove(0);
        }
    }

    /// `bytes` begin at `begin` and end where was read to.
    fn advance(&mut self, begin: u64, bytes: &[u8]) -> io::Result<()> {
        let done = self.cutter.take_done();
        self.position.within_line = self.cutter.is_within_line();
        if done > 0 {
            self.position.offset += done;
            let end = usize::try_from(self.position.offset - begin).unwrap_or(bytes.len()).min(bytes.len());
            let last = &bytes[end.saturating_sub(RECENT_BYTES)..end];
            self.position.last = print(self.position.offset - last.len() as u64, last);
        }
        self.recent = bytes[bytes.len().saturating_sub(RECENT_BYTES)..].to_vec();
        self.remember_head()
    }

    fn warn(&mut self, lines: &[Line]) {
        if !self.warned && lines.iter().any(|line| line.invalid) {
            self.warned = true;
            tracing::warn!(
                path = %self.place.display(),
                "a log file is not in UTF-8: what cannot be read in it is replaced; write UTF-8, or UTF-16 with a byte-order mark"
            );
        }
    }

    fn remember_head(&mut self) -> io::Result<()> {
        let bytes = self.position.offset.min(HEAD_BYTES);
        if self.position.head.bytes < bytes {
            self.position.head = print(0, &self.stretch(0, bytes)?);
        }
        Ok(())
    }

    fn shows(&self, expected: Print) -> io::Result<bool> {
        let end = expected.begin.saturating_add(expected.bytes.min(RECENT_BYTES as u64));
        Ok(expected.bytes == 0 || print(expected.begin, &self.stretch(expected.begin, end)?) == expected)
    }

    /// The bytes between two places, as far as there are any.
    fn stretch(&self, begin: u64, end: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(end.saturating_sub(begin)).unwrap_or_default()];
        let mut filled = 0;
        while filled < bytes.len() {
            match self.file.read_at(&mut bytes[filled..], begin + filled as u64)? {
                0 => break,
                count => filled += count,
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }
}

/// Opening a pipe would wait for somebody who writes to it.
fn open(place: &Path) -> io::Result<(File, Metadata)> {
    let file = File::from(rustix::fs::open(place, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?);
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok((file, metadata))
}

fn print(begin: u64, bytes: &[u8]) -> Print {
    Print { begin, bytes: bytes.len() as u64, hash: xxh3_64(bytes) }
}

/// Whether a file may be the one that a position belongs to. Some file systems (btrfs, overlay, NFS) are another device
/// after each start of the machine; then the time when the file was made tells.
pub fn is_file(position: &Position, metadata: &Metadata) -> bool {
    let same_birth = || position.born != 0 && position.born == born(metadata);
    position.inode == metadata.ino() && (position.device == metadata.dev() || same_birth())
}

/// When a file was made, as `Position` keeps it.
pub fn born(metadata: &Metadata) -> u64 {
    let since = metadata.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or_default()
}
