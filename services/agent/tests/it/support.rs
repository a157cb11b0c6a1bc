//! A gateway in this process that records what it is sent and can be told to refuse; and an agent to send to it.

mod home;

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Debug;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use prost::Message as _;
use proto::gosight::stream_payload::Payload;
use proto::gosight::stream_service_server::{StreamService, StreamServiceServer};
use proto::gosight::{CommandRequest, CommandResponse, ProcessPayload, StreamPayload, StreamResponse};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{Notify, broadcast};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

pub use home::{Home, append, numbered, sorted, write_until};

/// What the gateway does with one export of logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reaction {
    Accept,
    /// Takes it, but the answer that arrives is a failure.
    AcceptAndLoseAnswer,
    Refuse(tonic::Code),
    /// UNAVAILABLE with a RetryInfo.
    Later(Duration),
    /// Takes it, but answers only at [`Gateway::tell`].
    AcceptWhenTold,
}

#[derive(Debug, Clone)]
pub struct Received {
    pub batch: String,
    pub lines: Vec<String>,
    pub records: Vec<LogRecord>,
    pub accepted: bool,
    pub at: Instant,
}

#[derive(Debug, Default)]
pub struct Record {
    pub logs: Vec<Received>,
    pub metrics: Vec<(String, ExportMetricsServiceRequest)>,
    pub snapshots: Vec<ProcessPayload>,
    pub command_answers: Vec<CommandResponse>,
    pub credentials: Vec<Option<String>>,
    /// For the next exports of logs; when it is empty, `otherwise`.
    pub plan: VecDeque<Reaction>,
    pub otherwise: Option<Reaction>,
    /// For the next exports of logs: the answer comes before the request was read.
    pub early: VecDeque<tonic::Code>,
    /// How many of those came.
    pub early_answers: usize,
    pub streams_open: usize,
}

impl Record {
    /// The lines as a store sees them that takes each batch once.
    pub fn stored(&self) -> Vec<String> {
        let mut batches: BTreeMap<&str, &[String]> = BTreeMap::new();
        let mut order = Vec::new();
        for received in self.logs.iter().filter(|received| received.accepted) {
            if let Some(lines) = batches.insert(&received.batch, &received.lines) {
                assert_eq!(lines, received.lines, "a batch changed between two attempts");
            } else {
                order.extend(received.lines.iter().cloned());
            }
        }
        order
    }
}

#[derive(Clone)]
struct Service {
    record: Arc<Mutex<Record>>,
    commands: broadcast::Sender<CommandRequest>,
    told: Arc<Notify>,
}

pub struct Gateway {
    pub address: SocketAddr,
    pub record: Arc<Mutex<Record>>,
    commands: broadcast::Sender<CommandRequest>,
    told: Arc<Notify>,
    /// Of its own, because tonic's connections end with their runtime and not with their server.
    runtime: Option<Runtime>,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

impl Gateway {
    pub async fn start() -> Self {
        Self::start_on(SocketAddr::from(([127, 0, 0, 1], 0)), None, Arc::default()).await
    }

    pub async fn start_with_tls(identity: Identity) -> Self {
        Self::start_on(SocketAddr::from(([127, 0, 0, 1], 0)), Some(identity), Arc::default()).await
    }

    /// A new one in place of one that was dropped, with its record.
    pub async fn start_again(address: SocketAddr, record: Arc<Mutex<Record>>) -> Self {
        Self::start_on(address, None, record).await
    }

    async fn start_on(address: SocketAddr, tls: Option<Identity>, record: Arc<Mutex<Record>>) -> Self {
        lifecycle::install_crypto();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.spawn(TcpListener::bind(address)).await.unwrap().unwrap();
        let address = listener.local_addr().unwrap();
        let commands = broadcast::Sender::new(16);
        let told = Arc::new(Notify::new());
        let service = Service { record: record.clone(), commands: commands.clone(), told: told.clone() };
        let early = {
            let record = record.clone();
            move |request: Request<()>| {
                let mut record = record.lock().unwrap();
                let Some(code) = record.early.pop_front() else { return Ok(request) };
                record.early_answers += 1;
                Err(Status::new(code, "not even read"))
            }
        };
        let gzip = CompressionEncoding::Gzip;
        let mut server = Server::builder();
        if let Some(identity) = tls {
            server = server.tls_config(ServerTlsConfig::new().identity(identity)).unwrap();
        }
        let server = server
            .add_service(InterceptedService::new(
                LogsServiceServer::new(service.clone()).accept_compressed(gzip),
                early,
            ))
            .add_service(MetricsServiceServer::new(service.clone()).accept_compressed(gzip))
            .add_service(StreamServiceServer::new(service).accept_compressed(gzip));
        runtime.spawn(async move {
            server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
        });
        Self { address, record, commands, told, runtime: Some(runtime) }
    }

    pub fn tell(&self) {
        self.told.notify_one();
    }

    pub fn command(&self, kind: &str, command: &str, args: &[&str]) {
        let request = CommandRequest {
            command_type: kind.to_owned(),
            command: command.to_owned(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            ..CommandRequest::default()
        };
        self.commands.send(request).unwrap();
    }

    pub fn plan(&self, plan: impl IntoIterator<Item = Reaction>) {
        self.record.lock().unwrap().plan.extend(plan);
    }

    pub fn always(&self, reaction: Reaction) {
        self.record.lock().unwrap().otherwise = Some(reaction);
    }

    pub async fn until<T: Debug + PartialEq>(&self, expected: T, seen: impl Fn(&Record) -> T) {
        until(&self.record, expected, seen).await;
    }
}

/// Waits until the record shows what is expected, and says what it shows instead if that does not happen.
pub async fn until<T: Debug + PartialEq>(record: &Mutex<Record>, expected: T, seen: impl Fn(&Record) -> T) {
    let give_up = Instant::now() + Duration::from_secs(20);
    loop {
        let now = seen(&record.lock().unwrap());
        if now == expected {
            return;
        }
        assert!(Instant::now() < give_up, "expected {expected:?}, last seen {now:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until `seen`.
pub async fn eventually(seen: impl Fn() -> bool) {
    let give_up = Instant::now() + Duration::from_secs(20);
    while !seen() {
        assert!(Instant::now() < give_up, "it did not happen");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn text(metadata: &MetadataMap, key: &str) -> Option<String> {
    Some(metadata.get(key)?.to_str().unwrap().to_owned())
}

impl Service {
    fn take(&self, request: Request<ExportLogsServiceRequest>) -> Reaction {
        let batch = text(request.metadata(), "sightline-batch").unwrap();
        let mut record = self.record.lock().unwrap();
        record.credentials.push(text(request.metadata(), "authorization"));
        let otherwise = record.otherwise.clone().unwrap_or(Reaction::Accept);
        let reaction = record.plan.pop_front().unwrap_or(otherwise);
        let accepted = !matches!(reaction, Reaction::Refuse(_) | Reaction::Later(_));
        let records: Vec<LogRecord> = request
            .into_inner()
            .resource_logs
            .into_iter()
            .flat_map(|resource| resource.scope_logs)
            .flat_map(|scope| scope.log_records)
            .collect();
        let lines = records
            .iter()
            .map(|log| match log.body.clone().unwrap().value.unwrap() {
                Value::StringValue(line) => line,
                other => panic!("unexpected body {other:?}"),
            })
            .collect();
        record.logs.push(Received { batch, lines, records, accepted, at: Instant::now() });
        reaction
    }
}

#[tonic::async_trait]
impl LogsService for Service {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        let reaction = self.take(request);
        match reaction {
            Reaction::Accept => Ok(Response::new(Default::default())),
            Reaction::AcceptWhenTold => {
                self.told.notified().await;
                Ok(Response::new(Default::default()))
            }
            Reaction::AcceptAndLoseAnswer => Err(Status::unavailable("the answer was lost")),
            Reaction::Refuse(code) => Err(Status::new(code, "as planned")),
            Reaction::Later(delay) => {
                use tonic_types::{ErrorDetails, StatusExt as _};
                let details = ErrorDetails::with_retry_info(Some(delay));
                Err(Status::with_error_details(tonic::Code::Unavailable, "later", details))
            }
        }
    }
}

#[tonic::async_trait]
impl MetricsService for Service {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let batch = text(request.metadata(), "sightline-batch").unwrap();
        self.record.lock().unwrap().metrics.push((batch, request.into_inner()));
        Ok(Response::new(Default::default()))
    }
}

/// Counts an open stream for as long as it lives.
struct Open(Arc<Mutex<Record>>);

impl Open {
    fn new(record: &Arc<Mutex<Record>>) -> Self {
        record.lock().unwrap().streams_open += 1;
        Self(record.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.lock().unwrap().streams_open -= 1;
    }
}

#[tonic::async_trait]
impl StreamService for Service {
    type StreamStream = Pin<Box<dyn Stream<Item = Result<StreamResponse, Status>> + Send>>;

    async fn stream(&self, request: Request<Streaming<StreamPayload>>) -> Result<Response<Self::StreamStream>, Status> {
        let record = self.record.clone();
        let open = Open::new(&record);
        let answers = request.into_inner().filter_map(move |message| {
            let _open = &open;
            match message.ok()?.payload? {
                Payload::Process(process) => {
                    let payload = ProcessPayload::decode(process.raw_payload.as_slice()).unwrap();
                    record.lock().unwrap().snapshots.push(payload);
                    Some(Ok(StreamResponse { status: "ok".to_owned(), status_code: 200, command: None }))
                }
                Payload::CommandResponse(answer) => {
                    record.lock().unwrap().command_answers.push(answer);
                    None
                }
                _ => None,
            }
        });
        let commands = tokio_stream::wrappers::BroadcastStream::new(self.commands.subscribe()).filter_map(|command| {
            Some(Ok(StreamResponse { status: "command".to_owned(), status_code: 200, command: command.ok() }))
        });
        Ok(Response::new(Box::pin(answers.merge(commands))))
    }
}
