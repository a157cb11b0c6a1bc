//! A loopback HTTP client of one request a connection: enough for readiness probes and the login.
//!
//! It speaks HTTP/1.0, so that no server answers in chunks. It knows neither TLS nor redirects.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

const BODY_LIMIT: u64 = 4 << 20;

#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub body: String,
}

/// `address` is `host:port`.
pub fn get(address: &str, path: &str, timeout: Duration) -> Result<Response> {
    exchange(address, &format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n"), timeout)
}

/// As the holder of a token.
pub fn get_as(bearer: &str, address: &str, path: &str, timeout: Duration) -> Result<Response> {
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nAuthorization: Bearer {bearer}\r\n\r\n");
    exchange(address, &request, timeout)
}

pub fn post_json(address: &str, path: &str, bearer: Option<&str>, body: &Value, timeout: Duration) -> Result<Response> {
    let body = body.to_string();
    let authorization = bearer.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let request = format!(
        "POST {path} HTTP/1.0\r\nHost: {address}\r\nContent-Type: application/json\r\n{authorization}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    exchange(address, &request, timeout)
}

/// Connects with a time limit, which `TcpStream::connect` has not.
pub fn connect(address: &str, timeout: Duration) -> Result<TcpStream> {
    let mut last = None;
    for candidate in address.to_socket_addrs().with_context(|| format!("resolve {address}"))? {
        match TcpStream::connect_timeout(&candidate, timeout) {
            Ok(stream) => {
                stream.set_read_timeout(Some(timeout))?;
                stream.set_write_timeout(Some(timeout))?;
                return Ok(stream);
            }
            Err(error) => last = Some(error),
        }
    }
    match last {
        Some(error) => Err(error).with_context(|| format!("connect to {address}")),
        None => bail!("{address} has no address"),
    }
}

fn exchange(address: &str, request: &str, timeout: Duration) -> Result<Response> {
    let mut stream = connect(address, timeout)?;
    stream.write_all(request.as_bytes()).context("send request")?;
    let mut raw = Vec::new();
    stream.take(BODY_LIMIT).read_to_end(&mut raw).context("read response")?;
    parse(&String::from_utf8_lossy(&raw))
}

fn parse(raw: &str) -> Result<Response> {
    let (head, body) = raw.split_once("\r\n\r\n").context("read response head")?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).context("read status line")?;
    Ok(Response { status, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_body_are_read() {
        let response = parse("HTTP/1.0 503 Service Unavailable\r\nX: y\r\n\r\npostgres is away").unwrap();
        assert_eq!((response.status, response.body.as_str()), (503, "postgres is away"));
    }

    #[test]
    fn an_answer_that_is_not_http_is_an_error() {
        assert!(parse("INFO {}\r\n").is_err());
    }
}
