//! The calling side.

use std::time::Duration;

use anyhow::Context as _;
use tonic::metadata::MetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{ClientTlsConfig, Endpoint};
use tonic::{Request, Status};

use crate::Identity;

/// How long any call may take. Searches bound themselves below it.
const CALL_DEADLINE: Duration = Duration::from_secs(15);

/// A lazily connected, self-healing channel; cheap to clone.
pub type Channel = InterceptedService<tonic::transport::Channel, TraceContext>;

/// Makes a channel to the service at `url` (`https://host:port`). Connects at the first call.
///
/// # Errors
/// A URL that cannot be used.
pub fn channel(identity: &Identity, url: &str) -> anyhow::Result<Channel> {
    let tls = ClientTlsConfig::new().ca_certificate(identity.ca.clone()).identity(identity.pair.clone());
    let endpoint = Endpoint::from_shared(url.to_owned())
        .and_then(|endpoint| endpoint.tls_config(tls))
        .with_context(|| format!("use the service address {url}"))?
        .connect_timeout(Duration::from_secs(2))
        .timeout(CALL_DEADLINE)
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(5))
        .keep_alive_while_idle(true)
        .tcp_nodelay(true);
    Ok(InterceptedService::new(endpoint.connect_lazy(), TraceContext))
}

/// Puts the user's bearer token on an outgoing request.
pub fn forward<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    // A token that is no header value verifies nowhere, so the callee's refusal is the right answer to it.
    if let Ok(value) = MetadataValue::try_from(format!("Bearer {token}")) {
        request.metadata_mut().insert("authorization", value);
    }
    request
}

/// Adds the trace context of the current span to each call.
#[derive(Clone, Copy, Debug)]
pub struct TraceContext;

impl Interceptor for TraceContext {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = telemetry::context::current().and_then(|text| MetadataValue::try_from(text).ok()) {
            request.metadata_mut().insert(telemetry::context::HEADER, value);
        }
        Ok(request)
    }
}
