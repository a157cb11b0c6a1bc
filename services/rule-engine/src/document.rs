//! What people write as a rule: checked field by field, so that everything behind it can rely on it. Pure.

use std::collections::HashMap;

use fault::{Fault, Field};
use proto::rules::RuleDocument;
use selector::Selector;

use crate::kinds;

const LEVELS: [&str; 4] = ["info", "warning", "error", "critical"];

const MAX_NAME_CHARACTERS: usize = 120;
const MAX_LABELS: usize = 30;
const MAX_LABEL_VALUE: usize = 1_024;
const MAX_ANNOTATION: usize = 4_096;
/// What every transition carries of its rule, beside the series: far below the broker's limit of a message.
const MAX_PRESENTATION: usize = 128 << 10;
const MAX_RECEIVERS: usize = 20;
const MAX_RECEIVER_NAME: usize = 63;

const DAY_MILLIS: u64 = 24 * 60 * 60 * 1_000;
/// Longer than that, and a rule would tell more of the past than of the present.
pub(crate) const MAX_WAIT_MILLIS: u64 = 7 * DAY_MILLIS;

/// Checks a document and fills in its defaults.
///
/// # Errors
/// Every field that is wrong, by path.
pub fn check(mut document: RuleDocument) -> fault::Result<RuleDocument> {
    let mut wrong = Wrong::default();
    document.name = document.name.trim().to_owned();
    wrong.text("name", &document.name, MAX_NAME_CHARACTERS);
    if !LEVELS.contains(&document.level.as_str()) {
        wrong.add("level", format!("write one of {}", LEVELS.join(", ")));
    }
    if let Err(error) = Selector::parse(&document.r#match) {
        wrong.add("match", error.to_string());
    } else if document.r#match.contains('\0') {
        wrong.add("match", "may not contain NUL");
    }
    kinds::check(&mut document, &mut wrong);
    if document.late_after_millis > MAX_WAIT_MILLIS {
        wrong.add("late_after", "may be 7 days at most");
    }
    check_labels("labels", &document.labels, &["alertname"], MAX_LABEL_VALUE, &mut wrong);
    check_labels("annotations", &document.annotations, &[], MAX_ANNOTATION, &mut wrong);
    let texts = document.labels.iter().chain(&document.annotations);
    if texts.map(|(name, value)| name.len() + value.len()).sum::<usize>() > MAX_PRESENTATION {
        wrong.add("annotations", format!("labels and annotations together may have {MAX_PRESENTATION} bytes"));
    }
    check_receivers(&document.receivers, &mut wrong);
    if wrong.0.is_empty() { Ok(document) } else { Err(Fault::fields(wrong.0)) }
}

/// What decides, without what only shows: name, level, labels, annotations, receivers. While this stays the same, so does the
/// state of the rule.
#[must_use]
pub fn evaluated_part(document: &RuleDocument) -> RuleDocument {
    RuleDocument {
        name: String::new(),
        level: String::new(),
        labels: HashMap::new(),
        annotations: HashMap::new(),
        receivers: Vec::new(),
        ..document.clone()
    }
}

fn check_labels(path: &str, labels: &HashMap<String, String>, reserved: &[&str], max_value: usize, wrong: &mut Wrong) {
    if labels.len() > MAX_LABELS {
        wrong.add(path, format!("at most {MAX_LABELS} are allowed"));
    }
    let mut names: Vec<&String> = labels.keys().collect();
    names.sort_unstable();
    for name in names {
        let path = format!("{path}.{name}");
        if !is_label_name(name) {
            wrong.add(path, "a name has letters, digits and `_`, and no digit first");
        } else if reserved.contains(&name.as_str()) {
            wrong.add(path, "is set by Sightline itself; choose another name");
        } else if labels[name].len() > max_value || labels[name].contains('\0') {
            wrong.add(path, format!("a value has at most {max_value} bytes and no NUL"));
        }
    }
}

fn is_label_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.len() <= 100 && name.chars().all(allowed) && name.starts_with(|c: char| !c.is_ascii_digit())
}

fn check_receivers(receivers: &[String], wrong: &mut Wrong) {
    if receivers.len() > MAX_RECEIVERS {
        wrong.add("receivers", format!("at most {MAX_RECEIVERS} may be told of one rule"));
    }
    for (index, name) in receivers.iter().enumerate() {
        let path = format!("receivers[{index}]");
        // As the dispatcher has it.
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
        if name.is_empty() || name.len() > MAX_RECEIVER_NAME || !name.chars().all(allowed) {
            wrong.add(path, "write a receiver's name: 1 to 63 lower case letters, digits, `-`, `_` or `.`");
        } else if receivers[..index].contains(name) {
            wrong.add(path, "is named twice");
        }
    }
}

/// The fields that are wrong.
#[derive(Default)]
pub(crate) struct Wrong(Vec<Field>);

impl Wrong {
    pub(crate) fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(Field { path: path.into(), message: message.into() });
    }

    fn text(&mut self, path: &str, text: &str, max: usize) {
        let length = text.chars().count();
        if length == 0 || length > max || text.chars().any(char::is_control) {
            self.add(path, format!("write 1 to {max} characters on one line"));
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::rules::LogCondition;
    use proto::rules::rule_document::Subject;

    use super::*;

    fn metric() -> RuleDocument {
        RuleDocument {
            name: "cpu high".into(),
            level: "critical".into(),
            r#match: r#"{scope="total"}"#.into(),
            subject: Some(Subject::Metric("system.cpu.usage_percent".into())),
            condition: "> 90".into(),
            for_millis: 30_000,
            receivers: vec!["ops".into()],
            ..RuleDocument::default()
        }
    }

    fn log() -> RuleDocument {
        RuleDocument {
            name: "oom".into(),
            level: "error".into(),
            r#match: "{}".into(),
            subject: Some(Subject::Log(LogCondition { contains: "Out of memory".into() })),
            ..RuleDocument::default()
        }
    }

    #[track_caller]
    fn refused(document: RuleDocument, paths: &[&str]) {
        let fault = check(document).expect_err("refused");
        for path in paths {
            assert!(fault.detail().contains(&format!("{path}: ")), "{path} is not in {fault}");
        }
    }

    #[test]
    fn what_the_documentation_shows_is_taken() {
        assert_eq!(check(metric()).unwrap(), metric());
        assert_eq!(check(log()).unwrap().hold_millis, 300_000);
    }

    #[test]
    fn what_shows_is_no_part_of_what_decides() {
        let before = evaluated_part(&metric());
        let shown = RuleDocument {
            name: "hot".into(),
            level: "info".into(),
            labels: [("a".to_owned(), "b".to_owned())].into(),
            annotations: [("a".to_owned(), "b".to_owned())].into(),
            receivers: vec![],
            ..metric()
        };
        assert_eq!(evaluated_part(&shown), before);
        let decides = [
            RuleDocument { r#match: "{}".into(), ..metric() },
            RuleDocument { condition: "> 91".into(), ..metric() },
            RuleDocument { for_millis: 1, ..metric() },
            RuleDocument { late_after_millis: 1, ..metric() },
            RuleDocument { disabled: true, ..metric() },
            log(),
        ];
        for document in decides {
            assert_ne!(evaluated_part(&document), before, "{document:?}");
        }
    }

    #[test]
    fn every_wrong_field_is_named() {
        let wrong = RuleDocument {
            name: " ".into(),
            level: "bad".into(),
            r#match: "{".into(),
            condition: "above 90".into(),
            labels: [("0".to_owned(), "x".to_owned())].into(),
            receivers: vec!["ops".into(), "ops".into(), "a b".into()],
            ..metric()
        };
        refused(wrong, &["name", "level", "match", "condition", "labels.0", "receivers[1]", "receivers[2]"]);
    }

    #[test]
    fn a_rule_watches_exactly_one_thing_and_its_fields_belong_to_it() {
        refused(RuleDocument { subject: None, ..metric() }, &["metric"]);
        refused(RuleDocument { condition: "> 1".into(), for_millis: 1, ..log() }, &["condition", "for"]);
        refused(RuleDocument { hold_millis: 5_000, ..metric() }, &["hold"]);
        refused(RuleDocument { hold_millis: 5, ..log() }, &["hold"]);
        let empty = RuleDocument { subject: Some(Subject::Log(LogCondition::default())), ..log() };
        refused(empty, &["log.contains"]);
        let odd = RuleDocument { subject: Some(Subject::Metric("rate(x[5m])".into())), ..metric() };
        refused(odd, &["metric"]);
    }
}
