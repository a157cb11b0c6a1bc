//! Keeps rules and evaluates them as telemetry streams by. `docs/adr/0005-*` tells how its parts fit together.
//!
//! **Rules** are documents with versions ([`document`], [`rule`]), of several [`kinds`]; every change raises the revision, and
//! a [`rule_set::RuleSet`] is what is in force at one revision. What decides in a rule has a version of its own: only its
//! change starts anything over. Replicas hear of changes by a notification and look every two seconds besides ([`reload`]).
//!
//! **Shards** are leased to replicas ([`leases`]). A shard has a lane for each signal ([`lane`]), which its owner reads in
//! order and evaluates ([`evaluation`], which is pure), publishing what changes. It goes on to the next message when the
//! broker has acknowledged what the one before decided, so a snapshot of its state never claims more than was said.
//!
//! **Taking over**: the next owner puts its epoch on the lane, so that the one before can no longer write it, and reads on
//! behind its snapshot with the rules of the snapshot's revision, taking up other rules where the one before did. As all
//! times are the samples' and the gateways', it decides what its predecessor decided, under the same ids.

pub mod app;
pub mod budget;
pub mod condition;
pub mod config;
pub mod document;
pub mod evaluation;
pub mod grpc;
pub mod kinds;
pub mod lane;
pub mod leases;
pub mod metrics;
pub mod naming;
pub mod reload;
pub mod rule;
pub mod rule_set;
pub mod saved;
pub mod shard;
pub mod signal;
pub mod store;
pub mod transition;
