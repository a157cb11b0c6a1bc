//! Puts the service together.

use std::net::SocketAddr;

use anyhow::Context as _;
use authn::{Keys, Verifier};
use lifecycle::Process;
use proto::auth::auth_server::AuthServer;
use rpc::Identity;
use tonic::service::Routes;

use crate::bootstrap;
use crate::config::{Config, Settings};
use crate::grpc::Api;
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
    let pool = ::store::open(process, database, "auth", MIGRATIONS).await?.work;
    let hasher = Hasher::new(metrics.clone()).context("prepare password hashing")?;
    let signer = bootstrap::prepare(&pool, &hasher, settings.initial_password_file.as_deref()).await?;
    let keys = Keys::parse(&signer.jwks()).context("publish the signing key")?;
    let store = Store::new(pool);
    process.spawn("sweep sessions", sweep(store.clone(), process.stopping()));
    let sessions = Sessions::new(store.clone(), signer.clone(), metrics.clone());
    let api = Api {
        logins: Logins::new(store.clone(), hasher, sessions.clone(), metrics.clone()),
        sessions,
        verifier: Verifier::fixed(keys),
        signer,
        store,
        agent_token_lifetime: settings.agent_token_lifetime,
        metrics,
    };
    rpc::serve(process, "auth", identity, settings.grpc_listen, Routes::new(AuthServer::new(api))).await
}
