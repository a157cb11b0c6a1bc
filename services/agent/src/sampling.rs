//! Collects metrics every interval and puts them into the spool.

use std::sync::Arc;
use std::time::Duration;

use lifecycle::{CancellationToken, Ready};
use tokio::time::{Instant, MissedTickBehavior};

use crate::collect::{Collector, REQUEST_BYTES};
use crate::metrics::{Metrics, Reason};
use crate::patience;
use crate::signal::Signal;
use crate::spool::Spool;

/// The first points come early, so that a new host shows at once; they need a moment to tell usage over.
const FIRST_DELAY: Duration = Duration::from_secs(1);

/// Runs until `stop`.
///
/// # Errors
/// Collecting panicked.
pub async fn run(
    mut collector: Collector,
    interval: Duration,
    spool: Arc<Spool>,
    metrics: Metrics,
    ready: Ready,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut ticks = tokio::time::interval_at(Instant::now() + interval.min(FIRST_DELAY), interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return Ok(()),
        }
        let (spool, metrics) = (spool.clone(), metrics.clone());
        let work = move || {
            sample(&mut collector, &spool, &metrics);
            collector
        };
        let Some(done) = patience::run(work, "host metrics", &ready, &stop).await? else { return Ok(()) };
        collector = done;
    }
}

fn sample(collector: &mut Collector, spool: &Spool, metrics: &Metrics) {
    let collection = collector.collect();
    for (source, error) in &collection.failures {
        metrics.collect_failures.of([source.scope()]).inc();
        tracing::warn!(scope = source.scope(), error = format!("{error:#}"), "cannot read some host metrics");
    }
    for (points, payload) in collection.requests(REQUEST_BYTES) {
        if let Err(error) = spool.push(Signal::Metrics, points, &[], &payload) {
            let labels = [Signal::Metrics.as_str(), Reason::SpoolFull.as_str()];
            metrics.items_dropped.of(labels).inc_by(points as u64);
            tracing::error!(error = format!("{:#}", anyhow::Error::from(error)), "metrics are dropped");
        }
    }
}
