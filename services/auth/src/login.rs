//! Letting people in, or not.

use std::sync::Arc;
use std::time::Instant;

use fault::{Fault, Kind};
use proto::auth::{LoginRequest, Tokens};

use crate::limits::{Limits, Refused};
use crate::metrics::{LoginOutcome, Metrics};
use crate::password::Hasher;
use crate::session::Sessions;
use crate::store::{Account, Attempt, Store};

/// Where nothing else is said. Every installation has it.
pub const DEFAULT_TENANT: &str = "default";
/// Long enough for any name and passphrase; what is longer only costs memory.
const MAX_NAME_BYTES: usize = 256;
const MAX_PASSWORD_BYTES: usize = 1024;

enum Verdict {
    Right(Account),
    Wrong,
}

/// Judges login attempts.
#[derive(Clone)]
pub struct Logins {
    store: Store,
    hasher: Hasher,
    sessions: Sessions,
    limits: Arc<Limits>,
    metrics: Metrics,
}

impl Logins {
    /// Logins of the users in `store`.
    #[must_use]
    pub fn new(store: Store, hasher: Hasher, sessions: Sessions, metrics: Metrics) -> Self {
        Self { store, hasher, sessions, limits: Arc::default(), metrics }
    }

    /// Lets a user in.
    ///
    /// # Errors
    /// Unauthenticated, the same for every way of being wrong; Limited; Postgres.
    pub async fn attempt(&self, request: &LoginRequest) -> fault::Result<Tokens> {
        let tenant = if request.tenant.is_empty() { DEFAULT_TENANT } else { &request.tenant };
        check(tenant, request)?;
        let attempt = Attempt { tenant, username: &request.username, source: &request.remote_address };
        let taken = match self.limits.take(tenant, &request.username, &request.remote_address, Instant::now()) {
            Ok(taken) => taken,
            Err(refused) => return Err(self.limited(attempt, refused).await?),
        };
        let judged = self.judge(attempt, &request.password).await;
        // Only a wrong guess costs anything: neither a good login nor trouble of ours.
        if !matches!(judged, Ok(Verdict::Wrong)) {
            taken.give_back();
        }
        match judged? {
            Verdict::Right(account) => self.sessions.open(account, attempt.source).await,
            Verdict::Wrong => Err(wrong()),
        }
    }

    async fn judge(&self, attempt: Attempt<'_>, password: &str) -> fault::Result<Verdict> {
        let known = self.store.credentials(attempt.tenant, attempt.username).await?;
        let phc = known.as_ref().map(|user| user.password_hash.as_str());
        let right = self.hasher.verify(password, phc).await?;
        let outcome = match &known {
            None => LoginOutcome::UnknownUser,
            Some(_) if !right => LoginOutcome::WrongPassword,
            Some(user) if user.disabled => LoginOutcome::Disabled,
            Some(_) => LoginOutcome::Succeeded,
        };
        self.metrics.login(outcome);
        self.store.record(attempt, outcome, known.as_ref().map(|user| user.account.id)).await?;
        match known {
            Some(user) if outcome == LoginOutcome::Succeeded => Ok(Verdict::Right(user.account)),
            _ => {
                let (tenant, source) = (attempt.tenant, attempt.source);
                tracing::info!(tenant, source, outcome = outcome.as_str(), "login refused");
                Ok(Verdict::Wrong)
            }
        }
    }

    async fn limited(&self, attempt: Attempt<'_>, refused: Refused) -> fault::Result<Fault> {
        self.metrics.login(LoginOutcome::Limited);
        // Later refusals are only counted, or a flood of logins would become a flood of rows.
        if refused.first {
            tracing::warn!(tenant = attempt.tenant, source = attempt.source, "too many failed logins from one source");
            self.store.record(attempt, LoginOutcome::Limited, None).await?;
        }
        let seconds = refused.retry_after.as_secs().max(1);
        let detail = format!("too many failed logins; try again in {seconds} s");
        Ok(Fault::new(Kind::Limited, "logins_limited", detail).retry_after(refused.retry_after))
    }
}

fn check(tenant: &str, request: &LoginRequest) -> fault::Result<()> {
    let mut fields = Vec::new();
    for (path, text, longest) in [
        ("tenant", tenant, MAX_NAME_BYTES),
        ("username", request.username.as_str(), MAX_NAME_BYTES),
        ("password", request.password.as_str(), MAX_PASSWORD_BYTES),
        ("remote_address", request.remote_address.as_str(), MAX_NAME_BYTES),
    ] {
        let wrong = if text.len() > longest {
            format!("must not be longer than {longest} bytes")
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
