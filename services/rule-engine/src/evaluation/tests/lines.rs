//! Log rules.

use super::*;

#[test]
fn a_line_fires_once_and_resolves_after_the_last_match_by_the_lanes_time() {
    let events = [
        Event::Logs(10, line("web", 10, "it is fine")),
        Event::Logs(11, line("web", 11, "kernel: Out of memory: killed")),
        Event::Logs(30, line("web", 30, "Out of memory")),
        Event::Tick(89),
        Event::Tick(91),
    ];
    let rules = set(1, &[log_rule(1, "Out of memory", "{}", 60)]);
    let said = check(&rules, &events, &["firing 11 since 11", "resolved 90 since 11"]);
    assert_eq!((said[0].line.as_str(), said[1].line.as_str()), ("kernel: Out of memory: killed", "Out of memory"));
    assert!(said[0].value.is_nan());
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(said[0].naming.labels().identifying, [pair("resource_id", "web")]);
    assert_eq!(said[0].naming.labels().descriptive, [pair("host_name", "web")]);
}

#[test]
fn metrics_of_now_say_nothing_about_lines_that_are_still_to_come() {
    let mut events = vec![Event::Logs(10, line("web", 10, "oom"))];
    events.extend(loads(&[(500, 1.0)]));
    check(&set(1, &[log_rule(1, "oom", "{}", 60)]), &events, &["firing 10 since 10"]);
}

#[test]
fn a_line_from_the_future_silences_nothing() {
    for ahead in [9 * 60, 86_400, 400 * 86_400] {
        let events =
            [Event::Logs(10, line("web", 10 + ahead, "oom")), Event::Tick(13), Event::Logs(20, line("web", 20, "oom"))];
        let mut shard = Shard::new(&set(1, &[log_rule(1, "oom", "{}", 2)]));
        events.iter().for_each(|event| shard.apply(event));
        let states: Vec<(&str, u64)> =
            shard.said.iter().map(|d| (d.state.as_str(), d.facts.received / SECOND - START / SECOND)).collect();
        assert_eq!(states, [("firing", 10), ("resolved", 13), ("firing", 20)], "{ahead} s ahead");
        let first = shard.said[0].facts.sample - START;
        let believed = if ahead <= 600 { 10 + ahead } else { 10 };
        assert_eq!(first, believed * SECOND, "what is not believed gets the time of its receipt");
    }
    let mut shard = Shard::new(&set(1, &[log_rule(1, "oom", "{}", 2)]));
    shard.apply(&Event::Logs(10, line_of(resource("web"), u64::MAX, "oom")));
    assert_eq!((shard.said.len(), shard.tally.ahead), (1, 1), "a time beyond all times loses no page");
}

#[test]
fn a_gateway_that_lags_behind_the_lane_makes_no_line_end_at_once() {
    // Another gateway has taken the lane to 100 s.
    let mut events = vec![Event::Tick(100)];
    events.extend([30, 31, 32].map(|second| Event::Logs(second, line("web", second, "oom"))));
    events.extend([Event::Tick(104), Event::Tick(106)]);
    check(&set(1, &[log_rule(1, "oom", "{}", 5)]), &events, &["firing 30 since 30", "resolved 105 since 30"]);
}

#[test]
fn two_lines_of_the_same_time_are_two_alerts_if_one_is_over_before_the_other_comes() {
    let events = [Event::Logs(10, line("web", 10, "oom")), Event::Tick(80), Event::Logs(81, line("web", 10, "oom"))];
    let rules = set(1, &[log_rule(1, "oom", "{}", 60)]);
    let said = check(&rules, &events, &["firing 10 since 10", "resolved 70 since 10", "firing 10 since 10"]);
    assert_ne!(said[0].id(), said[2].id());
    assert_eq!(said[2].previous, Some(said[1].id()));
}

#[test]
fn lines_that_were_spooled_for_hours_tell_nobody_until_one_is_in_time() {
    let events = [
        Event::Logs(20_000, line("web", 10, "oom")),
        Event::Logs(20_001, line("web", 11, "oom")),
        Event::Logs(20_002, line("web", 20_001, "oom")),
    ];
    let rules = set(1, &[log_rule(1, "oom", "{}", 60)]);
    check(&rules, &events, &["firing 10 since 10 late", "firing 20001 since 10"]);
}

#[test]
fn a_batch_that_a_client_repeats_is_not_counted_again() {
    let stamped = |part: i64| {
        let mut request = ExportLogsServiceRequest::decode(line("web", 1, "oom").as_slice()).unwrap();
        let mut number = attribute("sightline.batch.part", "");
        number.value = Some(AnyValue { value: Some(any_value::Value::IntValue(part)) });
        let attributes = &mut request.resource_logs[0].resource.as_mut().unwrap().attributes;
        attributes.extend([attribute("sightline.batch.id", "00112233445566778899aabbccddeeff"), number]);
        request.encode_to_vec()
    };
    // The repeat at 4 s does not make the hold of 5 s last until 9 s; another part of the batch does.
    let rules = set(1, &[log_rule(1, "oom", "{}", 5)]);
    let events = |part| [Event::Logs(1, stamped(0)), Event::Logs(4, stamped(part)), Event::Tick(7)];
    check(&rules, &events(0), &["firing 1 since 1", "resolved 6 since 1"]);
    check(&rules, &events(1), &["firing 1 since 1"]);
}

#[test]
fn log_rules_choose_resources_and_are_told_apart() {
    let rules = [
        log_rule(1, "oom", r#"{host_name="web"}"#, 60),
        log_rule(2, "oom", r#"{resource_id=~"d.*"}"#, 60),
        log_rule(3, "o", "{}", 60),
    ];
    let events = [Event::Logs(10, line("web", 10, "oom oom")), Event::Logs(10, line("db", 10, "oom"))];
    let said = check(&set(1, &rules), &events, &["firing 10 since 10"; 4]);
    let fired: Vec<(u128, String)> =
        said.iter().map(|d| (d.rule.id.as_u128(), d.naming.labels().get("resource_id").to_owned())).collect();
    assert_eq!(fired, [(3, "web"), (1, "web"), (3, "db"), (2, "db")].map(|(rule, id)| (rule, id.to_owned())));
}

#[test]
fn a_selector_sees_every_attribute_and_what_identifies_travels_first() {
    let mut attributes: Vec<KeyValue> = (0..60).map(|n| attribute(&format!("a{n:02}"), "x")).collect();
    attributes.extend([attribute("sightline.resource.id", "app"), attribute("service.name", "shop")]);
    let resource = Some(Resource { attributes, ..Resource::default() });
    let events = [Event::Logs(10, line_of(resource, START, "oom"))];
    let rules = [
        log_rule(1, "oom", r#"{service_name="shop",a59="x"}"#, 60),
        log_rule(2, "oom", r#"{service_name!="shop"}"#, 60),
    ];
    let mut shard = Shard::new(&set(1, &rules));
    shard.apply(&events[0]);
    let said = &shard.said;
    assert_eq!((said.len(), said[0].rule.id, shard.tally.cut_labels), (1, Uuid::from_u128(1), 31));
    let shown = said[0].naming.labels().descriptive;
    assert_eq!((shown.len(), said[0].naming.labels().get("service_name")), (series::MAX_LABELS, "shop"));
}

#[test]
fn of_an_attribute_that_repeats_the_last_counts() {
    let attributes = vec![attribute("sightline.resource.id", "web"), attribute("env", "dev"), attribute("env", "prod")];
    let resource = Some(Resource { attributes, ..Resource::default() });
    let events = [Event::Logs(10, line_of(resource, START, "oom"))];
    let rules = [log_rule(1, "oom", r#"{env="dev"}"#, 60), log_rule(2, "oom", r#"{env="prod"}"#, 60)];
    let said = check(&set(1, &rules), &events, &["firing 0 since 0"]);
    assert_eq!(said[0].rule.id, Uuid::from_u128(2));
}

#[test]
fn resources_that_a_log_rule_is_about_are_counted_though_it_never_fires() {
    let mut shard =
        Shard::new(&set(1, &[log_rule(1, "oom", r#"{host_name=~"w.*"}"#, 60), log_rule(2, "x", "{a=\"b\"}", 60)]));
    for (second, host) in [(1, "web"), (2, "www"), (3, "db"), (4, "web")] {
        shard.apply(&Event::Logs(second, line(host, second, "all is well")));
    }
    let counts: Vec<(u128, u64)> = shard.logs.bindings().iter().map(|b| (b.rule.as_u128(), b.subjects)).collect();
    assert_eq!(counts, [(1, 2)]);
    // After an hour or two without a line, nothing is left.
    for second in [3_700, 7_400] {
        shard.apply(&Event::Tick(second));
    }
    assert_eq!(shard.logs.bindings(), []);
}

#[test]
fn a_changed_rule_of_another_tenant_leaves_counted_resources_counted() {
    let ours = log_rule(1, "oom", "{}", 60);
    let document = |selector: &str| RuleDocument { r#match: selector.into(), ..ours.document.clone() };
    let theirs = |version, selector: &str| {
        let id = Uuid::from_u128(2);
        Arc::new(Rule::new(id, version, version, "other".to_owned(), "log".to_owned(), document(selector)))
    };
    let mut shard = Shard::new(&set(1, &[Arc::clone(&ours), theirs(1, "{}")]));
    for tenant in ["acme", "other"] {
        shard.apply_as(tenant, &Event::Logs(1, line("web", 1, "all is well")));
    }
    shard.apply(&Event::Rules(set(2, &[Arc::clone(&ours), theirs(2, r#"{a="b"}"#)])));
    let counts: Vec<(u128, u64)> = shard.logs.bindings().iter().map(|b| (b.rule.as_u128(), b.subjects)).collect();
    assert_eq!(counts, [(1, 1)], "theirs is looked at again when it writes");
}

#[test]
fn an_edit_of_what_is_looked_for_counts_on_and_an_edit_of_where_takes_nothing_from_other_rules() {
    let edited = |version, text: &str, selector: &str| {
        let looked_for = Subject::Log(LogCondition { contains: text.into() });
        let document = log_rule(1, "oom", selector, 60).document.clone();
        rule(1, version, version, RuleDocument { subject: Some(looked_for), ..document })
    };
    let other = log_rule(2, "x", "{}", 60);
    let mut shard = Shard::new(&set(1, &[edited(1, "oom", "{}"), Arc::clone(&other)]));
    let counted = |shard: &Shard| -> BTreeMap<(u128, u64), u64> {
        let bindings = shard.logs.bindings();
        bindings.iter().map(|b| ((b.rule.as_u128(), b.evaluated_version), b.subjects)).collect()
    };
    shard.apply(&Event::Logs(1, line("web", 1, "all is well")));
    shard.apply(&Event::Logs(1, line("db", 1, "all is well")));
    shard.apply(&Event::Rules(set(2, &[edited(2, "killed", "{}"), Arc::clone(&other)])));
    assert_eq!(counted(&shard), [((1, 2), 2), ((2, 1), 2)].into());
    shard.apply(&Event::Rules(set(3, &[edited(3, "killed", r#"{host_name="db"}"#), Arc::clone(&other)])));
    assert_eq!(counted(&shard), [((2, 1), 2)].into());
    for host in ["web", "db"] {
        shard.apply(&Event::Logs(2, line(host, 2, "all is well")));
    }
    assert_eq!(counted(&shard), [((1, 3), 1), ((2, 1), 2)].into());
}

#[test]
fn what_is_no_text_is_found_as_it_is_shown_everywhere() {
    use any_value::Value;
    let bodies = [
        (Value::DoubleValue(0.0), "0.0"),
        (Value::DoubleValue(f64::NEG_INFINITY), "-Infinity"),
        (Value::BytesValue(vec![0xff, 0, 1]), "/wAB"),
        (Value::IntValue(-7), "-7"),
        (Value::BoolValue(true), "true"),
    ];
    for (value, text) in bodies {
        let mut request = ExportLogsServiceRequest::decode(line("web", 1, "").as_slice()).unwrap();
        let record = &mut request.resource_logs[0].scope_logs[0].log_records[0];
        record.body = Some(AnyValue { value: Some(value) });
        let said = check(
            &set(1, &[log_rule(1, text, "{}", 60)]),
            &[Event::Logs(1, request.encode_to_vec())],
            &["firing 1 since 1"],
        );
        assert_eq!(said[0].line, text);
    }
}
