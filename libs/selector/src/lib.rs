//! Choosing things by their labels: `{kind="host",env=~"prod|stage"}`, as Prometheus writes it.
//!
//! A label that a thing does not have reads as the empty string, so `{env=""}` chooses things without `env` and
//! `{env!="prod"}` those too. Regular expressions match the whole value, and `.` matches a line break
//! (Prometheus compiles them as `^(?s:...)$`). Nothing here knows what the labels belong to.

mod parse;

use std::fmt;
use std::str::FromStr;

use regex::{Regex, RegexBuilder};

/// The longest selector that is read, in bytes.
pub const MAX_LENGTH: usize = 8 * 1024;

/// Upper bound of one compiled expression, in bytes: `(a{1000}){1000}` is short to write.
const MAX_REGEX_BYTES: usize = 1 << 20;

/// What is wrong with a selector, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at character {}: {message}", position + 1)]
pub struct Error {
    /// Characters before the place that is wrong.
    pub position: usize,
    /// What is wrong, in words for whoever wrote it.
    pub message: String,
}

/// How a label's value is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`
    Matches,
    /// `!~`
    NotMatches,
}

impl Op {
    /// The operator as it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Matches => "=~",
            Self::NotMatches => "!~",
        }
    }
}

/// One comparison of a selector.
#[derive(Debug, Clone)]
pub struct Matcher {
    /// The label's name: letters, digits and `_`, no digit first.
    pub label: String,
    /// How it is compared.
    pub op: Op,
    /// The value, or the expression as it was written, without anchors.
    pub value: String,
    regex: Option<Regex>,
}

impl Matcher {
    /// Builds a matcher, compiling the expression if there is one.
    ///
    /// # Errors
    /// The sentence that says why the expression cannot be used.
    pub fn new(label: impl Into<String>, op: Op, value: impl Into<String>) -> Result<Self, String> {
        let value = value.into();
        let regex = match op {
            Op::Equal | Op::NotEqual => None,
            Op::Matches | Op::NotMatches => Some(anchored(&value)?),
        };
        Ok(Self { label: label.into(), op, value, regex })
    }

    /// Whether a label with this value passes; a missing label has the value "".
    #[must_use]
    pub fn accepts(&self, value: &str) -> bool {
        let matches = || self.regex.as_ref().is_some_and(|regex| regex.is_match(value));
        match self.op {
            Op::Equal => value == self.value,
            Op::NotEqual => value != self.value,
            Op::Matches => matches(),
            Op::NotMatches => !matches(),
        }
    }
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        (&self.label, self.op, &self.value) == (&other.label, other.op, &other.value)
    }
}

impl Eq for Matcher {}

fn anchored(expression: &str) -> Result<Regex, String> {
    // Alone first: `a)(?:b` would be accepted between our own parentheses.
    let checked = |text: &str| RegexBuilder::new(text).size_limit(MAX_REGEX_BYTES).build();
    checked(expression)
        .and_then(|_| checked(&format!("^(?s:{expression})$")))
        .map_err(|error| format!("the regular expression cannot be used: {}", last_line(&error.to_string())))
}

/// The regex crate draws the expression over several lines and says what is wrong in the last one.
fn last_line(text: &str) -> &str {
    text.trim().lines().last().map_or("", |line| line.trim_start_matches("error: "))
}

/// A conjunction of matchers; without any it chooses everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector {
    matchers: Vec<Matcher>,
}

impl Selector {
    /// Reads a selector; the braces may be left out, and the empty string is `{}`.
    ///
    /// # Errors
    /// What is wrong and at which character.
    pub fn parse(text: &str) -> Result<Self, Error> {
        parse::selector(text).map(|matchers| Self { matchers })
    }

    /// Whether a thing whose labels `label` looks up is chosen.
    pub fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.matchers.iter().all(|matcher| matcher.accepts(label(&matcher.label).unwrap_or_default()))
    }

    /// The comparisons, in the order in which they were written.
    #[must_use]
    pub fn matchers(&self) -> &[Matcher] {
        &self.matchers
    }

    /// What both choose.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self { matchers: self.matchers.iter().chain(&other.matchers).cloned().collect() }
    }

    /// Whether everything is chosen.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.matchers.is_empty()
    }
}

impl FromStr for Selector {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text)
    }
}

impl fmt::Display for Selector {
    /// Writes the canonical form: braces, double quotes, no spaces. It reads back as the same selector.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (index, matcher) in self.matchers.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{}{}\"", matcher.label, matcher.op.as_str())?;
            for c in matcher.value.chars() {
                match c {
                    '"' => f.write_str("\\\"")?,
                    '\\' => f.write_str("\\\\")?,
                    '\n' => f.write_str("\\n")?,
                    '\r' => f.write_str("\\r")?,
                    '\t' => f.write_str("\\t")?,
                    c => write!(f, "{c}")?,
                }
            }
            f.write_str("\"")?;
        }
        f.write_str("}")
    }
}

#[cfg(test)]
mod tests;
