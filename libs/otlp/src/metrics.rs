//! Metrics as consumers read them.

use crate::check::well_formed;
use crate::signal::Signal;
use crate::value::{Attribute, Attributes};
use crate::walk::{Fixed64s, Nested, each, last_text, resource_attributes, scope_attributes, scope_text};
use crate::wire::{Fields, Invalid, Wire};

/// A checked `ExportMetricsServiceRequest`.
#[derive(Debug, Clone, Copy)]
pub struct Metrics<'a>(&'a [u8]);

impl<'a> Metrics<'a> {
    /// Checks the whole structure, so that reading cannot fail afterwards.
    ///
    /// # Errors
    /// The bytes are no such request.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Invalid> {
        well_formed(bytes, Signal::Metrics)?;
        Ok(Self(bytes))
    }

    /// Resource by resource.
    pub fn resources(&self) -> impl Iterator<Item = ResourceMetrics<'a>> + use<'a> {
        each(self.0, 1).map(ResourceMetrics)
    }
}

/// What one resource reports.
#[derive(Debug, Clone, Copy)]
pub struct ResourceMetrics<'a>(&'a [u8]);

impl<'a> ResourceMetrics<'a> {
    /// The message's bytes.
    #[must_use]
    pub fn raw(&self) -> &'a [u8] {
        self.0
    }

    /// The resource's attributes, the client's first, then those stamped by the gateway.
    pub fn attributes(&self) -> impl Iterator<Item = Attribute<'a>> + use<'a> {
        resource_attributes(self.0)
    }

    /// Scope by scope.
    pub fn scopes(&self) -> impl Iterator<Item = ScopeMetrics<'a>> + use<'a> {
        each(self.0, 2).map(ScopeMetrics)
    }
}

/// What one instrumentation scope reports.
#[derive(Debug, Clone, Copy)]
pub struct ScopeMetrics<'a>(&'a [u8]);

impl<'a> ScopeMetrics<'a> {
    /// The scope's name, or "".
    #[must_use]
    pub fn name(&self) -> &'a str {
        scope_text(self.0, 1)
    }

    /// The scope's version, or "".
    #[must_use]
    pub fn version(&self) -> &'a str {
        scope_text(self.0, 2)
    }

    /// The scope's attributes.
    pub fn attributes(&self) -> impl Iterator<Item = Attribute<'a>> + use<'a> {
        scope_attributes(self.0)
    }

    /// Metric by metric.
    pub fn metrics(&self) -> impl Iterator<Item = Metric<'a>> + use<'a> {
        each(self.0, 2).map(Metric::read)
    }
}

/// What sort of numbers a metric has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// No data at all.
    None,
    /// A value now.
    Gauge,
    /// A sum since the start (or since the point before, when it is not cumulative).
    Sum {
        /// It only grows.
        monotonic: bool,
        /// It counts from the start time.
        cumulative: bool,
    },
    /// Counts in buckets.
    Histogram {
        /// It counts from the start time.
        cumulative: bool,
    },
    /// Counts in buckets that grow exponentially; gateways refuse them for now.
    ExponentialHistogram,
    /// Quantiles computed by the client.
    Summary,
}

/// One metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric<'a> {
    bytes: &'a [u8],
    /// Its name.
    pub name: &'a str,
    /// Its unit, or "".
    pub unit: &'a str,
    /// What sort of numbers it has.
    pub kind: Kind,
}

const GAUGE: u32 = 5;
const SUM: u32 = 7;
const HISTOGRAM: u32 = 9;
const EXPONENTIAL: u32 = 10;
const SUMMARY: u32 = 11;
const DATA: u32 = 1 << GAUGE | 1 << SUM | 1 << HISTOGRAM | 1 << EXPONENTIAL | 1 << SUMMARY;

impl<'a> Metric<'a> {
    #[inline]
    fn read(bytes: &'a [u8]) -> Self {
        let mut metric = Self { bytes, name: "", unit: "", kind: Kind::None };
        let (mut kind, mut temporality, mut monotonic) = (0, 0, false);
        let mut fields = Fields::new(bytes);
        while let Some((number, content)) = fields.next_bytes() {
            match number {
                1 => metric.name = crate::wire::text(content),
                3 => metric.unit = crate::wire::text(content),
                GAUGE | SUMMARY | EXPONENTIAL => kind = number,
                SUM | HISTOGRAM => {
                    kind = number;
                    for field in Fields::new(content) {
                        match field {
                            (2, Wire::Varint(value)) => temporality = value,
                            (3, Wire::Varint(value)) => monotonic = value != 0,
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        let cumulative = temporality == 2;
        metric.kind = match kind {
            GAUGE => Kind::Gauge,
            SUM => Kind::Sum { monotonic, cumulative },
            HISTOGRAM => Kind::Histogram { cumulative },
            EXPONENTIAL => Kind::ExponentialHistogram,
            SUMMARY => Kind::Summary,
            _ => Kind::None,
        };
        metric
    }

    /// Its description, or "".
    #[must_use]
    pub fn description(&self) -> &'a str {
        last_text(self.bytes, 2)
    }

    /// Point by point.
    pub fn points(&self) -> impl Iterator<Item = Point<'a>> + use<'a> {
        let kind = self.kind;
        Nested::new(self.bytes, DATA, 1).map(move |bytes| Point::read(bytes, kind))
    }
}

/// A number as the client sent it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    /// `as_double`
    Double(f64),
    /// `as_int`
    Int(i64),
}

impl Number {
    /// The nearest floating-point number.
    #[must_use]
    pub fn as_f64(self) -> f64 {
        match self {
            Self::Double(value) => value,
            #[expect(
                clippy::cast_precision_loss,
                reason = "series hold floating-point numbers; 53 bits is what there is"
            )]
            Self::Int(value) => value as f64,
        }
    }
}

/// What a point says.
#[derive(Debug, Clone, Copy)]
pub enum Sample<'a> {
    /// Nothing that we read.
    None,
    /// Of a gauge or sum.
    Number(Number),
    /// Of a histogram.
    Histogram(Histogram<'a>),
    /// Of a summary.
    Summary(Summary<'a>),
}

/// One data point.
#[derive(Debug, Clone, Copy)]
pub struct Point<'a> {
    /// What tells it from the metric's other points.
    pub attributes: Attributes<'a>,
    /// When it was measured; 0 when the client does not say.
    pub time_unix_nano: u64,
    /// Since when it counts; 0 when unknown.
    pub start_unix_nano: u64,
    /// `DataPointFlags`.
    pub flags: u32,
    /// What was measured.
    pub sample: Sample<'a>,
}

impl<'a> Point<'a> {
    /// The point says that there is no value any more (a staleness marker).
    #[must_use]
    pub fn no_recorded_value(&self) -> bool {
        self.flags & 1 != 0
    }

    #[inline]
    fn read(bytes: &'a [u8], kind: Kind) -> Self {
        let (attribute, flag) = match kind {
            Kind::Histogram { .. } => (9, 10),
            Kind::ExponentialHistogram => (1, 10),
            _ => (7, 8),
        };
        let mut point = Self {
            attributes: Attributes::empty(),
            time_unix_nano: 0,
            start_unix_nano: 0,
            flags: 0,
            sample: Sample::None,
        };
        let (mut number, mut count, mut sum, mut first, mut last) = (None, 0, None, None, 0);
        let mut fields = crate::wire::Reader::new(bytes);
        let mut begin = 0;
        while let Ok(Some(field)) = fields.next() {
            match field {
                (2, Wire::Fixed64(bits)) => point.start_unix_nano = bits,
                (3, Wire::Fixed64(bits)) => point.time_unix_nano = bits,
                (4, Wire::Fixed64(bits)) => (number, count) = (Some(Number::Double(f64::from_bits(bits))), bits),
                (5, Wire::Fixed64(bits)) => sum = Some(f64::from_bits(bits)),
                (6, Wire::Fixed64(bits)) => number = Some(Number::Int(bits.cast_signed())),
                (n, Wire::Bytes(_)) if n == attribute => {
                    first.get_or_insert(begin);
                    last = fields.position();
                }
                (n, Wire::Varint(bits)) if n == flag => point.flags = u32::try_from(bits & 0xffff_ffff).unwrap_or(0),
                _ => {}
            }
            begin = fields.position();
        }
        if let Some(first) = first {
            point.attributes = Attributes::new(&bytes[first..last], attribute);
        }
        point.sample = match kind {
            Kind::Gauge | Kind::Sum { .. } => number.map_or(Sample::None, Sample::Number),
            Kind::Histogram { .. } => Sample::Histogram(Histogram { bytes, count, sum }),
            Kind::Summary => Sample::Summary(Summary { bytes, count, sum: sum.unwrap_or(0.0) }),
            Kind::None | Kind::ExponentialHistogram => Sample::None,
        };
        point
    }
}

/// Counts in buckets.
#[derive(Debug, Clone, Copy)]
pub struct Histogram<'a> {
    bytes: &'a [u8],
    /// How many values there were.
    pub count: u64,
    /// What they add up to, where the client says so.
    pub sum: Option<f64>,
}

impl<'a> Histogram<'a> {
    /// Values in each bucket (not cumulative): one more than there are bounds, or none at all.
    #[must_use]
    pub fn buckets(&self) -> U64s<'a> {
        U64s(Fixed64s::new(self.bytes, 6))
    }

    /// Upper bounds of the buckets but the last, which has none.
    #[must_use]
    pub fn bounds(&self) -> Floats<'a> {
        Floats(Fixed64s::new(self.bytes, 7))
    }
}

/// Iterates over whole numbers.
#[derive(Debug, Clone, Copy)]
pub struct U64s<'a>(Fixed64s<'a>);

impl Iterator for U64s<'_> {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        self.0.next()
    }
}

/// Iterates over floating-point numbers.
#[derive(Debug, Clone, Copy)]
pub struct Floats<'a>(Fixed64s<'a>);

impl Iterator for Floats<'_> {
    type Item = f64;

    fn next(&mut self) -> Option<f64> {
        self.0.next().map(f64::from_bits)
    }
}

/// Quantiles computed by the client.
#[derive(Debug, Clone, Copy)]
pub struct Summary<'a> {
    bytes: &'a [u8],
    /// How many values there were.
    pub count: u64,
    /// What they add up to.
    pub sum: f64,
}

impl<'a> Summary<'a> {
    /// Pairs of quantile (0 to 1) and value.
    pub fn quantiles(&self) -> impl Iterator<Item = (f64, f64)> + use<'a> {
        each(self.bytes, 6).map(|quantile| {
            let mut pair = (0.0, 0.0);
            for field in Fields::new(quantile) {
                match field {
                    (1, Wire::Fixed64(bits)) => pair.0 = f64::from_bits(bits),
                    (2, Wire::Fixed64(bits)) => pair.1 = f64::from_bits(bits),
                    _ => {}
                }
            }
            pair
        })
    }
}
