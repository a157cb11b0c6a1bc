//! GoSight's gRPC services: long-lived streams of agents, process snapshots up, control down.
//!
//! The field's newer agents never open a snapshot stream again that ended with an error. So nothing that may pass ends one:
//! its connection does not age, a snapshot waits a while for room and for the broker, and what could not be made safe by
//! then is answered as lost on the stream, which goes on.

use std::pin::Pin;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use axum::{Extension, Router};
use bytes::Bytes;
use edge::{Lasting, Peer};
use fault::{Fault, Kind};
use http::Request;
use hyper::body::Frame;
use lifecycle::CancellationToken;
use prost::Message as _;
use proto::gosight::{CommandRequest, CommandResponse, StreamResponse};
use tonic::Status;

use crate::frames::{self, Frames, Message};
use crate::heartbeat::Session;
use crate::metrics::{Outcome, Protocol, Signal};
use crate::otlp_grpc::Entrance;
use crate::processes::each_field;
use crate::refusal::{self, Why};
use crate::sender::Sender;
use crate::visits;

/// How long a snapshot waits for room, and then for the broker. Agents wait for its answer for half a minute or longer.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(500);
const OLDER_LOGS: &str = "logs of older agents are not taken yet; send them by OTLP";
const OLDER_METRICS: &str = "metrics of older agents are not taken yet; send them by OTLP";

/// What streams need besides the entrance.
#[derive(Clone)]
pub struct Streams {
    pub entrance: Entrance,
    pub visits: visits::Visits,
    /// The process is about to stop and takes nothing new elsewhere: agents are sent away when it costs them least.
    pub draining: CancellationToken,
    /// The process stops: all streams end.
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

async fn logs(State(streams): State<Streams>, Extension(peer): Extension<Peer>, request: Request<Body>) -> Response {
    streams.entrance.refusals.note(Why::NotTaken, peer.client, request.uri().path(), OLDER_LOGS);
    Status::unimplemented(OLDER_LOGS).into_http()
}

async fn commands() -> Response {
    Status::unimplemented("commands go out over StreamService.Stream").into_http()
}

async fn stream(State(streams): State<Streams>, Extension(peer): Extension<Peer>, request: Request<Body>) -> Response {
    if !frames::is_grpc(request.headers()) {
        let refusals = &streams.entrance.refusals;
        refusals.note(Why::Encoding, peer.client, request.uri().path(), "this is the port of gRPC");
        return frames::not_grpc();
    }
    let (refusals, path) = (streams.entrance.refusals.clone(), request.uri().path().to_owned());
    match Conversation::begin(streams, &peer, request).await {
        Ok(conversation) => frames::streaming(futures::stream::unfold(conversation, Conversation::step)),
        Err(fault) => {
            refusals.note(Why::from(&fault), peer.client, &path, fault.detail());
            frames::refuse(fault)
        }
    }
}

/// One open stream.
struct Conversation {
    frames: Frames,
    sender: Sender,
    streams: Streams,
    peer: Peer,
    /// The agent whose life the stream is a sign of.
    session: Option<Session>,
    visit: visits::Stream,
    /// Resolves when the agent is to be sent away.
    leave: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Resolves when the sender's token ends or is taken back.
    void: Pin<Box<dyn Future<Output = ()> + Send>>,
    ending: Ending,
    _open: Open,
    _lasting: Lasting,
}

/// Whether the stream goes on.
enum Ending {
    Not,
    /// With this status, after what was just sent.
    Next(Option<Status>),
    Done,
}

/// What a message of an agent says.
enum Said {
    /// A serialized `ProcessPayload`.
    Snapshot(Bytes),
    /// What older agents send.
    Metrics,
    Answer(CommandResponse),
    /// An agent gives no commands, and what is newer than we are needs no answer.
    Nothing,
}

impl Conversation {
    async fn begin(streams: Streams, peer: &Peer, request: Request<Body>) -> Result<Self, Fault> {
        let entrance = &streams.entrance;
        let sender = entrance.policy.sender(request.headers(), peer).await?;
        let frames = Frames::new(request, entrance.sizes, entrance.admission.clone(), sender.clone())?
            .waiting_for_room(PATIENCE);
        let session = sender.agent().map(|agent| entrance.intake.heartbeats.session(&sender.tenant, agent));
        let visit = streams.visits.stream(peer.socket, sender.agent());
        Ok(Self {
            leave: Box::pin(leave(visit.visit(), streams.draining.clone(), streams.stopping.clone())),
            void: Box::pin(entrance.policy.clone().until_void(sender.clone())),
            _open: Open::new(&entrance.metrics.agent_streams_open),
            _lasting: peer.lasting(),
            peer: peer.clone(),
            frames,
            sender,
            session,
            visit,
            ending: Ending::Not,
            streams,
        })
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
                () = self.leave.as_mut() => return self.farewell(),
                () = self.void.as_mut() => {
                    return Err(Some(Status::unauthenticated("the token has ended or was taken back; get another")));
                }
                message = self.frames.next() => message,
            };
            let message = match message {
                Ok(Some(message)) => message,
                Ok(None) => return Err(None),
                Err(fault) if self.frames.can_go_on() => return Ok(self.lost(&fault)),
                Err(fault) => {
                    self.note(&fault);
                    return Err(Some(refusal::status(fault)));
                }
            };
            let Message { bytes, hold } = message;
            match said(&bytes) {
                Err(_) => return Err(Some(Status::invalid_argument("the message is no StreamPayload"))),
                Ok(Said::Snapshot(raw)) => {
                    drop(bytes);
                    return Ok(self.snapshot(raw, hold).await);
                }
                Ok(Said::Metrics) => {
                    let path = "/proto.StreamService/Stream";
                    self.streams.entrance.refusals.note(Why::NotTaken, self.peer.client, path, OLDER_METRICS);
                    return Err(Some(Status::unimplemented(OLDER_METRICS)));
                }
                Ok(Said::Answer(response)) => {
                    self.streams.entrance.metrics.command_responses.inc();
                    let sender = self.sender.identity();
                    tracing::info!(sender, success = response.success, "a command was answered");
                }
                Ok(Said::Nothing) => {}
            }
        }
    }

    /// Sends away agents that come back by themselves only when they are told to; to others the end is enough.
    fn farewell(&mut self) -> Result<StreamResponse, Option<Status>> {
        if !self.visit.has_snapshots() && self.sender.agent().is_none() {
            return Err(None);
        }
        self.ending = Ending::Next(None);
        Ok(disconnect())
    }

    async fn snapshot(&mut self, raw: Bytes, hold: crate::admission::Hold) -> StreamResponse {
        let outcome = self.take(raw, hold).await;
        let label = outcome.as_ref().err().map_or(Outcome::Accepted, refusal::outcome);
        self.streams.entrance.metrics.request(Signal::Processes, Protocol::AgentStream, label);
        match outcome {
            Ok(()) => StreamResponse { status: "ok".to_owned(), status_code: 200, command: None },
            Err(fault) => self.lost(&fault),
        }
    }

    async fn take(&mut self, raw: Bytes, hold: crate::admission::Hold) -> Result<(), Fault> {
        let intake = &self.streams.entrance.intake;
        let snapshot = intake.snapshot(raw, &self.sender, hold).await?;
        let agent = snapshot.agent_id.as_deref();
        self.visit.snapshot(agent);
        if let (None, Some(agent)) = (&self.session, agent) {
            self.session = Some(intake.heartbeats.session(&self.sender.tenant, agent));
        }
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            match intake.hand_over_snapshot(&snapshot).await {
                Err(fault) if fault.is_retryable() && tokio::time::Instant::now() < until => {
                    tokio::select! {
                        () = tokio::time::sleep(PAUSE) => {}
                        // Waiting any longer would only hold the stop up.
                        () = self.streams.stopping.cancelled() => return Err(fault),
                    }
                }
                outcome => return outcome,
            }
        }
    }

    /// What an agent is told of a snapshot that is lost: no answer of this protocol makes it send one again.
    fn lost(&self, fault: &Fault) -> StreamResponse {
        self.streams.entrance.metrics.snapshots_lost.inc();
        self.note(fault);
        let status_code = match fault.kind() {
            Kind::Invalid => 400,
            Kind::TooLarge => 413,
            _ => 503,
        };
        StreamResponse { status: fault.detail().to_owned(), status_code, command: None }
    }

    fn note(&self, fault: &Fault) {
        let path = "/proto.StreamService/Stream";
        self.streams.entrance.refusals.note(Why::from(fault), self.peer.client, path, fault.detail());
    }
}

/// Resolves when an agent is to be sent away: of a connection with snapshots, in the moment that costs it least.
async fn leave(visit: std::sync::Arc<visits::Visit>, draining: CancellationToken, stopping: CancellationToken) {
    draining.cancelled().await;
    visit.quiet_moment(stopping).await;
}

/// Reads as little of a message as is needed: what is not asked for may be large once it is read.
fn said(message: &Bytes) -> Result<Said, crate::processes::Broken> {
    let mut said = Said::Nothing;
    each_field(message, |number, content| {
        match number {
            1 => said = Said::Metrics,
            3 => said = Said::Answer(CommandResponse::decode(content)?),
            5 => {
                let mut raw = Bytes::new();
                each_field(content, |number, content| {
                    if number == 1 {
                        raw = message.slice_ref(content);
                    }
                    Ok(())
                })?;
                said = Said::Snapshot(raw);
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok(said)
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
struct Open(telemetry::metrics::Gauge);

impl Open {
    fn new(gauge: &telemetry::metrics::Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
