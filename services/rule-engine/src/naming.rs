//! Who a subject is: what identifies it, and what is said of it besides. Pure.

use std::sync::Arc;

use series::Series;

/// Labels of a series that describe its resource or its source, and tell no two series apart that are not told apart anyway.
const DESCRIPTIVE: [&str; 4] = ["host_name", "kind", "otel_scope_version", "service_name"];

/// Who a subject is: labels sorted by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Labels {
    /// What makes it this subject and no other.
    pub identifying: Vec<(String, String)>,
    /// What is said of it besides.
    pub descriptive: Vec<(String, String)>,
}

impl Labels {
    /// The value of a label, `""` where it has none.
    #[must_use]
    pub fn get(&self, name: &str) -> &str {
        let mut all = self.identifying.iter().chain(&self.descriptive);
        all.find(|(label, _)| label == name).map_or("", |(_, value)| value)
    }
}

/// Where a subject's labels are.
#[derive(Debug, Clone)]
pub enum Naming {
    /// Not seen since the snapshot, and nothing fires there.
    Unseen,
    /// In the series that it was last seen as.
    Series(Arc<Series>),
    /// By themselves.
    Labels(Arc<Labels>),
}

impl Naming {
    /// The labels themselves.
    pub(crate) fn labels(&self) -> Labels {
        match self {
            Self::Unseen => Labels::default(),
            Self::Labels(labels) => Labels::clone(labels),
            Self::Series(series) => {
                let is_bare = series.resource_id().is_empty();
                let pairs = series.labels().filter(|(name, _)| *name != "tenant");
                let owned = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
                let (identifying, descriptive) = owned.partition(|(name, _)| is_bare || !describes(name));
                Labels { identifying, descriptive }
            }
        }
    }

    /// Bytes that it takes, about; a series is shared with those who read it.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Unseen => 0,
            Self::Series(series) => series.encoded().len(),
            Self::Labels(labels) => {
                let all = labels.identifying.iter().chain(&labels.descriptive);
                all.map(|(name, value)| name.len() + value.len() + 48).sum()
            }
        }
    }
}

/// Hash of what identifies a series: a renamed host or a new version of a library is the same subject.
pub(crate) fn identity(series: &Series) -> u64 {
    let is_bare = series.resource_id().is_empty();
    let labels = series.labels().filter(|(name, _)| is_bare || *name == "tenant" || !describes(name));
    model::series_hash(labels)
}

fn describes(name: &str) -> bool {
    DESCRIPTIVE.contains(&name)
}
