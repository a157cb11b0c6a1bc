//! Follows one path through creation, rotation and truncation.

use std::collections::{HashSet, VecDeque};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::counts::Counts;
use super::file::{Chunk, Known, LogFile, born, is_file};
use super::harvest::Harvest;
use super::neighbours;
use super::options::Options;
use crate::clock;
use crate::positions::{Cover, Position, Positions};

/// A file of which no more was read than this is read again where it cannot be known whether it was emptied.
const GUESS_BYTES: u64 = 1 << 20;

/// What a round of looking works with.
pub struct Round<'a> {
    pub options: &'a Options,
    pub positions: &'a Positions,
    pub counts: &'a mut Counts,
    pub now: Instant,
    /// Files that other paths lead to: a link and its target are one log.
    pub taken: &'a HashSet<(u64, u64)>,
}

#[derive(Debug)]
struct Rotated {
    file: LogFile,
    until: Instant,
}

#[derive(Debug)]
pub struct Follower {
    name: Arc<str>,
    current: Option<LogFile>,
    rotated: VecDeque<Rotated>,
    /// The error that was logged last, so that one that stays is logged once.
    trouble: Option<io::ErrorKind>,
    /// Nothing was ever there.
    missing: bool,
}

impl Follower {
    /// Finds where the last run stopped, also in files that were rotated since.
    pub fn open(name: &str, round: &mut Round<'_>) -> Self {
        let mut follower =
            Self { name: name.into(), current: None, rotated: VecDeque::new(), trouble: None, missing: false };
        let outcome = follower.path(round.options).and_then(|path| {
            follower.resume_rotated(&path, round);
            follower.look(&path, round)
        });
        follower.note(outcome);
        follower.missing = follower.current.is_none() && follower.trouble.is_none();
        if follower.missing {
            tracing::warn!(
                path = name,
                "there is no such log file; it is read once there is (patterns are not expanded)"
            );
        }
        follower
    }

    /// Reads what is new into `harvest`. Stops early when that is full; the next poll goes on.
    pub fn poll(&mut self, harvest: &mut Harvest, round: &mut Round<'_>) {
        let looked = self.path(round.options).and_then(|path| {
            self.look(&path, round)?;
            Ok(path)
        });
        self.drain(harvest, round.now);
        let outcome = looked.and_then(|path| self.read(&path, harvest, round));
        self.note(outcome);
    }

    pub fn is_unreadable(&self) -> bool {
        self.trouble.is_some()
    }

    pub fn is_missing(&self) -> bool {
        self.missing && self.current.is_none()
    }

    /// Where it stands in each file that is open.
    pub fn covers(&self) -> impl Iterator<Item = Cover> + '_ {
        let rotated = self.rotated.iter().map(|rotated| &rotated.file);
        let open = self.current.iter().chain(rotated);
        open.map(|file| Cover { path: self.name.to_string(), position: file.position().clone() })
    }

    /// The file that its path leads to.
    pub fn current(&self) -> Option<(u64, u64)> {
        self.current.as_ref().map(|file| (file.position().device, file.position().inode))
    }

    pub fn has_open(&self, position: &Position) -> bool {
        let rotated = self.rotated.iter().map(|rotated| &rotated.file);
        self.current.iter().chain(rotated).any(|file| file.position().is_same_file(position))
    }

    fn path(&self, options: &Options) -> io::Result<PathBuf> {
        options.root.resolve(Path::new(&*self.name))
    }

    /// What was read and lies somewhere else now than at the path.
    fn resume_rotated(&mut self, path: &Path, round: &Round<'_>) {
        let here = fs::metadata(path).ok();
        for position in round.positions.of(&self.name).unwrap_or_default() {
            let is_here = here.as_ref().is_some_and(|here| is_file(&position, here));
            if is_here || self.has_open(&position) {
                continue;
            }
            if let Some(file) = neighbours::renamed(path, &position, round.options.line_bytes) {
                round.positions.forget(&[Cover { path: self.name.to_string(), position }]);
                round.positions.begin(&Cover { path: self.name.to_string(), position: file.position().clone() });
                self.drain_later(file, round);
            }
        }
    }

    fn drain_later(&mut self, file: LogFile, round: &Round<'_>) {
        self.rotated.push_back(Rotated { file, until: round.now + round.options.drain_time });
    }

    /// Notices that another file lies at the path than the one that is open.
    fn look(&mut self, path: &Path, round: &mut Round<'_>) -> io::Result<()> {
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) => {
                // What appears there later is new. A file that was moved away is read on until another takes its
                // place: whoever writes still writes to it.
                round.positions.watch(&self.name);
                return if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) };
            }
        };
        if self.current.as_ref().is_some_and(|file| file.is(&metadata)) {
            return Ok(());
        }
        if round.taken.contains(&(metadata.dev(), metadata.ino())) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "another path leads to the same file"));
        }
        let file = match self.begin(path, round) {
            Ok(file) => file,
            Err(error) => {
                self.begin_unread(&metadata, round.positions);
                return Err(error);
            }
        };
        let first = self.current.is_none();
        round.positions.begin(&Cover { path: self.name.to_string(), position: file.position().clone() });
        if let Some(old) = self.current.replace(file) {
            tracing::info!(path = &*self.name, "log file was rotated");
            round.counts.rotations += 1;
            self.drain_later(old, round);
        }
        if !first {
            // One that lay at the path in between, and could not be read then.
            self.resume_rotated(path, round);
        }
        Ok(())
    }

    /// Goes on where the last run stopped; begins at the end of a file that was there before anybody watched its
    /// path, and at the start of any other.
    fn begin(&mut self, path: &Path, round: &mut Round<'_>) -> io::Result<LogFile> {
        let line_bytes = round.options.line_bytes;
        let Some(known) = round.positions.of(&self.name) else { return LogFile::open_at_end(path, line_bytes) };
        for position in known {
            match LogFile::resume(path, &position, line_bytes)? {
                Known::Same(file) => {
                    if !file.position().is_same_file(&position) {
                        // Its device has another number now.
                        round.positions.forget(&[Cover { path: self.name.to_string(), position: position.clone() }]);
                    }
                    return Ok(self.doubt(*file, path, &position, round));
                }
                Known::Emptied => {
                    self.emptied(path, &position, round);
                    break;
                }
                Known::Other => {}
            }
        }
        LogFile::open_at_start(path, line_bytes)
    }

    /// The file shows everything that was read of it. But if it was copied since, it may have been emptied and written
    /// anew with the same lines: then some of what it shows is new. It is read again, which loses nothing.
    fn doubt(&mut self, mut file: LogFile, path: &Path, position: &Position, round: &mut Round<'_>) -> LogFile {
        let line_bytes = round.options.line_bytes;
        let in_doubt = position.offset > 0 && position.offset <= GUESS_BYTES;
        if in_doubt && let Some(copy) = neighbours::copied(path, position, line_bytes) {
            tracing::warn!(
                path = &*self.name,
                bytes = position.offset,
                "a log file was copied while no agent ran, and it cannot be known whether it was emptied: it is read again from its start"
            );
            round.counts.guesses += 1;
            self.drain_later(copy, round);
            file.restart(line_bytes);
        }
        file
    }

    /// Lines that were written before a file was emptied stand in the copy that was made of it.
    fn emptied(&mut self, path: &Path, position: &Position, round: &mut Round<'_>) {
        tracing::info!(path = &*self.name, "log file was emptied, reading it from its start");
        round.counts.truncations += 1;
        if position.offset > 0
            && let Some(copy) = neighbours::copied(path, position, round.options.line_bytes)
        {
            self.drain_later(copy, round);
        }
    }

    /// A file that cannot be read yet: once it can, what was written from now on is read.
    fn begin_unread(&self, metadata: &Metadata, positions: &Positions) {
        let known = positions.of(&self.name);
        let offset = if known.is_none() { metadata.len() } else { 0 };
        let position = Position {
            device: metadata.dev(),
            inode: metadata.ino(),
            offset,
            born: born(metadata),
            seen: clock::unix_millis(),
            ..Position::default()
        };
        if metadata.is_file() && !known.unwrap_or_default().iter().any(|file| file.is_same_file(&position)) {
            positions.begin(&Cover { path: self.name.to_string(), position });
        }
    }

    fn drain(&mut self, harvest: &mut Harvest, now: Instant) {
        for mut rotated in std::mem::take(&mut self.rotated) {
            match self.drain_one(&mut rotated, harvest, now) {
                Ok(true) => {}
                Ok(false) => self.rotated.push_back(rotated),
                Err(error) => {
                    tracing::warn!(path = &*self.name, %error, "cannot read a rotated log file to its end");
                }
            }
        }
    }

    /// Returns whether the file is done with.
    fn drain_one(&self, rotated: &mut Rotated, harvest: &mut Harvest, now: Instant) -> io::Result<bool> {
        let mut chunk = Chunk::End;
        if rotated.file.changed()? {
            chunk = harvest.read_from(&self.name, &mut rotated.file)?;
        }
        // Who empties a file that was rotated wants it gone.
        if chunk != Chunk::Emptied && (harvest.is_full() || now < rotated.until) {
            return Ok(false);
        }
        harvest.finish(&self.name, &mut rotated.file);
        Ok(true)
    }

    fn read(&mut self, path: &Path, harvest: &mut Harvest, round: &mut Round<'_>) -> io::Result<()> {
        let Some(file) = &mut self.current else { return Ok(()) };
        if !file.changed()? || harvest.read_from(&self.name, file)? != Chunk::Emptied {
            return Ok(());
        }
        let position = file.position().clone();
        file.restart(round.options.line_bytes);
        self.emptied(path, &position, round);
        self.drain(harvest, round.now);
        match &mut self.current {
            Some(file) => harvest.read_from(&self.name, file).map(drop),
            None => Ok(()),
        }
    }

    fn note(&mut self, outcome: io::Result<()>) {
        let trouble = match outcome {
            Ok(()) => None,
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                if self.trouble != Some(error.kind()) {
                    tracing::warn!(path = &*self.name, %error, "cannot read a log file, trying on");
                }
                Some(error.kind())
            }
        };
        self.trouble = trouble;
    }
}
