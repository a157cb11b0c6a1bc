//! One open log file and how far it has been read.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use xxhash_rust::xxh3::xxh3_64;

use super::lines::{Cutter, Line};
use super::positions::{Head, Position};

/// Read at once. Small, since a chunk of the shortest lines grows twentyfold on its way into a request.
const CHUNK_BYTES: usize = 16 * 1024;
const HEAD_BYTES: usize = 256;

#[derive(Debug)]
pub struct LogFile {
    file: File,
    position: Position,
    cutter: Cutter,
    /// Size and modification time when it was last looked at.
    seen: (u64, i64, i64),
}

impl LogFile {
    pub fn open_at_start(path: &Path) -> io::Result<Self> {
        Self::open(path, |_| Ok(0))
    }

    /// Lines that are there already are not read. A last line without an end counts as there: what completes it later
    /// is read as a line of its own.
    pub fn open_at_end(path: &Path) -> io::Result<Self> {
        Self::open(path, |file| Ok(file.metadata()?.len()))
    }

    /// Goes on at `position`, if the file at `path` is still the one that it belongs to.
    pub fn resume(path: &Path, position: Position) -> io::Result<Option<Self>> {
        let mut file = Self::open_at_start(path)?;
        let same = file.position.is_same_file(&position);
        if !same || !file.begins_with(position.head)? || file.file.metadata()?.len() < position.offset {
            return Ok(None);
        }
        file.position = position;
        Ok(Some(file))
    }

    fn open(path: &Path, begin: impl Fn(&File) -> io::Result<u64>) -> io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let offset = begin(&file)?;
        let position = Position { device: metadata.dev(), inode: metadata.ino(), offset, head: Head::default() };
        let mut file = Self { file, position, cutter: Cutter::default(), seen: (0, 0, 0) };
        file.remember_head()?;
        Ok(file)
    }

    pub fn is(&self, metadata: &Metadata) -> bool {
        (self.position.device, self.position.inode) == (metadata.dev(), metadata.ino())
    }

    pub fn position(&self) -> Position {
        self.position
    }

    /// Whether there is anything new, looking at size and time only. Says so once for each change.
    pub fn changed(&mut self) -> io::Result<bool> {
        let metadata = self.file.metadata()?;
        let now = (metadata.len(), metadata.mtime(), metadata.mtime_nsec());
        let unread = metadata.len() != self.read_to();
        Ok(std::mem::replace(&mut self.seen, now) != now || unread)
    }

    /// Begins again when the file was emptied, also when it has been written to since.
    pub fn restart_if_truncated(&mut self) -> io::Result<bool> {
        let shorter = self.file.metadata()?.len() < self.read_to();
        if !shorter && self.begins_with(self.position.head)? {
            return Ok(false);
        }
        self.cutter = Cutter::default();
        self.position.offset = 0;
        self.position.head = Head::default();
        Ok(true)
    }

    /// Reads one chunk. Returns false at the end of the file.
    pub fn read(&mut self, lines: &mut Vec<Line>) -> io::Result<bool> {
        let mut chunk = [0; CHUNK_BYTES];
        let count = self.file.read_at(&mut chunk, self.read_to())?;
        let before = lines.len();
        self.cutter.feed(&chunk[..count], lines);
        self.advance(&lines[before..])?;
        Ok(count > 0)
    }

    /// What stands after the last line end, once nobody will complete it.
    pub fn finish(&mut self) -> io::Result<Option<Line>> {
        let line = self.cutter.finish();
        self.advance(line.as_slice())?;
        Ok(line)
    }

    fn advance(&mut self, lines: &[Line]) -> io::Result<()> {
        self.position.offset += lines.iter().map(|line| line.bytes).sum::<u64>();
        self.remember_head()
    }

    fn read_to(&self) -> u64 {
        self.position.offset + self.cutter.held()
    }

    fn remember_head(&mut self) -> io::Result<()> {
        let bytes = self.position.offset.min(HEAD_BYTES as u64);
        if self.position.head.bytes < bytes {
            self.position.head = self.head(bytes)?;
        }
        Ok(())
    }

    fn begins_with(&self, head: Head) -> io::Result<bool> {
        Ok(head.bytes == 0 || self.head(head.bytes)? == head)
    }

    fn head(&self, bytes: u64) -> io::Result<Head> {
        let mut begin = [0; HEAD_BYTES];
        let wanted = usize::try_from(bytes).unwrap_or(HEAD_BYTES).min(HEAD_BYTES);
        let mut filled = 0;
        while filled < wanted {
            match self.file.read_at(&mut begin[filled..wanted], filled as u64)? {
                0 => break,
                count => filled += count,
            }
        }
        Ok(Head { bytes: filled as u64, hash: xxh3_64(&begin[..filled]) })
    }
}
