//! Follows log files and hands every new line to the spool exactly once.
//!
//! Files are looked at several times a second: two system calls a file, on every file system, with no limits on
//! watches and no events to lose. A file's
//! lines go into a request together with the places that they reach to; once that request is in the spool the places
//! count as read, and only then.
//! While the spool is full nothing is read: the lines stay where they are, in their files.

mod claim;
mod counts;
mod encoding;
mod file;
mod follower;
mod forwarder;
mod harvest;
mod lines;
mod linger;
mod logs;
mod neighbours;
mod options;
mod records;
mod stamp;

pub use counts::Counts;
pub use forwarder::Forwarder;
pub use harvest::{Found, Harvest};
pub use linger::Linger;
pub use logs::Tail;
pub use options::Options;

#[cfg(test)]
mod tests;
