//! How far a threshold rule is with one series.

/// Times are Unix milliseconds of the samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Phase {
    /// The condition does not hold.
    #[default]
    Inactive,
    /// It holds, not for long enough yet.
    Pending { since_ms: i64 },
    /// It holds for long enough.
    Firing { since_ms: i64 },
}

/// What a sample changed for others to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Fires { since_ms: i64 },
    Resolves { since_ms: i64 },
}

impl Phase {
    /// The phase after a sample at `time_ms` for which the condition `holds` or not.
    pub(crate) fn after(self, holds: bool, time_ms: i64, for_ms: i64) -> (Self, Option<Change>) {
        let since_ms = match (self, holds) {
            (Self::Firing { since_ms }, false) => {
                return (Self::Inactive, Some(Change::Resolves { since_ms }));
            }
            (_, false) => return (Self::Inactive, None),
            (Self::Firing { .. }, true) => return (self, None),
            (Self::Pending { since_ms }, true) => since_ms,
            (Self::Inactive, true) => time_ms,
        };
        if time_ms >= since_ms.saturating_add(for_ms) {
            (Self::Firing { since_ms }, Some(Change::Fires { since_ms }))
        } else {
            (Self::Pending { since_ms }, None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds one letter a second: `x` holds, `.` does not. Writes F where it fires, R where it resolves.
    fn run(samples: &str, for_ms: i64) -> String {
        let mut phase = Phase::default();
        let times = (0..).map(|second| second * 1_000);
        let say = |(time, sample)| {
            let (next, change) = phase.after(sample == 'x', time, for_ms);
            phase = next;
            match change {
                Some(Change::Fires { .. }) => 'F',
                Some(Change::Resolves { .. }) => 'R',
                None => '-',
            }
        };
        times.zip(samples.chars()).map(say).collect()
    }

    #[test]
    fn it_fires_with_the_sample_at_which_the_time_is_over() {
        assert_eq!(run("xx.", 0), "F-R");
        assert_eq!(run("xxxxx.", 3_000), "---F-R");
        assert_eq!(run("xxxx", 2_500), "---F");
        assert_eq!(run("...", 0), "---");
    }

    #[test]
    fn a_sample_in_between_that_does_not_hold_starts_it_over() {
        assert_eq!(run("xx.xxx.x", 2_000), "-----FR-");
    }
}
