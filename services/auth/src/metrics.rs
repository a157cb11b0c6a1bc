//! Every metric of auth, and the words on them.

telemetry::metrics! {
    /// Clones count into the same metrics.
    pub struct Metrics in "sightline_auth" {
        /// Login attempts by how they ended
        pub logins: Counter by [outcome],
        /// Uses of refresh tokens by how they ended
        pub refreshes: Counter by [outcome],
        /// Agents' tokens issued
        pub agent_tokens: Counter,
        /// Revocations that hold: ended sessions and taken back tokens whose time is not over
        pub revocations: Gauge,
        /// Keys that verify tokens
        pub keys: Gauge,
        /// Limits judged by this replica alone, since Redis was away
        pub limits_alone: Counter,
        /// Time to hash a password, waiting included
        // From a fast hash to a queue that is about to refuse.
        pub password [Seconds]: Histogram = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0],
    }
}

/// How a login ended. The names stand in `login_attempts` too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginOutcome {
    /// Let in.
    Succeeded,
    /// A user who exists, with another password.
    WrongPassword,
    /// No user of that name.
    UnknownUser,
    /// The right password of a user who may not log in.
    Disabled,
    /// Not looked at.
    Limited,
}

impl LoginOutcome {
    /// The name in the record and on the metric.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::WrongPassword => "wrong_password",
            Self::UnknownUser => "unknown_user",
            Self::Disabled => "disabled",
            Self::Limited => "limited",
        }
    }
}

/// How a refresh ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefreshOutcome {
    /// A new pair of tokens.
    Rotated,
    /// The pair that the first use was given, a moment later.
    Repeated,
    /// The token had been used before: the session is over.
    Reused,
    /// Unknown, expired, revoked, or its user is disabled.
    Refused,
    /// Not looked at.
    Limited,
}

impl RefreshOutcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Rotated => "rotated",
            Self::Repeated => "repeated",
            Self::Reused => "reused",
            Self::Refused => "refused",
            Self::Limited => "limited",
        }
    }
}

impl Metrics {
    pub(crate) fn login(&self, outcome: LoginOutcome) {
        self.logins.of([outcome.as_str()]).inc();
    }

    pub(crate) fn refresh(&self, outcome: RefreshOutcome) {
        self.refreshes.of([outcome.as_str()]).inc();
    }

    #[cfg(test)]
    pub(crate) fn for_test() -> Self {
        Self::register(&mut telemetry::metrics::Registry::default())
    }
}
