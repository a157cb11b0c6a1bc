//! Whether exports get through, for `/readyz` and for whoever waits to try again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lifecycle::{CancellationToken, Ready};
use tokio::sync::watch;
use tokio::time::Instant;

const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Clones share it.
#[derive(Clone)]
pub struct Health {
    ready: Ready,
    /// How old the last success may be.
    patience: Duration,
    last: Arc<Mutex<(Instant, String)>>,
    successes: watch::Sender<()>,
}

impl Health {
    pub fn new(ready: Ready, patience: Duration) -> Self {
        let last = Arc::new(Mutex::new((Instant::now(), "nothing was sent yet".to_owned())));
        Self { ready, patience, last, successes: watch::Sender::new(()) }
    }

    pub fn succeeded(&self) {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).0 = Instant::now();
        self.ready.up();
        self.successes.send_replace(());
    }

    pub fn failed(&self, reason: &str) {
        reason.clone_into(&mut self.last.lock().unwrap_or_else(PoisonError::into_inner).1);
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
            let (last, reason) = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if last.elapsed() > self.patience {
                self.ready.down(format!("no export has succeeded for {} s: {reason}", last.elapsed().as_secs()));
            }
        }
    }
}
