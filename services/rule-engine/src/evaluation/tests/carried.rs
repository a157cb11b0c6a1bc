//! What a newer version saved and this one does not understand.

use super::*;
use crate::saved::{SavedBound, SavedSubject};

/// What tomorrow's version does: the same rule is of a kind of its own, with a state of its own.
fn as_tomorrow(subjects: &mut [SavedSubject]) {
    for bound in subjects.iter_mut().flat_map(|subject| &mut subject.bound) {
        bound.kind = "tomorrow".to_owned();
        bound.form = 7;
        bound.state = b"nobody else can read this".to_vec();
    }
}

fn saved(kept: &Kept) -> Saved {
    let mut saved = Saved { stream_time: kept.stream_time, order: kept.order, ..Saved::default() };
    kept.parts.values().filter(|bytes| !bytes.is_empty()).for_each(|bytes| saved.add_part(bytes).unwrap());
    saved
}

fn bounds(kept: &Kept) -> Vec<SavedBound> {
    saved(kept).subjects.into_iter().flat_map(|subject| subject.bound).collect()
}

#[test]
fn state_of_an_unknown_kind_is_carried_said_to_fire_and_saved_again() {
    let mut shard = Shard::new(&set(1, &[metric_rule(1, 1, "> 90", 0)]));
    shard.apply(&Event::Metrics(10, load("web", 10, Some(95.0))));
    let fired = shard.said[0].id();
    let mut kept = Kept::default();
    kept.keep(&mut shard.metrics);
    let mut old = saved(&kept);
    as_tomorrow(&mut old.subjects);
    let before: Vec<SavedBound> = old.subjects.iter().flat_map(|subject| subject.bound.clone()).collect();

    // This version does not know the kind: its document has no subject that it can read.
    let unknown = rule(1, 1, 1, RuleDocument { name: "rule 1".into(), ..RuleDocument::default() });
    assert!(unknown.not_understood().is_some_and(|reason| reason.contains("tomorrow")));
    let rules = set(1, &[unknown, metric_rule(2, 1, "> 90", 0)]);
    let Restored { mut evaluation, carried, dropped } =
        Evaluation::restore(Signal::Metrics, Arc::clone(&rules), limits(), old);
    assert_eq!((carried, dropped), (1, 0));
    let firing: Vec<(u128, Id)> = evaluation.firing().map(|fires| (fires.rule.as_u128(), fires.transition)).collect();
    assert_eq!(firing, [(1, fired)], "so that nobody takes it for lost");

    // A day later, with other rules on the same series at work, it is still there, byte for byte.
    let mut said = Vec::new();
    evaluation.message("acme", &load("web", 20, Some(95.0)), 1, START + 20 * SECOND, &mut said).unwrap();
    evaluation.pass_time(START + 100_000 * SECOND, &mut said);
    let mut again = Kept::default();
    again.keep(&mut evaluation);
    let after: Vec<SavedBound> = bounds(&again).into_iter().filter(|bound| bound.kind == "tomorrow").collect();
    assert_eq!(after, before);
    assert!(said.iter().all(|decision| decision.rule.id == Uuid::from_u128(2)), "and nothing was said of it");
}

#[test]
fn a_newer_form_of_a_known_kind_is_carried_too() {
    let rules = set(1, &[metric_rule(1, 1, "> 90", 0)]);
    let mut shard = Shard::new(&rules);
    shard.apply(&Event::Metrics(10, load("web", 10, Some(95.0))));
    let mut kept = Kept::default();
    kept.keep(&mut shard.metrics);
    let mut old = saved(&kept);
    old.subjects.iter_mut().flat_map(|subject| &mut subject.bound).for_each(|bound| bound.form += 1);
    let restored = Evaluation::restore(Signal::Metrics, rules, limits(), old);
    assert_eq!((restored.carried, restored.evaluation.firing_count()), (1, 1));
}

#[test]
fn what_is_carried_ends_when_its_rule_is_deleted() {
    let mut shard = Shard::new(&set(1, &[metric_rule(1, 1, "> 90", 0)]));
    shard.apply(&Event::Metrics(10, load("web", 10, Some(95.0))));
    let mut kept = Kept::default();
    kept.keep(&mut shard.metrics);
    let mut old = saved(&kept);
    as_tomorrow(&mut old.subjects);
    let unknown = rule(1, 1, 1, RuleDocument { name: "rule 1".into(), ..RuleDocument::default() });
    let mut evaluation = Evaluation::restore(Signal::Metrics, set(1, &[unknown]), limits(), old).evaluation;
    let mut said = Vec::new();
    evaluation.switch(set(2, &[]), &mut said);
    assert_eq!((said.len(), said[0].state.as_str(), said[0].reason), (1, "resolved", "rule_deleted"));
    assert_eq!(said[0].previous, Some(shard.said[0].id()));
    assert_eq!((evaluation.firing_count(), evaluation.bytes()), (0, 0));
}
