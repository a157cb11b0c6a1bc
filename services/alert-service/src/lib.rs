//! From a rule's transition to a notification that somebody should get.
//!
//! The rule engine says that it changed its mind about one series ([`transition`]). In one Postgres transaction ([`intake`])
//! what lies ready is decided ([`alert`]): each transition is marked as applied, its alert is changed, why is recorded; who
//! is told is [`policy`], and what they are told goes to the outbox together with the change itself ([`changes`]). Only
//! after the commit is the broker told that the transition is done with, so a crash repeats work and repeats change nothing.
//!
//! What can go wrong on the way, and what is made of it:
//! - a transition comes twice: its id is known, nothing happens;
//! - an owner that lost its shard still speaks: [`fence`] refuses it into a dead letter;
//! - an end overtakes its beginning, because another replica holds that or a crash left it to be redelivered: the end
//!   waits for it;
//! - a word is lost altogether: [`levels`] say what fires, and what nobody confirms is ended, by a [timer](timers);
//! - Postgres is away: the message is kept, the process is not ready, nothing is lost and nothing is tried out of order;
//! - a newer release says or writes what this one does not know: it is kept as it is, or left to a replica of that release.
//!
//! [`deliveries`] hears what became of the notifications and measures signal to page. [`grpc`] answers who is firing.
//! [`store::pruning`] deletes what is over and old.

pub mod alert;
pub mod annotations;
pub mod app;
pub mod changes;
pub mod config;
pub mod consumer;
pub mod deliveries;
pub mod fence;
pub mod grpc;
pub mod intake;
pub mod levels;
pub mod metrics;
pub mod outbox;
pub mod policy;
pub mod store;
pub mod timers;
pub mod transition;
pub mod wire;
