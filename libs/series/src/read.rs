//! Envelopes into samples.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use otlp::{Attributes, Histogram, Kind, Metric, Metrics, Number, Point, ResourceMetrics, Summary};

use crate::cache::{Cache, Prepared};
use crate::labels::{Base, Extra, Series, prepare};
use crate::name::{Type, agent_counts, of_agent, translated};

/// Prometheus's staleness marker, bit for bit.
const STALE: f64 = f64::from_bits(0x7ff0_0000_0000_0002);

/// Resources that are remembered.
const RESOURCES: usize = 8 * 1024;

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
    /// Points that have no series: delta temporality, exponential histograms, no value. Gateways refuse the first two.
    pub skipped: u64,
    /// Labels over [`crate::MAX_LABELS`], counted when a series is prepared.
    pub cut_labels: u64,
}

/// Reads envelopes and remembers the labels of the series in them, so that most points format nothing.
///
/// Keep one for each task that reads.
pub struct Reader {
    resources: HashMap<Box<[u8]>, Arc<Resource>>,
    next_resource: u64,
    points: Cache,
    key: Vec<u8>,
}

/// What is known of a resource from its attributes.
struct Resource {
    /// Stands for the attributes in the keys of points; never used again for other attributes.
    id: u64,
    base: Base,
    is_agents: bool,
    target_info: Option<Arc<Series>>,
}

impl Reader {
    /// Nothing remembered yet. What is remembered takes at most about twice `capacity` bytes: some 600 for a gauge or sum,
    /// thousands for a histogram. What is reported again before others fill `capacity` is always remembered.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { resources: HashMap::new(), next_resource: 0, points: Cache::new(capacity), key: Vec::new() }
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
        let mut tally = Tally::default();
        let mut infos: BTreeMap<u64, (Arc<Series>, i64)> = BTreeMap::new();
        for from in metrics.resources() {
            let resource = self.resource(tenant, from, &mut tally);
            let mut latest = None;
            for scope in from.scopes() {
                for metric in scope.metrics() {
                    self.metric(&resource, scope.name(), metric, &mut tally, |prepared, point, tally| {
                        let nanos = if point.time_unix_nano == 0 { received_unix_nano } else { point.time_unix_nano };
                        let time_ms = i64::try_from(nanos / 1_000_000).unwrap_or(i64::MAX);
                        latest = latest.max(Some(time_ms));
                        values(metric.kind, point, prepared, |series, value| {
                            tally.samples += 1;
                            each(Sample { series, time_ms, value });
                        });
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

    fn resource(&mut self, tenant: &str, from: ResourceMetrics<'_>, tally: &mut Tally) -> Arc<Resource> {
        self.key.clear();
        push(&mut self.key, tenant);
        for attribute in from.attributes() {
            push(&mut self.key, attribute.key);
            push(&mut self.key, &attribute.value.text());
        }
        if let Some(resource) = self.resources.get(self.key.as_slice()) {
            return Arc::clone(resource);
        }
        let (resource, over) = Resource::read(self.next_resource, tenant, from);
        tally.cut_labels += over;
        self.next_resource += 1;
        if self.resources.len() >= RESOURCES {
            self.resources.clear();
        }
        let resource = Arc::new(resource);
        self.resources.insert(self.key.as_slice().into(), Arc::clone(&resource));
        resource
    }

    fn metric(
        &mut self,
        resource: &Resource,
        scope: &str,
        metric: Metric<'_>,
        tally: &mut Tally,
        mut each: impl FnMut(&[Arc<Series>], Point<'_>, &mut Tally),
    ) {
        self.key.clear();
        self.key.extend(resource.id.to_be_bytes());
        self.key.push(key_of(metric.kind));
        // A scope only matters where it is part of the name.
        push(&mut self.key, if resource.is_agents { scope } else { "" });
        push(&mut self.key, metric.name);
        push(&mut self.key, metric.unit);
        let prefix = self.key.len();
        for point in metric.points() {
            tally.points += 1;
            if !has_series(metric.kind, point) {
                tally.skipped += 1;
                continue;
            }
            self.key.truncate(prefix);
            push_bounds(&mut self.key, point);
            self.key.extend_from_slice(point.attributes.raw());
            let prepared = self.points.get(&self.key, || {
                let (prepared, over) = prepare_point(resource, scope, metric, point);
                tally.cut_labels += over;
                prepared
            });
            each(prepared, point, tally);
        }
    }
}

impl Resource {
    /// Also says how many labels `target_info` had too many.
    fn read(id: u64, tenant: &str, from: ResourceMetrics<'_>) -> (Self, u64) {
        let mut base = Base { tenant: tenant.to_owned(), ..Base::default() };
        let mut is_agents = false;
        let mut rest = Vec::new();
        for attribute in from.attributes() {
            let text = attribute.value.text();
            let first = |place: &mut String| {
                if place.is_empty() {
                    *place = text.clone().into_owned();
                }
            };
            match attribute.key {
                // Stamped by the gateway behind what the client wrote, so the last one counts.
                "sightline.resource.id" => base.resource_id = text.into_owned(),
                "sightline.resource.kind" => base.kind = text.into_owned(),
                key if key.starts_with("sightline.") => {}
                "host.name" => first(&mut base.host_name),
                "service.name" => first(&mut base.service_name),
                key => {
                    is_agents |= key == "agent.id";
                    rest.push((key.to_owned(), text.into_owned()));
                }
            }
        }
        let has_more = rest.iter().any(|(_, value)| !value.is_empty());
        let (target_info, over) = prepare(&base, "target_info", Type::Gauge, rest, None);
        let target_info = has_more.then(|| Arc::new(target_info));
        (Self { id, base, is_agents, target_info }, over)
    }
}

/// Length and bytes, so that neighbours in a key do not run into each other.
fn push(key: &mut Vec<u8>, text: &str) {
    prost::encoding::encode_varint(text.len() as u64, key);
    key.extend_from_slice(text.as_bytes());
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

fn key_of(kind: Kind) -> u8 {
    match kind {
        Kind::None | Kind::ExponentialHistogram => 0,
        Kind::Gauge => 1,
        Kind::Sum { monotonic: false, .. } => 2,
        Kind::Sum { monotonic: true, .. } => 3,
        Kind::Histogram { .. } => 4,
        Kind::Summary => 5,
    }
}

fn has_series(kind: Kind, point: Point<'_>) -> bool {
    let has_value = !matches!(point.sample, otlp::Sample::None) || point.no_recorded_value();
    match kind {
        Kind::Gauge | Kind::Summary => has_value,
        Kind::Sum { cumulative, .. } | Kind::Histogram { cumulative } => cumulative && has_value,
        Kind::None | Kind::ExponentialHistogram => false,
    }
}

/// The series of one point, in the order in which [`values`] gives their values.
fn prepare_point(resource: &Resource, scope: &str, metric: Metric<'_>, point: Point<'_>) -> (Prepared, u64) {
    let monotonic = matches!(metric.kind, Kind::Sum { monotonic: true, .. });
    let is_gauge = metric.kind == Kind::Gauge;
    let agents = resource.is_agents.then(|| of_agent(scope, metric.name)).flatten();
    let counts = monotonic || (is_gauge && agents.as_deref().is_some_and(agent_counts));
    let name = agents.unwrap_or_else(|| translated(metric.name, metric.unit, monotonic, is_gauge));
    let kind = if counts { Type::Counter } else { Type::Gauge };
    let mut over = 0;
    let mut one = |name: &str, kind: Type, extra: Extra<'_>| {
        let (series, cut) = prepare(&resource.base, name, kind, owned(point.attributes), extra);
        over += cut;
        Arc::new(series)
    };
    let mut all = Vec::new();
    match point.sample {
        otlp::Sample::Histogram(histogram) => {
            let bounds = histogram.bounds().filter(|bound| bound.is_finite()).map(|bound| bound.to_string());
            let bucket = format!("{name}_bucket");
            all.extend(bounds.chain(["+Inf".to_owned()]).map(|le| one(&bucket, Type::Counter, Some(("le", &le)))));
        }
        otlp::Sample::Summary(summary) => {
            let quantiles = summary.quantiles().map(|(quantile, _)| quantile.to_string());
            all.extend(quantiles.map(|quantile| one(&name, Type::Gauge, Some(("quantile", &quantile)))));
        }
        otlp::Sample::Number(_) | otlp::Sample::None => {
            let one = one(&name, kind, None);
            return (Prepared::One(one), over);
        }
    }
    all.push(one(&format!("{name}_sum"), Type::Counter, None));
    all.push(one(&format!("{name}_count"), Type::Counter, None));
    (Prepared::Several(all.into()), over)
}

fn owned(attributes: Attributes<'_>) -> Vec<(String, String)> {
    attributes.iter().map(|attribute| (attribute.key.to_owned(), attribute.value.text().into_owned())).collect()
}

/// Gives each of a point's series its value.
fn values(kind: Kind, point: Point<'_>, prepared: &[Arc<Series>], mut each: impl FnMut(&Arc<Series>, f64)) {
    if point.no_recorded_value() {
        prepared.iter().for_each(|series| each(series, STALE));
        return;
    }
    match (kind, point.sample) {
        (_, otlp::Sample::Number(number)) => prepared.iter().for_each(|series| each(series, number.as_f64())),
        (_, otlp::Sample::Histogram(histogram)) => histogram_values(histogram, prepared, each),
        (_, otlp::Sample::Summary(summary)) => summary_values(summary, prepared, each),
        (_, otlp::Sample::None) => {}
    }
}

fn histogram_values(histogram: Histogram<'_>, prepared: &[Arc<Series>], mut each: impl FnMut(&Arc<Series>, f64)) {
    let [buckets @ .., infinite, sum, count] = prepared else { return };
    let bounds = histogram.bounds().zip(histogram.buckets().chain(std::iter::repeat(0)));
    let mut series = buckets.iter();
    let mut below: u64 = 0;
    for (bound, values) in bounds {
        below = below.saturating_add(values);
        if bound.is_finite()
            && let Some(series) = series.next()
        {
            each(series, whole(below));
        }
    }
    each(infinite, whole(histogram.count));
    if let Some(value) = histogram.sum {
        each(sum, value);
    }
    each(count, whole(histogram.count));
}

fn summary_values(summary: Summary<'_>, prepared: &[Arc<Series>], mut each: impl FnMut(&Arc<Series>, f64)) {
    let [quantiles @ .., sum, count] = prepared else { return };
    quantiles.iter().zip(summary.quantiles()).for_each(|(series, (_, value))| each(series, value));
    each(sum, summary.sum);
    each(count, whole(summary.count));
}

/// A count as series hold it.
fn whole(count: u64) -> f64 {
    i64::try_from(count).map_or(9_223_372_036_854_775_808.0, |count| Number::Int(count).as_f64())
}

#[cfg(test)]
mod tests;
