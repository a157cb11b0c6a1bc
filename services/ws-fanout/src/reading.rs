//! From messages of the broker to the frames of those who want them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use axum::extract::ws::Utf8Bytes;
use bus::{Delivery, Envelope, InvalidEnvelope};
use model::{Level, RecentBatches, Times, label_name, label_value};
use prost::Message as _;
use proto::alerts::AlertChanged;
use series::{NameKey, Reader};

use crate::audience::Crowd;
use crate::client::Client;
use crate::config::Live;
use crate::frame::{Frame, Labels, rfc3339};
use crate::kind::Kind;
use crate::metrics::Metrics;

/// Bytes of series that all followers of metrics remember together; up to twice as many while series come and go.
const REMEMBERED: usize = 16 << 20;
const LEAST_REMEMBERED: usize = 1 << 20;
/// Metric names whose keys are remembered.
const NAMES: usize = 10_000;

/// Why a message shows nothing. Those who store it say so loudly; here it is counted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error(transparent)]
    Envelope(#[from] InvalidEnvelope),
    #[error(transparent)]
    Otlp(#[from] otlp::Invalid),
    #[error(transparent)]
    Protobuf(#[from] prost::DecodeError),
    #[error("the message has no alert")]
    NoAlert,
}

/// Reads one stream, and remembers what it needs of the messages before.
pub(crate) struct Reading {
    kind: Kind,
    reader: Reader,
    names: HashMap<String, Arc<[NameKey]>>,
    recent: RecentBatches,
    log_times: Times,
    /// Bytes of frames that one message may become.
    message_bytes: usize,
    metrics: Metrics,
}

/// Makes frames until they have cost enough.
struct Press {
    left: usize,
}

impl Press {
    /// The frame's text, unless what was made before is too much already.
    fn text(&mut self, frame: impl FnOnce() -> Utf8Bytes) -> Option<Utf8Bytes> {
        if self.left == 0 {
            return None;
        }
        let text = frame();
        self.left = self.left.saturating_sub(text.len());
        Some(text)
    }
}

impl Reading {
    /// For one of `shards` streams of `kind`.
    pub(crate) fn new(kind: Kind, shards: usize, live: &Live, metrics: Metrics) -> Self {
        let capacity = (REMEMBERED / shards.max(1)).max(LEAST_REMEMBERED);
        Self {
            kind,
            reader: Reader::new(capacity).believing(live.metric_times()),
            names: HashMap::new(),
            recent: RecentBatches::default(),
            log_times: live.log_times(),
            message_bytes: usize::try_from(live.message_bytes).unwrap_or(usize::MAX),
            metrics,
        }
    }

    /// Whose message it is, read from its headers where they say so.
    pub(crate) fn tenant(&self, delivery: &Delivery) -> Option<String> {
        match self.kind {
            Kind::Metrics | Kind::Logs => delivery.header("Sl-Tenant").map(str::to_owned),
            Kind::Alerts => AlertChanged::decode(delivery.payload().clone()).ok().map(|changed| changed.tenant),
        }
    }

    /// Shows a message to those of its tenant who want it.
    pub(crate) fn show(&mut self, delivery: &Delivery, crowd: &Crowd) -> Result<(), Unreadable> {
        // What had to wait for its writer was shown where it was first, or could not be.
        if delivery.has_waited() {
            return Ok(());
        }
        match self.kind {
            Kind::Metrics => self.samples(delivery, crowd),
            Kind::Logs => self.lines(delivery, crowd),
            Kind::Alerts => self.alert(delivery, crowd),
        }
    }

    fn samples(&mut self, delivery: &Delivery, crowd: &Crowd) -> Result<(), Unreadable> {
        let envelope = Envelope::decode(delivery)?;
        let (names, metrics, share) = (&mut self.names, &self.metrics, crowd.share());
        let mut press = Press { left: self.message_bytes };
        self.reader.read(&envelope.tenant, &envelope.body, envelope.received_unix_nano, |sample| {
            metrics.events.inc();
            let series = sample.series;
            let keys = if crowd.goes_by_name() { keys(names, series.name()) } else { Arc::default() };
            let label = |name: &str| Some(series.label(name)).filter(|value| !value.is_empty());
            let mut frame = None;
            let mut text = || {
                let text: &Option<Utf8Bytes> = frame.get_or_insert_with(|| {
                    press.text(|| {
                        let nanos = u64::try_from(sample.time_ms).unwrap_or_default().saturating_mul(1_000_000);
                        let value = sample.value.is_finite().then_some(sample.value);
                        let time = rfc3339(nanos).unwrap_or_default();
                        Frame::Metric { name: series.name(), labels: Labels(series), time, value }.text()
                    })
                });
                text.clone()
            };
            for client in crowd.wanting(&keys) {
                match client.wants(series.resource_id(), label, share) {
                    Some(true) => client.give_or_miss(text().as_ref(), metrics),
                    Some(false) => {}
                    None => client.give_or_miss(None, metrics),
                }
            }
        })?;
        Ok(())
    }

    /// Lines of a logs envelope, but for batches that a client sent again.
    fn lines(&mut self, delivery: &Delivery, crowd: &Crowd) -> Result<(), Unreadable> {
        let envelope = Envelope::decode(delivery)?;
        let mut press = Press { left: self.message_bytes };
        for resource in otlp::Logs::parse(&envelope.body)?.resources() {
            let (batch, part) = resource.batch().unwrap_or_default();
            if !batch.is_empty() && !self.recent.is_new(&envelope.tenant, batch, part) {
                continue;
            }
            let labels = resource_labels(&resource);
            let labelled = |name: &str| labels.get(name).map_or("", String::as_str);
            let label = |name: &str| labels.get(name).map(String::as_str);
            // Who may have wanted its lines misses them.
            let takers: Vec<(&Client, bool)> = (crowd.clients.iter())
                .map(|client| (&**client, client.wants(labelled("resource_id"), label, crowd.share())))
                .filter(|(_, wants)| *wants != Some(false))
                .map(|(client, wants)| (client, wants.is_some()))
                .collect();
            if takers.is_empty() {
                continue;
            }
            // A scope's name is looked for among all its records.
            let named = resource.scopes().map(|scope| (scope.name(), scope));
            let records = named.flat_map(|(name, scope)| scope.records().map(move |record| (name, record)));
            for (index, (source, record)) in records.enumerate() {
                self.metrics.events.inc();
                let time =
                    self.log_times.log(record.time_unix_nano, record.observed_unix_nano, envelope.received_unix_nano);
                let id = format!("{batch}-{part}-{index}");
                let text = press.text(|| line(id, time.unix_nano, source, &record, labelled).text());
                for (client, wants) in &takers {
                    client.give_or_miss(text.as_ref().filter(|_| *wants), &self.metrics);
                }
            }
        }
        Ok(())
    }

    fn alert(&mut self, delivery: &Delivery, crowd: &Crowd) -> Result<(), Unreadable> {
        let changed = AlertChanged::decode(delivery.payload().clone())?;
        let alert = changed.alert.as_ref().ok_or(Unreadable::NoAlert)?;
        if !changed.id.is_empty() && !self.recent.is_new(&changed.tenant, &changed.id, 0) {
            return Ok(());
        }
        self.metrics.events.inc();
        let label = |name: &str| {
            let known = alert.labels.get(name).or_else(|| alert.descriptive_labels.get(name));
            known.map(String::as_str)
        };
        let text = Frame::alert(&changed).ok_or(Unreadable::NoAlert)?.text();
        for client in &crowd.clients {
            match client.wants(&alert.resource_id, label, crowd.share()) {
                Some(false) => {}
                wants => client.give_or_miss(wants.map(|_| &text), &self.metrics),
            }
        }
        Ok(())
    }
}

/// One line of a resource with these labels.
fn line<'a, 'b: 'a>(
    id: String,
    time: i64,
    source: &'a str,
    record: &'a otlp::LogRecord<'_>,
    labelled: impl Fn(&str) -> &'b str,
) -> Frame<'a> {
    Frame::Log {
        id,
        time: u64::try_from(time).ok().and_then(rfc3339).unwrap_or_default(),
        level: Level::of_number(record.severity_number).map_or("", Level::name),
        severity_text: label_value(record.severity_text),
        body: record.body.text(),
        resource_id: labelled("resource_id"),
        host_name: labelled("host_name"),
        service_name: labelled("service_name"),
        source,
        attributes: record.attributes.json(),
    }
}

/// What selectors read of a resource that writes lines, under the names that labels have everywhere.
fn resource_labels(resource: &otlp::ResourceLogs<'_>) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    for attribute in resource.attributes() {
        labels.insert(label_name(attribute.key), label_value(&attribute.value.text()).into_owned());
    }
    let mut take = |name: &str| labels.remove(name).unwrap_or_default();
    take("sightline_batch_id");
    take("sightline_batch_part");
    let (id, kind) = (take("sightline_resource_id"), take("sightline_resource_kind"));
    labels.insert("resource_id".to_owned(), id);
    labels.insert("kind".to_owned(), kind);
    labels
}

fn keys(names: &mut HashMap<String, Arc<[NameKey]>>, name: &str) -> Arc<[NameKey]> {
    if let Some(known) = names.get(name) {
        return Arc::clone(known);
    }
    if names.len() == NAMES {
        names.clear();
    }
    let keys: Arc<[NameKey]> = series::name_keys(name).into();
    names.insert(name.to_owned(), Arc::clone(&keys));
    keys
}
