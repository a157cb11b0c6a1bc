//! How long a process that died waits before it is started again.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(10);
/// A process that lived this long has recovered: its next death starts from the beginning.
const HEALTHY: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub struct Backoff {
    last: Option<Duration>,
}

impl Backoff {
    /// The wait after a life of `lived`.
    pub fn after(&mut self, lived: Duration) -> Duration {
        let wait = match self.last {
            Some(last) if lived < HEALTHY => (last * 2).min(LONGEST),
            _ => FIRST,
        };
        self.last = Some(wait);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_ten_seconds() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..8).map(|_| backoff.after(Duration::from_secs(1)).as_millis()).collect();
        assert_eq!(waits, [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
    }

    #[test]
    fn a_long_life_forgives_earlier_deaths() {
        let mut backoff = Backoff::default();
        for _ in 0..5 {
            backoff.after(Duration::ZERO);
        }
        assert_eq!(backoff.after(Duration::from_secs(31)), FIRST);
        assert_eq!(backoff.after(Duration::from_secs(1)), FIRST * 2);
    }
}
