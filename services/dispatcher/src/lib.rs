//! Carries notifications to receivers, and keeps account of it.
//!
//! A notification becomes one delivery a receiver in one transaction ([`consumer`]); only then the broker is told that
//! it is done with. [`worker`] claims what is due, in the shares that [`share`] gives, and sends it ([`webhook`], [`body`]);
//! [`delivery`] says what an answer means for the delivery, [`breaker`] what it means for the receiver. When a delivery is
//! over, [`events`] tell whoever asked for it. [`upkeep`] gives up what is overdue, [`store::pruning`] deletes what is over
//! and old.
//!
//! What holds at any moment, a kill included:
//! - A delivery has one id for ever, and every attempt carries it: who gets it twice can tell.
//! - An attempt is written down before it begins, so that even one that was cut off is on record.
//! - A claim lasts seconds and is renewed while its process lives; when that dies, another goes on.
//! - A receiver has a number of attempts at a time and no more, one that fails again and again one in all, and receivers
//!   that hang leave half of all places to those that answer.
//! - One receiver hears of one group in the order of its notifications: an end waits for its beginning, and what is older
//!   than what it has had is superseded.
//! - Nothing is sent to an address that [`address`] refuses, whatever a name resolves to at that moment.

pub mod address;
pub mod app;
pub mod body;
pub mod breaker;
pub mod config;
pub mod consumer;
pub mod delivery;
pub mod events;
pub mod grpc;
pub mod metrics;
pub mod receiver;
pub mod share;
pub mod store;
pub mod upkeep;
pub mod webhook;
pub mod worker;
