//! The owner's work on one shard: a lane for each of its signals, which know nothing of each other.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bus::{Bus, Envelope};
use lifecycle::CancellationToken;
use tokio::sync::watch;

use crate::config::Rules;
use crate::lane;
use crate::metrics::Metrics;
use crate::rule_set::RuleSet;
use crate::signal::Signal;
use crate::store::{Attempt, LaneId, Store};

/// What every shard of a replica works with.
#[derive(Clone)]
pub struct Tools {
    pub bus: Bus,
    pub store: Store,
    pub sets: watch::Receiver<Arc<RuleSet>>,
    pub metrics: Metrics,
    pub settings: Arc<Rules>,
    /// Sees each envelope before it is evaluated, on the thread that evaluates: tests let it panic or hang.
    pub witness: fn(&Envelope),
}

/// How an owner is told to end, and what it shows.
#[derive(Clone)]
pub struct Control {
    /// Save and end.
    pub release: CancellationToken,
    /// Somebody else may own the shard: end at once, saving nothing.
    pub lost: CancellationToken,
    /// What each lane is at.
    pub lanes: [Progress; 2],
}

impl Control {
    /// For a new owner.
    #[must_use]
    pub fn new() -> Self {
        Self {
            release: CancellationToken::new(),
            lost: CancellationToken::new(),
            lanes: Signal::ALL.map(|_| Progress::default()),
        }
    }
}

impl Default for Control {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether a lane comes along. Clones share it.
#[derive(Debug, Clone)]
pub struct Progress {
    state: Arc<Mutex<State>>,
    /// When the last snapshot was saved, in Unix milliseconds; 0 when none was.
    pub saved_ms: Arc<AtomicU64>,
}

#[derive(Debug)]
struct State {
    alive: Instant,
    hand: Option<Hand>,
}

/// A message that is being evaluated.
#[derive(Debug, Clone, Copy)]
pub struct Hand {
    /// Which one.
    pub message: Attempt,
    /// Since when.
    pub since: Instant,
    /// Whether it was noted as an attempt.
    pub is_noted: bool,
}

impl Default for Progress {
    fn default() -> Self {
        let state = State { alive: Instant::now(), hand: None };
        Self { state: Arc::new(Mutex::new(state)), saved_ms: Arc::default() }
    }
}

impl Progress {
    /// Something that shows that it comes along.
    pub fn alive(&self) {
        self.with(|state| state.alive = Instant::now());
    }

    /// Begins with a message.
    pub fn begin(&self, message: Attempt, is_noted: bool) {
        self.with(|state| state.hand = Some(Hand { message, since: Instant::now(), is_noted }));
    }

    /// Is done with it; gives what is known of it.
    pub fn end(&self) -> Option<Hand> {
        self.with(|state| {
            state.alive = Instant::now();
            state.hand.take()
        })
    }

    /// The message in hand, if it has been for so long and was not noted; from now on it is.
    #[must_use]
    pub fn note_if_slow(&self, after: Duration) -> Option<Hand> {
        self.with(|state| {
            let hand = state.hand.as_mut().filter(|hand| !hand.is_noted && hand.since.elapsed() >= after)?;
            hand.is_noted = true;
            Some(*hand)
        })
    }

    /// For how long nothing has shown that it comes along.
    #[must_use]
    pub fn still_for(&self) -> Duration {
        self.with(|state| state.alive.elapsed())
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Owns a shard until told otherwise.
pub async fn own(number: u16, epoch: i64, tools: Tools, control: Control) {
    // A shard is owned whole: where one lane ends, the other saves and ends too.
    let release = control.release.child_token();
    let lanes = Signal::ALL.iter().zip(control.lanes.clone()).map(|(signal, progress)| {
        let id = LaneId { number, signal: *signal };
        let (tools, release) = (tools.clone(), release.clone());
        async move {
            let ended = lane::run(id, epoch, tools, progress, release.clone()).await;
            release.cancel();
            match ended {
                Ok(()) => tracing::info!(lane = %id, epoch, "lane released"),
                Err(reason) => tracing::warn!(lane = %id, epoch, %reason, "lane left without a last snapshot"),
            }
        }
    });
    tokio::select! {
        () = control.lost.cancelled() => tracing::warn!(shard = number, epoch, "shard lost; its evaluation stops here"),
        _ = futures::future::join_all(lanes) => {}
    }
}
