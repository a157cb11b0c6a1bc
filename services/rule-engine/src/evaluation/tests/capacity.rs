//! Room for state, and that it is nobody's alone.

use super::*;

fn of_tenant(tenant: &str, number: u128) -> Arc<Rule> {
    let document = metric_document(number, "> 90", 0);
    Arc::new(Rule::new(Uuid::from_u128(number), 1, 1, tenant.to_owned(), "metric".to_owned(), document))
}

fn small() -> Limits {
    Limits { state_bytes: 60_000, tenant_state_bytes: 20_000, ..limits() }
}

#[test]
fn one_tenants_series_do_not_take_the_room_of_anothers() {
    let rules = set(1, &[of_tenant("loud", 1), of_tenant("quiet", 2)]);
    let mut shard = Shard::with(&rules, small());
    let mut refused = 0;
    for host in 0..1_000 {
        shard.apply_as("loud", &Event::Metrics(1, load(&format!("h{host}"), 1, Some(1.0))));
        refused += shard.tally.over_capacity;
    }
    assert!(refused > 900 && shard.metrics.bytes() <= 20_000, "{refused} refused, {} bytes", shard.metrics.bytes());
    shard.apply_as("quiet", &Event::Metrics(2, load("web", 2, Some(95.0))));
    assert_eq!((shard.tally.over_capacity, shard.told()), (0, vec!["firing 2 since 2".to_owned()]));
    let loud = shard.metrics.bindings().into_iter().find(|binding| binding.rule == Uuid::from_u128(1)).unwrap();
    assert_eq!((loud.subjects + loud.over_capacity, loud.over_capacity), (1_000, refused));
}

#[test]
fn what_was_refused_is_tried_again_when_there_is_room() {
    let rules = set(1, &[of_tenant("loud", 1)]);
    let mut shard = Shard::with(&rules, Limits { idle: Duration::from_secs(60), ..small() });
    for host in 0..100 {
        shard.apply_as("loud", &Event::Metrics(1, load(&format!("h{host}"), 1, Some(95.0))));
    }
    let fired = shard.said.len();
    assert!(fired < 100);
    // The others go silent and are forgotten; the last one goes on.
    for second in [60, 130] {
        shard.apply_as("loud", &Event::Metrics(second, load("h99", second, Some(95.0))));
    }
    assert_eq!(shard.told().last().unwrap(), "firing 130 since 130");
}

#[test]
fn room_is_given_back_to_the_last_byte() {
    let rules = set(1, &[of_tenant("acme", 1), log_rule(2, "oom", "{}", 60)]);
    let mut shard = Shard::new(&rules);
    for second in 0..50 {
        shard.apply(&Event::Metrics(second, load(&format!("h{second}"), second, Some(95.0))));
        shard.apply(&Event::Logs(second, line(&format!("h{second}"), second, "oom and a longer line")));
        shard.apply(&Event::Logs(second, line(&format!("h{second}"), second, "oom")));
    }
    assert!(shard.metrics.bytes() > 0 && shard.logs.bytes() > 0);
    shard.apply(&Event::Tick(100_000));
    assert_eq!((shard.metrics.bytes(), shard.logs.bytes()), (0, 0));
}

#[test]
fn series_that_no_rule_is_about_take_no_room() {
    let document = RuleDocument { r#match: r#"{host_name="web"}"#.into(), ..metric_document(1, "> 90", 0) };
    let mut shard = Shard::new(&set(1, &[rule(1, 1, 1, document)]));
    for host in 0..5_000 {
        shard.apply(&Event::Metrics(1, load(&format!("h{host}"), 1, Some(95.0))));
    }
    assert_eq!((shard.metrics.bytes(), shard.said.len()), (0, 0));
}

/// Loads of so many hosts in one message.
fn loads_of(hosts: u64, second: u64) -> Vec<u8> {
    let all = (0..hosts).map(|host| load(&format!("h{host}"), second, Some(95.0)));
    // Messages of OTLP that follow each other are one with all of their parts.
    all.flatten().collect()
}

#[test]
fn rules_that_cost_too_much_on_new_series_cost_their_tenant_alone() {
    let costly = |number| {
        let document = RuleDocument { r#match: r#"{host_name=~"h.*"}"#.into(), ..metric_document(number, "> 90", 0) };
        Arc::new(Rule::new(Uuid::from_u128(number), 1, 1, "loud".to_owned(), "metric".to_owned(), document))
    };
    let rules: Vec<Arc<Rule>> = (1..50).map(costly).chain([of_tenant("quiet", 50)]).collect();
    let mut shard = Shard::with(&set(1, &rules), Limits { tenant_work: 10_000, ..limits() });
    shard.apply_as("loud", &Event::Metrics(1, loads_of(200, 1)));
    let fired = shard.said.len();
    assert_eq!(fired as u64 + shard.tally.over_work * 49, 200 * 49);
    assert!(shard.tally.over_work > 0 && fired > 0, "{:?}", shard.tally);
    // In the same second nothing is left to the one, and everything to the other.
    shard.apply_as("loud", &Event::Metrics(1, loads_of(200, 1)));
    assert_eq!(shard.said.len(), fired);
    shard.apply_as("quiet", &Event::Metrics(1, load("web", 1, Some(95.0))));
    assert_eq!(shard.said.len(), fired + 1);
    // As time passes everything is looked at.
    for second in 2..60 {
        shard.apply_as("loud", &Event::Metrics(second, loads_of(200, second)));
    }
    assert_eq!((shard.said.len(), shard.tally.over_work), (200 * 49 + 1, 0));
}

#[test]
fn a_successor_that_must_find_everything_again_goes_on_with_what_is_known() {
    let document = RuleDocument { r#match: r#"{host_name=~"h.*"}"#.into(), ..metric_document(1, "> 90", 20) };
    let rules = set(1, &[rule(1, 1, 1, document)]);
    let poor = Limits { tenant_work: 20, ..limits() };
    let mut shard = Shard::with(&rules, poor);
    for second in 0..60 {
        shard.apply(&Event::Metrics(second, loads_of(20, 10)));
    }
    let mut kept = Kept::default();
    kept.keep(&mut shard.metrics);
    shard.metrics = kept.restore_with(Signal::Metrics, &rules, poor).evaluation;
    shard.apply(&Event::Metrics(61, loads_of(20, 30)));
    assert_eq!((shard.told(), shard.tally.over_work), (vec!["firing 30 since 10".to_owned(); 20], 0));
}

#[test]
fn lines_that_cost_too_much_cost_their_tenant_alone() {
    let rules: Vec<Arc<Rule>> = (1..200).map(|number| log_rule(number, "a", r#"{host_name=~"h.*"}"#, 60)).collect();
    let mut shard = Shard::with(&set(1, &rules), Limits { tenant_work: 10_000, ..limits() });
    shard.apply(&Event::Logs(1, line("h1", 1, "a")));
    assert_eq!((shard.said.len(), shard.tally.over_work), (199, 0));
    let lines: Vec<u8> = (0..100).flat_map(|host| line(&format!("h{host}"), 1, "a")).collect();
    shard.apply(&Event::Logs(1, lines));
    assert!(shard.tally.over_work > 50, "{:?}", shard.tally);
}

#[test]
fn counting_whom_log_rules_are_about_costs_no_more_than_it_may_for_one_message() {
    let rules: Vec<Arc<Rule>> = (1..400).map(|number| log_rule(number, "b", r#"{host_name=~"h.*"}"#, 60)).collect();
    let mut shard = Shard::new(&set(1, &rules));
    let lines: Vec<u8> = (0..500).flat_map(|host| line(&format!("h{host}"), 1, "a")).collect();
    let counted = |shard: &Shard| shard.logs.bindings().iter().map(|binding| binding.subjects).max().unwrap();
    shard.apply(&Event::Logs(1, lines.clone()));
    let first = counted(&shard);
    assert!((1..500).contains(&first), "{first} counted");
    for _ in 0..60 {
        shard.apply(&Event::Logs(1, lines.clone()));
    }
    assert_eq!(counted(&shard), 500, "the rest when they write again");
}

/// Samples of one series that cross 90 with each one, a millisecond apart.
fn restless(samples: u64, second: u64) -> Vec<u8> {
    let value = |number: u64| Some(if number.is_multiple_of(2) { 95.0 } else { 5.0 });
    let time = |number: u64| START + second * SECOND + number * 1_000_000;
    (0..samples).flat_map(|number| load_of(resource("web"), time(number), value(number))).collect()
}

#[test]
fn samples_that_decide_again_and_again_cost_their_tenant_alone() {
    let rules: Vec<Arc<Rule>> = (1..=200).map(|n| of_tenant("loud", n)).chain([of_tenant("quiet", 999)]).collect();
    let mut shard = Shard::with(&set(1, &rules), Limits { tenant_decisions: 1_000, ..limits() });
    shard.apply_as("loud", &Event::Metrics(20, restless(20_000, 1)));
    let said = shard.said.len();
    assert!((1_000..2_000).contains(&said) && shard.tally.over_work > 19_000, "{said}, {:?}", shard.tally);
    shard.apply_as("quiet", &Event::Metrics(20, load("web", 20, Some(95.0))));
    assert_eq!(shard.said.len(), said + 1);
    // In the next second it is looked at again, and what was left out is decided.
    shard.apply_as("loud", &Event::Metrics(30, load("web", 30, Some(5.0))));
    let (fires, ends): (Vec<&Decision>, Vec<&Decision>) =
        shard.said.iter().partition(|decision| decision.state == crate::transition::State::Firing);
    assert_eq!(fires.len(), ends.len() + 1, "only the quiet one is on");
}
