//! What the ingest-gateway can be told.

mod limits;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use edge::TlsMode;
use ipnet::IpNet;
use model::TenantId;
use settings::Secret;

pub use limits::Otlp;

/// The whole configuration.
#[derive(clap::Parser, Debug, Clone)]
#[command(
    name = "ingest-gateway",
    version,
    about = "Takes telemetry of every protocol and answers once the broker has it"
)]
pub struct Config {
    #[command(flatten)]
    pub process: lifecycle::Settings,
    #[command(flatten)]
    pub bus: bus::Settings,
    #[command(flatten)]
    pub tls: rpc::Settings,
    /// Where auth's gRPC API is, for the keys that tokens are verified with
    #[arg(long, env = "SIGHTLINE_AUTH_URL", default_value = "https://127.0.0.1:9508")]
    pub auth_url: String,
    /// Redis, for heartbeats; telemetry is taken without it
    #[arg(long, env = "SIGHTLINE_REDIS_URL", default_value = "redis://127.0.0.1:6379")]
    pub redis_url: Secret,
    /// Address of OTLP and GoSight over gRPC
    #[arg(long, env = "SIGHTLINE_GRPC_LISTEN", default_value = "0.0.0.0:4317")]
    pub grpc_listen: SocketAddr,
    /// Address of OTLP over HTTP
    #[arg(long, env = "SIGHTLINE_HTTP_LISTEN", default_value = "0.0.0.0:4318")]
    pub http_listen: SocketAddr,
    #[command(flatten)]
    pub edge: edge::Settings,
    #[command(flatten)]
    pub ingest: Ingest,
    #[command(flatten)]
    pub otlp: Otlp,
    #[command(flatten)]
    pub clock: Clock,
}

/// Which times of clients are believed.
#[derive(clap::Args, Debug, Clone)]
#[group(skip)]
pub struct Clock {
    /// How far a time may lie ahead of ours: beyond it a data point is refused, and a log record gets the time of its arrival
    #[arg(long, env = "SIGHTLINE_CLOCK_SKEW", default_value = model::CLOCK_SKEW, value_parser = settings::duration)]
    pub clock_skew: Duration,
    /// How long the metrics store keeps samples: data points that are older are refused
    #[arg(long, env = "SIGHTLINE_METRICS_RETENTION", default_value = model::METRICS_RETENTION, value_parser = settings::duration)]
    pub metrics_retention: Duration,
    /// How long logs are kept: records that are older are refused
    #[arg(long, env = "SIGHTLINE_LOG_RETENTION", default_value = model::LOG_RETENTION, value_parser = settings::duration)]
    pub log_retention: Duration,
}

/// How the two public ports behave.
#[derive(clap::Args, Debug, Clone)]
#[group(skip)]
pub struct Ingest {
    /// Whether clients speak TLS: `optional` tells both apart by the first byte of a connection
    #[arg(long = "ingest-tls", env = "SIGHTLINE_INGEST_TLS", default_value = "off")]
    pub tls: TlsMode,
    /// PEM file of the certificate that clients see
    #[arg(long = "ingest-tls-cert-file", env = "SIGHTLINE_INGEST_TLS_CERT_FILE")]
    pub cert_file: Option<PathBuf>,
    /// PEM file of the certificate's private key
    #[arg(long = "ingest-tls-key-file", env = "SIGHTLINE_INGEST_TLS_KEY_FILE")]
    pub key_file: Option<PathBuf>,
    /// PEM file of the CA that clients' certificates must come from, when they show one
    #[arg(long = "ingest-tls-client-ca-file", env = "SIGHTLINE_INGEST_TLS_CLIENT_CA_FILE")]
    pub client_ca_file: Option<PathBuf>,
    /// Networks, comma separated, whose clients may send without a credential, for example 127.0.0.0/8,::1/128
    #[arg(long, env = "SIGHTLINE_ANONYMOUS_NETWORKS", value_delimiter = ',')]
    pub anonymous_networks: Vec<IpNet>,
    /// The tenant that clients without a credential belong to
    #[arg(long, env = "SIGHTLINE_ANONYMOUS_TENANT", default_value = "default")]
    pub anonymous_tenant: TenantId,
    /// The tenant of clients whose certificate names no agent (as `sightline://tenant/agent`)
    #[arg(long, env = "SIGHTLINE_CERTIFICATE_TENANT", default_value = "default")]
    pub certificate_tenant: TenantId,
    /// Web pages whose scripts may send by OTLP over HTTP, comma separated, as https://shop.example; `*` is every page. None
    /// unless set: browsers then refuse to send
    #[arg(long, env = "SIGHTLINE_CORS_ORIGINS", value_delimiter = ',')]
    pub cors_origins: Vec<http::HeaderValue>,
    /// Processes of one snapshot
    #[arg(long = "ingest-processes", env = "SIGHTLINE_INGEST_PROCESSES", default_value_t = 20_000)]
    pub processes: usize,
    /// How long an agent that lives may send no process snapshot before it is shown
    #[arg(long, env = "SIGHTLINE_PROCESS_SILENCE", default_value = "5m", value_parser = settings::duration)]
    pub process_silence: Duration,
    /// Bytes of one message as it travels
    #[arg(long = "ingest-message-bytes", env = "SIGHTLINE_INGEST_MESSAGE_BYTES", default_value = "32MiB", value_parser = settings::bytes)]
    pub message_bytes: u64,
    /// Bytes of one message when it is unpacked
    #[arg(long = "ingest-unpacked-bytes", env = "SIGHTLINE_INGEST_UNPACKED_BYTES", default_value = "64MiB", value_parser = settings::bytes)]
    pub unpacked_bytes: u64,
    /// Bytes of all messages that are being read or wait for the broker, with what is made of them; above it clients are told
    /// to come back
    #[arg(long = "ingest-in-flight-bytes", env = "SIGHTLINE_INGEST_IN_FLIGHT_BYTES", default_value = "256MiB", value_parser = settings::bytes)]
    pub in_flight_bytes: u64,
}

impl Ingest {
    /// The certificate of the public ports, where there is one.
    pub(crate) fn tls_files(&self) -> Option<edge::TlsFiles> {
        Some(edge::TlsFiles {
            certificate: self.cert_file.clone()?,
            key: self.key_file.clone()?,
            client_ca: self.client_ca_file.clone(),
        })
    }
}

impl settings::Settings for Config {
    fn check(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let ingest = &self.ingest;
        if ingest.tls != TlsMode::Off && (ingest.cert_file.is_none() || ingest.key_file.is_none()) {
            wrong.push(
                "SIGHTLINE_INGEST_TLS needs SIGHTLINE_INGEST_TLS_CERT_FILE and SIGHTLINE_INGEST_TLS_KEY_FILE"
                    .to_owned(),
            );
        }
        if ingest.message_bytes == 0 || ingest.message_bytes > 1 << 30 {
            wrong.push("SIGHTLINE_INGEST_MESSAGE_BYTES must be between 1 byte and 1GiB".to_owned());
        }
        if ingest.unpacked_bytes < ingest.message_bytes {
            wrong.push("SIGHTLINE_INGEST_UNPACKED_BYTES must not be below SIGHTLINE_INGEST_MESSAGE_BYTES".to_owned());
        }
        // One message must find room packed, unpacked, and as the envelopes that are filled from it.
        let largest = ingest.message_bytes.saturating_add(ingest.unpacked_bytes.saturating_mul(2));
        if ingest.in_flight_bytes < largest {
            wrong.push(
                "SIGHTLINE_INGEST_IN_FLIGHT_BYTES must be at least SIGHTLINE_INGEST_MESSAGE_BYTES and twice \
                 SIGHTLINE_INGEST_UNPACKED_BYTES together"
                    .to_owned(),
            );
        }
        if ingest.in_flight_bytes > 1 << 36 {
            wrong.push("SIGHTLINE_INGEST_IN_FLIGHT_BYTES must be at most 64GiB".to_owned());
        }
        wrong.extend(self.edge.check());
        wrong.extend(self.otlp.check());
        wrong
    }
}

impl lifecycle::Config for Config {
    const SERVICE: &'static str = "ingest-gateway";
    const ADMIN_PORT: u16 = 9401;

    fn process(&self) -> &lifecycle::Settings {
        &self.process
    }
}
