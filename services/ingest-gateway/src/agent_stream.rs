//! GoSight's gRPC services: one long-lived stream an agent, process snapshots up, control down.

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use axum::{Extension, Router};
use bytes::Bytes;
use edge::Peer;
use fault::{Fault, Kind};
use http::Request;
use hyper::body::Frame;
use lifecycle::CancellationToken;
use prost::Message as _;
use proto::gosight::stream_payload::Payload;
use proto::gosight::{CommandRequest, StreamPayload, StreamResponse};
use tonic::Status;

use crate::admission::Hold;
use crate::frames::{self, Frames};
use crate::heartbeat::Session;
use crate::intake::Taken;
use crate::metrics::{Outcome, Protocol, Signal};
use crate::otlp_grpc::Entrance;
use crate::refusal;
use crate::sender::Sender;

/// What streams need besides the entrance.
#[derive(Clone)]
pub struct Streams {
    pub entrance: Entrance,
    /// The process is about to stop: agents are sent away.
    pub stopping: CancellationToken,
}

/// GoSight's services; what of them is not taken says so.
pub fn routes() -> Router<Streams> {
    Router::new()
        .route("/proto.StreamService/Stream", post(stream))
        .route("/proto.LogService/SubmitMetrics", post(logs))
        .route("/proto.LogService/SubmitStream", post(logs))
        .route("/proto.CommandService/ExecuteCommand", post(commands))
}

async fn logs() -> Response {
    Status::unimplemented("logs of older agents are not taken yet; send them by OTLP").into_http()
}

async fn commands() -> Response {
    Status::unimplemented("commands go out over StreamService.Stream").into_http()
}

async fn stream(State(streams): State<Streams>, Extension(peer): Extension<Peer>, request: Request<Body>) -> Response {
    if !frames::is_grpc(request.headers()) {
        return frames::not_grpc();
    }
    match Conversation::begin(streams, &peer, request).await {
        Ok(conversation) => frames::streaming(futures::stream::unfold(conversation, Conversation::step)),
        Err(fault) => frames::refuse(fault),
    }
}

/// One open stream. It is driven by whoever reads its answers, so it ends with its connection.
struct Conversation {
    streams: Streams,
    frames: Frames,
    sender: Sender,
    session: Option<Session>,
    /// The connection has lived long enough.
    aged: CancellationToken,
    ending: Ending,
    _open: Open,
}

/// How far a stream is from its end.
enum Ending {
    Not,
    /// Only the trailers are left.
    Next(Option<Status>),
    Done,
}

impl Conversation {
    async fn begin(streams: Streams, peer: &Peer, request: Request<Body>) -> Result<Self, Fault> {
        let entrance = &streams.entrance;
        let sender = entrance.policy.sender(request.headers(), peer.client).await?;
        let frames = Frames::new(request, entrance.sizes, entrance.admission.clone())?;
        let session = sender.agent().map(|agent| entrance.intake.heartbeats.session(&sender.tenant, agent));
        let open = Open::new(&entrance.metrics.streams);
        Ok(Self { frames, sender, session, aged: peer.aged.clone(), ending: Ending::Not, _open: open, streams })
    }

    async fn step(mut self) -> Option<(Result<Frame<Bytes>, std::convert::Infallible>, Self)> {
        let frame = match std::mem::replace(&mut self.ending, Ending::Done) {
            Ending::Done => return None,
            Ending::Next(status) => Frame::trailers(frames::trailers(status)),
            Ending::Not => match self.turn().await {
                Ok(response) => {
                    if matches!(self.ending, Ending::Done) {
                        self.ending = Ending::Not;
                    }
                    Frame::data(frames::frame(&response.encode_to_vec()))
                }
                Err(end) => Frame::trailers(frames::trailers(end)),
            },
        };
        Some((Ok(frame), self))
    }

    /// The next answer, or the status that the stream ends with.
    async fn turn(&mut self) -> Result<StreamResponse, Option<Status>> {
        loop {
            let message = tokio::select! {
                biased;
                () = self.streams.stopping.cancelled() => {
                    self.ending = Ending::Next(None);
                    return Ok(disconnect());
                }
                () = self.aged.cancelled() => {
                    return Err(Some(Status::unavailable("this connection has lived long enough; connect again")));
                }
                message = self.frames.next() => message,
            };
            let message = match message {
                Ok(Some(message)) => message,
                Ok(None) => return Err(None),
                Err(fault) => return Err(Some(refusal::status(fault))),
            };
            let payload = match StreamPayload::decode(message.bytes) {
                Ok(payload) => payload.payload,
                Err(_) => return Err(Some(Status::invalid_argument("the message is no StreamPayload"))),
            };
            match payload {
                Some(Payload::Process(process)) => {
                    return self.processes(&process.raw_payload, message.hold).await;
                }
                Some(Payload::Metric(_)) => {
                    let text = "metrics of older agents are not taken yet; send them by OTLP";
                    return Err(Some(Status::unimplemented(text)));
                }
                Some(Payload::CommandResponse(response)) => {
                    self.streams.entrance.metrics.command_responses.inc();
                    tracing::info!(
                        sender = self.sender.identity(),
                        success = response.success,
                        "a command was answered"
                    );
                }
                // An agent gives no commands, and what is newer than we are needs no answer.
                Some(Payload::CommandRequest(_)) | None => {}
            }
        }
    }

    async fn processes(&mut self, raw: &[u8], hold: Hold) -> Result<StreamResponse, Option<Status>> {
        let entrance = &self.streams.entrance;
        self.session = self.session.take().or_else(|| {
            let payload = proto::gosight::ProcessPayload::decode(raw).ok()?;
            let named = self.sender.agent().is_none() && !payload.agent_id.is_empty();
            named.then(|| entrance.intake.heartbeats.session(&self.sender.tenant, &payload.agent_id))
        });
        let outcome = entrance.intake.processes(raw, &self.sender, hold).await;
        let label = outcome.as_ref().err().map_or(Outcome::Accepted, refusal::outcome);
        entrance.metrics.request(Signal::Processes, Protocol::AgentStream, label);
        answer(outcome)
    }
}

/// What an agent is told about a snapshot. What may pass later ends the stream, since no answer of this protocol says "again".
fn answer(outcome: Result<Taken, Fault>) -> Result<StreamResponse, Option<Status>> {
    match outcome {
        Ok(_) => Ok(StreamResponse { status: "ok".to_owned(), status_code: 200, command: None }),
        Err(fault) if fault.kind() == Kind::Invalid => {
            Ok(StreamResponse { status: fault.detail().to_owned(), status_code: 400, command: None })
        }
        Err(fault) => Err(Some(refusal::status(fault))),
    }
}

/// Makes an agent close everything and come back: ours after some seconds, the field's after a minute.
fn disconnect() -> StreamResponse {
    let command = CommandRequest {
        agent_id: String::new(),
        command_type: "control".to_owned(),
        command: "disconnect".to_owned(),
        args: vec!["within=5s".to_owned()],
    };
    StreamResponse { status: "draining".to_owned(), status_code: 200, command: Some(command) }
}

/// Counts a stream as long as it is open.
struct Open(prometheus_client::metrics::gauge::Gauge);

impl Open {
    fn new(gauge: &prometheus_client::metrics::gauge::Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
