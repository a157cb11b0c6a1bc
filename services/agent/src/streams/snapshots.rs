//! Process snapshots, one after the other: the next goes only when the last was answered.

use std::sync::Arc;
use std::time::Duration;

use lifecycle::CancellationToken;
use prost::Message as _;
use proto::gosight::stream_payload::Payload;
use proto::gosight::{ProcessWrapper, StreamPayload, StreamResponse};
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior};
use tonic::{Status, Streaming};

use super::{Closed, Sessions, client, message, outgoing};
use crate::gateway::Gateway;
use crate::metrics::Metrics;
use crate::processes::{Snapshots, fit};

const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
const ACCEPTED: i32 = 200;

pub struct SnapshotStream {
    pub snapshots: Snapshots,
    pub interval: Duration,
    /// A larger snapshot is cut.
    pub most_bytes: usize,
    pub gateway: Arc<Gateway>,
    pub metrics: Metrics,
}

impl SnapshotStream {
    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stream = Stream {
            snapshots: Some(self.snapshots),
            most_bytes: self.most_bytes,
            gateway: self.gateway,
            metrics: self.metrics,
            ticks,
        };
        let mut sessions = Sessions::new("processes");
        loop {
            let outcome = tokio::select! {
                outcome = stream.session() => outcome,
                () = stop.cancelled() => return,
            };
            if !sessions.again(outcome, &stop).await {
                return;
            }
        }
    }
}

struct Stream {
    /// Absent while a snapshot is taken.
    snapshots: Option<Snapshots>,
    most_bytes: usize,
    gateway: Arc<Gateway>,
    metrics: Metrics,
    ticks: Interval,
}

impl Stream {
    /// Until the stream ends. May be dropped at any time.
    async fn session(&mut self) -> Result<Closed, Status> {
        let mut closed = self.gateway.closed();
        let channel = self.gateway.channel().await;
        self.ticks.tick().await;
        let (messages, request) = outgoing(&self.gateway)?;
        // Some servers answer the call itself only with their answer to its first message.
        self.offer(&messages).await?;
        let opened = tokio::time::timeout(ANSWER_TIMEOUT, client(channel).stream(request)).await;
        let mut answers = match opened {
            Ok(Ok(response)) => response.into_inner(),
            failure => {
                self.metrics.process_snapshots_failed.inc();
                return Err(failure.map_or_else(|_| late(), |opened| opened.err().unwrap_or_else(late)));
            }
        };
        loop {
            let answered = answer(&mut answers).await;
            match answered {
                Ok(()) => self.metrics.process_snapshots_sent.inc(),
                Err(_) => self.metrics.process_snapshots_failed.inc(),
            };
            answered?;
            tokio::select! {
                _ = self.ticks.tick() => {}
                _ = closed.changed() => return Ok(Closed),
                // Nothing is due: this is the end of the stream, or something for the other one.
                unasked = answers.message() => if unasked?.is_none() { return Ok(Closed) },
            }
            self.offer(&messages).await?;
        }
    }

    /// Takes a snapshot on a thread of its own: with thousands of processes it is tens of milliseconds of reading.
    async fn offer(&mut self, messages: &mpsc::Sender<StreamPayload>) -> Result<(), Status> {
        let Some(mut taker) = self.snapshots.take() else {
            return Err(Status::internal("taking a snapshot panicked before"));
        };
        let most_bytes = self.most_bytes;
        let (taker, payload) = tokio::task::spawn_blocking(move || {
            let payload = taker.take().map(|mut payload| {
                let cut = fit(&mut payload, most_bytes);
                (payload.encode_to_vec(), cut)
            });
            (taker, payload)
        })
        .await
        .map_err(|_| Status::internal("taking a snapshot panicked"))?;
        self.snapshots = Some(taker);
        let (raw_payload, cut) =
            payload.map_err(|error| Status::internal(format!("cannot take a snapshot: {error:#}")))?;
        if cut {
            self.metrics.process_snapshots_cut.inc();
        }
        let sent = messages.send(message(Payload::Process(ProcessWrapper { raw_payload }))).await;
        sent.map_err(|_| Status::unavailable("the stream was closed"))
    }
}

async fn answer(answers: &mut Streaming<StreamResponse>) -> Result<(), Status> {
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, answers.message()).await.map_err(|_| late())??;
    match answer {
        Some(answer) if answer.status_code == ACCEPTED => Ok(()),
        Some(answer) => {
            Err(Status::unavailable(format!("snapshot refused with {} {}", answer.status_code, answer.status)))
        }
        None => Err(Status::unavailable("the stream was closed before its answer")),
    }
}

fn late() -> Status {
    Status::deadline_exceeded("no answer to a snapshot in time")
}
