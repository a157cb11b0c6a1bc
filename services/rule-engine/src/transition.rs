//! What a rule decides about a series, and the message that says so. Pure.

use std::sync::Arc;

use proto::alerts::Transition;
use sha2::{Digest as _, Sha256};

use crate::rule::Rule;

/// Which way a rule changed its mind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// The condition holds.
    Firing,
    /// It no longer does.
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

/// A rule changed its mind about one series.
#[derive(Debug, Clone)]
pub struct Decision {
    /// The rule as it was.
    pub rule: Arc<Rule>,
    /// What it says now.
    pub state: State,
    /// Hash of the series' labels.
    pub series: u64,
    /// The labels, sorted by name.
    pub labels: Arc<[(String, String)]>,
    /// What reports the series; empty when unknown.
    pub resource_id: String,
    /// The value that decided; NaN for logs and where a series ended.
    pub value: f64,
    /// The line that decided; empty for metrics.
    pub line: String,
    /// The sample's own time.
    pub sample_unix_nano: u64,
    /// Since when the condition held.
    pub since_unix_nano: u64,
    /// When the gateway took the sample in.
    pub received_unix_nano: u64,
}

impl Decision {
    /// The same for the same decision, whoever comes to it and however often: 32 hex digits.
    #[must_use]
    pub fn id(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.rule.id.as_bytes());
        hash.update(self.rule.version.to_be_bytes());
        hash.update(self.series.to_be_bytes());
        hash.update(self.state.as_str());
        hash.update(self.sample_unix_nano.to_be_bytes());
        hex::encode(&hash.finalize()[..16])
    }

    /// The message, as the owner of `shard` under `epoch` says it.
    #[must_use]
    pub fn message(&self, shard: &str, epoch: u64, evaluated_unix_nano: u64) -> Transition {
        let document = &self.rule.document;
        Transition {
            id: self.id(),
            tenant: self.rule.tenant.clone(),
            rule_id: self.rule.id.to_string(),
            rule_version: self.rule.version,
            series: format!("{:016x}", self.series),
            state: self.state.as_str().to_owned(),
            value: self.value,
            line: self.line.clone(),
            sample_unix_nano: self.sample_unix_nano,
            received_unix_nano: self.received_unix_nano,
            evaluated_unix_nano,
            series_labels: self.labels.iter().cloned().collect(),
            rule_name: document.name.clone(),
            level: document.level.clone(),
            condition: self.condition(),
            rule_labels: document.labels.clone(),
            annotations: document.annotations.clone(),
            receivers: document.receivers.clone(),
            shard: shard.to_owned(),
            epoch,
            resource_id: self.resource_id.clone(),
            since_unix_nano: self.since_unix_nano,
            ..Transition::default()
        }
    }

    fn condition(&self) -> String {
        match &self.rule.watch {
            crate::rule::Watch::Metric { .. } => self.rule.document.condition.clone(),
            crate::rule::Watch::Log { literal, .. } => format!("contains {literal:?}"),
        }
    }
}
