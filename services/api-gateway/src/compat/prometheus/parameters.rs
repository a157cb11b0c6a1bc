//! Which parameters each question has, and what Prometheus asks of them. Others are passed over, as Prometheus does: above
//! all those by which the store would let itself be told whose data to show.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::instant::{MOST_POINTS, TOO_MANY_POINTS};
use crate::metrics_store::Refusal;

/// One question of the API.
#[derive(Clone, Copy)]
pub(super) struct Question {
    /// Below `/api/v1/`, here and at the store.
    pub(super) path: &'static str,
    known: &'static [&'static str],
    required: &'static [&'static str],
}

pub(super) const INSTANT: Question =
    Question { path: "query", known: &["query", "time", "timeout", "limit"], required: &["query"] };
pub(super) const RANGE: Question = Question {
    path: "query_range",
    known: &["query", "start", "end", "step", "timeout", "limit"],
    required: &["query", "start", "end", "step"],
};
pub(super) const SERIES: Question =
    Question { path: "series", known: &["match[]", "start", "end", "limit"], required: &["match[]"] };
pub(super) const LABELS: Question =
    Question { path: "labels", known: &["match[]", "start", "end", "limit"], required: &[] };
pub(super) const LABEL_VALUES: Question = Question { path: "", ..LABELS };

impl Question {
    /// The parameters to ask the store with.
    pub(super) fn read(self, pairs: Vec<(String, String)>) -> Result<Vec<(String, String)>, Refusal> {
        let pairs: Vec<_> = pairs.into_iter().filter(|(name, _)| self.known.contains(&name.as_str())).collect();
        let value = |name: &str| pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        for name in self.required {
            if value(name).is_none_or(str::is_empty) {
                return Err(Refusal::bad_data(format!("the parameter \"{name}\" is missing")));
            }
        }
        for name in ["time", "start", "end"] {
            value(name).map_or(Ok(0.0), |text| seconds(name, text))?;
        }
        if let (Some(start), Some(end)) = (value("start"), value("end"))
            && seconds("end", end)? < seconds("start", start)?
        {
            return Err(Refusal::bad_data("the parameter \"end\" is before \"start\""));
        }
        if let (Some(start), Some(end), Some(step)) = (value("start"), value("end"), value("step")) {
            check_step(seconds("end", end)? - seconds("start", start)?, duration(step)?)?;
        }
        Ok(pairs)
    }
}

fn check_step(span: f64, step: f64) -> Result<(), Refusal> {
    if step <= 0.0 || !step.is_finite() {
        return Err(Refusal::bad_data("the parameter \"step\" must be above 0"));
    }
    if span / step > MOST_POINTS {
        return Err(Refusal::bad_data(TOO_MANY_POINTS));
    }
    Ok(())
}

/// RFC 3339, or Unix seconds.
fn seconds(name: &str, text: &str) -> Result<f64, Refusal> {
    let wrong = || Refusal::bad_data(format!("the parameter \"{name}\" is no time: write RFC 3339 or Unix seconds"));
    if let Ok(seconds) = text.parse::<f64>() {
        return if seconds.is_finite() { Ok(seconds) } else { Err(wrong()) };
    }
    let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| wrong())?;
    Ok(time.unix_timestamp() as f64 + f64::from(time.nanosecond()) / 1e9)
}

/// Seconds, or a duration such as `1h30m`.
fn duration(text: &str) -> Result<f64, Refusal> {
    if let Ok(seconds) = text.parse::<f64>() {
        return Ok(seconds);
    }
    let wrong = || Refusal::bad_data("the parameter \"step\" is no duration: write 15s, 5m, 1h or seconds");
    let (mut rest, mut total) = (text, 0.0);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|digits| *digits > 0).ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        let unit = rest[digits..]
            .find(|c: char| c.is_ascii_digit())
            .map_or(&rest[digits..], |end| &rest[digits..digits + end]);
        total += number
            * match unit {
                "ms" => 0.001,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3_600.0,
                "d" => 86_400.0,
                "w" => 604_800.0,
                "y" => 31_536_000.0,
                _ => return Err(wrong()),
            };
        rest = &rest[digits + unit.len()..];
    }
    if text.is_empty() { Err(wrong()) } else { Ok(total) }
}

/// A label's name as Prometheus escapes it in paths: `U__host_2e_name` is `host.name`, `U__a__b` is `a_b`.
pub(super) fn unescape(name: &str) -> String {
    let Some(mut rest) = name.strip_prefix("U__") else { return name.to_owned() };
    let mut plain = String::new();
    while let Some(at) = rest.find('_') {
        plain.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('_') {
            plain.push('_');
            rest = after;
            continue;
        }
        let code = rest.split_once('_').and_then(|(hex, after)| {
            let code = u32::from_str_radix(hex, 16).ok().and_then(char::from_u32)?;
            Some((code, after))
        });
        match code {
            Some((code, after)) => {
                plain.push(code);
                rest = after;
            }
            // No escape of ours: left as it is.
            None => plain.push('_'),
        }
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: &str, end: &str, step: &str) -> Result<(), String> {
        let pairs = [("query", "up"), ("start", start), ("end", end), ("step", step)];
        let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        RANGE.read(pairs.into()).map(drop).map_err(|refusal| refusal.message)
    }

    #[test]
    fn a_range_is_bounded_as_prometheus_bounds_it() {
        range("0", "11000", "1").unwrap();
        range("2023-11-14T22:13:20Z", "2023-11-14T23:13:20.5Z", "15s").unwrap();
        range("0", "86400", "1m30s").unwrap();
        for (start, end, step, word) in [
            ("0", "11001", "1", "11,000"),
            ("0", "86400", "0.5", "11,000"),
            ("0", "10", "0", "step"),
            ("0", "10", "-1", "step"),
            ("0", "10", "x", "step"),
            ("10", "0", "1", "before"),
            ("now-1h", "10", "1", "start"),
            ("0", "NaN", "1", "end"),
            ("0", "10", "", "missing"),
        ] {
            let message = range(start, end, step).unwrap_err();
            assert!(message.contains(word), "{start} {end} {step}: {message}");
        }
    }

    #[test]
    fn what_only_the_store_knows_is_passed_over() {
        let pairs = ["query", "extra_filters[]", "extra_label", "trace", "nocache", "Extra_Filters[]", "match[]"];
        let pairs = pairs.map(|name| (name.to_owned(), "up".to_owned()));
        assert_eq!(INSTANT.read(pairs.into()).unwrap(), [("query".to_owned(), "up".to_owned())]);
    }

    #[test]
    fn names_are_read_as_prometheus_escapes_them() {
        for (escaped, plain) in [
            ("host_name", "host_name"),
            ("U__host_2e_name", "host.name"),
            ("U__a__b", "a_b"),
            ("U___e9_t_e9_", "été"),
            ("U__x_zz_y", "x_zz_y"),
        ] {
            assert_eq!(unescape(escaped), plain);
        }
    }
}
