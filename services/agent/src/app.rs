//! Puts the agent together.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lifecycle::{CancellationToken, Process};

use crate::collect::Collector;
use crate::config::Config;
use crate::gateway::{Gateway, Health};
use crate::identity::{self, Identity};
use crate::metrics::Metrics;
use crate::processes::Snapshots;
use crate::sampling;
use crate::sender::Sender;
use crate::spool::{End, Signal, Spool};
use crate::streams::{Commands, SnapshotStream};
use crate::tail::positions::Positions;
use crate::tail::{Forwarder, Tail};

/// How long a stop may spend on sending; the rest stays on disk.
const FLUSH_TIME: Duration = Duration::from_secs(3);
/// The least time without a successful export after which the agent is not ready.
const LEAST_PATIENCE: Duration = Duration::from_secs(30);

/// Starts everything; it runs until the process stops.
///
/// # Errors
/// The state folder, the CA file or `/proc` cannot be used.
pub async fn run(config: Config, process: Process) -> anyhow::Result<()> {
    let metrics = Arc::new(process.register(Metrics::register));
    let identity = Arc::new(Identity::establish(&config.state_dir)?);
    tracing::info!(agent_id = identity.agent_id, host_id = identity.host_id, endpoint = %config.endpoint, "agent identity");

    let health = Health::new(process.ready("gateway"), LEAST_PATIENCE.max(config.interval * 3));
    let gateway = Arc::new(Gateway::new(
        &config.endpoint,
        config.ca_file.as_deref(),
        config.token_file.as_deref(),
        health.clone(),
    )?);
    let positions = Arc::new(Positions::load(&config.state_dir.join("positions.json")));
    let spool_dir = config.state_dir.join("spool");
    // Before the tail: batches that wait tell how far files were read.
    let spool = Arc::new(Spool::open(&spool_dir, config.spool_max_bytes, positions.clone(), metrics.clone())?);
    let tail = Tail::open(&config.log_paths(), positions, Instant::now());
    let forwarder = Forwarder::new(tail, spool.clone(), identity.clone(), metrics.clone());
    let collector = Collector::new(identity.clone())?;
    let snapshots = Snapshots::new(identity)?;

    let stop = process.stopping();
    let produced = [(); 2].map(|()| CancellationToken::new());
    let [metrics_produced, logs_produced] = produced.clone();
    process.spawn("metrics", {
        let (spool, metrics, stop, interval) = (spool.clone(), metrics.clone(), stop.clone(), config.interval);
        async move {
            let _produced = metrics_produced.drop_guard();
            sampling::run(collector, interval, spool, metrics, stop).await
        }
    });
    process.spawn("logs", {
        let stop = stop.clone();
        async move {
            let _produced = logs_produced.drop_guard();
            forwarder.run(stop).await
        }
    });
    spawn_senders(&process, &spool, &gateway, &metrics, produced);

    let stream = SnapshotStream {
        snapshots,
        interval: config.process_interval,
        gateway: gateway.clone(),
        metrics: metrics.clone(),
    };
    let commands = Commands { gateway, metrics };
    spawn_until_stop(&process, "commands", commands.run(stop.clone()));
    spawn_until_stop(&process, "processes", stream.run(stop.clone()));
    spawn_until_stop(&process, "health", health.watch(stop));
    Ok(())
}

fn spawn_senders(
    process: &Process,
    spool: &Arc<Spool>,
    gateway: &Arc<Gateway>,
    metrics: &Arc<Metrics>,
    [metrics_produced, logs_produced]: [CancellationToken; 2],
) {
    let lanes = [
        ("send metrics", Signal::Metrics, End::Oldest, &metrics_produced),
        ("send fresh metrics", Signal::Metrics, End::Newest, &metrics_produced),
        ("send logs", Signal::Logs, End::Oldest, &logs_produced),
        ("send fresh logs", Signal::Logs, End::Newest, &logs_produced),
    ];
    for (name, signal, end, produced) in lanes {
        let sender = Sender { signal, end, spool: spool.clone(), gateway: gateway.clone(), metrics: metrics.clone() };
        let (stop, produced) = (process.stopping(), produced.clone());
        process.spawn(name, async move {
            tokio::select! {
                outcome = sender.run(produced) => outcome,
                // What it was sending is still in the spool.
                () = flush_time_after(stop) => Ok(()),
            }
        });
    }
}

async fn flush_time_after(stop: CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(FLUSH_TIME).await;
}

fn spawn_until_stop(process: &Process, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
    process.spawn(name, async move {
        task.await;
        Ok(())
    });
}

/// `agent id`.
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "this is the command's answer")]
pub fn print_id(config: &Config) -> ExitCode {
    match identity::agent_id(&config.state_dir) {
        Ok(id) => {
            println!("{id}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
