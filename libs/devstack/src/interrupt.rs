//! Turns Ctrl-C, SIGTERM and a closed terminal into flags that every wait looks at.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// How long a wait may sleep before it looks at the flag again.
const GLANCE: Duration = Duration::from_millis(50);

/// The error of whatever was cut short.
#[derive(Debug)]
pub struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

#[derive(Clone, Default)]
pub struct Interrupt {
    received: Arc<AtomicBool>,
}

impl Interrupt {
    /// Takes over the process's stop signals; from here on they only raise the flag.
    pub fn install() -> Result<Self> {
        let interrupt = Self::default();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&interrupt.received)).context("install signal flag")?;
        }
        Ok(interrupt)
    }

    pub fn requested(&self) -> bool {
        self.received.load(Ordering::Relaxed)
    }

    /// Lowers the flag, so that a second signal can be told from the first.
    pub fn acknowledge(&self) {
        self.received.store(false, Ordering::Relaxed);
    }

    pub fn check(&self) -> Result<()> {
        if self.requested() {
            return Err(Interrupted.into());
        }
        Ok(())
    }

    /// Polls `ready` until it answers, the deadline passes (`None`) or somebody interrupts (an error).
    pub fn wait_for<T>(&self, deadline: Duration, mut ready: impl FnMut() -> Result<Option<T>>) -> Result<Option<T>> {
        let end = Instant::now() + deadline;
        loop {
            if let Some(value) = ready()? {
                return Ok(Some(value));
            }
            self.check()?;
            if Instant::now() >= end {
                return Ok(None);
            }
            std::thread::sleep(GLANCE);
        }
    }
}
