//! What was taken back before its time: sessions, and single tokens.

use std::collections::HashMap;
use std::time::SystemTime;

/// By what a token can be taken back: its own id, and the session that it came from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Credential {
    /// The token's `jti`.
    pub token: String,
    /// Its `sid`; agents' tokens have none.
    pub session: Option<String>,
}

/// One thing that auth took back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// Of a session or of a token: both are random, so one list does for both.
    pub id: String,
    /// From then on nothing that it is about is good anyway.
    pub expires: SystemTime,
}

/// All that is taken back now.
#[derive(Clone, Default)]
pub(crate) struct Revoked(HashMap<String, SystemTime>);

impl Revoked {
    /// With `news`, and without what has ended by itself.
    pub(crate) fn with(&self, news: impl IntoIterator<Item = Revocation>, now: SystemTime) -> Self {
        let known = self.0.iter().map(|(id, expires)| (id.clone(), *expires));
        let news = news.into_iter().map(|revocation| (revocation.id, revocation.expires));
        Self(known.chain(news).filter(|(_, expires)| *expires > now).collect())
    }

    pub(crate) fn covers(&self, credential: &Credential) -> bool {
        !self.0.is_empty()
            && (self.0.contains_key(&credential.token)
                || credential.session.as_ref().is_some_and(|session| self.0.contains_key(session)))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn credential(token: &str, session: Option<&str>) -> Credential {
        Credential { token: token.to_owned(), session: session.map(str::to_owned) }
    }

    #[test]
    fn a_revocation_covers_a_session_or_a_token_until_both_have_ended() {
        let now = SystemTime::now();
        let later = now + Duration::from_secs(60);
        let of = |id: &str| Revocation { id: id.to_owned(), expires: later };
        let revoked = Revoked::default().with([of("s-1"), of("t-9")], now);
        assert!(revoked.covers(&credential("t-1", Some("s-1"))));
        assert!(revoked.covers(&credential("t-9", None)));
        assert!(!revoked.covers(&credential("t-1", Some("s-2"))));
        assert_eq!(revoked.with([], later).len(), 0);
    }
}
