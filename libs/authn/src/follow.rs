//! Follows auth: its keys, and what it takes back.
//!
//! One question is always waiting at auth, which answers when there is news, so a revocation is here a moment after it was
//! made, and after [`WAIT`] without any, so that a broken connection shows. While auth is away what is known holds, keys and
//! revocations alike: nobody gets in who could not before, and nobody is turned away.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use lifecycle::{Process, Ready};
use proto::auth::auth_client::AuthClient;
use proto::auth::{FollowRequest, FollowResponse};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::Keys;
use crate::known::{AT_MOST, Attempts, Source};
use crate::revoked::Revocation;

/// How long auth may keep a question. It is also the longest time for which a verifier does not know of a new key while
/// auth answers, which auth's announcements build upon.
pub const WAIT: Duration = Duration::from_secs(10);
/// Beyond what auth was asked to wait.
const ANSWER: Duration = Duration::from_secs(3);
/// Between attempts while nothing is known at all, when every answer is `Unavailable`.
const FIRST: Duration = Duration::from_millis(500);
/// Between attempts while auth is away.
const AGAIN: Duration = Duration::from_secs(2);
/// Between two answers, however fast auth gives them.
const BREATH: Duration = Duration::from_millis(50);

telemetry::metrics! {
    /// Of the one verifier that a process has.
    struct Metrics in "sightline_verifier" {
        /// Sessions and tokens that are taken back and have not ended by themselves
        revoked: Gauge,
        /// Seconds since auth last said what holds; it says so every ten
        age [Seconds]: FloatGauge,
    }
}

/// A source that a supervised task of `process` fills.
pub(crate) fn source(auth: rpc::Channel, process: &Process) -> Source {
    let (attempts, receiver) = watch::channel(Attempts::default());
    let source = Source::empty(receiver);
    let follower = Follower {
        client: AuthClient::new(auth),
        source: source.clone(),
        attempts,
        ready: process.ready("keys"),
        metrics: process.register(Metrics::register),
        revision: 0,
        keys_version: String::new(),
        caught_up: false,
        asked: None,
        heard: Instant::now(),
    };
    let stopping = process.stopping();
    process.spawn("follow auth", async move {
        stopping.run_until_cancelled_owned(follower.run()).await;
        Ok(())
    });
    source
}

struct Follower {
    client: AuthClient<rpc::Channel>,
    source: Source,
    attempts: watch::Sender<Attempts>,
    ready: Ready,
    metrics: Metrics,
    revision: u64,
    keys_version: String,
    /// Nothing is left to be told, so the next question may wait.
    caught_up: bool,
    /// When a request last made us ask out of turn.
    asked: Option<Instant>,
    heard: Instant,
}

impl Follower {
    async fn run(mut self) {
        loop {
            let succeeded = match self.ask().await {
                Ok(answer) => self.take(answer),
                Err(error) => Err(error),
            };
            if let Err(error) = &succeeded {
                self.failed(error);
            }
            let made = self.attempts.borrow().made + 1;
            self.attempts.send_replace(Attempts { made, last: Some(Instant::now()), succeeded: succeeded.is_ok() });
            self.metrics.age.set(self.heard.elapsed().as_secs_f64());
            self.pause(succeeded.is_ok()).await;
        }
    }

    /// One question. A request that names an unknown key cuts the wait short.
    async fn ask(&mut self) -> anyhow::Result<FollowResponse> {
        if self.caught_up && self.asked.is_none_or(|asked| asked.elapsed() >= AT_MOST) {
            let (question, source) = (self.question(WAIT), self.source.clone());
            tokio::select! {
                answer = question => return answer,
                () = source.wanted() => self.asked = Some(Instant::now()),
            }
        } else if self.caught_up {
            return self.question(WAIT).await;
        }
        self.question(Duration::ZERO).await
    }

    fn question(&self, wait: Duration) -> impl Future<Output = anyhow::Result<FollowResponse>> + use<> {
        let mut client = self.client.clone();
        let request = FollowRequest {
            after: self.revision,
            keys_version: self.keys_version.clone(),
            wait_millis: u32::try_from(wait.as_millis()).unwrap_or_default(),
        };
        async move {
            let answer = timeout(wait + ANSWER, client.follow(request)).await.context("wait for auth")?;
            Ok(answer.context("ask auth what holds")?.into_inner())
        }
    }

    fn take(&mut self, answer: FollowResponse) -> anyhow::Result<()> {
        let keys = Keys::parse(&answer.jwks_json)?;
        let expires = |nano| UNIX_EPOCH.checked_add(Duration::from_nanos(nano)).unwrap_or(SystemTime::UNIX_EPOCH);
        let revocations = answer.revocations.into_iter();
        let revocations =
            revocations.map(|revoked| Revocation { id: revoked.id, expires: expires(revoked.expires_unix_nano) });
        self.source.publish(keys, revocations);
        (self.revision, self.keys_version, self.caught_up) = (answer.revision, answer.keys_version, !answer.more);
        self.heard = Instant::now();
        self.metrics.revoked.set(i64::try_from(self.source.revoked()).unwrap_or(i64::MAX));
        if self.caught_up {
            self.ready.up();
        }
        Ok(())
    }

    fn failed(&self, error: &anyhow::Error) {
        let first = self.source.is_empty();
        if first {
            self.ready.down("auth has not given its public keys yet");
        }
        // Told when it begins, not every time: it may last.
        let before = *self.attempts.borrow();
        if before.succeeded || before.made == 0 {
            tracing::warn!(error = format!("{error:#}"), first, "cannot ask auth which keys and revocations hold");
        }
    }

    async fn pause(&self, succeeded: bool) {
        let pause = match (succeeded, self.source.is_empty()) {
            (true, _) => BREATH,
            (false, true) => FIRST,
            (false, false) => AGAIN,
        };
        tokio::time::sleep(pause).await;
    }
}
