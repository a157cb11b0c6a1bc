//! Process snapshots, one after the other: the next goes only when the last was answered.

use std::sync::Arc;
use std::time::Duration;

use lifecycle::CancellationToken;
use prost::Message as _;
use proto::gosight::stream_payload::Payload;
use proto::gosight::{ProcessWrapper, StreamPayload, StreamResponse};
use tokio::time::{Interval, MissedTickBehavior};
use tonic::{Status, Streaming};

use super::{Ended, Sessions, client, message, outgoing};
use crate::gateway::Gateway;
use crate::metrics::Metrics;
use crate::processes::Snapshots;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
const ACCEPTED: i32 = 200;

pub struct SnapshotStream {
    pub snapshots: Snapshots,
    pub interval: Duration,
    pub gateway: Arc<Gateway>,
    pub metrics: Metrics,
}

impl SnapshotStream {
    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut snapshots = Some(self.snapshots);
        let (gateway, metrics) = (self.gateway, self.metrics);
        let mut sessions = Sessions::new("processes");
        while sessions.again(session(&gateway, &metrics, &mut snapshots, &mut ticks, &stop).await, &stop).await {}
    }
}

async fn session(
    gateway: &Gateway,
    metrics: &Metrics,
    snapshots: &mut Option<Snapshots>,
    ticks: &mut Interval,
    stop: &CancellationToken,
) -> Result<Ended, Status> {
    let mut closed = gateway.closed();
    let channel = tokio::select! {
        channel = gateway.channel() => channel,
        () = stop.cancelled() => return Ok(Ended::Stopping),
    };
    tokio::select! {
        _ = ticks.tick() => {}
        () = stop.cancelled() => return Ok(Ended::Stopping),
    }
    let (messages, request) = outgoing(gateway)?;
    // Some servers answer the call itself only with their answer to its first message.
    offer(&messages, snapshots).await?;
    let opened = tokio::time::timeout(ANSWER_TIMEOUT, client(channel).stream(request)).await;
    let mut answers = match opened {
        Ok(Ok(response)) => response.into_inner(),
        failure => {
            metrics.process_snapshots_failed.inc();
            return Err(failure.map_or_else(|_| late(), |opened| opened.err().unwrap_or_else(late)));
        }
    };
    loop {
        let answered = tokio::select! {
            answered = answer(&mut answers) => answered,
            () = stop.cancelled() => return Ok(Ended::Stopping),
        };
        match answered {
            Ok(()) => metrics.process_snapshots_sent.inc(),
            Err(_) => metrics.process_snapshots_failed.inc(),
        };
        answered?;
        tokio::select! {
            _ = ticks.tick() => {}
            _ = closed.changed() => return Ok(Ended::Closed),
            // Nothing is due: this is the end of the stream, or something for the other one.
            unasked = answers.message() => if unasked?.is_none() { return Ok(Ended::Closed) },
            () = stop.cancelled() => return Ok(Ended::Stopping),
        }
        offer(&messages, snapshots).await?;
    }
}

/// Takes a snapshot on a thread of its own: with thousands of processes it is tens of milliseconds of reading.
async fn offer(
    messages: &tokio::sync::mpsc::Sender<StreamPayload>,
    snapshots: &mut Option<Snapshots>,
) -> Result<(), Status> {
    let Some(mut taker) = snapshots.take() else { return Err(Status::internal("taking a snapshot panicked before")) };
    let (taker, payload) = tokio::task::spawn_blocking(move || {
        let payload = taker.take();
        (taker, payload)
    })
    .await
    .map_err(|_| Status::internal("taking a snapshot panicked"))?;
    *snapshots = Some(taker);
    let payload = payload.map_err(|error| Status::internal(format!("cannot take a snapshot: {error:#}")))?;
    let process = ProcessWrapper { raw_payload: payload.encode_to_vec() };
    let sent = messages.send(message(Payload::Process(process))).await;
    sent.map_err(|_| Status::unavailable("the stream was closed"))
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
