//! The world outside: an OTLP trace collector that remembers which service made which span.

use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1 as wire;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// One finished span. Ids are in hexadecimal, as `traceparent` writes them.
#[derive(Debug, Clone)]
pub struct Span {
    /// `service.name` of the process that made it.
    pub service: String,
    pub name: String,
    pub trace: String,
    pub id: String,
    /// Empty for the first span of a trace.
    pub parent: String,
}

type Spans = Arc<Mutex<Vec<Span>>>;

/// A trace collector on loopback.
pub struct Collector {
    /// For `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub endpoint: String,
    spans: Spans,
    task: JoinHandle<()>,
}

impl Collector {
    pub async fn start() -> Self {
        let spans = Spans::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let service = TraceServiceServer::new(Intake(Arc::clone(&spans)));
        let server = tonic::transport::Server::builder().add_service(service);
        #[expect(clippy::disallowed_methods, reason = "ends with the collector")]
        let task = tokio::spawn(async move { server.serve_with_incoming(TcpIncoming::from(listener)).await.unwrap() });
        Self { endpoint, spans, task }
    }

    /// The spans of one trace that came so far.
    #[must_use]
    pub fn trace(&self, id: &str) -> Vec<Span> {
        let spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        spans.iter().filter(|span| span.trace == id).cloned().collect()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Intake(Spans);

#[tonic::async_trait]
impl TraceService for Intake {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut spans = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for resource in request.into_inner().resource_spans {
            let service = service_name(resource.resource.as_ref());
            let received = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            spans.extend(received.map(|span| read(&service, span)));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn service_name(resource: Option<&Resource>) -> String {
    let mut attributes = resource.into_iter().flat_map(|resource| &resource.attributes);
    let value = attributes.find(|attribute| attribute.key == "service.name").and_then(|name| name.value.clone());
    match value.and_then(|value| value.value) {
        Some(Value::StringValue(name)) => name,
        _ => String::new(),
    }
}

fn read(service: &str, span: wire::Span) -> Span {
    Span {
        service: service.to_owned(),
        name: span.name,
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
