//! A rule in the form that evaluates fast. Pure.

use std::str::FromStr as _;

use fault::Fault;
use proto::rules::RuleDocument;
use proto::rules::rule_document::Subject;
use selector::Selector;
use uuid::Uuid;

/// How a value is compared with a threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Above,
    AtLeast,
    Below,
    AtMost,
    Equal,
    Unequal,
}

/// A comparison with a number, such as `> 90`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Condition {
    comparison: Comparison,
    threshold: f64,
}

/// The text is no condition.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("write a comparison such as `> 90`: one of > >= < <= == != and a number")]
pub struct InvalidCondition;

impl Condition {
    /// Reads `> 90` and the like.
    ///
    /// # Errors
    /// The text is something else.
    pub fn parse(text: &str) -> Result<Self, InvalidCondition> {
        // The longer sign first, since the shorter is its beginning.
        let signs = [
            (">=", Comparison::AtLeast),
            ("<=", Comparison::AtMost),
            ("==", Comparison::Equal),
            ("!=", Comparison::Unequal),
            (">", Comparison::Above),
            ("<", Comparison::Below),
        ];
        let text = text.trim();
        let (comparison, number) = signs
            .iter()
            .find_map(|(sign, comparison)| Some((*comparison, text.strip_prefix(sign)?)))
            .ok_or(InvalidCondition)?;
        let threshold = f64::from_str(number.trim()).map_err(|_| InvalidCondition)?;
        if threshold.is_finite() { Ok(Self { comparison, threshold }) } else { Err(InvalidCondition) }
    }

    /// Whether it holds for `value`; for no NaN it does.
    #[must_use]
    #[expect(clippy::float_cmp, reason = "people who write == 1 mean exactly that value")]
    pub fn holds(self, value: f64) -> bool {
        match self.comparison {
            Comparison::Above => value > self.threshold,
            Comparison::AtLeast => value >= self.threshold,
            Comparison::Below => value < self.threshold,
            Comparison::AtMost => value <= self.threshold,
            Comparison::Equal => value == self.threshold,
            Comparison::Unequal => value != self.threshold && !value.is_nan(),
        }
    }
}

/// What a rule watches.
#[derive(Debug, Clone, PartialEq)]
pub enum Watch {
    /// Values of a metric.
    Metric {
        /// As series are called.
        name: String,
        /// What must hold.
        condition: Condition,
        /// For how long, in milliseconds of sample time.
        for_ms: i64,
    },
    /// Log lines.
    Log {
        /// What a body must contain.
        literal: String,
        /// How long after the last match it resolves, in nanoseconds of stream time.
        hold_ns: u64,
    },
}

/// One version of a rule.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Which rule.
    pub id: Uuid,
    /// Which version of it.
    pub version: u64,
    /// Whose it is.
    pub tenant: String,
    /// As people wrote it.
    pub document: RuleDocument,
    /// Which series or resources it is about.
    pub selector: Selector,
    /// What it watches.
    pub watch: Watch,
}

impl Rule {
    /// Makes a checked document ready to be evaluated.
    ///
    /// # Errors
    /// The document was not checked, or by an older and more tolerant version of this service.
    pub fn new(id: Uuid, version: u64, tenant: String, document: RuleDocument) -> fault::Result<Self> {
        let document = crate::document::check(document)?;
        let selector = Selector::parse(&document.r#match).map_err(|error| Fault::field("match", error.to_string()))?;
        let watch = match &document.subject {
            Some(Subject::Metric(metric)) => Watch::Metric {
                name: series::metric_name(metric),
                condition: Condition::parse(&document.condition)
                    .map_err(|error| Fault::field("condition", error.to_string()))?,
                for_ms: i64::try_from(document.for_millis).unwrap_or(i64::MAX),
            },
            Some(Subject::Log(log)) => {
                Watch::Log { literal: log.contains.clone(), hold_ns: document.hold_millis.saturating_mul(1_000_000) }
            }
            None => return Err(Fault::field("metric", "a rule watches something")),
        };
        Ok(Self { id, version, tenant, document, selector, watch })
    }

    /// Whether the rule is about a thing of which `label` says the labels.
    #[must_use]
    pub fn is_about<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.selector.matches(label)
    }

    /// Whether `other` is this very version.
    #[must_use]
    pub fn is_same_version(&self, other: &Self) -> bool {
        (self.id, self.version) == (other.id, other.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_compare_as_they_read() {
        let cases = [
            ("> 90", [false, false, true]),
            (">=90", [false, true, true]),
            ("< 90", [true, false, false]),
            ("<= 90.0", [true, true, false]),
            ("== 9e1", [false, true, false]),
            ("!= 90", [true, false, true]),
        ];
        for (text, expected) in cases {
            let condition = Condition::parse(text).unwrap();
            assert_eq!([89.0, 90.0, 91.0].map(|v| condition.holds(v)), expected, "{text}");
            assert!(!condition.holds(f64::NAN), "{text}");
        }
    }

    #[test]
    fn anything_else_is_no_condition() {
        for text in ["", "90", "=> 90", "> ", "> x", "= 90", "> NaN", "> inf", ">> 1"] {
            assert_eq!(Condition::parse(text), Err(InvalidCondition), "{text}");
        }
    }
}
