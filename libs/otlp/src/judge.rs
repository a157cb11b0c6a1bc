//! The verdict on one metric, point or record: is it well-formed, and does a gateway take it.

use crate::limits::{Limits, Mode, Reason, Refusals, Rules};
use crate::schema::{
    EXPONENTIAL, EXPONENTIAL_POINT, GAUGE, HISTOGRAM, HISTOGRAM_POINT, KEY_VALUE, LOG_RECORD, METRIC, NUMBER_POINT,
    SUM, SUMMARY, SUMMARY_POINT, Schema,
};
use crate::value::{Attribute, Value};
use crate::walk::{Fixed64s, last_text};
use crate::wire::{Invalid, Reader, WRONG_TYPE, Wire};

/// How many messages may be nested within an attribute or a body. Prost itself stops at 100 from the top.
pub const MAX_NESTING: u8 = 32;
/// Digits and sign.
const LONGEST_INT: usize = 20;

/// What a scope has beside its items.
#[derive(Default)]
pub(crate) struct ScopeHeader {
    bytes: usize,
    /// The longer of name and version.
    name: usize,
}

impl ScopeHeader {
    pub(crate) fn add(&mut self, number: u32, wire: Wire<'_>, bytes: usize) {
        self.bytes += bytes;
        if let (1, Wire::Bytes(scope)) = (number, wire) {
            self.name = self.name.max(last_text(scope, 1).len()).max(last_text(scope, 2).len());
        }
    }

    /// Why nothing of the scope is taken.
    pub(crate) fn refused(&self, mode: Mode<'_>) -> Option<Reason> {
        match mode {
            Mode::Gateway(rules) if self.bytes > rules.limits.header_bytes => Some(Reason::TooLarge),
            // Of a metric it is in the labels of each series, of a log in each line.
            Mode::Gateway(rules) if self.name > rules.limits.name_bytes => Some(Reason::NameTooLong),
            _ => None,
        }
    }
}

/// Whether nothing of a scope is taken.
pub(crate) fn scope_is_refused(content: &[u8], rules: &Rules) -> bool {
    let mut header = ScopeHeader::default();
    let mut reader = Reader::new(content);
    let mut begin = 0;
    while let Ok(Some((number, wire))) = reader.next() {
        if number != 2 {
            header.add(number, wire, reader.position() - begin);
        }
        begin = reader.position();
    }
    header.refused(Mode::Gateway(rules)).is_some()
}

/// A metric's verdict.
pub(crate) struct MetricVerdict {
    pub(crate) points: u64,
    /// All points are refused for one reason.
    pub(crate) whole: Option<Reason>,
    /// Single points are refused.
    pub(crate) single: Refusals,
}

/// How the points of one kind of data are encoded.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    point: &'static Schema,
    data: &'static Schema,
    attribute: u32,
    flags: u32,
    says: Says,
    temporal: bool,
}

/// Where a point has its value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Says {
    Number,
    Histogram,
    Summary,
    Exponential,
}

pub(crate) fn shape(field: u32) -> Option<Shape> {
    let shape = |point, data, attribute, flags, says, temporal| Shape { point, data, attribute, flags, says, temporal };
    Some(match field {
        5 => shape(&NUMBER_POINT, &GAUGE, 7, 8, Says::Number, false),
        7 => shape(&NUMBER_POINT, &SUM, 7, 8, Says::Number, true),
        9 => shape(&HISTOGRAM_POINT, &HISTOGRAM, 9, 10, Says::Histogram, true),
        10 => shape(&EXPONENTIAL_POINT, &EXPONENTIAL, 1, 10, Says::Exponential, true),
        11 => shape(&SUMMARY_POINT, &SUMMARY, 7, 8, Says::Summary, false),
        _ => return None,
    })
}

pub(crate) fn metric(content: &[u8], mode: Mode<'_>) -> Result<MetricVerdict, Invalid> {
    let mut verdict = MetricVerdict { points: 0, whole: None, single: Refusals::default() };
    let (mut name, mut unit, mut kind, mut temporality, mut header) = (0, 0, None, 0, 0);
    let mut reader = Reader::new(content);
    let mut begin = 0;
    while let Some((number, wire)) = reader.next().map_err(|problem| METRIC.invalid(problem))? {
        let Some(shape) = shape(number) else {
            METRIC.check_field(number, wire, MAX_NESTING)?;
            match (number, wire) {
                (1, Wire::Bytes(text)) => name = text.len(),
                (3, Wire::Bytes(text)) => unit = text.len(),
                _ => {}
            }
            header += reader.position() - begin;
            begin = reader.position();
            continue;
        };
        begin = reader.position();
        if *kind.get_or_insert(number) != number {
            return Err(METRIC.invalid("it has two kinds of data"));
        }
        let mut points = Reader::new(nested(&METRIC, wire)?);
        while let Some((number, wire)) = points.next().map_err(|problem| shape.data.invalid(problem))? {
            match (number, wire) {
                (1, Wire::Bytes(content)) => {
                    verdict.points += 1;
                    if let Some(reason) = point(content, shape, mode)? {
                        verdict.single.add(reason, 1);
                    }
                }
                (1, _) => return Err(shape.data.invalid(WRONG_TYPE)),
                _ => {
                    shape.data.check_field(number, wire, MAX_NESTING)?;
                    if let (2, Wire::Varint(value)) = (number, wire) {
                        temporality = value;
                    }
                }
            }
        }
    }
    if let (Mode::Gateway(rules), Some(kind)) = (mode, kind) {
        let cumulative = temporality == 2 || !shape(kind).is_some_and(|shape| shape.temporal);
        verdict.whole = whole(kind, cumulative, (name, unit), header, &rules.limits);
    } else if let (Mode::Gateway(_), None) = (mode, kind) {
        // A kind that is newer than we are, or none: how many points it has cannot be seen.
        verdict.points = 1;
        verdict.whole = Some(Reason::NoValue);
    }
    Ok(verdict)
}

/// Why none of a metric's points is taken.
fn whole(kind: u32, cumulative: bool, (name, unit): (usize, usize), header: usize, limits: &Limits) -> Option<Reason> {
    if kind == 10 {
        Some(Reason::ExponentialHistogram)
    } else if !cumulative {
        Some(Reason::NotCumulative)
    } else if name == 0 {
        Some(Reason::Unnamed)
    } else if name.max(unit) > limits.name_bytes {
        Some(Reason::NameTooLong)
    } else if header > limits.header_bytes {
        Some(Reason::TooLarge)
    } else {
        None
    }
}

/// What was seen of a point on the way through it.
#[derive(Default)]
struct Seen<'a> {
    attributes: usize,
    label_bytes: usize,
    longest_key: usize,
    longest_value: usize,
    time: u64,
    flags: u64,
    /// The last of the fields that can be a number's value.
    value: Option<Wire<'static>>,
    sum: f64,
    /// Quantiles of a summary.
    quantiles: usize,
    /// Counts and bounds of a histogram's buckets as every encoder writes them: packed, in one field each.
    counts: &'a [u8],
    bounds: &'a [u8],
    /// They stand in another way, which is allowed.
    scattered: bool,
}

pub(crate) fn point(content: &[u8], shape: Shape, mode: Mode<'_>) -> Result<Option<Reason>, Invalid> {
    let mut seen = Seen::default();
    let mut reader = Reader::new(content);
    while let Some((number, wire)) = reader.next().map_err(|problem| shape.point.invalid(problem))? {
        if number == shape.attribute {
            let content = nested(shape.point, wire)?;
            seen.attributes += 1;
            let (key, value) = attribute(content, mode)?;
            seen.label_bytes += key + value;
            seen.longest_key = seen.longest_key.max(key);
            seen.longest_value = seen.longest_value.max(value);
            continue;
        }
        match (number, wire) {
            // These two mean the same in every kind of point.
            (3, Wire::Fixed64(time)) => seen.time = time,
            (4, Wire::Fixed64(bits)) => seen.value = Some(Wire::Fixed64(bits)),
            _ => {
                shape.point.check_field(number, wire, MAX_NESTING)?;
                match (number, wire) {
                    (5, Wire::Fixed64(bits)) => seen.sum = f64::from_bits(bits),
                    (6 | 7, _) if shape.says == Says::Histogram => seen.note_buckets(number, wire),
                    (6, Wire::Fixed64(bits)) => seen.value = Some(Wire::Varint(bits)),
                    (6, Wire::Bytes(_)) => seen.quantiles += 1,
                    (flags, Wire::Varint(value)) if flags == shape.flags => seen.flags = value,
                    _ => {}
                }
            }
        }
    }
    Ok(match mode {
        Mode::Gateway(rules) => over_the_limits(content, shape, &seen, &rules.limits)
            .or_else(|| no_value(content, shape, &seen))
            .or_else(|| if seen.time == 0 { None } else { rules.times.judge(seen.time).err().map(Reason::from) }),
        Mode::Reader => None,
    })
}

impl<'a> Seen<'a> {
    fn note_buckets(&mut self, number: u32, wire: Wire<'a>) {
        let place = if number == 6 { &mut self.counts } else { &mut self.bounds };
        match wire {
            Wire::Bytes(packed) if place.is_empty() => *place = packed,
            _ => self.scattered = true,
        }
    }

    /// How many bounds a histogram's `point` has.
    fn bounds_of(&self, point: &[u8]) -> usize {
        if self.scattered { Fixed64s::new(point, 7).count() } else { self.bounds.len() / 8 }
    }

    /// Whether a histogram's bounds rise and its counts fit.
    fn buckets_fit(&self, point: &[u8]) -> bool {
        let count = match self.value {
            Some(Wire::Fixed64(count)) => count,
            _ => 0,
        };
        if self.scattered {
            let bounds = Fixed64s::new(point, 7).map(f64::from_bits);
            return buckets_fit(count, bounds, Fixed64s::new(point, 6));
        }
        buckets_fit(count, numbers(self.bounds).map(f64::from_bits), numbers(self.counts))
    }
}

/// The numbers of a packed field.
fn numbers(packed: &[u8]) -> impl Iterator<Item = u64> {
    packed.as_chunks().0.iter().map(|number| u64::from_le_bytes(*number))
}

#[inline]
fn over_the_limits(content: &[u8], shape: Shape, seen: &Seen<'_>, limits: &Limits) -> Option<Reason> {
    if content.len() > limits.item_bytes {
        return Some(Reason::TooLarge);
    }
    if seen.attributes > limits.point_attributes {
        return Some(Reason::TooManyAttributes);
    }
    if seen.longest_key > limits.key_bytes || seen.longest_value > limits.value_bytes {
        return Some(Reason::AttributeTooLong);
    }
    if seen.label_bytes > limits.label_bytes {
        return Some(Reason::TooManyLabelBytes);
    }
    let buckets = match shape.says {
        Says::Number | Says::Exponential => return None,
        Says::Histogram => seen.bounds_of(content),
        Says::Summary => seen.quantiles,
    };
    if buckets > limits.buckets {
        Some(Reason::TooManyBuckets)
    } else if limits.is_over(seen.label_bytes, buckets + 3) {
        Some(Reason::TooManyLabelBytes)
    } else {
        None
    }
}

/// Why a point has nothing to keep. One that is marked as having no recorded value ends its series, and needs none.
#[inline]
fn no_value(content: &[u8], shape: Shape, seen: &Seen<'_>) -> Option<Reason> {
    if seen.flags & 1 != 0 {
        return None;
    }
    match (shape.says, seen.value) {
        (Says::Number, None) => Some(Reason::NoValue),
        (Says::Number, Some(Wire::Fixed64(bits))) if f64::from_bits(bits).is_nan() => Some(Reason::NotANumber),
        (Says::Histogram | Says::Summary, _) if seen.sum.is_nan() => Some(Reason::NotANumber),
        (Says::Histogram, _) if !seen.buckets_fit(content) => Some(Reason::BrokenHistogram),
        _ => None,
    }
}

/// Bounds rise, there is one count more than there are bounds (or none at all), and the counts add up.
fn buckets_fit(count: u64, bounds: impl Iterator<Item = f64>, counts: impl Iterator<Item = u64>) -> bool {
    let (mut buckets, mut total) = (0usize, Some(0u64));
    for values in counts {
        buckets += 1;
        total = total.and_then(|total| total.checked_add(values));
    }
    let (mut bounds_seen, mut last, mut rise) = (0usize, None, true);
    for bound in bounds {
        bounds_seen += 1;
        rise &= !bound.is_nan() && last.is_none_or(|last| last < bound);
        last = Some(bound);
    }
    let none = buckets == 0 && bounds_seen == 0;
    none || (rise && buckets == bounds_seen + 1 && total == Some(count))
}

pub(crate) struct RecordVerdict {
    pub(crate) refused: Option<Reason>,
    /// It has a time of its own.
    pub(crate) timed: bool,
}

pub(crate) fn record(content: &[u8], mode: Mode<'_>) -> Result<RecordVerdict, Invalid> {
    let (mut attributes, mut time, mut observed) = (0, 0, 0);
    let mut reader = Reader::new(content);
    while let Some((number, wire)) = reader.next().map_err(|problem| LOG_RECORD.invalid(problem))? {
        match (number, wire) {
            (1, Wire::Fixed64(nanos)) => time = nanos,
            (11, Wire::Fixed64(nanos)) => observed = nanos,
            (6, Wire::Bytes(key_value)) => {
                attributes += 1;
                if short_text(key_value).is_none() {
                    KEY_VALUE.check(key_value, MAX_NESTING)?;
                }
            }
            _ => LOG_RECORD.check_field(number, wire, MAX_NESTING)?,
        }
    }
    let refused = match mode {
        Mode::Reader => None,
        Mode::Gateway(rules) if content.len() > rules.limits.item_bytes => Some(Reason::TooLarge),
        Mode::Gateway(rules) if attributes > rules.limits.record_attributes => Some(Reason::TooManyAttributes),
        // A clock that runs ahead costs nobody a line: readers take such a line at the time of its arrival.
        Mode::Gateway(rules) => match rules.times.log(time, observed).wrong {
            Some(model::Disbelieved::TooOld) => Some(Reason::TimeTooOld),
            _ => None,
        },
    };
    Ok(RecordVerdict { refused, timed: time != 0 || observed != 0 })
}

/// Checks a point's attribute; gives the lengths of key and value as a label has them.
#[inline]
fn attribute(content: &[u8], mode: Mode<'_>) -> Result<(usize, usize), Invalid> {
    if let Some(lengths) = short_text(content) {
        return Ok(lengths);
    }
    KEY_VALUE.check(content, MAX_NESTING)?;
    let Mode::Gateway(rules) = mode else { return Ok((0, 0)) };
    let Attribute { key, value } = Attribute::read(content);
    let value = match value {
        Value::Empty => 0,
        Value::Str(text) => text.len(),
        Value::Bool(_) | Value::Int(_) => LONGEST_INT,
        // Three hundred digits fit into nine bytes, so these are written out to see.
        _ if content.len() <= rules.limits.value_bytes => value.text().len(),
        _ => content.len(),
    };
    Ok((key.len(), value))
}

/// Lengths of key and value of an attribute in the one encoding that nearly all have: a short ASCII key with a short ASCII text.
#[inline]
fn short_text(content: &[u8]) -> Option<(usize, usize)> {
    let [0x0a, key, rest @ ..] = content else { return None };
    let key = usize::from(*key);
    let [0x12, outer, 0x0a, inner, value @ ..] = rest.get(key..)? else { return None };
    // ASCII throughout makes the four lengths one-byte varints as well.
    let fits = usize::from(*inner) == value.len() && usize::from(*outer) == value.len() + 2;
    (fits && content.is_ascii()).then_some((key, value.len()))
}

#[inline]
pub(crate) fn nested<'a>(within: &Schema, wire: Wire<'a>) -> Result<&'a [u8], Invalid> {
    match wire {
        Wire::Bytes(content) => Ok(content),
        _ => Err(within.invalid(WRONG_TYPE)),
    }
}
