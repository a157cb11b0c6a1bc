//! All rules in force at one revision, indexed by what they look at. Pure.

mod candidates;
mod literals;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use series::NameKey;
use uuid::Uuid;

use crate::budget::Budget;
use crate::kinds::Kind;
use crate::rule::Rule;

pub use candidates::Candidates;
pub use literals::{Literals, Seen};

/// Rules in force together. Never changes; a change of rules makes another set.
#[derive(Debug, Default)]
pub struct RuleSet {
    /// The revision that it shows.
    pub revision: i64,
    /// Disabled ones too: the next set is made from this one.
    rules: HashMap<Uuid, Arc<Rule>>,
    metrics: HashMap<String, HashMap<NameKey, Arc<Candidates>>>,
    logs: HashMap<String, Arc<Literals>>,
    not_understood: usize,
}

impl RuleSet {
    /// Makes the set of `revision`; `previous` lends what did not change.
    #[must_use]
    pub fn new(revision: i64, rules: Vec<Arc<Rule>>, previous: &Self) -> Self {
        let mut metrics: BTreeMap<(&str, NameKey), Vec<Arc<Rule>>> = BTreeMap::new();
        let mut logs: BTreeMap<&str, BTreeMap<String, Vec<Arc<Rule>>>> = BTreeMap::new();
        let mut not_understood = 0;
        for rule in rules.iter().filter(|rule| !rule.document.disabled) {
            match rule.kind() {
                Some(Kind::Metric(metric)) => {
                    for key in metric.keys() {
                        metrics.entry((&rule.tenant, key)).or_default().push(Arc::clone(rule));
                    }
                }
                Some(Kind::Log(log)) => {
                    let tenant = logs.entry(&rule.tenant).or_default();
                    tenant.entry(log.literal.clone()).or_default().push(Arc::clone(rule));
                }
                None => not_understood += 1,
            }
        }
        let mut set = Self { revision, not_understood, ..Self::default() };
        for ((tenant, key), rules) in metrics {
            let before = previous.metrics.get(tenant).and_then(|metrics| metrics.get(&key));
            let candidates = Candidates::next(revision, rules, before);
            set.metrics.entry(tenant.to_owned()).or_default().insert(key, candidates);
        }
        for (tenant, by_text) in logs {
            if let Some(literals) = Literals::next(tenant, revision, by_text, previous.logs.get(tenant)) {
                set.logs.insert(tenant.to_owned(), literals);
            }
        }
        set.rules = rules.into_iter().map(|rule| (rule.id, rule)).collect();
        set
    }

    /// How many rules there are, disabled ones too.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there is no rule.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// How many rules this version cannot evaluate and should.
    #[must_use]
    pub fn not_understood(&self) -> usize {
        self.not_understood
    }

    /// Every rule, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.rules.values()
    }

    /// The rule under that id, disabled or not.
    #[must_use]
    pub fn rule(&self, id: Uuid) -> Option<&Arc<Rule>> {
        self.rules.get(&id)
    }

    /// The rule that is in force and decides as that evaluated version does.
    #[must_use]
    pub fn in_force(&self, id: Uuid, evaluated_version: u64) -> Option<&Arc<Rule>> {
        self.rule(id).filter(|rule| rule.evaluated_version == evaluated_version && !rule.document.disabled)
    }

    /// The rules of a tenant on a metric of which `keys` are the [`series::name_keys`]; nothing where there are none.
    #[must_use]
    pub fn on_metric(&self, tenant: &str, keys: &[NameKey]) -> OnMetric<'_> {
        let of_tenant = self.metrics.get(tenant);
        OnMetric(keys.iter().filter_map(|key| of_tenant?.get(key).map(Arc::as_ref)).collect())
    }

    /// Whether a tenant has rules on any metric.
    #[must_use]
    pub fn is_about_metrics_of(&self, tenant: &str) -> bool {
        self.metrics.contains_key(tenant)
    }

    /// The log rules of a tenant, if it has any.
    #[must_use]
    pub fn on_logs(&self, tenant: &str) -> Option<&Arc<Literals>> {
        self.logs.get(tenant)
    }
}

/// The rules on one metric, which may be wanted under several names.
pub struct OnMetric<'a>(Vec<&'a Candidates>);

impl<'a> OnMetric<'a> {
    /// The revision in which what decides in them was last changed; none where there are no rules.
    #[must_use]
    pub fn since(&self) -> Option<i64> {
        self.0.iter().map(|candidates| candidates.since).max()
    }

    /// The rules that are about a series of which `label` says the labels, in the order of their ids; nothing where the
    /// budget does not pay for it.
    pub fn about(&self, budget: &mut Budget, label: impl Fn(&str) -> Option<&'a str>) -> Option<Vec<&'a Arc<Rule>>> {
        let mut rules: Vec<&Arc<Rule>> = Vec::new();
        for candidates in &self.0 {
            rules.extend(candidates.about(budget, &label)?);
        }
        rules.sort_unstable_by_key(|rule| rule.id);
        rules.dedup_by_key(|rule| rule.id);
        Some(rules)
    }
}

#[cfg(test)]
mod tests;
