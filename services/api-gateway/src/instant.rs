//! Moments and durations as the API writes them.

use fault::Fault;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Points of one series in an answer, as Prometheus bounds them.
pub(crate) const MOST_POINTS: f64 = 11_000.0;
/// Prometheus's own words.
pub(crate) const TOO_MANY_POINTS: &str =
    "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)";

/// What [`parse`] reads, as a pattern. Years before 1970, and days that a month has not, are refused all the same.
pub(crate) const TIME: &str = concat!(
    r"^(now|-([0-9]{1,9}(ms|s|m|h|d))+|[0-9]{1,10}(\.[0-9]{1,9})?",
    r"|[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])",
    r"[Tt]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9]))$",
);
/// What [`millis`] reads where 0 is nothing, as a pattern.
pub(crate) const STEP: &str = r"^0*[1-9][0-9]{0,5}(ms|s|m|h|d)$";
/// The units of durations, smallest first, in milliseconds.
const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

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
        let ago = read_duration(ago).ok_or_else(wrong)?;
        return Ok(now.saturating_sub(ago.saturating_mul(1_000_000)));
    }
    if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return seconds(text).ok_or_else(wrong);
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

/// Unix seconds with up to nine decimals.
fn seconds(text: &str) -> Option<u64> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    if whole.is_empty() || whole.len() > 10 || decimals.is_empty() || decimals.len() > 9 {
        return None;
    }
    let nanos: u64 = format!("{decimals:0<9}").parse().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(1_000_000_000)?.checked_add(nanos)
}

/// Reads a duration such as `30s` or `1h30m` as milliseconds.
pub(crate) fn millis(name: &str, text: &str) -> Result<u64, Fault> {
    let wrong = || Fault::field(name, format!("`{text}` is not a duration; write 30s, 5m, 1h or 1h30m"));
    read_duration(text).ok_or_else(wrong)
}

fn read_duration(text: &str) -> Option<u64> {
    let (mut rest, mut total) = (text, 0_u64);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|digits| (1..=9).contains(digits))?;
        let number: u64 = rest[..digits].parse().ok()?;
        let (unit, millis) = UNITS.iter().find(|(unit, _)| rest[digits..].starts_with(unit))?;
        total = total.checked_add(number.checked_mul(*millis)?)?;
        rest = &rest[digits + unit.len()..];
    }
    (!text.is_empty()).then_some(total)
}

/// Milliseconds as the API writes durations, which [`millis`] reads.
pub(crate) fn duration(mut millis: u64) -> String {
    if millis == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, size) in UNITS.iter().rev() {
        if millis >= *size {
            text.push_str(&format!("{}{unit}", millis / size));
            millis %= size;
        }
    }
    text
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
        assert_eq!(parse("from", "-1h30m", NOW).unwrap(), NOW - 5_400_000_000_000);
        assert_eq!(parse("from", "2023-11-14T22:13:20Z", NOW).unwrap(), 1_700_000_000_000_000_000);
        assert_eq!(parse("to", "now", NOW).unwrap(), NOW);
    }

    #[test]
    fn a_bad_time_names_its_parameter() {
        let fault = parse("from", "yesterday", NOW).unwrap_err();
        assert!(fault.detail().contains("from") && fault.detail().contains("yesterday"));
        for wrong in ["", "-", "-15", "1e300", "inf", "1.", ".5", "1.2.3", "99999999999", "2023-02-30T00:00:00Z", "-1w"]
        {
            assert!(parse("from", wrong, NOW).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_range_must_run_forwards() {
        assert!(range(Some("-1m"), Some("-2m")).is_err());
        assert!(range(Some("-2m"), Some("-1m")).is_ok());
    }

    #[test]
    fn durations_survive_the_way_there_and_back() {
        for (written, shown) in [("90s", "1m30s"), ("24h", "1d"), ("1d2h3m4s5ms", "1d2h3m4s5ms"), ("40d", "40d")] {
            assert_eq!(duration(millis("for", written).unwrap()), shown);
        }
        assert_eq!(duration(0), "0s");
        for wrong in ["", "30", "s", "1 s", "1x", "-1s", "1.5s", "9999999999s"] {
            assert!(millis("for", wrong).is_err(), "{wrong}");
        }
    }
}
