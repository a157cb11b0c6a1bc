//! Alerts and what a transition does to them. Pure: no clock, no database, no broker.
//!
//! A state is a text: one that a newer release writes is kept as it is. Whether an alert is on is told by its end alone.

mod decide;
mod outcome;

use std::collections::BTreeMap;

pub use decide::{Change, Predecessor, Tell, Verdict, decide, end_by_hand, find_again, lose, present};
pub use outcome::Outcome;

use crate::annotations;
use crate::transition::{FIRING, RESOLVED, Transition};

/// One rule's opinion on one series, now.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Alert {
    /// See [`alert_id`].
    pub id: String,
    /// Whose it is.
    pub tenant: String,
    /// The rule that it came from, as it was when it last spoke.
    pub rule_id: String,
    /// Hash of what identifies the series.
    pub series: String,
    /// Version of the rule's document.
    pub rule_version: u64,
    /// Version in which what decides was last changed.
    pub evaluated_version: u64,
    /// The rule's kind.
    pub kind: String,
    /// The rule's name.
    pub rule_name: String,
    /// info, warning, error, critical.
    pub level: String,
    /// The rule's condition.
    pub condition: String,
    /// [`FIRING`], [`RESOLVED`], or what a newer release knows.
    pub state: String,
    /// How it ended; empty while it is on.
    pub ended_reason: String,
    /// Who ended it by hand, or empty.
    pub ended_by: String,
    /// The series' identifying labels, the rule's over them, `alertname` and `severity`.
    pub labels: BTreeMap<String, String>,
    /// What describes the resource; no part of the alert's identity.
    pub descriptive: BTreeMap<String, String>,
    /// The rule's annotations with labels and value put in.
    pub annotations: BTreeMap<String, String>,
    /// The value that decided; NaN where there is none.
    pub value: f64,
    /// The log line that decided, or empty.
    pub line: String,
    /// The resource that the series belongs to.
    pub resource_id: String,
    /// Sample time, Unix nanoseconds, of the last time it began.
    pub starts: u64,
    /// When it ended; 0 while it is on.
    pub ends: u64,
    /// Time of what changed it last.
    pub updated: u64,
    /// How often it has begun.
    pub occurrences: u64,
    /// How often it has changed.
    pub revision: u64,
    /// It began so late that nobody was told.
    pub late: bool,
    /// Where it stands among the decisions of its shard.
    pub place: Place,
}

/// Where a transition stands among the decisions of its shard.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    /// The transition's id.
    pub transition_id: String,
    /// The shard and lane.
    pub shard: String,
    /// The owner's epoch.
    pub epoch: u64,
    /// Grows with each decision of the shard.
    pub order: u64,
    /// When it was decided, Unix nanoseconds.
    pub evaluated: u64,
}

impl Alert {
    /// Whether it is on, whatever its state is called.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.occurrences > 0 && self.ends == 0
    }

    /// A label by its name; what identifies comes before what describes.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.get(name).or_else(|| self.descriptive.get(name)).map(String::as_str)
    }

    /// A firing alert as `transition` describes it, never counted yet.
    #[must_use]
    pub fn described(transition: &Transition) -> Self {
        let wire = &transition.wire;
        let mut labels: BTreeMap<String, String> = wire.series_labels.clone().into_iter().collect();
        labels.insert("severity".to_owned(), wire.level.clone());
        labels.extend(wire.rule_labels.clone());
        labels.insert("alertname".to_owned(), wire.rule_name.clone());
        let descriptive: BTreeMap<String, String> = wire.descriptive_labels.clone().into_iter().collect();
        let find = |name: &str| labels.get(name).or_else(|| descriptive.get(name)).map(String::as_str);
        let annotations = annotations::render_all(&wire.annotations, find, wire.value);
        Self {
            id: alert_id(&wire.tenant, &wire.rule_id, &wire.series),
            tenant: wire.tenant.clone(),
            rule_id: wire.rule_id.clone(),
            series: wire.series.clone(),
            rule_version: wire.rule_version,
            evaluated_version: wire.evaluated_version,
            kind: wire.kind.clone(),
            rule_name: wire.rule_name.clone(),
            level: wire.level.clone(),
            condition: wire.condition.clone(),
            state: FIRING.to_owned(),
            labels,
            descriptive,
            annotations,
            value: wire.value,
            line: wire.line.clone(),
            resource_id: wire.resource_id.clone(),
            starts: wire.sample_unix_nano,
            updated: wire.sample_unix_nano,
            late: wire.late,
            place: Place::of(transition),
            ..Self::default()
        }
    }

    /// The same alert, over since `time` for this reason.
    #[must_use]
    pub fn ended(&self, reason: &str, by: &str, time: u64) -> Self {
        Self {
            state: RESOLVED.to_owned(),
            ended_reason: reason.to_owned(),
            ended_by: by.to_owned(),
            // The clocks of agents differ from ours: an alert does not end before it began.
            ends: time.max(self.starts).max(1),
            updated: time,
            ..self.clone()
        }
    }
}

impl Place {
    /// Where `transition` stands.
    #[must_use]
    pub fn of(transition: &Transition) -> Self {
        let wire = &transition.wire;
        Self {
            transition_id: wire.id.clone(),
            shard: wire.shard.clone(),
            epoch: wire.epoch,
            order: wire.order,
            evaluated: wire.evaluated_unix_nano,
        }
    }

    /// Whether `self` was decided before `other`. Sample times say nothing about that: a line may be dated next year.
    #[must_use]
    pub fn is_before(&self, other: &Self) -> bool {
        if self.shard == other.shard { self.order < other.order } else { self.evaluated < other.evaluated }
    }
}

/// The same for the same rule and series, for ever.
#[must_use]
pub fn alert_id(tenant: &str, rule_id: &str, series: &str) -> String {
    model::digest(&[tenant, rule_id, series])
}

#[cfg(test)]
mod tests;
