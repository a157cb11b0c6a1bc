//! Reading with acknowledgements: replicas share a durable consumer, and each message comes until somebody is done with it.
//!
//! The loop survives everything that can vanish: connection, consumer, stream.

use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream::consumer::PullConsumer;
use futures::{FutureExt as _, StreamExt as _};
use lifecycle::CancellationToken;
use tokio::time::Instant;

use crate::delivery::Delivery;
use crate::lines::Seat;
use crate::pull::{HEARTBEAT, Options, Pull};
use crate::stream::Stream;
use crate::{Bus, topology};

/// By then the server knows that this pull is gone; at once, it would send the message to it again.
pub(crate) const GIVE_BACK_AFTER: Duration = Duration::from_millis(500);

/// What the server has sent by the time that it hears that nobody pulls any more would come to somebody else only after the
/// time to acknowledge: so the pull is read on until it has been quiet for so long, but not without end.
const QUIET: Duration = Duration::from_millis(50);
const LONGEST_FAREWELL: Duration = Duration::from_millis(200);

/// A pull that is open and brings neither message nor error for so long has had its heartbeats.
const QUIET_IS_WELL: Duration = HEARTBEAT.saturating_mul(3);

/// The endless sequence of a durable consumer's messages.
pub struct Deliveries {
    bus: Bus,
    stream: Stream,
    durable: String,
    options: Options,
    seat: Seat,
    pull: Pull,
    /// A suspect that came behind others, which must not be handled with it.
    apart: Option<Delivery>,
}

impl Deliveries {
    pub(crate) fn new(bus: Bus, stream: Stream, durable: &str, options: Options) -> Self {
        let seat = bus.seat();
        Self { bus, stream, durable: durable.to_owned(), options, seat, pull: Pull::default(), apart: None }
    }

    /// The next message, however long it takes. May be dropped at any time without losing one.
    pub async fn next(&mut self) -> Delivery {
        if let Some(apart) = self.apart.take() {
            return apart;
        }
        loop {
            // Where all is well, a message or an error comes before.
            let step = if self.pull.is_troubled() {
                tokio::time::timeout(QUIET_IS_WELL, self.step()).await
            } else {
                Ok(self.step().await)
            };
            match step {
                Ok(Ok(delivery)) => {
                    self.recovered();
                    return delivery;
                }
                Ok(Err(error)) => {
                    if self.pull.is_stuck() {
                        let reason = format!("{} cannot read {}: {error:#}", self.durable, self.stream);
                        self.bus.links().set(&self.flag(), Some(reason));
                    }
                    self.pull.mend(self.stream, Some(&self.durable), &error).await;
                }
                Err(_) if self.pull.is_open() => self.recovered(),
                Err(_) => {}
            }
        }
    }

    fn recovered(&mut self) {
        if self.pull.is_stuck() {
            self.bus.links().set(&self.flag(), None);
        }
        self.pull.recovered();
    }

    fn flag(&self) -> String {
        format!("read {} {}", self.stream, self.durable)
    }

    /// The next message, however long it takes, and those that are there already, `most` in all; a suspect
    /// ([`Delivery::is_suspect`]) comes alone. May be dropped at any time without losing one.
    pub async fn several(&mut self, most: usize) -> Vec<Delivery> {
        let mut several = vec![self.next().await];
        while several.len() < most
            && !several[0].is_suspect()
            && let Some(delivery) = self.next().now_or_never()
        {
            if delivery.is_suspect() {
                self.apart = Some(delivery);
                break;
            }
            several.push(delivery);
        }
        several
    }

    /// The same as a [`futures::Stream`], which ends when `stopping` is cancelled and what was pulled has been given back: so
    /// it must be read to its end.
    pub fn until(self, stopping: CancellationToken) -> impl futures::Stream<Item = Delivery> + Send {
        futures::stream::unfold(Some(self), move |deliveries| {
            let stopping = stopping.clone();
            async move {
                let mut deliveries = deliveries?;
                if let Some(delivery) = stopping.run_until_cancelled(deliveries.next()).await {
                    return Some((delivery, Some(deliveries)));
                }
                deliveries.close().await;
                None
            }
        })
    }

    /// Gives back what was pulled and not handed out, so that another replica gets it at once.
    pub async fn close(mut self) {
        self.give_back().await;
    }

    /// As [`close`](Self::close); reading again begins anew.
    pub async fn give_back(&mut self) {
        if let Some(apart) = self.apart.take() {
            apart.nak(GIVE_BACK_AFTER).await;
        }
        let Some(mut pull) = self.pull.close() else { return };
        let end = Instant::now() + LONGEST_FAREWELL;
        while Instant::now() < end
            && let Ok(Some(Ok(message))) = tokio::time::timeout(QUIET, pull.next()).await
        {
            if let Ok(delivery) = Delivery::new(self.bus.clone(), message) {
                delivery.nak(GIVE_BACK_AFTER).await;
            }
        }
    }

    async fn step(&mut self) -> anyhow::Result<Delivery> {
        if !self.pull.is_open() {
            let loss = self.seat.connection().await.watch();
            let consumer = self.consumer().await?;
            let opened = self.pull.open(consumer, &self.options, loss).await;
            opened.with_context(|| format!("begin to pull from {}", self.stream))?;
        }
        let message = self.pull.next().await.with_context(|| format!("pull from {}", self.stream))?;
        let delivery = Delivery::new(self.bus.clone(), message)?;
        Ok(if self.is_writer() { delivery.counted(self.stream) } else { delivery })
    }

    /// Whether what it acknowledges is what the account is about.
    fn is_writer(&self) -> bool {
        self.stream.writer().is_some_and(|writer| writer.durable == self.durable)
    }

    async fn consumer(&self) -> anyhow::Result<PullConsumer> {
        let connection = self.seat.connection().await;
        connection.connected().await;
        let settings = self.bus.settings();
        // After the broker lost its disk, or somebody cleaned up, both must be made again.
        topology::ensure_stream(&connection.jetstream, settings, self.stream).await?;
        self.bus.counts().forget(self.stream).await;
        let writer = self.stream.writer().filter(|writer| writer.durable == self.durable);
        let ack_wait = writer.map_or(Duration::from_secs(60), |writer| writer.ack_wait);
        topology::durable(&connection.jetstream, settings, self.stream, &self.durable, ack_wait).await
    }
}

impl Drop for Deliveries {
    fn drop(&mut self) {
        self.recovered();
    }
}
