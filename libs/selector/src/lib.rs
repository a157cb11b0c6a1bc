//! Choosing things by their labels: `{kind="host",env=~"prod|stage"}`, as Prometheus writes it.
//!
//! A label that a thing does not have reads as the empty string, so `{env=""}` chooses things without `env` and
//! `{env!="prod"}` those too. Regular expressions match the whole value, and `.` matches a line break
//! (Prometheus compiles them as `^(?s:...)$`). A label may be written as the attribute that it comes from, `service.name`
//! or, with other characters in it, `"service.name"`. Nothing here knows what the labels belong to.
//!
//! What a selector may cost is bounded ([`limits`]): a stranger's one as well as a stored one that every replica reads at
//! every start.

mod expression;
pub mod limits;
mod parse;
mod sift;

use std::fmt;
use std::str::FromStr;

use tokio::sync::Semaphore;

pub use sift::{TooSlow, sift};

use expression::Expression;
use limits::Budget;

/// Selectors with expressions that are read at the same time; each may take some ten milliseconds.
static READING: Semaphore = Semaphore::const_new(4);

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
    /// The label's name as it is stored, in whatever form it was written.
    pub label: String,
    /// How it is compared.
    pub op: Op,
    /// The value, or the expression as it was written, without anchors.
    pub value: String,
    expression: Option<Expression>,
}

impl Matcher {
    /// Builds a matcher; the expression, if there is one, lives on what is left of `budget`.
    fn new(label: String, op: Op, value: String, budget: &mut Budget) -> Result<Self, String> {
        let expression = match op {
            Op::Equal | Op::NotEqual => None,
            Op::Matches | Op::NotMatches => Some(Expression::compile(&value, budget)?),
        };
        Ok(Self { label, op, value, expression })
    }

    /// Whether a label with this value passes; a missing label has the value "".
    #[must_use]
    pub fn accepts(&self, value: &str) -> bool {
        let matches = || self.expression.as_ref().is_some_and(|expression| expression.matches(value));
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

    /// The same for a selector that comes with a request: expressions are compiled off the async threads.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub async fn read(text: &str) -> Result<Self, Error> {
        // Without an operator that ends in it there is nothing to compile.
        if text.len() > limits::MAX_LENGTH || !text.contains('~') {
            return Self::parse(text);
        }
        // The semaphore is never closed; nothing depends on the permit but how many read at a time.
        let _permit = READING.acquire().await.ok();
        let owned = text.to_owned();
        let read = tokio::task::spawn_blocking(move || Self::parse(&owned)).await;
        read.unwrap_or_else(|_| Err(Error { position: 0, message: "it could not be read".to_owned() }))
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

    /// What matching one thing may cost: the bytes of all automata, each of which a character may walk through. 0 where
    /// values are only compared.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.matchers.iter().filter_map(|matcher| matcher.expression.as_ref()).map(Expression::size).sum()
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
