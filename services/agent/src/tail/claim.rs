//! The level that a log line claims for itself, and the program that wrote it.
//!
//! A level is taken only from where sources put it: a field of JSON or logfmt, a priority, klog's letter, or a word that
//! is set off as a level before the text begins. Words inside the text say nothing: `retry after error` is no error.

mod plain;
mod structured;

use std::borrow::Cow;

use model::{severity_number, syslog_severity_number};
use structured::{Fields, Scalar, fields};

/// An OTLP severity number and what the source calls it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Level {
    pub number: u8,
    pub text: String,
}

impl Level {
    fn of_word(word: &str) -> Option<Self> {
        severity_number(word).map(|number| Self { number, text: word.to_owned() })
    }

    fn of_number(number: u8) -> Option<Self> {
        let name = model::Level::of_number(number.into())?.name();
        Some(Self { number, text: name.to_owned() })
    }
}

/// What a line says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claims {
    pub level: Option<Level>,
    /// The time in a field of JSON or logfmt.
    pub time: Option<String>,
}

pub fn claims(line: &str) -> Claims {
    let line = without_colours(line);
    let text = container_text(&line).trim_start();
    let text = syslog(text).map_or(text, |(_, text)| text.trim_start());
    match fields(text) {
        Some(Fields { level, time }) => Claims {
            level: level.as_ref().and_then(scalar),
            time: time.and_then(|time| match time {
                Scalar::Text(text) => Some(text),
                Scalar::Number(_) => None,
            }),
        },
        None => {
            let level = priority(text).or_else(|| klog(text)).or_else(|| plain::level(text).and_then(Level::of_word));
            Claims { level, time: None }
        }
    }
}

fn scalar(value: &Scalar) -> Option<Level> {
    match value {
        Scalar::Text(word) => match word.parse() {
            Ok(number) => ranked(number),
            Err(_) => Level::of_word(word),
        },
        Scalar::Number(number) => ranked(*number),
    }
}

/// pino and bunyan count in tens, from 10 (trace) to 60 (fatal). What other numbers mean nobody can know.
fn ranked(number: i64) -> Option<Level> {
    let rank = u8::try_from(number / 10).ok().filter(|rank| (1..=6).contains(rank))?;
    Level::of_number((rank - 1) * 4 + 1)
}

/// `<3>1 ...` and `<34>Oct 11 ...`: facility times eight plus severity (RFC 5424, section 6.2.1).
fn priority(line: &str) -> Option<Level> {
    let (digits, _) = line.strip_prefix('<')?.split_once('>')?;
    let priority: u8 = digits.parse().ok().filter(|priority| *priority <= 191)?;
    Level::of_number(syslog_severity_number(priority & 7)?)
}

/// `E1121 03:57:01.123456 1 main.go:7] broken`: the level's letter, month and day, time.
fn klog(line: &str) -> Option<Level> {
    let bytes = line.as_bytes();
    let shape = bytes.len() > 14
        && b"IWEF".contains(&bytes[0])
        && bytes[1..5].iter().all(u8::is_ascii_digit)
        && bytes[5] == b' '
        && bytes[8] == b':'
        && bytes[11] == b':';
    shape.then(|| Level::of_word(&line[..1])).flatten()
}

/// Without the sequences that make a terminal show colours (ECMA-48, control sequences).
fn without_colours(line: &str) -> Cow<'_, str> {
    if !line.contains('\x1b') {
        return Cow::Borrowed(line);
    }
    let mut text = String::with_capacity(line.len());
    let mut pieces = line.split("\x1b[");
    text.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        let end = piece.find(|c| ('@'..='~').contains(&c)).map_or(piece.len(), |end| end + 1);
        text.push_str(&piece[end..]);
    }
    Cow::Owned(text)
}

/// What a container wrote, in a line of its runtime's log (`2026-11-21T03:57:01.123Z stderr F text`).
fn container_text(line: &str) -> &str {
    let text = || {
        let (time, rest) = line.split_once(' ')?;
        let (stream, rest) = rest.split_once(' ')?;
        let (tag, text) = rest.split_once(' ')?;
        let shape = is_iso(time) && ["stdout", "stderr"].contains(&stream) && ["F", "P"].contains(&tag);
        shape.then_some(text)
    };
    text().unwrap_or(line)
}

/// The program in a syslog line of a file.
pub fn program(line: &str) -> Option<&str> {
    syslog(line).map(|(program, _)| program)
}

/// Program and text of `Nov 21 03:57:01 host sshd[42]: ...`, or with an ISO 8601 time.
fn syslog(line: &str) -> Option<(&str, &str)> {
    let rest = after_time(line)?;
    let (host, rest) = rest.split_once(' ')?;
    let (tag, text) = rest.split_once(':')?;
    let name = tag.split_once('[').map_or(tag, |(name, _pid)| name);
    let plausible = !name.is_empty()
        && name.len() <= 48
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./()".contains(&byte))
        // `2026-11-21T03:57:01Z INFO app: ...` names a level where a host would stand, and `...Z main ERROR: ...` the
        // other way round; both are no syslog.
        && severity_number(host).is_none()
        && severity_number(name).is_none();
    plausible.then_some((name, text))
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
    is_iso(time).then_some(rest)
}

fn is_iso(time: &str) -> bool {
    let bytes = time.as_bytes();
    bytes.len() >= 19 && bytes[4] == b'-' && bytes[10] == b'T' && bytes[13] == b':'
}

#[cfg(test)]
mod tests;
