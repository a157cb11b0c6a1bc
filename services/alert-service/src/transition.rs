//! A transition as it comes from the rule engine: read, checked, made storable, and bounded.
//!
//! By construction nothing that is made of one comes near the broker's limit of 1 MiB: the message has 384 KiB at most, its
//! annotations become 64 KiB at most ([`crate::annotations`]), and a notification shows the labels twice.

use std::collections::HashMap;

use prost::Message as _;
use proto::alerts::Transition as Wire;

/// The state of an alert that is on, and of a transition that begins it.
pub const FIRING: &str = "firing";
/// The state of one that is over.
pub const RESOLVED: &str = "resolved";

/// The longest log line that is kept, in bytes; a page needs no more.
const MAX_LINE: usize = 8 << 10;

/// The longest value of a describing label.
const MAX_DESCRIPTION: usize = 1 << 10;

/// The largest transition in bytes.
const MAX_BYTES: usize = 384 << 10;

/// Why a message is no transition that this release can take.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Malformed {
    /// It would make a notification that the broker does not take.
    #[error("{0} bytes are too many")]
    TooLarge(usize),
    /// The bytes are no `Transition`.
    #[error("not a transition: {0}")]
    Undecodable(String),
    /// A field without which it means nothing.
    #[error("the field `{0}` is empty")]
    Missing(&'static str),
    /// A state that a newer release may know.
    #[error("the state `{0}` is unknown")]
    UnknownState(String),
    /// A time or count that no clock or counter of ours can have said.
    #[error("the field `{0}` is out of range")]
    OutOfRange(&'static str),
}

impl Malformed {
    /// Whether a newer release may be able to take it.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::UnknownState(_))
    }
}

/// What a transition says about its series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Says {
    /// The condition holds.
    Firing,
    /// It no longer does.
    Resolved,
}

impl Says {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Firing, Self::Resolved];

    /// The word in messages and tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Firing => FIRING,
            Self::Resolved => RESOLVED,
        }
    }

    /// What has that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|says| says.as_str() == name)
    }
}

/// A checked transition; the fields are the contract's own.
#[derive(Debug, Clone, PartialEq)]
pub struct Transition {
    /// What it says about the series.
    pub says: Says,
    /// Everything else.
    pub wire: Wire,
}

impl Transition {
    /// Reads a message's payload.
    ///
    /// # Errors
    /// What is wrong with it; trying again helps only where a newer release may know more.
    pub fn decode(payload: &[u8]) -> Result<Self, Malformed> {
        if payload.len() > MAX_BYTES {
            return Err(Malformed::TooLarge(payload.len()));
        }
        let wire = Wire::decode(payload).map_err(|error| Malformed::Undecodable(error.to_string()))?;
        Self::check(wire)
    }

    fn check(mut wire: Wire) -> Result<Self, Malformed> {
        let required = [
            ("id", &wire.id),
            ("tenant", &wire.tenant),
            ("rule_id", &wire.rule_id),
            ("series", &wire.series),
            ("shard", &wire.shard),
        ];
        if let Some((name, _)) = required.iter().find(|(_, value)| value.is_empty()) {
            return Err(Malformed::Missing(name));
        }
        if wire.sample_unix_nano == 0 {
            return Err(Malformed::Missing("sample_unix_nano"));
        }
        let numbers = [
            ("sample_unix_nano", wire.sample_unix_nano),
            ("received_unix_nano", wire.received_unix_nano),
            ("evaluated_unix_nano", wire.evaluated_unix_nano),
            ("since_unix_nano", wire.since_unix_nano),
            ("rule_version", wire.rule_version),
            ("evaluated_version", wire.evaluated_version),
            ("epoch", wire.epoch),
            ("order", wire.order),
        ];
        if let Some((name, _)) = numbers.iter().find(|(_, value)| i64::try_from(*value).is_err()) {
            return Err(Malformed::OutOfRange(name));
        }
        let says = Says::named(&wire.state).ok_or_else(|| Malformed::UnknownState(wire.state.clone()))?;
        make_storable(&mut wire);
        Ok(Self { says, wire })
    }
}

/// Postgres keeps no NUL in text, and one odd log line must not hold up the stream.
fn make_storable(wire: &mut Wire) {
    cut(&mut wire.line, MAX_LINE);
    wire.descriptive_labels.values_mut().for_each(|value| cut(value, MAX_DESCRIPTION));
    let texts = [
        &mut wire.id,
        &mut wire.tenant,
        &mut wire.rule_id,
        &mut wire.series,
        &mut wire.line,
        &mut wire.rule_name,
        &mut wire.level,
        &mut wire.condition,
        &mut wire.shard,
        &mut wire.resource_id,
        &mut wire.kind,
        &mut wire.previous,
        &mut wire.reason,
    ];
    texts.into_iter().for_each(clean);
    wire.receivers.iter_mut().for_each(clean);
    let maps = [&mut wire.series_labels, &mut wire.descriptive_labels, &mut wire.rule_labels, &mut wire.annotations];
    maps.into_iter().for_each(clean_map);
}

fn cut(text: &mut String, most: usize) {
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most));
    }
}

fn clean_map(map: &mut HashMap<String, String>) {
    if map.iter().any(|(key, value)| key.contains('\0') || value.contains('\0')) {
        *map = std::mem::take(map)
            .into_iter()
            .map(|(mut key, mut value)| {
                clean(&mut key);
                clean(&mut value);
                (key, value)
            })
            .collect();
    }
}

fn clean(text: &mut String) {
    if text.contains('\0') {
        *text = text.replace('\0', "\u{fffd}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire() -> Wire {
        Wire {
            id: "t".into(),
            tenant: "default".into(),
            rule_id: "r".into(),
            series: "s".into(),
            shard: "00/metrics".into(),
            state: "firing".into(),
            sample_unix_nano: 1,
            ..Wire::default()
        }
    }

    #[test]
    fn what_lacks_a_field_is_refused_by_name() {
        let missing = Wire { rule_id: String::new(), ..wire() };
        assert_eq!(Transition::decode(&missing.encode_to_vec()), Err(Malformed::Missing("rule_id")));
        let time = Wire { since_unix_nano: u64::MAX, ..wire() };
        assert_eq!(Transition::decode(&time.encode_to_vec()), Err(Malformed::OutOfRange("since_unix_nano")));
        assert!(matches!(Transition::decode(&[0xff]), Err(Malformed::Undecodable(_))));
    }

    #[test]
    fn a_state_of_tomorrow_is_left_to_a_newer_release_and_every_kind_is_carried() {
        let state = Wire { state: "no_data".into(), ..wire() };
        let error = Transition::decode(&state.encode_to_vec()).unwrap_err();
        assert!(error.is_unknown() && error == Malformed::UnknownState("no_data".into()));
        for says in Says::ALL {
            let known = Wire { state: says.as_str().into(), kind: "forecast".into(), ..wire() };
            let known = Transition::decode(&known.encode_to_vec()).unwrap();
            assert_eq!((known.says, known.wire.kind.as_str()), (says, "forecast"));
        }
    }

    #[test]
    fn a_line_is_cut_at_a_character_and_keeps_no_nul() {
        let odd = Wire {
            line: format!("\0{}", "ä".repeat(MAX_LINE)),
            series_labels: [("a\0".to_owned(), "b\0c".to_owned())].into(),
            descriptive_labels: [("os".to_owned(), "ä".repeat(MAX_DESCRIPTION))].into(),
            ..wire()
        };
        let transition = Transition::decode(&odd.encode_to_vec()).unwrap();
        assert!(transition.wire.line.starts_with('\u{fffd}') && transition.wire.line.ends_with('ä'));
        assert_eq!(transition.wire.series_labels["a\u{fffd}"], "b\u{fffd}c");
        assert_eq!(transition.wire.descriptive_labels["os"].len(), MAX_DESCRIPTION);
    }
}
