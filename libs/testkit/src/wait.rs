//! Waiting for a condition, with its last state in the failure; and what a process says of itself.

use std::fmt::Display;
use std::time::{Duration, Instant};

use lifecycle::Process;

/// Tries `attempt` until it succeeds, for `patience` at the most.
///
/// # Panics
/// When time is up; says `what` was waited for and what the last attempt said.
pub async fn eventually<T, E: Display>(
    what: &str,
    patience: Duration,
    mut attempt: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let begun = Instant::now();
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(error) if begun.elapsed() > patience => panic!("{what} did not happen within {patience:?}: {error}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// The value of a metric of `process`, by its name with its labels.
#[must_use]
pub fn metric(process: &Process, name: &str) -> Option<u64> {
    let text = process.register(|registry| {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
        text
    });
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

/// Waits until `process` misses nothing.
///
/// # Panics
/// It does not become ready; says what it misses.
pub async fn until_ready(process: &Process, patience: Duration) {
    eventually("readiness", patience, async || match process.missing() {
        missing if missing.is_empty() => Ok(()),
        missing => Err(format!("{missing:?}")),
    })
    .await;
}

/// Waits until `process` misses `what`; gives the reason that `/readyz` shows.
///
/// # Panics
/// It stays ready.
pub async fn until_missing(process: &Process, what: &str, patience: Duration) -> String {
    eventually("unreadiness", patience, async || process.missing().remove(what).ok_or("nothing is missing")).await
}
