//! What the fields of OTLP's messages are, as tables: field numbers and types of opentelemetry-proto 1.9.

use crate::wire::{BAD_VARINT, Invalid, NOT_UTF8, ODD_PACKED, Problem, Reader, TOO_DEEP, WRONG_TYPE, Wire};

/// The type of a field. `Skip` is a field that we do not know: any wire type will do.
#[derive(Clone, Copy)]
pub(crate) enum Type {
    Skip,
    Varint,
    Fixed64,
    Fixed32,
    Text,
    Bytes,
    Many64,
    ManyVarints,
    Message(&'static Schema),
}

/// A message: its name and the types of its fields, by number.
pub(crate) struct Schema {
    pub(crate) name: &'static str,
    fields: [Type; 16],
}

impl Schema {
    const fn new<const N: usize>(name: &'static str, known: [(usize, Type); N]) -> Self {
        let mut fields = [Type::Skip; 16];
        let mut i = 0;
        while i < N {
            fields[known[i].0] = known[i].1;
            i += 1;
        }
        Self { name, fields }
    }

    #[inline]
    pub(crate) fn invalid(&self, problem: Problem) -> Invalid {
        Invalid { message: self.name, problem }
    }

    /// Checks one field, and what is nested in it.
    #[inline]
    pub(crate) fn check_field(&self, number: u32, wire: Wire<'_>, depth: u8) -> Result<(), Invalid> {
        let kind = self.fields.get(number as usize).copied().unwrap_or(Type::Skip);
        let problem = match (kind, wire) {
            (Type::Skip, _)
            | (Type::Varint | Type::ManyVarints, Wire::Varint(_))
            | (Type::Fixed64 | Type::Many64, Wire::Fixed64(_))
            | (Type::Fixed32, Wire::Fixed32(_))
            | (Type::Bytes, Wire::Bytes(_)) => return Ok(()),
            (Type::Message(schema), Wire::Bytes(bytes)) => return schema.check(bytes, depth),
            (Type::Text, Wire::Bytes(bytes)) if std::str::from_utf8(bytes).is_ok() => return Ok(()),
            (Type::Text, Wire::Bytes(_)) => NOT_UTF8,
            (Type::Many64, Wire::Bytes(bytes)) if bytes.len() % 8 == 0 => return Ok(()),
            (Type::Many64, Wire::Bytes(_)) => ODD_PACKED,
            (Type::ManyVarints, Wire::Bytes(bytes)) if all_varints(bytes) => return Ok(()),
            (Type::ManyVarints, Wire::Bytes(_)) => BAD_VARINT,
            _ => WRONG_TYPE,
        };
        Err(self.invalid(problem))
    }

    /// Checks a whole message; `depth` is how many levels may still follow.
    pub(crate) fn check(&self, bytes: &[u8], depth: u8) -> Result<(), Invalid> {
        let depth = depth.checked_sub(1).ok_or_else(|| self.invalid(TOO_DEEP))?;
        let mut reader = Reader::new(bytes);
        while let Some((number, wire)) = reader.next().map_err(|problem| self.invalid(problem))? {
            self.check_field(number, wire, depth)?;
        }
        Ok(())
    }
}

fn all_varints(bytes: &[u8]) -> bool {
    let mut reader = Reader::new(bytes);
    while reader.position() < bytes.len() {
        if reader.varint().is_err() {
            return false;
        }
    }
    true
}

use Type::{Bytes, Fixed32, Fixed64, Many64, ManyVarints, Message, Text, Varint};

pub(crate) static ANY_VALUE: Schema = Schema::new(
    "AnyValue",
    [
        (1, Text),
        (2, Varint),
        (3, Varint),
        (4, Fixed64),
        (5, Message(&ARRAY_VALUE)),
        (6, Message(&KEY_VALUE_LIST)),
        (7, Bytes),
        (8, Varint),
    ],
);
static ARRAY_VALUE: Schema = Schema::new("ArrayValue", [(1, Message(&ANY_VALUE))]);
static KEY_VALUE_LIST: Schema = Schema::new("KeyValueList", [(1, Message(&KEY_VALUE))]);
pub(crate) static KEY_VALUE: Schema = Schema::new("KeyValue", [(1, Text), (2, Message(&ANY_VALUE)), (3, Varint)]);
static ENTITY_REF: Schema = Schema::new("EntityRef", [(1, Text), (2, Text), (3, Text), (4, Text)]);
pub(crate) static RESOURCE: Schema =
    Schema::new("Resource", [(1, Message(&KEY_VALUE)), (2, Varint), (3, Message(&ENTITY_REF))]);
pub(crate) static SCOPE: Schema =
    Schema::new("InstrumentationScope", [(1, Text), (2, Text), (3, Message(&KEY_VALUE)), (4, Varint)]);
static EXEMPLAR: Schema = Schema::new(
    "Exemplar",
    [(2, Fixed64), (3, Fixed64), (4, Bytes), (5, Bytes), (6, Fixed64), (7, Message(&KEY_VALUE))],
);
pub(crate) static NUMBER_POINT: Schema = Schema::new(
    "NumberDataPoint",
    [
        (2, Fixed64),
        (3, Fixed64),
        (4, Fixed64),
        (5, Message(&EXEMPLAR)),
        (6, Fixed64),
        (7, Message(&KEY_VALUE)),
        (8, Varint),
    ],
);
pub(crate) static HISTOGRAM_POINT: Schema = Schema::new(
    "HistogramDataPoint",
    [
        (2, Fixed64),
        (3, Fixed64),
        (4, Fixed64),
        (5, Fixed64),
        (6, Many64),
        (7, Many64),
        (8, Message(&EXEMPLAR)),
        (9, Message(&KEY_VALUE)),
        (10, Varint),
        (11, Fixed64),
        (12, Fixed64),
    ],
);
static BUCKETS: Schema = Schema::new("Buckets", [(1, Varint), (2, ManyVarints)]);
pub(crate) static EXPONENTIAL_POINT: Schema = Schema::new(
    "ExponentialHistogramDataPoint",
    [
        (1, Message(&KEY_VALUE)),
        (2, Fixed64),
        (3, Fixed64),
        (4, Fixed64),
        (5, Fixed64),
        (6, Varint),
        (7, Fixed64),
        (8, Message(&BUCKETS)),
        (9, Message(&BUCKETS)),
        (10, Varint),
        (11, Message(&EXEMPLAR)),
        (12, Fixed64),
        (13, Fixed64),
        (14, Fixed64),
    ],
);
static QUANTILE: Schema = Schema::new("ValueAtQuantile", [(1, Fixed64), (2, Fixed64)]);
pub(crate) static SUMMARY_POINT: Schema = Schema::new(
    "SummaryDataPoint",
    [
        (2, Fixed64),
        (3, Fixed64),
        (4, Fixed64),
        (5, Fixed64),
        (6, Message(&QUANTILE)),
        (7, Message(&KEY_VALUE)),
        (8, Varint),
    ],
);
/// The fields beside the points; their data (5, 7, 9, 10, 11) is walked by hand.
pub(crate) static METRIC: Schema = Schema::new("Metric", [(1, Text), (2, Text), (3, Text), (12, Message(&KEY_VALUE))]);
/// Gauge, Sum, Histogram, ExponentialHistogram and Summary, beside their points.
pub(crate) static DATA: Schema = Schema::new("metric data", [(2, Varint), (3, Varint)]);
/// A gauge and a summary have points only.
pub(crate) static PLAIN_DATA: Schema = Schema::new("metric data", []);
/// ScopeMetrics and ScopeLogs, beside their metrics or records (2).
pub(crate) static SCOPE_ITEMS: Schema = Schema::new("scope metrics or logs", [(1, Message(&SCOPE)), (3, Text)]);
/// ResourceMetrics and ResourceLogs, beside their resource (1) and scopes (2).
pub(crate) static RESOURCE_ITEMS: Schema = Schema::new("resource metrics or logs", [(3, Text)]);
pub(crate) static REQUEST: Schema = Schema::new("export request", []);
pub(crate) static LOG_RECORD: Schema = Schema::new(
    "LogRecord",
    [
        (1, Fixed64),
        (2, Varint),
        (3, Text),
        (5, Message(&ANY_VALUE)),
        (6, Message(&KEY_VALUE)),
        (7, Varint),
        (8, Fixed32),
        (9, Bytes),
        (10, Bytes),
        (11, Fixed64),
        (12, Text),
    ],
);
