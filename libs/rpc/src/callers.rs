//! Who may call whom. Health is open to every certificate of our CA.

use rustls_pki_types::CertificateDer;

/// For each service that speaks gRPC, the services that may call it.
const CALLERS: [(&str, &[&str]); 6] = [
    (
        "auth",
        &[
            "api-gateway",
            "ingest-gateway",
            "registry",
            "log-writer",
            "rule-engine",
            "alert-service",
            "dispatcher",
            "ws-fanout",
        ],
    ),
    ("registry", &["api-gateway", "ingest-gateway", "ws-fanout"]),
    ("log-writer", &["api-gateway", "alert-service"]),
    ("rule-engine", &["api-gateway"]),
    ("alert-service", &["api-gateway"]),
    ("dispatcher", &["api-gateway"]),
];

/// Whether a certificate with `name` may call `service` at `path`.
pub(crate) fn may_call(service: &str, name: &str, path: &str) -> bool {
    path.starts_with("/grpc.health.v1.Health/")
        || CALLERS.iter().any(|(callee, callers)| *callee == service && callers.contains(&name))
}

/// The service that a certificate names: its first DNS name. The TLS handshake has verified the certificate already.
pub(crate) fn name_of(certificate: &CertificateDer<'_>) -> Option<String> {
    let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
    certificate.valid_dns_names().next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::may_call;

    #[test]
    fn only_listed_services_may_call() {
        assert!(may_call("registry", "api-gateway", "/sightline.registry.v1.Registry/GetResource"));
        assert!(!may_call("rule-engine", "ingest-gateway", "/sightline.rules.v1.Rules/DeleteRule"));
        assert!(may_call("rule-engine", "ingest-gateway", "/grpc.health.v1.Health/Check"));
    }
}
