//! Metric rules: a value that satisfies a condition for long enough fires; the first that does not, or an end of the series,
//! resolves. All waiting is by the samples' own time.

use prost::Message;
use proto::rules::RuleDocument;
use series::{NameKey, WantedName};

use super::{Change, Seen, Unreadable, field};
use crate::condition::Condition;
use crate::document::{MAX_WAIT_MILLIS, Wrong};

/// The kind's name.
pub const NAME: &str = "metric";
/// The form of saved state.
pub(super) const FORM: u32 = 1;

const MAX_NAME: usize = 200;

/// What decides.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    /// As people wrote it.
    pub name: String,
    /// What must hold.
    pub condition: Condition,
    /// For how long, in milliseconds of sample time.
    pub for_ms: i64,
}

/// One value of a series.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Unix milliseconds, believed.
    pub time_ms: i64,
    /// The value.
    pub value: f64,
    /// Whether the series ends here.
    pub is_stale: bool,
}

/// What is remembered of one series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct State {
    /// Unix milliseconds of the newest sample.
    last_ms: i64,
    pub(super) value: f64,
    phase: Phase,
}

/// Times are Unix milliseconds of the samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Phase {
    /// The condition does not hold.
    #[default]
    Inactive,
    /// It holds, not for long enough yet.
    Pending { since_ms: i64 },
    /// It holds for long enough.
    Firing { since_ms: i64 },
}

impl Default for State {
    fn default() -> Self {
        Self { last_ms: i64::MIN, value: f64::NAN, phase: Phase::Inactive }
    }
}

pub(super) fn check(document: &RuleDocument, wrong: &mut Wrong) {
    if let Some(proto::rules::rule_document::Subject::Metric(name)) = &document.subject {
        // What instruments are called in the field: `http.server.duration`, `2xx`, `%`, `温度`; no expressions.
        let allowed = |c: char| c.is_alphanumeric() || "_:.-/%".contains(c);
        if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(allowed) {
            wrong.add("metric", "write a metric's name, such as system.cpu.usage_percent");
        }
    }
    if let Err(error) = Condition::parse(&document.condition) {
        wrong.add("condition", error.to_string());
    }
    if document.for_millis > MAX_WAIT_MILLIS {
        wrong.add("for", "may be 7 days at most");
    }
    if document.hold_millis != 0 {
        wrong.add("hold", "is for log rules; a metric rule resolves by itself");
    }
}

impl Metric {
    pub(super) fn compile(name: &str, document: &RuleDocument) -> fault::Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            condition: Condition::parse(&document.condition).map_err(|error| field("condition", error))?,
            for_ms: i64::try_from(document.for_millis).unwrap_or(i64::MAX),
        })
    }

    /// Where an index of names holds it.
    #[must_use]
    pub fn keys(&self) -> Vec<NameKey> {
        WantedName::new(&self.name).keys()
    }

    pub(super) fn on_sample(&self, state: &mut State, sample: Sample) -> Seen {
        if sample.time_ms <= state.last_ms {
            return Seen::NotNewer;
        }
        let holds = !sample.is_stale && self.condition.holds(sample.value);
        state.last_ms = sample.time_ms;
        state.value = sample.value;
        let (phase, since_ms) = state.phase.after(holds, sample.time_ms, self.for_ms);
        let fired = matches!(state.phase, Phase::Firing { .. });
        state.phase = phase;
        let fires = matches!(phase, Phase::Firing { .. });
        if fires == fired {
            return Seen::Unchanged;
        }
        Seen::Changed(Change { fires, time: nanos(sample.time_ms), since: nanos(since_ms) })
    }
}

impl Phase {
    /// The phase after a sample at `time_ms` for which the condition `holds` or not, and since when what it is about to say
    /// was so.
    fn after(self, holds: bool, time_ms: i64, for_ms: i64) -> (Self, i64) {
        let since_ms = match self {
            Self::Pending { since_ms } | Self::Firing { since_ms } => since_ms,
            Self::Inactive => time_ms,
        };
        let phase = match self {
            _ if !holds => Self::Inactive,
            Self::Firing { .. } => self,
            _ if time_ms >= since_ms.saturating_add(for_ms) => Self::Firing { since_ms },
            _ => Self::Pending { since_ms },
        };
        (phase, since_ms)
    }
}

/// As it is saved.
#[derive(Clone, PartialEq, Message)]
struct Saved {
    #[prost(sint64, tag = "1")]
    last_ms: i64,
    #[prost(double, tag = "2")]
    value: f64,
    /// 0: inactive, 1: pending, 2: firing.
    #[prost(uint32, tag = "3")]
    phase: u32,
    #[prost(sint64, tag = "4")]
    since_ms: i64,
}

impl State {
    pub(super) fn last_unix_nano(&self) -> Option<u64> {
        (self.last_ms != i64::MIN).then(|| nanos(self.last_ms))
    }

    pub(super) fn to_bytes(self) -> Vec<u8> {
        let (phase, since_ms) = match self.phase {
            Phase::Inactive => (0, 0),
            Phase::Pending { since_ms } => (1, since_ms),
            Phase::Firing { since_ms } => (2, since_ms),
        };
        Saved { last_ms: self.last_ms, value: self.value, phase, since_ms }.encode_to_vec()
    }

    pub(super) fn from_bytes(form: u32, bytes: &[u8]) -> Result<Self, Unreadable> {
        let saved = Saved::decode(bytes).ok().filter(|_| form == FORM).ok_or(Unreadable)?;
        let since_ms = saved.since_ms;
        let phase = match saved.phase {
            0 => Phase::Inactive,
            1 => Phase::Pending { since_ms },
            2 => Phase::Firing { since_ms },
            _ => return Err(Unreadable),
        };
        Ok(Self { last_ms: saved.last_ms, value: saved.value, phase })
    }
}

fn nanos(ms: i64) -> u64 {
    u64::try_from(ms).unwrap_or(0).saturating_mul(1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds one letter a second: `x` holds, `.` does not. Writes F where it fires, R where it resolves.
    fn run(samples: &str, for_ms: i64) -> String {
        let rule = Metric { name: "m".into(), condition: Condition::parse("> 0").unwrap(), for_ms };
        let mut state = State::default();
        let mut say = |(time_ms, sample): (i64, char)| {
            let value = if sample == 'x' { 1.0 } else { 0.0 };
            let seen = rule.on_sample(&mut state, Sample { time_ms, value, is_stale: false });
            state = State::from_bytes(FORM, &state.to_bytes()).unwrap();
            match seen {
                Seen::Changed(Change { fires: true, .. }) => 'F',
                Seen::Changed(_) => 'R',
                Seen::Unchanged => '-',
                Seen::NotNewer => '!',
            }
        };
        (0..).map(|second| second * 1_000).zip(samples.chars()).map(&mut say).collect()
    }

    #[test]
    fn it_fires_with_the_sample_at_which_the_time_is_over() {
        assert_eq!(run("xx.", 0), "F-R");
        assert_eq!(run("xxxxx.", 3_000), "---F-R");
        assert_eq!(run("xxxx", 2_500), "---F");
        assert_eq!(run("...", 0), "---");
    }

    #[test]
    fn a_sample_in_between_that_does_not_hold_starts_it_over() {
        assert_eq!(run("xx.xxx.x", 2_000), "-----FR-");
    }

    #[test]
    fn what_a_newer_version_saved_is_not_guessed_at() {
        assert_eq!(State::from_bytes(FORM + 1, &State::default().to_bytes()), Err(Unreadable));
        assert_eq!(State::from_bytes(FORM, &[0xff]), Err(Unreadable));
        let tomorrow = Saved { phase: 3, ..Saved::default() };
        assert_eq!(State::from_bytes(FORM, &tomorrow.encode_to_vec()), Err(Unreadable));
    }
}
