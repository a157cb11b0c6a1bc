//! The log rules of one tenant: all their texts in one automaton.

use std::collections::BTreeMap;
use std::sync::Arc;

use aho_corasick::AhoCorasick;

use super::Candidates;
use crate::budget::Budget;
use crate::rule::Rule;

/// A tenant's texts, and the rules that look for each.
#[derive(Debug)]
pub struct Literals {
    texts: Vec<String>,
    automaton: AhoCorasick,
    rules: Vec<Arc<Candidates>>,
}

/// Which texts were seen in a line; kept between lines for its room.
#[derive(Debug, Default)]
pub struct Seen {
    bits: Vec<u64>,
    missing: usize,
}

impl Seen {
    fn begin(&mut self, texts: usize) {
        self.bits.clear();
        self.bits.resize(texts.div_ceil(64), 0);
        self.missing = texts;
    }

    fn is_new(&mut self, index: usize) -> bool {
        let (word, bit) = (&mut self.bits[index / 64], 1 << (index % 64));
        let is_new = *word & bit == 0;
        *word |= bit;
        self.missing -= usize::from(is_new);
        is_new
    }

    fn is_all(&self) -> bool {
        self.missing == 0
    }
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

    /// Gives the rules on each text that is in `body`, once, in the order in which the texts end there, with the text's
    /// number. False where the budget did not pay for reading to the end.
    pub fn each_in<'a>(
        &'a self,
        body: &str,
        seen: &mut Seen,
        budget: &mut Budget,
        mut each: impl FnMut(&mut Budget, usize, &'a Candidates) -> bool,
    ) -> bool {
        seen.begin(self.texts.len());
        for found in self.automaton.find_overlapping_iter(body) {
            let index = found.pattern().as_usize();
            let goes_on =
                if seen.is_new(index) { each(budget, index, &self.rules[index]) } else { budget.pays_for_find() };
            if !goes_on {
                return false;
            }
            if seen.is_all() {
                break;
            }
        }
        true
    }
}
