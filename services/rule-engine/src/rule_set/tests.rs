//! Finding rules by an index gives what a look at each would give.

use proptest::prelude::*;
use proto::rules::rule_document::Subject;
use proto::rules::{LogCondition, RuleDocument};

use super::*;

fn rule(number: u128, version: u64, document: RuleDocument) -> Arc<Rule> {
    let kind = crate::kinds::name_of(&document).unwrap_or_default().to_owned();
    Arc::new(Rule::new(Uuid::from_u128(number), version, version, "acme".to_owned(), kind, document))
}

fn metric(number: u128, version: u64, name: &str, selector: &str) -> Arc<Rule> {
    let document = RuleDocument {
        r#match: selector.to_owned(),
        subject: Some(Subject::Metric(name.to_owned())),
        condition: "> 0".to_owned(),
        ..RuleDocument::default()
    };
    rule(number, version, document)
}

fn log(number: u128, text: &str) -> Arc<Rule> {
    let subject = Some(Subject::Log(LogCondition { contains: text.to_owned() }));
    rule(number, 1, RuleDocument { subject, ..RuleDocument::default() })
}

fn plenty() -> Budget {
    Budget::new(u64::MAX)
}

fn matcher() -> impl Strategy<Value = String> {
    let label = prop::sample::select(vec!["host_name", "resource_id", "env", "zone"]);
    let op = prop::sample::select(vec!["=", "!=", "=~", "!~"]);
    let value = prop::sample::select(vec!["", "a", "b", "a|b", ".*"]);
    (label, op, value).prop_map(|(label, op, value)| format!("{label}{op}\"{value}\""))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rules_are_found_by_a_label_as_by_looking_at_each(
        selectors in prop::collection::vec(prop::collection::vec(matcher(), 0..4), 1..30),
        labels in prop::collection::hash_map(
            prop::sample::select(vec!["host_name", "resource_id", "env", "zone"]),
            prop::sample::select(vec!["a", "b", "c"]),
            0..4,
        ),
    ) {
        let rules: Vec<Arc<Rule>> = (1..)
            .zip(&selectors)
            .map(|(number, matchers)| metric(number, 1, "m", &format!("{{{}}}", matchers.join(","))))
            .collect();
        let label = |name: &str| labels.get(name).copied();
        let expected: Vec<Uuid> = rules.iter().filter(|rule| rule.is_about(label)).map(|rule| rule.id).collect();
        let set = RuleSet::new(1, rules, &RuleSet::default());
        let keys = series::name_keys("m");
        let found: Vec<Uuid> = set.on_metric("acme", &keys).about(&mut plenty(), label).unwrap().iter().map(|rule| rule.id).collect();
        prop_assert_eq!(found, expected);
    }
}

#[test]
fn only_a_change_of_what_decides_makes_a_metric_look_changed() {
    let keys = series::name_keys("m");
    let since = |set: &RuleSet| set.on_metric("acme", &keys).since();
    let first = RuleSet::new(1, vec![metric(1, 1, "m", "{}"), metric(2, 1, "other", "{}")], &RuleSet::default());
    assert_eq!(since(&first), Some(1));
    let other = RuleSet::new(2, vec![metric(1, 1, "m", "{}"), metric(2, 2, "other", "{}")], &first);
    assert_eq!(since(&other), Some(1), "another metric's rule");
    let shown = {
        let rule = metric(1, 1, "m", "{}");
        Arc::new(Rule::new(rule.id, 2, 1, rule.tenant.clone(), rule.kind.clone(), rule.document.clone()))
    };
    let shown = RuleSet::new(3, vec![shown], &other);
    assert_eq!(since(&shown), Some(1), "only the presentation");
    let found = shown.on_metric("acme", &keys);
    assert_eq!(found.about(&mut plenty(), |_| None).unwrap()[0].version, 2, "which is the newest all the same");
    assert_eq!(since(&RuleSet::new(4, vec![metric(1, 3, "m", "{}")], &shown)), Some(4));
    assert_eq!(since(&RuleSet::new(5, vec![], &shown)), None);
}

#[test]
fn a_rule_that_wants_a_metric_under_several_names_is_found_once() {
    let set = RuleSet::new(1, vec![metric(1, 1, "http.server.duration", "{}")], &RuleSet::default());
    for (stored, count) in [("http_server_duration_seconds", 1), ("http_server_duration", 1), ("http_server", 0)] {
        let keys = series::name_keys(stored);
        assert_eq!(set.on_metric("acme", &keys).about(&mut plenty(), |_| None).unwrap().len(), count, "{stored}");
    }
}

#[test]
fn every_text_in_a_line_is_found_once() {
    let rules = vec![log(1, "oom"), log(2, "om"), log(3, "oom"), log(4, "panic")];
    let set = RuleSet::new(1, rules, &RuleSet::default());
    let mut found = Vec::new();
    let (mut seen, mut budget) = (Seen::default(), plenty());
    let literals = set.on_logs("acme").unwrap();
    for line in ["panic", "oom, and oom again"] {
        found.clear();
        assert!(literals.each_in(line, &mut seen, &mut budget, |budget, _, candidates| {
            found.extend(candidates.about(budget, |_| None).unwrap().iter().map(|rule| rule.id.as_u128()));
            true
        }));
    }
    found.sort_unstable();
    assert_eq!(found, [1, 2, 3]);
    assert!(set.on_logs("other").is_none());
}

#[test]
fn texts_that_contain_each_other_cost_no_more_than_there_is_to_spend() {
    let nested = |count: u128| (1..=count).map(|number| log(number, &"a".repeat(usize::try_from(number).unwrap())));
    let line = "a".repeat(512 << 10);
    let look = |rules: Vec<Arc<Rule>>, looks: u64| {
        let set = RuleSet::new(1, rules, &RuleSet::default());
        let (mut count, mut budget) = (0, Budget::new(looks));
        let is_read = set.on_logs("acme").unwrap().each_in(&line, &mut Seen::default(), &mut budget, |budget, _, _| {
            count += 1;
            budget.pays(1)
        });
        (is_read, count, budget.left())
    };
    // Each was found after 512 characters: what follows brings nothing more.
    let (is_read, count, left) = look(nested(512).collect(), 20_000);
    assert!(is_read && count == 512 && left > 10_000, "{left} left");
    // One is still to be found: what is looked at ends with the budget.
    assert_eq!(look(nested(512).chain([log(513, "b")]).collect(), 20_000), (false, 512, 0));
}
