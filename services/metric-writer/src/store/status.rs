//! What VictoriaMetrics says about itself on `/metrics`: since when it runs, how it was started, what it dropped.

use std::collections::BTreeMap;
use std::time::Duration;

use model::Times;

/// Counters of what a store takes and drops, with our word for each.
pub(crate) const DROPPED: [(&str, &str); 9] = [
    ("vm_rows_ignored_total{reason=\"big_timestamp\"}", "time_ahead"),
    ("vm_rows_ignored_total{reason=\"small_timestamp\"}", "time_too_old"),
    ("vm_rows_ignored_total{reason=\"nan_value\"}", "not_a_number"),
    ("vm_metrics_with_dropped_labels_total", "too_many_labels"),
    ("vm_too_long_label_names_total", "name_too_long"),
    ("vm_too_long_label_values_total", "value_too_long"),
    ("vm_hourly_series_limit_rows_dropped_total", "hourly_series_limit"),
    ("vm_daily_series_limit_rows_dropped_total", "daily_series_limit"),
    ("vm_concurrent_addrows_dropped_rows_total", "overload"),
];

/// VictoriaMetrics takes samples up to two days ahead, whatever it is told.
const FURTHEST_AHEAD: Duration = Duration::from_secs(2 * 24 * 60 * 60);
const DAY: u64 = 24 * 60 * 60;

#[derive(Debug, Default, PartialEq)]
pub(crate) struct Status {
    /// When its process started, in Unix seconds; none when it does not say.
    pub(crate) started: Option<f64>,
    /// What it dropped since then, in the order of [`DROPPED`].
    pub(crate) dropped: [u64; DROPPED.len()],
    flags: BTreeMap<String, String>,
}

impl Status {
    pub(crate) fn read(metrics: &str) -> Self {
        let mut status = Self::default();
        for line in metrics.lines() {
            let Some((name, value)) = line.rsplit_once(' ') else { continue };
            if name == "process_start_time_seconds" {
                status.started = value.parse().ok();
            } else if let Some((name, value)) = name.strip_prefix("flag{name=\"").and_then(flag) {
                status.flags.insert(name.to_owned(), value.to_owned());
            } else if let Some(place) = DROPPED.iter().position(|(counter, _)| *counter == name) {
                status.dropped[place] = value.parse().unwrap_or_default();
            }
        }
        status
    }

    /// What of its settings does not go with ours, in sentences for its operator.
    pub(crate) fn complaints(&self, times: Times) -> Vec<String> {
        let mut complaints = Vec::new();
        let flag = |name: &str| self.flags.get(name).map(String::as_str);
        if let Some(text) = flag("retentionPeriod")
            && let Some(keeps) = retention(text)
            && keeps < times.age
        {
            complaints.push(format!(
                "the metrics store keeps samples for {text} (-retentionPeriod) and drops older ones without a word, while \
                 SIGHTLINE_METRICS_RETENTION takes them up to an age of {} days: set it to what the store keeps",
                times.age.as_secs() / DAY
            ));
        }
        if times.ahead > FURTHEST_AHEAD {
            complaints.push(
                "SIGHTLINE_CLOCK_SKEW takes samples that are more than two days ahead, which the metrics store drops \
                 without a word"
                    .to_owned(),
            );
        }
        if flag("dedup.minScrapeInterval")
            .is_some_and(|text| text.trim_start_matches(['0', '.']).starts_with(['s', 'm']))
        {
            complaints.push(
                "the metrics store keeps equal samples twice: start it with -dedup.minScrapeInterval=1ms, since whatever is \
                 in doubt is written again"
                    .to_owned(),
            );
        }
        for (name, least) in [("maxLabelsPerTimeseries", 30), ("maxLabelValueLen", 4_096)] {
            if let Some(value) = flag(name).and_then(|value| value.parse::<u64>().ok()).filter(|value| *value < least) {
                complaints.push(format!(
                    "the metrics store is started with -{name}={value} and drops what goes beyond: it must be at least {least}"
                ));
            }
        }
        complaints
    }
}

/// Name and value, behind `flag{name="`.
fn flag(rest: &str) -> Option<(&str, &str)> {
    let (name, rest) = rest.split_once("\", value=\"")?;
    Some((name, rest.split_once('"')?.0))
}

/// `-retentionPeriod`: a number of months of 31 days, or with `h`, `d`, `w`, `y`.
fn retention(text: &str) -> Option<Duration> {
    let text = text.trim();
    let (digits, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len()));
    let seconds = match unit {
        "" | "M" => 31 * DAY,
        "h" => 60 * 60,
        "d" => DAY,
        "w" => 7 * DAY,
        "y" => 365 * DAY,
        _ => return None,
    };
    Duration::try_from_secs_f64(digits.parse::<f64>().ok()? * Duration::from_secs(seconds).as_secs_f64()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = "# HELP x\n\
        process_start_time_seconds_total 1\n\
        process_start_time_seconds 1763697600\n\
        vm_rows_ignored_total{reason=\"big_timestamp\"} 3\n\
        vm_too_long_label_values_total 2\n\
        flag{name=\"retentionPeriod\", value=\"30d\", is_set=\"true\"} 1\n\
        flag{name=\"dedup.minScrapeInterval\", value=\"0s\", is_set=\"false\"} 1\n\
        flag{name=\"maxLabelsPerTimeseries\", value=\"20\", is_set=\"true\"} 1\n\
        flag{name=\"maxLabelValueLen\", value=\"16384\", is_set=\"false\"} 1\n\
        up 1\n";

    fn times(days: u64) -> Times {
        Times { ahead: Duration::from_secs(600), age: Duration::from_secs(days * DAY) }
    }

    #[test]
    fn start_and_losses_are_found_among_other_metrics() {
        let status = Status::read(METRICS);
        assert_eq!(status.started, Some(1_763_697_600.0));
        assert_eq!((status.dropped[0], status.dropped[5], status.dropped.iter().sum::<u64>()), (3, 2, 5));
        assert_eq!(Status::read("up 1\n"), Status::default());
    }

    #[test]
    fn settings_that_do_not_go_together_are_complained_of() {
        let status = Status::read(METRICS);
        assert_eq!(status.complaints(times(30)).len(), 2);
        assert!(status.complaints(times(31))[0].contains("SIGHTLINE_METRICS_RETENTION"));
        let ahead = Times { ahead: Duration::from_secs(3 * DAY), ..times(1) };
        assert!(status.complaints(ahead)[0].contains("SIGHTLINE_CLOCK_SKEW"));
        let good = METRICS.replace("\"0s\"", "\"1ms\"").replace("\"20\"", "\"30\"");
        assert_eq!(Status::read(&good).complaints(times(30)), Vec::<String>::new());
        // A store that says nothing of its flags.
        assert_eq!(Status::default().complaints(times(30)), Vec::<String>::new());
    }

    #[test]
    fn retention_is_read_as_the_store_reads_it() {
        let days = |text| retention(text).map(|kept| kept.as_secs() / DAY);
        for (text, expected) in [("1", 31), ("30d", 30), ("2w", 14), ("100y", 36_500), ("48h", 2), ("1.5", 46)] {
            assert_eq!(days(text), Some(expected), "{text}");
        }
        assert_eq!(days("soon"), None);
    }
}
