//! What an attempt's outcome means for its delivery. Pure: no clock, no network, no database.

use std::time::Duration;

/// The longest wait that a receiver can ask for.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// It will be tried.
    Pending,
    /// The receiver has it.
    Delivered,
    /// It was given up.
    Failed,
    /// The receiver has had something newer of the same group.
    Superseded,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Delivered, Self::Failed, Self::Superseded];

    /// The state in messages and tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Superseded => "superseded",
        }
    }

    /// The state of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

/// How one attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver answered.
    Answered {
        /// Its HTTP status.
        status: u16,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// No answer came; later one may.
    Unanswered(String),
    /// It was not tried, because of how things are now: an address that is not allowed, a secret that cannot be read.
    Barred(String),
    /// It can never be tried.
    Impossible(String),
}

impl Outcome {
    /// The status that came, or 0.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::Answered { status, .. } => *status,
            Self::Unanswered(_) | Self::Barred(_) | Self::Impossible(_) => 0,
        }
    }

    /// How long the receiver wants to be left alone; nobody can ask for more than an hour.
    #[must_use]
    pub fn asks_for(&self) -> Option<Duration> {
        match self {
            Self::Answered { retry_after, .. } => retry_after.map(|asked| asked.min(LONGEST_RETRY_AFTER)),
            Self::Unanswered(_) | Self::Barred(_) | Self::Impossible(_) => None,
        }
    }

    /// What went wrong, for people; empty when nothing did.
    #[must_use]
    pub fn error(&self) -> String {
        match self {
            Self::Answered { status: 200..=299, .. } => String::new(),
            Self::Answered { status: 300..=399, .. } => "the receiver redirects, which is not followed".to_owned(),
            Self::Answered { status, .. } => format!("the receiver answered {status}"),
            Self::Unanswered(error) | Self::Barred(error) | Self::Impossible(error) => error.clone(),
        }
    }
}

/// How failures are repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Wait after the first failure; each further one doubles it.
    pub first: Duration,
    /// The longest wait.
    pub most: Duration,
    /// Age at which a delivery is given up.
    pub give_up: Duration,
    /// Age at which one is given up that the receiver refuses: it may be deployed, or given another secret, just now.
    pub give_up_refused: Duration,
}

impl Backoff {
    /// The wait after attempt `number` (from 1). `jitter` in 0..1 spreads it from three to five quarters, so that what
    /// failed together does not come back together.
    #[must_use]
    pub fn delay(&self, number: u32, jitter: f64) -> Duration {
        let doubled = 2_u32.saturating_pow(number.saturating_sub(1).min(31));
        self.first.saturating_mul(doubled).min(self.most).mul_f64(0.75 + jitter.clamp(0.0, 1.0) / 2.0)
    }
}

/// What is to be done after an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Nothing: it arrived.
    Delivered,
    /// Nothing: it never will, because of this.
    Failed(String),
    /// Try again after this time.
    Retry(Duration),
}

/// Decides after attempt `number` of a delivery that is `age` old.
#[must_use]
pub fn next(outcome: &Outcome, number: u32, age: Duration, backoff: &Backoff, jitter: f64) -> Next {
    let patience = match outcome {
        Outcome::Answered { status: 200..=299, .. } => return Next::Delivered,
        // The one answer that says "never again".
        Outcome::Answered { status: 410, .. } => return Next::Failed(outcome.error()),
        Outcome::Impossible(error) => return Next::Failed(error.clone()),
        Outcome::Answered { status: 400..=499, .. } if !is_passing(outcome.status()) => backoff.give_up_refused,
        Outcome::Barred(_) => backoff.give_up_refused,
        Outcome::Answered { .. } | Outcome::Unanswered(_) => backoff.give_up,
    };
    let delay = backoff.delay(number, jitter).max(outcome.asks_for().unwrap_or_default());
    if age.saturating_add(delay) > patience.min(backoff.give_up) {
        let times = if number == 1 { "1 attempt".to_owned() } else { format!("{number} attempts") };
        return Next::Failed(format!("given up after {times}: {}", outcome.error()));
    }
    Next::Retry(delay)
}

/// 408, 425 and 429 say "not now".
fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 425 | 429)
}

/// The id of a notification's delivery to one receiver: the same at every attempt and in every process.
#[must_use]
pub fn id(notification_id: &str, receiver: &str) -> String {
    format!("msg_{}", model::digest(&[notification_id, receiver]))
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

    fn answered(status: u16) -> Outcome {
        Outcome::Answered { status, retry_after: None }
    }

    fn after(outcome: &Outcome, number: u32, age: u64) -> Next {
        next(outcome, number, Duration::from_secs(age), &BACKOFF, 0.5)
    }

    #[test]
    fn the_wait_doubles_up_to_its_most_and_is_spread() {
        let middle = |number| BACKOFF.delay(number, 0.5).as_secs();
        assert_eq!([1, 2, 3, 9, 10, 40, u32::MAX].map(middle), [1, 2, 4, 256, 300, 300, 300]);
        assert_eq!(BACKOFF.delay(1, 0.0), Duration::from_millis(750));
        assert_eq!(BACKOFF.delay(1, 1.0), Duration::from_millis(1250));
    }

    #[test]
    fn a_success_ends_it_and_so_does_what_can_never_be() {
        for status in [200, 202, 204, 299] {
            assert_eq!(after(&answered(status), 1, 0), Next::Delivered);
        }
        assert_eq!(after(&answered(410), 1, 0), Next::Failed("the receiver answered 410".to_owned()));
        let impossible = Outcome::Impossible("no such message".to_owned());
        assert_eq!(after(&impossible, 1, 0), Next::Failed("no such message".to_owned()));
    }

    #[test]
    fn what_is_refused_is_tried_for_a_while_since_receivers_are_deployed_and_given_secrets() {
        for status in [400, 401, 403, 404, 413, 422] {
            assert_eq!(after(&answered(status), 1, 0), Next::Retry(Duration::from_secs(1)), "{status}");
            let Next::Failed(error) = after(&answered(status), 9, 3600) else { panic!("goes on") };
            assert_eq!(error, format!("given up after 9 attempts: the receiver answered {status}"));
        }
        let barred = Outcome::Barred("the address is private".to_owned());
        assert_eq!(after(&barred, 2, 60), Next::Retry(Duration::from_secs(2)));
        assert!(matches!(after(&barred, 2, 3600), Next::Failed(_)));
    }

    #[test]
    fn trouble_that_may_pass_is_tried_again() {
        for status in [301, 408, 425, 429, 500, 503] {
            assert_eq!(after(&answered(status), 1, 0), Next::Retry(Duration::from_secs(1)), "{status}");
        }
        assert_eq!(after(&Outcome::Unanswered("refused".into()), 3, 0), Next::Retry(Duration::from_secs(4)));
    }

    #[test]
    fn a_receiver_may_ask_for_a_longer_wait_but_not_for_any() {
        let asks = |seconds| Outcome::Answered { status: 503, retry_after: Some(Duration::from_secs(seconds)) };
        assert_eq!(after(&asks(30), 1, 0), Next::Retry(Duration::from_secs(30)));
        assert_eq!(after(&asks(0), 2, 0), Next::Retry(Duration::from_secs(2)));
        assert_eq!(after(&asks(u64::MAX), 1, 0), Next::Retry(Duration::from_secs(3600)));
    }

    #[test]
    fn it_is_given_up_with_the_last_error() {
        let Next::Failed(error) = after(&answered(503), 140, 12 * 3600) else { panic!("goes on") };
        assert_eq!(error, "given up after 140 attempts: the receiver answered 503");
    }

    #[test]
    fn the_id_depends_on_notification_and_receiver_alone() {
        assert_eq!(id("n", "ops"), id("n", "ops"));
        assert_ne!(id("n", "ops"), id("no", "ps"));
        assert_eq!(id("n", "ops").len(), 36);
    }
}
