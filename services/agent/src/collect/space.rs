//! How full the host's file systems are.

use std::path::Path;

use anyhow::Context as _;

use super::disk::{self, Capacity};
use super::sheet::Sheet;
use crate::host_root::HostRoot;
use crate::procfs::disk::{Mount, data_mounts, under};

/// A file system that does not answer is left out; the error of the last one is reported.
pub fn fill(sheet: &mut Sheet, root: &HostRoot) -> anyhow::Result<()> {
    let mut outcome = Ok(());
    for mount in mounts(root)? {
        match capacity(&root.path(&mount.mountpoint)) {
            Ok(Some(capacity)) => disk::fill_space(sheet, &mount, capacity),
            Ok(None) => {}
            Err(error) => outcome = Err(error),
        }
    }
    outcome
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
