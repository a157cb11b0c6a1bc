//! The whole agent against a gateway that answers as a test tells it to.

mod delivery;
mod host;
mod process;
mod restart;
mod streams;
mod support;
