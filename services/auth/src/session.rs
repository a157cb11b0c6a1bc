//! Sessions: a login and the tokens that descend from it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use authn::{Permission, Subject};
use fault::{Fault, Kind};
use proto::auth::{RefreshRequest, Tokens, User};
use uuid::Uuid;

use crate::keyring::Keyring;
use crate::limits::{Bucket, Limits, network};
use crate::metrics::{Metrics, RefreshOutcome};
use crate::refresh;
use crate::store::{Account, Opened, Rotation, Store};

/// Short, so that what is not taken back ends soon too: a change of roles, say.
pub const ACCESS_LIFETIME: Duration = Duration::from_secs(10 * 60);
/// From the login, however often it is refreshed.
pub const SESSION_LIFETIME: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// Opens, renews and ends sessions.
#[derive(Clone)]
pub struct Sessions {
    store: Store,
    keyring: Keyring,
    limits: Arc<Limits>,
    leeway: Duration,
    metrics: Metrics,
}

impl Sessions {
    /// Sessions in `store`. For `leeway` after its first use a refresh token gives again what it gave then.
    #[must_use]
    pub fn new(store: Store, keyring: Keyring, limits: Arc<Limits>, leeway: Duration, metrics: Metrics) -> Self {
        Self { store, keyring, limits, leeway, metrics }
    }

    /// The first tokens of a session for `account`, which has just proved who it is; none where it was disabled meanwhile.
    ///
    /// # Errors
    /// Postgres.
    pub async fn open(&self, account: Account, source: &str) -> fault::Result<Option<Tokens>> {
        let (id, token) = (Uuid::new_v4(), refresh::first()?);
        let secret = refresh::random()?;
        let hash = refresh::hash(&token);
        let opened = Opened { id, user: account.id, source, secret, token: hash, lifetime: SESSION_LIFETIME };
        if !self.store.open_session(opened).await? {
            return Ok(None);
        }
        self.tokens(account, id, token).map(Some)
    }

    /// The next tokens for the one that `request` brings.
    ///
    /// # Errors
    /// Unauthenticated when the token is not good any more; Limited; Postgres.
    pub async fn rotate(&self, request: &RefreshRequest) -> fault::Result<Tokens> {
        let rotation = self.store.rotate(&request.refresh_token, self.leeway).await;
        // Only a token that is not good costs anything, and a good one passes whoever tries others from the same network.
        if matches!(rotation, Ok(Rotation::Refused)) {
            let buckets = [Bucket::refresh(&network(&request.remote_address))];
            if let Err(refused) = self.limits.take(&buckets).await {
                self.metrics.refresh(RefreshOutcome::Limited);
                let detail = "too many refresh tokens that are not good; try again in a second";
                return Err(Fault::new(Kind::Limited, "refreshes_limited", detail).retry_after(refused.retry_after));
            }
        }
        match rotation? {
            Rotation::Good { account, session, next, repeated } => {
                self.metrics.refresh(if repeated { RefreshOutcome::Repeated } else { RefreshOutcome::Rotated });
                self.tokens(account, session, next)
            }
            Rotation::Reused { session, user } => {
                self.metrics.refresh(RefreshOutcome::Reused);
                tracing::warn!(%session, %user, "a refresh token was used twice; the session is over");
                self.keyring.nudge();
                Err(over())
            }
            Rotation::Refused => {
                self.metrics.refresh(RefreshOutcome::Refused);
                Err(over())
            }
        }
    }

    /// Ends the session of `token`. One that has ended already, or never was, stays so.
    ///
    /// # Errors
    /// Postgres.
    pub async fn close(&self, token: &str) -> fault::Result<()> {
        self.store.close_session(&refresh::hash(token)).await?;
        self.keyring.nudge();
        Ok(())
    }

    fn tokens(&self, account: Account, session: Uuid, refresh_token: String) -> fault::Result<Tokens> {
        let permissions: Vec<Permission> =
            account.permissions.iter().filter_map(|name| Permission::named(name)).collect();
        let id = account.id.to_string();
        let subject = Subject { tenant: &account.tenant, id: &id, permissions: &permissions, session: Some(session) };
        let access =
            self.keyring.signer().session(subject, SystemTime::now(), ACCESS_LIFETIME).map_err(Fault::internal)?;
        Ok(Tokens {
            access_token: access.token,
            expires_in_seconds: ACCESS_LIFETIME.as_secs(),
            refresh_token,
            user: Some(User {
                id,
                tenant: account.tenant,
                username: account.username,
                roles: account.roles,
                permissions: account.permissions,
            }),
            ..Tokens::default()
        })
    }
}

/// One answer for every reason: which one it was is for the log.
fn over() -> Fault {
    Fault::new(Kind::Unauthenticated, "session_over", "the session is over; log in again")
}
