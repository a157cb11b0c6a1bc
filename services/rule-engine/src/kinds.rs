//! The kinds of rules: one evaluator each, behind one enum. Nothing else knows what a kind looks at or remembers. Pure.
//!
//! A kind says what is wrong with a document ([`check`]), compiles it ([`Kind::compile`]), and changes a [`State`] with what
//! comes by on its lane and with the time that passes. Its state is saved as bytes under a number of its own: bytes of a
//! kind, or of a number, that this version does not know are carried as they are.
//!
//! A new kind is a file here and a line in each `match` below.

pub mod log;
pub mod metric;

use fault::Fault;
use proto::rules::rule_document::Subject;
use proto::rules::{LogCondition, RuleDocument};

use crate::document::Wrong;
use crate::signal::Signal;

/// What decides in a rule, ready to be evaluated.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// A value of a series against a threshold.
    Metric(metric::Metric),
    /// A text in a line of a resource.
    Log(log::Log),
}

/// What a rule remembers of one subject.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// Of a metric rule.
    Metric(metric::State),
    /// Of a log rule.
    Log(log::State),
}

/// A rule changed its mind. Times are Unix nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    /// Whether it fires now.
    pub fires: bool,
    /// The time of what decided: the sample's, the line's, or when a wait ended.
    pub time: u64,
    /// Since when what it looks for has been there.
    pub since: u64,
}

/// What came of showing something to a rule.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Seen {
    /// Nothing that others must know.
    Unchanged,
    /// It is older than what was seen before, and changed nothing.
    NotNewer,
    /// The rule changed its mind.
    Changed(Change),
}

/// Saved state that only a newer version can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreadable;

/// The kind that a document says it is of, and what is wrong with the fields that belong to kinds. Fills in defaults.
pub(crate) fn check(document: &mut RuleDocument, wrong: &mut Wrong) {
    match &document.subject {
        None => wrong.add("metric", "a rule has either `metric` or `log`; give one"),
        Some(Subject::Metric(_)) => metric::check(document, wrong),
        Some(Subject::Log(_)) => log::check(document, wrong),
    }
}

/// The name of a document's kind; none where only a newer version knows it.
#[must_use]
pub fn name_of(document: &RuleDocument) -> Option<&'static str> {
    match document.subject.as_ref()? {
        Subject::Metric(_) => Some(metric::NAME),
        Subject::Log(_) => Some(log::NAME),
    }
}

/// The lane that rules of a kind look at; none where only a newer version knows the kind.
#[must_use]
pub fn signal_of(kind: &str) -> Option<Signal> {
    match kind {
        metric::NAME => Some(Signal::Metrics),
        log::NAME => Some(Signal::Logs),
        _ => None,
    }
}

/// What says which subjects a document is about, without what decides about them.
#[must_use]
pub fn about(document: &RuleDocument) -> RuleDocument {
    let subject = match &document.subject {
        None => return crate::document::evaluated_part(document),
        Some(Subject::Metric(name)) => Subject::Metric(name.clone()),
        Some(Subject::Log(_)) => Subject::Log(LogCondition::default()),
    };
    let (r#match, disabled) = (document.r#match.clone(), document.disabled);
    RuleDocument { r#match, disabled, subject: Some(subject), ..RuleDocument::default() }
}

impl Kind {
    /// Makes a document ready, where this version knows its kind.
    ///
    /// # Errors
    /// The document does not pass this version's checks.
    pub fn compile(document: &RuleDocument) -> Option<fault::Result<Self>> {
        Some(match document.subject.as_ref()? {
            Subject::Metric(metric) => metric::Metric::compile(metric, document).map(Self::Metric),
            Subject::Log(log) => Ok(Self::Log(log::Log::compile(log, document))),
        })
    }

    /// What an alert shows as its condition.
    #[must_use]
    pub fn condition(&self) -> String {
        match self {
            Self::Metric(metric) => metric.condition.to_string(),
            Self::Log(log) => format!("contains {:?}", log.literal),
        }
    }

    /// Whether it is bound to subjects as soon as they are seen, not only when it has found something in them.
    #[must_use]
    pub fn binds_at_sight(&self) -> bool {
        matches!(self, Self::Metric(_))
    }

    /// What it remembers of a subject that it has not looked at yet.
    #[must_use]
    pub fn fresh(&self) -> State {
        match self {
            Self::Metric(_) => State::Metric(metric::State::default()),
            Self::Log(_) => State::Log(log::State::default()),
        }
    }

    /// Shows it a sample.
    pub fn on_sample(&self, state: &mut State, sample: metric::Sample) -> Seen {
        match (self, state) {
            (Self::Metric(metric), State::Metric(state)) => metric.on_sample(state, sample),
            _ => Seen::Unchanged,
        }
    }

    /// Shows it a line.
    pub fn on_line(&self, state: &mut State, line: log::Line<'_>) -> Seen {
        match (self, state) {
            (Self::Log(_), State::Log(state)) => log::on_line(state, line),
            _ => Seen::Unchanged,
        }
    }

    /// When it wants to be told that time has passed, by the lane's time; never where it waits for nothing.
    #[must_use]
    pub fn due(&self, state: &State) -> Option<u64> {
        match (self, state) {
            (Self::Log(log), State::Log(state)) => log.due(state),
            _ => None,
        }
    }

    /// The lane has come to `now`, which is not before it was [`due`](Self::due).
    pub fn on_tick(&self, state: &mut State, now: u64) -> Option<Change> {
        match (self, state) {
            (Self::Log(log), State::Log(state)) => log.on_tick(state, now),
            _ => None,
        }
    }

    /// Saved state, as it was written under `number`.
    ///
    /// # Errors
    /// A newer version wrote it.
    pub fn restore(&self, number: u32, bytes: &[u8]) -> Result<State, Unreadable> {
        match self {
            Self::Metric(_) => metric::State::from_bytes(number, bytes).map(State::Metric),
            Self::Log(_) => log::State::from_bytes(number, bytes).map(State::Log),
        }
    }
}

impl State {
    /// The name of the kind that it is of.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Metric(_) => metric::NAME,
            Self::Log(_) => log::NAME,
        }
    }

    /// The number of its form, and its bytes.
    #[must_use]
    pub fn to_bytes(&self) -> (u32, Vec<u8>) {
        match self {
            Self::Metric(state) => (metric::FORM, state.to_bytes()),
            Self::Log(state) => (log::FORM, state.to_bytes()),
        }
    }

    /// What an alert shows: a value (NaN where there is none) and a line.
    #[must_use]
    pub fn shows(&self) -> (f64, &str) {
        match self {
            Self::Metric(state) => (state.value, ""),
            Self::Log(state) => (f64::NAN, &state.line),
        }
    }

    /// When the subject was last heard of, where it ends because nothing more comes or the rule is gone; none where that is
    /// the lane's own time.
    #[must_use]
    pub fn last_time(&self) -> Option<u64> {
        match self {
            Self::Metric(state) => state.last_unix_nano(),
            Self::Log(_) => None,
        }
    }

    /// Bytes that it takes beyond its own size.
    #[must_use]
    pub fn extra_bytes(&self) -> usize {
        match self {
            Self::Metric(_) => 0,
            Self::Log(state) => state.line.len(),
        }
    }
}

fn field(path: &str, error: impl std::fmt::Display) -> Fault {
    Fault::field(path, error.to_string())
}
