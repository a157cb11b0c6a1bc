//! What an attempt says about its receiver. One that fails again and again is down: it is left alone for longer and longer,
//! and asked by one attempt at a time whether it is back. Pure.

use std::time::Duration;

use crate::delivery::{Backoff, Outcome};

/// Failed attempts after which a receiver counts as down.
pub const DOWN_AFTER: u32 = 3;

/// How the last attempt at a receiver left it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It took what was sent, or had something against that alone.
    Answers,
    /// It failed; `failures` now, and nothing is sent for so long.
    Ails {
        /// Failed attempts since it last answered, this one included.
        failures: u32,
        /// How long it is left alone.
        hold: Option<Duration>,
    },
}

/// How a receiver does after an attempt, which had failed `before` times since it last answered.
#[must_use]
pub fn health(outcome: &Outcome, before: u32, backoff: &Backoff, jitter: f64) -> Health {
    match outcome {
        Outcome::Answered { status, .. } if is_about_the_message(*status) => return Health::Answers,
        // Nobody was asked.
        Outcome::Impossible(_) => return Health::Ails { failures: before, hold: None },
        Outcome::Answered { .. } | Outcome::Unanswered(_) | Outcome::Barred(_) => {}
    }
    let failures = before.saturating_add(1);
    let rest = failures.checked_sub(DOWN_AFTER).map(|times| backoff.delay(times.saturating_add(1), jitter));
    let hold: Option<Duration> = [rest, outcome.asks_for()].into_iter().flatten().max();
    Health::Ails { failures, hold }
}

/// Whether the answer is about what was sent alone: taken, or not to its taste. 401, 403, 404 and the like would be the
/// answer to everything.
fn is_about_the_message(status: u16) -> bool {
    match status {
        200..=299 => true,
        400..=499 => !matches!(status, 401 | 403 | 404 | 407 | 408 | 425 | 429),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff {
        first: Duration::from_secs(1),
        most: Duration::from_secs(300),
        give_up: Duration::from_secs(12 * 3600),
        give_up_refused: Duration::from_secs(3600),
    };

    fn after(outcome: &Outcome, before: u32) -> Health {
        health(outcome, before, &BACKOFF, 0.5)
    }

    fn answered(status: u16) -> Outcome {
        Outcome::Answered { status, retry_after: None }
    }

    #[test]
    fn a_receiver_that_fails_is_left_alone_from_the_third_time_on_and_then_for_longer_and_longer() {
        let fails = Outcome::Unanswered("no answer".into());
        let hold = |before| match after(&fails, before) {
            Health::Ails { failures, hold } if failures == before + 1 => hold.map(|hold| hold.as_secs()),
            other => panic!("{other:?}"),
        };
        assert_eq!([0, 1, 2, 3, 4, 30].map(hold), [None, None, Some(1), Some(2), Some(4), Some(300)]);
    }

    #[test]
    fn who_asks_for_a_rest_gets_it_whatever_was_asked_for() {
        let busy = Outcome::Answered { status: 429, retry_after: Some(Duration::from_secs(30)) };
        assert_eq!(after(&busy, 0), Health::Ails { failures: 1, hold: Some(Duration::from_secs(30)) });
        assert_eq!(after(&busy, 12), Health::Ails { failures: 13, hold: Some(Duration::from_secs(300)) });
    }

    #[test]
    fn only_what_would_be_the_answer_to_everything_counts_against_a_receiver() {
        for status in [200, 204, 400, 410, 413, 422] {
            assert_eq!(after(&answered(status), 7), Health::Answers, "{status}");
        }
        for status in [301, 401, 403, 404, 408, 429, 500, 503] {
            assert!(matches!(after(&answered(status), 0), Health::Ails { failures: 1, .. }), "{status}");
        }
        assert_eq!(after(&Outcome::Impossible("x".into()), 2), Health::Ails { failures: 2, hold: None });
    }
}
