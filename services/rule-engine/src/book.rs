//! All rules in force at one revision, indexed by what they watch. Pure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use aho_corasick::AhoCorasick;
use uuid::Uuid;

use crate::rule::{Rule, Watch};

/// Rules in force together. Never changes; a change of rules makes another book.
#[derive(Debug, Default)]
pub struct Book {
    /// The revision that it shows.
    pub revision: i64,
    rules: HashMap<Uuid, Arc<Rule>>,
    metrics: HashMap<String, HashMap<String, Thresholds>>,
    logs: HashMap<String, Literals>,
}

/// The rules of one tenant on one metric.
#[derive(Debug, Default)]
pub struct Thresholds {
    /// The revision that last changed them: while it is the same, so are they.
    pub since: i64,
    /// In the order of their ids.
    pub rules: Vec<Arc<Rule>>,
}

/// The log rules of one tenant: all their literals in one automaton.
#[derive(Debug)]
pub struct Literals {
    texts: Vec<String>,
    automaton: AhoCorasick,
    rules: Vec<Vec<Arc<Rule>>>,
}

impl Book {
    /// Makes the book of `revision`; `previous` lends the automata that did not change.
    #[must_use]
    pub fn new(revision: i64, rules: Vec<Arc<Rule>>, previous: &Self) -> Self {
        let mut book = Self { revision, ..Self::default() };
        let mut literals: HashMap<String, BTreeMap<String, Vec<Arc<Rule>>>> = HashMap::new();
        for rule in rules.into_iter().filter(|rule| !rule.document.disabled) {
            match &rule.watch {
                Watch::Metric { name, .. } => {
                    let tenant = book.metrics.entry(rule.tenant.clone()).or_default();
                    let thresholds = tenant.entry(name.clone()).or_default();
                    thresholds.rules.push(Arc::clone(&rule));
                }
                Watch::Log { literal, .. } => {
                    let tenant = literals.entry(rule.tenant.clone()).or_default();
                    tenant.entry(literal.clone()).or_default().push(Arc::clone(&rule));
                }
            }
            book.rules.insert(rule.id, rule);
        }
        for (tenant, metrics) in &mut book.metrics {
            for (name, thresholds) in metrics {
                thresholds.rules.sort_unstable_by_key(|rule| rule.id);
                let before = previous.on_metric(tenant, name);
                let same = before.filter(|before| before.is_same(&thresholds.rules));
                thresholds.since = same.map_or(revision, |before| before.since);
            }
        }
        for (tenant, by_text) in literals {
            if let Some(literals) = Literals::new(&tenant, by_text, previous.logs.get(&tenant)) {
                book.logs.insert(tenant, literals);
            }
        }
        book
    }

    /// How many rules are in force.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether no rule is in force.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The rule in force under that id.
    #[must_use]
    pub fn rule(&self, id: Uuid) -> Option<&Arc<Rule>> {
        self.rules.get(&id)
    }

    /// Whether exactly this version is in force.
    #[must_use]
    pub fn has(&self, rule: &Rule) -> bool {
        self.rules.get(&rule.id).is_some_and(|known| known.is_same_version(rule))
    }

    /// The rules on a tenant's metric, if there are any.
    #[must_use]
    pub fn on_metric(&self, tenant: &str, name: &str) -> Option<&Thresholds> {
        self.metrics.get(tenant)?.get(name)
    }

    /// The log rules of a tenant, if it has any.
    #[must_use]
    pub fn on_logs(&self, tenant: &str) -> Option<&Literals> {
        self.logs.get(tenant)
    }
}

impl Thresholds {
    fn is_same(&self, rules: &[Arc<Rule>]) -> bool {
        let pairs = self.rules.iter().zip(rules);
        self.rules.len() == rules.len() && pairs.into_iter().all(|(a, b)| a.is_same_version(b))
    }
}

impl Literals {
    fn new(tenant: &str, by_text: BTreeMap<String, Vec<Arc<Rule>>>, previous: Option<&Self>) -> Option<Self> {
        let (texts, rules): (Vec<String>, Vec<Vec<Arc<Rule>>>) = by_text.into_iter().unzip();
        let reused = previous.filter(|previous| previous.texts == texts).map(|p| p.automaton.clone());
        let automaton = match reused {
            Some(automaton) => automaton,
            None => AhoCorasick::new(&texts)
                .inspect_err(|error| tracing::error!(tenant, %error, "the tenant's log rules are too many to evaluate"))
                .ok()?,
        };
        Some(Self { texts, automaton, rules })
    }

    /// Gives each rule whose literal is in `body`, once.
    pub fn each_in(&self, body: &str, mut each: impl FnMut(&Arc<Rule>)) {
        let mut seen: Vec<usize> = Vec::new();
        for found in self.automaton.find_overlapping_iter(body) {
            let index = found.pattern().as_usize();
            if !seen.contains(&index) {
                seen.push(index);
                self.rules[index].iter().for_each(&mut each);
            }
        }
    }
}
