//! Series and their samples. Which rules are about a series is decided once, at its first sight or after rules changed.

use std::collections::HashMap;
use std::sync::Arc;

use otlp::Invalid;
use series::{NameKey, Series};

use super::subjects::{Alias, Subjects};
use super::unwatched::Unwatched;
use super::{Evaluation, Limits, Tally};
use crate::budget::Budget;
use crate::kinds::metric::Sample;
use crate::naming::{Naming, identity};
use crate::rule_set::RuleSet;
use crate::transition::Decision;

/// Metrics whose names are remembered in parts.
const NAMES: usize = 16 * 1024;
/// After so long, what there was no room for is tried again.
const TRY_AGAIN: u64 = 60 * 1_000_000_000;

/// What is remembered of series to find their rules soon; none of it decides anything.
pub(super) struct Watch {
    reader: series::Reader,
    unwatched: Unwatched,
    names: HashMap<Box<str>, Arc<[NameKey]>>,
    /// Rises when what is known of series may no longer be so.
    generation: u64,
    /// When the first series was refused for want of room; 0 when none was.
    refused_at: u64,
}

impl Watch {
    /// Remembers so many bytes of series.
    pub(super) fn new(series_bytes: usize) -> Self {
        Self {
            reader: series::Reader::new(series_bytes),
            unwatched: Unwatched::default(),
            names: HashMap::new(),
            generation: 1,
            refused_at: 0,
        }
    }

    pub(super) fn rules_changed(&mut self) {
        self.generation += 1;
        self.unwatched.clear();
        self.refused_at = 0;
    }

    fn pass_time(&mut self, now: u64) {
        if self.refused_at != 0 && now >= self.refused_at.saturating_add(TRY_AGAIN) {
            self.rules_changed();
        }
    }
}

/// What it takes to find the subject of a series.
struct Finder<'a> {
    rules: &'a RuleSet,
    limits: &'a Limits,
    subjects: &'a mut Subjects,
    unwatched: &'a mut Unwatched,
    names: &'a mut HashMap<Box<str>, Arc<[NameKey]>>,
    generation: u64,
    refused_at: &'a mut u64,
    budget: &'a mut Budget,
    showing: &'a mut Budget,
}

impl Evaluation {
    pub(super) fn metrics(
        &mut self,
        (tenant, received): (&str, u64),
        (body, items): (&[u8], u64),
        (budget, showing): (&mut Budget, &mut Budget),
        decisions: &mut Vec<Decision>,
    ) -> Result<Tally, Invalid> {
        let mut tally = Tally::default();
        if !self.rules.is_about_metrics_of(tenant) {
            tally.items = items;
            return Ok(tally);
        }
        let watch = &mut self.watch;
        watch.pass_time(self.subjects.now());
        let mut finder = Finder {
            rules: &self.rules,
            limits: &self.limits,
            subjects: &mut self.subjects,
            unwatched: &mut watch.unwatched,
            names: &mut watch.names,
            generation: watch.generation,
            refused_at: &mut watch.refused_at,
            budget,
            showing,
        };
        watch.reader.read(tenant, body, received, |sample| {
            tally.items += 1;
            if finder.unwatched.has(sample.series.hash) {
                return;
            }
            if let Some(subject) = finder.find(sample.series, &mut tally, decisions) {
                finder.show(subject, &sample, received, &mut tally, decisions);
            }
        })?;
        Ok(tally)
    }
}

impl Finder<'_> {
    fn show(
        &mut self,
        subject: u64,
        sample: &series::Sample<'_>,
        received: u64,
        tally: &mut Tally,
        decisions: &mut Vec<Decision>,
    ) {
        let nanos = u64::try_from(sample.time_ms).unwrap_or(0).saturating_mul(1_000_000);
        if let Err(why) = self.limits.times.judge(nanos, received) {
            tally.disbelieved(why);
            return;
        }
        if self.showing.left() == 0 {
            tally.over_work += 1;
            return;
        }
        let seen = Sample { time_ms: sample.time_ms, value: sample.value, is_stale: sample.is_stale() };
        let (evaluated, decided) = (tally.evaluated, decisions.len());
        let asides = (self.limits, &mut *tally, &mut *decisions);
        self.subjects.show(subject, None, (nanos, received), asides, |kind, state| kind.on_sample(state, seen));
        let telling: u64 = decisions[decided..].iter().map(|decision| Budget::telling(&decision.rule)).sum();
        let _ = self.showing.pays(tally.evaluated - evaluated + telling);
    }

    /// The subject that a series is a sight of, bound to the rules that are about it and to no others; none where there are none.
    fn find(&mut self, series: &Arc<Series>, tally: &mut Tally, decisions: &mut Vec<Decision>) -> Option<u64> {
        let generation = self.generation;
        if let Some(alias) = self.subjects.alias(series.hash)
            && alias.checked == generation
        {
            return Some(alias.subject);
        }
        let keys = self.keys(series.name());
        let on_metric = self.rules.on_metric(series.label("tenant"), &keys);
        let since = on_metric.since();
        if let Some(alias) = self.subjects.alias(series.hash)
            && (alias.since == since || since.is_none())
        {
            alias.checked = generation;
            return Some(alias.subject);
        }
        let id = identity(series);
        let Some(about) = on_metric.about(self.budget, |name| Some(series.label(name))) else {
            return self.as_it_is(id, series, tally);
        };
        // Labels that identify nobody may have changed since.
        self.subjects.release_others(id, &about, self.limits, decisions);
        if about.is_empty() && !self.subjects.knows(id) {
            self.unwatched.add(series.hash);
            return None;
        }
        let naming = Naming::Series(Arc::clone(series));
        let has_room = self.subjects.admit(series.label("tenant"), id, &naming, self.limits);
        let mut refused = 0;
        for rule in about {
            if !has_room || !self.subjects.bind(id, rule, self.limits) {
                refused += 1;
                self.subjects.slots.refused(rule);
            }
        }
        tally.over_capacity += refused;
        if refused > 0 && *self.refused_at == 0 {
            *self.refused_at = self.subjects.now();
        }
        if !has_room {
            self.unwatched.add(series.hash);
            return None;
        }
        // What was refused is tried again, as if the rules were new.
        let since = if refused > 0 { None } else { since };
        self.subjects.seen_as(series.hash, Alias { subject: id, checked: generation, since }, naming);
        Some(id)
    }

    /// The tenant has no work left: a subject that is known goes on with the rules that it is bound to, a new one waits. Either
    /// is looked up with its next sample. A successor, who must look up everything once more, decides the same of the known.
    fn as_it_is(&mut self, id: u64, series: &Arc<Series>, tally: &mut Tally) -> Option<u64> {
        if !self.subjects.knows(id) {
            tally.over_work += 1;
            return None;
        }
        let alias = Alias { subject: id, checked: 0, since: None };
        self.subjects.seen_as(series.hash, alias, Naming::Series(Arc::clone(series)));
        Some(id)
    }

    fn keys(&mut self, name: &str) -> Arc<[NameKey]> {
        if let Some(keys) = self.names.get(name) {
            return Arc::clone(keys);
        }
        if self.names.len() >= NAMES {
            self.names.clear();
        }
        let keys: Arc<[NameKey]> = series::name_keys(name).into();
        self.names.insert(name.into(), Arc::clone(&keys));
        keys
    }
}
