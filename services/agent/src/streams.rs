//! The two GoSight streams: one carries process snapshots up, the other waits for commands.

mod commands;
mod snapshots;

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use lifecycle::CancellationToken;
use proto::gosight::StreamPayload;
use proto::gosight::stream_payload::Payload;
use proto::gosight::stream_service_client::StreamServiceClient;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::CompressionEncoding;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::gateway::Gateway;
use crate::sender::verdict::code_name;

pub use commands::Commands;
pub use snapshots::SnapshotStream;

/// A session that held this long was a good one, and the next begins without delay.
const GOOD_SESSION: Duration = Duration::from_secs(30);

/// A stream ended without an error: the gateway closed it, or asked for a rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Closed;

fn delays() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(250))
        .with_max_delay(Duration::from_secs(10))
        .with_jitter()
        .without_max_times()
        .build()
}

/// The sessions of one stream, opened one after the other.
struct Sessions {
    stream: &'static str,
    delays: ExponentialBackoff,
    began: Instant,
    /// An outage is said once, not with every attempt.
    quiet: bool,
}

impl Sessions {
    fn new(stream: &'static str) -> Self {
        Self { stream, delays: delays(), began: Instant::now(), quiet: false }
    }

    /// Waits after a session that ended with `outcome`; returns whether to open another.
    async fn again(&mut self, outcome: Result<Closed, Status>, stop: &CancellationToken) -> bool {
        let stream = self.stream;
        match outcome {
            Ok(Closed) => tracing::info!(stream, "stream was closed, opening it again"),
            Err(status) if self.quiet => {
                tracing::debug!(
                    stream,
                    code = code_name(status.code()),
                    reason = status.message(),
                    "stream failed again"
                );
            }
            Err(status) => {
                tracing::warn!(
                    stream,
                    code = code_name(status.code()),
                    reason = status.message(),
                    "stream failed, opening it again"
                );
            }
        }
        self.quiet = self.began.elapsed() < GOOD_SESSION;
        if !self.quiet {
            self.delays = delays();
        }
        tokio::select! {
            () = tokio::time::sleep(self.delays.next().unwrap_or_default()) => {}
            () = stop.cancelled() => return false,
        }
        self.began = Instant::now();
        true
    }
}

fn client(channel: Channel) -> StreamServiceClient<Channel> {
    StreamServiceClient::new(channel)
        .send_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Gzip)
}

/// A stream's request and the place where its messages go in; the stream ends when that is dropped.
fn outgoing(
    gateway: &Gateway,
) -> Result<(mpsc::Sender<StreamPayload>, Request<ReceiverStream<StreamPayload>>), Status> {
    let (messages, receiver) = mpsc::channel(1);
    let mut request = Request::new(ReceiverStream::new(receiver));
    gateway.authorize(&mut request).map_err(|error| Status::unauthenticated(error.to_string()))?;
    Ok((messages, request))
}

fn message(payload: Payload) -> StreamPayload {
    StreamPayload { payload: Some(payload) }
}
