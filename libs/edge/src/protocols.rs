//! What is spoken on a port.

/// What is spoken on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocols {
    /// HTTP/2 only.
    Grpc,
    /// HTTP/1.1, with upgrades, and HTTP/2.
    Http,
}
