//! What happens often and is worth a line in the log now and then.

use std::time::{Duration, Instant};

/// When something was said last, and how much of it was not said since.
#[derive(Debug, Default)]
pub(crate) struct Rarely {
    last: Option<Instant>,
    unsaid: u64,
}

impl Rarely {
    /// It happened `count` times more. Gives how many were not said since the last time, these included, when it is time to
    /// speak, once in `every`.
    pub(crate) fn happened(&mut self, count: u64, every: Duration, now: Instant) -> Option<u64> {
        self.unsaid += count;
        if !self.is_over(every, now) {
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }

    /// Whether it was not said for long enough.
    pub(crate) fn is_over(&self, every: Duration, now: Instant) -> bool {
        self.last.is_none_or(|last| now.saturating_duration_since(last) >= every)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_at_once_and_then_together_with_what_was_not() {
        let (mut rarely, every, now) = (Rarely::default(), Duration::from_secs(10), Instant::now());
        assert_eq!(rarely.happened(2, every, now), Some(2));
        assert_eq!(rarely.happened(1, every, now + every / 2), None);
        assert_eq!(rarely.happened(3, every, now + every), Some(4));
    }
}
