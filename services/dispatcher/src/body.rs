//! The body of a webhook: what Alertmanager sends (version "4"), so that its receivers understand it.
//!
//! Each notification is about one alert, as if Alertmanager grouped by all labels. What Alertmanager has no place for
//! (condition, value, log line) stands among the annotations, unless the rule has annotations of these names.

use std::collections::BTreeMap;

use proto::alerts::{Alert, Notification};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use url::Url;

/// What Alertmanager writes where there is no time.
const NO_TIME: &str = "0001-01-01T00:00:00Z";

/// Characters of a log line that are sent.
const MAX_LINE: usize = 4096;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    version: &'static str,
    group_key: String,
    truncated_alerts: u32,
    status: &'a str,
    receiver: &'a str,
    group_labels: &'a BTreeMap<&'a str, &'a str>,
    common_labels: &'a BTreeMap<&'a str, &'a str>,
    common_annotations: &'a BTreeMap<&'a str, String>,
    #[serde(rename = "externalURL")]
    external_url: &'a str,
    alerts: [Told<'a>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Told<'a> {
    status: &'a str,
    labels: &'a BTreeMap<&'a str, &'a str>,
    annotations: &'a BTreeMap<&'a str, String>,
    starts_at: String,
    ends_at: String,
    #[serde(rename = "generatorURL")]
    generator_url: String,
    fingerprint: &'a str,
}

/// The bytes to send to `receiver`: the same at every attempt.
///
/// # Errors
/// A notification without an alert.
pub fn render(notification: &Notification, receiver: &str, external: &Url) -> anyhow::Result<Vec<u8>> {
    let alert = notification.alerts.first().ok_or_else(|| anyhow::anyhow!("the notification has no alert"))?;
    let labels: BTreeMap<&str, &str> = alert.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let annotations = annotations(alert);
    let external_url = external.as_str().trim_end_matches('/');
    let body = Body {
        version: "4",
        group_key: group_key(&labels),
        truncated_alerts: 0,
        status: &alert.state,
        receiver,
        group_labels: &labels,
        common_labels: &labels,
        common_annotations: &annotations,
        external_url,
        alerts: [Told {
            status: &alert.state,
            labels: &labels,
            annotations: &annotations,
            starts_at: time(alert.starts_unix_nano),
            ends_at: time(alert.ends_unix_nano),
            generator_url: generator_url(external, &alert.rule_id),
            fingerprint: alert.id.get(..16).unwrap_or(&alert.id),
        }],
    };
    Ok(serde_json::to_vec(&body)?)
}

fn annotations(alert: &Alert) -> BTreeMap<&str, String> {
    let mut annotations = BTreeMap::new();
    if !alert.condition.is_empty() {
        annotations.insert("condition", alert.condition.clone());
    }
    if alert.value.is_finite() {
        annotations.insert("value", alert.value.to_string());
    }
    if !alert.line.is_empty() {
        annotations.insert("line", alert.line.chars().take(MAX_LINE).collect());
    }
    annotations.extend(alert.annotations.iter().map(|(name, text)| (name.as_str(), text.clone())));
    annotations
}

/// `{}:{a="x", b="y"}`, as Alertmanager writes the group of the top route.
fn group_key(labels: &BTreeMap<&str, &str>) -> String {
    let pairs: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
    format!("{{}}:{{{}}}", pairs.join(", "))
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
    use super::*;

    fn notification() -> Notification {
        let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let alert = Alert {
            id: "00112233445566778899aabbccddeeff".into(),
            rule_id: "r 1".into(),
            state: "firing".into(),
            labels: map(&[("alertname", "cpu high"), ("host_name", "a\"b")]),
            annotations: map(&[("summary", "hot")]),
            value: 97.5,
            condition: "> 90".into(),
            starts_unix_nano: 1_700_000_000_500_000_000,
            ..Alert::default()
        };
        Notification { id: "n".into(), tenant: "default".into(), alerts: vec![alert], ..Notification::default() }
    }

    fn rendered(notification: &Notification) -> String {
        let external = Url::parse("https://sightline.example.org/").unwrap();
        String::from_utf8(render(notification, "ops", &external).unwrap()).unwrap()
    }

    #[test]
    fn a_firing_alert_looks_like_alertmanagers() {
        let expected = concat!(
            r#"{"version":"4","groupKey":"{}:{alertname=\"cpu high\", host_name=\"a\\\"b\"}","truncatedAlerts":0,"#,
            r#""status":"firing","receiver":"ops","#,
            r#""groupLabels":{"alertname":"cpu high","host_name":"a\"b"},"#,
            r#""commonLabels":{"alertname":"cpu high","host_name":"a\"b"},"#,
            r#""commonAnnotations":{"condition":"> 90","summary":"hot","value":"97.5"},"#,
            r#""externalURL":"https://sightline.example.org","#,
            r#""alerts":[{"status":"firing","labels":{"alertname":"cpu high","host_name":"a\"b"},"#,
            r#""annotations":{"condition":"> 90","summary":"hot","value":"97.5"},"#,
            r#""startsAt":"2023-11-14T22:13:20.5Z","endsAt":"0001-01-01T00:00:00Z","#,
            r#""generatorURL":"https://sightline.example.org/api/v1/rules/r%201","fingerprint":"0011223344556677"}]}"#,
        );
        assert_eq!(rendered(&notification()), expected);
    }

    #[test]
    fn a_resolved_log_alert_has_its_end_and_its_line_but_no_value() {
        let mut notification = notification();
        let alert = notification.alert.as_mut().unwrap();
        alert.state = "resolved".into();
        alert.ends_unix_nano = 1_700_000_060_000_000_000;
        alert.value = f64::NAN;
        alert.line = "Out of memory".into();
        let body: serde_json::Value = serde_json::from_str(&rendered(&notification)).unwrap();
        assert_eq!(body["status"], "resolved");
        assert_eq!(body["alerts"][0]["endsAt"], "2023-11-14T22:14:20Z");
        assert_eq!(body["alerts"][0]["annotations"]["line"], "Out of memory");
        assert!(body["alerts"][0]["annotations"].get("value").is_none());
    }
}
