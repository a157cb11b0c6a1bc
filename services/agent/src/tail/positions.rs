//! How far each log file has been read, kept in the state folder.
//!
//! A file is known by device and inode, so that it is found again after a rotation, and by a hash of its first bytes,
//! because file systems give an inode that was freed to the next file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::state;

/// The first bytes of a file as they were when it was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    pub bytes: u64,
    pub hash: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    pub device: u64,
    pub inode: u64,
    /// First byte that is not in any batch yet, always the begin of a line.
    pub offset: u64,
    pub head: Head,
}

impl Position {
    pub fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

/// How far a batch reaches into a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cover {
    pub path: String,
    pub position: Position,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Known {
    /// Of the newest batch that is contained.
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
    /// Reads what was saved. A damaged file is put aside: then every log begins at its end, as on the first start.
    pub fn load(file: &Path) -> Self {
        let known = match std::fs::read(file) {
            Ok(text) => serde_json::from_slice(&text).unwrap_or_else(|error| {
                let aside = file.with_extension("damaged");
                tracing::error!(%error, kept_as = %aside.display(), "saved log positions are damaged, logs are followed from their end");
                if let Err(error) = std::fs::rename(file, &aside) {
                    tracing::warn!(%error, "cannot put damaged log positions aside");
                }
                Known::default()
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Known::default(),
            Err(error) => {
                tracing::error!(%error, file = %file.display(), "cannot read saved log positions, logs are followed from their end");
                Known::default()
            }
        };
        Self { file: file.to_owned(), known: Mutex::new(known), saving: Mutex::new(()) }
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

    /// The generation of the batch to come.
    pub fn next_generation(&self) -> u64 {
        self.known().generation + 1
    }

    /// A batch is in the spool. One whose generation is contained already changes nothing: that it is still there
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

    pub fn save(&self) -> std::io::Result<()> {
        let _saving = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        let text = serde_json::to_vec(&*self.known())?;
        state::replace(&self.file, &[&text])
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn set(&mut self, Cover { path, position }: &Cover) {
        let files = self.paths.entry(path.clone()).or_default();
        match files.iter_mut().find(|file| file.is_same_file(position)) {
            Some(file) => *file = *position,
            None => files.push(*position),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cover(path: &str, inode: u64, offset: u64) -> Cover {
        Cover { path: path.to_owned(), position: Position { device: 1, inode, offset, head: Head::default() } }
    }

    #[test]
    fn positions_survive_a_restart_and_the_newest_file_is_last() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("positions.json");
        let positions = Positions::load(&file);
        positions.watch("/b");
        positions.apply(1, &[cover("/a", 1, 10), cover("/a", 2, 5)]);
        positions.apply(2, &[cover("/a", 1, 20)]);
        positions.save().unwrap();
        let again = Positions::load(&file);
        // A batch that is still in the spool though a later one was acknowledged.
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
        assert_eq!(Positions::load(&file).of("/a"), None);
        assert!(folder.path().join("positions.damaged").exists());
    }
}
