//! A running gateway with a namespace of its own, its clients, and the broker seen from outside.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bus::{Bus, Envelope, Follow, From as Place, Stream};
use clap::Parser as _;
use ingest_gateway::app::{self, Addresses};
use ingest_gateway::config::Config;
use lifecycle::Process;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;
use settings::Secret;
use tempfile::TempDir;
use tonic::transport::Channel;

pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running gateway.
pub struct Gateway {
    pub addresses: Addresses,
    pub process: Process,
    pub bus: Bus,
    pub tenant: String,
    _observer: Process,
}

impl Gateway {
    /// One that takes strangers from loopback.
    pub async fn start() -> Self {
        Self::start_with(&testkit::namespace(), &["--anonymous-networks", "127.0.0.0/8"]).await
    }

    pub async fn start_with(settings: &bus::Settings, arguments: &[&str]) -> Self {
        Self::start_elsewhere(settings, arguments, &testkit::redis_url()).await
    }

    pub async fn start_elsewhere(settings: &bus::Settings, arguments: &[&str], redis: &str) -> Self {
        Self::start_as(&testkit::tenant(), settings, arguments, redis).await
    }

    /// Another one of the same installation.
    pub async fn another(&self, settings: &bus::Settings) -> Self {
        Self::start_as(&self.tenant, settings, &["--anonymous-networks", "127.0.0.0/8"], &testkit::redis_url()).await
    }

    async fn start_as(tenant: &str, settings: &bus::Settings, arguments: &[&str], redis: &str) -> Self {
        let bytes = settings.stream_max_bytes.to_string();
        let fixed = [
            "ingest-gateway",
            "--nats-url",
            settings.nats_url.reveal(),
            "--namespace",
            &settings.namespace,
            "--stream-max-bytes",
            &bytes,
            "--redis-url",
            redis,
            "--anonymous-tenant",
            tenant,
            "--grpc-listen",
            "127.0.0.1:0",
            "--http-listen",
            "127.0.0.1:0",
            "--ingest-message-bytes",
            "1MiB",
            "--ingest-unpacked-bytes",
            "2MiB",
            "--tls-ca-file=-",
            "--tls-cert-file=-",
            "--tls-key-file=-",
        ];
        let config = Config::parse_from(fixed.into_iter().chain(arguments.iter().copied()));
        let (process, observer) = (Process::for_test(), Process::for_test());
        let addresses = app::start(config, process.clone(), testkit::tokens().verifier()).await.unwrap();
        let bus = Bus::connect(settings, observer.ready("nats")).await.unwrap();
        Self { addresses, process, bus, tenant: tenant.to_owned(), _observer: observer }
    }

    pub async fn channel(&self) -> Channel {
        Channel::from_shared(format!("http://{}", self.addresses.grpc)).unwrap().connect().await.unwrap()
    }

    pub async fn metrics(&self) -> MetricsServiceClient<Channel> {
        MetricsServiceClient::new(self.channel().await)
    }

    pub async fn logs(&self) -> LogsServiceClient<Channel> {
        LogsServiceClient::new(self.channel().await)
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addresses.http)
    }

    /// The value of a metric, with its labels.
    pub fn metric(&self, name: &str) -> u64 {
        testkit::metric(&self.process, name).unwrap_or_default()
    }

    /// Reads along both shards of a signal from here on.
    pub async fn tap(&self, stream: fn(u16) -> Stream) -> Tap {
        let shards = [self.bus.follow(stream(0), Place::New).await, self.bus.follow(stream(1), Place::New).await];
        Tap { shards }
    }

    /// How many messages both shards of a signal hold.
    pub async fn count(&self, stream: fn(u16) -> Stream) -> u64 {
        let one = async |shard| self.bus.progress(stream(shard)).await.unwrap().last;
        one(0).await + one(1).await
    }
}

/// Both shards of a signal.
pub struct Tap {
    shards: [Follow; 2],
}

impl Tap {
    pub async fn next(&mut self) -> Envelope {
        let [first, second] = &mut self.shards;
        let delivery = tokio::time::timeout(PATIENCE, async {
            tokio::select! {
                delivery = Box::pin(first.next()) => delivery,
                delivery = Box::pin(second.next()) => delivery,
            }
        });
        Envelope::decode(&delivery.await.expect("no envelope came")).unwrap()
    }
}

/// A broker that the test may kill.
pub struct Broker {
    child: Option<Child>,
    port: u16,
    /// Lines of its configuration.
    configuration: &'static str,
    directory: TempDir,
}

impl Broker {
    pub fn started() -> Self {
        Self::configured("")
    }

    pub fn configured(configuration: &'static str) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let mut broker = Self { child: None, port, configuration, directory: tempfile::tempdir().unwrap() };
        broker.start();
        broker
    }

    pub fn start(&mut self) {
        let file = self.directory.path().join("nats.conf");
        std::fs::write(&file, self.configuration).unwrap();
        let mut command = Command::new(&testkit::servers().nats_server);
        command.arg("-c").arg(file);
        command.args(["-js", "-a", "127.0.0.1", "-p"]).arg(self.port.to_string()).arg("-sd").arg(self.directory.path());
        self.child = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    }

    /// As `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub fn settings(&self) -> bus::Settings {
        bus::Settings { nats_url: Secret::from(format!("nats://127.0.0.1:{}", self.port)), ..testkit::namespace() }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

pub fn attribute(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

fn resource(attributes: &[(&str, &str)]) -> Option<Resource> {
    let attributes = attributes.iter().map(|(key, value)| attribute(key, value)).collect();
    Some(Resource { attributes, ..Resource::default() })
}

pub fn now() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap()
}

/// So many points of one gauge.
pub fn gauge(attributes: &[(&str, &str)], points: usize) -> ExportMetricsServiceRequest {
    let point = |n: usize| NumberDataPoint {
        attributes: vec![attribute("n", &n.to_string())],
        time_unix_nano: now(),
        value: Some(Value::AsDouble(1.5)),
        ..NumberDataPoint::default()
    };
    let metric = Metric {
        name: "load".into(),
        data: Some(Data::Gauge(Gauge { data_points: (0..points).map(point).collect() })),
        ..Metric::default()
    };
    metrics(attributes, vec![metric])
}

pub fn metrics(attributes: &[(&str, &str)], metrics: Vec<Metric>) -> ExportMetricsServiceRequest {
    let scope_metrics = vec![ScopeMetrics { metrics, ..ScopeMetrics::default() }];
    let one = ResourceMetrics { resource: resource(attributes), scope_metrics, ..ResourceMetrics::default() };
    ExportMetricsServiceRequest { resource_metrics: vec![one] }
}

/// The same for all lines of a run: equal lines are equal bytes.
static LINES_AT: LazyLock<u64> = LazyLock::new(now);

pub fn lines(attributes: &[(&str, &str)], lines: &[&str]) -> ExportLogsServiceRequest {
    let record = |line: &&str| LogRecord {
        time_unix_nano: *LINES_AT,
        body: Some(AnyValue { value: Some(any_value::Value::StringValue((*line).to_owned())) }),
        ..LogRecord::default()
    };
    let scope = InstrumentationScope { name: "sshd".into(), ..InstrumentationScope::default() };
    let scope_logs =
        vec![ScopeLogs { scope: Some(scope), log_records: lines.iter().map(record).collect(), ..ScopeLogs::default() }];
    let one = ResourceLogs { resource: resource(attributes), scope_logs, ..ResourceLogs::default() };
    ExportLogsServiceRequest { resource_logs: vec![one] }
}

/// The text attributes of a merged resource, in order; whole numbers as text.
pub fn attributes(resource: Option<&Resource>) -> Vec<(String, String)> {
    let read = |pair: &KeyValue| {
        let value = match pair.value.as_ref().and_then(|value| value.value.clone()) {
            Some(any_value::Value::StringValue(text)) => text,
            Some(any_value::Value::IntValue(number)) => number.to_string(),
            other => format!("{other:?}"),
        };
        (pair.key.clone(), value)
    };
    resource.iter().flat_map(|resource| &resource.attributes).map(read).collect()
}

pub fn value_of(attributes: &[(String, String)], key: &str) -> String {
    attributes.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone()).unwrap_or_default()
}

pub fn metrics_in(envelope: &Envelope) -> Vec<ResourceMetrics> {
    ExportMetricsServiceRequest::decode(envelope.body.clone()).unwrap().resource_metrics
}

pub fn logs_in(envelope: &Envelope) -> Vec<ResourceLogs> {
    ExportLogsServiceRequest::decode(envelope.body.clone()).unwrap().resource_logs
}

/// A plain TCP client.
pub async fn knock(address: SocketAddr) -> tokio::net::TcpStream {
    knock_from(1, address).await
}

/// One from 127.0.0.`host`: another sender.
pub async fn knock_from(host: u8, address: SocketAddr) -> tokio::net::TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind((std::net::Ipv4Addr::new(127, 0, 0, host), 0).into()).unwrap();
    socket.connect(address).await.unwrap()
}
