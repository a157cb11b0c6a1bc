//! Sends one webhook: signed, bounded in time, to a permitted address, without following redirects.

use std::error::Error as StdError;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Response, redirect};
use settings::Secret;
use standardwebhooks::{HEADER_WEBHOOK_ID, HEADER_WEBHOOK_SIGNATURE, HEADER_WEBHOOK_TIMESTAMP, Webhook};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use url::Url;

use crate::address::{Policy, Refusal};
use crate::delivery::Outcome;

/// How much of an answer is read, so that its connection can be used again. What it says is of no interest.
const MAX_ANSWER: usize = 64 << 10;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_ERROR: usize = 200;

/// What to send, and where to.
#[derive(Debug)]
pub struct Post<'a> {
    /// The delivery's id, the same at every attempt.
    pub id: &'a str,
    /// Where to.
    pub url: &'a str,
    /// Each of them signs it; the newest comes first.
    pub secrets: &'a [Secret],
    /// The trace that it belongs to.
    pub traceparent: &'a str,
    /// JSON.
    pub body: Vec<u8>,
}

/// Sends webhooks. Clones share connections.
#[derive(Clone)]
pub struct Sender {
    client: Client,
    policy: Arc<Policy>,
    timeout: Duration,
}

impl Sender {
    /// A sender that waits `timeout` for a whole answer.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn new(policy: Arc<Policy>, timeout: Duration) -> anyhow::Result<Self> {
        let builder = || {
            Client::builder()
                .user_agent(concat!("sightline-dispatcher/", env!("CARGO_PKG_VERSION")))
                .dns_resolver(Arc::new(Resolver { policy: Arc::clone(&policy) }))
                // A proxy from the environment would connect on our behalf, past the policy.
                .no_proxy()
                .redirect(redirect::Policy::none())
                .referer(false)
                .no_gzip()
                .connect_timeout(CONNECT_TIMEOUT.min(timeout))
                .timeout(timeout)
                .pool_max_idle_per_host(4)
                .pool_idle_timeout(Duration::from_secs(30))
        };
        let client = match builder().build() {
            Ok(client) => client,
            Err(error) => {
                tracing::warn!(%error, "this machine has no certificate authorities: https receivers will fail");
                builder().tls_certs_only([]).build().context("build the HTTP client")?
            }
        };
        Ok(Self { client, policy, timeout })
    }

    /// Sends it once.
    pub async fn send(&self, post: Post<'_>) -> Outcome {
        let url = match Url::parse(post.url) {
            Ok(url) => url,
            Err(error) => return Outcome::Impossible(format!("the receiver's URL cannot be read: {error}")),
        };
        if let Err(refusal) = self.policy.check_literal(&url) {
            return Outcome::Barred(refusal.to_string());
        }
        let headers = match headers(&post) {
            Ok(headers) => headers,
            Err(error) => return Outcome::Barred(format!("cannot sign: {error}")),
        };
        match self.client.post(url).headers(headers).body(post.body).send().await {
            Ok(response) => {
                let (status, retry_after) = (response.status().as_u16(), retry_after(response.headers()));
                drain(response).await;
                Outcome::Answered { status, retry_after }
            }
            Err(error) => self.describe(&error),
        }
    }

    /// In our words: the library's name addresses of ours.
    fn describe(&self, error: &reqwest::Error) -> Outcome {
        if let Some(refusal) = cause::<Refusal>(error) {
            return Outcome::Barred(refusal.to_string());
        }
        let text = if cause::<Unresolvable>(error).is_some() {
            Unresolvable.to_string()
        } else if error.is_timeout() {
            format!("no answer within {}", humane(self.timeout))
        } else if let Some(tls) = cause::<rustls::Error>(error) {
            format!("TLS: {tls}")
        } else if error.is_connect() {
            match cause::<std::io::Error>(error).map(std::io::Error::kind) {
                Some(std::io::ErrorKind::ConnectionRefused) => "the connection was refused".to_owned(),
                _ => "cannot connect".to_owned(),
            }
        } else {
            "the connection broke before an answer came".to_owned()
        };
        Outcome::Unanswered(text.chars().take(MAX_ERROR).collect())
    }
}

/// `webhook-id`, `webhook-timestamp` and `webhook-signature` (Standard Webhooks), and the trace.
fn headers(post: &Post<'_>) -> anyhow::Result<HeaderMap> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let sign = |secret: &Secret| -> anyhow::Result<String> {
        Ok(Webhook::new(secret.reveal())?.sign(post.id, i64::try_from(now)?, &post.body)?)
    };
    let signature = post.secrets.iter().map(sign).collect::<anyhow::Result<Vec<String>>>()?.join(" ");
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(HEADER_WEBHOOK_ID, post.id.parse()?);
    headers.insert(HEADER_WEBHOOK_TIMESTAMP, HeaderValue::from(now));
    headers.insert(HEADER_WEBHOOK_SIGNATURE, signature.parse()?);
    headers.insert(telemetry::context::HEADER, post.traceparent.parse()?);
    Ok(headers)
}

/// Seconds or a date (RFC 9110, section 10.2.3); anything else is as good as nothing.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = OffsetDateTime::parse(text, &Rfc2822).ok()?;
    Duration::try_from(date - OffsetDateTime::now_utc()).ok()
}

async fn drain(mut response: Response) {
    let mut read = 0;
    // The status is known; whether the rest comes changes nothing.
    while let Ok(Some(chunk)) = response.chunk().await {
        read += chunk.len();
        if read > MAX_ANSWER {
            break;
        }
    }
}

/// The first error of type `E` among the causes, also where a cause hides inside an `io::Error`.
fn cause<E: StdError + 'static>(error: &reqwest::Error) -> Option<&E> {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        let inside = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = match inside {
            Some(inside) => Some(inside),
            None => error.source(),
        };
    }
    None
}

fn humane(time: Duration) -> String {
    if time.subsec_millis() == 0 { format!("{} s", time.as_secs()) } else { format!("{} ms", time.as_millis()) }
}

/// A receiver's name that has no address.
#[derive(Debug, thiserror::Error)]
#[error("the receiver's name does not resolve")]
struct Unresolvable;

/// Resolves names to permitted addresses only: at each connection, since a name can change its mind.
struct Resolver {
    policy: Arc<Policy>,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let policy = Arc::clone(&self.policy);
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await.map_err(|_| Unresolvable)?;
            permitted(found, &policy).map(|addresses| -> Addrs { Box::new(addresses.into_iter()) })
        })
    }
}

fn permitted(
    found: impl Iterator<Item = SocketAddr>,
    policy: &Policy,
) -> Result<Vec<SocketAddr>, Box<dyn StdError + Send + Sync>> {
    let mut refusal = None;
    let mut addresses = Vec::new();
    for address in found {
        match policy.check(address.ip()) {
            Ok(()) => addresses.push(address),
            Err(refused) => refusal = Some(refused),
        }
    }
    match refusal {
        _ if !addresses.is_empty() => Ok(addresses),
        Some(refusal) => Err(refusal.into()),
        None => Err(Unresolvable.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(value: &str) -> Option<Duration> {
        retry_after(&HeaderMap::from_iter([(RETRY_AFTER, value.parse().unwrap())]))
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(asks("120"), Some(Duration::from_secs(120)));
        assert_eq!(asks("Wed, 21 Oct 2015 07:28:00 GMT"), None);
        assert!(asks("Wed, 21 Oct 2099 07:28:00 GMT").is_some_and(|wait| wait.as_secs() > 86_400));
        assert_eq!(asks("soon"), None);
    }

    #[test]
    fn of_several_addresses_only_permitted_ones_are_used() {
        let policy = Policy::new(Vec::new());
        let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<SocketAddr>>();
        let public = permitted(addresses(&["10.0.0.1:0", "1.1.1.1:0"]).into_iter(), &policy).unwrap();
        assert_eq!(public, addresses(&["1.1.1.1:0"]));
        let error = permitted(addresses(&["10.0.0.1:0"]).into_iter(), &policy).unwrap_err();
        assert!(error.is::<Refusal>());
        assert!(permitted(std::iter::empty(), &policy).unwrap_err().is::<Unresolvable>());
    }
}
