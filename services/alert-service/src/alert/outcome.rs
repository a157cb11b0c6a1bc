//! What became of an alert, in the words of tables, metrics and messages.

/// What a transition, a round or a person did to an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The first time that this rule fires for this series.
    Opened,
    /// It fires again after it was over.
    Reopened,
    /// It was firing already; what is known of it was renewed.
    Refreshed,
    /// It is over.
    Resolved,
    /// What was decided after it was heard before: nothing changed.
    Overtaken,
    /// An end whose beginning never came: nobody was told.
    Unmatched,
    /// The end of what somebody, or nobody's word, had ended before.
    Over,
    /// Its shard did not confirm it any more.
    Lost,
    /// Somebody ended it.
    ByHand,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Opened,
        Self::Reopened,
        Self::Refreshed,
        Self::Resolved,
        Self::Overtaken,
        Self::Unmatched,
        Self::Over,
        Self::Lost,
        Self::ByHand,
    ];

    /// The outcome in tables and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Reopened => "reopened",
            Self::Refreshed => "refreshed",
            Self::Resolved => "resolved",
            Self::Overtaken => "overtaken",
            Self::Unmatched => "unmatched",
            Self::Over => "over",
            Self::Lost => "lost",
            Self::ByHand => "resolved_by_hand",
        }
    }

    /// Whether the alert is another one afterwards, for those who follow alerts.
    #[must_use]
    pub const fn is_news(self) -> bool {
        !matches!(self, Self::Overtaken | Self::Unmatched | Self::Over)
    }
}
