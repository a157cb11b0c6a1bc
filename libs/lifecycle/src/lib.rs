//! Runs a service: signals, supervised tasks, readiness, the admin server, drain.
//!
//! The life of a process: configuration is read, the admin port is bound, `run` builds what the service needs and
//! registers tasks. A signal makes the process not ready, waits out the lame duck time, cancels
//! [`Process::stopping`], and waits for every task until the deadline, which names what still runs; a second signal cuts the
//! wait short. A task that ends
//! before that, in whatever way, takes the process down with its name in the log: nothing fails quietly in the background.

mod admin;
mod process;
mod ready;

use std::future::Future;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use tracing::{error, info, warn};

pub use process::Process;
pub use ready::Ready;
pub use tokio_util::sync::CancellationToken;

/// What every process can be told.
#[derive(clap::Args, Debug, Clone)]
#[group(skip)]
pub struct Settings {
    /// Address of `/livez`, `/readyz` and `/metrics` [default: this service's admin port on every address]
    #[arg(long, env = "SIGHTLINE_ADMIN_LISTEN")]
    pub admin_listen: Option<SocketAddr>,
    /// How long a stop may take before what still runs is cut off
    #[arg(long, env = "SIGHTLINE_SHUTDOWN_DEADLINE", default_value = "25s", value_parser = settings::duration)]
    pub shutdown_deadline: Duration,
    /// How long the process goes on serving after it has said that it is not ready, so that load balancers notice
    #[arg(long, env = "SIGHTLINE_LAME_DUCK", default_value = "0s", value_parser = settings::duration)]
    pub lame_duck: Duration,
    #[command(flatten)]
    pub telemetry: telemetry::Settings,
}

/// The configuration of one service.
pub trait Config: settings::Settings + Send + 'static {
    /// The service's name: its folder, binary, certificate and log name.
    const SERVICE: &'static str;
    /// Where the admin server listens unless told otherwise.
    const ADMIN_PORT: u16;
    /// The settings of the process itself.
    fn process(&self) -> &Settings;
}

/// The whole `main` of a service.
pub fn main<C, R, F>(run: R) -> ExitCode
where
    C: Config,
    R: FnOnce(C, Process) -> F,
    F: Future<Output = anyhow::Result<()>>,
{
    let config: C = settings::parse();
    install_crypto();
    let runtime = match tokio::runtime::Runtime::new().context("start the async runtime") {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error),
    };
    let outcome = runtime.block_on(serve(config, run));
    // What is still blocked has already been named in the log.
    runtime.shutdown_timeout(Duration::from_millis(200));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// Chooses the TLS implementation for the whole process; calling it again changes nothing.
pub fn install_crypto() {
    // The only error is that a provider is installed already, by a test that ran before.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

#[expect(clippy::print_stderr, reason = "the log may not have started, or has just been flushed")]
fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}

async fn serve<C, R, F>(config: C, run: R) -> anyhow::Result<()>
where
    C: Config,
    R: FnOnce(C, Process) -> F,
    F: Future<Output = anyhow::Result<()>>,
{
    let settings = config.process().clone();
    let _telemetry = telemetry::start(C::SERVICE, &settings.telemetry)?;
    let process = Process::new(settings.shutdown_deadline);
    let listen = settings.admin_listen.unwrap_or(SocketAddr::from(([0, 0, 0, 0], C::ADMIN_PORT)));
    let admin = admin::Server::start(listen, process.clone()).await?;
    info!(service = C::SERVICE, version = env!("CARGO_PKG_VERSION"), admin = %admin.address(), "starting");
    say_unknown_settings(&process);
    let outcome = tokio::select! {
        outcome = start_and_watch(run(config, process.clone()), &process) => outcome,
        signal = stop_signal() => signal.map(|name| info!(signal = name, "stopping")),
    };
    process.begin_drain();
    tokio::select! {
        () = drain(&process, if outcome.is_ok() { settings.lame_duck } else { Duration::ZERO }) => {}
        Ok(signal) = stop_signal() => warn!(signal, "told to stop again: cutting off what still runs"),
    }
    admin.stop().await;
    match &outcome {
        Ok(()) => info!("stopped"),
        Err(error) => error!(error = format!("{error:#}"), "stopped by an error"),
    }
    outcome
}

async fn drain(process: &Process, lame_duck: Duration) {
    if !lame_duck.is_zero() {
        tokio::time::sleep(lame_duck).await;
    }
    process.finish().await;
}

/// A misspelt name and one of the next release look alike: the program runs, and says so where it is seen.
fn say_unknown_settings(process: &Process) {
    let unknown = settings::unknown_names();
    for sentence in &unknown {
        warn!("{sentence}; it has no effect");
    }
    let metrics = process.register(Metrics::register);
    metrics.unknown.set(i64::try_from(unknown.len()).unwrap_or(i64::MAX));
}

telemetry::metrics! {
    /// What every process says about its configuration.
    struct Metrics in "sightline_settings" {
        /// `SIGHTLINE_*` variables that are set and mean nothing to this version
        unknown: Gauge,
    }
}

/// Ends only with the first thing that goes wrong.
async fn start_and_watch(run: impl Future<Output = anyhow::Result<()>>, process: &Process) -> anyhow::Result<()> {
    tokio::pin!(run);
    let started = tokio::select! {
        outcome = &mut run => outcome,
        failure = process.first_failure() => Err(failure),
    };
    started?;
    process.started();
    info!("started");
    Err(process.first_failure().await)
}

async fn stop_signal() -> anyhow::Result<&'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => Ok("SIGTERM"),
        _ = interrupt.recv() => Ok("SIGINT"),
    }
}
