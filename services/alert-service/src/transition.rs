//! A transition as it comes from the rule engine: read, checked, and made storable.

use prost::Message as _;
use proto::alerts::Transition as Wire;

use crate::alert::State;

/// The longest log line that is kept, in bytes; a page needs no more.
const MAX_LINE: usize = 8 * 1024;

/// The largest transition in bytes: its notification, labels merged, must still fit into one message of 1 MiB.
const MAX_BYTES: usize = 384 << 10;

/// Why a message can never become a transition.
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
    /// A state that is neither firing nor resolved.
    #[error("the state `{0}` is unknown")]
    UnknownState(String),
    /// A time or count that no clock or counter of ours can have said.
    #[error("the field `{0}` is out of range")]
    OutOfRange(&'static str),
}

/// A checked transition; the fields are the contract's own.
#[derive(Debug, Clone, PartialEq)]
pub struct Transition {
    /// What it says about the series.
    pub state: State,
    /// Everything else.
    pub wire: Wire,
}

impl Transition {
    /// Reads a message's payload.
    ///
    /// # Errors
    /// What is wrong with it; trying again cannot help.
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
            ("epoch", wire.epoch),
        ];
        if let Some((name, _)) = numbers.iter().find(|(_, value)| i64::try_from(*value).is_err()) {
            return Err(Malformed::OutOfRange(name));
        }
        let state = State::named(&wire.state).ok_or_else(|| Malformed::UnknownState(wire.state.clone()))?;
        make_storable(&mut wire);
        Ok(Self { state, wire })
    }
}

/// Postgres keeps no NUL in text, and one odd log line must not hold up the stream.
fn make_storable(wire: &mut Wire) {
    if wire.line.len() > MAX_LINE {
        wire.line.truncate(wire.line.floor_char_boundary(MAX_LINE));
    }
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
    ];
    texts.into_iter().for_each(clean);
    wire.receivers.iter_mut().for_each(clean);
    for map in [&mut wire.series_labels, &mut wire.rule_labels, &mut wire.annotations] {
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
            shard: "metrics.00".into(),
            state: "firing".into(),
            sample_unix_nano: 1,
            ..Wire::default()
        }
    }

    #[test]
    fn what_lacks_a_field_or_has_an_unknown_state_is_refused_by_name() {
        let missing = Wire { rule_id: String::new(), ..wire() };
        assert_eq!(Transition::decode(&missing.encode_to_vec()), Err(Malformed::Missing("rule_id")));
        let state = Wire { state: "glowing".into(), ..wire() };
        assert_eq!(Transition::decode(&state.encode_to_vec()), Err(Malformed::UnknownState("glowing".into())));
        let time = Wire { since_unix_nano: u64::MAX, ..wire() };
        assert_eq!(Transition::decode(&time.encode_to_vec()), Err(Malformed::OutOfRange("since_unix_nano")));
        assert!(matches!(Transition::decode(&[0xff]), Err(Malformed::Undecodable(_))));
    }

    #[test]
    fn a_line_is_cut_at_a_character_and_keeps_no_nul() {
        let odd = Wire {
            line: format!("\0{}", "ä".repeat(MAX_LINE)),
            series_labels: [("a\0".to_owned(), "b\0c".to_owned())].into(),
            ..wire()
        };
        let transition = Transition::decode(&odd.encode_to_vec()).unwrap();
        assert!(transition.wire.line.starts_with('\u{fffd}') && transition.wire.line.ends_with('ä'));
        assert_eq!(transition.wire.series_labels["a\u{fffd}"], "b\u{fffd}c");
    }
}
