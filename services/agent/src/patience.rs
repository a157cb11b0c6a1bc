//! Waits for work that reads files, without being held up by a file system that never answers: a dead network mount or
//! device blocks whoever asks it, for ever and beyond any signal.

use std::time::Duration;

use lifecycle::{CancellationToken, Ready};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// So long a file system may take before it is called dead.
const PATIENCE: Duration = Duration::from_secs(30);
/// What a stop waits for work that is under way.
const LAST_PATIENCE: Duration = Duration::from_secs(3);

/// Runs `work` on a thread of its own and gives its result; nothing if it has none soon after `stop`. While it takes too
/// long, the agent is not ready and says why.
///
/// # Errors
/// It panicked.
pub async fn run<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
    what: &str,
    ready: &Ready,
    stop: &CancellationToken,
) -> anyhow::Result<Option<T>> {
    wait(tokio::task::spawn_blocking(work), what, ready, stop, (PATIENCE, LAST_PATIENCE)).await
}

async fn wait<T>(
    mut work: JoinHandle<T>,
    what: &str,
    ready: &Ready,
    stop: &CancellationToken,
    (patience, last_patience): (Duration, Duration),
) -> anyhow::Result<Option<T>> {
    let stopped = async {
        stop.cancelled().await;
        tokio::time::sleep(last_patience).await;
    };
    tokio::pin!(stopped);
    let began = Instant::now();
    loop {
        tokio::select! {
            done = &mut work => {
                ready.up();
                return Ok(Some(done?));
            }
            () = &mut stopped => return Ok(None),
            () = tokio::time::sleep(patience) => {
                let seconds = began.elapsed().as_secs();
                let reason = format!("{what} are being read for {seconds} s: a file system does not answer");
                tracing::error!(reason, "the agent is held up");
                ready.down(reason);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_that_never_ends_is_told_of_and_holds_no_stop_up() {
        let process = lifecycle::Process::for_test();
        let (ready, stop) = (process.ready("logs"), CancellationToken::new());
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let work = tokio::task::spawn_blocking(move || ended.recv().is_err());
        let soon = Duration::from_millis(1);
        let told = || process.missing()["logs"].contains("does not answer");
        let watch = async {
            while !told() {
                tokio::task::yield_now().await;
            }
            stop.cancel();
        };
        let (outcome, ()) = tokio::join!(wait(work, "log files", &ready, &stop, (soon, soon)), watch);
        assert_eq!(outcome.unwrap(), None);
        drop(end);
    }

    #[tokio::test]
    async fn work_that_ends_is_ready() {
        let process = lifecycle::Process::for_test();
        let ready = process.ready("logs");
        let done = run(|| 7, "log files", &ready, &process.stopping()).await.unwrap();
        assert_eq!((done, process.missing().contains_key("logs")), (Some(7), false));
    }
}
