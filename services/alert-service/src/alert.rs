//! Alerts and what a transition does to them. Pure: no clock, no database, no broker.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use crate::annotations;
use crate::transition::Transition;

/// Whether an alert is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// The condition holds.
    Firing,
    /// It no longer does.
    Resolved,
}

impl State {
    /// The state in messages and tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Firing => "firing",
            Self::Resolved => "resolved",
        }
    }

    /// The state of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Firing, Self::Resolved].into_iter().find(|state| state.as_str() == name)
    }
}

/// What a transition did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The first time that this rule fires for this series.
    Opened,
    /// It fires again after it was over.
    Reopened,
    /// It was firing already; what is known of it was renewed.
    Refreshed,
    /// It is over.
    Resolved,
    /// Something newer was heard before: nothing changed.
    Late,
    /// An end whose beginning never came: nobody was told.
    Unmatched,
}

impl Outcome {
    /// The outcome in tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Reopened => "reopened",
            Self::Refreshed => "refreshed",
            Self::Resolved => "resolved",
            Self::Late => "late",
            Self::Unmatched => "unmatched",
        }
    }
}

/// One rule's opinion on one series, now.
#[derive(Debug, Clone, PartialEq)]
pub struct Alert {
    /// See [`alert_id`].
    pub id: String,
    /// Whose it is.
    pub tenant: String,
    /// The rule that it came from, as it was when it last spoke.
    pub rule_id: String,
    /// Version of the rule.
    pub rule_version: u64,
    /// The rule's name.
    pub rule_name: String,
    /// info, warning, error, critical.
    pub level: String,
    /// The rule's condition.
    pub condition: String,
    /// Whether it is on.
    pub state: State,
    /// The series' labels, the rule's over them, `alertname` and `severity`.
    pub labels: BTreeMap<String, String>,
    /// The rule's annotations with labels and value put in.
    pub annotations: BTreeMap<String, String>,
    /// The value that decided; NaN where there is none.
    pub value: f64,
    /// The log line that decided, or empty.
    pub line: String,
    /// The resource that the series belongs to.
    pub resource_id: String,
    /// Who was told that it fires.
    pub receivers: Vec<String>,
    /// Sample time, Unix nanoseconds, of the last time it began.
    pub starts: u64,
    /// Sample time of its end; 0 while firing.
    pub ends: u64,
    /// Sample time of the newest transition.
    pub updated: u64,
    /// How often it has begun.
    pub occurrences: u64,
}

/// What is to be written because of a transition.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// What it did.
    pub outcome: Outcome,
    /// The alert as it is afterwards; `None` when it did not change.
    pub alert: Option<Alert>,
    /// Who is to be told.
    pub tell: Vec<String>,
}

/// What a transition means for the alert that is there.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Write this.
    Change(Box<Change>),
    /// Transitions of a series alternate, and the one before this has not come: a crash left it to be redelivered.
    AwaitPredecessor,
}

/// The same for the same rule and series, for ever.
#[must_use]
pub fn alert_id(tenant: &str, rule_id: &str, series: &str) -> String {
    hash(&[tenant, rule_id, series])
}

/// The same for the same alert and transition, so that a repeat is recognised.
#[must_use]
pub fn notification_id(alert_id: &str, transition_id: &str) -> String {
    hash(&[alert_id, transition_id])
}

/// 128 bits of SHA-256 over length-prefixed parts, as hex.
fn hash(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hex::encode(&hash.finalize()[..16])
}

/// Decides what `transition` does to `current`.
///
/// `may_wait` is whether a missing predecessor may still come; without it the transition is taken as it is.
#[must_use]
pub fn decide(current: Option<&Alert>, transition: &Transition, may_wait: bool) -> Verdict {
    if let Some(alert) = current
        && transition.wire.sample_unix_nano < alert.updated
    {
        return change(Outcome::Late, None, Vec::new());
    }
    let firing = current.filter(|alert| alert.state == State::Firing);
    match (transition.state, firing) {
        (State::Firing, None) => begin(current, transition),
        // The same rule says it twice only when its end in between is still under way; a changed rule starts over.
        (State::Firing, Some(alert)) if may_wait && alert.rule_version == transition.wire.rule_version => {
            Verdict::AwaitPredecessor
        }
        (State::Firing, Some(alert)) => refresh(alert, transition),
        (State::Resolved, Some(alert)) => end(alert, transition),
        (State::Resolved, None) if may_wait => Verdict::AwaitPredecessor,
        (State::Resolved, None) => end_unheard(current, transition),
    }
}

fn change(outcome: Outcome, alert: Option<Alert>, tell: Vec<String>) -> Verdict {
    Verdict::Change(Box::new(Change { outcome, alert, tell }))
}

fn begin(current: Option<&Alert>, transition: &Transition) -> Verdict {
    let occurrences = current.map_or(0, |alert| alert.occurrences);
    let alert = Alert { occurrences: occurrences + 1, ..described(transition) };
    let outcome = if occurrences == 0 { Outcome::Opened } else { Outcome::Reopened };
    let tell = alert.receivers.clone();
    change(outcome, Some(alert), tell)
}

/// Who knows already is not told again, only receivers that the rule has gained.
fn refresh(alert: &Alert, transition: &Transition) -> Verdict {
    let mut fresh = described(transition);
    let new: Vec<String> = fresh.receivers.drain(..).filter(|name| !alert.receivers.contains(name)).collect();
    let receivers = alert.receivers.iter().chain(&new).cloned().collect();
    let fresh = Alert { receivers, starts: alert.starts, occurrences: alert.occurrences, ..fresh };
    change(Outcome::Refreshed, Some(fresh), new)
}

/// Told to those who heard the beginning, even if the rule has been given other receivers since.
fn end(alert: &Alert, transition: &Transition) -> Verdict {
    let ended = Alert {
        state: State::Resolved,
        value: transition.wire.value,
        ends: transition.wire.sample_unix_nano,
        updated: transition.wire.sample_unix_nano,
        ..alert.clone()
    };
    change(Outcome::Resolved, Some(ended), alert.receivers.clone())
}

/// Remembers the time at least, so that a beginning that comes still later does not fire for ever.
fn end_unheard(current: Option<&Alert>, transition: &Transition) -> Verdict {
    let time = transition.wire.sample_unix_nano;
    let alert = match current {
        Some(alert) => Alert { updated: time, ..alert.clone() },
        None => Alert { state: State::Resolved, ends: time, ..described(transition) },
    };
    change(Outcome::Unmatched, Some(alert), Vec::new())
}

/// A firing alert as `transition` describes it, never counted yet.
fn described(transition: &Transition) -> Alert {
    let wire = &transition.wire;
    let mut labels: BTreeMap<String, String> = wire.series_labels.clone().into_iter().collect();
    labels.insert("severity".to_owned(), wire.level.clone());
    labels.extend(wire.rule_labels.clone());
    labels.insert("alertname".to_owned(), wire.rule_name.clone());
    let annotations = wire.annotations.iter();
    let annotations =
        annotations.map(|(name, text)| (name.clone(), annotations::render(text, &labels, wire.value))).collect();
    let mut receivers = wire.receivers.clone();
    receivers.sort_unstable();
    receivers.dedup();
    Alert {
        id: alert_id(&wire.tenant, &wire.rule_id, &wire.series),
        tenant: wire.tenant.clone(),
        rule_id: wire.rule_id.clone(),
        rule_version: wire.rule_version,
        rule_name: wire.rule_name.clone(),
        level: wire.level.clone(),
        condition: wire.condition.clone(),
        state: State::Firing,
        labels,
        annotations,
        value: wire.value,
        line: wire.line.clone(),
        resource_id: wire.resource_id.clone(),
        receivers,
        starts: wire.sample_unix_nano,
        ends: 0,
        updated: wire.sample_unix_nano,
        occurrences: 0,
    }
}

#[cfg(test)]
mod tests;
