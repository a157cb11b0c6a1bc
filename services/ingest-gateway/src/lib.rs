//! The way in. A success answer is given when the broker has acknowledged everything it stands for, never before.
//!
//! A request passes: `edge` (connection, TLS, who is there) -> [`otlp_grpc`], [`otlp_http`] or [`agent_stream`] (framing, encoding)
//! -> [`sender`] (who is it) -> [`admission`] (is there room, counted in bytes before anything is unpacked) -> [`inflate`]
//! -> [`intake`] (walk the wire, [name](naming) resources, stamp, split) -> [`collector`] (group with others of the same stream and
//! tenant, publish, answer everybody who is in it). Beside that path, never on it: [`seen`] tells the registry which resources
//! there are, [`heartbeat`] tells Redis that they live, [`backlog`] watches whether the writers keep up, [`left_out`] tells
//! operators what of a request could not be taken.
//!
//! Absences that hold: no request waits for anything but the broker (and, for a key it does not know, for auth); no database is
//! asked; no OTLP object is built for protobuf; a client that goes away cancels no publish that has begun.

pub mod admission;
pub mod agent_stream;
pub mod app;
pub mod backlog;
pub mod collector;
pub mod config;
pub mod frames;
pub mod heartbeat;
pub mod heavy;
pub mod inflate;
pub mod intake;
pub mod left_out;
pub mod metrics;
pub mod naming;
pub mod otlp_grpc;
pub mod otlp_http;
pub mod processes;
mod rarely;
pub mod refusal;
pub mod seen;
pub mod sender;
pub mod visits;
