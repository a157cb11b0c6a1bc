//! From a rule's transition to a notification that somebody should get.
//!
//! The rule engine says that it changed its mind about one series ([`transition`]). In one Postgres transaction
//! ([`intake`]) the transition is marked as applied, the alert is changed ([`alert`]), why is recorded, and the
//! notification is put into the outbox. Only after the commit is the broker told that the transition is done with, so a
//! crash repeats work and repeats change nothing. [`outbox`] publishes right after the commit; a sweep publishes what a
//! crash left behind.
//!
//! What can go wrong on the way, and what is made of it:
//! - a transition comes twice: its id is known, nothing happens;
//! - an owner that lost its shard still speaks: [`fence`] refuses it into a dead letter;
//! - an end overtakes its beginning, because a crash left the beginning to be redelivered: the end waits for it;
//! - Postgres is away: the message is kept, the process is not ready, nothing is lost and nothing is tried out of order.
//!
//! [`deliveries`] hears what became of the notifications and measures signal to page. [`grpc`] answers who is firing.
//! [`store::pruning`] deletes what is over and old.

pub mod alert;
pub mod annotations;
pub mod app;
pub mod config;
pub mod consumer;
pub mod deliveries;
pub mod fence;
pub mod grpc;
pub mod intake;
pub mod metrics;
pub mod outbox;
pub mod store;
pub mod transition;
pub mod wire;
