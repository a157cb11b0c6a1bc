//! `cargo dev bench ingest`: what durable ingest costs, in items per CPU-second of each process.
//!
//! Two phases a signal. With the readers stopped, only the gateway and nats-server work: an item is counted when it was
//! acknowledged after the broker's acknowledgement. With the readers running, a round ends when they have stored
//! everything. Figures are medians with the lowest and highest round. At the end the stores are asked how many items they
//! have.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "prints its report, says where it is, and stops when it cannot measure"
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use serde_json::{Map, Value, json};
use testkit::eventually;
use tests_e2e::Sightline;
use tests_e2e::bench::load::{self, Agents, Pace};
use tests_e2e::bench::payload::Signal;
use tests_e2e::bench::usage;
use tests_e2e::client::Client;

const READERS: [&str; 4] = ["metric-writer", "log-writer", "rule-engine", "ws-fanout"];
const OTHERS: [&str; 6] = ["ingest-gateway", "registry", "alert-service", "dispatcher", "auth", "api-gateway"];
const NATS: &str = "nats-server";
/// A process that used less of a round than this was idle.
const IDLE_SECONDS: f64 = 0.03;

/// What durable ingest costs, in items per CPU-second of each process
#[derive(Parser)]
#[command(name = "cargo dev bench ingest")]
struct Arguments {
    /// One line of JSON instead of many
    #[arg(long)]
    json: bool,
    /// Rounds of each phase
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds that a round sends for
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Agents that report
    #[arg(long, default_value_t = 50)]
    agents: usize,
    /// Items that each agent reports a second; as fast as they are acknowledged unless given
    #[arg(long)]
    rate: Option<f64>,
    /// Only this signal: metrics or logs
    #[arg(long)]
    signal: Option<String>,
}

#[tokio::main]
async fn main() {
    let wanted = Arguments::parse();
    let pace = Pace {
        duration: Duration::from_secs_f64(wanted.seconds),
        rate: wanted.rate.map(|rate| rate * wanted.agents as f64),
    };
    let mut bench = Bench::start().await;
    let mut report = Map::new();
    for signal in [Signal::Metrics, Signal::Logs] {
        if wanted.signal.as_deref().is_none_or(|only| only == signal.name()) {
            let agents = Agents::new(signal, wanted.agents);
            report.insert(signal.name().to_owned(), bench.signal(signal, &agents, pace, wanted.rounds).await);
        }
    }
    bench.note_memory();
    report.insert("peak_rss_mib".to_owned(), json!(bench.peaks));
    report.insert("servers".to_owned(), bench.versions());
    let status = bench.admin.get("/api/v1/status").await.unwrap();
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

/// Where the run is, apart from its report.
fn say(what: &str) {
    eprintln!("{what}");
}

/// Figures of one round by name.
type Round = BTreeMap<String, f64>;

struct Bench {
    sightline: Sightline,
    admin: Client,
    /// Most memory that each process had, in mebibytes, over all of its restarts.
    peaks: BTreeMap<String, f64>,
}

impl Bench {
    async fn start() -> Self {
        let sightline = Sightline::start(&[("SIGHTLINE_STREAM_MAX_BYTES", "4GiB"), ("SIGHTLINE_LOG", "warn")]).await;
        let admin = sightline.admin().await;
        Self { sightline, admin, peaks: BTreeMap::new() }
    }

    async fn signal(&mut self, signal: Signal, agents: &Arc<Agents>, pace: Pace, rounds: usize) -> Value {
        let mut accepted = 0;
        self.note_memory();
        say(&format!("{}: stopping the readers", signal.name()));
        for reader in READERS {
            self.sightline.stop(reader);
        }
        let stopped = self.rounds(signal, agents, pace, rounds, false, &mut accepted).await;
        say(&format!("{}: starting the readers, which store what waits for them", signal.name()));
        for reader in READERS {
            self.sightline.spawn(reader);
        }
        for reader in READERS {
            self.sightline.wait_ready(reader).await;
        }
        self.settle().await;
        let running = self.rounds(signal, agents, pace, rounds, true, &mut accepted).await;
        say(&format!("{}: counting what is stored", signal.name()));
        let stored = self.stored(signal, accepted).await;
        json!({
            "bytes_per_item": agents.bytes_per_item(),
            "readers_running": summary(&running),
            "readers_stopped": summary(&stopped),
            "acknowledged": accepted,
            "stored": stored,
            // Negative: something is there that was not acknowledged, or twice.
            "lost": i64::try_from(accepted).unwrap() - i64::try_from(stored).unwrap(),
        })
    }

    async fn rounds(
        &self,
        signal: Signal,
        agents: &Arc<Agents>,
        pace: Pace,
        count: usize,
        readers: bool,
        accepted: &mut usize,
    ) -> Vec<Round> {
        let mut rounds = Vec::with_capacity(count);
        for number in 1..=count {
            let begun = Instant::now();
            let (round, items) = self.round(agents, pace, readers).await;
            say(&format!(
                "{}, readers {}: round {number} of {count}, {items} items in {:.1} s",
                signal.name(),
                if readers { "running" } else { "stopped" },
                begun.elapsed().as_secs_f64()
            ));
            rounds.push(round);
            *accepted += items;
        }
        rounds
    }

    async fn round(&self, agents: &Arc<Agents>, pace: Pace, readers: bool) -> (Round, usize) {
        let pids: BTreeMap<String, u32> =
            self.pids().into_iter().filter(|(name, _)| readers || !READERS.contains(&name.as_str())).collect();
        let before = usage::all(&pids);
        let outcome = load::run(&self.sightline.ingest_grpc(), agents, pace).await;
        if readers {
            self.settle().await;
        }
        let used: BTreeMap<String, f64> =
            usage::all(&pids).into_iter().map(|(name, after)| (name.clone(), after - before[&name])).collect();
        let accepted = outcome.accepted as f64;
        let mut round = Round::from([
            ("accepted_per_second".to_owned(), accepted / outcome.seconds),
            ("refused_requests".to_owned(), outcome.refused as f64),
            ("ack_p50_ms".to_owned(), outcome.percentile(50).as_secs_f64() * 1e3),
            ("ack_p99_ms".to_owned(), outcome.percentile(99).as_secs_f64() * 1e3),
        ]);
        let ingest: f64 = ["ingest-gateway", NATS].iter().filter_map(|name| used.get(*name)).sum();
        round.insert("items_per_cpu_second.ingest-gateway+nats-server".to_owned(), accepted / ingest);
        round.insert("items_per_cpu_second.everything".to_owned(), accepted / used.values().sum::<f64>());
        for (name, seconds) in used.into_iter().filter(|(_, seconds)| *seconds > IDLE_SECONDS) {
            round.insert(format!("items_per_cpu_second.{name}"), accepted / seconds);
        }
        (round, outcome.accepted)
    }

    /// Those that run now.
    fn pids(&self) -> BTreeMap<String, u32> {
        let services = READERS.iter().chain(&OTHERS).map(|name| ((*name).to_owned(), self.sightline.pid(name)));
        services.chain(testkit::servers().running.iter().map(|server| (server.name.clone(), server.pid))).collect()
    }

    fn note_memory(&mut self) {
        for (name, pid) in self.pids() {
            let known = self.peaks.entry(name).or_default();
            *known = usage::peak_rss_mib(pid).round().max(*known);
        }
    }

    fn versions(&self) -> Value {
        let versions = testkit::servers().running.iter().map(|server| (server.name.clone(), json!(server.version)));
        Value::Object(versions.collect())
    }

    /// Waits until the readers have stored everything.
    async fn settle(&self) {
        let begun = Instant::now();
        eventually("everything is stored", Duration::from_secs(300), async || {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let asked = begun.elapsed().as_secs_f64();
            let status = self.admin.get("/api/v1/status").await?;
            // An account is taken every two seconds; one from before says nothing of this round.
            let age = status["broker"]["age_seconds"].as_f64().unwrap_or(f64::INFINITY);
            if age >= asked {
                return Err("the account is of before".to_owned());
            }
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

    /// How many items the store itself has. It may take a moment until it shows what it has just been given.
    async fn stored(&self, signal: Signal, expected: usize) -> usize {
        let mut stored = 0;
        for _ in 0..20 {
            stored = match signal {
                Signal::Metrics => self.stored_samples().await,
                Signal::Logs => self.stored_lines().await,
            };
            if stored >= expected {
                break;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        stored
    }

    async fn stored_samples(&self) -> usize {
        let query = r#"sum(count_over_time({__name__=~"bench_http_server_metric_.*"}[1d]))"#;
        let url = format!("{}/api/v1/query", testkit::servers().metrics);
        let answer = reqwest::Client::new().get(url).query(&[("query", query)]).send().await.unwrap();
        let answer: Value = answer.json().await.unwrap();
        answer["data"]["result"][0]["value"][1].as_str().and_then(|count| count.parse().ok()).unwrap_or_default()
    }

    async fn stored_lines(&self) -> usize {
        let pool = sqlx::PgPool::connect(&self.sightline.database_url).await.unwrap();
        let count: i64 = sqlx::query_scalar("select count(*) from log_writer.logs").fetch_one(&pool).await.unwrap();
        usize::try_from(count).unwrap()
    }
}

/// Median, lowest and highest of each figure; a dot in a name makes an object.
fn summary(rounds: &[Round]) -> Value {
    let mut figures = Map::new();
    let names: std::collections::BTreeSet<&String> = rounds.iter().flat_map(BTreeMap::keys).collect();
    for name in names {
        let mut values: Vec<f64> = rounds.iter().filter_map(|round| round.get(name).copied()).collect();
        values.sort_by(f64::total_cmp);
        let rounded = |value: f64| if value < 1_000.0 { (value * 100.0).round() / 100.0 } else { value.round() };
        let figure = json!({
            "median": rounded(values[values.len() / 2]),
            "lowest": rounded(values[0]),
            "highest": rounded(values[values.len() - 1]),
        });
        match name.split_once('.') {
            Some((group, name)) => {
                let group = figures.entry(group).or_insert_with(|| Value::Object(Map::new()));
                group[name] = figure;
            }
            None => {
                figures.insert(name.clone(), figure);
            }
        }
    }
    Value::Object(figures)
}
