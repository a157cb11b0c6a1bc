//! A public port and the strangers before it.
#![expect(clippy::unwrap_used, reason = "a test that cannot be prepared must stop at once")]

mod ends;
mod support;
mod tls;
mod who;
