//! Puts the agent together.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lifecycle::{CancellationToken, Process};

use crate::collect::Collector;
use crate::config::Config;
use crate::gateway::{Gateway, Health};
use crate::host_root::HostRoot;
use crate::identity::{self, Identity};
use crate::metrics::Metrics;
use crate::positions::Positions;
use crate::processes::Snapshots;
use crate::sampling;
use crate::sender::Sender;
use crate::signal::Signal;
use crate::spool::{End, Spool};
use crate::streams::{Commands, SnapshotStream};
use crate::tail::{Forwarder, Tail};

/// The least time without a successful export after which the agent is not ready.
const LEAST_PATIENCE: Duration = Duration::from_secs(30);

/// Starts everything; it runs until the process stops.
///
/// # Errors
/// The state folder, the CA file or `/proc` cannot be used.
pub async fn run(config: Config, process: Process) -> anyhow::Result<()> {
    let metrics = process.register(Metrics::register);
    let root = HostRoot::new(&config.host_root);
    let identity = Arc::new(Identity::establish(&config.state_dir, &root)?);
    tracing::info!(agent_id = identity.agent_id, host_id = identity.host_id, endpoint = %config.endpoint, "agent identity");

    let health = Health::new(process.ready("gateway"), LEAST_PATIENCE.max(config.interval * 3));
    let gateway = Arc::new(Gateway::new(
        &config.endpoint,
        config.ca_file.as_deref(),
        config.token_file.as_deref(),
        health.clone(),
    )?);
    let positions = Arc::new(Positions::load(&config.state_dir.join("positions.json"))?);
    let spool_dir = config.state_dir.join("spool");
    // Before the tail: requests that wait tell how far files were read.
    let spool = Arc::new(Spool::open(&spool_dir, config.room(), positions.clone(), metrics.clone())?);
    let tail = Tail::open(&config.log_paths(), positions, config.tail(), Instant::now());
    let pace = (config.linger(), config.poll_interval);
    let forwarder = Forwarder::new(tail, spool.clone(), identity.clone(), metrics.clone(), pace);
    let collector = Collector::new(identity.clone(), root.clone())?;
    let snapshots = Snapshots::new(identity, root)?;

    let (metrics_ready, logs_ready) = (process.ready("host metrics"), process.ready("log files"));
    let stop = process.stopping();
    let produced = [(); 2].map(|()| CancellationToken::new());
    let [metrics_produced, logs_produced] = produced.clone();
    process.spawn("metrics", {
        let (spool, metrics, stop, interval) = (spool.clone(), metrics.clone(), stop.clone(), config.interval);
        async move {
            let _produced = metrics_produced.drop_guard();
            sampling::run(collector, interval, spool, metrics, metrics_ready, stop).await
        }
    });
    process.spawn("logs", {
        let stop = stop.clone();
        async move {
            let _produced = logs_produced.drop_guard();
            forwarder.run(logs_ready, stop).await
        }
    });
    let sender = Sender {
        signal: Signal::Metrics,
        end: End::Oldest,
        spool,
        gateway: gateway.clone(),
        metrics: metrics.clone(),
        timeout: config.export_timeout,
    };
    spawn_senders(&process, &sender, config.flush_time, produced);

    let stream = SnapshotStream {
        snapshots,
        interval: config.process_interval,
        most_bytes: usize::try_from(config.snapshot_max_bytes).unwrap_or(usize::MAX),
        gateway: gateway.clone(),
        metrics: metrics.clone(),
    };
    let commands = Commands { gateway, metrics };
    spawn_until_stop(&process, "commands", commands.run(stop.clone()));
    spawn_until_stop(&process, "processes", stream.run(stop.clone()));
    spawn_until_stop(&process, "health", health.watch(stop));
    Ok(())
}

/// Each signal has two lanes.
fn spawn_senders(
    process: &Process,
    sender: &Sender,
    flush_time: Duration,
    [metrics_produced, logs_produced]: [CancellationToken; 2],
) {
    let lanes = [
        ("send metrics", Signal::Metrics, End::Oldest, &metrics_produced),
        ("send fresh metrics", Signal::Metrics, End::Newest, &metrics_produced),
        ("send logs", Signal::Logs, End::Oldest, &logs_produced),
        ("send fresh logs", Signal::Logs, End::Newest, &logs_produced),
    ];
    for (name, signal, end, produced) in lanes {
        let sender = Sender { signal, end, ..sender.clone() };
        let (stop, produced) = (process.stopping(), produced.clone());
        process.spawn(name, async move {
            tokio::select! {
                outcome = sender.run(produced) => outcome,
                // What it was sending is still in the spool.
                () = time_after(stop, flush_time) => Ok(()),
            }
        });
    }
}

async fn time_after(stop: CancellationToken, time: Duration) {
    stop.cancelled().await;
    tokio::time::sleep(time).await;
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
