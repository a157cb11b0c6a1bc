//! Builds what the ingest-gateway needs and registers its tasks.

use std::net::SocketAddr;

use anyhow::Context as _;
use authn::Verifier;
use axum::Router;
use bus::Bus;
use edge::{Listener, Protocols, Tls, bind};
use lifecycle::Process;
use model::Times;
use tonic::service::Routes;

use crate::admission::Admission;
use crate::agent_stream::{self, Streams};
use crate::backlog::Backlog;
use crate::collector::Collector;
use crate::config::{Clock, Config};
use crate::frames::Sizes;
use crate::heartbeat::{Heartbeats, Redis};
use crate::heavy::Heavy;
use crate::intake::{Believed, Intake};
use crate::left_out::LeftOut;
use crate::metrics::Metrics;
use crate::otlp_grpc::{self, Entrance};
use crate::otlp_http;
use crate::refusal::Refusals;
use crate::seen::sightings;
use crate::sender::Policy;
use crate::visits::Visits;

/// Where the public ports are, for tests that asked for any free one.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    pub grpc: SocketAddr,
    pub http: SocketAddr,
}

/// Runs the ingest-gateway.
///
/// # Errors
/// A configuration that cannot work.
pub async fn run(config: Config, process: Process) -> anyhow::Result<()> {
    let identity = rpc::Identity::load(&config.tls)?;
    let verifier = Verifier::new(rpc::channel(&identity, &config.auth_url)?, &process);
    start(config, process, verifier).await.map(drop)
}

/// Starts everything, with `verifier` to decide about tokens.
///
/// # Errors
/// A configuration that cannot work.
pub async fn start(config: Config, process: Process, verifier: Verifier) -> anyhow::Result<Addresses> {
    let ingest = &config.ingest;
    let tls = || Tls::load(ingest.tls, ingest.tls_files());
    let (grpc_tls, http_tls) = (tls()?, tls()?);
    // A taken port is known before anything is waited for.
    let (grpc, http) = (bind(config.grpc_listen).await?, bind(config.http_listen).await?);
    let addresses = Addresses { grpc: grpc.local_addr()?, http: http.local_addr()? };
    let redis = Redis::new(&config.redis_url, &config.bus.namespace)?;
    let metrics = process.register(Metrics::register);
    let bus = Bus::open(&process, &config.bus).await?;

    let collector = Collector::new(bus.clone(), metrics.clone());
    let backlog = Backlog::new(config.bus.shards);
    let heartbeats = Heartbeats::default();
    let (sightings, announcer) = sightings(&metrics);
    let stopping = process.stopping();
    process.spawn("collect", collector.clone().run(stopping.clone()));
    process.spawn("watch the backlog", backlog.clone().watch(bus.clone(), stopping.clone()));
    process.spawn("announce resources", announcer.run(bus, stopping.clone()));
    let visits = Visits::default();
    let watch = visits.clone().watch(ingest.process_silence, metrics.clone(), stopping.clone());
    process.spawn("watch for silent agents", watch);
    process.spawn("write heartbeats", heartbeats.clone().write(redis, metrics.clone(), stopping.clone()));

    let size = |bytes: u64| usize::try_from(bytes).context("use the size limits");
    let sizes = Sizes { message: size(ingest.message_bytes)?, unpacked: size(ingest.unpacked_bytes)? };
    let entrance = Entrance {
        intake: Intake {
            collector,
            backlog,
            sightings,
            heartbeats,
            metrics: metrics.clone(),
            left_out: LeftOut::new(metrics.clone()),
            heavy: Heavy::default(),
            limits: config.otlp.limits(),
            believed: believed(&config.clock),
            processes: ingest.processes,
            shards: config.bus.shards,
        },
        policy: Policy::new(verifier, &ingest.anonymous_networks, &ingest.anonymous_tenant, &ingest.certificate_tenant),
        refusals: Refusals::new(metrics.clone()),
        visits: visits.clone(),
        admission: Admission::new(ingest.in_flight_bytes, sizes.while_read(), metrics.in_flight_bytes.clone()),
        metrics: metrics.clone(),
        sizes,
    };
    let streams =
        Streams { entrance: entrance.clone(), visits, draining: process.draining(), stopping: stopping.clone() };
    let edge_metrics = process.register(edge::Metrics::register);
    let listener = |port, protocols, tcp, tls, router| Listener {
        port,
        protocols,
        tcp,
        tls,
        router,
        settings: config.edge.clone(),
        metrics: edge_metrics.clone(),
        stopping: stopping.clone(),
    };
    let grpc_router = otlp_grpc::routes()
        .with_state(entrance.clone())
        .merge(agent_stream::routes().with_state(streams))
        .merge(health(&process))
        .fallback_service(axum::routing::any(otlp_grpc::nowhere).with_state(entrance.clone()))
        .layer(axum::middleware::from_fn_with_state(entrance.clone(), otlp_grpc::only_http2));
    let http_router = otlp_http::routes(&ingest.cors_origins).with_state(entrance);
    process.spawn("grpc", listener("grpc", Protocols::Grpc, grpc, grpc_tls, grpc_router).run());
    process.spawn("http", listener("http", Protocols::Http, http, http_tls, http_router).run());
    tracing::info!(
        grpc = %addresses.grpc,
        http = %addresses.http,
        tls = ?ingest.tls,
        anonymous_networks = ?ingest.anonymous_networks,
        "taking telemetry"
    );
    Ok(addresses)
}

fn believed(clock: &Clock) -> Believed {
    let times = |age| Times { ahead: clock.clock_skew, age };
    Believed { metrics: times(clock.metrics_retention), logs: times(clock.log_retention) }
}

/// `grpc.health.v1`, which follows `/readyz`.
fn health(process: &Process) -> Router {
    let (health, service) = tonic_health::server::health_reporter();
    let watched = process.clone();
    process.spawn("grpc health", async move {
        let stopping = watched.stopping();
        while !stopping.is_cancelled() {
            let ready = watched.missing().is_empty();
            let status =
                if ready { tonic_health::ServingStatus::Serving } else { tonic_health::ServingStatus::NotServing };
            health.set_service_status("", status).await;
            tokio::select! {
                () = tokio::time::sleep(std::time::Duration::from_millis(500)) => {}
                () = stopping.cancelled() => {}
            }
        }
        health.set_service_status("", tonic_health::ServingStatus::NotServing).await;
        Ok(())
    });
    Routes::new(service).into_axum_router()
}
