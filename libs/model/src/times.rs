//! Which times of clients are believed: one answer for gateways, writers, rules and live streams.
//!
//! A time is held against the moment at which a gateway received it, which travels in the envelope (`Sl-Received`), never
//! against the reader's own clock: a replay decides the same.

use std::time::Duration;

/// `SIGHTLINE_CLOCK_SKEW` where nothing is set.
pub const CLOCK_SKEW: &str = "10m";
/// `SIGHTLINE_METRICS_RETENTION` where nothing is set.
pub const METRICS_RETENTION: &str = "30d";
/// `SIGHTLINE_LOG_RETENTION` where nothing is set.
pub const LOG_RETENTION: &str = "30d";

/// How far a time may lie from the moment at which it was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// So far after it: clocks differ.
    pub ahead: Duration,
    /// So far before it: what the store keeps.
    pub age: Duration,
}

/// [`Times`] around one moment, for many times that were received together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    earliest: i64,
    received: i64,
    latest: i64,
}

/// Why a time is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum Disbelieved {
    /// It is 0: the client gave none.
    #[error("it has no time")]
    Missing,
    /// It lies in the future.
    #[error("its time is ahead of ours")]
    Ahead,
    /// It lies before what the store keeps.
    #[error("its time is older than what is kept")]
    TooOld,
    /// It is later than 64 signed bits of nanoseconds can say (the year 2262).
    #[error("its time is beyond what can be stored")]
    Beyond,
}

/// The time of a log record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogTime {
    /// What it is stored and evaluated at.
    pub unix_nano: i64,
    /// Why that is not what the record says; a record without any time is not wrong.
    pub wrong: Option<Disbelieved>,
}

impl Times {
    /// The time, where it is believed.
    ///
    /// # Errors
    /// Why it is not.
    pub fn judge(&self, time_unix_nano: u64, received_unix_nano: u64) -> Result<i64, Disbelieved> {
        self.window(received_unix_nano).judge(time_unix_nano)
    }

    /// The times that are believed of all that was received at once.
    #[must_use]
    pub fn window(&self, received_unix_nano: u64) -> Window {
        let received = signed(received_unix_nano);
        Window {
            earliest: received.saturating_sub(nanos(self.age)),
            received,
            latest: received.saturating_add(nanos(self.ahead)),
        }
    }

    /// The believed time of a log record; see [`Window::log`].
    #[must_use]
    pub fn log(&self, time_unix_nano: u64, observed_unix_nano: u64, received_unix_nano: u64) -> LogTime {
        self.window(received_unix_nano).log(time_unix_nano, observed_unix_nano)
    }
}

impl Window {
    /// The time, where it is believed.
    ///
    /// # Errors
    /// Why it is not.
    #[inline]
    pub fn judge(&self, time_unix_nano: u64) -> Result<i64, Disbelieved> {
        match i64::try_from(time_unix_nano) {
            Ok(0) => Err(Disbelieved::Missing),
            Ok(time) if time > self.latest => Err(Disbelieved::Ahead),
            Ok(time) if time < self.earliest => Err(Disbelieved::TooOld),
            Ok(time) => Ok(time),
            Err(_) => Err(Disbelieved::Beyond),
        }
    }

    /// The believed time of a log record: its own, else when it was observed, else when it was received.
    ///
    /// No line is lost for a wrong clock: what lies ahead gets the time at which it was received. What is too old gets the
    /// oldest time that is kept; gateways refuse it, so that only a change of the retention shows such a record to a reader.
    #[must_use]
    pub fn log(&self, time_unix_nano: u64, observed_unix_nano: u64) -> LogTime {
        let said = if time_unix_nano == 0 { observed_unix_nano } else { time_unix_nano };
        match self.judge(said) {
            Ok(unix_nano) => LogTime { unix_nano, wrong: None },
            Err(Disbelieved::Missing) => LogTime { unix_nano: self.received, wrong: None },
            Err(wrong @ Disbelieved::TooOld) => LogTime { unix_nano: self.earliest, wrong: Some(wrong) },
            Err(wrong) => LogTime { unix_nano: self.received, wrong: Some(wrong) },
        }
    }
}

fn signed(unix_nano: u64) -> i64 {
    i64::try_from(unix_nano).unwrap_or(i64::MAX)
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000_000_000;
    const NOW: u64 = 1_790_000_000_000_000_000;
    const TIMES: Times = Times { ahead: Duration::from_secs(600), age: Duration::from_secs(30 * 86_400) };

    #[test]
    fn each_time_has_its_verdict() {
        let month = 30 * 24 * 60 * MINUTE;
        for (time, verdict) in [
            (NOW, Ok(())),
            (NOW + 10 * MINUTE, Ok(())),
            (NOW + 10 * MINUTE + 1, Err(Disbelieved::Ahead)),
            (NOW - month, Ok(())),
            (NOW - month - 1, Err(Disbelieved::TooOld)),
            (NOW / 1_000_000, Err(Disbelieved::TooOld)),
            (NOW / 1_000_000_000, Err(Disbelieved::TooOld)),
            (1 << 63, Err(Disbelieved::Beyond)),
            (u64::MAX, Err(Disbelieved::Beyond)),
            (0, Err(Disbelieved::Missing)),
        ] {
            let expected = verdict.map(|()| i64::try_from(time).unwrap());
            assert_eq!(TIMES.judge(time, NOW), expected, "{time}");
        }
    }

    #[test]
    fn no_line_is_lost_for_a_wrong_clock() {
        let now = i64::try_from(NOW).unwrap();
        let log = |time, observed| TIMES.log(time, observed, NOW);
        assert_eq!(log(NOW - 5, NOW), LogTime { unix_nano: now - 5, wrong: None });
        assert_eq!(log(0, NOW - 3), LogTime { unix_nano: now - 3, wrong: None });
        assert_eq!(log(0, 0), LogTime { unix_nano: now, wrong: None });
        assert_eq!(log(NOW + 400 * 24 * 60 * MINUTE, 0), LogTime { unix_nano: now, wrong: Some(Disbelieved::Ahead) });
        assert_eq!(log(u64::MAX, 0), LogTime { unix_nano: now, wrong: Some(Disbelieved::Beyond) });
        let old = log(1, 0);
        assert_eq!(old.wrong, Some(Disbelieved::TooOld));
        assert_eq!(TIMES.judge(old.unix_nano.unsigned_abs(), NOW), Ok(old.unix_nano));
    }

    #[test]
    fn limits_without_bound_overflow_nothing() {
        let all = Times { ahead: Duration::MAX, age: Duration::MAX };
        assert_eq!(all.judge(1, NOW), Ok(1));
        assert_eq!(all.judge(i64::MAX.unsigned_abs(), u64::MAX), Ok(i64::MAX));
    }
}
