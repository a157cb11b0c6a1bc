//! What can be set about following files.

use std::path::Path;
use std::time::Duration;

use crate::host_root::HostRoot;

#[derive(Debug, Clone)]
pub struct Options {
    /// Where the host's files are seen.
    pub root: HostRoot,
    /// What is kept of one line.
    pub line_bytes: usize,
    /// How long a rotated file is still read: a program goes on writing to it until it reopens its log.
    pub drain_time: Duration,
    /// How long the place in a file is remembered that is not there any more.
    pub forget_after: Duration,
}

impl Default for Options {
    /// For tests; what runs is told by its settings.
    fn default() -> Self {
        Self {
            root: HostRoot::new(Path::new("/")),
            line_bytes: 64 * 1024,
            drain_time: Duration::from_secs(10),
            forget_after: Duration::from_secs(7 * 24 * 60 * 60),
        }
    }
}
