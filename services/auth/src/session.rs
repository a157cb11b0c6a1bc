//! Sessions: a login and the tokens that descend from it.

use std::time::{Duration, SystemTime};

use authn::{Permission, Signer};
use data_encoding::BASE64URL_NOPAD;
use fault::{Fault, Kind};
use proto::auth::{Tokens, User};
use sha2::{Digest as _, Sha256};

use crate::metrics::{Metrics, RefreshOutcome};
use crate::store::{Account, Rotation, Store};

/// Short, because nothing can take an access token back.
pub const ACCESS_LIFETIME: Duration = Duration::from_secs(10 * 60);
/// From the login, however often it is refreshed.
pub const SESSION_LIFETIME: Duration = Duration::from_secs(14 * 24 * 60 * 60);
/// Lets secret scanners recognise what leaked.
const PREFIX: &str = "slr_";

/// SHA-256 of a refresh token. The token has 256 random bits, so a slow hash would add nothing.
pub type TokenHash = [u8; 32];

/// Opens, renews and ends sessions.
#[derive(Clone)]
pub struct Sessions {
    store: Store,
    signer: Signer,
    metrics: Metrics,
}

impl Sessions {
    /// Sessions in `store`, whose access tokens `signer` signs.
    #[must_use]
    pub fn new(store: Store, signer: Signer, metrics: Metrics) -> Self {
        Self { store, signer, metrics }
    }

    /// The first tokens of a session for `account`, which has just proved who it is.
    ///
    /// # Errors
    /// Postgres.
    pub async fn open(&self, account: Account, source: &str) -> fault::Result<Tokens> {
        let refresh = new_token()?;
        self.store.open_session(&account, source, &hash(&refresh), SESSION_LIFETIME).await?;
        self.tokens(account, refresh)
    }

    /// The next tokens for the one that `refresh` is good for.
    ///
    /// # Errors
    /// Unauthenticated when the token is not good any more; Postgres.
    pub async fn rotate(&self, refresh: &str) -> fault::Result<Tokens> {
        let next = new_token()?;
        match self.store.rotate(&hash(refresh), &hash(&next)).await? {
            Rotation::Rotated(account) => {
                self.metrics.refresh(RefreshOutcome::Rotated);
                self.tokens(account, next)
            }
            Rotation::Reused { session, user } => {
                self.metrics.refresh(RefreshOutcome::Reused);
                tracing::warn!(%session, %user, "a refresh token was used twice; the session is over");
                Err(over())
            }
            Rotation::Refused => {
                self.metrics.refresh(RefreshOutcome::Refused);
                Err(over())
            }
        }
    }

    /// Ends the session of `refresh`. One that has ended already, or never was, stays so.
    ///
    /// # Errors
    /// Postgres.
    pub async fn close(&self, refresh: &str) -> fault::Result<()> {
        self.store.close_session(&hash(refresh)).await
    }

    fn tokens(&self, account: Account, refresh_token: String) -> fault::Result<Tokens> {
        let permissions: Vec<Permission> =
            account.permissions.iter().filter_map(|name| Permission::named(name)).collect();
        let id = account.id.to_string();
        let access = self
            .signer
            .user(&account.tenant, &id, &permissions, SystemTime::now(), ACCESS_LIFETIME)
            .map_err(Fault::internal)?;
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
        })
    }
}

/// One answer for every reason: which one it was is for the log.
fn over() -> Fault {
    Fault::new(Kind::Unauthenticated, "session_over", "the session is over; log in again")
}

fn new_token() -> fault::Result<String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| Fault::internal(anyhow::anyhow!("get random bytes: {error}")))?;
    Ok(format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&bytes)))
}

fn hash(token: &str) -> TokenHash {
    Sha256::digest(token.as_bytes()).into()
}
