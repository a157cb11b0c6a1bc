//! What a receiver may look like: its name, where it is, and the secret that signs what it gets.

use ::seal::{Kept, Seal};
use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fault::{Fault, Field};
use settings::Secret;
use url::{Host, Url};
use uuid::Uuid;

use crate::address::Policy;

/// How a secret begins, by the Standard Webhooks specification.
const PREFIX: &str = "whsec_";

/// Bytes of a secret, by the same.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

const SECRET_FORM: &str = "write whsec_ and 24 to 64 bytes in base64, or leave it out";

/// The longest URL, in bytes.
const MAX_URL: usize = 2048;

/// The longest idempotency key, in bytes.
const MAX_KEY: usize = 255;

/// A receiver as it is kept.
#[derive(Debug, Clone)]
pub struct Receiver {
    /// Its id.
    pub id: Uuid,
    /// Unique in its tenant.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// Signs what it gets; none where it cannot be read any more, as without the key that encrypted it.
    pub secret: Option<Secret>,
    /// When it was created, Unix nanoseconds.
    pub created: u64,
    /// When it was changed last.
    pub updated: u64,
    /// Rises with each change.
    pub version: u64,
    /// Until when the secret before this one signs too; 0 where there was none.
    pub old_secret_until: u64,
    /// Failed attempts since it last answered.
    pub failures: u32,
    /// Nothing is sent before; 0 where it may be.
    pub held_until: u64,
}

/// A receiver that somebody wants.
#[derive(Debug, Clone)]
pub struct Draft {
    /// Its name.
    pub name: String,
    /// Its URL, in one spelling.
    pub url: String,
    /// The secret that the caller brought.
    pub secret: Option<Secret>,
    /// The caller's key for repeats.
    pub idempotency_key: Option<String>,
}

impl Draft {
    /// Checks what a caller sent.
    ///
    /// # Errors
    /// Everything that is wrong with it, by field.
    pub fn check(name: &str, url: &str, secret: &str, idempotency_key: &str, policy: &Policy) -> fault::Result<Self> {
        let mut wrong = Vec::new();
        let mut field = |path: &str, message: String| wrong.push(Field { path: path.to_owned(), message });
        if let Err(message) = check_name(name) {
            field("name", message.to_owned());
        }
        let url = match check_url(url, policy) {
            Ok(url) => url,
            Err(message) => {
                field("webhook.url", message);
                String::new()
            }
        };
        if !secret.is_empty() && !is_secret(secret) {
            field("webhook.secret", SECRET_FORM.to_owned());
        }
        if idempotency_key.len() > MAX_KEY || idempotency_key.contains('\0') {
            field("idempotency_key", format!("at most {MAX_KEY} characters, without NUL"));
        }
        if !wrong.is_empty() {
            return Err(Fault::fields(wrong));
        }
        let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Ok(Self {
            name: name.to_owned(),
            url,
            secret: text(secret).map(Secret::from),
            idempotency_key: text(idempotency_key),
        })
    }

    /// Whether `receiver` is what this asks for, so that a repeat may be answered with it.
    #[must_use]
    pub fn is_same(&self, receiver: &Receiver) -> bool {
        self.name == receiver.name
            && self.url == receiver.url
            && self.secret.as_ref().is_none_or(|secret| receiver.secret.as_ref() == Some(secret))
    }
}

/// A secret that somebody brings.
///
/// # Errors
/// It is none.
pub fn check_secret(secret: &str) -> fault::Result<Secret> {
    if is_secret(secret) {
        return Ok(Secret::from(secret.to_owned()));
    }
    Err(Fault::field("secret", SECRET_FORM))
}

/// A URL that somebody wants a receiver to have, in one spelling.
///
/// # Errors
/// What is wrong with it.
pub fn check_webhook_url(url: &str, policy: &Policy) -> fault::Result<String> {
    check_url(url, policy).map_err(|message| Fault::field("webhook.url", message))
}

/// The secret of a receiver as it lies in its table.
///
/// # Errors
/// It was encrypted with another key.
pub fn open(seal: &Seal, id: Uuid, kept: &Kept) -> anyhow::Result<Secret> {
    let bytes = seal.open(&id.to_string(), kept)?;
    Ok(Secret::from(String::from_utf8(bytes).context("read a secret")?))
}

fn check_name(name: &str) -> Result<(), &'static str> {
    let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
    if (1..=63).contains(&name.len()) && name.bytes().all(good) {
        Ok(())
    } else {
        Err("write 1 to 63 lower case letters, digits, `-`, `_` or `.`")
    }
}

fn check_url(text: &str, policy: &Policy) -> Result<String, String> {
    if text.len() > MAX_URL {
        return Err(format!("at most {MAX_URL} characters"));
    }
    let url = Url::parse(text).map_err(|error| format!("not an absolute URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("the scheme must be http or https".to_owned());
    }
    if !matches!(url.host(), Some(Host::Ipv4(_) | Host::Ipv6(_) | Host::Domain(_))) {
        return Err("the host is missing".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a URL is shown to others: take the credentials out, and check the signature instead".to_owned());
    }
    if url.fragment().is_some() {
        return Err("take the fragment (#...) out: it is never sent".to_owned());
    }
    policy.check_literal(&url).map_err(|refusal| refusal.to_string())?;
    Ok(url.into())
}

fn is_secret(secret: &str) -> bool {
    let key = secret.strip_prefix(PREFIX).and_then(|key| STANDARD.decode(key).ok());
    key.is_some_and(|key| SECRET_BYTES.contains(&key.len()))
}

/// A secret of 256 random bits.
///
/// # Errors
/// The operating system has no randomness to give.
pub fn new_secret() -> Result<Secret, getrandom::Error> {
    let mut key = [0; 32];
    getrandom::fill(&mut key)?;
    Ok(Secret::from(format!("{PREFIX}{}", STANDARD.encode(key))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(name: &str, url: &str, secret: &str) -> String {
        let policy = Policy::new(Vec::new());
        Draft::check(name, url, secret, "", &policy).map_or_else(|fault| fault.detail().to_owned(), |_| String::new())
    }

    const URL: &str = "https://hooks.example.org/a?b=c";

    #[test]
    fn a_good_receiver_passes_and_its_url_gets_one_spelling() {
        let policy = Policy::new(Vec::new());
        let draft = Draft::check("ops-1.team_x", "HTTPS://Hooks.Example.ORG:443/a", "", "k", &policy).unwrap();
        assert_eq!(draft.url, "https://hooks.example.org/a");
        assert_eq!(draft.idempotency_key.as_deref(), Some("k"));
        assert_eq!(wrong("ops", URL, new_secret().unwrap().reveal()), "");
    }

    #[test]
    fn what_is_wrong_is_told_by_field() {
        for name in ["", "Ops", "a b", "ä", &"x".repeat(64)] {
            assert!(wrong(name, URL, "").starts_with("name: "), "{name}");
        }
        for url in [
            "",
            "hooks",
            "/hooks",
            "ftp://a.org/",
            "http://",
            "http://u:p@a.org/",
            "http://a.org/#x",
            "http://10.0.0.1/",
        ] {
            assert!(wrong("ops", url, "").starts_with("webhook.url: "), "{url}");
        }
        for secret in ["geheim", "whsec_", "whsec_c2hvcnQ=", "whsec_%%%"] {
            assert!(wrong("ops", URL, secret).starts_with("webhook.secret: "), "{secret}");
        }
        assert!(wrong("", "", "x").contains("; webhook.url: "));
    }
}
