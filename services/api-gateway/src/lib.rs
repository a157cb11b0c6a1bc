//! The API that browsers and API clients talk to.
//!
//! It owns nothing. It verifies the caller's token with cached keys, translates JSON to the gRPC of the service that
//! owns the thing, and passes the token along, since that service checks the permission. Metric queries go straight to
//! the metrics store's Prometheus API with the tenant's filter put on; live streams go to ws-fanout as they are.
//!
//! `/openapi.json` is generated from the same code that serves the routes.

pub mod app;
pub mod config;

mod answer;
mod body;
mod clients;
mod compat;
mod conditions;
mod document;
mod instant;
mod live;
mod metrics;
mod metrics_store;
mod promql;
mod request_id;
mod routes;
mod state;
mod status;
