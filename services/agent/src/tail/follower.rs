//! Follows one path through creation, rotation and truncation.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Counts;
use super::file::LogFile;
use super::harvest::Harvest;
use super::positions::{Cover, Position, Positions};

/// How long a rotated file is still read: a program goes on writing to it until it reopens its log.
pub const DRAIN_TIME: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Rotated {
    file: LogFile,
    until: Instant,
}

#[derive(Debug)]
pub struct Follower {
    name: String,
    path: PathBuf,
    current: Option<LogFile>,
    rotated: VecDeque<Rotated>,
    /// The error that was logged last, so that one that stays is logged once.
    trouble: Option<io::ErrorKind>,
}

impl Follower {
    /// Finds where the last run stopped, also in files that were rotated since.
    pub fn open(name: &str, positions: &Positions, now: Instant) -> Self {
        let path = PathBuf::from(name);
        let mut follower = Self { name: name.to_owned(), path, current: None, rotated: VecDeque::new(), trouble: None };
        for position in positions.of(name).unwrap_or_default() {
            follower.resume_rotated(position, now);
        }
        let outcome = follower.look(positions, &mut Counts::default(), now);
        follower.note(outcome);
        follower
    }

    /// Looks among the neighbours whose names begin like this path's (`app.log.1`, `app.log-20260101`).
    fn resume_rotated(&mut self, position: Position, now: Instant) {
        let found =
            siblings(&self.path).into_iter().find_map(|sibling| LogFile::resume(&sibling, position).ok().flatten());
        if let Some(file) = found {
            self.rotated.push_back(Rotated { file, until: now + DRAIN_TIME });
        }
    }

    /// Reads what is new into `harvest`. Stops early when that is full; the next poll goes on.
    pub fn poll(&mut self, harvest: &mut Harvest, positions: &Positions, counts: &mut Counts, now: Instant) {
        let looked = self.look(positions, counts, now);
        self.drain(harvest, now);
        let outcome = looked.and_then(|()| self.read(harvest, counts));
        self.note(outcome);
    }

    /// Notices that another file lies at the path than the one that is open.
    fn look(&mut self, positions: &Positions, counts: &mut Counts, now: Instant) -> io::Result<()> {
        let metadata = match fs::metadata(&self.path) {
            Ok(metadata) => metadata,
            // Moved away, and the new one is not there yet: whoever writes still writes to the old one.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                positions.watch(&self.name);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if self.current.as_ref().is_some_and(|file| file.is(&metadata)) {
            return Ok(());
        }
        let file = self.begin(positions)?;
        positions.begin(&Cover { path: self.name.clone(), position: file.position() });
        if let Some(old) = self.current.replace(file) {
            tracing::info!(path = self.name, "log file was rotated");
            counts.rotations += 1;
            self.rotated.push_back(Rotated { file: old, until: now + DRAIN_TIME });
        }
        Ok(())
    }

    /// Goes on where the last run stopped; begins at the end of a file that was there before anybody watched its
    /// path, and at the start of any other.
    fn begin(&self, positions: &Positions) -> io::Result<LogFile> {
        let Some(known) = positions.of(&self.name) else { return LogFile::open_at_end(&self.path) };
        for position in known {
            if let Some(file) = LogFile::resume(&self.path, position)? {
                return Ok(file);
            }
        }
        LogFile::open_at_start(&self.path)
    }

    fn drain(&mut self, harvest: &mut Harvest, now: Instant) {
        for mut rotated in std::mem::take(&mut self.rotated) {
            match self.drain_one(&mut rotated, harvest, now) {
                Ok(true) => {}
                Ok(false) => self.rotated.push_back(rotated),
                Err(error) => tracing::warn!(path = self.name, %error, "cannot read a rotated log file to its end"),
            }
        }
    }

    /// Returns whether the file is done with.
    fn drain_one(&self, rotated: &mut Rotated, harvest: &mut Harvest, now: Instant) -> io::Result<bool> {
        if rotated.file.changed()? {
            harvest.read_from(&self.name, &mut rotated.file)?;
        }
        if harvest.is_full() || now < rotated.until {
            return Ok(false);
        }
        harvest.finish(&self.name, &mut rotated.file)?;
        Ok(true)
    }

    fn read(&mut self, harvest: &mut Harvest, counts: &mut Counts) -> io::Result<()> {
        let Some(file) = &mut self.current else { return Ok(()) };
        if !file.changed()? {
            return Ok(());
        }
        if file.restart_if_truncated()? {
            tracing::info!(path = self.name, "log file was truncated, reading it from its start");
            counts.truncations += 1;
        }
        harvest.read_from(&self.name, file)
    }

    fn note(&mut self, outcome: io::Result<()>) {
        let trouble = match outcome {
            Ok(()) => None,
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                if self.trouble != Some(error.kind()) {
                    tracing::warn!(path = self.name, %error, "cannot read a log file, trying on");
                }
                Some(error.kind())
            }
        };
        self.trouble = trouble;
    }
}

fn siblings(path: &Path) -> Vec<PathBuf> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Vec::new();
    };
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries
        .filter_map(|entry| {
            let sibling = entry.ok()?.path();
            let matches = sibling.file_name()?.to_str()?.starts_with(name);
            (matches && sibling != path).then_some(sibling)
        })
        .collect()
}
