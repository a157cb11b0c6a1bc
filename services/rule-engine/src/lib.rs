//! Keeps rules and evaluates them as telemetry streams by.
//!
//! **Rules** are documents with versions ([`document`], [`rule`]); every change raises the revision, and a [`book::Book`] is
//! what is in force at one revision. Replicas hear of changes by a notification and look every two seconds besides.
//!
//! **Shards** of the telemetry streams are leased to replicas ([`leases`]). The owner of a shard ([`shard`]) reads its metrics
//! and logs in order, evaluates them ([`evaluation`], which is pure), and publishes what changes. It goes on to the next
//! message when the broker has acknowledged what the one before decided, so a snapshot of its state never claims more
//! than was said.
//!
//! **Taking over**: the next owner puts its epoch on the snapshot, so that the one before can no longer write it, and
//! reads on behind it with the rules of the snapshot's revision until it stands where the streams ended. As all times are the samples' and
//! the gateways', it decides what its predecessor decided, under the same ids, and goes on from there. Only then does
//! it take up rules that changed meanwhile.

pub mod app;
pub mod book;
pub mod config;
pub mod document;
pub mod evaluation;
pub mod grpc;
pub mod leases;
pub mod metrics;
pub mod reload;
pub mod rule;
pub mod shard;
pub mod snapshot;
pub mod store;
pub mod transition;
