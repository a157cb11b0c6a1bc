//! A running metric-writer with a namespace and a tenant of its own.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bus::{Account, Bus, Encoding, Envelope, Outgoing, Schema, Stream, Subject};
use bytes::Bytes;
use clap::Parser as _;
use lifecycle::Process;
use metric_writer::config::Config;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric, number_data_point,
};
use prost::Message as _;
use serde::Deserialize;

pub const PATIENCE: Duration = Duration::from_secs(20);

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
        let process = Process::for_test();
        let bus = Bus::connect(&testkit::namespace(), process.ready("nats")).await.unwrap();
        Self { bus, tenant: testkit::tenant(), process, http: reqwest::Client::new() }
    }

    /// A writer that stores at `url`.
    pub async fn writer(&self, url: &str) -> Process {
        let settings = self.bus.settings();
        let config = Config::parse_from([
            "metric-writer",
            "--nats-url",
            settings.nats_url.reveal(),
            "--namespace",
            &settings.namespace,
            "--metrics-url",
            url,
        ]);
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
        let base = testkit::metrics_url();
        self.http.get(format!("{base}/internal/force_flush")).send().await.unwrap();
        let series = format!("{name}{{tenant=\"{}\"}}", self.tenant);
        let export = self.http.post(format!("{base}/api/v1/export")).form(&[("match[]", series)]);
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
        testkit::eventually("the acknowledgements", PATIENCE, async || {
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

fn request(name: &str, value: f64, at: Duration) -> Vec<u8> {
    let point = NumberDataPoint {
        time_unix_nano: u64::try_from(at.as_nanos()).unwrap(),
        value: Some(number_data_point::Value::AsDouble(value)),
        ..Default::default()
    };
    let data = Some(metric::Data::Gauge(Gauge { data_points: vec![point] }));
    let metrics = vec![Metric { name: name.to_owned(), data, ..Default::default() }];
    let scope_metrics = vec![ScopeMetrics { metrics, ..Default::default() }];
    let resource_metrics = vec![ResourceMetrics { scope_metrics, ..Default::default() }];
    ExportMetricsServiceRequest { resource_metrics }.encode_to_vec()
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
