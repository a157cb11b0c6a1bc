//! Moments and durations as the API writes them.

use std::time::Duration;

use fault::Fault;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Points of one series in an answer, as Prometheus bounds them.
pub(crate) const MOST_POINTS: f64 = 11_000.0;
/// Prometheus's own words.
pub(crate) const TOO_MANY_POINTS: &str =
    "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)";

/// What [`parse`] reads, as a pattern; days beyond the 28th are read too where the month has them.
pub(crate) const TIME: &str = concat!(
    r"^(now|-([1-9][0-9]{0,5}(ms|s|m|h|d))|[0-9]{1,10}(\.[0-9]{1,9})?",
    r"|[12][0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-9]|3[01])",
    r"T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?(Z|[+-](0[0-9]|1[0-3]):[0-5][0-9]))$",
);
/// What [`millis`] reads, as a pattern.
pub(crate) const DURATION: &str = r"^([0-9]{1,6}(ms|s|m|h|d))+$";

/// RFC 3339 in UTC, from Unix nanoseconds.
pub(crate) fn rfc3339(unix_nano: u64) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_nano))
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_default()
}

/// The same, where 0 means that it has not happened.
pub(crate) fn rfc3339_or_none(unix_nano: u64) -> Option<String> {
    (unix_nano != 0).then(|| rfc3339(unix_nano))
}

/// Unix nanoseconds of now.
pub(crate) fn now() -> u64 {
    u64::try_from(OffsetDateTime::now_utc().unix_timestamp_nanos()).unwrap_or_default()
}

/// Reads the parameter `name`: RFC 3339, Unix seconds, `now`, or relative to `now` such as `-15m`.
pub(crate) fn parse(name: &str, text: &str, now: u64) -> Result<u64, Fault> {
    let wrong = || {
        Fault::field(name, format!("`{text}` is not a time; write RFC 3339, Unix seconds, or relative such as -15m"))
    };
    if text == "now" {
        return Ok(now);
    }
    if let Some(ago) = text.strip_prefix('-') {
        let ago = humantime::parse_duration(ago).map_err(|_| wrong())?;
        return Ok(now.saturating_sub(u64::try_from(ago.as_nanos()).unwrap_or(u64::MAX)));
    }
    if let Ok(seconds) = text.parse::<f64>() {
        let duration = Duration::try_from_secs_f64(seconds).map_err(|_| wrong())?;
        return u64::try_from(duration.as_nanos()).map_err(|_| wrong());
    }
    let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| wrong())?;
    u64::try_from(time.unix_timestamp_nanos()).map_err(|_| wrong())
}

/// A range of time: `from` defaults to an hour before `to`, `to` to now.
pub(crate) fn range(from: Option<&str>, to: Option<&str>) -> Result<(u64, u64), Fault> {
    let now = now();
    let to = to.map_or(Ok(now), |text| parse("to", text, now))?;
    let from = from.map_or(Ok(to.saturating_sub(3_600_000_000_000)), |text| parse("from", text, now))?;
    if from >= to {
        return Err(Fault::field("from", "`from` must be earlier than `to`"));
    }
    Ok((from, to))
}

/// Reads a duration such as `30s` as milliseconds.
pub(crate) fn millis(name: &str, text: &str) -> Result<u64, Fault> {
    humantime::parse_duration(text)
        .ok()
        .and_then(|duration| u64::try_from(duration.as_millis()).ok())
        .ok_or_else(|| Fault::field(name, format!("`{text}` is not a duration; write 30s, 5m or 1h")))
}

/// Milliseconds as the API writes durations.
pub(crate) fn duration(millis: u64) -> String {
    humantime::format_duration(Duration::from_millis(millis)).to_string().replace(' ', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000_000_000_000;

    #[test]
    fn times_read_in_every_documented_form() {
        assert_eq!(parse("from", "-15m", NOW).unwrap(), NOW - 900_000_000_000);
        assert_eq!(parse("from", "1700000000", NOW).unwrap(), 1_700_000_000_000_000_000);
        assert_eq!(parse("from", "1700000000.5", NOW).unwrap(), 1_700_000_000_500_000_000);
        assert_eq!(parse("from", "2023-11-14T22:13:20Z", NOW).unwrap(), 1_700_000_000_000_000_000);
        assert_eq!(parse("to", "now", NOW).unwrap(), NOW);
    }

    #[test]
    fn a_bad_time_names_its_parameter() {
        let fault = parse("from", "yesterday", NOW).unwrap_err();
        assert!(fault.detail().contains("from") && fault.detail().contains("yesterday"));
        assert!(parse("from", "1e300", NOW).is_err());
    }

    #[test]
    fn a_range_must_run_forwards() {
        assert!(range(Some("-1m"), Some("-2m")).is_err());
        assert!(range(Some("-2m"), Some("-1m")).is_ok());
    }

    #[test]
    fn durations_survive_the_way_there_and_back() {
        assert_eq!(duration(millis("for", "90s").unwrap()), "1m30s");
        assert_eq!(duration(0), "0s");
    }
}
