//! Whether a resource is there: pure rules over its last sign of life.

use std::fmt;
use std::time::Duration;

/// Unix nanoseconds.
pub type Nanos = i64;

/// Whether a resource is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// It was heard lately.
    Online,
    /// It has been silent for a while.
    Idle,
    /// It has been silent for too long.
    Offline,
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 3] = [Self::Online, Self::Idle, Self::Offline];

    /// The name in the API, in events and in the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Idle => "idle",
            Self::Offline => "offline",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Status {
    /// The status of this name; a newer release may know others, which are not ours to judge.
    #[must_use]
    pub fn named(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

/// What happened to a resource, as `ResourceChanged.change` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Change {
    /// It was never seen before.
    Registered,
    /// Its labels, agent or parent are others now.
    LabelsChanged,
    /// It is idle, or not idle any more.
    StatusChanged,
    /// It has been silent for too long.
    Offline,
    /// It was offline, and is heard again.
    BackOnline,
    /// It was offline for so long that it is not kept any more.
    Forgotten,
}

impl Change {
    /// The name in events and on metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::LabelsChanged => "labels_changed",
            Self::StatusChanged => "status_changed",
            Self::Offline => "offline",
            Self::BackOnline => "back_online",
            Self::Forgotten => "forgotten",
        }
    }

    /// What it is called when the status goes from `before` to `after`.
    #[must_use]
    pub fn between(before: Status, after: Status) -> Option<Self> {
        match (before, after) {
            (before, after) if before == after => None,
            (_, Status::Offline) => Some(Self::Offline),
            (Status::Offline, Status::Online) => Some(Self::BackOnline),
            _ => Some(Self::StatusChanged),
        }
    }
}

/// How long a silence must be to mean something.
#[derive(Debug, Clone, Copy)]
pub struct Thresholds {
    pub idle_after: Duration,
    pub offline_after: Duration,
    /// Assumed of what may report seldom, until it was heard a few times.
    pub first_interval: Duration,
    /// The longest interval that is learned.
    pub longest_interval: Duration,
}

impl Thresholds {
    /// What is silent for longer than this is idle, when it reports every `interval`: one report may fail.
    #[must_use]
    pub fn idle(&self, interval: Interval) -> Nanos {
        nanos(self.idle_after).max(interval.0.saturating_mul(5) / 2)
    }

    /// What is silent for longer than this is offline, when it reports every `interval`.
    #[must_use]
    pub fn offline(&self, interval: Interval) -> Nanos {
        nanos(self.offline_after).max(interval.0.saturating_mul(5))
    }

    /// The status after a `silence`.
    #[must_use]
    pub fn status(&self, silence: Nanos, interval: Interval) -> Status {
        if silence <= self.idle(interval) {
            Status::Online
        } else if silence <= self.offline(interval) {
            Status::Idle
        } else {
            Status::Offline
        }
    }

    /// What is assumed of a source of this kind before it was heard twice. Programs that are instrumented export every minute
    /// unless they are told otherwise, and what only writes lines does so when it has something to say; agents and what they
    /// watch report every few seconds.
    #[must_use]
    pub fn assumed(&self, kind: &str) -> Interval {
        let seldom = matches!(kind, "app" | "otel" | "syslog" | "device");
        Interval(if seldom { nanos(self.first_interval) } else { 0 })
    }
}

/// How often a source reports, learned from the pauses between its signs of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Interval(Nanos);

impl Interval {
    /// Of so many nanoseconds.
    #[must_use]
    pub fn of(nanos: Nanos) -> Self {
        Self(nanos.max(0))
    }

    /// In nanoseconds.
    #[must_use]
    pub fn nanos(self) -> Nanos {
        self.0
    }

    /// After another `pause`. A longer one is believed at once, unless it was an outage; shorter ones wear it down slowly, so
    /// that a source which is sometimes late does not flap.
    #[must_use]
    pub fn after(self, pause: Nanos, thresholds: &Thresholds) -> Self {
        let longest = nanos(thresholds.longest_interval);
        if pause > thresholds.offline(self).saturating_mul(2) {
            return self;
        }
        let learned = if pause >= self.0 { pause } else { self.0 - (self.0 - pause) / 8 };
        Self(learned.clamp(0, longest))
    }

    /// Whether it differs enough from `other` to be worth writing down.
    #[must_use]
    pub fn is_news_beside(self, other: Self) -> bool {
        self.0.abs_diff(other.0) > (other.0 / 4).max(1_000_000_000).unsigned_abs()
    }
}

/// A duration in nanoseconds; longer than 292 years is as good as for ever.
#[must_use]
pub fn nanos(duration: Duration) -> Nanos {
    Nanos::try_from(duration.as_nanos()).unwrap_or(Nanos::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Nanos = 1_000_000_000;
    const THRESHOLDS: Thresholds = Thresholds {
        idle_after: Duration::from_secs(10),
        offline_after: Duration::from_secs(60),
        first_interval: Duration::from_secs(60),
        longest_interval: Duration::from_secs(300),
    };

    fn learned(kind: &str, pauses: &[Nanos]) -> Interval {
        let begin = THRESHOLDS.assumed(kind);
        pauses.iter().fold(begin, |interval, pause| interval.after(pause * SECOND, &THRESHOLDS))
    }

    #[test]
    fn silence_makes_idle_and_then_offline() {
        let after = |silence: Nanos| THRESHOLDS.status(silence * SECOND, Interval::default());
        assert_eq!(
            [after(0), after(10), after(11), after(60), after(61)].map(Status::as_str),
            ["online", "online", "idle", "idle", "offline"]
        );
        assert_eq!(after(-5), Status::Online, "a clock that is ahead");
    }

    #[test]
    fn what_reports_every_minute_is_online_for_its_minute_also_when_one_report_is_late() {
        let status = |interval, silence: Nanos| THRESHOLDS.status(silence * SECOND, interval);
        for interval in [THRESHOLDS.assumed("app"), learned("app", &[60, 61, 60]), learned("host", &[60, 60])] {
            assert_eq!(status(interval, 60), Status::Online);
            assert_eq!(status(interval, 125), Status::Online);
            assert_eq!(status(interval, 200), Status::Idle);
            assert_eq!(status(interval, 400), Status::Offline);
        }
    }

    #[test]
    fn what_turns_out_to_report_often_is_judged_by_that() {
        let often = learned("app", &[5; 40]);
        assert_eq!(THRESHOLDS.status(20 * SECOND, often), Status::Idle);
        assert_eq!(THRESHOLDS.status(61 * SECOND, often), Status::Offline);
    }

    #[test]
    fn an_outage_is_no_interval_and_nothing_is_waited_for_without_end() {
        assert_eq!(learned("host", &[5, 5, 3_600]), learned("host", &[5, 5]));
        assert!(learned("app", &[100, 200, 300, 500, 800, 1_000]).nanos() <= 300 * SECOND);
        assert_eq!(learned("host", &[-3]).nanos(), 0, "a clock that went back");
    }

    #[test]
    fn changes_of_status_have_names() {
        use Status::{Idle, Offline, Online};
        assert_eq!(Change::between(Online, Online), None);
        assert_eq!(Change::between(Online, Idle), Some(Change::StatusChanged));
        assert_eq!(Change::between(Idle, Offline), Some(Change::Offline));
        assert_eq!(Change::between(Offline, Online), Some(Change::BackOnline));
        assert_eq!(Change::between(Offline, Idle), Some(Change::StatusChanged));
    }
}
