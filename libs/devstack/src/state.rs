//! What a running `cargo dev up` leaves for the other commands: a lock that names it, and `state.json`.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::process::start_time;

/// Held while `up` runs. The kernel lets go of it however that ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    pub fn take(state: &Path) -> Result<Self> {
        let path = lock_path(state);
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .with_context(|| format!("open {}", path.display()))?;
        match lock_past_glances(&file) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let pid = read_pid(&mut file).map_or_else(|| "unknown".to_owned(), |pid| pid.to_string());
                bail!("`cargo dev up` runs already (pid {pid}); `cargo dev down` stops it");
            }
            Err(TryLockError::Error(error)) => return Err(error).context("lock the state folder"),
        }
        file.set_len(0).context("empty the lock file")?;
        file.rewind().context("rewind the lock file")?;
        writeln!(file, "{}", std::process::id()).context("write the lock file")?;
        Ok(Self { _file: file })
    }

    /// The pid of the running `up`, if one runs.
    pub fn holder(state: &Path) -> Option<u32> {
        let mut file = File::open(lock_path(state)).ok()?;
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => read_pid(&mut file),
            _ => None,
        }
    }
}

/// Whoever asks for the holder holds a shared lock for a moment; that is no reason to give up.
fn lock_past_glances(file: &File) -> Result<(), TryLockError> {
    for _ in 0..10 {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(20)),
            outcome => return outcome,
        }
    }
    file.try_lock()
}

fn lock_path(state: &Path) -> PathBuf {
    state.join("lock")
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// One child as the supervisor sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Child {
    pub name: String,
    pub pid: Option<u32>,
    /// With the pid, names one process for good.
    pub start_time: Option<u64>,
    pub restarts: u64,
    /// Why it last ended, or why it has not started yet.
    pub reason: Option<String>,
    /// `host:port` of its admin listener; empty for servers.
    pub admin: String,
    /// Where clients reach it; empty for services.
    pub url: String,
    pub monitor: Option<String>,
    /// Of a server's program, for servers that do not tell it themselves.
    pub version: String,
}

/// A picture of the running stack.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Picture {
    pub api: String,
    pub processes: Vec<Child>,
    pub servers: Vec<Child>,
}

impl Picture {
    /// `None` if nothing was ever written or what is there cannot be read.
    pub fn load(state: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(path(state)).ok()?;
        let value: Value = serde_json::from_str(&text).ok()?;
        let children =
            |name: &str| value[name].as_array().map(|list| list.iter().map(child).collect()).unwrap_or_default();
        Some(Self { api: text_of(&value["api"]), processes: children("processes"), servers: children("servers") })
    }

    /// Written beside and renamed, so that a reader never sees half of it.
    pub fn save(&self, state: &Path) -> Result<()> {
        let children = |list: &[Child]| list.iter().map(value_of).collect::<Vec<_>>();
        let value =
            json!({"api": self.api, "processes": children(&self.processes), "servers": children(&self.servers)});
        let beside = state.join("state.json.new");
        std::fs::write(&beside, value.to_string()).context("write state.json")?;
        std::fs::rename(&beside, path(state)).context("put state.json in its place")
    }

    /// Children of this picture that are still alive: the same process, not a later one with its number.
    pub fn living(&self) -> Vec<&Child> {
        let all = self.processes.iter().chain(&self.servers);
        all.filter(|child| child.start_time.is_some() && child.pid.and_then(start_time) == child.start_time).collect()
    }
}

fn path(state: &Path) -> PathBuf {
    state.join("state.json")
}

fn value_of(child: &Child) -> Value {
    json!({
        "name": child.name, "pid": child.pid, "start_time": child.start_time, "restarts": child.restarts,
        "reason": child.reason, "admin": child.admin, "url": child.url, "monitor": child.monitor, "version": child.version,
    })
}

fn child(value: &Value) -> Child {
    Child {
        name: text_of(&value["name"]),
        pid: value["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()),
        start_time: value["start_time"].as_u64(),
        restarts: value["restarts"].as_u64().unwrap_or_default(),
        reason: value["reason"].as_str().map(str::to_owned),
        admin: text_of(&value["admin"]),
        url: text_of(&value["url"]),
        monitor: value["monitor"].as_str().map(str::to_owned),
        version: text_of(&value["version"]),
    }
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_taker_is_told_who_holds_the_lock() {
        let state = tempfile::tempdir().unwrap();
        assert_eq!(Lock::holder(state.path()), None);
        let lock = Lock::take(state.path()).unwrap();
        let error = Lock::take(state.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("pid {}", std::process::id())), "{error}");
        assert_eq!(Lock::holder(state.path()), Some(std::process::id()));
        drop(lock);
        assert_eq!(Lock::holder(state.path()), None);
        Lock::take(state.path()).unwrap();
    }

    #[test]
    fn a_picture_is_read_as_it_was_written() {
        let state = tempfile::tempdir().unwrap();
        let own = std::process::id();
        let alive =
            Child { name: "auth".into(), pid: Some(own), start_time: start_time(own), restarts: 2, ..Child::default() };
        let dead = Child {
            name: "registry".into(),
            pid: Some(own),
            start_time: Some(1),
            reason: Some("killed".into()),
            ..Child::default()
        };
        let picture =
            Picture { api: "127.0.0.1:8080".into(), processes: vec![alive.clone(), dead], servers: Vec::new() };
        picture.save(state.path()).unwrap();
        let read = Picture::load(state.path()).unwrap();
        assert_eq!(read, picture);
        assert_eq!(read.living(), [&alive]);
    }
}
