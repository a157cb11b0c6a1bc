//! How far each log file has been read, kept in the state folder.
//!
//! A file is known by device and inode, so that it is found again after a rotation; by the time when it was made and by
//! hashes of its first bytes and of those that were read last, because file systems give an inode that was freed to the
//! next file, and because a file can be emptied and written anew.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::state;

/// A stretch of a file as it was when it was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Print {
    #[serde(default)]
    pub begin: u64,
    pub bytes: u64,
    pub hash: u64,
}

/// How far a file was read, and by what it is known again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    pub device: u64,
    pub inode: u64,
    /// First byte that is not in any request yet: the begin of a line, or a place within a line that was given up.
    pub offset: u64,
    /// What stands before the next line end was given up.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub within_line: bool,
    /// The file's first bytes.
    pub head: Print,
    /// The bytes before `offset`: of files that begin alike, which they often do, they tell one from the next.
    #[serde(default)]
    pub last: Print,
    /// When the file was made, in nanoseconds since 1970; 0 where the file system does not say.
    #[serde(default)]
    pub born: u64,
    /// When the file was open for the last time, in milliseconds since 1970.
    #[serde(default)]
    pub seen: u64,
    /// Where it lay then, behind all links.
    #[serde(default)]
    pub place: String,
}

impl Position {
    pub fn is_same_file(&self, other: &Self) -> bool {
        self.is_at(other.device, other.inode)
    }

    pub fn is_at(&self, device: u64, inode: u64) -> bool {
        (self.device, self.inode) == (device, inode)
    }
}

/// How far a request reaches into a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cover {
    pub path: String,
    pub position: Position,
}

/// Members are only added: an older agent passes over what it does not know.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Known {
    /// Of the newest request that is contained.
    generation: u64,
    /// By watched path: the files that lay there and are not read to their end, the newest last. None for a path
    /// where no file has been yet.
    paths: BTreeMap<String, Vec<Position>>,
}

#[derive(Debug)]
pub struct Positions {
    file: PathBuf,
    known: Mutex<Known>,
    saving: Mutex<()>,
}

impl Positions {
    /// Reads what was saved. In place of a damaged file, as a power cut may leave it, the last backup is read: what came
    /// after it is read again from the logs. Without one, every log begins at its end, as on the first start.
    ///
    /// # Errors
    /// There is something, and it cannot be read now: to go on would lose what was written since.
    pub fn load(file: &Path) -> anyhow::Result<Self> {
        let known = match read(file)? {
            Read::Known(known) => known,
            Read::Nothing => Known::default(),
            Read::Damaged(error) => {
                let aside = file.with_extension("damaged");
                if let Err(error) = std::fs::rename(file, &aside) {
                    tracing::warn!(%error, "cannot put damaged log positions aside");
                }
                if let Read::Known(known) = read(&file.with_extension("backup"))? {
                    tracing::error!(%error, kept_as = %aside.display(), "saved log positions are damaged, earlier ones are used: the last lines before them may be repeated");
                    known
                } else {
                    tracing::error!(%error, kept_as = %aside.display(), "saved log positions are damaged, logs are followed from their end");
                    Known::default()
                }
            }
        };
        Ok(Self { file: file.to_owned(), known: Mutex::new(known), saving: Mutex::new(()) })
    }

    /// Where reading of `path` stopped; nothing when it has never been watched.
    pub fn of(&self, path: &str) -> Option<Vec<Position>> {
        self.known().paths.get(path).cloned()
    }

    /// From now on a file that appears at `path` is new, and begins at its start.
    pub fn watch(&self, path: &str) {
        self.known().paths.entry(path.to_owned()).or_default();
    }

    /// A file was opened and is followed from here on.
    pub fn begin(&self, cover: &Cover) {
        self.known().set(cover);
    }

    /// The file was there just now.
    pub fn touch(&self, cover: &Cover) {
        let mut known = self.known();
        let files = known.paths.get_mut(&cover.path).into_iter().flatten();
        files.filter(|file| file.is_same_file(&cover.position)).for_each(|file| file.seen = cover.position.seen);
    }

    /// The generation of the request to come.
    pub fn next_generation(&self) -> u64 {
        self.known().generation + 1
    }

    /// A request is in the spool. One whose generation is contained already changes nothing: that it is still there
    /// only means that it was not acknowledged in turn.
    pub fn apply(&self, generation: u64, covers: &[Cover]) {
        let mut known = self.known();
        if generation > known.generation {
            known.generation = generation;
            covers.iter().for_each(|cover| known.set(cover));
        }
    }

    /// A rotated file that was read to its end need not be looked for again.
    pub fn forget(&self, finished: &[Cover]) {
        let mut known = self.known();
        for Cover { path, position } in finished {
            if let Some(files) = known.paths.get_mut(path) {
                files.retain(|file| !file.is_same_file(position));
            }
        }
    }

    /// Files that were not open after `before` (milliseconds since 1970) are gone: rotated, compressed, removed. Without
    /// this, each rotation that no agent saw would leave one behind for ever.
    pub fn forget_unseen(&self, before: u64, open: impl Fn(&Position) -> bool) -> usize {
        let mut known = self.known();
        let files = |known: &Known| known.paths.values().map(Vec::len).sum::<usize>();
        let earlier = files(&known);
        for files in known.paths.values_mut() {
            files.retain(|file| file.seen > before || open(file));
        }
        earlier - files(&known)
    }

    pub fn save(&self) -> std::io::Result<()> {
        let _saving = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        let text = serde_json::to_vec(&*self.known())?;
        state::replace(&self.file, &[&text])
    }

    /// Saves them so that they outlast a power cut.
    pub fn back_up(&self) -> std::io::Result<()> {
        let _saving = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        let text = serde_json::to_vec(&*self.known())?;
        state::replace_durably(&self.file.with_extension("backup"), &[&text])
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Read {
    Known(Known),
    Nothing,
    Damaged(serde_json::Error),
}

fn read(file: &Path) -> anyhow::Result<Read> {
    match std::fs::read(file) {
        Ok(text) => Ok(serde_json::from_slice(&text).map_or_else(Read::Damaged, Read::Known)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Read::Nothing),
        Err(error) => Err(error).with_context(|| format!("read log positions in {}", file.display())),
    }
}

impl Known {
    fn set(&mut self, Cover { path, position }: &Cover) {
        let files = self.paths.entry(path.clone()).or_default();
        match files.iter_mut().find(|file| file.is_same_file(position)) {
            Some(file) => *file = position.clone(),
            None => files.push(position.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cover(path: &str, inode: u64, offset: u64) -> Cover {
        Cover { path: path.to_owned(), position: Position { device: 1, inode, offset, ..Position::default() } }
    }

    #[test]
    fn positions_survive_a_restart_and_the_newest_file_is_last() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("positions.json");
        let positions = Positions::load(&file).unwrap();
        positions.watch("/b");
        positions.apply(1, &[cover("/a", 1, 10), cover("/a", 2, 5)]);
        positions.apply(2, &[cover("/a", 1, 20)]);
        positions.save().unwrap();
        let again = Positions::load(&file).unwrap();
        // A request that is still in the spool though a later one was acknowledged.
        again.apply(1, &[cover("/a", 1, 10)]);
        assert_eq!(again.of("/a").unwrap(), [cover("/a", 1, 20).position, cover("/a", 2, 5).position]);
        assert_eq!(again.of("/b"), Some(Vec::new()));
        assert_eq!(again.of("/c"), None);
    }

    #[test]
    fn a_damaged_file_is_put_aside() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("positions.json");
        std::fs::write(&file, "{\"generation\": 1, \"paths\": {\"/a\"").unwrap();
        assert_eq!(Positions::load(&file).unwrap().of("/a"), None);
        assert!(folder.path().join("positions.damaged").exists());
    }

    #[test]
    fn in_place_of_a_damaged_file_its_backup_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("positions.json");
        let positions = Positions::load(&file).unwrap();
        positions.apply(1, &[cover("/a", 1, 10)]);
        positions.back_up().unwrap();
        positions.apply(2, &[cover("/a", 1, 20)]);
        positions.save().unwrap();
        assert_eq!(Positions::load(&file).unwrap().of("/a").unwrap()[0].offset, 20);
        // As a file system may leave it that was cut off after the rename.
        std::fs::write(&file, "").unwrap();
        assert_eq!(Positions::load(&file).unwrap().of("/a").unwrap()[0].offset, 10);
    }

    #[test]
    fn what_a_newer_agent_added_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("positions.json");
        let head = "{\"begin\":0,\"bytes\":0,\"hash\":0,\"kind\":\"new\"}";
        let position = format!("{{\"device\":1,\"inode\":2,\"offset\":30,\"head\":{head},\"news\":[1]}}");
        let text = format!("{{\"generation\":3,\"version\":9,\"paths\":{{\"/a\":[{position}]}}}}");
        std::fs::write(&file, text).unwrap();
        assert_eq!(Positions::load(&file).unwrap().of("/a").unwrap()[0].offset, 30);
    }

    #[test]
    fn positions_that_cannot_be_read_now_are_not_taken_for_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("positions.json");
        std::fs::create_dir(&file).unwrap();
        assert!(Positions::load(&file).is_err());
    }

    #[test]
    fn files_that_nobody_saw_for_long_are_forgotten_unless_they_are_open() {
        let folder = tempfile::tempdir().unwrap();
        let positions = Positions::load(&folder.path().join("positions.json")).unwrap();
        for (inode, seen) in [(1, 10), (2, 10), (3, 30)] {
            let mut cover = cover("/a", inode, 0);
            cover.position.seen = seen;
            positions.begin(&cover);
        }
        assert_eq!(positions.forget_unseen(20, |file| file.inode == 2), 1);
        let left: Vec<_> = positions.of("/a").unwrap().iter().map(|file| file.inode).collect();
        assert_eq!(left, [2, 3]);
        // What lies at a path later is still new.
        positions.forget_unseen(99, |_| false);
        assert_eq!(positions.of("/a"), Some(Vec::new()));
    }
}
