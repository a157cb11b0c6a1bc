//! Which stored names people mean by a name that they write.
//!
//! A name in the stored form (`http_requests_total`) means exactly itself, so that no valid query changes. Anything else is
//! the name that the instrument has (`http.requests`): its stored name may end with a unit and with `_total` or `_ratio`,
//! and nobody who writes it need know. What the names of a histogram add (`_bucket`, `_sum`, `_count`) is written, with the
//! dot or without: `http.server.request.duration.bucket`. Only the units of `unit` are looked through: an instrument with
//! another one is found under its stored name.
//!
//! Whoever sees series passing by looks up [`name_keys`] of a stored name among the [`WantedName::keys`]; whoever can only
//! ask a store asks for [`WantedName::regex`]. Both say the same, which a test over one table holds true.

use std::fmt::Write as _;

use crate::name::{is_agents_word, is_stored_form, plain};
use crate::unit;

/// What the names of a histogram or summary end with.
const TAILS: [&str; 3] = ["bucket", "sum", "count"];
const ENDS: [&str; 2] = ["total", "ratio"];

/// A metric's name as somebody wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WantedName(Kind);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Kind {
    Stored(String),
    /// What the stored name may begin with: one, or two where the case of the letters is open.
    Instrument(Vec<String>),
}

/// What a wanted name and the stored names that it means have in common, for an index.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NameKey {
    /// Wanted as it is stored.
    Stored(String),
    /// Wanted by the instrument's name.
    Instrument(String),
}

impl WantedName {
    /// Reads a name; every text is one.
    #[must_use]
    pub fn new(written: &str) -> Self {
        let written = written.trim();
        if is_stored_form(written) {
            return Self(Kind::Stored(written.to_owned()));
        }
        let mut names = vec![plain(written)];
        // Agents write `System.CPU.usage_percent`, which is stored in lower case; others' capitals are kept.
        let first = names[0].split('_').next().unwrap_or_default();
        let lower = names[0].to_ascii_lowercase();
        if is_agents_word(first) && lower != names[0] {
            names.push(lower);
        }
        Self(Kind::Instrument(names))
    }

    /// The stored name, where exactly one is meant.
    #[must_use]
    pub fn exact(&self) -> Option<&str> {
        match &self.0 {
            Kind::Stored(name) => Some(name),
            Kind::Instrument(_) => None,
        }
    }

    /// Where an index holds it: a stored name is meant when one of its [`name_keys`] is among these.
    #[must_use]
    pub fn keys(&self) -> Vec<NameKey> {
        match &self.0 {
            Kind::Stored(name) => vec![NameKey::Stored(name.clone())],
            Kind::Instrument(names) => names.iter().cloned().map(NameKey::Instrument).collect(),
        }
    }

    /// Whether the series called `stored` is meant. For one name; who has many keeps an index of their [`keys`](Self::keys).
    #[must_use]
    pub fn matches(&self, stored: &str) -> bool {
        match &self.0 {
            Kind::Stored(name) => name == stored,
            Kind::Instrument(names) => instruments(stored).iter().any(|name| names.contains(name)),
        }
    }

    /// A regular expression, as PromQL's `__name__=~` takes it (anchored at both ends), for exactly the stored names that
    /// are meant.
    #[must_use]
    pub fn regex(&self) -> String {
        let names = match &self.0 {
            Kind::Stored(name) => return name.clone(),
            Kind::Instrument(names) => names,
        };
        let unit = format!("(?:_(?:{}))?", alternatives(unit::words()));
        let per = format!("(?:_per_(?:{}))?", alternatives(unit::per_words()));
        let end = format!("(?:_(?:{}))?", alternatives(ENDS.into_iter()));
        let mut regex = String::new();
        for name in names {
            let before = if regex.is_empty() { "" } else { "|" };
            // Writing to a string cannot fail.
            let _ = write!(regex, "{before}{name}{unit}{per}{end}");
            if let Some((body, tail)) = split_tail(name) {
                let _ = write!(regex, "|{body}{unit}{per}_{tail}");
            }
        }
        regex
    }
}

/// Where to look for those who want a stored name.
#[must_use]
pub fn name_keys(stored: &str) -> Vec<NameKey> {
    let mut keys = vec![NameKey::Stored(stored.to_owned())];
    keys.extend(instruments(stored).into_iter().map(NameKey::Instrument));
    keys
}

/// What an instrument may be called, in words, whose series is called `stored`.
fn instruments(stored: &str) -> Vec<String> {
    let mut names = without(vec![stored], ENDS.into_iter(), "_");
    names = without(without(names, unit::per_words(), "_per_"), unit::words(), "_");
    let mut names: Vec<String> = names.into_iter().map(str::to_owned).collect();
    if let Some((body, tail)) = split_tail(stored) {
        let bodies = without(without(vec![body], unit::per_words(), "_per_"), unit::words(), "_");
        names.extend(bodies.into_iter().map(|body| format!("{body}_{tail}")));
    }
    names.sort_unstable();
    names.dedup();
    names
}

/// The names, and those that are left of them without one of `endings`.
fn without<'a>(
    mut names: Vec<&'a str>,
    endings: impl Iterator<Item = &'static str> + Clone,
    before: &str,
) -> Vec<&'a str> {
    let shorter = |name: &&'a str| {
        let name = *name;
        let shorter = |ending| name.strip_suffix(ending)?.strip_suffix(before).filter(|rest| !rest.is_empty());
        endings.clone().find_map(shorter)
    };
    let more: Vec<&str> = names.iter().filter_map(shorter).collect();
    names.extend(more);
    names
}

fn split_tail(name: &str) -> Option<(&str, &'static str)> {
    TAILS.into_iter().find_map(|tail| {
        let body = name.strip_suffix(tail)?.strip_suffix('_')?;
        (!body.is_empty()).then_some((body, tail))
    })
}

fn alternatives(words: impl Iterator<Item = &'static str>) -> String {
    let mut words: Vec<&str> = words.collect();
    words.sort_unstable();
    words.dedup();
    words.join("|")
}

#[cfg(test)]
mod tests;
