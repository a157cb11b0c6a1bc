//! `cargo dev bench ingest`: what durable ingest costs, in items per CPU-second of each process.
//!
//! Two phases a signal. With the readers stopped, only the gateway and nats-server work: an item is counted when it was
//! acknowledged after the broker's acknowledgement. With the readers running, the phase ends when they have stored
//! everything. Rounds alternate; figures are medians with the lowest and highest round.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    reason = "prints its report, and stops when it cannot measure"
)]

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::eventually;
use tests_e2e::Sightline;
use tests_e2e::bench::load;
use tests_e2e::bench::payload::{Signal, Template};
use tests_e2e::bench::usage::{cpu_seconds, find, peak_rss_mib};
use tests_e2e::client::Client;

const READERS: [&str; 4] = ["metric-writer", "log-writer", "rule-engine", "ws-fanout"];
const OTHERS: [&str; 6] = ["ingest-gateway", "registry", "alert-service", "dispatcher", "auth", "api-gateway"];

struct Arguments {
    json: bool,
    rounds: usize,
    seconds: u64,
}

fn arguments() -> Arguments {
    let mut wanted = Arguments { json: false, rounds: 5, seconds: 4 };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || words.next().and_then(|text| text.parse().ok());
        match word.as_str() {
            "--json" => wanted.json = true,
            "--rounds" => wanted.rounds = usize::try_from(number().expect("--rounds takes a number")).unwrap(),
            "--seconds" => wanted.seconds = number().expect("--seconds takes a number"),
            other => panic!("unknown argument {other}; write --json, --rounds N or --seconds N"),
        }
    }
    wanted
}

#[tokio::main]
async fn main() {
    let wanted = arguments();
    let mut sightline = Sightline::start(&[("SIGHTLINE_STREAM_MAX_BYTES", "4GiB"), ("SIGHTLINE_LOG", "warn")]).await;
    let admin = sightline.admin().await;
    let duration = Duration::from_secs(wanted.seconds);
    let mut report = serde_json::Map::new();
    for (name, signal) in [("metrics", Signal::Metrics), ("logs", Signal::Logs)] {
        let mut stopped = Vec::new();
        let mut running = Vec::new();
        for _ in 0..wanted.rounds {
            running.push(round(&sightline, &admin, signal, duration, true).await);
            for reader in READERS {
                sightline.stop(reader);
            }
            stopped.push(round(&sightline, &admin, signal, duration, false).await);
            for reader in READERS {
                sightline.spawn(reader);
            }
            for reader in READERS {
                sightline.wait_ready(reader).await;
            }
            settle(&admin).await;
        }
        let bytes = Template::new(signal, 0).bytes_per_item();
        report.insert(
            name.to_owned(),
            json!({ "bytes_per_item": bytes, "readers_stopped": summary(&stopped), "readers_running": summary(&running) }),
        );
    }
    report.insert("peak_rss_mib".to_owned(), memory(&sightline));
    let status = admin.get("/api/v1/status").await.unwrap();
    report.insert("broker".to_owned(), status["broker"]["durability"].clone());
    report.insert("rounds".to_owned(), json!(wanted.rounds));
    report.insert("seconds_a_round".to_owned(), json!(wanted.seconds));
    let report = Value::Object(report);
    if wanted.json {
        println!("{report}");
    } else {
        println!("{}", serde_json::to_string_pretty(&report).unwrap());
    }
}

/// Figures of one round by name.
type Round = BTreeMap<&'static str, f64>;

async fn round(sightline: &Sightline, admin: &Client, signal: Signal, duration: Duration, readers: bool) -> Round {
    let pids = pids(sightline);
    let before: BTreeMap<&str, f64> = pids.iter().map(|(name, pid)| (*name, cpu_seconds(*pid))).collect();
    let outcome = load::run(&sightline.ingest_grpc(), signal, duration).await;
    if readers {
        settle(admin).await;
    }
    let used = |name: &str| pids.get(name).map_or(0.0, |pid| cpu_seconds(*pid) - before[name]);
    let accepted = outcome.accepted as f64;
    let per_cpu_second = |names: &[&str]| {
        let seconds: f64 = names.iter().map(|name| used(name)).sum();
        if seconds > 0.0 { accepted / seconds } else { 0.0 }
    };
    let mut round = Round::from([
        ("accepted_per_second", accepted / outcome.seconds),
        ("refused_requests", outcome.refused as f64),
        ("ack_p50_ms", outcome.percentile(50).as_secs_f64() * 1e3),
        ("ack_p99_ms", outcome.percentile(99).as_secs_f64() * 1e3),
        ("items_per_cpu_second_gateway_and_nats", per_cpu_second(&["ingest-gateway", "nats-server"])),
        ("items_per_cpu_second_gateway", per_cpu_second(&["ingest-gateway"])),
        ("items_per_cpu_second_nats", per_cpu_second(&["nats-server"])),
    ]);
    if readers {
        let writer = if signal == Signal::Metrics { "metric-writer" } else { "log-writer" };
        round.insert("stored_per_cpu_second_writer", per_cpu_second(&[writer]));
        round.insert("items_per_cpu_second_rule_engine", per_cpu_second(&["rule-engine"]));
    }
    round
}

fn pids(sightline: &Sightline) -> BTreeMap<&'static str, u32> {
    let mut pids: BTreeMap<&'static str, u32> =
        READERS.iter().chain(&OTHERS).map(|name| (*name, sightline.pid(name))).collect();
    let port = sightline.stack.servers.nats.rsplit(':').next().unwrap_or_default().to_owned();
    if let Some(pid) = find("nats-server", &port) {
        pids.insert("nats-server", pid);
    }
    pids
}

/// Waits until the readers have stored everything.
async fn settle(admin: &Client) {
    eventually("everything is stored", Duration::from_secs(300), async || {
        let status = admin.get("/api/v1/status").await?;
        let waiting: u64 = status["broker"]["account"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|stream| {
                stream["stream"].as_str().is_some_and(|name| name.contains("_LOGS_") || name.contains("_METRICS_"))
            })
            .filter_map(|stream| stream["in_flight"].as_u64())
            .sum();
        if waiting == 0 { Ok(()) } else { Err(format!("{waiting} envelopes wait")) }
    })
    .await;
}

fn memory(sightline: &Sightline) -> Value {
    let rss = |(name, pid): (&'static str, u32)| (name.to_owned(), json!(peak_rss_mib(pid).round()));
    Value::Object(pids(sightline).into_iter().map(rss).collect())
}

/// Median, lowest and highest of each figure.
fn summary(rounds: &[Round]) -> Value {
    let mut figures = serde_json::Map::new();
    for name in rounds.first().into_iter().flat_map(BTreeMap::keys) {
        let mut values: Vec<f64> = rounds.iter().filter_map(|round| round.get(name).copied()).collect();
        values.sort_by(f64::total_cmp);
        let rounded = |value: f64| (value * 100.0).round() / 100.0;
        figures.insert(
            (*name).to_owned(),
            json!({
                "median": rounded(values[values.len() / 2]),
                "lowest": rounded(values[0]),
                "highest": rounded(values[values.len() - 1]),
            }),
        );
    }
    Value::Object(figures)
}
