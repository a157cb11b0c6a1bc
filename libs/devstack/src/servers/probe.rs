//! Does a server answer, and what version is it? Asked in each server's own protocol, so that ours and somebody else's
//! are treated alike.

use std::io::{BufRead, BufReader, Read, Write};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::address::Address;
use crate::http;

const TIMEOUT: Duration = Duration::from_secs(2);
/// Version 3.0 of PostgreSQL's protocol.
const POSTGRES_PROTOCOL: u32 = 196_608;
const POSTGRES_MESSAGE_LIMIT: u32 = 64 << 10;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    Nats { url: String, monitor: Option<String> },
    Postgres { url: String },
    Redis { url: String },
    Metrics { url: String },
}

impl Probe {
    pub fn url(&self) -> &str {
        match self {
            Self::Nats { url, .. } | Self::Postgres { url } | Self::Redis { url } | Self::Metrics { url } => url,
        }
    }

    /// The version if the server tells it to strangers. An error says in what way it does not answer.
    pub fn check(&self) -> Result<Option<String>> {
        let address = Address::parse(self.url())?;
        if !address.is_plaintext() {
            // Nothing here speaks TLS: that somebody listens is all that can be said.
            return http::connect(&address.authority(), TIMEOUT).map(|_| None);
        }
        match self {
            Self::Nats { monitor, .. } => nats(&address, monitor.as_deref()),
            Self::Postgres { .. } => postgres(&address),
            Self::Redis { .. } => redis(&address),
            Self::Metrics { .. } => metrics(&address),
        }
    }
}

fn nats(address: &Address, monitor: Option<&str>) -> Result<Option<String>> {
    let mut line = String::new();
    BufReader::new(http::connect(&address.authority(), TIMEOUT)?).read_line(&mut line).context("read greeting")?;
    let greeting: Value =
        line.strip_prefix("INFO ").and_then(|json| serde_json::from_str(json).ok()).context("read greeting")?;
    if let Some(monitor) = monitor {
        let health = http::get(&Address::parse(monitor)?.authority(), "/healthz?js-enabled-only=true", TIMEOUT)?;
        if health.status != 200 {
            bail!("JetStream is not ready: {}", health.body.trim());
        }
    } else if greeting["jetstream"].as_bool() != Some(true) {
        bail!("JetStream is switched off");
    }
    Ok(greeting["version"].as_str().map(str::to_owned))
}

fn redis(address: &Address) -> Result<Option<String>> {
    let mut stream = http::connect(&address.authority(), TIMEOUT)?;
    let login = match (&address.user, &address.password) {
        (Some(user), Some(password)) => format!("AUTH {user} {password}\r\n"),
        (None, Some(password)) => format!("AUTH {password}\r\n"),
        _ => String::new(),
    };
    stream.write_all(format!("{login}PING\r\nINFO server\r\nQUIT\r\n").as_bytes()).context("send PING")?;
    let mut reply = Vec::new();
    stream.take(64 << 10).read_to_end(&mut reply).context("read PONG")?;
    let reply = String::from_utf8_lossy(&reply);
    if !reply.contains("+PONG") {
        bail!("{}", reply.lines().next().unwrap_or("an empty answer"));
    }
    Ok(reply.lines().find_map(|line| line.strip_prefix("redis_version:")).map(str::to_owned))
}

fn metrics(address: &Address) -> Result<Option<String>> {
    let health = http::get(&address.authority(), "/health", TIMEOUT)?;
    if health.status != 200 {
        bail!("answers {}: {}", health.status, health.body.trim());
    }
    let own = http::get(&address.authority(), "/metrics", TIMEOUT).map(|response| response.body).unwrap_or_default();
    Ok(metrics_version(&own))
}

/// `short_version` is empty in Debian's build, whose `version` names the product first.
fn metrics_version(own: &str) -> Option<String> {
    let line = own.lines().find(|line| line.starts_with("vm_app_version"))?;
    ["short_version=\"", "version=\""].iter().find_map(|label| {
        let value = line.split_once(label)?.1.split('"').next()?;
        let number = value.trim_start_matches("victoria-metrics-").trim_start_matches('v');
        (!number.is_empty()).then(|| number.to_owned())
    })
}

/// Begins a session as a client would. Being asked for a password also means that the server is up.
fn postgres(address: &Address) -> Result<Option<String>> {
    let mut stream = http::connect(&address.authority(), TIMEOUT)?;
    stream.write_all(&startup_message(address)?).context("send startup message")?;
    loop {
        let (kind, body) = read_message(&mut stream)?;
        match kind {
            b'R' if !body.starts_with(&[0, 0, 0, 0]) => return Ok(None),
            b'S' => {
                if let Some(full) = parameter(&body, "server_version") {
                    // Debian adds its package's version in parentheses.
                    let version = full.split(' ').next().unwrap_or_default().to_owned();
                    stream.write_all(&[b'X', 0, 0, 0, 4]).context("end the session")?;
                    return Ok(Some(version));
                }
            }
            b'E' => bail!("{}", error_text(&body)),
            b'Z' => return Ok(None),
            _ => {}
        }
    }
}

fn startup_message(address: &Address) -> Result<Vec<u8>> {
    let user = address.user.as_deref().unwrap_or("postgres");
    let database = if address.path.is_empty() { user } else { &address.path };
    let mut body = POSTGRES_PROTOCOL.to_be_bytes().to_vec();
    for text in ["user", user, "database", database] {
        body.extend_from_slice(text.as_bytes());
        body.push(0);
    }
    body.push(0);
    let length = u32::try_from(body.len() + 4).context("measure startup message")?;
    Ok([length.to_be_bytes().as_slice(), &body].concat())
}

fn read_message(stream: &mut impl Read) -> Result<(u8, Vec<u8>)> {
    let mut kind = [0];
    stream.read_exact(&mut kind).context("read PostgreSQL's answer")?;
    let mut length = [0; 4];
    stream.read_exact(&mut length).context("read PostgreSQL's answer")?;
    let length = u32::from_be_bytes(length);
    if !(4..=POSTGRES_MESSAGE_LIMIT).contains(&length) {
        bail!("the answer is not PostgreSQL's");
    }
    let mut body = vec![0; usize::try_from(length - 4).context("measure the answer")?];
    stream.read_exact(&mut body).context("read PostgreSQL's answer")?;
    Ok((kind[0], body))
}

fn parameter(body: &[u8], name: &str) -> Option<String> {
    let mut parts = body.split(|byte| *byte == 0);
    (parts.next()? == name.as_bytes()).then(|| parts.next().map(|value| String::from_utf8_lossy(value).into_owned()))?
}

/// The field `M` of an error message is the sentence for people.
fn error_text(body: &[u8]) -> String {
    body.split(|byte| *byte == 0)
        .find_map(|field| field.strip_prefix(b"M"))
        .map_or_else(|| "an error without a message".to_owned(), |text| String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_status_carries_the_version() {
        assert_eq!(
            parameter(b"server_version\x0015.13 (Debian)\x00", "server_version").as_deref(),
            Some("15.13 (Debian)")
        );
        assert_eq!(parameter(b"TimeZone\x00GMT\x00", "server_version"), None);
    }

    #[test]
    fn an_error_is_told_in_its_own_words() {
        assert_eq!(
            error_text(b"SFATAL\x00C57P03\x00Mthe database system is starting up\x00\x00"),
            "the database system is starting up"
        );
    }

    #[test]
    fn the_metrics_store_s_version_is_found_in_either_label() {
        let debian = "vm_app_version{version=\"victoria-metrics-1.79.5+ds1-2\", short_version=\"\"} 1";
        assert_eq!(metrics_version(debian).as_deref(), Some("1.79.5+ds1-2"));
        let upstream = "vm_app_version{version=\"victoria-metrics-2024\", short_version=\"v1.102.0\"} 1";
        assert_eq!(metrics_version(upstream).as_deref(), Some("1.102.0"));
    }
}
