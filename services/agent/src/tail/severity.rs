//! The level that a log line claims for itself, and the program that wrote it.

use opentelemetry_proto::tonic::logs::v1::SeverityNumber;

/// A level stands near the begin of a line; further on the same words are usually prose.
const SEARCHED_BYTES: usize = 256;

/// The first common level word, as OTLP number and lower-case text.
pub fn severity(line: &str) -> Option<(SeverityNumber, &'static str)> {
    let begin = &line[..line.floor_char_boundary(SEARCHED_BYTES)];
    begin.split(|c: char| !c.is_ascii_alphanumeric()).find_map(level)
}

fn level(word: &str) -> Option<(SeverityNumber, &'static str)> {
    use SeverityNumber as Number;
    const LONGEST_WORD: usize = "information".len();
    let mut lower = [0; LONGEST_WORD];
    let lower = lower.get_mut(..word.len())?;
    lower.copy_from_slice(word.as_bytes());
    lower.make_ascii_lowercase();
    Some(match &*lower {
        b"trace" => (Number::Trace, "trace"),
        b"debug" | b"dbg" => (Number::Debug, "debug"),
        b"info" | b"information" => (Number::Info, "info"),
        b"notice" => (Number::Info2, "notice"),
        b"warn" | b"warning" => (Number::Warn, "warn"),
        b"error" | b"err" => (Number::Error, "error"),
        b"critical" | b"crit" => (Number::Error3, "critical"),
        b"fatal" | b"panic" | b"emerg" | b"emergency" => (Number::Fatal, "fatal"),
        _ => return None,
    })
}

/// The program in a syslog line of a file (`Nov 21 03:57:01 host sshd[42]: ...` or with an ISO 8601 time).
pub fn program(line: &str) -> Option<&str> {
    let rest = after_time(line)?;
    let (_host, rest) = rest.split_once(' ')?;
    let (tag, _message) = rest.split_once(':')?;
    let name = tag.split_once('[').map_or(tag, |(name, _pid)| name);
    let plausible = !name.is_empty()
        && name.len() <= 48
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./()".contains(&byte));
    plausible.then_some(name)
}

fn after_time(line: &str) -> Option<&str> {
    let bytes = line.as_bytes();
    // `Nov 21 03:57:01 `: fixed columns, the day padded with a blank (RFC 3164, section 4.1.2).
    let bsd = bytes.len() > 16
        && bytes[..3].iter().all(u8::is_ascii_alphabetic)
        && bytes[3] == b' '
        && bytes[6] == b' '
        && bytes[9] == b':'
        && bytes[12] == b':'
        && bytes[15] == b' ';
    if bsd {
        return line.get(16..);
    }
    let (time, rest) = line.split_once(' ')?;
    let iso =
        time.len() >= 19 && time.as_bytes()[4] == b'-' && time.as_bytes()[10] == b'T' && time.as_bytes()[13] == b':';
    iso.then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_found_in_the_usual_places() {
        let text = |line| severity(line).map(|(_, text)| text);
        assert_eq!(text("2026-11-21 04:00:00 WARN pool: slow"), Some("warn"));
        assert_eq!(text("[error] upstream timed out"), Some("error"));
        assert_eq!(text("{\"level\":\"info\",\"msg\":\"no errors\"}"), Some("info"));
        assert_eq!(text("ts=1 level=warning msg=x"), Some("warn"));
        assert_eq!(text("kernel: CRIT: over heated"), Some("critical"));
        assert_eq!(text("Out of memory: killed 42"), None);
        assert_eq!(text("informational terrors"), None);
        assert_eq!(severity("warn").unwrap().0 as i32, 13);
    }

    #[test]
    fn a_level_far_into_the_line_is_prose() {
        assert_eq!(severity(&format!("{} error", "é".repeat(200))), None);
    }

    #[test]
    fn the_program_of_syslog_lines_is_found() {
        assert_eq!(program("Nov 21 03:57:01 web1 sshd[42]: Accepted publickey"), Some("sshd"));
        assert_eq!(program("Nov  1 03:57:01 web1 kernel: eth0 up"), Some("kernel"));
        assert_eq!(program("2026-11-21T03:57:01.123456+00:00 web1 systemd[1]: Started x."), Some("systemd"));
        assert_eq!(program("2026-11-21T03:57:01Z"), None);
        assert_eq!(program("GET /index.html: 200"), None);
        assert_eq!(program("Nov 21 03:57:01 web1 what is this: x"), None);
        assert_eq!(program("äöü 21 03:57:01 web1 x: y"), None);
    }
}
