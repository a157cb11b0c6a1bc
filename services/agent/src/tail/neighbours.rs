//! The files beside a log: what it was renamed to or copied to (`app.log.1`, `app.log-20260101`).

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::file::{Known, LogFile, is_file};
use crate::positions::Position;

/// File systems take the time from a clock that is a little behind.
const CLOCK_SLACK_MILLIS: u64 = 500;

/// A file that was rotated while nobody watched.
pub fn renamed(log: &Path, position: &Position, line_bytes: usize) -> Option<LogFile> {
    let at = |place: &PathBuf| fs::metadata(place).is_ok_and(|metadata| is_file(position, &metadata));
    let place = places(log, &position.place).into_iter().find(at)?;
    match LogFile::resume(&place, position, line_bytes) {
        Ok(Known::Same(file)) => Some(*file),
        _ => None,
    }
}

/// The newest file that shows what was read, at the places where it was read: a log was copied there before it was
/// emptied, and what was written until then stands in the copy. One that was made before the log was looked at last is
/// of an earlier time, and only begins alike.
pub fn copied(log: &Path, position: &Position, line_bytes: usize) -> Option<LogFile> {
    let since = position.seen.saturating_sub(CLOCK_SLACK_MILLIS);
    let mut places: Vec<(SystemTime, PathBuf)> = places(log, &position.place)
        .into_iter()
        .filter_map(|place| {
            let metadata = fs::metadata(&place).ok()?;
            // Copying a large log takes a while, at whose end it is emptied.
            let made = metadata.created().ok().max(metadata.modified().ok())?;
            let large = metadata.is_file() && metadata.len() >= position.offset;
            (large && unix_millis(made) >= since).then_some((made, place))
        })
        .collect();
    places.sort();
    places.into_iter().rev().find_map(|(_, place)| LogFile::resume_copy(&place, position, line_bytes).ok().flatten())
}

fn unix_millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// All files whose names begin like the log's: beside it, beside the file that it leads to, and beside the one that it
/// led to when it was read last.
fn places(log: &Path, place: &str) -> BTreeSet<PathBuf> {
    let place = Path::new(place);
    let mut found = BTreeSet::new();
    let target = fs::canonicalize(log).ok();
    for path in [Some(log), target.as_deref(), Some(place)].into_iter().flatten().collect::<BTreeSet<_>>() {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { continue };
        let name = name.as_encoded_bytes();
        let Ok(entries) = fs::read_dir(folder) else { continue };
        let alike = |entry: &fs::DirEntry| entry.file_name().as_encoded_bytes().starts_with(name);
        found.extend(entries.filter_map(Result::ok).filter(alike).map(|entry| entry.path()));
    }
    found.remove(log);
    if let Some(target) = target {
        found.remove(&target);
    }
    found
}
