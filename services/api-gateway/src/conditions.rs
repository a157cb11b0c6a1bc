//! Headers that make a request conditional or safe to repeat.

use axum::http::{HeaderMap, header};
use fault::{Fault, Kind};

/// Answers begin with it where a document can be changed.
pub(crate) fn etag(version: u64) -> String {
    format!("\"{version}\"")
}

/// The version in `If-Match`; 0 when the caller takes any. A tag that no answer of ours carried matches nothing, a weak one
/// neither (RFC 9110, 13.1.1).
pub(crate) fn expected_version(headers: &HeaderMap) -> Result<u64, Fault> {
    let mut values = headers.get_all(header::IF_MATCH).iter();
    let Some(value) = values.next() else { return Ok(0) };
    let tag = value.to_str().unwrap_or_default().trim();
    let quoted = tag.strip_prefix("W/").unwrap_or(tag).strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
    match (tag, quoted) {
        _ if values.next().is_some() => Err(invalid()),
        ("*", _) => Ok(0),
        (_, Some(inner)) if inner.contains('"') => Err(invalid()),
        (_, Some(_)) if tag.starts_with("W/") => Err(stale()),
        // Written as we write it: `"+1"` and `"01"` are other tags.
        (_, Some(inner)) => match inner.parse() {
            Ok(version) if version > 0 && inner == u64::to_string(&version) => Ok(version),
            _ => Err(stale()),
        },
        (_, None) => Err(invalid()),
    }
}

fn invalid() -> Fault {
    Fault::invalid("invalid_if_match", "If-Match takes the one ETag that the document was read with, quotes included")
}

fn stale() -> Fault {
    let detail = "the document has no such version; read it again and send the ETag of that answer";
    Fault::new(Kind::Stale, "stale", detail)
}

pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<String, Fault> {
    match headers.get("idempotency-key").map(|value| value.to_str().unwrap_or_default()) {
        None => Ok(String::new()),
        Some(key) if (1..=128).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Ok(key.to_owned())
        }
        Some(_) => {
            Err(Fault::invalid("invalid_idempotency_key", "Idempotency-Key takes 1 to 128 ASCII characters, no spaces"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(values: &[&str]) -> Result<u64, String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::IF_MATCH, value.parse().unwrap());
        }
        expected_version(&headers).map_err(|fault| fault.code().to_owned())
    }

    #[test]
    fn a_version_is_taken_only_as_it_was_given() {
        assert_eq!((expected(&[]), expected(&["*"]), expected(&["\"3\""])), (Ok(0), Ok(0), Ok(3)));
        for stale in ["\"0\"", "W/\"3\"", "\"+3\"", "\"03\"", "\"\"", "\"abc\"", "\"99999999999999999999\""] {
            assert_eq!(expected(&[stale]).unwrap_err(), "stale", "{stale}");
        }
        for invalid in ["3", "\"3", "\"3\", \"4\"", "", "W/3"] {
            assert_eq!(expected(&[invalid]).unwrap_err(), "invalid_if_match", "{invalid}");
        }
        assert_eq!(expected(&["\"3\"", "\"3\""]).unwrap_err(), "invalid_if_match");
    }
}
