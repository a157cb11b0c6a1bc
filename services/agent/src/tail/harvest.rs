//! The lines of one batch with the places that they reach to.

use std::io;

use super::file::LogFile;
use super::lines::Line;
use super::positions::Cover;

/// When to stop reading, in bytes of text plus what a record costs besides. A gateway takes far more; this keeps a
/// batch under the size of one message on its broker.
const FULL_BYTES: usize = 256 * 1024;
const RECORD_BYTES: usize = 160;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub path: String,
    pub line: Line,
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

    pub fn read_from(&mut self, path: &str, file: &mut LogFile) -> io::Result<()> {
        let before = file.position().offset;
        let mut outcome = Ok(());
        while !self.is_full() {
            let mut lines = Vec::new();
            let more = file.read(&mut lines);
            lines.into_iter().for_each(|line| self.add(path, line));
            match more {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        // A truncated file's position moves back, one that is read moves on; both are news.
        if file.position().offset != before {
            self.cover(path, file);
        }
        outcome
    }

    pub fn finish(&mut self, path: &str, file: &mut LogFile) -> io::Result<()> {
        if let Some(line) = file.finish()? {
            self.add(path, line);
            self.cover(path, file);
        }
        self.finished.push(Cover { path: path.to_owned(), position: file.position() });
        Ok(())
    }

    /// Empty lines say nothing and are passed over; their place is covered like any other's.
    fn add(&mut self, path: &str, line: Line) {
        if !line.text.is_empty() {
            self.bytes += line.text.len() + RECORD_BYTES;
            self.lines.push(Found { path: path.to_owned(), line });
        }
    }

    fn cover(&mut self, path: &str, file: &LogFile) {
        let position = file.position();
        let same = |cover: &&mut Cover| cover.path == path && cover.position.is_same_file(&position);
        match self.covers.iter_mut().find(same) {
            Some(cover) => cover.position = position,
            None => self.covers.push(Cover { path: path.to_owned(), position }),
        }
    }
}
