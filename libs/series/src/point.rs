//! From one data point to its series and their values.

use std::sync::Arc;

use otlp::{Histogram, Kind, Metric, Number, Point, Summary};

use crate::cache::Weighed;
use crate::labels::{Common, Series};
use crate::name::{Type, agent_counts, of_agent, translated};
use crate::prepare::{BOUND_BYTES, Label, NAME_BYTES, Scope, by_key, labels};
use crate::resource::Resource;
use crate::skip::Skip;

/// Prometheus's staleness marker, bit for bit.
pub(crate) const STALE: f64 = f64::from_bits(0x7ff0_0000_0000_0002);

/// Buckets or quantiles of a point, and what they may come to together with the labels that each of them repeats in a
/// store. Gateways refuse less (`otlp::Limits`); this holds whatever comes past them.
const MOST_SERIES: usize = 1_100;
const MOST_BYTES: usize = 4 << 20;
/// Bytes of a metric's name, or of its unit.
const MOST_NAME: usize = 1 << 10;

/// What one point's bytes come to.
pub(crate) enum Prepared {
    /// Of a gauge or sum.
    One(Arc<Series>),
    /// Of a histogram or summary, in the order in which [`values`] gives their values.
    Several(Box<[Arc<Series>]>),
    /// Passed over.
    None(Skip),
}

impl Prepared {
    pub(crate) fn as_slice(&self) -> Result<&[Arc<Series>], Skip> {
        match self {
            Self::One(series) => Ok(std::slice::from_ref(series)),
            Self::Several(series) => Ok(series),
            Self::None(skip) => Err(*skip),
        }
    }

    /// Hashes of the series.
    pub(crate) fn hashes(&self) -> impl Iterator<Item = u64> + Clone {
        self.as_slice().unwrap_or_default().iter().map(|series| series.hash)
    }
}

impl Weighed for Prepared {
    /// With the owner of each series.
    fn bytes(&self) -> usize {
        const SERIES: usize = 120;
        match self {
            Self::One(series) => series.encoded_len() + SERIES,
            Self::Several(series) => {
                let common = series.first().map_or(0, |series| series.encoded_len());
                common + series.iter().map(|series| series.own_len() + SERIES + 8).sum::<usize>()
            }
            Self::None(_) => 0,
        }
    }
}

/// Why a point has no series, as far as what it says decides.
pub(crate) fn judge(metric: Metric<'_>, point: Point<'_>) -> Result<(), Skip> {
    if metric.name.is_empty() {
        return Err(Skip::Unnamed);
    }
    if metric.name.len() > MOST_NAME || metric.unit.len() > MOST_NAME {
        return Err(Skip::TooLarge);
    }
    match metric.kind {
        Kind::None => return Err(Skip::NoValue),
        Kind::ExponentialHistogram => return Err(Skip::Exponential),
        Kind::Sum { cumulative: false, .. } | Kind::Histogram { cumulative: false } => return Err(Skip::NotCumulative),
        Kind::Gauge | Kind::Sum { .. } | Kind::Histogram { .. } | Kind::Summary => {}
    }
    if point.no_recorded_value() {
        return Ok(());
    }
    match point.sample {
        otlp::Sample::None => Err(Skip::NoValue),
        otlp::Sample::Number(Number::Double(value)) if is_dropped(value) => Err(Skip::NotANumber),
        otlp::Sample::Histogram(histogram) => {
            let (buckets, bounds) = (histogram.buckets().count(), histogram.bounds().count());
            let fits = buckets == bounds + 1 || (buckets == 0 && bounds == 0);
            fits.then_some(()).ok_or(Skip::BrokenHistogram)
        }
        otlp::Sample::Number(_) | otlp::Sample::Summary(_) => Ok(()),
    }
}

/// Stores drop what is not a number, but for the stale marker.
pub(crate) fn is_dropped(value: f64) -> bool {
    value.is_nan() && value.to_bits() != STALE.to_bits()
}

/// What the series of a metric are called, which all its points have in common.
pub(crate) struct Named {
    name: String,
    counts: bool,
    /// Its scope is in the name.
    is_agents: bool,
}

impl Named {
    pub(crate) fn new(resource: &Resource, scope: &Scope<'_>, metric: Metric<'_>) -> Self {
        let monotonic = matches!(metric.kind, Kind::Sum { monotonic: true, .. });
        let is_gauge = metric.kind == Kind::Gauge;
        let agents = resource.is_agents.then(|| of_agent(scope.name, metric.name)).flatten();
        let counts = monotonic || (is_gauge && agents.as_deref().is_some_and(agent_counts));
        let is_agents = agents.is_some();
        let mut name = agents.unwrap_or_else(|| translated(metric.name, metric.unit, monotonic, is_gauge));
        if name.len() > NAME_BYTES {
            name = model::shortened(&name, NAME_BYTES, '_');
        }
        Self { name, counts, is_agents }
    }
}

/// The series of one point, and a hash of what the client calls it and where.
pub(crate) fn prepare(
    resource: &Resource,
    scope: &Scope<'_>,
    metric: Metric<'_>,
    named: &Named,
    point: Point<'_>,
) -> (Prepared, u64) {
    let scope = (!named.is_agents).then_some(scope);
    let called = if named.is_agents { "" } else { metric.name };
    let name = &named.name;
    let attributes = by_key(point.attributes.iter());
    let base = &resource.base;
    let places = [&base.tenant, &base.resource_id, &base.kind, &base.host_name, &base.service_name];
    let scopes = scope.map_or([""; 3], |scope| [scope.name, scope.version, &scope.attributes]);
    let places = places.into_iter().map(|place| &**place).chain(scopes).chain([called]).map(|place| ("", place));
    let pairs = attributes.iter().map(|(key, value)| (*key, &**value));
    let origin = model::series_hash(places.chain(pairs));
    let prepared = match extra(point) {
        Err(skip) => Err(skip),
        Ok(None) => labels(&resource.base, scope, &attributes, None).map(|labels| one(&labels, name, named.counts)),
        Ok(Some(extra)) => {
            labels(&resource.base, scope, &attributes, Some(extra)).map(|labels| several(&labels, name, extra, point))
        }
    };
    (prepared.unwrap_or_else(Prepared::None), origin)
}

/// The label that tells the series of a point apart, where it has several.
fn extra(point: Point<'_>) -> Result<Option<&'static str>, Skip> {
    let bytes = point.attributes.raw().len() + otlp::LABELS_OF_OURS;
    let fits = |series: usize| series <= MOST_SERIES && series * bytes <= MOST_BYTES;
    match point.sample {
        otlp::Sample::Histogram(histogram) => {
            if !fits(histogram.bounds().count() + 3) {
                return Err(Skip::TooLarge);
            }
            // Written so that what is not a number does not pass.
            let rises = histogram.bounds().zip(histogram.bounds().skip(1)).all(|(one, next)| one < next);
            if rises && !histogram.bounds().any(f64::is_nan) { Ok(Some("le")) } else { Err(Skip::BrokenHistogram) }
        }
        otlp::Sample::Summary(summary) if !fits(summary.quantiles().count() + 2) => Err(Skip::TooLarge),
        otlp::Sample::Summary(_) => Ok(Some("quantile")),
        otlp::Sample::Number(_) | otlp::Sample::None => Ok(None),
    }
}

fn one(labels: &[Label<'_>], name: &str, counts: bool) -> Prepared {
    let at = labels.partition_point(|(label, _)| &**label < "__name__");
    let named = [("__name__", name)];
    let before = labels[..at].iter().map(|(name, value)| (&**name, &**value));
    let behind = labels[at..].iter().map(|(name, value)| (&**name, &**value));
    let kind = if counts { Type::Counter } else { Type::Gauge };
    Prepared::One(Arc::new(Series::new(kind, before.chain(named).chain(behind))))
}

fn several(labels: &[Label<'_>], name: &str, extra: &'static str, point: Point<'_>) -> Prepared {
    let common = Common::new(labels.iter().map(|(name, value)| (&**name, &**value)), extra);
    let of = |kind, name: &str, value: Option<&str>| {
        Arc::new(Series::of(&common, kind, name, value.map(|value| (extra, value))))
    };
    let mut all = Vec::new();
    match point.sample {
        otlp::Sample::Histogram(histogram) => {
            let bounds = histogram.bounds().filter(|bound| bound.is_finite()).map(written);
            let bucket = format!("{name}_bucket");
            all.extend(bounds.chain(["+Inf".to_owned()]).map(|le| of(Type::Counter, &bucket, Some(&le))));
        }
        otlp::Sample::Summary(summary) => {
            let quantiles = summary.quantiles().map(|(quantile, _)| written(quantile));
            all.extend(quantiles.map(|quantile| of(Type::Gauge, name, Some(&quantile))));
        }
        otlp::Sample::Number(_) | otlp::Sample::None => {}
    }
    all.push(of(Type::Counter, &format!("{name}_sum"), None));
    all.push(of(Type::Counter, &format!("{name}_count"), None));
    Prepared::Several(all.into())
}

/// A bound or quantile as a label: with an exponent where it would have up to three hundred zeros without one.
fn written(number: f64) -> String {
    let plain = number.to_string();
    if plain.len() > BOUND_BYTES { format!("{number:e}") } else { plain }
}

/// Gives each of a point's series its value.
pub(crate) fn values(point: Point<'_>, series: &[Arc<Series>], mut each: impl FnMut(&Arc<Series>, f64)) {
    if point.no_recorded_value() {
        series.iter().for_each(|series| each(series, STALE));
        return;
    }
    match point.sample {
        otlp::Sample::Number(number) => series.iter().for_each(|series| each(series, number.as_f64())),
        otlp::Sample::Histogram(histogram) => histogram_values(histogram, series, each),
        otlp::Sample::Summary(summary) => summary_values(summary, series, each),
        otlp::Sample::None => {}
    }
}

/// The buckets decide: where a client counts otherwise than they add up to, their sum is the count, so that buckets never
/// fall and the last one is the count.
fn histogram_values(histogram: Histogram<'_>, series: &[Arc<Series>], mut each: impl FnMut(&Arc<Series>, f64)) {
    let [buckets @ .., infinite, sum, count] = series else { return };
    let mut series = buckets.iter();
    let mut bounds = histogram.bounds();
    let mut total = None;
    for values in histogram.buckets() {
        let below = u64::saturating_add(total.unwrap_or(0), values);
        total = Some(below);
        if bounds.next().is_some_and(f64::is_finite)
            && let Some(series) = series.next()
        {
            each(series, whole(below));
        }
    }
    let total = whole(total.unwrap_or(histogram.count));
    each(infinite, total);
    if let Some(value) = histogram.sum {
        each(sum, value);
    }
    each(count, total);
}

fn summary_values(summary: Summary<'_>, series: &[Arc<Series>], mut each: impl FnMut(&Arc<Series>, f64)) {
    let [quantiles @ .., sum, count] = series else { return };
    quantiles.iter().zip(summary.quantiles()).for_each(|(series, (_, value))| each(series, value));
    each(sum, summary.sum);
    each(count, whole(summary.count));
}

/// A count as series hold it.
fn whole(count: u64) -> f64 {
    i64::try_from(count).map_or(9_223_372_036_854_775_808.0, |count| Number::Int(count).as_f64())
}
