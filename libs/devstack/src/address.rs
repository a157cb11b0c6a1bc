//! Host and port of a server URL, for probes and messages. Not a URL parser: no escapes, no queries.

use anyhow::{Context, Result};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    pub scheme: String,
    pub user: Option<String>,
    pub password: Option<String>,
    pub host: String,
    pub port: u16,
    /// Without the leading slash.
    pub path: String,
}

impl Address {
    pub fn parse(url: &str) -> Result<Self> {
        let (scheme, rest) = url.split_once("://").with_context(|| format!("read {url}: no scheme"))?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (credentials, location) = match authority.rsplit_once('@') {
            Some((credentials, location)) => (Some(credentials), location),
            None => (None, authority),
        };
        let (user, password) = match credentials.map(|text| text.split_once(':').unwrap_or((text, ""))) {
            Some((user, password)) => (filled(user), filled(password)),
            None => (None, None),
        };
        let (host, port) = split_port(location);
        let port = match port {
            Some(text) => text.parse().with_context(|| format!("read the port of {}", redact(url)))?,
            None => default_port(scheme).with_context(|| format!("{} names no port", redact(url)))?,
        };
        let path = path.split('?').next().unwrap_or_default().to_owned();
        Ok(Self { scheme: scheme.to_owned(), user, password, host: host.to_owned(), port, path })
    }

    pub fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Whether a plaintext probe can talk to it.
    pub fn is_plaintext(&self) -> bool {
        !matches!(self.scheme.as_str(), "https" | "tls" | "rediss" | "wss")
    }
}

/// The URL without its password, fit for a terminal and for `status`.
pub fn redact(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let authority_end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(authority_end);
    match authority.rsplit_once('@') {
        Some((credentials, location)) => {
            let user = credentials.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}@{location}{path}")
        }
        None => url.to_owned(),
    }
}

fn split_port(location: &str) -> (&str, Option<&str>) {
    match location.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host.trim_matches(['[', ']']), Some(port)),
        _ => (location.trim_matches(['[', ']']), None),
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "nats" | "tls" => Some(4222),
        "postgres" | "postgresql" => Some(5432),
        "redis" | "rediss" => Some(6379),
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

fn filled(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_url_are_found() {
        let address = Address::parse("postgres://me:secret@db.example:5433/sightline?sslmode=require").unwrap();
        assert_eq!(address.authority(), "db.example:5433");
        assert_eq!(address.user.as_deref(), Some("me"));
        assert_eq!(address.password.as_deref(), Some("secret"));
        assert_eq!(address.path, "sightline");
    }

    #[test]
    fn a_missing_port_is_the_scheme_s_own() {
        assert_eq!(Address::parse("redis://cache").unwrap().authority(), "cache:6379");
        assert!(Address::parse("gopher://cache").is_err());
    }

    #[test]
    fn a_password_is_never_shown() {
        assert_eq!(redact("redis://me:secret@cache:1/0"), "redis://me@cache:1/0");
        assert_eq!(redact("redis://cache:1"), "redis://cache:1");
    }
}
