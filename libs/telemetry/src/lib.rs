//! What a program says about itself: structured logs on standard output, declared metrics, and traces over OTLP when `OTEL_EXPORTER_OTLP_ENDPOINT` is set.
//!
//! The trace context travels as a W3C `traceparent` in gRPC metadata and NATS headers; `context` reads and writes it.

pub mod context;
pub mod metrics;

use std::time::Duration;

use anyhow::Context as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

/// How a program logs.
#[derive(clap::Args, Debug, Clone)]
#[group(skip)]
pub struct Settings {
    /// Which log lines appear: a level, or a filter such as `info,bus=debug`
    #[arg(long, env = "SIGHTLINE_LOG", default_value = "info")]
    pub log: String,
    /// How log lines look
    #[arg(long, env = "SIGHTLINE_LOG_FORMAT", default_value = "text")]
    pub log_format: Format,
}

/// How log lines look.
#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For eyes.
    Text,
    /// One JSON object a line.
    Json,
}

/// A collector that does not answer must not hold up a stop.
const LAST_EXPORT: Duration = Duration::from_secs(1);

/// Flushes what is left when it is dropped.
#[derive(Debug)]
pub struct Guard {
    provider: Option<SdkTracerProvider>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(provider) = self.provider.take()
            && let Err(error) = provider.shutdown_with_timeout(LAST_EXPORT)
        {
            tracing::warn!(%error, "cannot flush the last traces");
        }
    }
}

/// Starts logging and, where asked for, tracing. Call once, inside a tokio runtime.
///
/// # Errors
/// A filter or an exporter that cannot be made.
pub fn start(service: &'static str, settings: &Settings) -> anyhow::Result<Guard> {
    opentelemetry::global::set_text_map_propagator(opentelemetry_sdk::propagation::TraceContextPropagator::new());
    let filter: EnvFilter = settings.log.parse().context("read SIGHTLINE_LOG")?;
    let lines = tracing_subscriber::fmt::layer().with_target(true);
    let lines = match settings.log_format {
        Format::Text => lines.with_ansi(false).boxed(),
        Format::Json => lines.json().flatten_event(true).boxed(),
    };
    let provider = exporter(service)?;
    // Fewer log lines must not mean fewer traces. A task lives as long as the process: as a span it would end no trace.
    let traced = Targets::new().with_default(LevelFilter::INFO).with_target("lifecycle::process", LevelFilter::WARN);
    let spans = provider
        .as_ref()
        .map(|provider| tracing_opentelemetry::layer().with_tracer(provider.tracer(service)).with_filter(traced));
    tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .with(spans)
        .try_init()
        .context("install the log subscriber")?;
    Ok(Guard { provider })
}

fn exporter(service: &'static str) -> anyhow::Result<Option<SdkTracerProvider>> {
    let asked = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"]
        .iter()
        .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
    if !asked || std::env::var_os("OTEL_SDK_DISABLED").is_some_and(|value| value == "true") {
        return Ok(None);
    }
    let exporter =
        opentelemetry_otlp::SpanExporter::builder().with_tonic().build().context("build the trace exporter")?;
    let name = format!("sightline-{service}");
    Ok(Some(
        SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(Resource::builder().with_service_name(name).build())
            .build(),
    ))
}
