//! The log rules of one tenant: all their texts in one automaton.

use std::collections::BTreeMap;
use std::sync::Arc;

use aho_corasick::AhoCorasick;

use super::Candidates;
use crate::rule::Rule;

/// A tenant's texts, and the rules that look for each.
#[derive(Debug)]
pub struct Literals {
    texts: Vec<String>,
    automaton: AhoCorasick,
    rules: Vec<Arc<Candidates>>,
}

impl Literals {
    /// As of `revision`; `before` lends what did not change.
    pub(super) fn next(
        tenant: &str,
        revision: i64,
        by_text: BTreeMap<String, Vec<Arc<Rule>>>,
        before: Option<&Arc<Self>>,
    ) -> Option<Arc<Self>> {
        let mut texts = Vec::with_capacity(by_text.len());
        let mut rules = Vec::with_capacity(by_text.len());
        for (text, of_text) in by_text {
            let known = before.and_then(|before| before.on(&text));
            rules.push(Candidates::next(revision, of_text, known));
            texts.push(text);
        }
        let reused = before.filter(|before| before.texts == texts).map(|before| before.automaton.clone());
        let automaton = match reused {
            Some(automaton) => automaton,
            None => AhoCorasick::new(&texts)
                .inspect_err(|error| tracing::error!(tenant, %error, "the tenant's log rules are too many to evaluate"))
                .ok()?,
        };
        Some(Arc::new(Self { texts, automaton, rules }))
    }

    fn on(&self, text: &str) -> Option<&Arc<Candidates>> {
        let place = self.texts.binary_search_by(|known| known.as_str().cmp(text)).ok()?;
        Some(&self.rules[place])
    }

    /// Gives the rules on each text that is in `body`, once, in the order in which the texts end there.
    pub fn each_in<'a>(&'a self, body: &str, mut each: impl FnMut(&'a Candidates)) {
        let mut seen: Vec<usize> = Vec::new();
        for found in self.automaton.find_overlapping_iter(body) {
            let index = found.pattern().as_usize();
            if !seen.contains(&index) {
                seen.push(index);
                each(&self.rules[index]);
            }
        }
    }
}
