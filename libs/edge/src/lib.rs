//! HTTP listeners that face strangers: how many connections there may be, how long each may take for what, TLS by its first
//! byte, and who is at the other end.
//!
//! A stranger may be slow, silent, many, or behind a proxy; none of that may cost more than a connection's place for a
//! while. What requests mean is the router's business.

mod body;
mod certificate;
mod listener;
mod metrics;
mod peer;
mod places;
mod protocols;
mod proxies;
mod settings;
mod tls;
mod wire;

pub use body::Stalled;
pub use certificate::Certificate;
pub use listener::{Listener, bind};
pub use metrics::Metrics;
pub use peer::{Lasting, Peer};
pub use protocols::Protocols;
pub use proxies::{ForwardedHeader, Proxies};
pub use settings::Settings;
pub use tls::{Tls, TlsFiles, TlsMode};
