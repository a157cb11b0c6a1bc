//! Rules that are no longer in force.

use std::sync::Arc;

use uuid::Uuid;

use super::{Subjects, bound_bytes, part_of};
use crate::evaluation::Limits;
use crate::kinds::Kind;
use crate::rule::Rule;
use crate::rule_set::RuleSet;
use crate::saved::SavedBound;
use crate::transition::{Decision, Facts, State as Said};

impl Subjects {
    /// Goes on with other rules, and gives those that fire and show otherwise from now on.
    pub(in crate::evaluation) fn switch(
        &mut self,
        before: &RuleSet,
        rules: &RuleSet,
        limits: &Limits,
        decisions: &mut Vec<Decision>,
    ) -> Vec<Uuid> {
        let mut shown = Vec::new();
        for (slot, rule) in self.slots.in_order() {
            match rules.in_force(rule.id, rule.evaluated_version) {
                Some(same) => {
                    self.slots.show(slot, same);
                    if same.version != rule.version && self.fires(rule.id) {
                        shown.push(rule.id);
                    }
                }
                None => {
                    let reason = gone(rules, rule.id);
                    let next = rules.rule(rule.id).filter(|next| takes_over(next, &rule));
                    for id in self.slots.end(slot) {
                        self.release(id, slot, (&rule, reason), next, limits, decisions);
                    }
                }
            }
        }
        for id in self.carried.clone() {
            self.release_carried(id, before, rules, decisions);
        }
        shown
    }

    /// Lets go of what is bound to rules that are not in `about`: what they think of a subject ends.
    pub(in crate::evaluation) fn release_others(
        &mut self,
        id: u64,
        about: &[&Arc<Rule>],
        limits: &Limits,
        decisions: &mut Vec<Decision>,
    ) {
        let Some(subject) = self.parts[part_of(id)].0.get(&id) else { return };
        let rules = subject.bound.iter().filter_map(|bound| Some((bound.slot, self.slots.rule(bound.slot)?)));
        let others = rules.filter(|(_, rule)| !about.iter().any(|about| about.id == rule.id));
        let others: Vec<(u32, Arc<Rule>)> = others.map(|(slot, rule)| (slot, Arc::clone(rule))).collect();
        for (slot, rule) in others {
            self.slots.unbind(slot, id);
            self.release(id, slot, (&rule, "no_match"), None, limits, decisions);
        }
    }

    /// A rule is no longer about a subject: what it thinks of that ends. `next` starts over with the subject, if there is one.
    fn release(
        &mut self,
        id: u64,
        slot: u32,
        rule: (&Arc<Rule>, &'static str),
        next: Option<&Arc<Rule>>,
        limits: &Limits,
        decisions: &mut Vec<Decision>,
    ) {
        let Some(subject) = self.part(id).0.get_mut(&id) else { return };
        let Some(place) = subject.bound.iter().position(|bound| bound.slot == slot) else { return };
        let mut bound = subject.bound.remove(place);
        let bytes = bound_bytes() + bound.state.extra_bytes();
        subject.bytes = subject.bytes.saturating_sub(bytes);
        let (tenant, naming) = (Arc::clone(&subject.tenant), subject.naming.clone());
        let is_over = subject.bound.is_empty() && subject.carried.is_empty();
        self.capacity.give_back(&tenant, bytes);
        self.end(rule, (id, &naming), &mut bound, limits, decisions);
        let is_taken_over = next.is_some_and(|next| self.bind(id, next, limits));
        if is_over && !is_taken_over {
            self.remove(id);
        }
    }

    /// Lets go of what is carried for rules that are no longer in force; what fires there resolves, as far as is known.
    fn release_carried(&mut self, id: u64, before: &RuleSet, rules: &RuleSet, decisions: &mut Vec<Decision>) {
        let Some(subject) = self.part(id).0.get_mut(&id) else { return };
        let naming = subject.naming.clone();
        let kept =
            |bound: &SavedBound| bound.rule().is_some_and(|rule| rules.in_force(rule, bound.version()).is_some());
        let (stay, go): (Vec<_>, Vec<_>) = std::mem::take(&mut subject.carried).into_iter().partition(kept);
        let (is_empty, is_over) = (stay.is_empty(), stay.is_empty() && subject.bound.is_empty());
        subject.carried = stay;
        for bound in go {
            let Some(rule) = bound.rule() else { continue };
            self.firing.remove(&(rule, id));
            if let (Some(rule), Some(firing)) = (before.rule(rule), bound.firing()) {
                self.order += 1;
                let facts = Facts { sample: self.now, since: firing.since, received: self.now, late: firing.late };
                decisions.push(Decision {
                    rule: Arc::clone(rule),
                    state: Said::Resolved,
                    subject: id,
                    naming: naming.clone(),
                    value: f64::NAN,
                    line: String::new(),
                    facts,
                    order: self.order,
                    previous: bound.last_id(),
                    reason: gone(rules, rule.id),
                    again: false,
                });
            }
        }
        if is_empty {
            self.carried.remove(&id);
        }
        if is_over {
            self.remove(id);
        }
    }
}

/// Whether a changed rule keeps the subjects that it was bound to, and need not wait for their next sight.
fn takes_over(next: &Rule, before: &Rule) -> bool {
    !next.document.disabled && next.kind().is_some_and(Kind::binds_at_sight) && next.is_about_those_of(before)
}

/// Why what a rule said ends when `rules` come into force.
fn gone(rules: &RuleSet, rule: Uuid) -> &'static str {
    match rules.rule(rule) {
        None => "rule_deleted",
        Some(rule) if rule.document.disabled => "rule_disabled",
        Some(_) => "rule_changed",
    }
}
