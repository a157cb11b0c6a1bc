//! The whole agent against a gateway that answers as a test tells it to.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says where")]

mod delivery;
mod host;
mod process;
mod restart;
mod streams;
mod support;
