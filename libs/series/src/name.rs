//! What a metric is called as a series.
//!
//! Host metrics of GoSight's and our own agents keep their name: scope `System.CPU` and name `usage_percent` become
//! `system_cpu_usage_percent`, and what counts is known from a table, since newer agents call everything a gauge.
//! Everybody else's follow OpenTelemetry's specification, "Prometheus and OpenMetrics Compatibility", sections
//! "Metric Metadata" (names and units) and "Sums" (`_total`). What Prometheus's older character set does not have
//! separates words; letters of other scripts stay apart by their code points (`größe` is `gr_uf6_udf_e`).

use std::borrow::Cow;

use model::escaped;

use crate::unit;

/// Whether a series rises until it starts over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Type {
    /// A value of the moment.
    Gauge,
    /// A count since some start; use `rate`.
    Counter,
}

/// Whether a series can be called exactly so.
pub(crate) fn is_stored_form(name: &str) -> bool {
    let belongs = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit()) && name.chars().all(belongs)
}

/// A name in words: `a.b_c` is `a`, `b`, `c`.
fn words(name: &str) -> Vec<Cow<'_, str>> {
    let belongs = |c: char| c.is_ascii_alphanumeric() || c == ':';
    let mut words: Vec<Cow<'_, str>> = Vec::with_capacity(8);
    for piece in name.split(|c: char| c.is_ascii() && !belongs(c)) {
        let mut rest = piece;
        while let Some(at) = rest.find(|c: char| !c.is_ascii()) {
            let (before, behind) = rest.split_at(at);
            let mut chars = behind.chars();
            let foreign = chars.next().map(|c| escaped(c).to_string());
            words.extend([before].into_iter().filter(|word| !word.is_empty()).map(Cow::Borrowed));
            words.extend(foreign.map(Cow::Owned));
            rest = chars.as_str();
        }
        words.extend([rest].into_iter().filter(|word| !word.is_empty()).map(Cow::Borrowed));
    }
    if words.is_empty() {
        // Nothing but punctuation is a name as well.
        words.extend(name.chars().map(|c| Cow::Owned(escaped(c).to_string())));
    }
    words
}

fn joined(words: &[Cow<'_, str>]) -> String {
    let mut name = words.join("_");
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        name.insert(0, '_');
    }
    name
}

/// A metric's name without what its unit and type add.
pub(crate) fn plain(name: &str) -> String {
    joined(&words(name))
}

/// Whether names that begin with this word are those of agents, whose scopes are `System.CPU`, `Container.Docker`.
pub(crate) fn is_agents_word(word: &str) -> bool {
    ["system", "container"].iter().any(|known| word.eq_ignore_ascii_case(known))
}

/// The full name of an agent's metric, when `scope` has the form of one.
pub(crate) fn of_agent(scope: &str, name: &str) -> Option<String> {
    let (namespace, rest) = scope.split_once('.')?;
    if !is_agents_word(namespace) || rest.is_empty() {
        return None;
    }
    Some(plain(&format!("{scope}.{name}").to_ascii_lowercase()))
}

/// Whether older agents say `counter` for it, so that newer ones, which say `gauge`, end as the same series.
pub(crate) fn agent_counts(full_name: &str) -> bool {
    let starts = |prefixes: &[&str], name: &str| prefixes.iter().any(|prefix| name.starts_with(prefix));
    if let Some(name) = full_name.strip_prefix("system_cpu_") {
        starts(&["time_"], name)
    } else if let Some(name) = full_name.strip_prefix("system_network_") {
        starts(&["bytes_", "packets_", "err_"], name)
    } else {
        full_name.starts_with("system_diskio_")
    }
}

/// The name that OpenTelemetry's translation gives: words of the name, then the unit, then `total` or `ratio`.
pub(crate) fn translated(name: &str, unit: &str, monotonic: bool, gauge: bool) -> String {
    let mut words = words(name);
    let (main, per) = unit.split_once('/').unwrap_or((unit, ""));
    let add = |words: &mut Vec<Cow<'_, str>>, before: Option<&'static str>, unit: &str| {
        let unit = if unit.is_empty() { String::new() } else { plain(unit) };
        if !unit.is_empty() && !words.iter().any(|word| *word == unit) {
            words.extend(before.map(Cow::Borrowed));
            words.push(Cow::Owned(unit));
        }
    };
    add(&mut words, None, unit::name(main.trim()));
    add(&mut words, Some("per"), unit::per_name(per.trim()));
    if monotonic {
        words.retain(|word| word != "total");
        words.push(Cow::Borrowed("total"));
    } else if gauge && unit == "1" {
        words.retain(|word| word != "ratio");
        words.push(Cow::Borrowed("ratio"));
    }
    joined(&words)
}

#[cfg(test)]
mod tests;
