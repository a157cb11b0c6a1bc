//! The state folder: small files that are replaced whole, and the lock that keeps a second agent out.

use std::fs::{self, File, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

/// Creates the folder where it does not exist, readable by its owner only: log lines may lie in it.
pub fn prepare(folder: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("create the state folder {}", folder.display()))
}

/// Held as long as the agent runs: two agents on one spool would send everything twice.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "the lock ends when the file is closed")] File);

pub fn lock(folder: &Path) -> anyhow::Result<Lock> {
    let path = folder.join("lock");
    let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(Lock(file)),
        Err(TryLockError::WouldBlock) => bail!("another agent runs on {}", folder.display()),
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("lock {}", path.display())),
    }
}

/// Replaces `path`: a reader, or the next start after a crash, sees the old or the new content, never a part.
pub fn replace(path: &Path, content: &[&[u8]]) -> std::io::Result<()> {
    replace_by(path, |draft| write(draft, content).map(drop))
}

/// The same, and it outlasts a power cut. Takes as long as the disk does.
pub fn replace_durably(path: &Path, content: &[&[u8]]) -> std::io::Result<()> {
    replace_by(path, |draft| write(draft, content)?.sync_all())
}

fn replace_by(path: &Path, write: impl FnOnce(&Path) -> std::io::Result<()>) -> std::io::Result<()> {
    let draft = draft(path);
    let written = write(&draft).and_then(|()| fs::rename(&draft, path));
    if written.is_err() {
        // A draft that stays behind would take room that the next attempt needs.
        let _ = fs::remove_file(&draft);
    }
    written
}

/// The content of `path`, which is made from `fresh` when it does not exist. Of two processes that make it at once
/// one wins, and both see its content.
pub fn keep(path: &Path, fresh: impl FnOnce() -> String) -> anyhow::Result<String> {
    let read = || fs::read_to_string(path).map(|text| text.trim().to_owned());
    match read() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        outcome => return outcome.with_context(|| format!("read {}", path.display())),
    }
    let draft = draft(path);
    // An id that a power cut empties would be the end of this agent.
    let written = write(&draft, &[fresh().as_bytes(), b"\n"]).and_then(|file| file.sync_all());
    written.with_context(|| format!("write {}", draft.display()))?;
    // Unlike a rename, a link never replaces what another process has just put there.
    let linked = fs::hard_link(&draft, path);
    let _ = fs::remove_file(&draft);
    match linked {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("create {}", path.display()))
        }
        _ => read().with_context(|| format!("read {}", path.display())),
    }
}

fn write(path: &Path, content: &[&[u8]]) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    content.iter().try_for_each(|part| file.write_all(part))?;
    Ok(file)
}

/// Ends in `.tmp`, by which leftovers of a crash are known.
fn draft(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_first_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent-id");
        assert_eq!(keep(&path, || "first".to_owned()).unwrap(), "first");
        assert_eq!(keep(&path, || "second".to_owned()).unwrap(), "first");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_second_agent_is_kept_out_until_the_first_ends() {
        let folder = tempfile::tempdir().unwrap();
        let first = lock(folder.path()).unwrap();
        assert!(lock(folder.path()).err().unwrap().to_string().contains("another agent"));
        drop(first);
        assert!(lock(folder.path()).is_ok());
    }

    #[test]
    fn replacing_leaves_no_draft_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("positions.json");
        replace(&path, &[b"a"]).unwrap();
        replace(&path, &[b"b", b"c"]).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "bc");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
