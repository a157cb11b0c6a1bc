//! What people write, and what they get told when it is wrong.

use super::limits::{MAX_COMPILED_BYTES, MAX_EXPRESSION_BYTES, MAX_LENGTH, MAX_MATCHERS};
use super::*;

const LABELS: [(&str, &str); 3] = [("kind", "host"), ("env", "prod"), ("note", "a\nb")];

#[track_caller]
fn check(text: &str, chosen: bool) {
    let selector = Selector::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let find = |name: &str| LABELS.iter().find(|(label, _)| *label == name).map(|(_, value)| *value);
    assert_eq!(selector.matches(find), chosen, "{text}");
    assert_eq!(Selector::parse(&selector.to_string()), Ok(selector), "{text} does not survive being written");
}

#[track_caller]
fn refused(text: &str, position: usize, part: &str) {
    let error = Selector::parse(text).expect_err(text);
    assert_eq!(error.position, position, "{text}: {error}");
    assert!(error.message.contains(part), "{text}: {error}");
}

#[test]
fn nothing_written_chooses_everything() {
    check("", true);
    check(" { } ", true);
    assert!(Selector::parse("{}").unwrap().is_everything());
}

#[test]
fn all_matchers_must_accept() {
    check(r#"{kind="host",env="prod"}"#, true);
    check(r#"{kind="host",env="stage"}"#, false);
    check(r#" { kind = "host" , env != 'stage' , } "#, true);
    check("kind=`host`", true);
}

#[test]
fn a_missing_label_reads_as_the_empty_string() {
    check(r#"{zone=""}"#, true);
    check(r#"{zone!=""}"#, false);
    check(r#"{zone!="eu"}"#, true);
    check(r#"{zone=~".+"}"#, false);
    check(r#"{zone!~"eu|us"}"#, true);
}

#[test]
fn expressions_match_the_whole_value() {
    check(r#"{env=~"prod|stage"}"#, true);
    check(r#"{env=~"pro"}"#, false);
    check(r#"{env!~"pro"}"#, true);
    check(r#"{env=~"pro|d"}"#, false);
    check(r#"{note=~"a.b"}"#, true);
}

#[test]
fn escapes_are_read_as_in_a_go_string() {
    check(r#"{note="a\nb"}"#, true);
    check("{env=\"\\x70rod\"}", true);
    check("{env='\\u0070rod'}", true);
    check(r#"{env=~`\w+`}"#, true);
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    refused("{kind}", 5, "one of `=`");
    refused("{kind=host}", 6, "a value in quotes");
    refused(r#"{kind="host"#, 6, "not closed");
    refused(r#"{kind="host""#, 12, "`,` or `}`");
    refused(r#"{kind="host"} x"#, 14, "nothing after");
    refused(r#"{1kind="host"}"#, 1, "label name");
    refused(r#"{,}"#, 1, "label name");
    refused(r#"{kind="\d"}"#, 7, "not an escape");
    refused(r#"{kind=~"("}"#, 7, "unclosed group");
    refused(r#"{kind=~"a)(?:b"}"#, 7, "unopened group");
    refused(r#"{kind=~"(a{1000}){1000}"}"#, 7, "size");
    refused(&format!("{{kind={:?}}}", "x".repeat(MAX_LENGTH)), 0, "at most");
}

#[test]
fn an_attribute_may_be_written_for_its_label() {
    const SERVICE: [(&str, &str); 2] = [("service_name", "shop"), ("a_b", "1")];
    let find = |name: &str| SERVICE.iter().find(|(label, _)| *label == name).map(|(_, value)| *value);
    for text in ["{service.name=\"shop\"}", "{service_name=\"shop\"}", "{\"service.name\"=\"shop\"}", "{`a::b`=\"1\"}"]
    {
        let selector = Selector::parse(text).unwrap();
        assert!(selector.matches(find), "{text}");
        assert_eq!(Selector::parse(&selector.to_string()), Ok(selector), "{text}");
    }
    assert_eq!(Selector::parse("{service.name=\"x\"}").unwrap().matchers()[0].label, "service_name");
    assert_eq!(Selector::parse("{__name__=\"x\"}").unwrap().matchers()[0].label, "__name__");
    refused("{.a=\"x\"}", 1, "label name");
    refused("{\"\"=\"x\"}", 1, "label name");
}

#[test]
fn two_selectors_choose_what_both_do() {
    let one = Selector::parse(r#"{kind="host",env=~"pro."}"#).unwrap();
    let other = Selector::parse(r#"{note!=""}"#).unwrap();
    let find = |name: &str| LABELS.iter().find(|(label, _)| *label == name).map(|(_, value)| *value);
    assert!(one.and(&other).matches(find));
    assert!(!one.and(&Selector::parse(r#"{note=""}"#).unwrap()).matches(find));
    assert_eq!(one.and(&Selector::default()), one);
}

#[test]
fn a_word_boundary_beside_a_character_that_is_not_ascii_is_found() {
    let selector = Selector::parse(r"{city=~`.*\bköln\b.*`}").unwrap();
    assert!(selector.matches(|_| Some("über köln hinaus")));
    assert!(!selector.matches(|_| Some("überköln hinaus")));
}

#[test]
fn what_costs_too_much_is_refused_with_its_place() {
    let many = |text: &str, count: usize| format!("{{{}}}", vec![text; count].join(","));
    assert!(Selector::parse(&many("a=\"x\"", MAX_MATCHERS)).is_ok());
    refused(&many("a=\"x\"", MAX_MATCHERS + 1), 1 + 6 * MAX_MATCHERS, "at most 30 matchers");
    refused(r"{a=~`\w{20}`}", 4, "compiled size");
    refused(r"{a=~`((((a{10}){10}){10}){10}){10}`}", 4, "compiled size");
    refused(&format!("{{a=~`{}`}}", r"\pL".repeat(1_000)), 4, "too many classes");
    refused(&format!("{{a=~`(?i){}`}}", "[!-\u{10ffff}]".repeat(800)), 4, "too many classes");
    refused(&format!("{{a=~`{}{}`}}", "(".repeat(60), ")".repeat(60)), 4, "nest");
    let large = many(r"a=~`\pL\pL`", 20);
    let error = Selector::parse(&large).unwrap_err();
    assert!(error.message.contains("those before it"), "{error}");
    assert!(error.position > 20, "the first of them are taken");
}

#[test]
fn ordinary_expressions_are_far_from_the_limits() {
    for text in [
        r"{host=~`web-\d+\.(eu|us)-[a-z]+-\d`,ip=~`(\d{1,3}\.){3}\d{1,3}`}",
        r"{path=~`/api/v\d+/[\w-]+(/.*)?`}",
        r"{env=~`(?i)prod.*|stage`,name!~`test-.*|.*-canary`}",
    ] {
        let selector = Selector::parse(text).unwrap();
        assert!(selector.weight() < MAX_COMPILED_BYTES / 4, "{text}: {}", selector.weight());
        assert!(
            selector.matchers().iter().filter_map(|m| m.expression.as_ref()).all(|e| e.size() < MAX_EXPRESSION_BYTES)
        );
    }
    assert_eq!(Selector::parse(r#"{a="b",c!="d"}"#).unwrap().weight(), 0);
}

#[tokio::test]
async fn a_request_reads_as_a_stored_one() {
    for text in ["", r#"{a=~"b|c",d="e"}"#, r#"{a=~"("}"#, "{a=", &"~".repeat(MAX_LENGTH + 1)] {
        assert_eq!(Selector::read(text).await, Selector::parse(text), "{text}");
    }
}

#[test]
fn the_place_counts_characters_not_bytes() {
    refused("{kind=\"ö\",-}", 10, "label name");
}
