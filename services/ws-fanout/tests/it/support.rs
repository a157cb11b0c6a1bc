//! A running ws-fanout with a namespace of its own, and clients that listen to it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use authn::{Feed, Keys, Permission, Revocation, Signer, Verifier};
use bus::{Bus, Encoding, Envelope, Outgoing, Schema, Subject};
use clap::Parser as _;
use futures::StreamExt as _;
use lifecycle::Process;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;
use serde_json::Value;
use settings::Secret;
use testkit::Gate;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::client::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use ws_fanout::config::Config;

pub const PATIENCE: Duration = Duration::from_secs(20);
/// Small enough that a client which does not read is felt by the server soon.
const RECEIVE_BUFFER: u32 = 16 << 10;

pub struct Running {
    pub bus: Bus,
    pub process: Process,
    settings: bus::Settings,
    address: SocketAddr,
    signer: Signer,
    feed: Feed,
    observer: Process,
    published: AtomicU64,
}

impl Running {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(configure: impl FnOnce(&mut Config)) -> Self {
        let settings = testkit::namespace();
        let bus = bus::Settings { nats_url: settings.nats_url.clone(), ..settings.clone() };
        Self::on(settings, bus, configure).await
    }

    /// A service that reaches the broker through `gate`, while what is published goes past it.
    pub async fn behind(gate: &Gate, configure: impl FnOnce(&mut Config)) -> Self {
        let settings = testkit::namespace();
        let bus = bus::Settings { nats_url: Secret::from(gate.url().to_owned()), ..settings.clone() };
        Self::on(settings, bus, configure).await
    }

    /// Another replica, which reaches the broker through `gate`.
    pub async fn replica(&self, gate: &Gate) -> Self {
        let bus = bus::Settings { nats_url: Secret::from(gate.url().to_owned()), ..self.settings.clone() };
        Self::on(self.settings.clone(), bus, |_| {}).await
    }

    async fn on(settings: bus::Settings, through: bus::Settings, configure: impl FnOnce(&mut Config)) -> Self {
        let (process, observer) = (Process::for_test(), Process::for_test());
        let mut config = config(through);
        configure(&mut config);
        let bus = Bus::connect(&settings, observer.ready("nats")).await.unwrap();
        let signer = Signer::generate().unwrap();
        let (verifier, feed) = Verifier::fed(Keys::parse(&signer.jwks()).unwrap());
        let address = ws_fanout::app::serve(config, process.clone(), verifier).await.unwrap();
        Self { bus, process, settings, address, signer, feed, observer, published: AtomicU64::new(0) }
    }

    /// Takes a token back, as auth tells everybody.
    pub fn revoke(&self, id: &str) {
        let expires = SystemTime::now() + Duration::from_secs(60);
        let keys = Keys::parse(&self.signer.jwks()).unwrap();
        self.feed.publish(keys, [Revocation { id: id.to_owned(), expires }]);
    }

    pub fn issue(&self, tenant: &str) -> authn::Issued {
        let hour = Duration::from_secs(3_600);
        self.signer.user(tenant, "user", &Permission::ALL, SystemTime::now(), hour).unwrap()
    }

    pub async fn until_clients(&self, count: u64) {
        testkit::eventually("so many clients", PATIENCE, async || {
            let clients = self.metric("sightline_ws_fanout_clients");
            if clients == Some(count) { Ok(()) } else { Err(format!("{clients:?}")) }
        })
        .await;
    }

    pub async fn stop(self) {
        self.process.stop().await;
        self.bus.delete_all_streams().await.unwrap();
        self.observer.stop().await;
    }

    pub fn token(&self, tenant: &str, permissions: &[Permission], lifetime: Duration) -> String {
        self.signer.user(tenant, "user", permissions, SystemTime::now(), lifetime).unwrap().token
    }

    pub fn good_token(&self, tenant: &str) -> String {
        self.token(tenant, &Permission::ALL, Duration::from_secs(3_600))
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// A request to open `path`, without a token.
    pub fn request(&self, path: &str) -> Request {
        format!("ws://{}{path}", self.address).into_client_request().unwrap()
    }

    pub async fn open(&self, request: Request) -> Result<(Client, Response), Error> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(RECEIVE_BUFFER).unwrap();
        let stream = socket.connect(self.address).await.unwrap();
        let (socket, response) = tokio_tungstenite::client_async(request, stream).await?;
        Ok((Client { socket }, response))
    }

    /// Listens to `path` as somebody of `tenant` who may see everything there.
    pub async fn listen(&self, tenant: &str, path: &str) -> Client {
        self.listen_with(&self.good_token(tenant), path).await
    }

    pub async fn listen_with(&self, token: &str, path: &str) -> Client {
        let mut client = self.waits(token, path).await;
        assert_eq!(client.frame().await["type"], "hello");
        client
    }

    /// A client that was let in and may not have been greeted yet.
    pub async fn waits(&self, token: &str, path: &str) -> Client {
        let mut request = self.request(path);
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        self.open(request).await.unwrap().0
    }

    pub async fn lines(&self, tenant: &str, host: &str, lines: &[&str]) {
        self.publish(Subject::Logs(0), &logs(tenant, host, lines)).await;
    }

    pub async fn publish(&self, subject: Subject, envelope: &Envelope) {
        self.publish_raw(subject, |id| envelope.encode(id).unwrap()).await;
    }

    pub async fn publish_raw(&self, subject: Subject, message: impl FnOnce(String) -> Outgoing) {
        let id = self.published.fetch_add(1, Ordering::Relaxed).to_string();
        self.bus.publish(subject, message(id)).await.unwrap();
    }

    /// The value of a metric of the service.
    pub fn metric(&self, name: &str) -> Option<u64> {
        testkit::metric(&self.process, name)
    }
}

/// Somebody who listens.
pub struct Client {
    socket: WebSocketStream<TcpStream>,
}

impl Client {
    /// The next frame.
    pub async fn frame(&mut self) -> Value {
        match self.message().await {
            Message::Text(text) => serde_json::from_str(&text).unwrap(),
            other => panic!("not a frame: {other:?}"),
        }
    }

    /// The next frame, which is a line, by its text.
    pub async fn line(&mut self) -> String {
        let frame = self.frame().await;
        assert_eq!(frame["type"], "log", "{frame}");
        frame["body"].as_str().unwrap().to_owned()
    }

    /// How the server says good-bye.
    pub async fn farewell(&mut self) -> (CloseCode, String) {
        match self.message().await {
            Message::Close(Some(close)) => (close.code, close.reason.to_string()),
            other => panic!("not a farewell: {other:?}"),
        }
    }

    /// Whatever comes next; nothing when the connection is gone.
    pub async fn any(&mut self) -> Option<Result<Message, Error>> {
        timeout(PATIENCE, self.socket.next()).await.unwrap()
    }

    async fn message(&mut self) -> Message {
        self.any().await.unwrap().unwrap()
    }
}

fn config(bus: bus::Settings) -> Config {
    let mut config = Config::try_parse_from([
        "ws-fanout",
        "--http-listen=127.0.0.1:0",
        "--auth-url=https://localhost:1",
        "--tls-ca-file=unused",
        "--tls-cert-file=unused",
        "--tls-key-file=unused",
        "--live-tls=off",
    ])
    .unwrap();
    config.bus = bus;
    config
}

fn now() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap()
}

fn text(value: &str) -> AnyValue {
    AnyValue { value: Some(Any::StringValue(value.to_owned())) }
}

/// Every request is a batch of its own.
fn batch_id() -> String {
    static MADE: AtomicU64 = AtomicU64::new(0);
    format!("{:032x}", MADE.fetch_add(1, Ordering::Relaxed))
}

fn resource(host: &str) -> Resource {
    let attribute =
        |key: &str, value: &str| KeyValue { key: key.to_owned(), value: Some(text(value)), ..KeyValue::default() };
    Resource {
        attributes: vec![
            attribute("host.name", host),
            attribute("sightline.resource.id", &format!("host-{host}")),
            attribute("sightline.resource.kind", "host"),
            attribute("sightline.batch.id", &batch_id()),
        ],
        ..Resource::default()
    }
}

fn envelope(schema: Schema, tenant: &str, items: u64, body: Vec<u8>) -> Envelope {
    Envelope {
        schema,
        tenant: tenant.to_owned(),
        items,
        received_unix_nano: now(),
        encoding: Encoding::Lz4,
        body: body.into(),
    }
}

pub fn logs(tenant: &str, host: &str, lines: &[&str]) -> Envelope {
    let records = lines.iter().map(|line| LogRecord {
        time_unix_nano: now(),
        severity_number: 17,
        body: Some(text(line)),
        ..LogRecord::default()
    });
    let logs = ResourceLogs {
        resource: Some(resource(host)),
        scope_logs: vec![ScopeLogs {
            scope: Some(InstrumentationScope { name: "sshd".to_owned(), ..InstrumentationScope::default() }),
            log_records: records.collect(),
            ..ScopeLogs::default()
        }],
        ..ResourceLogs::default()
    };
    let body = ExportLogsServiceRequest { resource_logs: vec![logs] }.encode_to_vec();
    envelope(Schema::OtlpLogs, tenant, lines.len() as u64, body)
}

pub fn gauges(tenant: &str, host: &str, values: &[(&str, f64)]) -> Envelope {
    let metrics = values.iter().map(|&(name, value)| Metric {
        name: name.to_owned(),
        unit: if name.ends_with("latency") { "s" } else { "" }.to_owned(),
        data: Some(metric::Data::Gauge(Gauge {
            data_points: vec![NumberDataPoint {
                time_unix_nano: now(),
                value: Some(number_data_point::Value::AsDouble(value)),
                ..NumberDataPoint::default()
            }],
        })),
        ..Metric::default()
    });
    let metrics = ResourceMetrics {
        resource: Some(resource(host)),
        scope_metrics: vec![ScopeMetrics { metrics: metrics.collect(), ..ScopeMetrics::default() }],
        ..ResourceMetrics::default()
    };
    let body = ExportMetricsServiceRequest { resource_metrics: vec![metrics] }.encode_to_vec();
    envelope(Schema::OtlpMetrics, tenant, values.len() as u64, body)
}

/// The lines of `body`, of the resource with this id.
pub fn with_resource_id(body: &[u8], id: &str) -> bytes::Bytes {
    let mut request = ExportLogsServiceRequest::decode(body).unwrap();
    for attribute in request.resource_logs[0].resource.as_mut().unwrap().attributes.iter_mut() {
        if attribute.key == "sightline.resource.id" {
            attribute.value = Some(text(id));
        }
    }
    request.encode_to_vec().into()
}
