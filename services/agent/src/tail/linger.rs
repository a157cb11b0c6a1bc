//! When the lines that were read go on their way as one request.
//!
//! Each request costs gateway, broker and store some work of its own, whatever it holds. So the first line after a quiet
//! time goes at once, and those that follow closely travel together.

use std::time::{Duration, Instant};

#[derive(Debug, Clone, Copy)]
pub struct Linger {
    /// How long a line may wait for others.
    pub longest: Duration,
    /// Lines of this size wait for no others.
    pub bytes: usize,
}

/// When more requests than this wait for a gateway, it is away or slow: small ones would only fill the spool's folder.
const CROWD: usize = 8;
const CROWD_FACTOR: u32 = 8;

/// The lines that wait.
#[derive(Debug, Clone, Copy)]
pub struct Waiting {
    pub bytes: usize,
    /// Since when the first of them waits.
    pub since: Instant,
    /// When the last request went.
    pub last: Option<Instant>,
    /// Requests that no gateway has acknowledged.
    pub on_their_way: usize,
}

impl Linger {
    pub fn is_over(&self, waiting: Waiting, now: Instant) -> bool {
        let passed = |since: Instant, time: Duration| now.saturating_duration_since(since) >= time;
        let quiet = waiting.on_their_way == 0 && waiting.last.is_none_or(|last| passed(last, self.longest));
        let longest = if waiting.on_their_way > CROWD { self.longest * CROWD_FACTOR } else { self.longest };
        quiet || waiting.bytes >= self.bytes || passed(waiting.since, longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINGER: Linger = Linger { longest: Duration::from_millis(250), bytes: 1000 };

    fn at(begin: Instant, millis: u64) -> Instant {
        begin + Duration::from_millis(millis)
    }

    #[test]
    fn the_first_line_goes_at_once_and_its_followers_go_together() {
        let begin = Instant::now();
        let waiting = |since, last, on_their_way| Waiting { bytes: 10, since, last, on_their_way };
        assert!(LINGER.is_over(waiting(begin, None, 0), begin));
        let last = Some(begin);
        assert!(!LINGER.is_over(waiting(at(begin, 50), last, 1), at(begin, 50)));
        // Also when the answer comes sooner than the next line: a steady trickle is no series of first lines.
        assert!(!LINGER.is_over(waiting(at(begin, 50), last, 0), at(begin, 249)));
        assert!(LINGER.is_over(waiting(at(begin, 50), last, 0), at(begin, 250)));
        assert!(LINGER.is_over(waiting(at(begin, 50), last, 1), at(begin, 300)));
    }

    #[test]
    fn much_waits_for_nothing() {
        let begin = Instant::now();
        let waiting = Waiting { bytes: 1000, since: begin, last: Some(begin), on_their_way: 99 };
        assert!(LINGER.is_over(waiting, begin));
    }

    #[test]
    fn while_no_gateway_answers_requests_become_fewer_and_larger() {
        let begin = Instant::now();
        let waiting = Waiting { bytes: 10, since: begin, last: Some(begin), on_their_way: CROWD + 1 };
        assert!(!LINGER.is_over(waiting, at(begin, 1000)));
        assert!(LINGER.is_over(waiting, at(begin, 2000)));
    }
}
