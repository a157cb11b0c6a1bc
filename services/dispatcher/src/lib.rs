//! Carries notifications to receivers, and keeps account of it.
//!
//! A notification becomes one delivery a receiver in one transaction ([`consumer`]); only then the broker is told that
//! it is done with. [`worker`] claims what is due and sends it ([`webhook`], [`body`]), [`delivery`] says what an answer
//! means. When a delivery is over, [`report`] tells whoever asked for it. [`store::pruning`] deletes what
//! is over and old.
//!
//! What holds at any moment, a kill included:
//! - A delivery has one id for ever, and every attempt carries it: who gets it twice can tell.
//! - An attempt is written down before it begins, so that even one that was cut off is on record.
//! - A claim lasts seconds and is renewed while its process lives; when that dies, another goes on.
//! - A receiver has a number of attempts at a time and no more: a slow one delays nobody but itself.
//! - One receiver hears of one alert in the order in which it happened: an end waits for its beginning.
//! - Nothing is sent to an address that [`address`] refuses, whatever a name resolves to at that moment.

pub mod address;
pub mod app;
pub mod body;
pub mod config;
pub mod consumer;
pub mod delivery;
pub mod grpc;
pub mod metrics;
pub mod receiver;
pub mod report;
pub mod store;
pub mod webhook;
pub mod worker;
