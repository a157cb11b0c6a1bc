//! What fires is said again when its rule shows otherwise: rules in turn, some at a time, and made when it is said. However often
//! rules are edited and on however much they fire, what waits is a place for each rule.
//!
//! What an owner does not come to say before it ends follows with the rounds.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};

use uuid::Uuid;

use super::{Ended, Lane};

/// The evaluation goes on between them.
const AT_ONCE: usize = 16;

#[derive(Default)]
pub(super) struct Showing {
    /// With which subject each rule goes on.
    places: BTreeMap<Uuid, u64>,
    last: Uuid,
}

impl Showing {
    pub(super) fn is_idle(&self) -> bool {
        self.places.is_empty()
    }

    /// Begins, or begins once more, with all for which these rules fire.
    pub(super) fn begin(&mut self, rules: Vec<Uuid>) {
        self.places.extend(rules.into_iter().map(|rule| (rule, 0)));
    }

    /// The rule whose turn it is, and its place.
    fn next(&self) -> Option<(Uuid, u64)> {
        let behind = self.places.range((Excluded(self.last), Unbounded)).next();
        behind.or_else(|| self.places.first_key_value()).map(|(rule, place)| (*rule, *place))
    }

    /// It was the turn of `rule`, which goes on with `place`, or is done.
    fn went_on(&mut self, rule: Uuid, place: Option<u64>) {
        self.last = rule;
        match place {
            Some(place) => _ = self.places.insert(rule, place),
            None => _ = self.places.remove(&rule),
        }
    }
}

impl Lane {
    /// Says some more of what shows otherwise; not before what was decided earlier is said.
    pub(super) async fn show_some(&mut self) -> Result<(), Ended> {
        if !self.waiting.is_idle() {
            return Ok(());
        }
        let Some((rule, place)) = self.showing.next() else { return Ok(()) };
        let (decisions, place) = self.with(|evaluation| evaluation.some_again(rule, place, AT_ONCE));
        self.showing.went_on(rule, place);
        self.publisher.publish(&decisions).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_take_turns_and_edits_in_a_row_only_set_a_rule_back() {
        let [a, b] = [1, 2].map(Uuid::from_u128);
        let mut showing = Showing::default();
        showing.begin(vec![a, b]);
        assert_eq!(showing.next(), Some((a, 0)));
        showing.went_on(a, Some(7));
        assert_eq!(showing.next(), Some((b, 0)));
        showing.went_on(b, Some(9));
        assert_eq!(showing.next(), Some((a, 7)));
        for _ in 0..1_000 {
            showing.begin(vec![a]);
        }
        assert_eq!((showing.places.len(), showing.next()), (2, Some((a, 0))));
        showing.went_on(a, None);
        showing.went_on(b, None);
        assert!(showing.is_idle() && showing.next().is_none());
    }
}
