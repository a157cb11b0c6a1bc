//! Waiting for a condition, with its last state in the failure.

use std::fmt::Display;
use std::time::{Duration, Instant};

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
