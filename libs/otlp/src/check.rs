//! The one walk over a request: is it well-formed, what does it hold, what of it cannot be taken.

use std::borrow::Cow;

use crate::cut;
use crate::schema::{
    DATA, EXPONENTIAL_POINT, HISTOGRAM_POINT, KEY_VALUE, LOG_RECORD, METRIC, NUMBER_POINT, PLAIN_DATA, REQUEST,
    RESOURCE, RESOURCE_ITEMS, SCOPE_ITEMS, SUMMARY_POINT, Schema,
};
use crate::split::Signal;
use crate::stamp::RESERVED_PREFIX;
use crate::value::Attribute;
use crate::walk::resource_attributes;
use crate::wire::{Invalid, Reader, WRONG_TYPE, Wire};

/// How many messages may be nested within an attribute or a body. Prost itself stops at 100 from the top.
pub const MAX_NESTING: u8 = 32;

/// What one item may be at most.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Attributes of a data point.
    pub point_attributes: usize,
    /// Attributes of a log record.
    pub record_attributes: usize,
    /// Bytes of an attribute's key.
    pub key_bytes: usize,
    /// Bytes of a data point's attribute value; a log record's are bounded by `item_bytes` alone.
    pub value_bytes: usize,
    /// Bytes of a point or a record.
    pub item_bytes: usize,
    /// Bytes of what is repeated when a request is split: a resource, a scope, a metric without its points.
    pub header_bytes: usize,
}

impl Default for Limits {
    /// Any item with its headers fits into half a mebibyte.
    fn default() -> Self {
        Self {
            point_attributes: 64,
            record_attributes: 256,
            key_bytes: 256,
            value_bytes: 4096,
            item_bytes: 256 << 10,
            header_bytes: 64 << 10,
        }
    }
}

impl Limits {
    /// None, for consumers.
    const OFF: Self = Self {
        point_attributes: usize::MAX,
        record_attributes: usize::MAX,
        key_bytes: usize::MAX,
        value_bytes: usize::MAX,
        item_bytes: usize::MAX,
        header_bytes: usize::MAX,
    };
}

/// Why an item is not taken though its bytes are sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// A sum or histogram that is not cumulative.
    NotCumulative,
    /// An exponential histogram.
    ExponentialHistogram,
    /// A metric without a name.
    Unnamed,
    /// More attributes than the limit.
    TooManyAttributes,
    /// A key or value longer than the limit.
    AttributeTooLong,
    /// A point, record or metric header of more bytes than the limit.
    TooLarge,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 6] = [
        Self::NotCumulative,
        Self::ExponentialHistogram,
        Self::Unnamed,
        Self::TooManyAttributes,
        Self::AttributeTooLong,
        Self::TooLarge,
    ];

    /// A name for a metric's label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotCumulative => "not_cumulative",
            Self::ExponentialHistogram => "exponential_histogram",
            Self::Unnamed => "unnamed",
            Self::TooManyAttributes => "too_many_attributes",
            Self::AttributeTooLong => "attribute_too_long",
            Self::TooLarge => "too_large",
        }
    }

    /// What the client should do about it.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Self::NotCumulative => "sums and histograms must have cumulative temporality",
            Self::ExponentialHistogram => "exponential histograms are not supported; use explicit buckets",
            Self::Unnamed => "a metric needs a name",
            Self::TooManyAttributes => "too many attributes on one item",
            Self::AttributeTooLong => "an attribute's key or value is too long",
            Self::TooLarge => "a single item is too large",
        }
    }
}

/// How many items were refused, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Refusals([u64; Reason::ALL.len()]);

impl Refusals {
    /// Of all reasons together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Those reasons that occurred, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (Reason, u64)> + '_ {
        Reason::ALL.into_iter().zip(self.0).filter(|(_, count)| *count > 0)
    }

    fn add(&mut self, reason: Reason, count: u64) {
        self.0[reason as usize] += count;
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(mine, theirs)| *mine += theirs);
    }
}

/// One `ResourceMetrics` or `ResourceLogs` of a request.
#[derive(Debug, Clone)]
pub struct Part<'a> {
    content: &'a [u8],
    signal: Signal,
    /// Items that are taken.
    pub items: u64,
    /// Items that are not.
    pub refused: Refusals,
    /// At least one log record has a time of its own (observed times count); not determined for metrics.
    pub timed: bool,
    /// The client used attribute keys that are ours.
    reserved: bool,
}

impl<'a> Part<'a> {
    /// The resource's attributes, without those that the client may not set.
    pub fn attributes(&self) -> impl Iterator<Item = Attribute<'a>> + use<'a> {
        resource_attributes(self.content).filter(|attribute| !attribute.key.starts_with(RESERVED_PREFIX))
    }

    /// What is handed on: the bytes that arrived, or a copy without refused items and reserved attributes.
    ///
    /// `limits` must be those of the check.
    #[must_use]
    pub fn kept(&self, limits: &Limits) -> Cow<'a, [u8]> {
        if self.reserved || self.refused.total() > 0 {
            Cow::Owned(cut::rebuild(self.content, self.signal, limits))
        } else {
            Cow::Borrowed(self.content)
        }
    }
}

/// What a request holds.
#[derive(Debug, Clone, Default)]
pub struct Walk<'a> {
    /// Resource by resource, in the request's order; those without any item left are there too.
    pub parts: Vec<Part<'a>>,
    /// Items that are taken.
    pub items: u64,
    /// Items that are not.
    pub refused: Refusals,
}

/// Checks an `ExportMetricsServiceRequest`. Its items are data points.
///
/// # Errors
/// Not a single byte of it can be used.
pub fn check_metrics<'a>(request: &'a [u8], limits: &Limits) -> Result<Walk<'a>, Invalid> {
    collect(request, Signal::Metrics, limits)
}

/// Checks an `ExportLogsServiceRequest`. Its items are log records.
///
/// # Errors
/// Not a single byte of it can be used.
pub fn check_logs<'a>(request: &'a [u8], limits: &Limits) -> Result<Walk<'a>, Invalid> {
    collect(request, Signal::Logs, limits)
}

pub(crate) fn well_formed_metrics(request: &[u8]) -> Result<(), Invalid> {
    each_part(request, Signal::Metrics, &Limits::OFF, |_| {})
}

pub(crate) fn well_formed_logs(request: &[u8]) -> Result<(), Invalid> {
    each_part(request, Signal::Logs, &Limits::OFF, |_| {})
}

fn collect<'a>(request: &'a [u8], signal: Signal, limits: &Limits) -> Result<Walk<'a>, Invalid> {
    let mut walk = Walk::default();
    each_part(request, signal, limits, |part| {
        walk.items += part.items;
        walk.refused.merge(&part.refused);
        walk.parts.push(part);
    })?;
    Ok(walk)
}

fn each_part<'a>(
    request: &'a [u8],
    signal: Signal,
    limits: &Limits,
    mut take: impl FnMut(Part<'a>),
) -> Result<(), Invalid> {
    let mut reader = Reader::new(request);
    while let Some((number, wire)) = reader.next().map_err(|problem| REQUEST.invalid(problem))? {
        if number == 1 {
            take(part(nested(&REQUEST, wire)?, signal, limits)?);
        }
    }
    Ok(())
}

fn part<'a>(content: &'a [u8], signal: Signal, limits: &Limits) -> Result<Part<'a>, Invalid> {
    let mut part = Part { content, signal, items: 0, refused: Refusals::default(), timed: false, reserved: false };
    let mut header = content.len();
    let mut reader = Reader::new(content);
    while let Some((number, wire)) = reader.next().map_err(|problem| RESOURCE_ITEMS.invalid(problem))? {
        match number {
            1 => part.reserved |= resource(nested(&RESOURCE_ITEMS, wire)?)?,
            2 => {
                let content = nested(&RESOURCE_ITEMS, wire)?;
                header -= content.len();
                scope(content, &mut part, limits)?;
            }
            _ => RESOURCE_ITEMS.check_field(number, wire, MAX_NESTING)?,
        }
    }
    if header > limits.header_bytes {
        return Err(RESOURCE.invalid("a resource has more bytes than the limit"));
    }
    Ok(part)
}

/// Whether the client used reserved keys.
fn resource(content: &[u8]) -> Result<bool, Invalid> {
    RESOURCE.check(content, MAX_NESTING)?;
    let mut keys = crate::walk::each(content, 1).map(Attribute::read);
    Ok(keys.any(|attribute| attribute.key.starts_with(RESERVED_PREFIX)))
}

fn scope(content: &[u8], part: &mut Part<'_>, limits: &Limits) -> Result<(), Invalid> {
    let mut header = content.len();
    let mut reader = Reader::new(content);
    while let Some((number, wire)) = reader.next().map_err(|problem| SCOPE_ITEMS.invalid(problem))? {
        if number != 2 {
            SCOPE_ITEMS.check_field(number, wire, MAX_NESTING)?;
            continue;
        }
        let item = nested(&SCOPE_ITEMS, wire)?;
        header -= item.len();
        match part.signal {
            Signal::Metrics => {
                let metric = judge_metric(item, limits)?;
                match metric.whole {
                    Some(reason) => part.refused.add(reason, metric.points),
                    None => {
                        part.items += metric.points - metric.single.total();
                        part.refused.merge(&metric.single);
                    }
                }
            }
            Signal::Logs => {
                let record = judge_record(item, limits)?;
                match record.refused {
                    Some(reason) => part.refused.add(reason, 1),
                    None => {
                        part.items += 1;
                        part.timed |= record.timed;
                    }
                }
            }
        }
    }
    if header > limits.header_bytes.saturating_add(8 * usize::try_from(part.items + part.refused.total()).unwrap_or(0))
    {
        return Err(SCOPE_ITEMS.invalid("a scope has more bytes than the limit"));
    }
    Ok(())
}

/// A metric's verdict.
pub(crate) struct MetricVerdict {
    points: u64,
    /// All points are refused for one reason.
    pub(crate) whole: Option<Reason>,
    /// Single points are refused.
    pub(crate) single: Refusals,
}

/// How the points of one kind of data are encoded.
#[derive(Clone, Copy)]
pub(crate) struct PointShape {
    point: &'static Schema,
    attribute: u32,
    data: &'static Schema,
    temporal: bool,
}

pub(crate) fn shape(field: u32) -> Option<PointShape> {
    let (point, attribute, data, temporal) = match field {
        5 => (&NUMBER_POINT, 7, &PLAIN_DATA, false),
        7 => (&NUMBER_POINT, 7, &DATA, true),
        9 => (&HISTOGRAM_POINT, 9, &DATA, true),
        10 => (&EXPONENTIAL_POINT, 1, &DATA, true),
        11 => (&SUMMARY_POINT, 7, &PLAIN_DATA, false),
        _ => return None,
    };
    Some(PointShape { point, attribute, data, temporal })
}

pub(crate) fn judge_metric(content: &[u8], limits: &Limits) -> Result<MetricVerdict, Invalid> {
    let mut verdict = MetricVerdict { points: 0, whole: None, single: Refusals::default() };
    let (mut named, mut kind, mut temporality) = (false, None, 0);
    let mut header = content.len();
    let mut reader = Reader::new(content);
    while let Some((number, wire)) = reader.next().map_err(|problem| METRIC.invalid(problem))? {
        let Some(shape) = shape(number) else {
            METRIC.check_field(number, wire, MAX_NESTING)?;
            if let (1, Wire::Bytes(name)) = (number, wire) {
                named = !name.is_empty();
            }
            continue;
        };
        if *kind.get_or_insert(number) != number {
            return Err(METRIC.invalid("it has two kinds of data"));
        }
        let data = nested(&METRIC, wire)?;
        header -= data.len();
        let mut points = Reader::new(data);
        while let Some((number, wire)) = points.next().map_err(|problem| shape.data.invalid(problem))? {
            match (number, wire) {
                (1, Wire::Bytes(point)) => {
                    verdict.points += 1;
                    if let Some(reason) = judge_point(point, shape, limits)? {
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
    let temporal = kind.and_then(shape).is_some_and(|shape| shape.temporal);
    verdict.whole = match kind {
        _ if limits.header_bytes == usize::MAX => None,
        Some(10) => Some(Reason::ExponentialHistogram),
        Some(_) if temporal && temporality != 2 => Some(Reason::NotCumulative),
        Some(_) if !named => Some(Reason::Unnamed),
        Some(_) if header > limits.header_bytes => Some(Reason::TooLarge),
        _ => None,
    };
    Ok(verdict)
}

pub(crate) fn judge_point(content: &[u8], shape: PointShape, limits: &Limits) -> Result<Option<Reason>, Invalid> {
    let mut attributes = 0;
    let mut short = true;
    let mut reader = Reader::new(content);
    while let Some((number, wire)) = reader.next().map_err(|problem| shape.point.invalid(problem))? {
        if number == shape.attribute {
            attributes += 1;
            short &= attribute(nested(shape.point, wire)?, limits)?;
        } else {
            shape.point.check_field(number, wire, MAX_NESTING)?;
        }
    }
    Ok(if content.len() > limits.item_bytes {
        Some(Reason::TooLarge)
    } else if attributes > limits.point_attributes {
        Some(Reason::TooManyAttributes)
    } else if short {
        None
    } else {
        Some(Reason::AttributeTooLong)
    })
}

pub(crate) struct RecordVerdict {
    pub(crate) refused: Option<Reason>,
    timed: bool,
}

pub(crate) fn judge_record(content: &[u8], limits: &Limits) -> Result<RecordVerdict, Invalid> {
    let (mut attributes, mut timed) = (0, false);
    let mut reader = Reader::new(content);
    while let Some((number, wire)) = reader.next().map_err(|problem| LOG_RECORD.invalid(problem))? {
        match (number, wire) {
            (1 | 11, Wire::Fixed64(time)) => timed |= time != 0,
            (6, Wire::Bytes(key_value)) => {
                attributes += 1;
                if short_text(key_value).is_none() {
                    KEY_VALUE.check(key_value, MAX_NESTING)?;
                }
            }
            _ => LOG_RECORD.check_field(number, wire, MAX_NESTING)?,
        }
    }
    let refused = if content.len() > limits.item_bytes {
        Some(Reason::TooLarge)
    } else if attributes > limits.record_attributes {
        Some(Reason::TooManyAttributes)
    } else {
        None
    };
    Ok(RecordVerdict { refused, timed })
}

/// Checks a point's attribute; tells whether it is within the limits.
#[inline]
fn attribute(content: &[u8], limits: &Limits) -> Result<bool, Invalid> {
    if let Some((key, value)) = short_text(content) {
        return Ok(key <= limits.key_bytes && value <= limits.value_bytes);
    }
    KEY_VALUE.check(content, MAX_NESTING)?;
    let (mut key, mut value) = (0, 0);
    let mut reader = Reader::new(content);
    while let Ok(Some((number, wire))) = reader.next() {
        match (number, wire) {
            (1, Wire::Bytes(bytes)) => key = bytes.len(),
            (2, Wire::Bytes(bytes)) => value = bytes.len(),
            _ => {}
        }
    }
    // The value's own key and length are at most four bytes of it.
    Ok(key <= limits.key_bytes && value <= limits.value_bytes.saturating_add(4))
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
fn nested<'a>(within: &Schema, wire: Wire<'a>) -> Result<&'a [u8], Invalid> {
    match wire {
        Wire::Bytes(content) => Ok(content),
        _ => Err(within.invalid(WRONG_TYPE)),
    }
}
