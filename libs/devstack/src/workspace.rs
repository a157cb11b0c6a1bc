//! The clone this program works for, and the folder of its state: `.dev`.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::account::{self, Account};

const LINK: &str = ".dev";
/// Reachable for every account and kept across boots.
const OPEN_PLACE: &str = "/var/tmp";

#[derive(Debug, Clone)]
pub struct Workspace {
    root: PathBuf,
    /// Of the profile that this program was built with, which is the one `up` and `test` use.
    bin: PathBuf,
}

impl Workspace {
    /// Looks upwards from the working directory. Call before anything is built: a rebuilt program has no path.
    pub fn find() -> Result<Self> {
        let here = std::env::current_dir().context("read the working directory")?;
        let root = here
            .ancestors()
            .find(|directory| directory.join("libs/devstack/Cargo.toml").is_file())
            .context("find Sightline's clone: call `cargo dev` inside it")?;
        let program = std::env::current_exe().context("find the own program")?;
        let bin = program.parent().context("find the own folder")?.to_owned();
        Ok(Self { root: root.canonicalize().context("resolve the clone's path")?, bin })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// Cargo's target folder.
    pub fn target(&self) -> PathBuf {
        self.bin.parent().map(Path::to_owned).unwrap_or_default()
    }

    pub fn release_bin(&self) -> PathBuf {
        self.bin.with_file_name("release")
    }

    /// Where `.dev` is, whether or not it exists.
    pub fn state(&self) -> PathBuf {
        let link = self.root.join(LINK);
        link.canonicalize().unwrap_or(link)
    }

    /// Makes `.dev`: a folder in the clone, or where PostgreSQL's account cannot come in, a link to an open place.
    pub fn prepare_state(&self, postgres: Option<&Account>) -> Result<PathBuf> {
        let link = self.root.join(LINK);
        let reachable = postgres.is_none_or(|account| account.can_enter(&self.root));
        if reachable {
            if link.is_symlink() && link.canonicalize().ok() != Some(self.outside()) {
                std::fs::remove_file(&link).context("remove a link of another clone")?;
            }
            if !link.exists() {
                make_own_directory(&link)?;
            }
        } else {
            self.link_outside(&link)?;
        }
        let state = link.canonicalize().context("resolve .dev")?;
        check_owner(&state)?;
        Ok(state)
    }

    fn link_outside(&self, link: &Path) -> Result<()> {
        let outside = self.outside();
        if link.is_symlink() {
            std::fs::remove_file(link).context("remove the old link .dev")?;
        } else if link.is_dir() {
            // Fails on purpose where it holds something: that is not ours to lose.
            std::fs::remove_dir(link).with_context(|| {
                format!(
                    "move {} away: PostgreSQL cannot reach it there, so the state has to be in {}",
                    link.display(),
                    outside.display()
                )
            })?;
        }
        if !outside.exists() {
            make_own_directory(&outside)?;
        }
        check_owner(&outside)?;
        std::os::unix::fs::symlink(&outside, link).context("link .dev")
    }

    fn outside(&self) -> PathBuf {
        Path::new(OPEN_PLACE).join(format!("sightline-{:016x}", fingerprint(self.root.as_os_str().as_encoded_bytes())))
    }
}

/// A folder for one run, reachable for PostgreSQL's account and removed afterwards. Leftovers of killed runs are
/// removed as well: each holds a lock as long as its owner lives.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    _lock: std::fs::File,
}

impl Scratch {
    const PREFIX: &'static str = "sightline-test-";

    pub fn create() -> Result<Self> {
        Self::create_named("servers")
    }

    /// `name` tells the folders of one process apart.
    pub fn create_named(name: &str) -> Result<Self> {
        remove_abandoned(Path::new(OPEN_PLACE));
        let path = Path::new(OPEN_PLACE).join(format!("{}{}-{name}", Self::PREFIX, std::process::id()));
        make_own_directory(&path)?;
        let lock = std::fs::File::create(path.join("lock")).context("create the scratch folder's lock")?;
        lock.try_lock().context("lock the scratch folder")?;
        Ok(Self { path, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

fn remove_abandoned(place: &Path) {
    let Ok(entries) = std::fs::read_dir(place) else {
        return;
    };
    for entry in entries.flatten() {
        let ours = entry.file_name().to_string_lossy().starts_with(Scratch::PREFIX)
            && entry.metadata().is_ok_and(|folder| folder.is_dir() && folder.uid() == account::current_uid());
        let lock = entry.path().join("lock");
        if ours && std::fs::File::open(&lock).is_ok_and(|file| file.try_lock().is_ok()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Fails if it exists: in a shared place, somebody else's folder of that name is a trap.
fn make_own_directory(path: &Path) -> Result<()> {
    std::fs::create_dir(path).with_context(|| format!("create {}", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
        .with_context(|| format!("open {}", path.display()))
}

fn check_owner(path: &Path) -> Result<()> {
    let folder = std::fs::symlink_metadata(path).with_context(|| format!("look at {}", path.display()))?;
    if !folder.is_dir() || folder.uid() != account::current_uid() {
        bail!("{} belongs to uid {}: call `cargo dev` as that user, or remove it", path.display(), folder.uid());
    }
    Ok(())
}

/// 64-bit FNV-1a: it tells clones apart and keeps no secret.
fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace(root: &Path) -> Workspace {
        Workspace { root: root.canonicalize().unwrap(), bin: root.join("target/debug") }
    }

    #[test]
    fn state_lies_in_a_reachable_clone() {
        let clone = tempfile::tempdir().unwrap();
        let state = workspace(clone.path()).prepare_state(None).unwrap();
        assert_eq!(state, clone.path().canonicalize().unwrap().join(".dev"));
        assert_eq!(workspace(clone.path()).prepare_state(None).unwrap(), state);
    }

    #[test]
    fn a_link_that_came_with_a_copied_clone_is_replaced() {
        let (clone, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::os::unix::fs::symlink(other.path(), clone.path().join(".dev")).unwrap();
        let state = workspace(clone.path()).prepare_state(None).unwrap();
        assert_eq!(state, clone.path().canonicalize().unwrap().join(".dev"));
    }

    #[test]
    fn clones_have_different_fingerprints() {
        assert_eq!(fingerprint(b""), 0xcbf2_9ce4_8422_2325);
        assert_ne!(fingerprint(b"/root/a"), fingerprint(b"/root/b"));
    }
}
