//! Decisions that are too many to be said before the lane goes on: a rule that fires on very much is deleted, or everything
//! that a tenant has ends at one moment. They wait by tenant, in order, and are said beside the evaluation, one tenant's
//! portion after another's. What a tenant decides meanwhile stands behind them; what others decide does not.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use tokio::task::JoinSet;

use super::Ended;
use super::publisher::Publisher;
use crate::transition::Decision;

/// Decisions of one tenant that are said before the lane goes on.
const AT_ONCE: usize = 256;
/// Decisions that are said together beside it.
const PORTION: usize = 256;

#[derive(Default)]
pub(super) struct Waiting {
    /// A tenant stays here until its last portion was said.
    by_tenant: BTreeMap<String, VecDeque<Decision>>,
    count: usize,
    /// One portion at the most.
    saying: JoinSet<Result<(), Ended>>,
    /// Whose turn it was.
    last: String,
}

impl Waiting {
    /// Whether everything was said.
    pub(super) fn is_idle(&self) -> bool {
        self.by_tenant.is_empty()
    }

    /// How many wait.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Keeps what has to wait and gives what is to be said at once.
    pub(super) fn sort(&mut self, decisions: Vec<Decision>) -> Vec<Decision> {
        if self.is_idle() && decisions.len() <= AT_ONCE {
            return decisions;
        }
        let mut counts: HashMap<String, usize> = HashMap::new();
        for decision in &decisions {
            match counts.get_mut(&decision.rule.tenant) {
                Some(count) => *count += 1,
                None => _ = counts.insert(decision.rule.tenant.clone(), 1),
            }
        }
        let many = counts.into_iter().filter(|(_, count)| *count > AT_ONCE);
        for (tenant, _) in many {
            self.by_tenant.entry(tenant).or_default();
        }
        let mut at_once = Vec::new();
        for decision in decisions {
            match self.by_tenant.get_mut(&decision.rule.tenant) {
                Some(queue) => {
                    queue.push_back(decision);
                    self.count += 1;
                }
                None => at_once.push(decision),
            }
        }
        at_once
    }

    /// Begins with the next portion, unless one is being said.
    pub(super) fn begin(&mut self, publisher: &Arc<Publisher>) {
        if !self.saying.is_empty() {
            return;
        }
        if let Some(portion) = self.next() {
            let publisher = Arc::clone(publisher);
            self.saying.spawn(async move { publisher.publish(&portion).await });
        }
    }

    /// A portion of the tenant whose turn it is.
    fn next(&mut self) -> Option<Vec<Decision>> {
        let behind = (std::ops::Bound::Excluded(self.last.as_str()), std::ops::Bound::Unbounded);
        let tenant = self.by_tenant.range::<str, _>(behind).next().or_else(|| self.by_tenant.iter().next());
        let tenant = tenant.map(|(tenant, _)| tenant.clone())?;
        let queue = self.by_tenant.get_mut(&tenant)?;
        let portion: Vec<Decision> = queue.drain(..queue.len().min(PORTION)).collect();
        self.count -= portion.len();
        self.last = tenant;
        Some(portion)
    }

    /// Resolves when a portion was said; never while none is being said. Cancelling is safe.
    pub(super) async fn said(&mut self) -> Result<(), Ended> {
        match self.saying.join_next().await {
            Some(said) => {
                self.end();
                said.unwrap_or(Err(Ended::Unsaved))
            }
            None => std::future::pending().await,
        }
    }

    /// The portion of the tenant whose turn it was is with the broker.
    fn end(&mut self) {
        if self.by_tenant.get(&self.last).is_some_and(VecDeque::is_empty) {
            self.by_tenant.remove(&self.last);
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::rules::RuleDocument;
    use uuid::Uuid;

    use super::*;
    use crate::naming::Naming;
    use crate::rule::Rule;
    use crate::transition::{Facts, State};

    fn decisions(tenant: &str, count: u64) -> Vec<Decision> {
        let document = RuleDocument::default();
        let rule = Arc::new(Rule::new(Uuid::nil(), 1, 1, tenant.to_owned(), "metric".to_owned(), document));
        let facts = Facts { sample: 1, since: 1, received: 1, late: false };
        let one = |order| Decision {
            rule: Arc::clone(&rule),
            state: State::Resolved,
            subject: order,
            naming: Naming::Unseen,
            value: 0.0,
            line: String::new(),
            facts,
            order,
            previous: None,
            reason: "",
            again: false,
        };
        (0..count).map(one).collect()
    }

    #[test]
    fn few_are_said_at_once_and_many_wait_with_all_that_their_tenant_decides_next() {
        let mut waiting = Waiting::default();
        assert_eq!((waiting.sort(decisions("few", 256)).len(), waiting.is_idle()), (256, true));
        let mut both = decisions("many", 300);
        both.extend(decisions("few", 3));
        assert_eq!((waiting.sort(both).len(), waiting.count()), (3, 300));
        assert_eq!(waiting.sort(decisions("many", 1)).len(), 0, "it would come before those that wait");
        assert_eq!((waiting.sort(decisions("few", 1)).len(), waiting.count()), (1, 301));
    }

    #[test]
    fn tenants_take_turns_and_keep_their_order() {
        let mut waiting = Waiting::default();
        for tenant in ["a", "b"] {
            assert_eq!(waiting.sort(decisions(tenant, 600)).len(), 0);
        }
        let mut turns = Vec::new();
        while let Some(portion) = waiting.next() {
            turns.push((portion[0].rule.tenant.clone(), portion[0].order, portion.len()));
            assert!(portion.is_sorted_by_key(|decision| decision.order));
            assert!(!waiting.is_idle(), "it is not said yet");
            waiting.end();
        }
        let turns: Vec<(&str, u64, usize)> =
            turns.iter().map(|(t, order, count)| (t.as_str(), *order, *count)).collect();
        let expected = [("a", 0, 256), ("b", 0, 256), ("a", 256, 256), ("b", 256, 256), ("a", 512, 88), ("b", 512, 88)];
        assert_eq!((turns.as_slice(), waiting.is_idle(), waiting.count()), (expected.as_slice(), true, 0));
    }
}
