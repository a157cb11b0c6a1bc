//! The evaluation of one lane: what every rule thinks of every subject, and how new telemetry changes it. Pure: time is what
//! samples and gateways say, so that reading the same messages again decides the same.
//!
//! A **subject** is what a rule is about: a series, or a resource that writes lines. Only subjects that rules are about cost
//! anything ([`subjects`]); a series that no rule is about costs one look-up a sample ([`unwatched`]).
//!
//! The lane's own time is the newest receipt that it has read. It moves with every message, ticks included, and by nothing
//! else; what waits for it stands in order of when it is due.

mod audience;
mod capacity;
mod logs;
mod metrics;
mod restore;
mod slots;
mod subject;
mod subjects;
mod tell;
mod unwatched;

use std::sync::Arc;
use std::time::Duration;

use model::{Disbelieved, RecentBatches, Times};
use otlp::Invalid;
use uuid::Uuid;

use crate::budget::{Budgets, TOLD};
use crate::rule_set::RuleSet;
use crate::saved::Snapshot;
use crate::signal::Signal;
use crate::transition::{Decision, Id};

pub use restore::Restored;
pub use slots::Binding;

pub(crate) use subject::Firing;
pub(crate) use subjects::{Changes, PARTS, Part, part_subjects};

use audience::Audience;
use metrics::Watch;
use subjects::Subjects;

/// What an operator may change about deciding.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Which times are believed.
    pub times: Times,
    /// What was received so long after its own time is told to nobody, unless the rule says otherwise.
    pub lateness: Duration,
    /// Subjects without news for that long are forgotten.
    pub idle: Duration,
    /// Bytes of state that a lane keeps, about.
    pub state_bytes: usize,
    /// The same, of one tenant.
    pub tenant_state_bytes: usize,
    /// Looks at rules that one tenant's telemetry may cost in a second of the lane's time.
    pub tenant_work: u64,
    /// Decisions that a tenant's telemetry may make in a second of the lane's time, as [`crate::budget::Budget::telling`] counts them.
    pub tenant_decisions: u64,
    /// Bytes for the labels of series that a lane reads, about.
    pub series_cache_bytes: usize,
}

/// What an envelope came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Samples or log records read.
    pub items: u64,
    /// Times that a rule looked at one of them.
    pub evaluated: u64,
    /// Samples not newer than what was seen of their series, by rule.
    pub not_newer: u64,
    /// Samples and lines whose time is ahead of the gateway's, or beyond what a time can be.
    pub ahead: u64,
    /// Samples and lines older than what is kept.
    pub too_old: u64,
    /// Log records of batches that a client sent again.
    pub repeated: u64,
    /// Labels of resources that were left out of what travels with a transition.
    pub cut_labels: u64,
    /// Times that there was no room for a subject that a rule is about.
    pub over_capacity: u64,
    /// Samples and lines that were not looked at, or not to the end, since the tenant had no work left to spend.
    pub over_work: u64,
}

impl Tally {
    fn disbelieved(&mut self, why: Disbelieved) {
        match why {
            Disbelieved::Missing => {}
            Disbelieved::Ahead | Disbelieved::Beyond => self.ahead += 1,
            Disbelieved::TooOld => self.too_old += 1,
        }
    }
}

/// What all rules think of one lane's telemetry.
pub struct Evaluation {
    signal: Signal,
    limits: Limits,
    rules: Arc<RuleSet>,
    subjects: Subjects,
    watch: Watch,
    audience: Audience,
    budgets: Budgets,
    /// For showing what came to the rules that are about it, and telling what they decide: apart from `budgets`, since a
    /// successor must find everything once more and still decides the same.
    showing: Budgets,
    batches: RecentBatches,
    /// Whether `batches` is other than what was saved.
    batches_changed: bool,
}

impl Evaluation {
    /// Nothing seen yet; decisions are numbered from above `order`.
    #[must_use]
    pub fn new(signal: Signal, rules: Arc<RuleSet>, limits: Limits, order: u64) -> Self {
        Self {
            signal,
            limits,
            rules,
            subjects: Subjects::new(order),
            watch: Watch::new(limits.series_cache_bytes),
            audience: Audience::default(),
            budgets: Budgets::new(limits.tenant_work),
            showing: Budgets::new(limits.tenant_decisions.saturating_mul(TOLD)),
            batches: RecentBatches::default(),
            batches_changed: false,
        }
    }

    /// The rules in use.
    #[must_use]
    pub fn rules(&self) -> &Arc<RuleSet> {
        &self.rules
    }

    /// The number of the last decision.
    #[must_use]
    pub fn order(&self) -> u64 {
        self.subjects.order()
    }

    /// Bytes of state, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.subjects.bytes()
    }

    /// Evaluates an envelope's body of the lane's signal, which says that it has so many items.
    ///
    /// # Errors
    /// The bytes are no OTLP of that signal; then nothing but the time was evaluated.
    pub fn message(
        &mut self,
        tenant: &str,
        body: &[u8],
        items: u64,
        received: u64,
        decisions: &mut Vec<Decision>,
    ) -> Result<Tally, Invalid> {
        self.pass_time(received, decisions);
        let mut budget = self.budgets.of(tenant, self.subjects.now());
        let mut showing = self.showing.of(tenant, self.subjects.now());
        let tally = match self.signal {
            Signal::Metrics => self.metrics((tenant, received), (body, items), (&mut budget, &mut showing), decisions),
            Signal::Logs => self.logs((tenant, received), (body, items), (&mut budget, &mut showing), decisions),
        };
        self.showing.keep(tenant, showing);
        self.budgets.keep(tenant, budget);
        tally
    }

    /// The lane has come to this time: what waited for it happens.
    pub fn pass_time(&mut self, received: u64, decisions: &mut Vec<Decision>) {
        self.subjects.pass_time(received, &self.limits, decisions);
        self.audience.pass_time(received, self.limits.idle);
    }

    /// Goes on with other rules. What fired under an evaluated version that is no longer in force resolves, what was pending
    /// is forgotten; where only the presentation changed, everything stays as it is. Gives the rules whose firing is to be
    /// [said again](Self::some_again), since they show otherwise from now on.
    pub fn switch(&mut self, rules: Arc<RuleSet>, decisions: &mut Vec<Decision>) -> Vec<Uuid> {
        let shown = self.subjects.switch(&self.rules, &rules, &self.limits, decisions);
        self.watch.rules_changed();
        self.audience.rules_changed(&self.rules, &rules);
        self.rules = rules;
        shown
    }

    /// Takes what must be kept to go on from here, and counts it as kept: what changes from now on is for the next time.
    #[must_use]
    pub fn snapshot(&mut self) -> Snapshot {
        Snapshot {
            revision: self.rules.revision,
            stream_time: self.subjects.now(),
            order: self.subjects.order(),
            batches: std::mem::take(&mut self.batches_changed).then(|| self.batches.iter().collect()),
            subjects: self.subjects.take_changes(),
        }
    }

    /// These parts of a snapshot, and its batches, were not saved after all.
    pub fn unsaved(&mut self, parts: &[usize]) {
        self.subjects.unsaved(parts);
        self.batches_changed = self.signal == Signal::Logs;
    }

    /// Everything that fires, by rule and subject, with the newest transition that said so.
    pub fn firing(&self) -> impl Iterator<Item = Fires<'_>> {
        self.subjects.firing()
    }

    /// How many things fire.
    #[must_use]
    pub fn firing_count(&self) -> usize {
        self.subjects.firing_count()
    }

    /// Keys of firing things behind `after`, in order, starting over at the end; `count` at the most.
    #[must_use]
    pub fn firing_behind(&self, after: Option<(Uuid, u64)>, count: usize) -> Vec<(Uuid, u64)> {
        self.subjects.firing_behind(after, count)
    }

    /// Says again what was said when a thing began to fire, with the rule as it shows today; nothing when it no longer does.
    #[must_use]
    pub fn again(&self, rule: Uuid, subject: u64) -> Option<Decision> {
        self.subjects.again(rule, subject)
    }

    /// The same of the next `count` subjects for which a rule fires, in order, beginning with `from`; and where it goes on.
    #[must_use]
    pub fn some_again(&self, rule: Uuid, from: u64, count: usize) -> (Vec<Decision>, Option<u64>) {
        self.subjects.some_again(rule, from, count)
    }

    /// How many subjects each rule is about, in no order.
    #[must_use]
    pub fn bindings(&self) -> Vec<Binding> {
        match self.signal {
            Signal::Metrics => self.subjects.bindings(),
            Signal::Logs => self.audience.bindings(&self.rules, self.subjects.bindings()),
        }
    }
}

/// One thing that fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fires<'a> {
    /// Whose it is.
    pub tenant: &'a str,
    /// Which rule.
    pub rule: Uuid,
    /// Which subject.
    pub subject: u64,
    /// The transition that said so.
    pub transition: Id,
}

#[cfg(test)]
mod tests;
