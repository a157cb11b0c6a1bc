//! Puts the service together.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use lifecycle::Process;
use proto::auth::auth_server::AuthServer;
use rpc::Identity;
use seal::Seal;
use tonic::service::Routes;

use crate::bootstrap;
use crate::config::{Config, Settings};
use crate::grpc::Api;
use crate::keyring::Keyring;
use crate::limits::Limits;
use crate::login::Logins;
use crate::metrics::Metrics;
use crate::password::Hasher;
use crate::session::Sessions;
use crate::store::{MIGRATIONS, Store, sweep};

/// Starts everything; returns when the service can answer.
///
/// # Errors
/// What cannot be repaired by waiting: bad settings, a taken port, no admin and no way to make one.
pub async fn run(config: Config, process: Process) -> anyhow::Result<()> {
    let identity = Identity::load(&config.tls)?;
    serve(&config.auth, &config.store, &identity, &process).await.map(|_| ())
}

/// As [`run`], and tells where the API listens.
///
/// # Errors
/// As [`run`].
pub async fn serve(
    settings: &Settings,
    database: &::store::Settings,
    identity: &Identity,
    process: &Process,
) -> anyhow::Result<SocketAddr> {
    let metrics = process.register(Metrics::register);
    let pools = ::store::open(process, database, "auth", MIGRATIONS).await?;
    let hasher = Hasher::new(metrics.clone()).context("prepare password hashing")?;
    let seal = Seal::from_file(settings.encryption_key_file.as_deref(), "SIGHTLINE_AUTH_ENCRYPTION_KEY_FILE")?;
    let marks = bootstrap::prepare(&pools.work, &hasher, &seal, settings.initial_password_file.as_deref()).await?;
    let store = Store::new(pools);
    let limits = Arc::new(Limits::new(&settings.redis_url, &settings.namespace, metrics.clone())?);
    let (keyring, verifier) = Keyring::load(store.clone(), seal, metrics.clone(), process.stopping()).await?;
    process.spawn("keep keys", keyring.clone().keep(process.ready("keys")));
    process.spawn("sweep sessions", sweep(store.clone(), process.stopping()));
    let sessions =
        Sessions::new(store.clone(), keyring.clone(), Arc::clone(&limits), settings.refresh_leeway, metrics.clone());
    let logins =
        Logins { store: store.clone(), hasher, sessions: sessions.clone(), limits, marks, metrics: metrics.clone() };
    let api = Api {
        logins,
        sessions,
        verifier,
        keyring,
        store,
        agent_token_lifetime: settings.agent_token_lifetime,
        key_announcement: settings.key_announcement,
        metrics,
    };
    rpc::serve(process, "auth", identity, settings.grpc_listen, Routes::new(AuthServer::new(api))).await
}
