//! What is spoken on a port.

/// What is spoken on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocols {
    /// HTTP/2. What comes in HTTP/1.1 reaches the router as well, which can say in words that it is wrong here: a connection
    /// that just breaks tells nobody anything.
    Grpc,
    /// HTTP/1.1, with upgrades, and HTTP/2.
    Http,
}
