//! The lines of one request with the places that they reach to.

use std::io;
use std::sync::Arc;

use super::file::{Chunk, LogFile};
use super::lines::Line;
use crate::clock;
use crate::positions::Cover;

/// When to stop reading, in bytes of text plus what a record costs besides. A gateway takes far more; this keeps a
/// request under the size of one message on its broker.
const FULL_BYTES: usize = 256 * 1024;
/// Times, level, scope and the framing of all of them. A record has its file's path and name besides.
const RECORD_BYTES: usize = 160;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub path: Arc<str>,
    pub line: Line,
    /// When it was read, in nanoseconds since 1970.
    pub read_at: u64,
}

#[derive(Debug, Default)]
pub struct Harvest {
    pub lines: Vec<Found>,
    pub covers: Vec<Cover>,
    /// Rotated files that were read to their end.
    pub finished: Vec<Cover>,
    bytes: usize,
}

impl Harvest {
    pub fn is_full(&self) -> bool {
        self.bytes >= FULL_BYTES
    }

    /// About what a request of these lines will have.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn read_from(&mut self, path: &Arc<str>, file: &mut LogFile) -> io::Result<Chunk> {
        let before = (file.position().offset, file.position().within_line);
        let mut outcome = Ok(Chunk::End);
        while !self.is_full() {
            let mut lines = Vec::new();
            let most = (FULL_BYTES - self.bytes) / cost(path, "") + 1;
            outcome = file.read(&mut lines, most);
            let read_at = clock::unix_nanos();
            lines.into_iter().for_each(|line| self.add(path, line, read_at));
            if !matches!(outcome, Ok(Chunk::More)) {
                break;
            }
        }
        if (file.position().offset, file.position().within_line) != before {
            self.cover(path, file);
        }
        outcome
    }

    pub fn finish(&mut self, path: &Arc<str>, file: &mut LogFile) {
        if let Some(line) = file.finish() {
            self.add(path, line, clock::unix_nanos());
            self.cover(path, file);
        }
        self.finished.push(Cover { path: path.to_string(), position: file.position().clone() });
    }

    /// Empty lines say nothing and are passed over; their place is covered like any other's.
    fn add(&mut self, path: &Arc<str>, line: Line, read_at: u64) {
        if !line.text.is_empty() {
            self.bytes += cost(path, &line.text);
            self.lines.push(Found { path: path.clone(), line, read_at });
        }
    }

    fn cover(&mut self, path: &str, file: &LogFile) {
        let position = file.position();
        let same = |cover: &&mut Cover| cover.path == path && cover.position.is_same_file(position);
        match self.covers.iter_mut().find(same) {
            Some(cover) => cover.position = position.clone(),
            None => self.covers.push(Cover { path: path.to_owned(), position: position.clone() }),
        }
    }
}

fn cost(path: &str, text: &str) -> usize {
    text.len() + 2 * path.len() + RECORD_BYTES
}
