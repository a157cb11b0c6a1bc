//! What people write, and what they get told when it is wrong.

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
fn the_place_counts_characters_not_bytes() {
    refused("{kind=\"ö\",-}", 10, "label name");
}
