//! What is made from files, made again when they change: certificates are renewed while a process runs.
//!
//! Files are looked at when something is needed, at most every [`EVERY`]: no task, and nothing to do for who needs nothing.
//! Contents are compared, not times, since mounted secrets change by a link that moves.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;

pub(crate) const EVERY: Duration = Duration::from_secs(5);

type Make<T> = dyn Fn(&[Vec<u8>]) -> anyhow::Result<T> + Send + Sync;

/// A value made from files. Clones share it.
pub struct Reloading<T> {
    inner: Arc<Inner<T>>,
}

struct Inner<T> {
    paths: Vec<PathBuf>,
    make: Box<Make<T>>,
    every: Duration,
    state: Mutex<State<T>>,
}

struct State<T> {
    contents: Vec<Vec<u8>>,
    value: Arc<T>,
    looked: Instant,
    /// What was in the files when they could not be used, so that it is said once.
    refused: Option<String>,
}

impl<T> Clone for Reloading<T> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<T> Reloading<T> {
    /// What `make` makes of the contents of `paths`, which it gets in their order.
    ///
    /// # Errors
    /// Names the file that cannot be read; what `make` says.
    pub fn new(
        paths: Vec<PathBuf>,
        make: impl Fn(&[Vec<u8>]) -> anyhow::Result<T> + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        Self::every(EVERY, paths, make)
    }

    pub(crate) fn every(
        every: Duration,
        paths: Vec<PathBuf>,
        make: impl Fn(&[Vec<u8>]) -> anyhow::Result<T> + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let contents = read(&paths)?;
        let value = Arc::new(make(&contents)?);
        let state = Mutex::new(State { contents, value, looked: Instant::now(), refused: None });
        Ok(Self { inner: Arc::new(Inner { paths, make: Box::new(make), every, state }) })
    }

    /// A value that no file changes.
    pub fn fixed(value: T) -> Self {
        let state = State { contents: Vec::new(), value: Arc::new(value), looked: Instant::now(), refused: None };
        let make = |_: &[Vec<u8>]| anyhow::bail!("there is nothing to make it from");
        let inner = Inner { paths: Vec::new(), make: Box::new(make), every: EVERY, state: Mutex::new(state) };
        Self { inner: Arc::new(inner) }
    }

    /// The value by the files as they are now. Files that cannot be used change nothing: they may be half written.
    #[must_use]
    pub fn current(&self) -> Arc<T> {
        let mut state = self.inner.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.inner.paths.is_empty() && state.looked.elapsed() >= self.inner.every {
            state.looked = Instant::now();
            self.inner.look(&mut state);
        }
        Arc::clone(&state.value)
    }
}

impl<T> Inner<T> {
    fn look(&self, state: &mut State<T>) {
        let made = read(&self.paths).and_then(|contents| {
            if contents == state.contents {
                Ok(None)
            } else {
                (self.make)(&contents).map(|value| Some((contents, value)))
            }
        });
        match made {
            Ok(None) => state.refused = None,
            Ok(Some((contents, value))) => {
                tracing::info!(files = ?self.paths, "files have changed and are used from now on");
                *state = State { contents, value: Arc::new(value), looked: state.looked, refused: None };
            }
            Err(error) => {
                let error = format!("{error:#}");
                if state.refused.as_ref() != Some(&error) {
                    tracing::warn!(error, files = ?self.paths, "changed files cannot be used; what they held before stays in use");
                    state.refused = Some(error);
                }
            }
        }
    }
}

fn read(paths: &[PathBuf]) -> anyhow::Result<Vec<Vec<u8>>> {
    paths.iter().map(|path| std::fs::read(path).with_context(|| format!("read {}", path.display()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_follows_its_files_and_survives_what_cannot_be_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("number");
        let write = |text: &str| std::fs::write(&path, text).unwrap();
        write("1");
        let make = |contents: &[Vec<u8>]| Ok(std::str::from_utf8(&contents[0])?.parse::<u32>()?);
        let number = Reloading::every(Duration::ZERO, vec![path.clone()], make).unwrap();
        assert_eq!(*number.current(), 1);
        write("2");
        assert_eq!(*number.current(), 2);
        write("half of a num");
        assert_eq!(*number.current(), 2);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(*number.clone().current(), 2);
        write("3");
        assert_eq!(*number.current(), 3);
    }
}
