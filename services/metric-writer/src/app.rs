//! Builds what the metric-writer needs and registers its tasks.

use bus::{Bus, Options, Stream};
use lifecycle::Process;
use tokio::sync::mpsc;

use crate::config::Config;
use crate::intake;
use crate::metrics::Metrics;
use crate::recovery::Recovery;
use crate::store::Store;
use crate::writer::Writer;

/// Envelopes that wait for the writer; what lies here while the store is away may be delivered again, harmlessly.
const WAITING: usize = 16;

/// Runs the metric-writer.
///
/// # Errors
/// A configuration that cannot work.
pub async fn run(config: Config, process: Process) -> anyhow::Result<()> {
    let store = Store::new(config.metrics_url, config.write_timeout)?;
    let metrics = process.register(Metrics::new);
    let bus = Bus::connect(&config.bus, process.ready("nats")).await?;
    let recovery = Recovery {
        bus: bus.clone(),
        store: store.clone(),
        metrics: metrics.clone(),
        ready: process.ready("metrics-store"),
        stopping: process.stopping(),
    };
    process.spawn("recovery", recovery.watch());
    let (sender, envelopes) = mpsc::channel(WAITING);
    for shard in 0..bus.settings().shards {
        let deliveries = bus.consume(Stream::Metrics(shard), "metric-writer", Options::default());
        process.spawn("pull", intake::pull(bus.clone(), deliveries, sender.clone(), process.stopping()));
    }
    let writer = Writer { bus, store, metrics, ready: process.ready("remote-write"), stopping: process.stopping() };
    process.spawn("write", writer.run(envelopes));
    Ok(())
}
