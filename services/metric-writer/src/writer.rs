//! The loop that writes what gathers, and answers the broker when the store has answered.

use std::sync::Arc;

use bus::{Bus, Delivery, ack_all};
use lifecycle::{CancellationToken, Process, Ready};
use model::Times;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tracing::{Instrument as _, info_span, warn};

use crate::SERVICE;
use crate::group::{Gathering, Group};
use crate::metrics::Metrics;
use crate::sending::{Sending, Written};
use crate::store::WriteError;
use crate::taken::{Taken, age};

/// Groups that are held at a time: one is written, and one waits for it and is told to be in work.
const GROUPS: usize = 2;

/// Writes groups. Clones share it.
#[derive(Clone)]
pub(crate) struct Writer {
    bus: Bus,
    sending: Sending,
    times: Times,
    metrics: Metrics,
    ready: Ready,
    stopping: CancellationToken,
    /// One group is written at a time.
    turn: Arc<Semaphore>,
}

impl Writer {
    pub(crate) fn new(bus: Bus, sending: Sending, times: Times, metrics: Metrics, process: &Process) -> Self {
        let (ready, stopping) = (process.ready("remote-write"), process.stopping());
        Self { bus, sending, times, metrics, ready, stopping, turn: Arc::new(Semaphore::new(1)) }
    }

    /// Writes until nothing more arrives because the process stops, then finishes what is in flight.
    pub(crate) async fn run(self, mut gathering: Gathering) -> anyhow::Result<()> {
        self.ready.up();
        let mut on_its_way = JoinSet::new();
        while let Some(group) = gathering.next().await {
            let writer = self.clone();
            on_its_way.spawn(async move { writer.deliver(group).await });
            if on_its_way.len() >= GROUPS {
                // A panic is a mistake of ours that must be seen.
                on_its_way.join_next().await.transpose()?;
            }
        }
        while let Some(ended) = on_its_way.join_next().await {
            ended?;
        }
        gathering.finish().await;
        self.flush().await;
        Ok(())
    }

    /// Stores a group whole, or all of it but the envelopes that the store refuses.
    async fn deliver(&self, group: Group) {
        let work = |taken| self.write(taken, &group);
        let settle = |held, stored| self.settle(held, stored);
        group.batch.work_off(&self.stopping, WriteError::is_refused, work, settle).await;
        if let Some(trial) = group.trial {
            trial.end().await;
        }
    }

    /// Writes all of a group, or one of its envelopes.
    async fn write(&self, taken: &[Taken], group: &Group) -> Result<Written, WriteError> {
        // It is never closed.
        let _turn = self.turn.acquire().await;
        self.metrics.backlog_age.set(age(taken));
        let span = info_span!("store", envelopes = taken.len());
        telemetry::context::adopt_all(&span, taken.iter().filter_map(Taken::traceparent));
        let written = match taken {
            [one] if group.envelopes > 1 => self.sending.write(&one.alone(self.times)).instrument(span).await,
            _ => self.sending.write(&group.samples).instrument(span).await,
        };
        match &written {
            Err(WriteError::Away(reason)) => self.ready.down(reason),
            Ok(_) | Err(WriteError::Refused { .. }) => self.ready.up(),
        }
        written
    }

    async fn settle(&self, held: &[Delivery], stored: Result<Written, WriteError>) {
        match stored {
            Ok(written) => {
                // Counted first: whoever sees the acknowledgement may look at the counter next.
                let envelopes = u64::try_from(held.len()).unwrap_or(u64::MAX);
                self.metrics.envelopes.of(["stored"]).inc_by(envelopes);
                self.metrics.items_stored.inc_by(held.iter().map(Delivery::items).sum());
                self.metrics.samples_stored.inc_by(written.samples);
                self.metrics.samples_melted.inc_by(written.melted);
                ack_all(held).await;
            }
            Err(error) => {
                for delivery in held {
                    if delivery.bury(SERVICE, &error.to_string()).await {
                        self.metrics.envelopes.of(["dead"]).inc();
                    }
                }
            }
        }
    }

    /// Sends what was said to the broker before the process ends; unsent, it makes envelopes come again half a minute later.
    async fn flush(&self) {
        if let Err(error) = self.bus.flush().await {
            warn!(error = format!("{error:#}"), "cannot send the last answers to the broker");
        }
    }
}
