//! The running process as its parts see it: tasks, flags, metrics, and the word to stop.

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, error, warn};

use crate::ready::{Flags, Ready};

/// Handle on the running process; clones share it.
#[derive(Clone)]
pub struct Process {
    inner: Arc<Inner>,
}

struct Inner {
    stopping: CancellationToken,
    draining: CancellationToken,
    started: AtomicBool,
    tasks: TaskTracker,
    running: Mutex<BTreeMap<u64, &'static str>>,
    failures: (mpsc::UnboundedSender<anyhow::Error>, tokio::sync::Mutex<mpsc::UnboundedReceiver<anyhow::Error>>),
    flags: Flags,
    metrics: Mutex<Registry>,
    deadline: Duration,
}

impl Process {
    pub(crate) fn new(deadline: Duration) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        let inner = Inner {
            stopping: CancellationToken::new(),
            draining: CancellationToken::new(),
            started: AtomicBool::new(false),
            tasks: TaskTracker::new(),
            running: Mutex::default(),
            failures: (sender, tokio::sync::Mutex::new(receiver)),
            flags: Flags::default(),
            metrics: Mutex::new(Registry::default()),
            deadline,
        };
        Self { inner: Arc::new(inner) }
    }

    /// A process inside a test: no signals, no admin server. End it with [`Process::stop`].
    #[must_use]
    pub fn for_test() -> Self {
        crate::install_crypto();
        let process = Self::new(Duration::from_secs(10));
        process.started();
        process
    }

    /// Cancelled when drain begins: every loop and every open stream selects on it.
    #[must_use]
    pub fn stopping(&self) -> CancellationToken {
        self.inner.stopping.clone()
    }

    /// Cancelled when the process is no longer ready, at the beginning of its lame duck time: what is begun elsewhere from now
    /// on is cheaper than what is begun here.
    #[must_use]
    pub fn draining(&self) -> CancellationToken {
        self.inner.draining.clone()
    }

    /// Runs `task` until the process stops. If it ends earlier, or panics, the process goes down and says its name.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        let inner = Arc::clone(&self.inner);
        let id = inner.enter(name);
        let span = tracing::info_span!("task", name);
        let watched = async move {
            let outcome = CatchUnwind(AssertUnwindSafe(Box::pin(task))).await;
            inner.leave(id);
            let failure = match outcome {
                Err(()) => anyhow::anyhow!("task `{name}` panicked"),
                Ok(Err(error)) => error.context(format!("task `{name}` failed")),
                Ok(Ok(())) if inner.stopping.is_cancelled() => return,
                Ok(Ok(())) => anyhow::anyhow!("task `{name}` ended, but the process did not stop"),
            };
            if inner.stopping.is_cancelled() {
                warn!(error = format!("{failure:#}"), "task failed while stopping");
            }
            // Nobody listens any more only when the process is ending for another reason, which is logged.
            let _ = inner.failures.0.send(failure);
        };
        self.inner.tasks.spawn(watched.instrument(span));
    }

    /// Adds a flag to `/readyz`. It begins missing, with the reason "starting".
    #[must_use]
    pub fn ready(&self, what: &'static str) -> Ready {
        self.inner.flags.add(what)
    }

    /// Registers metrics with what `/metrics` shows.
    pub fn register<T>(&self, register: impl FnOnce(&mut Registry) -> T) -> T {
        register(&mut self.inner.metrics.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What is missing for `/readyz`; empty when ready.
    #[must_use]
    pub fn missing(&self) -> BTreeMap<&'static str, String> {
        let mut missing = self.inner.flags.missing();
        if self.inner.draining.is_cancelled() {
            missing.insert("process", "stopping".to_owned());
        } else if !self.inner.started.load(Ordering::Acquire) {
            missing.insert("process", "starting".to_owned());
        }
        missing
    }

    /// Drains and waits for every task; for tests, and for whoever owns a process of its own.
    pub async fn stop(self) {
        self.begin_drain();
        self.finish().await;
    }

    pub(crate) fn started(&self) {
        self.inner.started.store(true, Ordering::Release);
    }

    pub(crate) fn begin_drain(&self) {
        self.inner.draining.cancel();
    }

    pub(crate) async fn finish(&self) {
        self.inner.stopping.cancel();
        self.inner.tasks.close();
        if tokio::time::timeout(self.inner.deadline, self.inner.tasks.wait()).await.is_err() {
            let running = self.inner.running.lock().unwrap_or_else(PoisonError::into_inner);
            let names: Vec<_> = running.values().collect();
            error!(?names, "the shutdown deadline passed; these tasks are cut off");
        }
    }

    pub(crate) async fn first_failure(&self) -> anyhow::Error {
        match self.inner.failures.1.lock().await.recv().await {
            Some(failure) => failure,
            // The sender lives as long as this handle.
            None => std::future::pending().await,
        }
    }

    pub(crate) fn encode_metrics(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        let registry = self.inner.metrics.lock().unwrap_or_else(PoisonError::into_inner);
        prometheus_client::encoding::text::encode(&mut text, &registry)?;
        Ok(text)
    }
}

impl Inner {
    fn enter(&self, name: &'static str) -> u64 {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let id = running.last_key_value().map_or(0, |(id, _)| id + 1);
        running.insert(id, name);
        id
    }

    fn leave(&self, id: u64) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }
}

/// Turns a panic into an error, so that the task's name is known when it is reported.
struct CatchUnwind<F>(AssertUnwindSafe<std::pin::Pin<Box<F>>>);

impl<F: Future> Future for CatchUnwind<F> {
    type Output = Result<F::Output, ()>;

    fn poll(mut self: std::pin::Pin<&mut Self>, context: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
        let task = self.0.0.as_mut();
        match std::panic::catch_unwind(AssertUnwindSafe(|| task.poll(context))) {
            Ok(poll) => poll.map(Ok),
            Err(_) => std::task::Poll::Ready(Err(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_early_is_named() {
        let process = Process::for_test();
        process.spawn("sweeper", async { Ok(()) });
        assert!(process.first_failure().await.to_string().contains("sweeper"));
    }

    #[tokio::test]
    async fn a_panic_is_named() {
        let process = Process::for_test();
        process.spawn("reader", async { panic!("on purpose") });
        assert!(process.first_failure().await.to_string().contains("reader"));
    }

    #[tokio::test]
    async fn stop_waits_for_tasks_that_heed_the_token() {
        let process = Process::for_test();
        let stopping = process.stopping();
        let (sender, receiver) = tokio::sync::oneshot::channel();
        process.spawn("writer", async move {
            stopping.cancelled().await;
            sender.send("flushed").map_err(|_| anyhow::anyhow!("nobody waits"))
        });
        assert!(process.missing().is_empty());
        process.stop().await;
        assert_eq!(receiver.await.unwrap(), "flushed");
    }
}
