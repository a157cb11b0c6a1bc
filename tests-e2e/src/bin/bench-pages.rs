//! `cargo dev bench pages`: what a page of a list costs when much lies behind it.
//!
//! Every question is asked of a small installation first, then of the same one with millions of alerts that are over and
//! many resources. Alerts are put into the table; resources come in through the gateway. Figures are milliseconds at the
//! client, and the ratio of both medians.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::panic,
    reason = "prints its report, says where it is, and stops when it cannot measure"
)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Parser;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool};
use testkit::eventually;
use tests_e2e::Sightline;
use tests_e2e::client::{Client, encode};
use tests_e2e::otlp;
use tokio::task::JoinSet;

/// Resources in one request to the gateway.
const IN_A_REQUEST: usize = 500;
const AT_ONCE: usize = 10;
const PATIENCE: Duration = Duration::from_secs(600);

/// What a page of a list costs when much lies behind it
#[derive(Parser)]
#[command(name = "cargo dev bench pages")]
struct Arguments {
    /// One line of JSON instead of many
    #[arg(long)]
    json: bool,
    /// Alerts that are over
    #[arg(long, default_value_t = 10_000_000)]
    alerts: usize,
    /// Hosts that have reported
    #[arg(long, default_value_t = 100_000)]
    resources: usize,
    /// Times that each question is asked
    #[arg(long, default_value_t = 100)]
    times: usize,
}

#[tokio::main]
async fn main() {
    let wanted = Arguments::parse();
    // All hosts come in at once, and stay what they are while they are counted.
    let settings = [("SIGHTLINE_LOG", "warn"), ("SIGHTLINE_IDLE_AFTER", "1h"), ("SIGHTLINE_OFFLINE_AFTER", "2h")];
    let sightline = Sightline::start(&settings).await;
    let admin = sightline.admin().await;
    let pool = PgPool::connect(&sightline.database_url).await.unwrap();
    say("a small installation: 1,000 alerts and 1,000 resources");
    fill_alerts(&pool, 1, 1_000).await;
    fill_resources(&sightline, &admin, 0, 1_000).await;
    let small = ask_all(&admin, wanted.times).await;
    say(&format!("{} resources through the gateway", wanted.resources));
    fill_resources(&sightline, &admin, 1_000, wanted.resources).await;
    say(&format!("{} alerts into the table, and their indexes", wanted.alerts));
    let begun = Instant::now();
    fill_alerts(&pool, 1_001, wanted.alerts).await;
    say(&format!("filled after {:.0} s", begun.elapsed().as_secs_f64()));
    let large = ask_all(&admin, wanted.times).await;
    let pages = small.iter().map(|(question, before)| {
        let after = &large[question];
        let ratio = (after.median / before.median * 100.0).round() / 100.0;
        (*question, json!({"small": before.show(), "large": after.show(), "ratio_of_medians": ratio}))
    });
    let pages: BTreeMap<_, _> = pages.collect();
    let report = json!({"alerts": wanted.alerts, "resources": wanted.resources, "times": wanted.times, "pages": pages});
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

/// Of each list, what people ask for: everything, few of many, many, by labels that few and that many have.
const QUESTIONS: [&str; 13] = [
    "/api/v1/alerts",
    "/api/v1/alerts?state=firing",
    "/api/v1/alerts?state=resolved",
    "/api/v1/alerts?rule_id=00000000-0000-7000-8000-000000000007",
    "/api/v1/alerts?rule_id=00000000-0000-7000-8000-000000000007&state=firing",
    r#"/api/v1/alerts?match={host_name="host-77"}"#,
    r#"/api/v1/alerts?match={severity="critical"}"#,
    r#"/api/v1/alerts?state=firing&match={severity=~"crit.*"}"#,
    "/api/v1/resources",
    r#"/api/v1/resources?match={kind="host"}"#,
    r#"/api/v1/resources?match={host_name="bench-host-77"}"#,
    r#"/api/v1/resources?match={deployment_environment="env-7"}"#,
    r#"/api/v1/resources?match={host_name=~"bench-host-7.*",status="online"}"#,
];

struct Times {
    median: f64,
    p99: f64,
    /// Median while ten ask at once.
    at_once: f64,
    items: usize,
}

impl Times {
    fn show(&self) -> Value {
        let rounded = |milliseconds: f64| (milliseconds * 100.0).round() / 100.0;
        json!({
            "p50_ms": rounded(self.median), "p99_ms": rounded(self.p99),
            "p50_ms_with_ten_at_once": rounded(self.at_once), "items": self.items,
        })
    }
}

async fn ask_all(admin: &Client, times: usize) -> BTreeMap<&'static str, Times> {
    let mut answers = BTreeMap::new();
    for question in QUESTIONS {
        let path = path(question);
        // The first one after a change reads what no cache has.
        let items = ask(admin, &path).await.1;
        let mut alone = Vec::with_capacity(times);
        for _ in 0..times {
            alone.push(ask(admin, &path).await.0);
        }
        let mut together = JoinSet::new();
        for _ in 0..AT_ONCE {
            let (admin, path) = (admin.clone(), path.clone());
            together.spawn(async move { ask(&admin, &path).await.0 });
        }
        let mut at_once = together.join_all().await;
        alone.sort_by(f64::total_cmp);
        at_once.sort_by(f64::total_cmp);
        let (median, p99) = (alone[alone.len() / 2], alone[alone.len() * 99 / 100]);
        answers.insert(question, Times { median, p99, at_once: at_once[AT_ONCE / 2], items });
    }
    answers
}

fn path(question: &str) -> String {
    question
        .split_once("match=")
        .map_or_else(|| question.to_owned(), |(before, selector)| format!("{before}match={}", encode(selector)))
}

/// Milliseconds until the answer was read, and how many items it has.
async fn ask(admin: &Client, path: &str) -> (f64, usize) {
    let begun = Instant::now();
    let page = admin.get(path).await.unwrap_or_else(|error| panic!("{path}: {error}"));
    (begun.elapsed().as_secs_f64() * 1e3, page["items"].as_array().map_or(0, Vec::len))
}

/// Alerts that are over, numbers `from` to `to`; every hundred-thousandth still fires. Bulk loading as it is usually done:
/// indexes are made afterwards.
async fn fill_alerts(pool: &PgPool, from: usize, to: usize) {
    let indexes: Vec<(String, String)> = sqlx::query_as(
        "select indexname, indexdef from pg_indexes
         where schemaname = 'alert_service' and tablename = 'alerts' and indexname <> 'alerts_pkey'",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    for (name, _) in &indexes {
        run(pool, &format!("drop index alert_service.{name}")).await;
    }
    run(
        pool,
        &format!(
            "insert into alert_service.alerts (id, tenant, rule_id, series, rule_version, evaluated_version, kind,
                 rule_name, level, condition, state, ended_reason, labels, descriptive, annotations, value, line,
                 resource_id, starts_unix_nano, ends_unix_nano, updated_unix_nano, occurrences, revision, late,
                 transition_id, shard, epoch, decided_order, evaluated_unix_nano)
             select md5(n::text), 'default', '00000000-0000-7000-8000-' || lpad((n % 1000)::text, 12, '0'),
                 lpad(to_hex(n), 16, '0'), 1, 1, 'metric', 'rule ' || n % 1000, level, '> 90',
                 case when fires then 'firing' else 'resolved' end, case when fires then '' else 'resolved' end,
                 jsonb_build_object('alertname', 'rule ' || n % 1000, 'severity', level, 'resource_id', 'host-' || n % 50000,
                     '__name__', 'system_cpu_usage_percent', 'scope', 'total'),
                 jsonb_build_object('host_name', 'host-' || n % 50000, 'kind', 'host'),
                 '{{}}', 91, '', 'host-' || n % 50000, start, case when fires then 0 else start + 60000000000 end, start, 1, 1, false,
                 md5('t' || n), '00/metrics', 1, n, start
             from (select n, 1700000000000000000 + n::bigint * 1000000000 as start, n % 100000 = 50000 as fires,
                       case when n % 10 = 0 then 'critical' else 'warning' end as level
                   from generate_series({from}, {to}) as n) as numbered"
        ),
    )
    .await;
    for (name, definition) in &indexes {
        say(&format!("  index {name}"));
        run(pool, definition).await;
    }
    run(pool, "analyze alert_service.alerts").await;
}

async fn run(pool: &PgPool, statement: &str) {
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(pool).await.unwrap();
}

/// Hosts, numbers `from` to `to`, that write a line each.
async fn fill_resources(sightline: &Sightline, admin: &Client, from: usize, to: usize) {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("{}/v1/logs", sightline.ingest_http());
    let mut first = from;
    while first < to {
        let last = (first + IN_A_REQUEST).min(to);
        let request = ExportLogsServiceRequest { resource_logs: (first..last).map(host).collect() };
        let body = request.encode_to_vec();
        let sent = http.post(&url).header("content-type", "application/x-protobuf").body(body).send().await.unwrap();
        if sent.status().is_success() {
            first = last;
        } else {
            // The gateway asks for patience when the broker has too much.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    // Sightings of what is new are told one by one: the last host is known last, or nearly so.
    for number in [from, (from + to) / 2, to - 1] {
        let path = path_of_host(number);
        eventually("the registry knows the hosts", PATIENCE, async || {
            let page = admin.get(&path).await?;
            if page["items"].as_array().is_some_and(|items| items.len() == 1) { Ok(()) } else { Err(page.to_string()) }
        })
        .await;
    }
}

fn path_of_host(number: usize) -> String {
    path(&format!(r#"/api/v1/resources?match={{host_name="bench-host-{number}"}}"#))
}

fn host(number: usize) -> ResourceLogs {
    let attributes = vec![
        otlp::attribute("host.name", &format!("bench-host-{number}")),
        otlp::attribute("host.id", &format!("{number:032x}")),
        otlp::attribute("os.type", "linux"),
        otlp::attribute("deployment.environment", &format!("env-{}", number % 1_000)),
        otlp::attribute("cloud.region", &format!("region-{}", number % 7)),
    ];
    let record = LogRecord { time_unix_nano: otlp::now(), severity_number: 9, ..LogRecord::default() };
    ResourceLogs {
        resource: Some(Resource { attributes, ..Resource::default() }),
        scope_logs: vec![ScopeLogs { log_records: vec![record], ..ScopeLogs::default() }],
        ..ResourceLogs::default()
    }
}
