//! Why a point has no series.

use model::Disbelieved;

/// Why a point is passed over. Gateways refuse all of these but [`Skip::NameTaken`], so that the client is told; readers
/// count what comes through all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Skip {
    /// The metric has no name.
    Unnamed,
    /// A sum or histogram that is not cumulative.
    NotCumulative,
    /// An exponential histogram.
    Exponential,
    /// No value.
    NoValue,
    /// NaN, which stores drop.
    NotANumber,
    /// More labels than [`crate::MAX_LABELS`].
    TooManyLabels,
    /// More buckets, quantiles or bytes of labels than a point may come to.
    TooLarge,
    /// Bounds that do not rise, or another number of buckets than the bounds make.
    BrokenHistogram,
    /// Another instrument's or attribute's name is stored alike (`x.y` and `x_y`), and stands before it in the envelope.
    NameTaken,
    /// Its time is not believed.
    Time(Disbelieved),
}

impl Skip {
    const ALL: [Self; 13] = [
        Self::Unnamed,
        Self::NotCumulative,
        Self::Exponential,
        Self::NoValue,
        Self::NotANumber,
        Self::TooManyLabels,
        Self::TooLarge,
        Self::BrokenHistogram,
        Self::NameTaken,
        Self::Time(Disbelieved::Missing),
        Self::Time(Disbelieved::Ahead),
        Self::Time(Disbelieved::TooOld),
        Self::Time(Disbelieved::Beyond),
    ];

    /// A name for a metric's label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unnamed => "unnamed",
            Self::NotCumulative => "not_cumulative",
            Self::Exponential => "exponential_histogram",
            Self::NoValue => "no_value",
            Self::NotANumber => "not_a_number",
            Self::TooManyLabels => "too_many_labels",
            Self::TooLarge => "too_large",
            Self::BrokenHistogram => "broken_histogram",
            Self::NameTaken => "name_taken",
            Self::Time(Disbelieved::Missing) => "time_missing",
            Self::Time(Disbelieved::Ahead) => "time_ahead",
            Self::Time(Disbelieved::TooOld) => "time_too_old",
            Self::Time(Disbelieved::Beyond) => "time_beyond",
        }
    }

    fn place(self) -> usize {
        Self::ALL.iter().position(|skip| *skip == self).unwrap_or_default()
    }
}

/// How many points were passed over, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Skipped([u64; Skip::ALL.len()]);

impl Skipped {
    pub(crate) fn add(&mut self, skip: Skip) {
        self.0[skip.place()] += 1;
    }

    /// Of all reasons together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The reasons that occurred, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (Skip, u64)> {
        Skip::ALL.into_iter().zip(self.0).filter(|(_, count)| *count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_counted_apart() {
        let mut skipped = Skipped::default();
        Skip::ALL.into_iter().for_each(|skip| skipped.add(skip));
        skipped.add(Skip::NameTaken);
        assert_eq!(skipped.total(), 14);
        assert!(skipped.iter().all(|(skip, count)| count == 1 + u64::from(skip == Skip::NameTaken)));
        let mut names: Vec<&str> = Skip::ALL.into_iter().map(Skip::as_str).collect();
        names.dedup();
        assert_eq!(names.len(), Skip::ALL.len());
    }
}
