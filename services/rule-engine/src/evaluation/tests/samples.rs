//! Metric rules.

use super::*;

#[test]
fn a_threshold_fires_when_it_has_held_for_long_enough() {
    let samples = loads(&[(0, 1.0), (10, 95.0), (20, 96.0), (40, 97.0), (50, 10.0)]);
    let rules = set(1, &[metric_rule(1, 1, "> 90", 30)]);
    let said = check(&rules, &samples, &["firing 40 since 10", "resolved 50 since 10"]);
    assert_eq!((said[0].value, said[1].value), (97.0, 10.0));
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(said[0].naming.labels().identifying, [pair("__name__", "load"), pair("resource_id", "web")]);
    assert_eq!(said[0].naming.labels().descriptive, [pair("host_name", "web")]);
    assert_eq!((said[0].order, said[1].order, said[1].previous), (1, 2, Some(said[0].id())));
    assert_ne!(said[0].id(), said[1].id());
}

#[test]
fn samples_that_are_not_newer_change_nothing() {
    let mut events = loads(&[(10, 95.0), (20, 95.0)]);
    events.extend(loads(&[(10, 1.0), (20, 1.0), (15, 1.0)]));
    events.extend(loads(&[(30, 95.0), (30, 1.0)]));
    check(&set(1, &[metric_rule(1, 1, "> 90", 20)]), &events, &["firing 30 since 10"]);
}

#[test]
fn a_sample_from_far_ahead_does_not_silence_its_series() {
    let rules = set(1, &[metric_rule(1, 1, "> 90", 0)]);
    let beyond = load_of(resource("web"), u64::MAX, Some(1.0));
    let events = [
        Event::Metrics(10, load("web", 100_000, Some(1.0))),
        Event::Metrics(10, beyond),
        Event::Metrics(11, load("web", 11, Some(95.0))),
    ];
    check(&rules, &events, &["firing 11 since 11"]);
    let mut shard = Shard::new(&rules);
    shard.apply(&events[0]);
    assert_eq!((shard.tally.ahead, shard.tally.evaluated), (1, 0));
}

#[test]
fn the_end_of_a_series_ends_what_was_pending_or_firing() {
    let mut events = loads(&[(10, 95.0)]);
    events.push(Event::Metrics(15, load("web", 15, None)));
    events.extend(loads(&[(20, 95.0), (30, 95.0)]));
    events.push(Event::Metrics(40, load("web", 40, None)));
    let rules = set(1, &[metric_rule(1, 1, "> 90", 10)]);
    check(&rules, &events, &["firing 30 since 20", "resolved 40 since 20"]);
}

#[test]
fn a_series_without_news_for_an_hour_resolves_though_nothing_else_comes_but_time() {
    let mut events = loads(&[(10, 95.0)]);
    events.extend([Event::Tick(3_609), Event::Tick(3_610), Event::Tick(90_000)]);
    let rules = set(1, &[metric_rule(1, 1, "> 90", 0)]);
    let said = check(&rules, &events, &["firing 10 since 10", "resolved 10 since 10"]);
    assert_eq!((said[1].facts.received, said[1].reason), (START + 3_610 * SECOND, "silent"));
    let mut shard = Shard::new(&rules);
    events.iter().for_each(|event| shard.apply(event));
    assert_eq!((shard.metrics.bytes(), shard.metrics.bindings()[0].subjects), (0, 0), "it is forgotten");
}

#[test]
fn a_host_that_is_renamed_is_the_same_subject_and_shows_its_new_name() {
    let renamed = |name: &str, second, value| {
        let attributes = vec![attribute("sightline.resource.id", "web"), attribute("host.name", name)];
        let resource = Some(Resource { attributes, ..Resource::default() });
        Event::Metrics(second, load_of(resource, START + second * SECOND, Some(value)))
    };
    let events =
        [renamed("old", 10, 95.0), renamed("new", 20, 95.0), renamed("new", 30, 1.0), renamed("old", 40, 95.0)];
    let rules = set(1, &[metric_rule(1, 1, "> 90", 0)]);
    let said = check(&rules, &events, &["firing 10 since 10", "resolved 30 since 10", "firing 40 since 40"]);
    assert!(said.iter().all(|decision| decision.subject == said[0].subject));
    assert_eq!(
        ["old", "new", "old"],
        [&said[0], &said[1], &said[2]].map(|d| d.naming.labels().get("host_name").to_owned())
    );
}

#[test]
fn what_was_spooled_for_hours_changes_the_state_and_is_told_to_nobody() {
    // Received at 20,000 s: an old peak, then that it is over; then one of now.
    let at = |second, value| Event::Metrics(20_000, load("web", second, Some(value)));
    let rules = set(1, &[metric_rule(1, 1, "> 90", 0)]);
    let events = [at(1_000, 95.0), at(1_010, 1.0), at(19_200, 95.0)];
    let expected = ["firing 1000 since 1000 late", "resolved 1010 since 1000 late", "firing 19200 since 19200"];
    check(&rules, &events, &expected);
}

#[test]
fn what_still_fires_when_data_is_in_time_again_is_told_then() {
    let at = |second, value| Event::Metrics(20_000, load("web", second, Some(value)));
    let events = [at(1_000, 95.0), at(1_010, 95.0), at(19_900, 95.0), at(19_910, 95.0), at(19_920, 1.0)];
    let rules = set(1, &[metric_rule(1, 1, "> 90", 0)]);
    let expected = ["firing 1000 since 1000 late", "firing 19900 since 1000", "resolved 19920 since 1000"];
    let said = check(&rules, &events, &expected);
    assert_eq!(said[1].previous, Some(said[0].id()));
}

#[test]
fn the_end_of_what_was_told_is_told_however_late_it_comes() {
    let mut events = loads(&[(10, 95.0)]);
    events.push(Event::Metrics(3_000, load("web", 20, Some(1.0))));
    check(&set(1, &[metric_rule(1, 1, "> 90", 0)]), &events, &["firing 10 since 10", "resolved 20 since 10"]);
}

#[test]
fn a_rule_has_a_bound_of_its_own_for_what_is_late() {
    let document = RuleDocument { late_after_millis: 5_000, ..metric_document(1, "> 90", 0) };
    let events = [Event::Metrics(16, load("web", 10, Some(95.0))), Event::Metrics(17, load("db", 12, Some(95.0)))];
    check(&set(1, &[rule(1, 1, 1, document)]), &events, &["firing 10 since 10 late", "firing 12 since 12"]);
}

#[test]
fn of_many_rules_for_a_host_each_only_its_own_looks_at_a_series() {
    let for_host = |number: u128| {
        let document = metric_document(number, "> 90", 0);
        rule(number, 1, 1, RuleDocument { r#match: format!(r#"{{host_name="h{number}"}}"#), ..document })
    };
    let rules: Vec<_> = (1..=2_000).map(for_host).collect();
    let mut shard = Shard::new(&set(1, &rules));
    shard.apply(&Event::Metrics(1, load("h7", 1, Some(99.0))));
    assert_eq!((shard.tally.evaluated, shard.said.len()), (1, 1));
    assert_eq!(shard.said[0].rule.id, Uuid::from_u128(7));
}

#[test]
fn tenants_do_not_meet() {
    let mut shard = Shard::new(&set(1, &[metric_rule(1, 1, "> 90", 0), log_rule(2, "oom", "{}", 60)]));
    shard.apply_as("other", &Event::Metrics(1, load("web", 1, Some(99.0))));
    shard.apply_as("other", &Event::Logs(1, line("web", 1, "oom")));
    assert_eq!(shard.told(), [""; 0]);
}

#[test]
fn a_disabled_rule_says_nothing() {
    let document = RuleDocument { disabled: true, ..metric_document(1, "> 90", 0) };
    check(&set(1, &[rule(1, 1, 1, document)]), &loads(&[(1, 99.0)]), &[]);
}

#[test]
fn damaged_bytes_change_nothing() {
    let mut shard = Shard::new(&set(1, &[metric_rule(1, 1, "> 90", 0), log_rule(2, "oom", "{}", 60)]));
    assert!(shard.metrics.message("acme", &[0xff], 1, START, &mut shard.said).is_err());
    assert!(shard.logs.message("acme", &[0xff], 1, START, &mut shard.said).is_err());
}
