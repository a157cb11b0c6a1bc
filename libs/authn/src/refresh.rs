//! Keeps auth's public keys fresh.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwapOption;
use fault::Fault;
use lifecycle::{Process, Ready};
use proto::auth::GetKeysRequest;
use proto::auth::auth_client::AuthClient;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

use crate::Keys;
use crate::token::{Audience, invalid};

const EVERY: Duration = Duration::from_secs(60);
/// Also the shortest time between two fetches that unknown key ids can cause: anybody can make one up.
const AT_MOST: Duration = Duration::from_secs(5);
/// Between attempts while no keys are there at all, when every answer is `Unavailable`.
const FIRST: Duration = Duration::from_millis(500);
const FETCH: Duration = Duration::from_secs(3);

/// A key set, and how many sets were withdrawn before it.
pub(crate) struct Published {
    pub(crate) keys: Keys,
    pub(crate) generation: u64,
}

/// How the last attempts to fetch went.
#[derive(Clone, Copy, Default)]
struct Attempts {
    made: u64,
    last: Option<Instant>,
    succeeded: bool,
}

/// Where keys come from.
#[derive(Clone)]
pub(crate) struct Source {
    published: Arc<ArcSwapOption<Published>>,
    attempts: watch::Receiver<Attempts>,
    wanted: Arc<Notify>,
}

impl Source {
    pub(crate) fn fixed(keys: Keys) -> Self {
        // The sender is gone at once, so nobody waits for an attempt that will never be made.
        let attempts = watch::channel(Attempts { made: 1, last: None, succeeded: true }).1;
        let published = Arc::new(ArcSwapOption::from_pointee(Published { keys, generation: 0 }));
        Self { published, attempts, wanted: Arc::default() }
    }

    pub(crate) fn remote(auth: rpc::Channel, process: &Process) -> Self {
        let (attempts, receiver) = watch::channel(Attempts::default());
        let source = Self { published: Arc::default(), attempts: receiver, wanted: Arc::default() };
        let refresh =
            Refresh { client: AuthClient::new(auth), source: source.clone(), attempts, ready: process.ready("keys") };
        let stopping = process.stopping();
        process.spawn("refresh keys", async move {
            stopping.run_until_cancelled_owned(refresh.run()).await;
            Ok(())
        });
        source
    }

    /// Puts `keys` in place of the former ones.
    pub(crate) fn publish(&self, keys: Keys) {
        let before = self.published.load_full();
        let generation = match &before {
            None => 0,
            Some(before) if before.keys.all_in(&keys) => before.generation,
            Some(before) => before.generation + 1,
        };
        self.published.store(Some(Arc::new(Published { keys, generation })));
    }

    pub(crate) fn generation(&self) -> u64 {
        self.published.load().as_ref().map_or(0, |published| published.generation)
    }

    pub(crate) fn published(&self) -> fault::Result<Arc<Published>> {
        self.published.load_full().ok_or_else(|| away("the keys were never fetched"))
    }

    /// The key set with the key `id` in it, after one fetch if need be.
    pub(crate) async fn with_key(&self, id: &str, audience: Audience) -> fault::Result<Arc<Published>> {
        let published = self.published()?;
        if published.keys.get(id).is_some() {
            return Ok(published);
        }
        let mut attempts = self.attempts.clone();
        let before = *attempts.borrow();
        let fresh = before.succeeded && before.last.is_some_and(|last| last.elapsed() < AT_MOST);
        if !fresh {
            self.wanted.notify_one();
            let _ = timeout(FETCH, attempts.wait_for(|now| now.made > before.made)).await;
        }
        let published = self.published()?;
        let after = *attempts.borrow();
        if published.keys.get(id).is_some() {
            Ok(published)
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

struct Refresh {
    client: AuthClient<rpc::Channel>,
    source: Source,
    attempts: watch::Sender<Attempts>,
    ready: Ready,
}

impl Refresh {
    async fn run(mut self) {
        loop {
            let succeeded = self.attempt().await;
            let now = Attempts { made: self.attempts.borrow().made + 1, last: Some(Instant::now()), succeeded };
            self.attempts.send_replace(now);
            self.pause(succeeded).await;
        }
    }

    async fn pause(&self, succeeded: bool) {
        if self.source.published.load().is_none() {
            tokio::time::sleep(FIRST).await;
        } else {
            tokio::time::sleep(AT_MOST).await;
            if succeeded {
                let _ = timeout(EVERY - AT_MOST, self.source.wanted.notified()).await;
            }
        }
    }

    async fn attempt(&mut self) -> bool {
        match self.fetch().await {
            Ok(keys) => {
                self.source.publish(keys);
                self.ready.up();
                true
            }
            Err(error) => {
                let first = self.source.published.load().is_none();
                if first {
                    self.ready.down("auth has not given its public keys yet");
                }
                // Told when it begins, not every time: it may last.
                if self.attempts.borrow().succeeded || self.attempts.borrow().made == 0 {
                    tracing::warn!(error = format!("{error:#}"), first, "cannot fetch the public keys from auth");
                }
                false
            }
        }
    }

    async fn fetch(&mut self) -> anyhow::Result<Keys> {
        let answer = timeout(FETCH, self.client.get_keys(GetKeysRequest {})).await.context("wait for auth")?;
        Keys::parse(&answer.context("ask auth for its keys")?.into_inner().jwks_json)
    }
}
