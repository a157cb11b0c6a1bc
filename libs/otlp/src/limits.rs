//! What one item may be, and why one is not taken.

use model::{Disbelieved, Window};

/// The most attributes that a data point can be allowed: a series has 30 labels, of which ten may be ours (its name, tenant,
/// resource, kind, host, service, scope with version and attributes, a bucket's bound). What a store would cut is refused.
pub const MOST_POINT_ATTRIBUTES: usize = 20;
/// Bytes of labels that a series has beside those of its point, at most: names and values of our own labels, its name, and a
/// bound or quantile. `libs/series` cuts them to that.
pub const LABELS_OF_OURS: usize = 1_374;

/// What requests and their items may be at most. Each bounds what an accepted byte can become further on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Resources of a request: each is named, stamped and told of.
    pub resources: usize,
    /// Scopes of a resource.
    pub scopes: usize,
    /// Data points or log records of a request, refused ones and metrics without points included: each becomes a row or a
    /// sample, however small it is.
    pub items: usize,
    /// Attributes of a data point.
    pub point_attributes: usize,
    /// Attributes of a log record.
    pub record_attributes: usize,
    /// Bytes of an attribute's key.
    pub key_bytes: usize,
    /// Bytes of a data point's attribute value; a log record's are bounded by `item_bytes` alone.
    pub value_bytes: usize,
    /// Bytes of a data point's keys and values together: metrics stores keep no series of more than 64 KiB.
    pub label_bytes: usize,
    /// Bytes of a metric's name or unit, and of a scope's name or version: they are in labels of every series.
    pub name_bytes: usize,
    /// Bounds of a histogram's point, or quantiles of a summary's: each becomes a series.
    pub buckets: usize,
    /// Bytes of the labels of all series that one point becomes.
    pub series_bytes: usize,
    /// Bytes of a point or a record.
    pub item_bytes: usize,
    /// Bytes of what is repeated when a request is split: a resource, a scope, a metric without its points.
    pub header_bytes: usize,
}

impl Default for Limits {
    /// Any item with its headers fits into half a mebibyte.
    fn default() -> Self {
        Self {
            resources: 10_000,
            scopes: 10_000,
            items: 250_000,
            point_attributes: MOST_POINT_ATTRIBUTES,
            record_attributes: 256,
            key_bytes: 256,
            value_bytes: 4096,
            label_bytes: 32 << 10,
            name_bytes: 1024,
            buckets: 1_000,
            series_bytes: 2 << 20,
            item_bytes: 256 << 10,
            header_bytes: 64 << 10,
        }
    }
}

impl Limits {
    /// Bytes of the largest message with one item: its resource, scope, metric and the item.
    #[must_use]
    pub fn largest(&self) -> usize {
        self.header_bytes.saturating_mul(3).saturating_add(self.item_bytes)
    }

    /// Whether so many series with such labels are too much for one point.
    pub(crate) fn is_over(&self, label_bytes: usize, series: usize) -> bool {
        label_bytes.saturating_add(LABELS_OF_OURS).saturating_mul(series) > self.series_bytes
    }
}

/// What a gateway holds a request against.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// What items may be.
    pub limits: Limits,
    /// Which times are believed.
    pub times: Window,
}

/// Who asks.
#[derive(Clone, Copy)]
pub(crate) enum Mode<'r> {
    /// A gateway, which refuses items.
    Gateway(&'r Rules),
    /// A reader, which only has to know that it can read.
    Reader,
}

/// Why an item is not taken though its bytes are sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// A sum or histogram that is not cumulative.
    NotCumulative,
    /// An exponential histogram.
    ExponentialHistogram,
    /// A metric without a name.
    Unnamed,
    /// A name of more bytes than the limit.
    NameTooLong,
    /// More attributes than the limit.
    TooManyAttributes,
    /// A key or value longer than the limit.
    AttributeTooLong,
    /// A point, record or header of more bytes than the limit.
    TooLarge,
    /// More bounds or quantiles than the limit.
    TooManyBuckets,
    /// Attributes that together, or for so many buckets, are too many label bytes.
    TooManyLabelBytes,
    /// Bounds that do not rise, or counts that do not fit them.
    BrokenHistogram,
    /// A point that says nothing, or a metric of a kind that is not known, which counts as one.
    NoValue,
    /// A value that no store can keep.
    NotANumber,
    /// A time that lies ahead.
    TimeAhead,
    /// A time before what is kept.
    TimeTooOld,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 14] = [
        Self::NotCumulative,
        Self::ExponentialHistogram,
        Self::Unnamed,
        Self::NameTooLong,
        Self::TooManyAttributes,
        Self::AttributeTooLong,
        Self::TooLarge,
        Self::TooManyBuckets,
        Self::TooManyLabelBytes,
        Self::BrokenHistogram,
        Self::NoValue,
        Self::NotANumber,
        Self::TimeAhead,
        Self::TimeTooOld,
    ];

    /// A name for a metric's label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotCumulative => "not_cumulative",
            Self::ExponentialHistogram => "exponential_histogram",
            Self::Unnamed => "unnamed",
            Self::NameTooLong => "name_too_long",
            Self::TooManyAttributes => "too_many_attributes",
            Self::AttributeTooLong => "attribute_too_long",
            Self::TooLarge => "too_large",
            Self::TooManyBuckets => "too_many_buckets",
            Self::TooManyLabelBytes => "too_many_label_bytes",
            Self::BrokenHistogram => "broken_histogram",
            Self::NoValue => "no_value",
            Self::NotANumber => "not_a_number",
            Self::TimeAhead => "time_ahead",
            Self::TimeTooOld => "time_too_old",
        }
    }

    /// What the client should do about it.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Self::NotCumulative => "sums and histograms must have cumulative temporality",
            Self::ExponentialHistogram => "exponential histograms are not supported; use explicit buckets",
            Self::Unnamed => "a metric needs a name",
            Self::NameTooLong => "the name or unit of a metric, or the name of a scope, is too long",
            Self::TooManyAttributes => "too many attributes on one item",
            Self::AttributeTooLong => "an attribute's key or value is too long",
            Self::TooLarge => "a single item, or its metric, scope or resource, is too large",
            Self::TooManyBuckets => "too many buckets or quantiles in one point",
            Self::TooManyLabelBytes => "the attributes of one point are too long, together or for its many buckets",
            Self::BrokenHistogram => "a histogram's bounds must rise and its bucket counts must fit bounds and count",
            Self::NoValue => "a point has no value, or a metric is of no known kind",
            Self::NotANumber => "NaN is no value; mark a missing one with the flag for no recorded value",
            Self::TimeAhead => "times lie ahead of ours; check the clock, and that times are nanoseconds",
            Self::TimeTooOld => "times lie before what is kept; check the clock, and that times are nanoseconds",
        }
    }
}

impl From<Disbelieved> for Reason {
    fn from(wrong: Disbelieved) -> Self {
        match wrong {
            Disbelieved::Ahead | Disbelieved::Beyond => Self::TimeAhead,
            Disbelieved::TooOld | Disbelieved::Missing => Self::TimeTooOld,
        }
    }
}

/// How many items were refused, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Refusals([u64; Reason::ALL.len()]);

impl Refusals {
    /// Of all reasons together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Those reasons that occurred, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        Reason::ALL.into_iter().zip(self.0).filter(|(_, count)| *count > 0)
    }

    /// So many for one reason.
    pub(crate) fn all(reason: Reason, count: u64) -> Self {
        let mut all = Self::default();
        all.add(reason, count);
        all
    }

    pub(crate) fn add(&mut self, reason: Reason, count: u64) {
        self.0[reason as usize] += count;
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(mine, theirs)| *mine += theirs);
    }
}
