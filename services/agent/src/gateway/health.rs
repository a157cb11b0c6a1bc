//! Whether exports get through, for `/readyz` and for whoever waits to try again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lifecycle::{CancellationToken, Ready};
use tokio::sync::watch;
use tokio::time::Instant;

const LOOK_INTERVAL: Duration = Duration::from_secs(1);

struct Last {
    success: Option<Instant>,
    failure: String,
}

/// Clones share it.
#[derive(Clone)]
pub struct Health {
    ready: Ready,
    /// How old the last success may be.
    patience: Duration,
    last: Arc<Mutex<Last>>,
    successes: watch::Sender<()>,
}

impl Health {
    pub fn new(ready: Ready, patience: Duration) -> Self {
        let last = Arc::new(Mutex::new(Last { success: None, failure: "nothing was sent".to_owned() }));
        Self { ready, patience, last, successes: watch::Sender::new(()) }
    }

    pub fn succeeded(&self) {
        self.last().success = Some(Instant::now());
        self.ready.up();
        self.successes.send_replace(());
    }

    pub fn failed(&self, reason: &str) {
        let mut last = self.last();
        reason.clone_into(&mut last.failure);
        if last.success.is_none() {
            self.ready.down(reason);
        }
    }

    /// Changes with each success: the gateway is back.
    pub fn successes(&self) -> watch::Receiver<()> {
        self.successes.subscribe()
    }

    /// Takes readiness back when successes fail to come.
    pub async fn watch(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(LOOK_INTERVAL);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.cancelled() => return,
            }
            let last = self.last();
            let since = last.success.map(|success| success.elapsed());
            if let Some(since) = since.filter(|since| *since > self.patience) {
                self.ready.down(format!("no export has succeeded for {} s: {}", since.as_secs(), last.failure));
            }
        }
    }

    fn last(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
