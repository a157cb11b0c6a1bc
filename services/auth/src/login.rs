//! Letting people in, or not.

use std::sync::Arc;
use std::time::SystemTime;

use fault::{Fault, Kind};
use proto::auth::{LoginRequest, Tokens};

use crate::limits::{Bucket, Limits, Refused, network};
use crate::marks::{DEVICE_LIFETIME, Marks};
use crate::metrics::{LoginOutcome, Metrics};
use crate::password::Hasher;
use crate::session::Sessions;
use crate::store::{Account, Attempt, Credentials, Store};

/// Where nothing else is said. Every installation has it.
pub const DEFAULT_TENANT: &str = "default";
/// Long enough for any name and passphrase; what is longer only costs memory.
const MAX_NAME: usize = 256;
const MAX_PASSWORD: usize = 1024;

enum Verdict {
    Right(Account),
    Wrong,
}

/// Judges login attempts.
#[derive(Clone)]
pub struct Logins {
    pub(crate) store: Store,
    pub(crate) hasher: Hasher,
    pub(crate) sessions: Sessions,
    pub(crate) limits: Arc<Limits>,
    pub(crate) marks: Marks,
    pub(crate) metrics: Metrics,
}

impl Logins {
    /// Lets a user in.
    ///
    /// # Errors
    /// Unauthenticated, the same for every way of being wrong; Limited; Postgres.
    pub async fn attempt(&self, request: &LoginRequest) -> fault::Result<Tokens> {
        let tenant = if request.tenant.is_empty() { DEFAULT_TENANT } else { &request.tenant };
        check(tenant, request)?;
        let source = network(&request.remote_address);
        let attempt = Attempt { tenant, username: &request.username, source: &source };
        let known = self.store.credentials(attempt).await?;
        let buckets = self.buckets(attempt, &request.device, known.as_ref());
        if let Err(refused) = self.limits.take(&buckets).await {
            return Err(self.limited(attempt, known.as_ref(), refused).await?);
        }
        let judged = self.judge(attempt, known, &request.password).await;
        // Only a wrong guess costs anything: neither a good login nor trouble of ours.
        if !matches!(judged, Ok(Verdict::Wrong)) {
            self.limits.give_back(&buckets).await;
        }
        match judged? {
            Verdict::Right(account) => {
                let device = self.marks.device(account.id, SystemTime::now());
                let tokens = self.sessions.open(account, attempt.source).await?.ok_or_else(wrong)?;
                Ok(Tokens { device, device_expires_in_seconds: DEVICE_LIFETIME.as_secs(), ..tokens })
            }
            Verdict::Wrong => Err(wrong()),
        }
    }

    fn buckets(&self, attempt: Attempt<'_>, device: &str, known: Option<&Credentials>) -> Vec<Bucket> {
        let user = known.map(|user| user.account.id);
        if user.is_some_and(|user| self.marks.is_device_of(device, user, SystemTime::now())) {
            return vec![Bucket::device(device)];
        }
        let account = Bucket::account(attempt.tenant, attempt.username, attempt.source);
        if known.is_some_and(|user| user.remembered) {
            return vec![account];
        }
        vec![account, Bucket::source(attempt.tenant, attempt.source)]
    }

    async fn judge(&self, attempt: Attempt<'_>, known: Option<Credentials>, password: &str) -> fault::Result<Verdict> {
        let phc = known.as_ref().map(|user| user.password_hash.as_str());
        let right = self.hasher.verify(password, phc).await?;
        let outcome = match &known {
            None => LoginOutcome::UnknownUser,
            Some(_) if !right => LoginOutcome::WrongPassword,
            Some(user) if user.disabled => LoginOutcome::Disabled,
            Some(_) => LoginOutcome::Succeeded,
        };
        self.metrics.login(outcome);
        self.record(attempt, known.as_ref(), outcome).await?;
        match known {
            Some(user) if outcome == LoginOutcome::Succeeded => Ok(Verdict::Right(user.account)),
            _ => {
                let (tenant, source) = (attempt.tenant, attempt.source);
                tracing::info!(tenant, source, outcome = outcome.as_str(), "login refused");
                Ok(Verdict::Wrong)
            }
        }
    }

    async fn limited(
        &self,
        attempt: Attempt<'_>,
        known: Option<&Credentials>,
        refused: Refused,
    ) -> fault::Result<Fault> {
        self.metrics.login(LoginOutcome::Limited);
        // Later refusals are only counted, or a flood of logins would become a flood of rows.
        if refused.first {
            tracing::warn!(tenant = attempt.tenant, source = attempt.source, "too many failed logins from one source");
            self.record(attempt, known, LoginOutcome::Limited).await?;
        }
        let seconds = refused.retry_after.as_secs().max(1);
        let detail = format!("too many failed logins; try again in {seconds} s");
        Ok(Fault::new(Kind::Limited, "logins_limited", detail).retry_after(refused.retry_after))
    }

    async fn record(
        &self,
        attempt: Attempt<'_>,
        known: Option<&Credentials>,
        outcome: LoginOutcome,
    ) -> fault::Result<()> {
        let user = known.map(|user| user.account.id);
        let mark = self.marks.unknown_name(attempt.username);
        let username = known.map_or(mark.as_str(), |user| user.account.username.as_str());
        self.store.record(Attempt { username, ..attempt }, outcome, user).await
    }
}

fn check(tenant: &str, request: &LoginRequest) -> fault::Result<()> {
    let mut fields = Vec::new();
    for (path, text, longest) in [
        ("tenant", tenant, MAX_NAME),
        ("username", request.username.as_str(), MAX_NAME),
        ("password", request.password.as_str(), MAX_PASSWORD),
        ("remote_address", request.remote_address.as_str(), MAX_NAME),
    ] {
        let wrong = if text.chars().count() > longest {
            format!("must not be longer than {longest} characters")
        } else if text.is_empty() && path != "remote_address" {
            "must not be empty".to_owned()
        } else if text.contains('\0') {
            "must not contain NUL".to_owned()
        } else {
            continue;
        };
        fields.push(fault::Field { path: path.to_owned(), message: wrong });
    }
    if fields.is_empty() { Ok(()) } else { Err(Fault::fields(fields)) }
}

fn wrong() -> Fault {
    Fault::new(Kind::Unauthenticated, "login_failed", "the username or the password is wrong")
}
