//! Series that cross a rule's threshold back and forth, and what a receiver was told of it: everything, in order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use prost::Message as _;
use serde_json::{Value, json};
use testkit::eventually;
use tests_e2e::Sightline;
use tests_e2e::client::Client;
use tests_e2e::otlp;
use tests_e2e::receiver::Receiver;
use tokio::task::JoinHandle;

use crate::books::{GIVE_UP, deliver, in_turn};

const SERIES: usize = 24;
/// A series crosses at most once in that time.
const EVERY: Duration = Duration::from_millis(400);
/// So many rounds may be on their way to the receiver: a slow machine is to cross more slowly, not to pile up pages.
const AHEAD: usize = 6;
const METRIC: &str = "crossing_value";
/// Values above it fire: round `n` is `HIGH + n` where it is even, and `n` where it is odd.
const HIGH: usize = 1_000_000;

/// Series that cross, until they are told to stop.
pub struct Crossings {
    receiver: Arc<Receiver>,
    rounds: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<usize>,
}

impl Crossings {
    /// Makes a receiver and a rule, waits until the rule is in force, and begins. `name` tells it apart from others.
    pub async fn start(sightline: &Sightline, admin: &Client, name: &str, gateways: &[String]) -> Self {
        let receiver = Arc::new(Receiver::start().await);
        let host = format!("crossing-{}-{name}", sightline.stack.namespace);
        admin.post("/api/v1/receivers", &json!({"name": name, "webhook": {"url": receiver.url}})).await;
        let rule = json!({
            "name": name, "level": "warning", "metric": METRIC, "match": format!("{{host_name=\"{host}\"}}"),
            "condition": format!("> {}", HIGH / 2), "annotations": {"value": "{{$value}}"}, "receivers": [name],
        });
        admin.post("/api/v1/rules", &rule).await;
        let http = reqwest::Client::builder().timeout(Duration::from_secs(10)).no_proxy().build().unwrap();
        eventually("the rule is in force", GIVE_UP, async || {
            // Of its own each time: a rule looks at what comes after it was made.
            for value in [0, HIGH] {
                let probe = vec![otlp::attribute("series", "probe")];
                let request = otlp::series(&host, METRIC, [(probe, otlp::now(), value as f64)]);
                deliver(&http, &in_turn(gateways, 0), "/v1/metrics", &request.encode_to_vec()).await;
            }
            if receiver.calls().is_empty() { Err("no page came") } else { Ok(()) }
        })
        .await;
        let (rounds, stop) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let sender = Sender { http, gateways: gateways.to_vec(), host, receiver: Arc::clone(&receiver) };
        let crossing = sender.cross(Arc::clone(&rounds), Arc::clone(&stop));
        #[expect(clippy::disallowed_methods, reason = "ends with the test")]
        let task = tokio::spawn(crossing);
        Self { receiver, rounds, stop, task }
    }

    /// Waits until every series has crossed `more` times.
    pub async fn go_on(&self, more: usize) {
        let before = self.rounds.load(Ordering::Relaxed);
        eventually("series cross", GIVE_UP, async || {
            let now = self.rounds.load(Ordering::Relaxed);
            if now >= before + more { Ok(()) } else { Err(format!("{} rounds", now - before)) }
        })
        .await;
    }

    /// Stops, and waits until the receiver has been told of every crossing once, in order.
    pub async fn judge(mut self, sightline: &Sightline) {
        self.stop.store(true, Ordering::Relaxed);
        let rounds = (&mut self.task).await.unwrap();
        let wanted = Self::wanted(rounds);
        let told = eventually("every crossing is told", GIVE_UP, async || {
            let told = self.told();
            let missing: usize = wanted.len() * SERIES - told.values().map(Vec::len).sum::<usize>();
            if missing == 0 {
                return Ok(told);
            }
            let first = told.iter().find(|(_, told)| told.len() < wanted.len());
            let first = first.map(|(series, told)| format!("series {series} has {}: {told:?}", told.len()));
            Err(format!(
                "{missing} of {} pages are missing; {first:?}; {}",
                wanted.len() * SERIES,
                books(sightline).await
            ))
        })
        .await;
        for (series, told) in &told {
            if told != &wanted {
                let decided = decided(sightline, series).await;
                panic!(
                    "what was told of series {series} is not what should have been:\n{told:?}\n{wanted:?}\n{decided}"
                );
            }
        }
        let calls = self.receiver.calls();
        let ids: BTreeSet<&str> = calls.iter().map(|call| call.id.as_str()).collect();
        println!("{} crossings told, {} calls repeated", wanted.len() * SERIES, calls.len() - ids.len());
    }

    /// `firing <value>` and `resolved` in turn.
    fn wanted(rounds: usize) -> Vec<String> {
        let words = (0..rounds).map(|round| match round % 2 {
            0 => format!("firing {}", HIGH + round),
            _ => "resolved".to_owned(),
        });
        words.collect()
    }

    /// What was told of each series, in the order in which it came; a repeat carries the id of what it repeats.
    fn told(&self) -> BTreeMap<String, Vec<String>> {
        let mut told: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for call in self.receiver.calls() {
            if !seen.insert(call.id) {
                continue;
            }
            for alert in call.body["alerts"].as_array().unwrap() {
                let series = alert["labels"]["series"].as_str().unwrap_or_default();
                if series != "probe" {
                    told.entry(series.to_owned()).or_default().push(word(alert));
                }
            }
        }
        told
    }
}

/// What the services themselves say became of transitions and deliveries, for whoever has to find out.
async fn books(sightline: &Sightline) -> String {
    let pool = sqlx::PgPool::connect(&sightline.database_url).await.unwrap();
    let mut books = String::new();
    for statement in [
        "select outcome || ' ' || state, count(*) from alert_service.transitions group by 1 order by 1",
        "select 'waiting ' || topic, count(*) from alert_service.outgoing group by 1",
        "select state || ' ' || reason, count(*) from dispatcher.deliveries group by 1 order by 1",
    ] {
        let rows: Vec<(String, i64)> = sqlx::query_as(statement).fetch_all(&pool).await.unwrap();
        books.push_str(&format!("{rows:?} "));
    }
    books
}

/// How the series' transitions came, as alert-service has written it down.
async fn decided(sightline: &Sightline, series: &str) -> String {
    let pool = sqlx::PgPool::connect(&sightline.database_url).await.unwrap();
    let rows: Vec<String> = sqlx::query_scalar(
        "select concat_ws(' ', recorded_at::time(3), transitions.state, value, outcome, 'sequence', stream_sequence,
             'epoch', epoch, 'order', decided_order, transitions.id)
         from alert_service.transitions join alert_service.alerts on alerts.id = alert_id
         where alerts.labels->>'series' = $1 order by recorded_at, stream_sequence",
    )
    .bind(series)
    .fetch_all(&pool)
    .await
    .unwrap();
    rows.join("\n")
}

fn word(alert: &Value) -> String {
    match alert["status"].as_str() {
        Some("firing") => format!("firing {}", alert["annotations"]["value"].as_str().unwrap_or_default()),
        other => other.unwrap_or_default().to_owned(),
    }
}

/// Who makes the series cross.
struct Sender {
    http: reqwest::Client,
    gateways: Vec<String>,
    host: String,
    receiver: Arc<Receiver>,
}

impl Sender {
    /// Sends each round through the gateways in turn, and gives how many there were.
    async fn cross(self, rounds: Arc<AtomicUsize>, stop: Arc<AtomicBool>) -> usize {
        let mut round: usize = 0;
        // An even number, so that everything is over at the end.
        while !stop.load(Ordering::Relaxed) || round % 2 == 1 {
            self.send(round).await;
            round += 1;
            rounds.store(round, Ordering::Relaxed);
            tokio::time::sleep(EVERY).await;
            while self.receiver.count() < round.saturating_sub(AHEAD) * SERIES {
                tokio::time::sleep(EVERY).await;
            }
        }
        round
    }

    async fn send(&self, round: usize) {
        let value = if round.is_multiple_of(2) { HIGH + round } else { round };
        let points =
            (0..SERIES).map(|series| (vec![otlp::attribute("series", &series.to_string())], otlp::now(), value as f64));
        let request = otlp::series(&self.host, METRIC, points).encode_to_vec();
        let taken = deliver(&self.http, &in_turn(&self.gateways, round), "/v1/metrics", &request).await;
        assert!(taken, "a round was not taken");
    }
}
