//! One subject and what rules think of it.

use std::sync::Arc;

use crate::kinds::State;
use crate::naming::{Labels, Naming};
use crate::rule::Rule;
use crate::saved::{SavedBound, SavedFiring, SavedSubject, flat};
use crate::transition::{Facts, Id};

/// What rules are about. Times are Unix nanoseconds of the lane.
#[derive(Clone)]
pub(super) struct Subject {
    pub(super) tenant: Arc<str>,
    pub(super) naming: Naming,
    /// When it was last heard of.
    pub(super) seen: u64,
    /// When it is looked at next; other places in the queue are stale.
    pub(super) queued: u64,
    /// Room that it takes.
    pub(super) bytes: usize,
    /// The hash of the series under which it was last seen; 0 where it was not.
    pub(super) alias: u64,
    /// In the order of the rules' ids.
    pub(super) bound: Vec<Bound>,
    /// What rules think of it that this version does not understand.
    pub(super) carried: Vec<SavedBound>,
}

/// A rule and what it thinks.
#[derive(Clone)]
pub(super) struct Bound {
    /// The rule's slot.
    pub(super) slot: u32,
    pub(super) state: State,
    pub(super) last: Last,
}

/// The last decision of a rule about a subject.
#[derive(Debug, Clone)]
pub(super) enum Last {
    Unknown,
    Ended(Box<Id>),
    Firing(Box<Firing>),
}

/// What was said when it began to fire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Firing {
    pub(crate) id: Id,
    pub(crate) previous: Option<Id>,
    pub(crate) order: u64,
    pub(crate) facts: Facts,
}

impl Last {
    pub(super) fn id(&self) -> Option<Id> {
        match self {
            Self::Unknown => None,
            Self::Ended(id) => Some(**id),
            Self::Firing(firing) => Some(firing.id),
        }
    }

    pub(super) fn firing(&self) -> Option<&Firing> {
        match self {
            Self::Firing(firing) => Some(firing),
            _ => None,
        }
    }
}

impl Subject {
    /// As it is saved; `rules` are those of the slots.
    pub(super) fn save(&self, id: u64, rules: &[Option<Arc<Rule>>]) -> SavedSubject {
        let mut bound: Vec<SavedBound> = self.bound.iter().filter_map(|bound| bound.save(rules)).collect();
        bound.extend(self.carried.iter().cloned());
        let fires = bound.iter().any(|bound| bound.firing.is_some());
        let labels = if fires { self.naming.labels() } else { Labels::default() };
        SavedSubject {
            id,
            tenant: self.tenant.to_string(),
            seen: self.seen,
            queued: self.queued,
            identifying: flat(labels.identifying),
            descriptive: flat(labels.descriptive),
            bound,
        }
    }
}

impl Bound {
    fn save(&self, rules: &[Option<Arc<Rule>>]) -> Option<SavedBound> {
        let rule = rules.get(usize::try_from(self.slot).ok()?)?.as_ref()?;
        let (form, state) = self.state.to_bytes();
        Some(SavedBound {
            rule_id: rule.id.into_bytes().to_vec(),
            evaluated_version: rule.evaluated_version,
            kind: self.state.kind().to_owned(),
            form,
            state,
            last: self.last.id().map(|id| id.to_vec()).unwrap_or_default(),
            firing: self.last.firing().map(SavedFiring::of),
        })
    }
}
