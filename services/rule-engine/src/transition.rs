//! What a rule decided about a subject, and the messages that say so. Pure.

use std::sync::Arc;

use proto::alerts::Transition;
use sha2::{Digest as _, Sha256};

use crate::naming::Naming;
use crate::rule::Rule;

/// An id of a transition, in bytes.
pub type Id = [u8; 16];

/// Which way a rule changed its mind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// What it looks for is there.
    Firing,
    /// It no longer is.
    Resolved,
}

impl State {
    /// The state in messages and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Firing => "firing",
            Self::Resolved => "resolved",
        }
    }
}

/// A rule changed its mind about one subject. Times are Unix nanoseconds.
#[derive(Debug, Clone)]
pub struct Decision {
    /// The rule as it was.
    pub rule: Arc<Rule>,
    /// What it says now.
    pub state: State,
    /// Hash of the tenant and the labels that identify the subject.
    pub subject: u64,
    /// Who that is; shared, for many decisions may wait to be said.
    pub naming: Naming,
    /// The value that decided; NaN for logs and where a series ended.
    pub value: f64,
    /// The line that decided; empty for metrics.
    pub line: String,
    /// What the rule went by and what makes the id.
    pub facts: Facts,
    /// Its number among the decisions of the lane.
    pub order: u64,
    /// The decision about the same rule and subject before this one, where it is known.
    pub previous: Option<Id>,
    /// Why it ended, where that is not what the rule looks for: `rule_changed`, `rule_deleted`,
    /// `no_match`, `silent`; empty else.
    pub reason: &'static str,
    /// It was said before. What may be new is how the rule shows.
    pub again: bool,
}

/// What a decision went by: the same whenever it is evaluated again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// The time of the sample or line, or at which a wait ended.
    pub sample: u64,
    /// Since when what the rule looks for has been there.
    pub since: u64,
    /// When a gateway took in what decided.
    pub received: u64,
    /// It came so late that nobody is to be told.
    pub late: bool,
}

impl Decision {
    /// The same for the same decision, whoever comes to it and however often. The time of receipt tells apart two lines of
    /// the same time that each began an alert; the beginning, two ends at one moment.
    #[must_use]
    pub fn id(&self) -> Id {
        let mut hash = Sha256::new();
        hash.update(self.rule.tenant.as_bytes());
        // No tenant holds it.
        hash.update([0]);
        hash.update(self.rule.id.as_bytes());
        hash.update(self.rule.evaluated_version.to_be_bytes());
        hash.update(self.subject.to_be_bytes());
        hash.update(self.state.as_str());
        hash.update(self.facts.sample.to_be_bytes());
        hash.update(self.facts.received.to_be_bytes());
        hash.update(self.facts.since.to_be_bytes());
        let mut id = Id::default();
        id.copy_from_slice(&hash.finalize()[..16]);
        id
    }

    /// The message, as the owner of `shard` under `epoch` says it.
    #[must_use]
    pub fn message(&self, shard: &str, epoch: u64, evaluated_unix_nano: u64) -> Transition {
        let document = &self.rule.document;
        let labels = self.naming.labels();
        let resource_id = labels.get("resource_id").to_owned();
        Transition {
            id: hex::encode(self.id()),
            tenant: self.rule.tenant.clone(),
            rule_id: self.rule.id.to_string(),
            rule_version: self.rule.version,
            series: format!("{:016x}", self.subject),
            state: self.state.as_str().to_owned(),
            value: self.value,
            line: self.line.clone(),
            sample_unix_nano: self.facts.sample,
            received_unix_nano: self.facts.received,
            evaluated_unix_nano,
            series_labels: labels.identifying.into_iter().collect(),
            rule_name: document.name.clone(),
            level: document.level.clone(),
            condition: self.rule.condition(),
            rule_labels: document.labels.clone(),
            annotations: document.annotations.clone(),
            receivers: document.receivers.clone(),
            shard: shard.to_owned(),
            epoch,
            resource_id,
            since_unix_nano: self.facts.since,
            evaluated_version: self.rule.evaluated_version,
            kind: self.rule.kind.clone(),
            order: self.order,
            previous: self.previous.map(hex::encode).unwrap_or_default(),
            descriptive_labels: labels.descriptive.into_iter().collect(),
            late: self.facts.late,
            reason: self.reason.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use proto::rules::rule_document::Subject;
    use proto::rules::{LogCondition, RuleDocument};

    use super::*;
    use crate::naming::Labels;

    /// What `docs/contracts/nats.md` says of a transition; the broker takes 1 MiB.
    const MOST: usize = 384 << 10;

    #[test]
    fn the_largest_transition_that_can_be_made_is_far_below_what_the_broker_takes() {
        let texts = |count: usize, bytes: usize| {
            (0..count).map(|n| (format!("{n:0>100}").replace('0', "a"), "\u{1}".repeat(bytes))).collect()
        };
        let document = RuleDocument {
            name: "\u{10ffff}".repeat(120),
            level: "critical".into(),
            r#match: "{}".into(),
            subject: Some(Subject::Log(LogCondition { contains: "\u{1}".repeat(512) })),
            annotations: texts(30, 4_096),
            receivers: (0..20).map(|n| format!("{n:0>63}").replace('0', "r")).collect(),
            ..RuleDocument::default()
        };
        let document = crate::document::check(document).expect("an allowed document");
        let rule = Rule::new(uuid::Uuid::nil(), 1, 1, "t".repeat(64), "log".to_owned(), document);
        let labels = |bytes: usize| (0..30).map(|n| (format!("{n:0>200}"), "x".repeat(bytes))).collect();
        let decision = Decision {
            rule: Arc::new(rule),
            state: State::Firing,
            subject: u64::MAX,
            // A series has thirty labels of 4 KiB in all, a resource as many of 1 KiB.
            naming: Naming::Labels(Arc::new(Labels { identifying: labels(4_096), descriptive: labels(1_024) })),
            value: f64::NAN,
            line: "x".repeat(4_096),
            facts: Facts { sample: u64::MAX, since: u64::MAX, received: u64::MAX, late: true },
            order: u64::MAX,
            previous: Some(Id::default()),
            reason: "rule_disabled",
            again: false,
        };
        let bytes = decision.message("65535/metrics", u64::MAX, u64::MAX).encoded_len();
        assert!((250 << 10..MOST).contains(&bytes), "{bytes}");
    }
}
