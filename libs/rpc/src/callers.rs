//! Who may call whom. Health is open to every certificate of our CA.

use rustls_pki_types::CertificateDer;

/// Whoever verifies tokens follows what auth says.
const VERIFIERS: &[&str] = &[
    "api-gateway",
    "ingest-gateway",
    "registry",
    "log-writer",
    "rule-engine",
    "alert-service",
    "dispatcher",
    "ws-fanout",
];
const API: &[&str] = &["api-gateway"];

/// For each service that speaks gRPC its methods, or all of them where the path ends in a slash, and who may call them.
const CALLERS: [(&str, &str, &[&str]); 8] = [
    ("auth", "/sightline.auth.v1.Auth/Follow", VERIFIERS),
    ("auth", "/sightline.auth.v1.Auth/GetKeys", VERIFIERS),
    ("auth", "/sightline.auth.v1.Auth/", API),
    ("registry", "/sightline.registry.v1.Registry/", API),
    ("log-writer", "/sightline.logs.v1.LogSearch/", API),
    ("rule-engine", "/sightline.rules.v1.Rules/", API),
    ("alert-service", "/sightline.alerts.v1.Alerts/", API),
    ("dispatcher", "/sightline.dispatch.v1.Dispatch/", API),
];

/// Whether a certificate with `name` may call `service` at `path`.
pub(crate) fn may_call(service: &str, name: &str, path: &str) -> bool {
    let listed = |(callee, method, callers): &(&str, &str, &[&str])| {
        let named = path == *method || (method.ends_with('/') && path.starts_with(method));
        *callee == service && named && callers.contains(&name)
    };
    path.starts_with("/grpc.health.v1.Health/") || CALLERS.iter().any(listed)
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

    #[test]
    fn a_verifier_learns_what_holds_and_hands_nothing_out() {
        assert!(may_call("auth", "ws-fanout", "/sightline.auth.v1.Auth/Follow"));
        for method in ["Login", "IssueAgentToken", "RotateKeys", "GetKeysOfOthers"] {
            let path = format!("/sightline.auth.v1.Auth/{method}");
            assert!(!may_call("auth", "ws-fanout", &path), "{method}");
            assert!(may_call("auth", "api-gateway", &path), "{method}");
        }
    }
}
