//! How the installation is.

use authn::Permission;
use axum::Json;
use axum::extract::State;
use fault::Fault;
use serde::Serialize;
use utoipa::ToSchema;

use crate::state::{AppState, Caller};
use crate::status::Service;

/// Whose users see the account, which is of all tenants together.
const OWN_TENANT: &str = "default";

#[derive(Serialize, ToSchema)]
pub(crate) struct StatusAnswer {
    version: &'static str,
    services: Vec<Service>,
    /// Null for other tenants than the installation's own, and while nothing is known
    broker: Option<Broker>,
    /// What this answer lacks, or has only an old state of, and why; empty when it is whole
    missing: Vec<Missing>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Missing {
    /// `broker`
    part: &'static str,
    reason: String,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Broker {
    /// What a power cut can cost with the connected server and its settings
    durability: String,
    /// Seconds since the account was taken
    age_seconds: f64,
    /// One entry a stream, in messages: received = stored + passed + dead + in_flight + lost + unexplained + uncounted
    account: Vec<StreamAccount>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct StreamAccount {
    stream: String,
    /// The service that must handle each message; null where messages are only followed
    writer: Option<&'static str>,
    /// Acknowledged by the broker since the stream was made
    received: u64,
    /// Stored or handled, as the writer counted
    stored: u64,
    /// Held nothing to be stored
    passed: u64,
    /// Kept as dead letters, with reasons
    dead: u64,
    in_flight: u64,
    /// Gone without being stored: evicted, purged or deleted
    lost: u64,
    /// Acknowledged by the writer and not counted
    unexplained: u64,
    /// Acknowledged before counting began
    uncounted: u64,
    bytes: u64,
    max_bytes: u64,
}

impl From<bus::Account> for StreamAccount {
    fn from(account: bus::Account) -> Self {
        Self {
            stream: account.stream,
            writer: account.writer,
            received: account.received,
            stored: account.stored,
            passed: account.passed,
            dead: account.dead,
            in_flight: account.in_flight,
            lost: account.lost,
            unexplained: account.unexplained,
            uncounted: account.uncounted,
            bytes: account.bytes,
            max_bytes: account.max_bytes,
        }
    }
}

/// Readiness of every process, and the account of what was received, a few seconds old at the most while the broker is there.
/// Needs `status:read`.
#[utoipa::path(get, path = "/api/v1/status", tag = "status", responses((status = 200, body = StatusAnswer)))]
pub(crate) async fn get(State(state): State<AppState>, caller: Caller) -> Result<Json<StatusAnswer>, Fault> {
    caller.may(Permission::StatusRead)?;
    let own = caller.0.scope().tenant() == OWN_TENANT;
    let (counted, reason) = state.status.broker();
    let broker = counted.filter(|_| own).map(|counted| Broker {
        age_seconds: counted.age().as_secs_f64(),
        durability: counted.durability,
        account: counted.account.into_iter().map(StreamAccount::from).collect(),
    });
    let missing = reason.filter(|_| own).map(|reason| Missing { part: "broker", reason });
    Ok(Json(StatusAnswer {
        version: env!("CARGO_PKG_VERSION"),
        services: state.status.services(),
        broker,
        missing: missing.into_iter().collect(),
    }))
}
