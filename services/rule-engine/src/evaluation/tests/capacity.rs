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
