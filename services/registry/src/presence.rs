//! Whether a resource is there: pure rules over its last sign of life.

use std::fmt;
use std::str::FromStr;
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

/// The text names no status.
#[derive(Debug, thiserror::Error)]
#[error("a status is online, idle or offline")]
pub struct InvalidStatus;

impl FromStr for Status {
    type Err = InvalidStatus;

    fn from_str(text: &str) -> Result<Self, InvalidStatus> {
        Self::ALL.into_iter().find(|status| status.as_str() == text).ok_or(InvalidStatus)
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
}

impl Thresholds {
    /// The status at `now` of what was last heard at `last_seen`.
    #[must_use]
    pub fn status(&self, last_seen: Nanos, now: Nanos) -> Status {
        if last_seen >= self.idle_from(now) {
            Status::Online
        } else if last_seen >= self.offline_from(now) {
            Status::Idle
        } else {
            Status::Offline
        }
    }

    /// What was last heard before this is idle at `now`.
    #[must_use]
    pub fn idle_from(&self, now: Nanos) -> Nanos {
        now.saturating_sub(nanos(self.idle_after))
    }

    /// What was last heard before this is offline at `now`.
    #[must_use]
    pub fn offline_from(&self, now: Nanos) -> Nanos {
        now.saturating_sub(nanos(self.offline_after))
    }
}

/// A time during which silence proves nothing, because heartbeats could not be left or were lost.
#[derive(Debug, Clone, Copy, Default)]
pub struct Grace {
    until: Nanos,
}

impl Grace {
    /// Silence proves nothing until `length` after `now`.
    pub fn begin(&mut self, now: Nanos, length: Duration) {
        self.until = self.until.max(now.saturating_add(nanos(length)));
    }

    /// The status to believe: during grace, only what is better than before.
    #[must_use]
    pub fn judge(&self, before: Status, after: Status, now: Nanos) -> Status {
        let rank = |status| Status::ALL.into_iter().position(|each| each == status);
        if now < self.until && rank(after) > rank(before) { before } else { after }
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
    const THRESHOLDS: Thresholds =
        Thresholds { idle_after: Duration::from_secs(10), offline_after: Duration::from_secs(60) };

    #[test]
    fn silence_makes_idle_and_then_offline() {
        let now = 1_000 * SECOND;
        let after = |silence: Nanos| THRESHOLDS.status(now - silence * SECOND, now);
        assert_eq!(
            [after(0), after(10), after(11), after(60), after(61)].map(Status::as_str),
            ["online", "online", "idle", "idle", "offline"]
        );
        assert_eq!(after(-5), Status::Online, "a clock that is ahead");
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

    #[test]
    fn during_grace_things_only_get_better() {
        let mut grace = Grace::default();
        assert_eq!(grace.judge(Status::Online, Status::Offline, 5), Status::Offline);
        grace.begin(5, Duration::from_nanos(10));
        assert_eq!(grace.judge(Status::Online, Status::Offline, 14), Status::Online);
        assert_eq!(grace.judge(Status::Offline, Status::Online, 14), Status::Online);
        assert_eq!(grace.judge(Status::Idle, Status::Offline, 15), Status::Offline);
    }
}
