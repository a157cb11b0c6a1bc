//! What the ingest-gateway can be told.

use std::net::SocketAddr;
use std::path::PathBuf;

use edge::TlsMode;
use ipnet::IpNet;
use model::TenantId;
use settings::Secret;

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
    /// Bytes of one message as it travels
    #[arg(long = "ingest-message-bytes", env = "SIGHTLINE_INGEST_MESSAGE_BYTES", default_value = "32MiB", value_parser = settings::bytes)]
    pub message_bytes: u64,
    /// Bytes of one message when it is unpacked
    #[arg(long = "ingest-unpacked-bytes", env = "SIGHTLINE_INGEST_UNPACKED_BYTES", default_value = "64MiB", value_parser = settings::bytes)]
    pub unpacked_bytes: u64,
    /// Bytes of all messages that are being read or wait for the broker; above it clients are told to come back
    #[arg(long = "ingest-in-flight-bytes", env = "SIGHTLINE_INGEST_IN_FLIGHT_BYTES", default_value = "128MiB", value_parser = settings::bytes)]
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
        // One message in its packed and unpacked form must find room, or it would be sent again for ever.
        if ingest.in_flight_bytes < ingest.message_bytes.saturating_add(ingest.unpacked_bytes) {
            wrong.push(
                "SIGHTLINE_INGEST_IN_FLIGHT_BYTES must be at least SIGHTLINE_INGEST_MESSAGE_BYTES and \
                 SIGHTLINE_INGEST_UNPACKED_BYTES together"
                    .to_owned(),
            );
        }
        if ingest.in_flight_bytes > 1 << 36 {
            wrong.push("SIGHTLINE_INGEST_IN_FLIGHT_BYTES must be at most 64GiB".to_owned());
        }
        wrong.extend(self.edge.check());
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
