//! Replicas of the service on one database and one namespace, telemetry for them, and what they said.

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
use proto::alerts::Transition;
use proto::rules::rule_document::Subject as Watch;
use proto::rules::rules_client::RulesClient;
use proto::rules::{CreateRuleRequest, DeleteRuleRequest, LogCondition, Rule, RuleDocument, UpdateRuleRequest};
use rpc::Channel;
use rule_engine::app::{self, Surroundings};
use tokio::runtime::Runtime;
use uuid::Uuid;

pub const PATIENCE: Duration = Duration::from_secs(20);
pub const SECOND: u64 = 1_000_000_000;
pub const TENANT: &str = "acme";

/// A database, a namespace, and a reader of all transitions in it.
pub struct Installation {
    pub database: store::Settings,
    pub settings: bus::Settings,
    pub bus: Bus,
    observer: Process,
    said: std::sync::Arc<Mutex<Vec<Transition>>>,
}

impl Installation {
    pub async fn new() -> Self {
        let observer = Process::for_test();
        let settings = testkit::namespace();
        let bus = Bus::connect(&settings, observer.ready("broker")).await.unwrap();
        let said = std::sync::Arc::new(Mutex::new(Vec::new()));
        let mut follow = bus.follow(Stream::Transitions, From::Sequence(1)).await;
        let (stopping, heard) = (observer.stopping(), said.clone());
        observer.spawn("listen", async move {
            loop {
                tokio::select! {
                    () = stopping.cancelled() => return Ok(()),
                    delivery = follow.next() => {
                        let transition = Transition::decode(delivery.payload().clone())?;
                        assert_eq!(delivery.id(), transition.id);
                        heard.lock().unwrap().push(transition);
                    }
                }
            }
        });
        Self { database: testkit::database().await, settings, bus, observer, said }
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

    pub async fn replica(&self) -> Replica {
        let (database, bus) = (self.database.clone(), self.settings.clone());
        let started = tokio::task::spawn_blocking(move || start(database, bus));
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

    /// Waits until every rule that exists now is in force on shard 0.
    pub async fn rules_are_in_force(&self, replica: &Replica) {
        let name = format!("canary {}", Uuid::new_v4().simple());
        let rule = replica.create(metric_rule(&name, "canary", ">= 0", 0)).await;
        testkit::eventually("rules are in force", PATIENCE, async || {
            self.publish_metrics(TENANT, gauge("canary", &name, now(), 1.0)).await;
            let said = self.said.lock().unwrap();
            let found = said.iter().any(|transition| transition.rule_id == rule.id);
            found.then_some(()).ok_or("the canary is silent")
        })
        .await;
        replica.delete(&rule).await;
    }

    /// Which epochs have saved snapshots, by shard.
    pub async fn epochs(&self) -> Vec<(i32, i64)> {
        let pool = sqlx::PgPool::connect(self.database.database_url.reveal()).await.unwrap();
        let query = sqlx::query_as("select shard, epoch from rule_engine.snapshots order by shard");
        query.fetch_all(&pool).await.unwrap()
    }

    /// How many shards each replica holds that holds any, most first.
    pub async fn holdings(&self) -> Vec<i64> {
        let pool = sqlx::PgPool::connect(self.database.database_url.reveal()).await.unwrap();
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

fn start(database: store::Settings, bus: bus::Settings) -> (Runtime, Process, SocketAddr) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (process, address) = runtime.block_on(async move {
        let process = Process::for_test();
        let surroundings = Surroundings {
            identity: testkit::identity("rule-engine"),
            listen: settings::loopback(0),
            verifier: testkit::tokens().verifier(),
            bus,
            store: database,
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

    pub async fn update(&self, rule: &Rule, document: RuleDocument) -> Rule {
        let request =
            UpdateRuleRequest { id: rule.id.clone(), document: Some(document), expected_version: rule.version };
        self.client().update_rule(as_admin(request)).await.unwrap().into_inner()
    }

    pub async fn delete(&self, rule: &Rule) {
        let request = DeleteRuleRequest { id: rule.id.clone(), expected_version: 0 };
        self.client().delete_rule(as_admin(request)).await.unwrap();
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
