//! The body of a webhook: what Alertmanager sends (version "4"), so that its receivers understand it.
//!
//! A body tells the alerts of one group. What Alertmanager has no place for (condition, value, log line) stands among the
//! annotations, unless the rule has annotations of these names. Labels that describe (host names, versions) stand beside
//! those that identify; neither group key nor fingerprint depend on them.
//!
//! However large the alerts are, a body is bounded: long values are cut, and alerts that find no room are counted in
//! `truncatedAlerts`.

use std::collections::BTreeMap;

use proto::alerts::{Alert, Notification};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use url::Url;

/// What Alertmanager writes where there is no time.
const NO_TIME: &str = "0001-01-01T00:00:00Z";

/// Bytes of a value that are sent: of a label, of an annotation (a log line is one).
const MAX_LABEL: usize = 1 << 10;
const MAX_ANNOTATION: usize = 4 << 10;

/// Bytes of all alerts together, as they are written; the first is told in any case.
const MAX_ALERTS: usize = 256 << 10;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    version: &'static str,
    group_key: &'a str,
    truncated_alerts: u32,
    status: &'static str,
    receiver: &'a str,
    group_labels: BTreeMap<&'a str, &'a str>,
    common_labels: BTreeMap<&'a str, &'a str>,
    common_annotations: BTreeMap<&'a str, String>,
    #[serde(rename = "externalURL")]
    external_url: &'a str,
    alerts: Vec<Shown<'a>>,
}

/// One alert, as it is shown.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    status: &'static str,
    labels: BTreeMap<&'a str, &'a str>,
    annotations: BTreeMap<&'a str, String>,
    starts_at: String,
    ends_at: String,
    #[serde(rename = "generatorURL")]
    generator_url: String,
    fingerprint: &'a str,
}

/// firing if any of them is, else resolved: the two words that receivers know, whatever a state is called.
#[must_use]
pub fn status(alerts: &[Alert]) -> &'static str {
    if alerts.iter().any(|alert| alert.ends_unix_nano == 0) { "firing" } else { "resolved" }
}

/// The bytes to send to `receiver`: the same at every attempt.
///
/// # Errors
/// A notification without a group or an alert.
pub fn render(notification: &Notification, receiver: &str, external: &Url) -> anyhow::Result<Vec<u8>> {
    let group = notification.group.as_ref().ok_or_else(|| anyhow::anyhow!("the notification has no group"))?;
    anyhow::ensure!(!notification.alerts.is_empty(), "the notification has no alert");
    let alerts = shown(&notification.alerts, external)?;
    let left_out = notification.alerts.len() - alerts.len();
    let body = Body {
        version: "4",
        group_key: &group.key,
        truncated_alerts: notification.omitted.saturating_add(u32::try_from(left_out).unwrap_or(u32::MAX)),
        status: status(&notification.alerts),
        receiver,
        group_labels: group.labels.iter().map(|(name, value)| (name.as_str(), cut(value, MAX_LABEL))).collect(),
        common_labels: common(alerts.iter().map(|alert| &alert.labels)),
        common_annotations: common(alerts.iter().map(|alert| &alert.annotations)),
        external_url: external.as_str().trim_end_matches('/'),
        alerts,
    };
    Ok(serde_json::to_vec(&body)?)
}

fn shown<'a>(alerts: &'a [Alert], external: &Url) -> anyhow::Result<Vec<Shown<'a>>> {
    let mut shown = Vec::new();
    let mut bytes = 0;
    for alert in alerts {
        let one = show(alert, external);
        bytes += serde_json::to_vec(&one)?.len();
        if bytes > MAX_ALERTS && !shown.is_empty() {
            break;
        }
        shown.push(one);
    }
    Ok(shown)
}

fn show<'a>(alert: &'a Alert, external: &Url) -> Shown<'a> {
    // What identifies comes over what describes.
    let labels = alert.descriptive_labels.iter().chain(&alert.labels);
    Shown {
        status: status(std::slice::from_ref(alert)),
        labels: labels.map(|(name, value)| (name.as_str(), cut(value, MAX_LABEL))).collect(),
        annotations: annotations(alert),
        starts_at: time(alert.starts_unix_nano),
        ends_at: time(alert.ends_unix_nano),
        generator_url: generator_url(external, &alert.rule_id),
        fingerprint: alert.id.get(..16).unwrap_or(&alert.id),
    }
}

fn annotations(alert: &Alert) -> BTreeMap<&str, String> {
    let mut annotations = BTreeMap::new();
    if !alert.condition.is_empty() {
        annotations.insert("condition", cut(&alert.condition, MAX_ANNOTATION).to_owned());
    }
    if alert.value.is_finite() {
        annotations.insert("value", alert.value.to_string());
    }
    if !alert.line.is_empty() {
        annotations.insert("line", cut(&alert.line, MAX_ANNOTATION).to_owned());
    }
    let texts = alert.annotations.iter();
    annotations.extend(texts.map(|(name, text)| (name.as_str(), cut(text, MAX_ANNOTATION).to_owned())));
    annotations
}

/// What all of them have alike.
fn common<'m, 'a: 'm, V: Clone + PartialEq + 'm>(
    mut maps: impl Iterator<Item = &'m BTreeMap<&'a str, V>>,
) -> BTreeMap<&'a str, V> {
    let mut common = maps.next().cloned().unwrap_or_default();
    for map in maps {
        common.retain(|name, value| map.get(name) == Some(value));
    }
    common
}

fn cut(text: &str, most: usize) -> &str {
    if text.len() > most { &text[..text.floor_char_boundary(most)] } else { text }
}

fn generator_url(external: &Url, rule_id: &str) -> String {
    let mut url = external.clone();
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(["api", "v1", "rules", rule_id]);
    }
    url.into()
}

fn time(unix_nano: u64) -> String {
    if unix_nano == 0 {
        return NO_TIME.to_owned();
    }
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_nano));
    time.ok().and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| NO_TIME.to_owned())
}

#[cfg(test)]
mod tests {
    use proto::alerts::Group;

    use super::*;

    fn map(pairs: &[(&str, &str)]) -> std::collections::HashMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn alert() -> Alert {
        Alert {
            id: "00112233445566778899aabbccddeeff".into(),
            rule_id: "r 1".into(),
            state: "firing".into(),
            labels: map(&[("alertname", "cpu high"), ("instance", "a\"b")]),
            descriptive_labels: map(&[("host_name", "web-1"), ("instance", "no")]),
            annotations: map(&[("summary", "hot")]),
            value: 97.5,
            condition: "> 90".into(),
            starts_unix_nano: 1_700_000_000_500_000_000,
            ..Alert::default()
        }
    }

    fn notification(alerts: Vec<Alert>) -> Notification {
        let group = Group {
            id: "g".into(),
            key: r#"{rule="r 1"}:{alert="0"}"#.into(),
            labels: map(&[("alertname", "cpu high"), ("instance", "a\"b")]),
            route: "rule/r 1".into(),
        };
        Notification { id: "n".into(), group: Some(group), alerts, ..Notification::default() }
    }

    fn rendered(notification: &Notification) -> String {
        let external = Url::parse("https://sightline.example.org/").unwrap();
        String::from_utf8(render(notification, "ops", &external).unwrap()).unwrap()
    }

    fn read(notification: &Notification) -> serde_json::Value {
        serde_json::from_str(&rendered(notification)).unwrap()
    }

    #[test]
    fn a_firing_alert_looks_like_alertmanagers() {
        let expected = concat!(
            r#"{"version":"4","groupKey":"{rule=\"r 1\"}:{alert=\"0\"}","truncatedAlerts":0,"#,
            r#""status":"firing","receiver":"ops","#,
            r#""groupLabels":{"alertname":"cpu high","instance":"a\"b"},"#,
            r#""commonLabels":{"alertname":"cpu high","host_name":"web-1","instance":"a\"b"},"#,
            r#""commonAnnotations":{"condition":"> 90","summary":"hot","value":"97.5"},"#,
            r#""externalURL":"https://sightline.example.org","#,
            r#""alerts":[{"status":"firing","labels":{"alertname":"cpu high","host_name":"web-1","instance":"a\"b"},"#,
            r#""annotations":{"condition":"> 90","summary":"hot","value":"97.5"},"#,
            r#""startsAt":"2023-11-14T22:13:20.5Z","endsAt":"0001-01-01T00:00:00Z","#,
            r#""generatorURL":"https://sightline.example.org/api/v1/rules/r%201","fingerprint":"0011223344556677"}]}"#,
        );
        assert_eq!(rendered(&notification(vec![alert()])), expected);
    }

    #[test]
    fn a_resolved_log_alert_has_its_end_and_its_line_but_no_value() {
        let ended = Alert {
            state: "resolved".into(),
            ends_unix_nano: 1_700_000_060_000_000_000,
            value: f64::NAN,
            line: "Out of memory".into(),
            ..alert()
        };
        let body = read(&notification(vec![ended]));
        assert_eq!(body["status"], "resolved");
        assert_eq!(body["alerts"][0]["endsAt"], "2023-11-14T22:14:20Z");
        assert_eq!(body["alerts"][0]["annotations"]["line"], "Out of memory");
        assert!(body["alerts"][0]["annotations"].get("value").is_none());
    }

    #[test]
    fn of_several_alerts_what_is_alike_is_common_and_one_that_fires_makes_all_fire() {
        let other = Alert {
            id: "ff".into(),
            state: "resolved".into(),
            ends_unix_nano: 5,
            labels: map(&[("alertname", "cpu high"), ("instance", "other")]),
            ..alert()
        };
        let body = read(&notification(vec![other, alert()]));
        assert_eq!((&body["status"], body["alerts"].as_array().unwrap().len()), (&"firing".into(), 2));
        assert_eq!(body["commonLabels"], serde_json::json!({"alertname": "cpu high", "host_name": "web-1"}));
        assert_eq!(body["alerts"][0]["status"], "resolved");
    }

    #[test]
    fn a_state_of_tomorrow_fires_as_long_as_it_has_no_end() {
        for state in ["acknowledged", "no_data", "suppressed"] {
            assert_eq!(status(&[Alert { state: state.into(), ..alert() }]), "firing");
        }
    }

    #[test]
    fn however_large_alerts_are_a_body_is_bounded_and_says_what_it_leaves_out() {
        let hostile = "\u{1}".repeat(60_000);
        let labels: Vec<(String, String)> = (0..30).map(|n| (format!("l{n}"), hostile.clone())).collect();
        let huge = Alert {
            labels: labels.iter().cloned().collect(),
            annotations: labels.into_iter().collect(),
            line: hostile,
            ..alert()
        };
        let group = Group { labels: huge.labels.clone(), ..Group::default() };
        let mut many = notification(vec![huge; 40]);
        many.group = Some(group);
        many.omitted = 7;
        let text = rendered(&many);
        assert!(text.len() < 3 << 20, "{}", text.len());
        let body: serde_json::Value = serde_json::from_str(&text).unwrap();
        let shown = u64::try_from(body["alerts"].as_array().unwrap().len()).unwrap();
        assert!((1..40).contains(&shown));
        assert_eq!(body["truncatedAlerts"], 7 + 40 - shown);
    }
}
