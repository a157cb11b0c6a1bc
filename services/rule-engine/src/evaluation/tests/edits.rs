//! Rules that change while they are evaluated.

use super::*;

#[test]
fn a_rule_that_decides_otherwise_starts_over_and_its_old_alert_resolves() {
    let mut events = loads(&[(10, 95.0), (20, 95.0)]);
    events.push(Event::Rules(set(2, &[metric_rule(1, 2, "> 50", 10)])));
    events.extend(loads(&[(30, 95.0), (40, 95.0)]));
    let expected = ["firing 20 since 10", "resolved 20 since 10", "firing 40 since 30"];
    let said = check(&set(1, &[metric_rule(1, 1, "> 90", 10)]), &events, &expected);
    assert_eq!([&said[0], &said[1], &said[2]].map(|d| d.rule.evaluated_version), [1, 1, 2]);
    assert_eq!(said[1].reason, "rule_changed");
}

#[test]
fn editing_what_only_shows_tells_nobody_and_starts_nothing_over() {
    let shown = RuleDocument {
        name: "a better name".into(),
        annotations: [("summary".to_owned(), "hot".to_owned())].into(),
        receivers: vec!["ops".into()],
        ..metric_document(1, "> 90", 20)
    };
    let mut events = loads(&[(0, 95.0), (10, 95.0)]);
    events.push(Event::Rules(set(2, &[rule(1, 2, 1, shown)])));
    events.extend(loads(&[(20, 95.0), (30, 1.0)]));
    let rules = set(1, &[metric_rule(1, 1, "> 90", 20)]);
    let said = check(&rules, &events, &["firing 20 since 0", "resolved 30 since 0"]);
    for decision in &said {
        let message = decision.message("00/metrics", 1, 0);
        assert_eq!((message.rule_version, message.evaluated_version), (2, 1));
        assert_eq!((message.rule_name.as_str(), message.receivers.len()), ("a better name", 1));
    }
}

#[test]
fn what_fires_is_said_again_as_its_rule_shows_from_now_on_and_by_the_next_owner_too() {
    let shown = RuleDocument { receivers: vec!["ops".into()], ..metric_document(1, "> 90", 0) };
    let quiet = metric_rule(2, 1, "> 99", 0);
    let before = set(1, &[metric_rule(1, 1, "> 90", 0), Arc::clone(&quiet)]);
    let after = set(2, &[rule(1, 2, 1, shown), quiet]);
    let mut shard = Shard::new(&before);
    loads(&[(10, 95.0), (20, 95.0)]).iter().for_each(|event| shard.apply(event));
    let mut kept = Kept::default();
    kept.keep(&mut shard.metrics);
    let order = shard.metrics.order();
    shard.apply(&Event::Rules(Arc::clone(&after)));
    let [first, again] = &shard.said.clone()[..] else { panic!("{:?}", shard.told()) };
    assert_eq!((first.again, again.again, again.id(), again.order), (false, true, first.id(), first.order));
    assert_eq!((again.rule.version, shard.metrics.order()), (2, order), "no decision");
    // The same rules once more, as when another rule is edited.
    shard.apply(&Event::Rules(Arc::clone(&after)));
    assert_eq!(shard.said.len(), 2);

    let mut next = kept.restore(Signal::Metrics, &before).evaluation;
    let mut said = Vec::new();
    assert_eq!((next.switch(Arc::clone(&after), &mut said), said.len()), (vec![first.rule.id], 0));
    let (said, place) = next.some_again(first.rule.id, 0, 1);
    assert_eq!(said.iter().map(|d| (d.id(), d.rule.version)).collect::<Vec<_>>(), [(first.id(), 2)]);
    assert_eq!(place, None);
}

#[test]
fn what_shows_otherwise_is_made_when_it_is_said_however_much_fires() {
    let mut shard = Shard::new(&set(1, &[metric_rule(1, 1, "> 90", 0)]));
    for host in 0..100 {
        shard.apply(&Event::Metrics(1, load(&format!("h{host}"), 1, Some(95.0))));
    }
    let (mut shown, mut decisions) = (Vec::new(), Vec::new());
    for version in 2..50 {
        let edited = rule(1, version, 1, metric_document(1, "> 90", 0));
        shown = shard.metrics.switch(set(2, &[edited]), &mut decisions);
    }
    assert_eq!((shown.as_slice(), decisions.len()), (&[Uuid::from_u128(1)][..], 0));
    let (mut place, mut said) = (Some(0), std::collections::BTreeSet::new());
    while let Some(from) = place {
        let (some, next) = shard.metrics.some_again(shown[0], from, 16);
        assert!(some.len() <= 16 && some.iter().all(|again| again.again && again.rule.version == 49));
        said.extend(some.iter().map(Decision::id));
        place = next;
    }
    assert_eq!(said, shard.said.iter().map(Decision::id).collect());
}

#[test]
fn what_a_rule_is_about_stays_counted_when_only_its_threshold_changes() {
    let mut shard = Shard::new(&set(1, &[metric_rule(1, 1, "> 90", 0)]));
    for host in ["hot", "cold"] {
        shard.apply(&Event::Metrics(1, load(host, 1, Some(if host == "hot" { 95.0 } else { 5.0 }))));
    }
    let counted = |shard: &Shard| -> Vec<(u64, u64)> {
        shard.metrics.bindings().iter().map(|binding| (binding.evaluated_version, binding.subjects)).collect()
    };
    let bytes = shard.metrics.bytes();
    shard.apply(&Event::Rules(set(2, &[metric_rule(1, 2, "> 1", 10)])));
    assert_eq!((counted(&shard), shard.metrics.bytes()), (vec![(2, 2)], bytes));
    assert_eq!(shard.told(), ["firing 1 since 1", "resolved 1 since 1"]);
    for second in [20, 30] {
        shard.apply(&Event::Metrics(second, load("cold", second, Some(5.0))));
    }
    assert_eq!(shard.told()[2..], ["firing 30 since 20"], "it starts over");
    // Of another metric it knows nothing yet.
    let other = RuleDocument { subject: Some(Subject::Metric("other".into())), ..metric_document(1, "> 1", 10) };
    shard.apply(&Event::Rules(set(3, &[rule(1, 3, 3, other)])));
    assert_eq!((counted(&shard), shard.metrics.bytes()), (vec![], 0));
}

#[test]
fn other_rules_do_not_disturb_what_is_pending() {
    let mut events = loads(&[(10, 95.0)]);
    events.push(Event::Rules(set(2, &[metric_rule(1, 1, "> 90", 20), metric_rule(2, 1, "< 0", 0)])));
    events.extend(loads(&[(30, 95.0)]));
    check(&set(1, &[metric_rule(1, 1, "> 90", 20)]), &events, &["firing 30 since 10"]);
}

#[test]
fn a_new_rule_looks_at_series_that_nobody_cared_for_before() {
    let mut events = loads(&[(10, 95.0), (20, 95.0)]);
    events.push(Event::Rules(set(2, &[metric_rule(1, 1, "> 90", 0)])));
    events.extend(loads(&[(30, 95.0)]));
    events.push(Event::Rules(set(3, &[metric_rule(1, 1, "> 90", 0), metric_rule(2, 1, "> 80", 0)])));
    events.extend(loads(&[(40, 95.0)]));
    check(&set(1, &[]), &events, &["firing 30 since 30", "firing 40 since 40"]);
}

#[test]
fn a_deleted_rule_resolves_without_anything_more() {
    let mut events = loads(&[(10, 95.0)]);
    events.push(Event::Logs(11, line("web", 11, "oom")));
    events.push(Event::Rules(set(2, &[])));
    let rules = [metric_rule(1, 1, "> 90", 0), log_rule(2, "oom", "{}", 60)];
    let expected = ["firing 10 since 10", "firing 11 since 11", "resolved 10 since 10", "resolved 11 since 11"];
    let said = check(&set(1, &rules), &events, &expected);
    assert_eq!(said[2].reason, "rule_deleted");
}

#[test]
fn a_rule_that_is_disabled_ends_and_begins_anew_when_it_is_enabled() {
    let off = RuleDocument { disabled: true, ..metric_document(1, "> 90", 0) };
    let mut events = loads(&[(10, 95.0)]);
    events.push(Event::Rules(set(2, &[rule(1, 2, 2, off)])));
    events.extend(loads(&[(20, 95.0)]));
    events.push(Event::Rules(set(3, &[metric_rule(1, 3, "> 90", 0)])));
    events.extend(loads(&[(30, 95.0)]));
    let expected = ["firing 10 since 10", "resolved 10 since 10", "firing 30 since 30"];
    let said = check(&set(1, &[metric_rule(1, 1, "> 90", 0)]), &events, &expected);
    assert_eq!(said[1].reason, "rule_disabled");
}

#[test]
fn nothing_is_left_of_rules_that_are_gone() {
    let rules = [metric_rule(1, 1, "> 90", 0), metric_rule(2, 1, "> 50", 0)];
    let mut shard = Shard::new(&set(1, &rules));
    for host in 0..200 {
        shard.apply(&Event::Metrics(1, load(&format!("h{host}"), 1, Some(95.0))));
    }
    assert_eq!((shard.metrics.firing_count(), shard.said.len()), (400, 400));
    shard.apply(&Event::Rules(set(2, &rules[1..])));
    assert_eq!((shard.metrics.firing_count(), shard.metrics.bindings().len()), (200, 1));
    shard.apply(&Event::Rules(set(3, &[])));
    assert_eq!((shard.metrics.firing_count(), shard.metrics.bytes(), shard.said.len()), (0, 0, 800));
}

#[test]
fn a_rule_lets_go_of_a_series_whose_labels_it_does_not_match_any_more() {
    let named = |name: &str, second: u64| {
        let attributes = vec![attribute("sightline.resource.id", "r"), attribute("host.name", name)];
        let body = load_of(Some(Resource { attributes, ..Resource::default() }), START + second * SECOND, Some(95.0));
        Event::Metrics(second, body)
    };
    let web = RuleDocument { r#match: "{host_name=\"web\"}".into(), ..metric_document(1, "> 90", 0) };
    let rules = set(1, &[rule(1, 1, 1, web), metric_rule(2, 1, "> 99", 0)]);
    let events = [named("web", 10), named("db", 20), named("db", 30), named("web", 40)];
    let said = check(&rules, &events, &["firing 10 since 10", "resolved 10 since 10", "firing 40 since 40"]);
    assert_eq!((said[1].reason, said[1].rule.id), ("no_match", Uuid::from_u128(1)));
    let mut shard = Shard::new(&rules);
    events[..2].iter().for_each(|event| shard.apply(event));
    let bound = |shard: &Shard| {
        shard.metrics.bindings().iter().map(|of| (of.rule.as_u128(), of.subjects)).collect::<BTreeMap<_, _>>()
    };
    assert_eq!(bound(&shard), BTreeMap::from([(1, 0), (2, 1)]));
}
