//! Every metric of auth.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// From a fast hash to a queue that is about to refuse.
const PASSWORD_BUCKETS: [f64; 9] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// How a login ended. The names stand in `login_attempts` too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefreshOutcome {
    /// A new pair of tokens.
    Rotated,
    /// The token had been used before: the session is over.
    Reused,
    /// Unknown, expired, revoked, or its user is disabled.
    Refused,
}

impl RefreshOutcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Rotated => "rotated",
            Self::Reused => "reused",
            Self::Refused => "refused",
        }
    }
}

impl EncodeLabelValue for LoginOutcome {
    fn encode(&self, encoder: &mut prometheus_client::encoding::LabelValueEncoder) -> std::fmt::Result {
        EncodeLabelValue::encode(&self.as_str(), encoder)
    }
}

impl EncodeLabelValue for RefreshOutcome {
    fn encode(&self, encoder: &mut prometheus_client::encoding::LabelValueEncoder) -> std::fmt::Result {
        EncodeLabelValue::encode(&self.as_str(), encoder)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LoginLabels {
    outcome: LoginOutcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefreshLabels {
    outcome: RefreshOutcome,
}

/// Clones count into the same metrics.
#[derive(Clone)]
pub struct Metrics {
    logins: Family<LoginLabels, Counter>,
    refreshes: Family<RefreshLabels, Counter>,
    /// Agents' tokens that were issued.
    pub agent_tokens: Counter,
    /// The wait for a hashing slot and the hash.
    pub password_seconds: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            logins: Family::default(),
            refreshes: Family::default(),
            agent_tokens: Counter::default(),
            password_seconds: Histogram::new(PASSWORD_BUCKETS),
        }
    }
}

impl Metrics {
    /// Metrics that `/metrics` shows.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("sightline_auth");
        registry.register("logins", "Login attempts by how they ended", metrics.logins.clone());
        registry.register("refreshes", "Uses of refresh tokens by how they ended", metrics.refreshes.clone());
        registry.register("agent_tokens", "Agents' tokens issued", metrics.agent_tokens.clone());
        registry.register(
            "password_seconds",
            "Time to hash a password, waiting included",
            metrics.password_seconds.clone(),
        );
        metrics
    }

    pub(crate) fn login(&self, outcome: LoginOutcome) {
        self.logins.get_or_create(&LoginLabels { outcome }).inc();
    }

    pub(crate) fn refresh(&self, outcome: RefreshOutcome) {
        self.refreshes.get_or_create(&RefreshLabels { outcome }).inc();
    }
}
