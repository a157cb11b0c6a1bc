//! Log rules: a text in a line fires for the resource that wrote it, and resolves when no further line with it has come for a
//! while.
//!
//! The while is by the lane's time, that is by the newest receipt of anything by any gateway: a line's own time decides nothing, so that one
//! dated in the future silences nothing, and one that lags behind is as much news as any other.

use prost::Message;
use proto::rules::{LogCondition, RuleDocument};

use super::{Change, Seen, Unreadable};
use crate::document::{MAX_WAIT_MILLIS, Wrong};

/// The kind's name.
pub const NAME: &str = "log";
/// The form of saved state.
pub(super) const FORM: u32 = 1;

/// All literals of a tenant become one automaton, whose size is a multiple of theirs.
const MAX_LITERAL: usize = 512;
const MIN_HOLD_MILLIS: u64 = 1_000;
const DEFAULT_HOLD_MILLIS: u64 = 5 * 60 * 1_000;
/// The longest part of a line that an alert shows, in bytes.
const MAX_LINE: usize = 4_096;

/// What decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// What a body must contain.
    pub literal: String,
    /// How long after the last line with it the alert ends, in nanoseconds of the lane's time.
    pub hold_ns: u64,
}

/// A line in which the text was found. Times are Unix nanoseconds.
#[derive(Debug, Clone, Copy)]
pub struct Line<'a> {
    /// Its own time, believed.
    pub time: u64,
    /// The lane's time when it was read.
    pub heard: u64,
    /// What it says.
    pub body: &'a str,
}

/// What is remembered of one resource.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    fires: bool,
    /// Time of the line with which it fired.
    since: u64,
    /// The lane's time at the last line.
    heard: u64,
    pub(super) line: Box<str>,
}

pub(super) fn check(document: &mut RuleDocument, wrong: &mut Wrong) {
    if let Some(proto::rules::rule_document::Subject::Log(log)) = &document.subject {
        let length = log.contains.len();
        if length == 0 || length > MAX_LITERAL || log.contains.contains('\0') {
            wrong.add("log.contains", format!("write the text to look for: 1 to {MAX_LITERAL} bytes"));
        }
    }
    if !document.condition.is_empty() {
        wrong.add("condition", "is for metric rules; a log rule fires on every match");
    }
    if document.for_millis != 0 {
        wrong.add("for", "is for metric rules; a log rule fires at once");
    }
    if document.hold_millis == 0 {
        document.hold_millis = DEFAULT_HOLD_MILLIS;
    }
    if !(MIN_HOLD_MILLIS..=MAX_WAIT_MILLIS).contains(&document.hold_millis) {
        wrong.add("hold", "must be between 1 s and 7 days");
    }
}

pub(super) fn on_line(state: &mut State, line: Line<'_>) -> Seen {
    state.heard = state.heard.max(line.heard);
    state.line = line.body[..line.body.floor_char_boundary(MAX_LINE)].into();
    if state.fires {
        return Seen::Unchanged;
    }
    state.fires = true;
    state.since = line.time;
    Seen::Changed(Change { fires: true, time: line.time, since: line.time })
}

impl Log {
    pub(super) fn compile(log: &LogCondition, document: &RuleDocument) -> Self {
        let hold_millis = if document.hold_millis == 0 { DEFAULT_HOLD_MILLIS } else { document.hold_millis };
        Self { literal: log.contains.clone(), hold_ns: hold_millis.saturating_mul(1_000_000) }
    }

    pub(super) fn due(&self, state: &State) -> Option<u64> {
        state.fires.then(|| state.heard.saturating_add(self.hold_ns))
    }

    pub(super) fn on_tick(&self, state: &mut State, now: u64) -> Option<Change> {
        let ended = self.due(state).filter(|due| *due <= now)?;
        state.fires = false;
        Some(Change { fires: false, time: ended, since: state.since })
    }
}

/// As it is saved.
#[derive(Clone, PartialEq, Message)]
struct Saved {
    #[prost(bool, tag = "1")]
    fires: bool,
    #[prost(fixed64, tag = "2")]
    since: u64,
    #[prost(fixed64, tag = "3")]
    heard: u64,
    #[prost(string, tag = "4")]
    line: String,
}

impl State {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let (fires, since, heard) = (self.fires, self.since, self.heard);
        Saved { fires, since, heard, line: self.line.to_string() }.encode_to_vec()
    }

    pub(super) fn from_bytes(form: u32, bytes: &[u8]) -> Result<Self, Unreadable> {
        let saved = Saved::decode(bytes).ok().filter(|_| form == FORM).ok_or(Unreadable)?;
        let Saved { fires, since, heard, line } = saved;
        Ok(Self { fires, since, heard, line: line.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_fires_once_and_ends_a_while_after_the_last_line() {
        let rule = Log { literal: "oom".into(), hold_ns: 10 };
        let mut state = State::default();
        let line = |time, heard| Line { time, heard, body: "oom" };
        let fired = Change { fires: true, time: 5, since: 5 };
        assert_eq!(on_line(&mut state, line(5, 100)), Seen::Changed(fired));
        assert_eq!(on_line(&mut state, line(9_999, 105)), Seen::Unchanged);
        state = State::from_bytes(FORM, &state.to_bytes()).unwrap();
        assert_eq!((rule.due(&state), rule.on_tick(&mut state, 114)), (Some(115), None));
        assert_eq!(rule.on_tick(&mut state, 120), Some(Change { fires: false, time: 115, since: 5 }));
        assert_eq!(rule.due(&state), None);
        let again = Change { fires: true, time: 6, since: 6 };
        assert_eq!(on_line(&mut state, line(6, 130)), Seen::Changed(again), "news, though its clock went back");
    }
}
