//! What a verifier knows: auth's keys and what auth took back.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use fault::Fault;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

use crate::revoked::{Revocation, Revoked};
use crate::token::{Audience, invalid};
use crate::{Credential, Keys};

/// The shortest time between two questions that unknown key ids can cause: anybody can make one up.
pub(crate) const AT_MOST: Duration = Duration::from_secs(5);
/// How long a request waits for a key that it needs.
const PATIENCE: Duration = Duration::from_secs(3);

/// A key set, how many sets were withdrawn before it, and what was taken back.
pub(crate) struct Known {
    pub(crate) keys: Keys,
    pub(crate) generation: u64,
    pub(crate) revoked: Revoked,
}

/// How the last attempts to ask went.
#[derive(Clone, Copy, Default)]
pub(crate) struct Attempts {
    pub(crate) made: u64,
    pub(crate) last: Option<Instant>,
    pub(crate) succeeded: bool,
}

/// Where a verifier looks. Clones share it.
#[derive(Clone)]
pub(crate) struct Source {
    known: Arc<ArcSwapOption<Known>>,
    changes: Arc<watch::Sender<u64>>,
    attempts: watch::Receiver<Attempts>,
    wanted: Arc<Notify>,
}

impl Source {
    /// A source that whoever holds `attempts` fills.
    pub(crate) fn empty(attempts: watch::Receiver<Attempts>) -> Self {
        Self { known: Arc::default(), changes: Arc::new(watch::channel(0).0), attempts, wanted: Arc::default() }
    }

    /// A source that needs nobody.
    pub(crate) fn fixed(keys: Keys) -> Self {
        // The sender is gone at once, so nobody waits for an attempt that will never be made.
        let source = Self::empty(watch::channel(Attempts { made: 1, last: None, succeeded: true }).1);
        source.publish(keys, []);
        source
    }

    /// Puts `keys` in place of the former ones, and adds `revocations` to what is taken back.
    pub(crate) fn publish(&self, keys: Keys, revocations: impl IntoIterator<Item = Revocation>) {
        let before = self.known.load_full();
        let generation = match &before {
            None => 0,
            Some(before) if before.keys.all_in(&keys) => before.generation,
            Some(before) => before.generation + 1,
        };
        let now = SystemTime::now();
        let revoked = match &before {
            None => Revoked::default().with(revocations, now),
            Some(before) => before.revoked.with(revocations, now),
        };
        self.known.store(Some(Arc::new(Known { keys, generation, revoked })));
        self.changes.send_modify(|changes| *changes += 1);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.known.load().is_none()
    }

    pub(crate) fn known(&self) -> fault::Result<Arc<Known>> {
        self.known.load_full().ok_or_else(|| away("the keys were never fetched"))
    }

    /// How many things are taken back.
    pub(crate) fn revoked(&self) -> usize {
        self.known.load().as_ref().map_or(0, |known| known.revoked.len())
    }

    /// Resolves when `credential` is taken back. Cancelling it loses nothing.
    pub(crate) async fn until_revoked(&self, credential: &Credential) {
        let mut changes = self.changes.subscribe();
        while !self.known.load().as_ref().is_some_and(|known| known.revoked.covers(credential)) {
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Resolves when a request wants an answer sooner than it would come by itself.
    pub(crate) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// What is known with the key `id` in it, after one question if need be.
    pub(crate) async fn with_key(&self, id: &str, audience: Audience) -> fault::Result<Arc<Known>> {
        let known = self.known()?;
        if known.keys.get(id).is_some() {
            return Ok(known);
        }
        let mut attempts = self.attempts.clone();
        let before = *attempts.borrow();
        let fresh = before.succeeded && before.last.is_some_and(|last| last.elapsed() < AT_MOST);
        if !fresh {
            self.wanted.notify_one();
            let _ = timeout(PATIENCE, attempts.wait_for(|now| now.made > before.made)).await;
        }
        let known = self.known()?;
        let after = *attempts.borrow();
        if known.keys.get(id).is_some() {
            Ok(known)
        } else if after.succeeded {
            Err(invalid(audience))
        } else {
            // Auth may have made this key while we could not ask: that is no reason to turn anybody away for good.
            Err(away("the token names a key that is not known here"))
        }
    }
}

fn away(cause: &'static str) -> Fault {
    Fault::unavailable(
        "auth_unavailable",
        "tokens cannot be verified at the moment; try again shortly",
        anyhow::anyhow!(cause),
    )
}
