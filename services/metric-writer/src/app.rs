//! Builds what the metric-writer needs and registers its tasks.

use bus::Bus;
use lifecycle::Process;
use series::Reader;

use crate::config::Config;
use crate::group::{Gathering, Limits};
use crate::metrics::Metrics;
use crate::recovery::Recovery;
use crate::replay::Replay;
use crate::sending::Sending;
use crate::store::Store;
use crate::writer::Writer;

/// Of what series may take, the share of what is written again after a restart of the store.
const FOR_REPLAYS: usize = 5;

/// Runs the metric-writer.
///
/// # Errors
/// A configuration that cannot work.
pub async fn run(config: Config, process: Process) -> anyhow::Result<()> {
    let size = |bytes| usize::try_from(bytes).unwrap_or(usize::MAX);
    let (times, cache_bytes) = (config.times(), config.cache_bytes());
    let store = Store::new(config.metrics_url, config.write_timeout)?;
    let metrics = process.register(Metrics::register);
    let bus = Bus::open(&process, &config.bus).await?;
    let namespace = &bus.settings().namespace;
    let sending = Sending::new(store.clone(), metrics.clone(), size(config.request_bytes), namespace);
    let replay = Replay {
        bus: bus.clone(),
        sending: sending.clone(),
        metrics: metrics.clone(),
        times,
        cache_bytes: cache_bytes / FOR_REPLAYS,
    };
    let recovery = Recovery {
        bus: bus.clone(),
        store,
        replay,
        metrics: metrics.clone(),
        times,
        ready: process.ready("metrics-store"),
        stopping: process.stopping(),
    };
    process.spawn("recovery", recovery.watch());
    let reader = Reader::new(cache_bytes - cache_bytes / FOR_REPLAYS).believing(times);
    let limits = Limits { samples: config.write_samples, bytes: size(config.write_bytes) };
    let gathering = Gathering::new(&bus, &process.stopping(), reader, limits, metrics.clone());
    let writer = Writer::new(bus, sending, times, metrics, &process);
    process.spawn("write", writer.run(gathering));
    Ok(())
}
