//! What a metric is called as a series.
//!
//! Host metrics of GoSight's and our own agents keep their name: scope `System.CPU` and name `usage_percent` become
//! `system_cpu_usage_percent`, and what counts is known from a table, since newer agents call everything a gauge.
//! Everybody else's follow OpenTelemetry's specification, "Prometheus and OpenMetrics Compatibility", sections
//! "Metric Metadata" (names and units) and "Sums" (`_total`).

/// Whether a series rises until it starts over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Type {
    /// A value of the moment.
    Gauge,
    /// A count since some start; use `rate`.
    Counter,
}

/// A metric's name as series carry it: what is not allowed in Prometheus's older character set becomes `_`.
///
/// This is how a name that a user wrote, such as `system.cpu.usage_percent`, is looked up.
#[must_use]
pub fn metric_name(dotted: &str) -> String {
    let mut name = String::with_capacity(dotted.len() + 1);
    push_sanitised(&mut name, dotted.trim(), true);
    name
}

/// A label's name: like a metric's, without colons, and never beginning with the reserved `__`.
pub(crate) fn label_name(key: &str) -> String {
    let mut name = String::with_capacity(key.len() + 1);
    push_sanitised(&mut name, key, false);
    name
}

fn push_sanitised(name: &mut String, text: &str, colons: bool) {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        name.push('_');
    }
    for c in text.chars() {
        if c.is_ascii_alphanumeric() || (colons && c == ':') {
            name.push(c);
        } else if !name.ends_with('_') {
            // The specification: several `_` in a row become one.
            name.push('_');
        }
    }
}

/// The full name of an agent's metric, when `scope` has the form of one: `System.CPU`, `Container.Docker`.
pub(crate) fn of_agent(scope: &str, name: &str) -> Option<String> {
    let (namespace, rest) = scope.split_once('.')?;
    let is_ours = ["system", "container"].iter().any(|known| namespace.eq_ignore_ascii_case(known));
    if !is_ours || rest.is_empty() {
        return None;
    }
    Some(metric_name(&format!("{scope}.{name}").to_ascii_lowercase()))
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
    let mut words: Vec<&str> =
        name.split(|c: char| !c.is_ascii_alphanumeric() && c != ':').filter(|word| !word.is_empty()).collect();
    let (main, per) = unit.split_once('/').unwrap_or((unit, ""));
    let main = metric_name(unit_name(main.trim()));
    if !main.is_empty() && !words.contains(&main.as_str()) {
        words.push(&main);
    }
    let per = metric_name(per_unit_name(per.trim()));
    if !per.is_empty() && !words.contains(&per.as_str()) {
        words.extend(["per", &per]);
    }
    if monotonic {
        words.retain(|word| *word != "total");
        words.push("total");
    } else if gauge && unit == "1" {
        words.retain(|word| *word != "ratio");
        words.push("ratio");
    }
    let joined = words.join("_");
    if joined.starts_with(|c: char| c.is_ascii_digit()) { format!("_{joined}") } else { joined }
}

/// UCUM's short units in words, as the OpenTelemetry Collector's translator knows them; `{...}` is an annotation.
fn unit_name(unit: &str) -> &str {
    match unit {
        _ if unit.contains(['{', '}']) => "",
        "1" => "",
        "d" => "days",
        "h" => "hours",
        "min" => "minutes",
        "s" => "seconds",
        "ms" => "milliseconds",
        "us" => "microseconds",
        "ns" => "nanoseconds",
        "By" => "bytes",
        "KiBy" => "kibibytes",
        "MiBy" => "mebibytes",
        "GiBy" => "gibibytes",
        "TiBy" => "tebibytes",
        "KBy" | "kBy" => "kilobytes",
        "MBy" => "megabytes",
        "GBy" => "gigabytes",
        "TBy" => "terabytes",
        "m" => "meters",
        "V" => "volts",
        "A" => "amperes",
        "J" => "joules",
        "W" => "watts",
        "g" => "grams",
        "Cel" => "celsius",
        "Hz" => "hertz",
        "%" => "percent",
        other => other,
    }
}

fn per_unit_name(unit: &str) -> &str {
    match unit {
        _ if unit.contains(['{', '}']) => "",
        "s" => "second",
        "m" | "min" => "minute",
        "h" => "hour",
        "d" => "day",
        "w" => "week",
        "mo" => "month",
        "y" => "year",
        other => other,
    }
}

#[cfg(test)]
mod tests;
