//! How full the host's file systems are.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::disk::{self, Capacity};
use super::sheet::Sheet;
use crate::host_root::HostRoot;
use crate::procfs::disk::{Mount, data_mounts, under};

/// How long one file system may take to answer; it costs the others no more than that, once.
const PATIENCE: Duration = Duration::from_secs(1);

type Answer = anyhow::Result<Option<Capacity>>;

/// Asks each file system on a thread of its own: who asks a dead one waits for ever.
#[derive(Debug, Default)]
pub struct Space {
    /// Those that have not answered yet.
    asked: HashMap<PathBuf, Receiver<Answer>>,
}

impl Space {
    /// A file system that does not answer is left out; the error of the last one is reported.
    pub fn fill(&mut self, sheet: &mut Sheet, root: &HostRoot) -> anyhow::Result<()> {
        let mut outcome = Ok(());
        for mount in mounts(root)? {
            match self.ask(&root.path(&mount.mountpoint), PATIENCE, capacity) {
                Ok(Some(capacity)) => disk::fill_space(sheet, &mount, capacity),
                Ok(None) => {}
                Err(error) => outcome = Err(error),
            }
        }
        outcome
    }

    fn ask(&mut self, place: &Path, patience: Duration, measure: fn(&Path) -> Answer) -> Answer {
        let (receiver, patience) = match self.asked.remove(place) {
            Some(receiver) => (receiver, Duration::ZERO),
            None => {
                let (sender, receiver) = mpsc::channel();
                let place = place.to_owned();
                let ask = move || drop(sender.send(measure(&place)));
                std::thread::Builder::new().name("statvfs".to_owned()).spawn(ask).context("start a thread")?;
                (receiver, patience)
            }
        };
        match receiver.recv_timeout(patience) {
            Ok(answer) => answer,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                self.asked.insert(place.to_owned(), receiver);
                bail!("{} does not answer", place.display())
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => bail!("measuring {} panicked", place.display()),
        }
    }
}

/// Seen from a container, the host's mounts are those of its first process; where that may not be looked into, they are
/// the container's own below the folder where the host is mounted.
fn mounts(root: &HostRoot) -> anyhow::Result<Vec<Mount>> {
    let filesystems = root.read("/proc/filesystems")?;
    if root.is_own() {
        return Ok(data_mounts(&root.read("/proc/self/mountinfo")?, &filesystems));
    }
    if let Ok(text) = root.read("/proc/1/mountinfo") {
        return Ok(data_mounts(&text, &filesystems));
    }
    let own = std::fs::read_to_string("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    Ok(data_mounts(&under(&own, root.as_path()), &filesystems))
}

/// Nothing of a single file that is mounted somewhere, as containers have several of the host's: it is no disk.
fn capacity(mountpoint: &Path) -> anyhow::Result<Option<Capacity>> {
    let measure = || format!("measure {}", mountpoint.display());
    if !std::fs::symlink_metadata(mountpoint).with_context(measure)?.is_dir() {
        return Ok(None);
    }
    let answer = rustix::fs::statvfs(mountpoint).with_context(measure)?;
    Ok(Some(Capacity {
        block_bytes: answer.f_frsize,
        blocks: answer.f_blocks,
        blocks_free: answer.f_bfree,
        blocks_available: answer.f_bavail,
        inodes: answer.f_files,
        inodes_free: answer.f_ffree,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_that_does_not_answer_is_asked_once_and_costs_the_others_nothing() {
        fn never(_: &Path) -> Answer {
            loop {
                std::thread::park();
            }
        }
        let mut space = Space::default();
        let (dead, alive) = (Path::new("/dead"), Path::new("/"));
        let soon = Duration::from_millis(1);
        assert!(space.ask(dead, soon, never).is_err());
        // Whoever would wait for it now would wait for an hour.
        let hour = Duration::from_secs(3600);
        assert!(space.ask(dead, hour, |_| panic!("it is asked again")).unwrap_err().to_string().contains("not answer"));
        assert!(space.ask(alive, hour, capacity).unwrap().is_some());
    }

    #[test]
    fn a_file_is_no_disk() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(capacity(file.path()).unwrap(), None);
    }
}
