//! A rule as people write it and as it is shown.

use std::collections::HashMap;

use fault::Fault;
use proto::rules::RuleDocument;
use proto::rules::rule_document::Subject;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::instant;

/// What fires when.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RuleDraft {
    /// Unique in its tenant
    name: String,
    level: Level,
    /// A selector over series labels (metric rules) or resource labels (log rules); all when left out
    #[serde(default)]
    r#match: String,
    /// Metric name, dotted or with underscores; either this or `log`
    metric: Option<String>,
    /// Either this or `metric`
    log: Option<LogCondition>,
    /// Metric rules: a comparison such as `> 90`
    condition: Option<String>,
    /// Metric rules: how long the condition must hold before it fires, such as `30s`
    r#for: Option<String>,
    /// Log rules: how long after the last matching line the alert resolves; `5m` when left out
    hold: Option<String>,
    /// What was received so long after its own time changes the state and is told to nobody; the engine's own bound when left
    /// out
    late_after: Option<String>,
    #[serde(default)]
    labels: HashMap<String, String>,
    #[serde(default)]
    annotations: HashMap<String, String>,
    /// Names of receivers that exist
    #[serde(default)]
    receivers: Vec<String>,
    #[serde(default)]
    disabled: bool,
}

#[derive(Deserialize, ToSchema, Clone, Copy)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Level {
    Info,
    Warning,
    Error,
    Critical,
}

impl Level {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }
}

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogCondition {
    /// Case-sensitive substring of the line
    contains: String,
}

impl RuleDraft {
    pub(crate) fn into_message(self) -> Result<RuleDocument, Fault> {
        let subject = match (self.metric, self.log) {
            (Some(metric), None) => Subject::Metric(metric),
            (None, Some(log)) => Subject::Log(proto::rules::LogCondition { contains: log.contains }),
            _ => {
                return Err(Fault::field("metric", "a rule watches either `metric` or `log`; give exactly one"));
            }
        };
        let millis = |name, text: Option<String>| text.map_or(Ok(0), |text| instant::millis(name, &text));
        Ok(RuleDocument {
            name: self.name,
            level: self.level.as_str().to_owned(),
            r#match: self.r#match,
            subject: Some(subject),
            condition: self.condition.unwrap_or_default(),
            for_millis: millis("for", self.r#for)?,
            hold_millis: millis("hold", self.hold)?,
            late_after_millis: millis("late_after", self.late_after)?,
            labels: self.labels,
            annotations: self.annotations,
            receivers: self.receivers,
            disabled: self.disabled,
        })
    }
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Rule {
    id: String,
    /// Rises by one with every change; also the `ETag`
    version: u64,
    /// The version in which what decides was last changed; a change of the rest leaves every alert as it is
    evaluated_version: u64,
    created_at: String,
    updated_at: String,
    /// metric, log, or one that a newer release knows
    kind: String,
    name: String,
    /// info, warning, error or critical
    level: String,
    r#match: String,
    /// Either this or `log`
    #[serde(skip_serializing_if = "Option::is_none")]
    metric: Option<String>,
    /// Either this or `metric`
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<LogCondition>,
    #[serde(skip_serializing_if = "Option::is_none")]
    condition: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    r#for: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hold: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    late_after: Option<String>,
    labels: HashMap<String, String>,
    annotations: HashMap<String, String>,
    receivers: Vec<String>,
    disabled: bool,
    /// What the rule is about now; not in lists
    #[serde(skip_serializing_if = "Option::is_none")]
    bound: Option<Bound>,
    /// Metric rules, in the answer to their creation: series that the metrics store has now and that the rule is about
    #[serde(skip_serializing_if = "Option::is_none")]
    matches: Option<u64>,
    /// Says so when the rule is about nothing, or tells nobody; not in lists
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<&'static str>,
}

/// As the owners of the shards last reported. A series is seen with its next sample.
#[derive(Serialize, ToSchema)]
pub(crate) struct Bound {
    /// Series (metric rules), or resources that have written lines lately (log rules)
    count: u64,
    /// How often there was no room for one more; one that goes on sending is refused again each minute
    over_capacity: u64,
    /// Whether every shard has reported, two minutes after it was changed what the rule is about; before that, `count` is not
    /// all. A resource counts with its next line
    complete: bool,
    /// The oldest of the reports; null when there is none yet
    reported_at: Option<String>,
}

const NO_SERIES: &str = "nothing matches this rule at present: compare `metric` and `match` with what is received";
const NOBODY_WRITES: &str =
    "nothing that this rule matches has written a line lately: compare `match` with what is received";
const TELLS_NOBODY: &str = "nobody is told what this rule decides: name at least one receiver, if anybody is to be";

impl From<proto::rules::Bound> for Bound {
    fn from(bound: proto::rules::Bound) -> Self {
        Self {
            count: bound.count,
            over_capacity: bound.over_capacity,
            complete: bound.complete,
            reported_at: instant::rfc3339_or_none(bound.reported_unix_nano),
        }
    }
}

impl Rule {
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn metric(&self) -> Option<&str> {
        self.metric.as_deref()
    }

    pub(crate) fn selector(&self) -> &str {
        &self.r#match
    }

    /// With what the store has, which says more than shards that have only just heard of the rule.
    pub(crate) fn matching(self, matches: Option<u64>) -> Self {
        let warning = if matches == Some(0) { Some(NO_SERIES) } else { self.warning };
        Self { matches, warning, ..self }
    }
}

impl From<proto::rules::Rule> for Rule {
    fn from(rule: proto::rules::Rule) -> Self {
        let document = rule.document.unwrap_or_default();
        let (metric, log) = match document.subject {
            Some(Subject::Metric(metric)) => (Some(metric), None),
            Some(Subject::Log(log)) => (None, Some(LogCondition { contains: log.contains })),
            None => (None, None),
        };
        let duration = |millis: u64| (millis != 0).then(|| instant::duration(millis));
        let bound = rule.bound.map(Bound::from);
        let warning = match &bound {
            Some(_) | None if document.disabled => None,
            Some(bound) if bound.complete && bound.count == 0 => {
                Some(if log.is_some() { NOBODY_WRITES } else { NO_SERIES })
            }
            Some(_) if document.receivers.is_empty() => Some(TELLS_NOBODY),
            Some(_) | None => None,
        };
        Self {
            id: rule.id,
            version: rule.version,
            evaluated_version: rule.evaluated_version,
            created_at: instant::rfc3339(rule.created_unix_nano),
            updated_at: instant::rfc3339(rule.updated_unix_nano),
            kind: rule.kind,
            name: document.name,
            level: document.level,
            r#match: document.r#match,
            metric,
            log,
            condition: (!document.condition.is_empty()).then_some(document.condition),
            r#for: duration(document.for_millis),
            hold: duration(document.hold_millis),
            late_after: duration(document.late_after_millis),
            labels: document.labels,
            annotations: document.annotations,
            receivers: document.receivers,
            disabled: document.disabled,
            bound,
            matches: None,
            warning,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_that_is_about_nothing_or_tells_nobody_says_so() {
        let warning = |count, complete, receivers: &[&str], disabled| {
            let receivers = receivers.iter().map(|name| (*name).to_owned()).collect();
            let document = Some(RuleDocument { receivers, disabled, ..RuleDocument::default() });
            let bound = Some(proto::rules::Bound { count, complete, ..Default::default() });
            Rule::from(proto::rules::Rule { document, bound, ..Default::default() }).warning
        };
        assert_eq!(warning(0, true, &["ops"], false), Some(NO_SERIES));
        assert_eq!(warning(0, false, &["ops"], false), None);
        assert_eq!(warning(1, true, &[], false), Some(TELLS_NOBODY));
        assert_eq!(warning(0, true, &[], true), None);
        assert_eq!(warning(1, true, &["ops"], false), None);
        let listed = proto::rules::Rule { document: Some(RuleDocument::default()), ..Default::default() };
        assert_eq!(Rule::from(listed).warning, None);
    }
}
