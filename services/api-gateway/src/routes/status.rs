//! How the installation is.

use authn::Permission;
use axum::Json;
use axum::extract::State;
use fault::Fault;
use serde::Serialize;
use utoipa::ToSchema;

use crate::state::{AppState, Caller};
use crate::status::Service;

#[derive(Serialize, ToSchema)]
pub(crate) struct StatusAnswer {
    version: &'static str,
    services: Vec<Service>,
    broker: Broker,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Broker {
    /// What a power cut can cost with the connected server and its settings
    durability: String,
    /// One entry a stream, in envelopes: received = stored + dead-lettered + in flight
    account: Vec<StreamAccount>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct StreamAccount {
    stream: String,
}

/// Readiness of every process, and the account of what was received. Needs `status:read`.
#[utoipa::path(get, path = "/api/v1/status", tag = "status", responses((status = 200, body = StatusAnswer)))]
pub(crate) async fn get(
    State(state): State<AppState>,
    Caller(caller): Caller,
) -> Result<Json<StatusAnswer>, Fault> {
    caller.require(Permission::StatusRead)?;
    let bus = state.status.bus();
    let account = bus
        .account()
        .await
        .map_err(|error| {
            Fault::unavailable(
                "broker_unavailable",
                "the broker is away; try again shortly",
                error,
            )
        })?
        .into_iter()
        .map(|account| StreamAccount {
            stream: account.stream,
        })
        .collect();
    Ok(Json(StatusAnswer {
        version: env!("CARGO_PKG_VERSION"),
        services: state.status.services(),
        broker: Broker {
            durability: bus.durability(),
            account,
        },
    }))
}
