//! Which keys verify and which one signs: a function of when each was announced, so that all replicas decide the same.
//!
//! A key is announced before it signs, for longer than verifiers may take to hear of it; while it retires it verifies what it
//! signed; retired, it and all its tokens are good no more.

use authn::Signer;
use serde_json::json;

/// A key as Postgres has it; ages are by Postgres's clock.
#[derive(Clone)]
pub struct Key {
    pub signer: Signer,
    /// Seconds since the time from which it may sign; below 0 it lies ahead.
    pub active_for: f64,
    pub retired: bool,
}

/// Where a key is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Published, and does not sign yet.
    Announced,
    /// The one that signs.
    Active,
    /// Verifies what it signed.
    Retiring,
    /// Good for nothing.
    Retired,
}

impl State {
    /// The word in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Announced => "announced",
            Self::Active => "active",
            Self::Retiring => "retiring",
            Self::Retired => "retired",
        }
    }
}

/// The key that signs: the newest whose time has come. Were all still ahead, it is the one that comes first: somebody must.
#[must_use]
pub fn active(keys: &[Key]) -> Option<&Key> {
    let good = || keys.iter().filter(|key| !key.retired);
    let by_age = |a: &&Key, b: &&Key| a.active_for.total_cmp(&b.active_for);
    good().filter(|key| key.active_for >= 0.0).min_by(by_age).or_else(|| good().max_by(by_age))
}

/// The state of each key, in the order of `keys`.
#[must_use]
pub fn states(keys: &[Key]) -> Vec<State> {
    let active = active(keys).map(|key| key.signer.key_id());
    let state = |key: &Key| match key {
        key if key.retired => State::Retired,
        key if Some(key.signer.key_id()) == active => State::Active,
        key if key.active_for < 0.0 => State::Announced,
        _ => State::Retiring,
    };
    keys.iter().map(state).collect()
}

/// All keys that verify, as a JSON Web Key Set.
#[must_use]
pub fn jwks(keys: &[Key]) -> String {
    let keys: Vec<_> = keys.iter().filter(|key| !key.retired).map(|key| key.signer.jwk()).collect();
    json!({ "keys": keys }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(active_for: f64, retired: bool) -> Key {
        Key { signer: Signer::generate().unwrap(), active_for, retired }
    }

    #[test]
    fn a_key_signs_from_its_time_until_the_next_ones() {
        use State::{Active, Announced, Retired, Retiring};
        let keys = [key(-60.0, false), key(10.0, false), key(500.0, false), key(1.0, true)];
        assert_eq!(states(&keys), [Announced, Active, Retiring, Retired]);
        assert_eq!(states(&[key(-60.0, false), key(-10.0, false)]), [Announced, Active]);
        assert!(active(&[key(1.0, true)]).is_none());
    }

    #[test]
    fn every_key_that_is_not_retired_is_published() {
        let keys = [key(-60.0, false), key(10.0, false), key(1.0, true)];
        let published = jwks(&keys);
        let has = |key: &Key| published.contains(key.signer.key_id());
        assert!(has(&keys[0]) && has(&keys[1]) && !has(&keys[2]));
    }
}
