//! What the telemetry of one tenant may cost: work is counted in looks of a rule at a thing, so that rules and telemetry that
//! go badly together cost their tenant something, and nobody else. Pure.

use std::collections::HashMap;

use prost::Message as _;
use selector::Selector;

use crate::rule::Rule;

/// Further finds of a text in a line that cost as much as one look.
const FINDS: u64 = 16;
/// Bytes of automata that cost as much as one look.
const WEIGHT: usize = 256;
/// Looks that a decision costs, and bytes of its document that cost one more.
pub(crate) const TOLD: u64 = 200;
const TOLD_BYTES: usize = 16;
const SECOND: u64 = 1_000_000_000;

/// What is left to spend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    left: u64,
    finds: u64,
}

impl Budget {
    /// So many looks.
    #[must_use]
    pub fn new(looks: u64) -> Self {
        Self { left: looks, finds: 0 }
    }

    /// What a look at a thing by such a selector costs.
    #[must_use]
    pub fn price(selector: &Selector) -> u64 {
        (1 + selector.matchers().len() + selector.weight() / WEIGHT) as u64
    }

    /// What it costs to tell a decision of `rule`, which carries all that people wrote for it: beside the looks of thousands
    /// of samples that change nothing, since the broker, alert-service and dispatcher have work with each.
    #[must_use]
    pub fn telling(rule: &Rule) -> u64 {
        TOLD + (rule.document.encoded_len() / TOLD_BYTES) as u64
    }

    /// Pays for work that is about to be done; false where nothing is left for it.
    #[must_use]
    pub fn pays(&mut self, price: u64) -> bool {
        let pays = self.left > 0;
        self.left = self.left.saturating_sub(price);
        pays
    }

    /// Pays for a text that was found once more in a line.
    #[must_use]
    pub fn pays_for_find(&mut self) -> bool {
        self.finds += 1;
        if self.finds.is_multiple_of(FINDS) { self.pays(1) } else { self.left > 0 }
    }

    /// How many looks are left.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.left
    }
}

/// What each tenant has spent in the present second of the lane's time.
#[derive(Debug)]
pub struct Budgets {
    each: u64,
    second: u64,
    left: HashMap<String, Budget>,
}

impl Budgets {
    /// Every tenant has so many looks a second.
    #[must_use]
    pub fn new(each: u64) -> Self {
        Self { each, second: 0, left: HashMap::new() }
    }

    /// What a tenant may still spend when the lane has come to `now`.
    pub fn of(&mut self, tenant: &str, now: u64) -> Budget {
        if now / SECOND != self.second {
            self.second = now / SECOND;
            self.left.clear();
        }
        self.left.get(tenant).cloned().unwrap_or_else(|| Budget::new(self.each))
    }

    /// Keeps what a tenant has left.
    pub fn keep(&mut self, tenant: &str, left: Budget) {
        self.left.insert(tenant.to_owned(), left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_has_as_much_again_in_the_next_second_and_nobody_elses() {
        let mut budgets = Budgets::new(10);
        let mut budget = budgets.of("acme", SECOND);
        assert!(budget.pays(9) && budget.pays(5), "what is begun is ended");
        assert!(!budget.pays(1));
        budgets.keep("acme", budget);
        assert_eq!((budgets.of("acme", SECOND + 1).left(), budgets.of("other", SECOND + 1).left()), (0, 10));
        assert_eq!(budgets.of("acme", 2 * SECOND).left(), 10);
    }

    #[test]
    fn sixteen_finds_cost_as_much_as_one_look() {
        let mut budget = Budget::new(2);
        assert_eq!((0..100).take_while(|_| budget.pays_for_find()).count(), 32);
    }

    #[test]
    fn a_look_costs_more_where_a_selector_is_larger() {
        let price = |text: &str| Budget::price(&Selector::parse(text).unwrap());
        assert_eq!([price("{}"), price(r#"{a="b",c="d"}"#)], [1, 3]);
        assert!(price(r#"{a=~"x{500}"}"#) > price(r#"{a=~"x.*"}"#));
    }
}
