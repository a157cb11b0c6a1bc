//! Keeping books: senders that give each item an id of its own and retry what was not acknowledged with the same bytes,
//! and judges that compare what was acknowledged with what the public API finds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use prost::Message as _;
use reqwest::StatusCode;
use testkit::eventually;
use tests_e2e::Sightline;
use tests_e2e::client::{Client, encode};
use tests_e2e::otlp;
use tokio::task::JoinSet;

pub const SENDERS: usize = 4;
const LINES: usize = 10;
const POINTS: usize = 10;
/// A sender's pace: one batch of logs and one of metrics each time.
const EVERY: Duration = Duration::from_millis(100);
/// Every so many batches are sent once more after they were acknowledged, as a client does whose answer got lost.
pub const REPEATED: usize = 10;
pub const GIVE_UP: Duration = Duration::from_secs(60);
const SETTLED: Duration = Duration::from_secs(120);

/// What one sender was promised.
#[derive(Default)]
pub struct Promised {
    planned: usize,
    lines: BTreeSet<String>,
    points: usize,
    sum: f64,
}

#[derive(Default)]
pub struct Found {
    pub lost: usize,
    pub duplicated: usize,
    pub foreign: usize,
}

impl Found {
    fn compare(&mut self, seen: &BTreeMap<String, usize>, promised: &BTreeSet<String>) {
        self.lost += promised.iter().filter(|line| !seen.contains_key(*line)).count();
        self.duplicated += seen.values().map(|times| times - 1).sum::<usize>();
        self.foreign += seen.keys().filter(|line| !promised.contains(*line)).count();
    }
}

/// Senders at work.
pub struct Senders {
    tasks: JoinSet<(String, Promised)>,
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
}

impl Senders {
    pub fn start(sightline: &Sightline) -> Self {
        Self::through(sightline, &[sightline.ingest_http()])
    }

    /// Senders that go round these gateways: what one of them was sent is repeated at the next.
    pub fn through(sightline: &Sightline, gateways: &[String]) -> Self {
        let mut senders = Self { tasks: JoinSet::new(), stop: Arc::default(), sent: Arc::default() };
        for number in 0..SENDERS {
            let (stop, sent) = (Arc::clone(&senders.stop), Arc::clone(&senders.sent));
            // All tests share the metrics store: their hosts' names must differ.
            let (gateways, namespace) = (gateways.to_vec(), sightline.stack.namespace.clone());
            senders.tasks.spawn(async move {
                let host = format!("ledger-{namespace}-{number}");
                let promised = send(&gateways, &host, &stop, &sent).await;
                (host, promised)
            });
        }
        senders
    }

    /// Batches that were acknowledged so far.
    pub fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }

    /// Waits until `more` batches were acknowledged after `before`.
    pub async fn flow(&self, before: usize, more: usize) {
        eventually("data flows", GIVE_UP, async || {
            let now = self.sent();
            if now > before + more { Ok(()) } else { Err(format!("{} batches", now - before)) }
        })
        .await;
    }

    /// Stops them and gives what each was promised. Fails when less than 90% of the plan was accepted.
    pub async fn finish(mut self) -> BTreeMap<String, Promised> {
        self.stop.store(true, Ordering::Relaxed);
        let mut promised = BTreeMap::new();
        while let Some(sender) = self.tasks.join_next().await {
            let (host, kept) = sender.unwrap();
            let accepted = kept.lines.len() / LINES + kept.points / POINTS;
            assert!(accepted * 10 >= kept.planned * 9, "only {accepted} of {} batches were accepted", kept.planned);
            promised.insert(host, kept);
        }
        promised
    }
}

async fn send(gateways: &[String], host: &str, stop: &AtomicBool, sent: &AtomicUsize) -> Promised {
    let http = reqwest::Client::builder().timeout(Duration::from_secs(10)).no_proxy().build().unwrap();
    let mut promised = Promised::default();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let now = otlp::now();
        let lines: Vec<String> = (0..LINES).map(|line| format!("{host} batch {number} line {line}")).collect();
        let logs = otlp::logs(host, now, lines.clone()).encode_to_vec();
        // The store's time stamps are milliseconds: a batch's points are a millisecond apart, batches further.
        let points = (0..POINTS).map(|point| (now + point as u64 * 1_000_000, (number * POINTS + point) as f64));
        let points: Vec<(u64, f64)> = points.collect();
        let metrics = otlp::gauge(host, "ledger_value", points.clone()).encode_to_vec();
        promised.planned += 2;
        let first = in_turn(gateways, number);
        let other = in_turn(gateways, number + 1);
        if deliver(&http, &first, "/v1/logs", &logs).await {
            promised.lines.extend(lines);
            sent.fetch_add(1, Ordering::Relaxed);
        }
        if deliver(&http, &first, "/v1/metrics", &metrics).await {
            promised.points += points.len();
            promised.sum += points.iter().map(|(_, value)| value).sum::<f64>();
            sent.fetch_add(1, Ordering::Relaxed);
        }
        if number % REPEATED == 0 {
            deliver(&http, &other, "/v1/logs", &logs).await;
            deliver(&http, &other, "/v1/metrics", &metrics).await;
        }
        number += 1;
        tokio::time::sleep(EVERY).await;
    }
    promised
}

/// All gateways, beginning with another one each time, as a load balancer names them.
pub fn in_turn(gateways: &[String], number: usize) -> Vec<&str> {
    let from = number % gateways.len();
    gateways[from..].iter().chain(&gateways[..from]).map(String::as_str).collect()
}

/// The answers that OTLP tells clients to send again after (OTLP specification, "Retryable Response Codes"); to any
/// other they drop the data.
const RETRYABLE: [StatusCode; 4] = [
    StatusCode::TOO_MANY_REQUESTS,
    StatusCode::BAD_GATEWAY,
    StatusCode::SERVICE_UNAVAILABLE,
    StatusCode::GATEWAY_TIMEOUT,
];

/// Sends to the first gateway, or to the next when one does not take it, until it is acknowledged; gives up after a minute.
/// A refusal for good fails the test.
pub async fn deliver(http: &reqwest::Client, gateways: &[&str], path: &str, body: &[u8]) -> bool {
    let attempts = async {
        for gateway in gateways.iter().cycle() {
            let url = format!("{gateway}{path}");
            let request = http.post(url).header("content-type", "application/x-protobuf").body(body.to_vec());
            match request.send().await {
                Ok(answer) if answer.status().is_success() => return,
                Ok(answer) if !RETRYABLE.contains(&answer.status()) => {
                    panic!(
                        "the gateway refuses for good: {} {}",
                        answer.status(),
                        answer.text().await.unwrap_or_default()
                    );
                }
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    tokio::time::timeout(GIVE_UP, attempts).await.is_ok()
}

/// Stops the senders, waits until all that they were promised has settled, and compares it with what the API shows, what
/// the table itself holds, and what the account says.
pub async fn balance(sightline: &Sightline, admin: &Client, senders: Senders) {
    let promised = senders.finish().await;
    settle(admin).await;
    let lines = judge_lines(admin, &promised).await;
    assert_eq!((lines.lost, lines.duplicated, lines.foreign), (0, 0, 0), "lines lost, duplicated, never promised");
    judge_points(admin, &promised).await;
    let rows = judge_table(sightline, &promised).await;
    assert_eq!((rows.lost, rows.duplicated, rows.foreign), (0, 0, 0), "rows of the table itself");
    let status = admin.get("/api/v1/status").await.unwrap();
    for stream in status["broker"]["account"].as_array().unwrap() {
        assert_eq!(stream["lost"], 0, "the account shows a loss: {stream}");
    }
}

/// Waits until nothing is in flight between the gateway and the stores.
pub async fn settle(admin: &Client) {
    eventually("nothing is in flight", SETTLED, async || {
        let status = admin.get("/api/v1/status").await?;
        let account = status["broker"]["account"].as_array().unwrap();
        let waiting: Vec<_> = account
            .iter()
            .filter(|stream| {
                let name = stream["stream"].as_str().unwrap();
                (name.contains("_LOGS_") || name.contains("_METRICS_")) && stream["in_flight"] != 0
            })
            .collect();
        if waiting.is_empty() { Ok(()) } else { Err(format!("{waiting:?}")) }
    })
    .await;
}

pub async fn judge_lines(admin: &Client, promised: &BTreeMap<String, Promised>) -> Found {
    let mut found = Found::default();
    for (host, kept) in promised {
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        let mut cursor = String::new();
        loop {
            let selector = encode(&format!("{{host_name=\"{host}\"}}"));
            let path =
                format!("/api/v1/logs?match={selector}&limit=1000&order=asc&from=-1h&to={}&cursor={cursor}", later());
            let path = path.trim_end_matches("&cursor=").to_owned();
            let page = admin.get(&path).await.unwrap();
            for item in page["items"].as_array().unwrap() {
                *seen.entry(item["body"].as_str().unwrap().to_owned()).or_default() += 1;
            }
            match page["next"].as_str() {
                Some(next) => cursor = next.to_owned(),
                None => break,
            }
        }
        found.compare(&seen, &kept.lines);
    }
    found
}

/// An hour from now: a batch's last lines lie a little in the future when it is sent.
fn later() -> u64 {
    otlp::now() / 1_000_000_000 + 3_600
}

pub async fn judge_points(admin: &Client, promised: &BTreeMap<String, Promised>) {
    for (host, kept) in promised {
        let count = format!("count_over_time(ledger_value{{host_name=\"{host}\"}}[1h])");
        let sum = format!("sum_over_time(ledger_value{{host_name=\"{host}\"}}[1h])");
        eventually("every point is stored once", SETTLED, async || {
            let found = admin.query(&count).await?.first().map_or(0.0, |(_, value)| *value);
            let total = admin.query(&sum).await?.first().map_or(0.0, |(_, value)| *value);
            if (found, total) == (kept.points as f64, kept.sum) {
                Ok(())
            } else {
                Err(format!("{host}: {found} points of sum {total}, promised {} of {}", kept.points, kept.sum))
            }
        })
        .await;
    }
}

/// The same for the rows of the table itself, whatever the API would show.
pub async fn judge_table(sightline: &Sightline, promised: &BTreeMap<String, Promised>) -> Found {
    let pool = sqlx::PgPool::connect(&sightline.database_url).await.unwrap();
    let mut found = Found::default();
    for (host, kept) in promised {
        let statement = "select body, count(*) from log_writer.logs where host_name = $1 group by body";
        let rows: Vec<(String, i64)> = sqlx::query_as(statement).bind(host).fetch_all(&pool).await.unwrap();
        let seen = rows.into_iter().map(|(body, times)| (body, usize::try_from(times).unwrap())).collect();
        found.compare(&seen, &kept.lines);
    }
    found
}
