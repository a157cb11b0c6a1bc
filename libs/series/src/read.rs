//! Envelopes into samples.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::{Disbelieved, Times, Window};
use otlp::{Metric, Metrics, Point, ResourceMetrics};

use crate::cache::{Cache, CacheUse, Weighed, hash_of};
use crate::labels::Series;
use crate::owners::Owners;
use crate::point::{self, Named, Prepared, STALE};
use crate::prepare::Scope;
use crate::resource::{Resource, id_of};
use crate::skip::{Skip, Skipped};

/// The share of what is remembered that is for resources.
const FOR_RESOURCES: usize = 8;

/// Longer than a gateway gathers an envelope.
const GATHERING: Duration = Duration::from_secs(10);
/// Bytes of a scope that stand in keys as they are.
const LONG_SCOPE: usize = 128;

/// One value of one series.
#[derive(Debug, Clone, Copy)]
pub struct Sample<'a> {
    /// Which series; the same `Arc` again and again while the reader remembers it.
    pub series: &'a Arc<Series>,
    /// Unix milliseconds.
    pub time_ms: i64,
    /// The value; Prometheus's stale marker where the point says that there is none any more.
    pub value: f64,
}

impl Sample<'_> {
    /// Whether the series ends here.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.value.to_bits() == STALE.to_bits()
    }
}

/// What an envelope came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Points read.
    pub points: u64,
    /// Samples that they became, without those of `target_info`.
    pub samples: u64,
    /// Points that have no series, by reason.
    pub skipped: Skipped,
    /// Quantiles and sums that are not a number: their point was kept without them.
    pub not_numbers: u64,
    /// Labels of `target_info` over [`crate::MAX_LABELS`], counted when it is prepared.
    pub cut_labels: u64,
}

/// Reads envelopes and remembers the labels of the series in them, so that most points format nothing.
///
/// Keep one for each task that reads.
pub struct Reader {
    resources: Cache<Arc<Resource>>,
    points: Cache<Known>,
    owners: Owners,
    times: Times,
    started: Instant,
    key: Vec<u8>,
}

impl Reader {
    /// Nothing remembered yet; what is remembered takes at most about `capacity` bytes: some 600 for a gauge or sum,
    /// thousands for a histogram. What is reported keeps its place while others come; those for whom there is no room are
    /// prepared each time.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            resources: Cache::new(capacity / FOR_RESOURCES),
            points: Cache::new(capacity - capacity / FOR_RESOURCES),
            owners: Owners::default(),
            times: Times { ahead: Duration::MAX, age: Duration::MAX },
            started: Instant::now(),
            key: Vec::new(),
        }
    }

    /// Passes over points whose time is not believed; without this, all are that fit into 64 bits.
    #[must_use]
    pub fn believing(self, times: Times) -> Self {
        // A gateway held each request against its own moment, and the envelope tells that of the oldest.
        Self { times: Times { ahead: times.ahead.saturating_add(GATHERING), ..times }, ..self }
    }

    /// How well it remembers, since it was made.
    #[must_use]
    pub fn usage(&self) -> CacheUse {
        self.points.usage() + self.resources.usage()
    }

    /// Reads the body of a metrics envelope. A point without a time gets `received_unix_nano`.
    ///
    /// Samples come in the order of the points, and `target_info` after all others, once a resource, at the latest time of
    /// that resource's samples.
    ///
    /// # Errors
    /// The bytes are no `ExportMetricsServiceRequest`; then no sample was given out.
    pub fn read(
        &mut self,
        tenant: &str,
        bytes: &[u8],
        received_unix_nano: u64,
        mut each: impl FnMut(Sample<'_>),
    ) -> Result<Tally, otlp::Invalid> {
        let metrics = Metrics::parse(bytes)?;
        let moment = Moment { received_unix_nano, window: self.times.window(received_unix_nano) };
        // What is remembered changes no sample, so a clock may decide what is forgotten.
        let now = u32::try_from(self.started.elapsed().as_secs()).unwrap_or(u32::MAX);
        self.owners.begin(&mut self.points);
        let mut tally = Tally::default();
        let mut infos: BTreeMap<u64, (Arc<Series>, i64)> = BTreeMap::new();
        for from in metrics.resources() {
            let resource = self.resource(tenant, from, now, &mut tally);
            let mut latest = None;
            for scope in from.scopes() {
                self.key.clear();
                self.key.extend(resource.id);
                let about = Scope::read(scope);
                push_scope(&mut self.key, &about);
                let prefix = self.key.len();
                for metric in scope.metrics() {
                    self.key.truncate(prefix);
                    let place = Place { resource: &resource, scope: &about, moment, now };
                    self.metric(place, metric, &mut tally, |sample| {
                        latest = latest.max(Some(sample.time_ms));
                        each(sample);
                    });
                }
            }
            if let (Some(info), Some(time_ms)) = (&resource.target_info, latest) {
                let known = infos.entry(info.hash).or_insert_with(|| (Arc::clone(info), time_ms));
                known.1 = known.1.max(time_ms);
            }
        }
        for (series, time_ms) in infos.values() {
            each(Sample { series, time_ms: *time_ms, value: 1.0 });
        }
        Ok(tally)
    }

    fn resource(&mut self, tenant: &str, from: ResourceMetrics<'_>, now: u32, tally: &mut Tally) -> Arc<Resource> {
        self.key.clear();
        push(&mut self.key, tenant);
        for attribute in from.attributes() {
            push(&mut self.key, attribute.key);
            push(&mut self.key, &attribute.value.text());
        }
        let key = &self.key;
        let resource = self.resources.get(key, now, || {
            let (resource, cut) = Resource::read(key, tenant, from);
            tally.cut_labels += cut;
            Arc::new(resource)
        });
        Arc::clone(resource)
    }

    /// `self.key` begins with what the metric's place says.
    fn metric(&mut self, place: Place<'_>, metric: Metric<'_>, tally: &mut Tally, mut each: impl FnMut(Sample<'_>)) {
        self.key.push(key_of(metric.kind));
        push(&mut self.key, metric.name);
        push(&mut self.key, metric.unit);
        let prefix = self.key.len();
        let mut named = None;
        for point in metric.points() {
            tally.points += 1;
            let time = point::judge(metric, point).and_then(|()| place.moment.time(point));
            let time_ms = match time {
                Ok(time_ms) => time_ms,
                Err(skip) => {
                    tally.skipped.add(skip);
                    continue;
                }
            };
            self.key.truncate(prefix);
            push_bounds(&mut self.key, point);
            self.key.extend_from_slice(point.attributes.raw());
            match self.prepared(place, metric, &mut named, point).as_slice() {
                Err(skip) => tally.skipped.add(skip),
                Ok(series) => point::values(point, series, |series, value| {
                    if point::is_dropped(value) {
                        tally.not_numbers += 1;
                    } else {
                        tally.samples += 1;
                        each(Sample { series, time_ms, value });
                    }
                }),
            }
        }
    }

    /// What `self.key` stands for; the metric's name is made when it is first wanted.
    fn prepared(
        &mut self,
        place: Place<'_>,
        metric: Metric<'_>,
        named: &mut Option<Named>,
        point: Point<'_>,
    ) -> &Prepared {
        if let Some(at) = self.points.find(&self.key, place.now) {
            let known = self.points.at(at);
            if !self.owners.is_contested(known.origin) {
                self.points.note(at);
                return &self.points.at(at).prepared;
            }
            let key = hash_of(&self.key);
            let is_its = self.owners.claim(known.prepared.hashes(), known.origin, key, &self.points);
            return if is_its { &self.points.at(at).prepared } else { &TAKEN };
        }
        let named = named.get_or_insert_with(|| Named::new(place.resource, place.scope, metric));
        let (prepared, origin) = point::prepare(place.resource, place.scope, metric, named, point);
        let key = hash_of(&self.key);
        if !self.owners.claim(prepared.hashes(), origin, key, &self.points) {
            self.points.pass();
            return &TAKEN;
        }
        &self.points.insert(&self.key, place.now, Known { prepared, origin }).prepared
    }
}

/// What a point's bytes come to, and what the client calls it.
struct Known {
    prepared: Prepared,
    origin: u64,
}

impl Weighed for Known {
    fn bytes(&self) -> usize {
        self.prepared.bytes()
    }
}

/// Of a series that another instrument has in this envelope.
static TAKEN: Prepared = Prepared::None(Skip::NameTaken);

/// Where a metric was found.
#[derive(Clone, Copy)]
struct Place<'a> {
    resource: &'a Resource,
    scope: &'a Scope<'a>,
    moment: Moment,
    /// Seconds since the reader was made.
    now: u32,
}

/// When an envelope was received.
#[derive(Clone, Copy)]
struct Moment {
    received_unix_nano: u64,
    window: Window,
}

impl Moment {
    /// A point's time in milliseconds.
    fn time(&self, point: Point<'_>) -> Result<i64, Skip> {
        let nanos = if point.time_unix_nano == 0 {
            i64::try_from(self.received_unix_nano).map_err(|_| Disbelieved::Beyond)
        } else {
            self.window.judge(point.time_unix_nano)
        };
        nanos.map(|nanos| nanos / 1_000_000).map_err(Skip::Time)
    }
}

/// Length and bytes, so that neighbours in a key do not run into each other.
fn push(key: &mut Vec<u8>, text: &str) {
    prost::encoding::encode_varint(text.len() as u64, key);
    key.extend_from_slice(text.as_bytes());
}

/// It is in the key of each point, so what is long is there as its hash.
fn push_scope(key: &mut Vec<u8>, scope: &Scope<'_>) {
    let start = key.len();
    for text in [scope.name, scope.version, &scope.attributes] {
        push(key, text);
    }
    if key.len() - start > LONG_SCOPE {
        let hash = id_of(&key[start..]);
        key.truncate(start);
        key.extend(hash);
    }
}

/// What the labels of a point depend on besides its attributes: bounds and quantiles.
fn push_bounds(key: &mut Vec<u8>, point: Point<'_>) {
    let start = key.len();
    match point.sample {
        otlp::Sample::Histogram(histogram) => {
            histogram.bounds().for_each(|bound| key.extend(bound.to_bits().to_be_bytes()))
        }
        otlp::Sample::Summary(summary) => summary.quantiles().for_each(|(q, _)| key.extend(q.to_bits().to_be_bytes())),
        otlp::Sample::None | otlp::Sample::Number(_) => {}
    }
    let length = (key.len() - start) as u64;
    prost::encoding::encode_varint(length, key);
}

fn key_of(kind: otlp::Kind) -> u8 {
    use otlp::Kind;
    match kind {
        Kind::None | Kind::ExponentialHistogram => 0,
        Kind::Gauge => 1,
        Kind::Sum { monotonic: false, .. } => 2,
        Kind::Sum { monotonic: true, .. } => 3,
        Kind::Histogram { .. } => 4,
        Kind::Summary => 5,
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod worst;
