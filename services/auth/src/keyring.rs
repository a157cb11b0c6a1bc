//! What verifiers are told: the keys and what was taken back, kept in memory by each replica and read again from Postgres
//! every half second, so that what one replica does is known to all, and to those who follow them, at once.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use authn::{Feed, Keys, Revocation, Signer, Verifier};
use data_encoding::HEXLOWER;
use fault::{Fault, Kind};
use lifecycle::{CancellationToken, Ready};
use proto::auth::{FollowRequest, FollowResponse};
use seal::Seal;
use sha2::{Digest as _, Sha256};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

use crate::keyset::{self, Key};
use crate::metrics::Metrics;
use crate::store::{Revoked, Store};

const EVERY: Duration = Duration::from_millis(500);
/// After so long without a look at Postgres nothing is said of what holds.
const OLD: Duration = Duration::from_secs(5);
/// In one answer; a revocation is about 50 bytes.
const MOST_AT_ONCE: usize = 5_000;

/// What holds now.
struct Held {
    keys: Vec<Key>,
    signer: Signer,
    jwks: String,
    version: String,
    /// By rising revision.
    revoked: Vec<Revoked>,
    revision: i64,
}

/// The keys and revocations of this replica. Clones share them.
#[derive(Clone)]
pub struct Keyring {
    held: Arc<watch::Sender<Arc<Held>>>,
    /// When reading what is held began the last time that it ended well.
    read_at: Arc<Mutex<Instant>>,
    store: Store,
    seal: Arc<Seal>,
    feed: Arc<Feed>,
    changed: Arc<Notify>,
    metrics: Metrics,
    stopping: CancellationToken,
}

impl Keyring {
    /// Reads everything once; gives the verifier that auth itself uses.
    ///
    /// # Errors
    /// Postgres; keys that cannot be read.
    pub async fn load(
        store: Store,
        seal: Seal,
        metrics: Metrics,
        stopping: CancellationToken,
    ) -> anyhow::Result<(Self, Verifier)> {
        let held = Held::load(&store, &seal, None).await?;
        let keys = Keys::parse(&held.jwks).context("publish the keys")?;
        let (verifier, feed) = Verifier::fed(keys);
        let keyring = Self {
            held: Arc::new(watch::channel(Arc::new(held)).0),
            read_at: Arc::new(Mutex::new(Instant::now())),
            store,
            seal: Arc::new(seal),
            feed: Arc::new(feed),
            changed: Arc::default(),
            metrics,
            stopping,
        };
        keyring.tell()?;
        Ok((keyring, verifier))
    }

    /// The key that signs now.
    #[must_use]
    pub fn signer(&self) -> Signer {
        self.held.borrow().signer.clone()
    }

    /// All keys, newest first.
    #[must_use]
    pub fn keys(&self) -> Vec<Key> {
        self.held.borrow().keys.clone()
    }

    /// The published key set.
    #[must_use]
    pub fn jwks(&self) -> String {
        self.held.borrow().jwks.clone()
    }

    pub(crate) fn seal(&self) -> &Seal {
        &self.seal
    }

    /// Reads again now: this replica has just changed something.
    ///
    /// # Errors
    /// Postgres.
    pub async fn reload(&self) -> anyhow::Result<()> {
        let (before, begun) = (self.held.borrow().clone(), Instant::now());
        let held = Held::load(&self.store, &self.seal, Some(&before)).await?;
        *self.read_at.lock().unwrap_or_else(PoisonError::into_inner) = begun;
        self.held.send_if_modified(|held_now| {
            let news = (held.revision, &held.version) != (held_now.revision, &held_now.version);
            *held_now = Arc::new(held);
            news
        });
        self.tell()
    }

    /// As [`Keyring::reload`], soon, for callers that need not wait for it.
    pub fn nudge(&self) {
        self.changed.notify_one();
    }

    /// Answers a verifier when there is news for it, or when its time is up.
    ///
    /// # Errors
    /// What is held here may be old: another replica may know better, and the verifier keeps what it knows.
    pub async fn follow(&self, request: &FollowRequest) -> fault::Result<FollowResponse> {
        let after = i64::try_from(request.after).unwrap_or_default();
        let mut held = self.held.subscribe();
        let news = held.wait_for(|held| held.revision != after || held.version != request.keys_version);
        let wait = Duration::from_millis(request.wait_millis.into()).min(authn::WAIT);
        tokio::select! {
            _ = news => {}
            () = tokio::time::sleep(wait) => {}
            () = self.until_old() => {}
            () = self.stopping.cancelled() => {}
        }
        if self.is_old() {
            let detail = "this replica cannot read which keys and revocations hold; ask another";
            return Err(Fault::new(Kind::Unavailable, "keys_unknown", detail).retry_after(EVERY));
        }
        let held = self.held.borrow().clone();
        Ok(held.answer(after))
    }

    async fn until_old(&self) {
        while !self.is_old() {
            tokio::time::sleep(EVERY).await;
        }
    }

    fn is_old(&self) -> bool {
        self.read_at.lock().unwrap_or_else(PoisonError::into_inner).elapsed() > OLD
    }

    /// Keeps reading until the process stops, and says in `ready` when it cannot.
    ///
    /// # Errors
    /// None: what fails is tried again, and what was read holds until then.
    pub async fn keep(self, ready: Ready) -> anyhow::Result<()> {
        ready.up();
        loop {
            tokio::select! {
                () = self.stopping.cancelled() => return Ok(()),
                () = self.changed.notified() => {}
                () = tokio::time::sleep(EVERY) => {}
            }
            match timeout(OLD, self.reload()).await.unwrap_or_else(|_| Err(anyhow::anyhow!("Postgres does not answer")))
            {
                Ok(()) => ready.up(),
                Err(error) if self.is_old() => {
                    ready.down(format!("it cannot be read which keys and revocations hold: {error:#}"));
                }
                Err(error) => tracing::debug!(error = format!("{error:#}"), "cannot read keys and revocations"),
            }
        }
    }

    fn tell(&self) -> anyhow::Result<()> {
        let held = self.held.borrow().clone();
        let revocations = held
            .revoked
            .iter()
            .map(|revoked| Revocation { id: revoked.id.to_string(), expires: revoked.expires_at.into() });
        self.feed.publish(Keys::parse(&held.jwks).context("publish the keys")?, revocations);
        self.metrics.keys.set(count(held.keys.iter().filter(|key| !key.retired).count()));
        self.metrics.revocations.set(count(held.revoked.len()));
        Ok(())
    }
}

impl Held {
    async fn load(store: &Store, seal: &Seal, before: Option<&Held>) -> anyhow::Result<Self> {
        let rows = store.keys().await.context("read the keys")?;
        let known = |id: &str| before.and_then(|held| held.keys.iter().find(|key| key.signer.key_id() == id));
        let mut keys = Vec::with_capacity(rows.len());
        for row in rows {
            // Opened once: the rest of a row's life is in the times.
            let signer = match known(&row.id) {
                Some(key) => key.signer.clone(),
                None => Signer::from_pkcs8(&seal.open(&row.id, &row.kept)?)?,
            };
            keys.push(Key { signer, active_for: row.active_for, retired: row.retired });
        }
        let signer = keyset::active(&keys).context("there is no key that may sign")?.signer.clone();
        let jwks = keyset::jwks(&keys);
        let version = HEXLOWER.encode(&Sha256::digest(jwks.as_bytes())[..8]);
        let (mut revoked, mut revision) = before.map_or((Vec::new(), 0), |held| (held.revoked.clone(), held.revision));
        revoked.extend(store.revoked_after(revision).await.context("read the revocations")?);
        if let Some(last) = revoked.last() {
            revision = revision.max(last.revision);
        }
        let now = SystemTime::now();
        revoked.retain(|revoked| SystemTime::from(revoked.expires_at) > now);
        Ok(Self { keys, signer, jwks, version, revoked, revision })
    }

    fn answer(&self, after: i64) -> FollowResponse {
        // Who is ahead of us followed a database that is no more, or a replica that is faster: told everything, they miss
        // nothing.
        let after = if after > self.revision { 0 } else { after };
        let news = &self.revoked[self.revoked.partition_point(|revoked| revoked.revision <= after)..];
        let told = &news[..news.len().min(MOST_AT_ONCE)];
        let more = told.len() < news.len();
        let revision = told.last().filter(|_| more).map_or(self.revision, |last| last.revision);
        FollowResponse {
            jwks_json: self.jwks.clone(),
            keys_version: self.version.clone(),
            revocations: told.iter().map(message).collect(),
            revision: u64::try_from(revision).unwrap_or_default(),
            more,
        }
    }
}

fn message(revoked: &Revoked) -> proto::auth::Revocation {
    proto::auth::Revocation { id: revoked.id.to_string(), expires_unix_nano: unix_nano(revoked.expires_at.into()) }
}

pub(crate) fn unix_nano(time: SystemTime) -> u64 {
    let nanos = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    u64::try_from(nanos).unwrap_or(u64::MAX)
}

fn count(items: usize) -> i64 {
    i64::try_from(items).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;
    use uuid::Uuid;

    use super::*;

    fn held(revisions: std::ops::RangeInclusive<i64>) -> Held {
        let signer = Signer::generate().unwrap();
        let keys = vec![Key { signer: signer.clone(), active_for: 1.0, retired: false }];
        let expires_at = OffsetDateTime::now_utc() + Duration::from_secs(60);
        let revision = *revisions.end();
        let revoked = revisions.map(|revision| Revoked { revision, id: Uuid::new_v4(), expires_at }).collect();
        Held { jwks: keyset::jwks(&keys), keys, signer, version: "v".into(), revoked, revision }
    }

    #[test]
    fn a_verifier_is_told_all_that_it_does_not_know_in_pieces() {
        let held = held(1..=12_000);
        let (mut after, mut told, mut answers) = (0, 0, 0);
        loop {
            let answer = held.answer(after);
            told += answer.revocations.len();
            answers += 1;
            after = i64::try_from(answer.revision).unwrap();
            if !answer.more {
                break;
            }
        }
        assert_eq!((told, answers, after), (12_000, 3, 12_000));
        assert!(held.answer(12_000).revocations.is_empty());
    }

    #[test]
    fn a_verifier_that_is_ahead_is_told_everything() {
        let answer = held(1..=3).answer(900);
        assert_eq!((answer.revocations.len(), answer.revision), (3, 3));
    }
}
