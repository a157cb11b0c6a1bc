//! A comparison with a number, such as `> 90`. Pure.

use std::fmt;
use std::str::FromStr as _;

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

/// The longer sign first, since the shorter is its beginning.
const SIGNS: [(&str, Comparison); 6] = [
    (">=", Comparison::AtLeast),
    ("<=", Comparison::AtMost),
    ("==", Comparison::Equal),
    ("!=", Comparison::Unequal),
    (">", Comparison::Above),
    ("<", Comparison::Below),
];

impl Condition {
    /// Reads `> 90` and the like.
    ///
    /// # Errors
    /// The text is something else.
    pub fn parse(text: &str) -> Result<Self, InvalidCondition> {
        let text = text.trim();
        let (comparison, number) = SIGNS
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

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = SIGNS.iter().find(|(_, comparison)| *comparison == self.comparison).map_or("", |(sign, _)| sign);
        write!(f, "{sign} {}", self.threshold)
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
