//! The task that follows one stream while somebody listens to it.

use std::sync::Arc;
use std::time::Duration;

use bus::{Bus, Delivery, From};
use lifecycle::CancellationToken;

use crate::config::Live;
use crate::frame::{Frame, rfc3339};
use crate::kind::Kind;
use crate::metrics::Metrics;
use crate::reading::Reading;
use crate::topic::Channel;

/// Follows one stream.
pub(crate) struct Follower {
    pub(crate) kind: Kind,
    pub(crate) channel: Arc<Channel>,
    pub(crate) bus: Bus,
    pub(crate) live: Live,
    pub(crate) metrics: Metrics,
}

/// How far behind the stream this process is. The broker's clock may differ from ours, so what counts is how much longer a
/// message took than the quickest one.
#[derive(Default)]
struct Lag {
    quickest: Option<Duration>,
}

impl Lag {
    fn of(&mut self, age: Duration) -> Duration {
        let quickest = self.quickest.map_or(age, |quickest| quickest.min(age));
        self.quickest = Some(quickest);
        age - quickest
    }
}

impl Follower {
    /// Follows the stream whenever somebody listens, until the process stops.
    ///
    /// # Errors
    /// None; the signature is a task's.
    pub(crate) async fn run(self, stopping: CancellationToken) -> anyhow::Result<()> {
        tokio::select! {
            () = stopping.cancelled() => Ok(()),
            ended = self.follow() => ended,
        }
    }

    async fn follow(&self) -> anyhow::Result<()> {
        let mut state = self.channel.state.subscribe();
        loop {
            state.wait_for(|state| state.listeners > 0).await?;
            let mut follow = self.bus.follow(self.channel.stream, From::New).await;
            self.channel.state.send_modify(|state| state.live = true);
            let shards = usize::from(self.bus.settings().shards);
            let mut reading = Reading::new(self.kind, shards, &self.live, self.metrics.clone());
            let mut lag = Lag::default();
            // When the last message was published, and whether all between it and the next one is passed over.
            let (mut last, mut jumped) = (None, false);
            while !self.rests() {
                let delivery = tokio::select! {
                    deserted = state.wait_for(|state| state.listeners == 0) => { deserted?; continue }
                    delivery = follow.next() => delivery,
                };
                if jumped || delivery.missed() > 0 {
                    self.tell_gap(last, &delivery, if jumped { "behind" } else { "evicted" });
                    jumped = false;
                }
                if lag.of(since(delivery.published())) > self.live.behind {
                    tracing::warn!(stream = %self.channel.stream, "live streams are behind; going on with what is published now");
                    last = last.or(Some(delivery.published()));
                    (jumped, lag) = (true, Lag::default());
                    follow = self.bus.follow(self.channel.stream, From::New).await;
                    continue;
                }
                last = Some(delivery.published());
                reading = self.show(reading, delivery).await?;
            }
        }
    }

    /// Ends being live if nobody listens, and tells whether it did.
    fn rests(&self) -> bool {
        self.channel.state.send_if_modified(|state| {
            let rests = state.listeners == 0;
            state.live &= !rests;
            rests
        })
    }

    /// Reads a message for those of its tenant who listen, off the async threads: it may be half a megabyte, and clients'
    /// selectors are asked for each item.
    async fn show(&self, mut reading: Reading, delivery: Delivery) -> anyhow::Result<Reading> {
        if delivery.tick().is_some() {
            return Ok(reading);
        }
        let Some(tenant) = reading.tenant(&delivery) else {
            self.metrics.unreadable_messages.inc();
            return Ok(reading);
        };
        let Some(crowd) = self.channel.audience.of(&tenant) else {
            self.metrics.passed_messages.inc();
            return Ok(reading);
        };
        let metrics = self.metrics.clone();
        let shown = tokio::task::spawn_blocking(move || {
            if let Err(error) = reading.show(&delivery, &crowd) {
                metrics.unreadable_messages.inc();
                tracing::debug!(%error, stream = delivery.stream(), "a message cannot be shown");
            }
            reading
        });
        Ok(shown.await?)
    }

    fn tell_gap(&self, last: Option<u64>, next: &Delivery, why: &'static str) {
        let until = rfc3339(next.published()).unwrap_or_default();
        let frame = Frame::Gap { from: last.and_then(rfc3339), until, why }.text();
        self.metrics.gaps.of([why]).inc();
        for client in self.channel.audience.everybody() {
            client.give(frame.clone(), &self.metrics);
        }
    }
}

/// How long ago a time was, by our own clock; it may be ahead of it by hours.
fn since(unix_nano: u64) -> Duration {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    // A day is added to both, so that a clock that is behind the broker's still tells ages apart.
    (now + Duration::from_secs(24 * 3_600)).saturating_sub(Duration::from_nanos(unix_nano))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_differs_is_no_lag_and_falling_behind_is() {
        let mut lag = Lag::default();
        let hour = Duration::from_secs(3_600);
        assert_eq!(lag.of(hour), Duration::ZERO);
        assert_eq!(lag.of(hour + Duration::from_secs(3)), Duration::from_secs(3));
        assert_eq!(lag.of(hour - Duration::from_secs(2)), Duration::ZERO);
        assert_eq!(lag.of(hour + Duration::from_secs(4)), Duration::from_secs(6));
    }

    #[test]
    fn ages_are_told_apart_though_the_brokers_clock_is_ahead() {
        let ahead = std::time::SystemTime::now() + Duration::from_secs(3_600);
        let ahead = u64::try_from(ahead.duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos()).unwrap();
        assert!(since(ahead - 1_000_000_000) > since(ahead));
    }
}
