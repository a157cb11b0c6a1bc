//! What was left out of requests that were taken: items that were refused, and fields of JSON that OTLP does not know.
//!
//! The client is told in its answer, and most clients throw that away. So operators are told: each loss is counted by its
//! reason, and the log says who leaves out what and what to do, at once and then every five minutes while it goes on.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use otlp::{Checked, Reason, Unknown, Walk};

use crate::metrics::{Metrics, Signal};
use crate::rarely::Rarely;
use crate::sender::Sender;

/// How often the same is said of the same sender.
const SAID_EVERY: Duration = Duration::from_secs(300);
/// So many are told apart; further ones are said together.
const KEPT: usize = 1_000;
/// Bytes of what a client calls itself.
const LONGEST_NAME: usize = 100;

/// Of whom what is said: tenant, identity, reason.
type Subject = (Arc<str>, String, &'static str);

/// Tells operators. Clones share what was said.
#[derive(Clone)]
pub struct LeftOut {
    metrics: Metrics,
    said: Arc<Mutex<HashMap<Subject, Rarely>>>,
}

impl LeftOut {
    #[must_use]
    pub fn new(metrics: Metrics) -> Self {
        Self { metrics, said: Arc::default() }
    }

    /// Items of a request were refused, perhaps.
    pub(crate) fn refused(&self, sender: &Sender, signal: Signal, walk: &Walk<'_>) {
        self.metrics.refused(signal, &walk.refused);
        for (reason, count) in walk.refused.iter() {
            let Some(items) = self.is_due(sender, reason.as_str(), count, Instant::now()) else { continue };
            let writer = writer(walk, reason);
            tracing::warn!(
                tenant = %sender.tenant,
                sender = sender.identity(),
                service = writer.service.as_deref(),
                host = writer.host.as_deref(),
                signal = signal.as_str(),
                reason = reason.as_str(),
                items,
                advice = reason.advice(),
                "items of a client are refused and missing in the store; the rest of its requests is taken"
            );
        }
    }

    /// Fields of a request in JSON were passed over, perhaps.
    pub(crate) fn unknown(&self, sender: &Sender, signal: Signal, unknown: &Unknown) {
        if unknown.count == 0 {
            return;
        }
        self.metrics.unknown_fields.of([signal.as_str()]).inc_by(unknown.count);
        if let Some(fields) = self.is_due(sender, "unknown_fields", unknown.count, Instant::now()) {
            tracing::warn!(
                tenant = %sender.tenant,
                sender = sender.identity(),
                signal = signal.as_str(),
                fields,
                first = ?unknown.first,
                "a client sends JSON with fields that OTLP does not know; they are passed over"
            );
        }
    }

    /// How many there are to be spoken of, when it is time to speak.
    fn is_due(&self, sender: &Sender, reason: &'static str, count: u64, now: Instant) -> Option<u64> {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let mut subject = (Arc::clone(&sender.tenant), sender.identity(), reason);
        if said.len() >= KEPT && !said.contains_key(&subject) {
            said.retain(|_, said| !said.is_over(SAID_EVERY, now));
            if said.len() >= KEPT {
                subject = ("".into(), String::new(), reason);
            }
        }
        said.entry(subject).or_default().happened(count, SAID_EVERY, now)
    }
}

/// What the first resource that lost something calls itself.
#[derive(Default)]
struct Writer<'a> {
    service: Option<Cow<'a, str>>,
    host: Option<Cow<'a, str>>,
}

fn writer<'a>(walk: &Walk<'a>, reason: Reason) -> Writer<'a> {
    let lost = |resource: &&Checked<'_>| resource.refused.iter().any(|(other, _)| other == reason);
    let mut writer = Writer::default();
    for attribute in walk.resources.iter().find(lost).into_iter().flat_map(Checked::attributes) {
        let place = match attribute.key {
            "service.name" => &mut writer.service,
            "host.name" => &mut writer.host,
            _ => continue,
        };
        let mut text = attribute.value.text();
        if text.len() > LONGEST_NAME {
            text = text[..text.floor_char_boundary(LONGEST_NAME)].to_owned().into();
        }
        *place = Some(text);
    }
    writer
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use model::Times;
    use otlp::{Limits, Rules, Signal as Otlp};
    use telemetry::metrics::Registry;

    use super::*;

    fn left_out() -> LeftOut {
        LeftOut::new(Metrics::register(&mut Registry::default()))
    }

    fn sender(number: u32) -> Sender {
        Sender::at("acme", IpAddr::V4(Ipv4Addr::from_bits(number)))
    }

    #[test]
    fn each_sender_and_reason_is_said_at_once_and_then_now_and_then() {
        let (left_out, begin) = (left_out(), Instant::now());
        assert_eq!(left_out.is_due(&sender(1), "a", 5, begin), Some(5));
        assert_eq!(left_out.is_due(&sender(1), "a", 5, begin + SAID_EVERY / 2), None);
        assert_eq!(left_out.is_due(&sender(2), "a", 1, begin), Some(1), "another sender");
        assert_eq!(left_out.is_due(&sender(1), "b", 2, begin), Some(2), "another reason");
        assert_eq!(left_out.is_due(&sender(1), "a", 1, begin + SAID_EVERY), Some(6));
    }

    #[test]
    fn a_crowd_is_said_together_until_there_is_room() {
        let (left_out, begin) = (left_out(), Instant::now());
        let said = (0..3_000).filter(|number| left_out.is_due(&sender(*number), "a", 1, begin).is_some()).count();
        assert_eq!(said, KEPT + 1);
        assert_eq!(left_out.said.lock().unwrap().len(), KEPT + 1);
        assert!(left_out.is_due(&sender(9_999), "a", 1, begin + SAID_EVERY / 2).is_none());
        assert_eq!(left_out.is_due(&sender(9_999), "a", 1, begin + SAID_EVERY), Some(1), "one of its own");
    }

    #[test]
    fn the_resource_that_lost_something_is_named() {
        let metric = |kind: &str| {
            format!(r#"{{"scopeMetrics":[{{"metrics":[{{"name":"m","{kind}":{{"dataPoints":[{{"asInt":1}}]}}}}]}}]}}"#)
        };
        let named = |name: &str, kind: &str| {
            let resource = format!(r#"{{"attributes":[{{"key":"service.name","value":{{"stringValue":"{name}"}}}}]}}"#);
            metric(kind).replacen('{', &format!(r#"{{"resource":{resource},"#), 1)
        };
        let long = "x".repeat(200);
        for (kind, reason, expected) in
            [("sum", Reason::NotCumulative, &long[..LONGEST_NAME]), ("gauge", Reason::NotCumulative, "")]
        {
            let document = format!(r#"{{"resourceMetrics":[{},{}]}}"#, named("good", "gauge"), named(&long, kind));
            let read = otlp::from_json(document.as_bytes(), Otlp::Metrics, 1 << 20).unwrap();
            let times = Times { ahead: Duration::from_secs(1), age: Duration::from_secs(1) }.window(1 << 60);
            let walk = otlp::check(&read.request, Otlp::Metrics, &Rules { limits: Limits::default(), times }).unwrap();
            assert_eq!(writer(&walk, reason).service.unwrap_or_default(), expected, "{kind}");
        }
    }
}
