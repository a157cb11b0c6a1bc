//! Finds the token in a request.

use fault::{Fault, Kind};
use http::HeaderMap;
use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};

/// Prefix of the WebSocket subprotocol that carries a token, since browsers cannot set the header.
pub const SUBPROTOCOL: &str = "bearer.";

/// The bearer token of the `authorization` header, or nothing when there is no such header.
///
/// # Errors
/// A header that is not one well-formed bearer token: guessing which of two was meant would be a hole.
pub fn header(headers: &HeaderMap) -> fault::Result<Option<&str>> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let parts = value.to_str().ok().and_then(|text| text.split_once(' '));
    match parts.map(|(scheme, token)| (scheme, token.trim())) {
        Some((scheme, token))
            if values.next().is_none() && scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() =>
        {
            Ok(Some(token))
        }
        _ => Err(malformed()),
    }
}

fn malformed() -> Fault {
    let detail = "send one header `Authorization: Bearer <token>` with nothing else in it";
    Fault::new(Kind::Unauthenticated, "token_malformed", detail)
}

/// The token among the subprotocols that a WebSocket client offers.
#[must_use]
pub fn subprotocol(headers: &HeaderMap) -> Option<&str> {
    let offers = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    offers.flat_map(|value| value.split(',')).find_map(|offer| offer.trim().strip_prefix(SUBPROTOCOL))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(http::HeaderName, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(name, value.parse().unwrap());
        }
        map
    }

    #[test]
    fn the_scheme_is_read_in_any_case() {
        assert_eq!(header(&headers(&[(AUTHORIZATION, "bearer abc")])).unwrap(), Some("abc"));
        assert_eq!(header(&headers(&[])).unwrap(), None);
    }

    #[test]
    fn anything_but_one_bearer_token_is_refused() {
        assert!(header(&headers(&[(AUTHORIZATION, "Basic abc")])).is_err());
        assert!(header(&headers(&[(AUTHORIZATION, "Bearer")])).is_err());
        assert!(header(&headers(&[(AUTHORIZATION, "Bearer a"), (AUTHORIZATION, "Bearer b")])).is_err());
    }

    #[test]
    fn a_subprotocol_carries_the_token_beside_others() {
        let offered = headers(&[(SEC_WEBSOCKET_PROTOCOL, "sightline.v1, bearer.abc")]);
        assert_eq!(subprotocol(&offered), Some("abc"));
        assert_eq!(subprotocol(&headers(&[(SEC_WEBSOCKET_PROTOCOL, "sightline.v1")])), None);
    }
}
