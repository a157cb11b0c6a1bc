//! A certificate authority for one machine: development and tests, not production.
//!
//! Every certificate may serve and call, carries its name as common name, and is signed by one authority whose key lies
//! beside it. Certificates are kept across runs as long as they name the same hosts and live long enough.

mod authority;
mod folder;

pub use authority::{Authority, Error, Issued};
pub use folder::{Request, ensure};
