//! A running metric-writer with a namespace and a tenant of its own.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bus::{Account, Bus, Encoding, Envelope, Outgoing, Schema, Stream, Subject};
use bytes::Bytes;
use clap::Parser as _;
use lifecycle::Process;
use metric_writer::config::Config;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric, number_data_point,
};
use prost::Message as _;
use serde::Deserialize;
use testkit::Program;

pub const PATIENCE: Duration = Duration::from_secs(20);
/// The broker gives an envelope to somebody else after half a minute of silence.
pub const REDELIVERY: Duration = Duration::from_secs(60);

/// The broker, seen from outside the writer.
pub struct Observer {
    pub bus: Bus,
    pub tenant: String,
    process: Process,
    http: reqwest::Client,
}

/// One series as the store exports it.
#[derive(Debug, Deserialize)]
struct Exported {
    metric: std::collections::BTreeMap<String, String>,
    values: Vec<f64>,
    timestamps: Vec<i64>,
}

impl Observer {
    pub async fn start() -> Self {
        Self::start_with(testkit::namespace()).await
    }

    pub async fn start_with(settings: bus::Settings) -> Self {
        let process = Process::for_test();
        let bus = Bus::connect(&settings, process.ready("nats")).await.unwrap();
        Self { bus, tenant: testkit::tenant(), process, http: reqwest::Client::new() }
    }

    /// A writer that stores at `url`.
    pub async fn writer(&self, url: &str) -> Process {
        self.writer_with(url, &[]).await
    }

    /// A writer as a program of its own, to be killed.
    pub async fn program(&self, url: &str) -> Program {
        let database = testkit::database().await;
        Program::new("metric-writer", env!("CARGO_BIN_EXE_metric-writer"), &database, self.bus.settings())
            .with("SIGHTLINE_METRICS_URL", url)
    }

    pub async fn writer_with(&self, url: &str, arguments: &[&str]) -> Process {
        let settings = self.bus.settings();
        let dead_max_bytes = settings.dead_max_bytes.to_string();
        let fixed = [
            "metric-writer",
            "--nats-url",
            settings.nats_url.reveal(),
            "--namespace",
            &settings.namespace,
            "--dead-max-bytes",
            &dead_max_bytes,
            "--metrics-url",
            url,
        ];
        let config = Config::parse_from(fixed.iter().chain(arguments));
        let process = Process::for_test();
        metric_writer::app::run(config, process.clone()).await.unwrap();
        process
    }

    /// One point of gauge `name` with this value, `seconds` ago.
    pub fn envelope(&self, name: &str, value: f64, seconds: u64) -> Envelope {
        self.envelope_of(request(name, value, now() - Duration::from_secs(seconds)))
    }

    pub fn envelope_of(&self, body: Vec<u8>) -> Envelope {
        Envelope {
            schema: Schema::OtlpMetrics,
            tenant: self.tenant.clone(),
            items: 1,
            received_unix_nano: u64::try_from(now().as_nanos()).unwrap(),
            encoding: Encoding::Lz4,
            body: Bytes::from(body),
        }
    }

    pub async fn publish(&self, id: &str, envelope: &Envelope) {
        self.send(envelope.encode(id).unwrap()).await;
    }

    pub async fn send(&self, message: Outgoing) {
        self.bus.publish(Subject::Metrics(0), message).await.unwrap();
    }

    /// Values of the tenant's series called `name`, in order of time; what was written twice shows once.
    pub async fn stored(&self, name: &str) -> Vec<f64> {
        self.exported(name, "0").await
    }

    /// As [`stored`](Self::stored), but what was written twice shows twice, until the store merges what it has.
    pub async fn raw(&self, name: &str) -> Vec<f64> {
        self.exported(name, "1").await
    }

    async fn exported(&self, name: &str, raw: &str) -> Vec<f64> {
        let base = testkit::metrics_url();
        self.http.get(format!("{base}/internal/force_flush")).send().await.unwrap();
        let series = format!("{{__name__=~\"{name}\",tenant=\"{}\"}}", self.tenant);
        let form = [("match[]", series.as_str()), ("reduce_mem_usage", raw)];
        let export = self.http.post(format!("{base}/api/v1/export")).form(&form);
        let text = export.send().await.unwrap().text().await.unwrap();
        let mut points = Vec::new();
        for line in text.lines() {
            let exported: Exported = serde_json::from_str(line).unwrap();
            assert_eq!(exported.metric["tenant"], self.tenant);
            points.extend(exported.timestamps.into_iter().zip(exported.values));
        }
        points.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
        points.into_iter().map(|(_, value)| value).collect()
    }

    /// Waits until the store has exactly these values.
    pub async fn wait_for(&self, name: &str, expected: &[f64]) {
        testkit::eventually("the values being stored", PATIENCE, async || {
            let stored = self.stored(name).await;
            if stored == expected { Ok(()) } else { Err(format!("{stored:?}")) }
        })
        .await;
    }

    /// Waits until the writer has answered for so many messages.
    pub async fn wait_for_acknowledged(&self, messages: u64) {
        self.wait_long_for_acknowledged(messages, PATIENCE).await;
    }

    pub async fn wait_long_for_acknowledged(&self, messages: u64, patience: Duration) {
        testkit::eventually("the acknowledgements", patience, async || {
            let progress = self.bus.progress(Stream::Metrics(0)).await.unwrap();
            if progress.stored == messages { Ok(()) } else { Err(format!("{progress:?}")) }
        })
        .await;
    }

    pub async fn account(&self) -> Account {
        let accounts = self.bus.account().await.unwrap();
        accounts.into_iter().find(|account| account.stream.ends_with("METRICS_00")).unwrap()
    }

    pub async fn stop(self) {
        self.bus.delete_all_streams().await.unwrap();
        self.process.stop().await;
    }
}

pub fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

pub fn request(name: &str, value: f64, at: Duration) -> Vec<u8> {
    let point = NumberDataPoint {
        time_unix_nano: u64::try_from(at.as_nanos()).unwrap(),
        value: Some(number_data_point::Value::AsDouble(value)),
        ..Default::default()
    };
    let data = Some(metric::Data::Gauge(Gauge { data_points: vec![point] }));
    request_of(vec![Metric { name: name.to_owned(), data, ..Default::default() }])
}

pub fn request_of(metrics: Vec<Metric>) -> Vec<u8> {
    let scope_metrics = vec![ScopeMetrics { metrics, ..Default::default() }];
    let resource_metrics = vec![ResourceMetrics { scope_metrics, ..Default::default() }];
    ExportMetricsServiceRequest { resource_metrics }.encode_to_vec()
}

pub fn attribute(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) });
    KeyValue { key: key.to_owned(), value, ..Default::default() }
}

/// Waits until `/readyz` would name `what` as missing, and gives the reason.
pub async fn wait_for_missing(process: &Process, what: &'static str) -> String {
    testkit::eventually("the process not being ready", PATIENCE, async || {
        process.missing().get(what).cloned().ok_or("it is ready")
    })
    .await
}

pub async fn wait_until_ready(process: &Process) {
    testkit::eventually("the process being ready", PATIENCE, async || {
        let missing = process.missing();
        if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?}")) }
    })
    .await;
}
