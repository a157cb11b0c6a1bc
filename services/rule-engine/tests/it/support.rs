//! Replicas of the service on one database and one namespace, telemetry for them, and what they said.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use bus::{Bus, Encoding, Envelope, From, Schema, Stream, Subject};
use lifecycle::Process;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;
use proto::alerts::{Levels, Transition};
use proto::rules::rule_document::Subject as Watch;
use proto::rules::rules_client::RulesClient;
use proto::rules::{
    CreateRuleRequest, DeleteRuleRequest, GetRuleRequest, LogCondition, Rule, RuleDocument, UpdateRuleRequest,
};
use rpc::Channel;
use rule_engine::app::{self, Surroundings};
use rule_engine::config::Rules;
use tokio::runtime::Runtime;
use uuid::Uuid;

pub const PATIENCE: Duration = Duration::from_secs(20);
pub const SECOND: u64 = 1_000_000_000;
pub const TENANT: &str = "acme";

/// Settings as they are by default, but for rounds every second and a short patience.
pub fn rules() -> Rules {
    let day = Duration::from_secs(86_400);
    Rules {
        clock_skew: Duration::from_secs(600),
        metrics_retention: 30 * day,
        log_retention: 30 * day,
        lateness: Duration::from_secs(900),
        idle: Duration::from_secs(3_600),
        settle: Duration::from_millis(500),
        digest_interval: Duration::from_secs(1),
        state_bytes: 64 << 20,
        tenant_state_bytes: 16 << 20,
        tenant_work: 2_000_000,
        tenant_decisions: 10_000,
        series_cache: None,
        per_tenant: 100,
        progress_within: Duration::from_secs(5),
    }
}

/// How a replica differs from the others.
#[derive(Clone)]
pub struct How {
    pub rules: Rules,
    /// Where the broker is for it.
    pub nats_url: Option<String>,
    /// Where Postgres is for it, and how it is used.
    pub database: Option<store::Settings>,
    pub witness: fn(&Envelope),
}

impl Default for How {
    fn default() -> Self {
        Self { rules: rules(), nats_url: None, database: None, witness: |_| {} }
    }
}

/// A database, a namespace, and a reader of all transitions in it.
pub struct Installation {
    pub database: store::Settings,
    pub settings: bus::Settings,
    pub bus: Bus,
    observer: Process,
    said: std::sync::Arc<Mutex<Vec<Transition>>>,
    levels: std::sync::Arc<Mutex<Vec<Levels>>>,
    again: std::sync::Arc<Mutex<Vec<Transition>>>,
}

impl Installation {
    pub async fn new() -> Self {
        let observer = Process::for_test();
        let settings = testkit::namespace();
        let bus = Bus::connect(&settings, observer.ready("broker")).await.unwrap();
        let said = std::sync::Arc::new(Mutex::new(Vec::<Transition>::new()));
        let levels = std::sync::Arc::new(Mutex::new(Vec::new()));
        let again = std::sync::Arc::new(Mutex::new(Vec::new()));
        let mut follow = bus.follow(Stream::Transitions, From::Sequence(1)).await;
        let (stopping, heard, seen) = (observer.stopping(), said.clone(), levels.clone());
        let repeated = again.clone();
        observer.spawn("listen", async move {
            loop {
                tokio::select! {
                    () = stopping.cancelled() => return Ok(()),
                    delivery = follow.next() => {
                        if delivery.subject().ends_with(".levels") {
                            seen.lock().unwrap().push(Levels::decode(delivery.payload().clone())?);
                            continue;
                        }
                        let transition = Transition::decode(delivery.payload().clone())?;
                        // What a round says again has another, and the next owner may say what the one before has said.
                        let is_decided = delivery.id() == format!("{}-{}", transition.id, transition.epoch);
                        let mut heard = heard.lock().unwrap();
                        if is_decided && !heard.iter().any(|known| known.id == transition.id) {
                            heard.push(transition);
                        } else {
                            repeated.lock().unwrap().push(transition);
                        }
                    }
                }
            }
        });
        let database = testkit::database().await;
        count_owners_from_one(&database).await;
        Self { database, settings, bus, observer, said, levels, again }
    }

    /// Everything said so far about rules other than canaries.
    pub fn said(&self) -> Vec<Transition> {
        let said = self.said.lock().unwrap();
        said.iter().filter(|transition| !transition.rule_name.starts_with("canary")).cloned().collect()
    }

    pub async fn says(&self, count: usize) -> Vec<Transition> {
        testkit::eventually("a transition is published", PATIENCE, async || {
            let said = self.said();
            if said.len() >= count { Ok(said) } else { Err(format!("{said:?}")) }
        })
        .await
    }

    /// Everything that rounds and next owners have said again so far.
    pub fn said_again(&self) -> Vec<Transition> {
        self.again.lock().unwrap().clone()
    }

    /// Every round part of a lane so far.
    pub fn levels(&self, lane: &str) -> Vec<Levels> {
        self.levels.lock().unwrap().iter().filter(|levels| levels.shard == lane).cloned().collect()
    }

    pub async fn pool(&self) -> sqlx::PgPool {
        sqlx::PgPool::connect(self.database.database_url.reveal()).await.unwrap()
    }

    /// Waits until a snapshot of shard 0 has come beyond `sequence`, and gives where it stands.
    pub async fn saved_beyond(&self, lane: &str, sequence: i64) -> i64 {
        let pool = self.pool().await;
        testkit::eventually("a snapshot comes so far", PATIENCE, async || {
            let query = sqlx::query_scalar::<_, i64>(
                "select sequence from rule_engine.lanes where shard = 0 and lane = $1 and revision is not null",
            );
            match query.bind(lane).fetch_optional(&pool).await.unwrap() {
                Some(saved) if saved > sequence => Ok(saved),
                saved => Err(format!("{saved:?}")),
            }
        })
        .await
    }

    pub async fn replica(&self) -> Replica {
        self.replica_with(How::default()).await
    }

    pub async fn replica_with(&self, how: How) -> Replica {
        let (database, mut bus) =
            (how.database.clone().unwrap_or_else(|| self.database.clone()), self.settings.clone());
        if let Some(url) = &how.nats_url {
            bus.nats_url = url.clone().into();
        }
        let started = tokio::task::spawn_blocking(move || start(database, bus, how));
        let (runtime, process, address) = started.await.unwrap();
        let url = format!("https://localhost:{}", address.port());
        let channel = rpc::channel(&testkit::identity("api-gateway"), &url).unwrap();
        Replica { runtime: Some(runtime), process, client: RulesClient::new(channel) }
    }

    /// Publishes one envelope of metrics on shard 0.
    pub async fn publish_metrics(&self, tenant: &str, body: Vec<u8>) {
        self.publish(Subject::Metrics(0), Schema::OtlpMetrics, tenant, body).await;
    }

    /// Publishes one envelope of logs on shard 0.
    pub async fn publish_logs(&self, tenant: &str, body: Vec<u8>) {
        self.publish(Subject::Logs(0), Schema::OtlpLogs, tenant, body).await;
    }

    async fn publish(&self, subject: Subject, schema: Schema, tenant: &str, body: Vec<u8>) {
        let envelope = Envelope {
            schema,
            tenant: tenant.to_owned(),
            items: 1,
            received_unix_nano: now(),
            encoding: Encoding::Lz4,
            body: body.into(),
        };
        self.bus.publish(subject, envelope.encode(Uuid::new_v4().to_string()).unwrap()).await.unwrap();
    }

    /// Waits until every rule that exists now is in force on both lanes of shard 0.
    pub async fn rules_are_in_force(&self, replica: &Replica) {
        let name = format!("canary {}", Uuid::new_v4().simple());
        let metric = replica.create(metric_rule(&name, "canary", ">= 0", 0)).await;
        let log = replica.create(log_rule(&format!("{name} too"), &name, "{}")).await;
        testkit::eventually("rules are in force", PATIENCE, async || {
            self.publish_metrics(TENANT, gauge("canary", &name, now(), 1.0)).await;
            self.publish_logs(TENANT, line(&name, now(), &name)).await;
            let said = self.said.lock().unwrap();
            let is_heard = |rule: &Rule| said.iter().any(|transition| transition.rule_id == rule.id);
            (is_heard(&metric) && is_heard(&log)).then_some(()).ok_or("a canary is silent")
        })
        .await;
        replica.delete(&metric).await;
        replica.delete(&log).await;
    }

    /// Which epochs have saved snapshots, by shard.
    pub async fn epochs(&self) -> Vec<(i32, i64)> {
        let pool = self.pool().await;
        let query = sqlx::query_as(
            "select shard, epoch from rule_engine.lanes where lane = 'metrics' and revision is not null order by shard",
        );
        query.fetch_all(&pool).await.unwrap()
    }

    /// How many shards each replica holds that holds any, most first.
    pub async fn holdings(&self) -> Vec<i64> {
        let pool = self.pool().await;
        let query = sqlx::query_scalar(
            "select count(*) from rule_engine.leases where expires_at > clock_timestamp() group by owner order by 1 desc",
        );
        query.fetch_all(&pool).await.unwrap()
    }

    pub async fn holds(&self, wanted: &[i64]) {
        testkit::eventually("shards are shared", PATIENCE, async || {
            let found = self.holdings().await;
            if found == wanted { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
    }

    pub async fn end(self) {
        self.bus.delete_all_streams().await.unwrap();
        self.observer.stop().await;
    }
}

fn start(database: store::Settings, bus: bus::Settings, how: How) -> (Runtime, Process, SocketAddr) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (process, address) = runtime.block_on(async move {
        let process = Process::for_test();
        let surroundings = Surroundings {
            identity: testkit::identity("rule-engine"),
            listen: settings::loopback(0),
            verifier: testkit::tokens().verifier(),
            bus,
            store: database,
            rules: how.rules,
            witness: how.witness,
        };
        let address = app::start(surroundings, &process).await.unwrap();
        (process, address)
    });
    (runtime, process, address)
}

/// One process of the service, in a runtime of its own, so that it can die at once.
pub struct Replica {
    runtime: Option<Runtime>,
    process: Process,
    client: RulesClient<Channel>,
}

impl Replica {
    pub fn client(&self) -> RulesClient<Channel> {
        self.client.clone()
    }

    pub async fn create(&self, document: RuleDocument) -> Rule {
        let request = CreateRuleRequest { document: Some(document), idempotency_key: String::new() };
        self.client().create_rule(as_admin(request)).await.unwrap().into_inner()
    }

    pub async fn create_for(&self, tenant: &str, document: RuleDocument) -> Rule {
        let request = CreateRuleRequest { document: Some(document), idempotency_key: String::new() };
        let request = rpc::forward(request, &testkit::admin_token(tenant));
        self.client().create_rule(request).await.unwrap().into_inner()
    }

    pub async fn update(&self, rule: &Rule, document: RuleDocument) -> Rule {
        let request =
            UpdateRuleRequest { id: rule.id.clone(), document: Some(document), expected_version: rule.version };
        self.client().update_rule(as_admin(request)).await.unwrap().into_inner()
    }

    pub async fn delete(&self, rule: &Rule) {
        let request = DeleteRuleRequest { id: rule.id.clone(), expected_version: 0 };
        self.client().delete_rule(as_admin(request)).await.unwrap();
    }

    /// What it says it lacks.
    pub fn missing(&self) -> BTreeMap<&'static str, String> {
        self.process.missing()
    }

    /// The value of a metric of it.
    pub fn metric(&self, name: &str) -> Option<u64> {
        testkit::metric(&self.process, name)
    }

    pub async fn get(&self, rule: &Rule) -> Rule {
        let request = GetRuleRequest { id: rule.id.clone() };
        self.client().get_rule(as_admin(request)).await.unwrap().into_inner()
    }

    /// Nothing of it runs any further: no snapshot, no lease given back.
    pub fn kill(mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }

    pub async fn stop(mut self) {
        self.process.clone().stop().await;
        self.runtime.take().unwrap().shutdown_background();
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

pub fn as_admin<T>(message: T) -> tonic::Request<T> {
    rpc::forward(message, &testkit::admin_token(TENANT))
}

pub fn metric_rule(name: &str, metric: &str, condition: &str, for_millis: u64) -> RuleDocument {
    RuleDocument {
        name: name.to_owned(),
        level: "critical".to_owned(),
        r#match: "{}".to_owned(),
        subject: Some(Watch::Metric(metric.to_owned())),
        condition: condition.to_owned(),
        for_millis,
        receivers: vec!["ops".to_owned()],
        ..RuleDocument::default()
    }
}

pub fn log_rule(name: &str, contains: &str, selector: &str) -> RuleDocument {
    RuleDocument {
        name: name.to_owned(),
        level: "error".to_owned(),
        r#match: selector.to_owned(),
        subject: Some(Watch::Log(LogCondition { contains: contains.to_owned() })),
        ..RuleDocument::default()
    }
}

fn attribute(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

fn resource(host: &str) -> Option<Resource> {
    let attributes = vec![
        attribute("host.name", host),
        attribute("sightline.resource.id", &format!("host-{host}")),
        attribute("sightline.resource.kind", "host"),
    ];
    Some(Resource { attributes, ..Resource::default() })
}

pub fn gauge(name: &str, host: &str, time_unix_nano: u64, value: f64) -> Vec<u8> {
    let point = NumberDataPoint {
        time_unix_nano,
        value: Some(number_data_point::Value::AsDouble(value)),
        ..NumberDataPoint::default()
    };
    let metric = Metric {
        name: name.to_owned(),
        data: Some(metric::Data::Gauge(Gauge { data_points: vec![point] })),
        ..Metric::default()
    };
    let scope_metrics = vec![ScopeMetrics { metrics: vec![metric], ..ScopeMetrics::default() }];
    let resource_metrics = ResourceMetrics { resource: resource(host), scope_metrics, ..ResourceMetrics::default() };
    ExportMetricsServiceRequest { resource_metrics: vec![resource_metrics] }.encode_to_vec()
}

pub fn line(host: &str, time_unix_nano: u64, text: &str) -> Vec<u8> {
    let body = Some(AnyValue { value: Some(any_value::Value::StringValue(text.to_owned())) });
    let record = LogRecord { time_unix_nano, body, ..LogRecord::default() };
    let scope_logs = vec![ScopeLogs { log_records: vec![record], ..ScopeLogs::default() }];
    let resource_logs = ResourceLogs { resource: resource(host), scope_logs, ..ResourceLogs::default() };
    ExportLogsServiceRequest { resource_logs: vec![resource_logs] }.encode_to_vec()
}

/// Whole milliseconds, as series keep them.
pub fn now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap() * 1_000_000
}

/// Epochs begin at the clock; here they begin at 1, so that tests can say which owner said something.
async fn count_owners_from_one(database: &store::Settings) {
    let pool = sqlx::PgPool::connect(database.database_url.reveal()).await.unwrap();
    sqlx::raw_sql(
        "create schema rule_engine;
         create table rule_engine.leases (
             name text primary key, owner uuid not null, epoch bigint not null, expires_at timestamptz not null);
         insert into rule_engine.leases
         select 'shard-' || to_char(number, 'FM00'), gen_random_uuid(), 0, '-infinity' from generate_series(0, 63) number",
    )
    .execute(&pool)
    .await
    .unwrap();
}
