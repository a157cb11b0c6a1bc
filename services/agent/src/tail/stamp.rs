//! When a line was written, where the line says it beyond doubt: with date, time and offset from UTC.
//!
//! Most lines leave out the offset, the year or the date. To add them would be a guess, which is wrong after a change of
//! zone, at a turn of the year, for a file of last week.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Nanoseconds since 1970. `claimed`: the time in a field of the line.
pub fn written_at(line: &str, claimed: Option<&str>) -> Option<u64> {
    claimed.and_then(rfc3339).or_else(|| leading(line))
}

/// `2026-11-21T03:57:01Z`, the same with a blank, and `2026-11-21 03:57:01 UTC`; in brackets, and behind a priority.
fn leading(line: &str) -> Option<u64> {
    let line = line.trim_start();
    let line = match line.strip_prefix('<').and_then(|rest| rest.split_once('>')) {
        Some((_, rest)) => rest.strip_prefix("1 ").unwrap_or(rest),
        None => line,
    };
    let line = line.strip_prefix('[').unwrap_or(line);
    // Cheap to look at, and true of few lines that have no time.
    if line.as_bytes().get(4) != Some(&b'-') {
        return None;
    }
    let mut tokens = line.split([' ', ']']);
    let first = tokens.next()?;
    rfc3339(first).or_else(|| {
        let second = tokens.next()?;
        let zone = if tokens.next() == Some("UTC") { "Z" } else { "" };
        rfc3339(&format!("{first}T{second}{zone}"))
    })
}

fn rfc3339(text: &str) -> Option<u64> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    u64::try_from(time.unix_timestamp_nanos()).ok()
}

#[cfg(test)]
mod tests {
    use super::super::claim::claims;
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const EXPECTED: u64 = 1_795_233_421 * SECOND;

    fn of(line: &str) -> Option<u64> {
        written_at(line, claims(line).time.as_deref())
    }

    #[test]
    fn a_time_with_its_offset_is_believed() {
        for line in [
            "2026-11-21T03:57:01Z started",
            "2026-11-21T05:57:01+02:00 web1 sshd[42]: x",
            "[2026-11-21T03:57:01Z] x",
            "[2026-11-21T03:57:01Z INFO app] x",
            "2026-11-21 03:57:01Z x",
            "2026-11-21 03:57:01 UTC [42] LOG:  x",
            "<3>1 2026-11-21T03:57:01Z h app - - - x",
            "{\"msg\":\"x\",\"time\":\"2026-11-21T03:57:01Z\"}",
            "ts=2026-11-21T03:57:01Z level=info msg=x",
            "2026-11-21T03:57:01.000000000Z stdout F x",
            "2026-11-21T03:57:01.000000000Z stdout F {\"time\":1}",
            "Nov 21 03:57:01 web1 app[42]: {\"time\":\"2026-11-21T03:57:01Z\"}",
        ] {
            assert_eq!(of(line), Some(EXPECTED), "{line}");
        }
        assert_eq!(of("2026-11-21T03:57:01.25Z"), Some(EXPECTED + SECOND / 4));
    }

    #[test]
    fn what_would_have_to_be_guessed_is_not() {
        for line in [
            "2026-11-21 03:57:01 WARN x",
            "2026-11-21T03:57:01 x",
            "Nov 21 03:57:01 web1 sshd[42]: x",
            "E1121 03:57:01 main.go:7] x",
            "{\"time\":1795233421}",
            "{\"time\":\"03:57\"}",
            "1969-11-21T03:57:01Z",
            "2026-13-21T03:57:01Z",
            "about 2026-11-21T03:57:01Z",
            "<3>",
            "",
        ] {
            assert_eq!(of(line), None, "{line}");
        }
    }
}
