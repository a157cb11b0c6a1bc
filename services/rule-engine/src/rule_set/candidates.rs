//! Rules on the same thing, found by one label instead of by a look at each: ten thousand rules for a host each are one
//! look-up.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use selector::{Op, Selector};

use crate::budget::Budget;
use crate::rule::Rule;

/// The rules of one tenant on one metric or on one text.
#[derive(Debug, Default)]
pub struct Candidates {
    /// The revision in which what decides in them was last changed: while it is the same, so is who they are about.
    pub since: i64,
    /// In the order of their ids.
    rules: Vec<Arc<Rule>>,
    /// What a look at each costs.
    prices: Vec<u64>,
    /// By a label that a rule asks to have one value: places in `rules`.
    by_label: Vec<(String, HashMap<String, Vec<usize>>)>,
    /// Those that ask for no such label.
    rest: Vec<usize>,
}

impl Candidates {
    /// As of `revision`; `before` lends what did not change.
    pub(crate) fn next(revision: i64, mut rules: Vec<Arc<Rule>>, before: Option<&Arc<Self>>) -> Arc<Self> {
        rules.sort_unstable_by_key(|rule| rule.id);
        let alike = |same: fn(&Rule, &Rule) -> bool| {
            before.filter(|before| {
                let mut pairs = before.rules.iter().zip(&rules);
                before.rules.len() == rules.len() && pairs.all(|(a, b)| same(a, b))
            })
        };
        if let Some(before) = alike(|a, b| (a.id, a.version) == (b.id, b.version)) {
            return Arc::clone(before);
        }
        let since = alike(Rule::decides_as).map_or(revision, |before| before.since);
        let mut by_label: BTreeMap<String, HashMap<String, Vec<usize>>> = BTreeMap::new();
        let mut rest = Vec::new();
        for (place, rule) in rules.iter().enumerate() {
            match rule.selector().and_then(key) {
                Some((label, value)) => {
                    let values = by_label.entry(label.to_owned()).or_default();
                    values.entry(value.to_owned()).or_default().push(place);
                }
                None => rest.push(place),
            }
        }
        let prices = rules.iter().map(|rule| rule.selector().map_or(1, Budget::price)).collect();
        Arc::new(Self { since, rules, prices, by_label: by_label.into_iter().collect(), rest })
    }

    /// The rules that are about a thing of which `label` says the labels, in the order of their ids; nothing where the budget
    /// does not pay for looking at all that may be.
    pub fn about<'a, 'l>(
        &'a self,
        budget: &mut Budget,
        label: impl Fn(&str) -> Option<&'l str>,
    ) -> Option<Vec<&'a Arc<Rule>>> {
        let mut places = self.rest.clone();
        for (name, values) in &self.by_label {
            if let Some(found) = label(name).and_then(|value| values.get(value)) {
                places.extend(found);
            }
        }
        places.sort_unstable();
        let mut about = Vec::new();
        for place in places {
            if !budget.pays(self.prices[place]) {
                return None;
            }
            if self.rules[place].is_about(&label) {
                about.push(&self.rules[place]);
            }
        }
        Some(about)
    }
}

/// The label and value by which a rule is found: what tells things apart best first.
fn key(selector: &Selector) -> Option<(&str, &str)> {
    let rank = |label: &str| ["resource_id", "host_name"].iter().position(|best| *best == label).unwrap_or(2);
    let equal = selector.matchers().iter().filter(|matcher| matcher.op == Op::Equal && !matcher.value.is_empty());
    let best = equal.min_by_key(|matcher| rank(&matcher.label))?;
    Some((&best.label, &best.value))
}
