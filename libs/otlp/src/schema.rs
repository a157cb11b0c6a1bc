//! What the fields of OTLP's messages are, as tables: numbers, names and types of opentelemetry-proto 1.9.

use crate::wire::{BAD_VARINT, Invalid, NOT_UTF8, ODD_PACKED, Problem, Reader, TOO_DEEP, WRONG_TYPE, Wire};

/// What a field holds.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// A field that we do not know.
    Unknown,
    Bool,
    Enum,
    Uint32,
    Int64,
    Sint32,
    Double,
    Fixed32,
    Fixed64,
    Sfixed64,
    Text,
    /// Bytes that JSON writes in base64.
    Base64,
    /// Bytes that OTLP's JSON writes in hexadecimal digits.
    Hex,
    Texts,
    Doubles,
    Fixed64s,
    Uint64s,
    One(&'static Schema),
    Many(&'static Schema),
}

/// How a field stands on the wire. For `Skip` any wire type will do.
#[derive(Clone, Copy)]
enum Type {
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

impl Kind {
    const fn on_the_wire(self) -> Type {
        match self {
            Self::Unknown => Type::Skip,
            Self::Bool | Self::Enum | Self::Uint32 | Self::Int64 | Self::Sint32 => Type::Varint,
            Self::Double | Self::Fixed64 | Self::Sfixed64 => Type::Fixed64,
            Self::Fixed32 => Type::Fixed32,
            Self::Text | Self::Texts => Type::Text,
            Self::Base64 | Self::Hex => Type::Bytes,
            Self::Doubles | Self::Fixed64s => Type::Many64,
            Self::Uint64s => Type::ManyVarints,
            Self::One(schema) | Self::Many(schema) => Type::Message(schema),
        }
    }
}

const NUMBERS: usize = 16;

/// A message: its name and its fields, by number.
pub(crate) struct Schema {
    pub(crate) name: &'static str,
    types: [Type; NUMBERS],
    fields: [(&'static str, Kind); NUMBERS],
    /// Bit *n* is set for each field number *n* of which one only may be there.
    pub(crate) oneof: u32,
}

impl Schema {
    const fn new<const N: usize>(name: &'static str, known: [(usize, &'static str, Kind); N]) -> Self {
        let mut types = [Type::Skip; NUMBERS];
        let mut fields = [("", Kind::Unknown); NUMBERS];
        let mut i = 0;
        while i < N {
            let (number, name, kind) = known[i];
            types[number] = kind.on_the_wire();
            fields[number] = (name, kind);
            i += 1;
        }
        Self { name, types, fields, oneof: 0 }
    }

    const fn one_of<const N: usize>(mut self, numbers: [u32; N]) -> Self {
        let mut i = 0;
        while i < N {
            self.oneof |= 1 << numbers[i];
            i += 1;
        }
        self
    }

    /// Name and kind of a field.
    pub(crate) fn field(&self, number: u32) -> (&'static str, Kind) {
        self.fields.get(number as usize).copied().unwrap_or(("", Kind::Unknown))
    }

    /// The number of the field that `is` says is meant.
    pub(crate) fn find(&self, is: impl Fn(&str) -> bool) -> Option<u32> {
        let place = self.fields.iter().position(|(name, _)| !name.is_empty() && is(name))?;
        u32::try_from(place).ok()
    }

    #[inline]
    pub(crate) fn invalid(&self, problem: Problem) -> Invalid {
        Invalid { message: self.name, problem }
    }

    /// Checks one field, and what is nested in it.
    #[inline]
    pub(crate) fn check_field(&self, number: u32, wire: Wire<'_>, depth: u8) -> Result<(), Invalid> {
        let kind = self.types.get(number as usize).copied().unwrap_or(Type::Skip);
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

use Kind::{
    Base64, Bool, Double, Doubles, Enum, Fixed32, Fixed64, Fixed64s, Hex, Int64, Many, One, Sfixed64, Sint32, Text,
    Texts, Uint32, Uint64s,
};

pub(crate) static ANY_VALUE: Schema = Schema::new(
    "AnyValue",
    [
        (1, "string_value", Text),
        (2, "bool_value", Bool),
        (3, "int_value", Int64),
        (4, "double_value", Double),
        (5, "array_value", One(&ARRAY_VALUE)),
        (6, "kvlist_value", One(&KEY_VALUE_LIST)),
        (7, "bytes_value", Base64),
        (8, "string_value_strindex", Sint32),
    ],
)
.one_of([1, 2, 3, 4, 5, 6, 7, 8]);
static ARRAY_VALUE: Schema = Schema::new("ArrayValue", [(1, "values", Many(&ANY_VALUE))]);
static KEY_VALUE_LIST: Schema = Schema::new("KeyValueList", [(1, "values", Many(&KEY_VALUE))]);
pub(crate) static KEY_VALUE: Schema =
    Schema::new("KeyValue", [(1, "key", Text), (2, "value", One(&ANY_VALUE)), (3, "key_strindex", Sint32)]);
static ENTITY_REF: Schema = Schema::new(
    "EntityRef",
    [(1, "schema_url", Text), (2, "type", Text), (3, "id_keys", Texts), (4, "description_keys", Texts)],
);
pub(crate) static RESOURCE: Schema = Schema::new(
    "Resource",
    [
        (1, "attributes", Many(&KEY_VALUE)),
        (2, "dropped_attributes_count", Uint32),
        (3, "entity_refs", Many(&ENTITY_REF)),
    ],
);
pub(crate) static SCOPE: Schema = Schema::new(
    "InstrumentationScope",
    [
        (1, "name", Text),
        (2, "version", Text),
        (3, "attributes", Many(&KEY_VALUE)),
        (4, "dropped_attributes_count", Uint32),
    ],
);
static EXEMPLAR: Schema = Schema::new(
    "Exemplar",
    [
        (2, "time_unix_nano", Fixed64),
        (3, "as_double", Double),
        (4, "span_id", Hex),
        (5, "trace_id", Hex),
        (6, "as_int", Sfixed64),
        (7, "filtered_attributes", Many(&KEY_VALUE)),
    ],
)
.one_of([3, 6]);
pub(crate) static NUMBER_POINT: Schema = Schema::new(
    "NumberDataPoint",
    [
        (2, "start_time_unix_nano", Fixed64),
        (3, "time_unix_nano", Fixed64),
        (4, "as_double", Double),
        (5, "exemplars", Many(&EXEMPLAR)),
        (6, "as_int", Sfixed64),
        (7, "attributes", Many(&KEY_VALUE)),
        (8, "flags", Uint32),
    ],
)
.one_of([4, 6]);
pub(crate) static HISTOGRAM_POINT: Schema = Schema::new(
    "HistogramDataPoint",
    [
        (2, "start_time_unix_nano", Fixed64),
        (3, "time_unix_nano", Fixed64),
        (4, "count", Fixed64),
        (5, "sum", Double),
        (6, "bucket_counts", Fixed64s),
        (7, "explicit_bounds", Doubles),
        (8, "exemplars", Many(&EXEMPLAR)),
        (9, "attributes", Many(&KEY_VALUE)),
        (10, "flags", Uint32),
        (11, "min", Double),
        (12, "max", Double),
    ],
);
static BUCKETS: Schema = Schema::new("Buckets", [(1, "offset", Sint32), (2, "bucket_counts", Uint64s)]);
pub(crate) static EXPONENTIAL_POINT: Schema = Schema::new(
    "ExponentialHistogramDataPoint",
    [
        (1, "attributes", Many(&KEY_VALUE)),
        (2, "start_time_unix_nano", Fixed64),
        (3, "time_unix_nano", Fixed64),
        (4, "count", Fixed64),
        (5, "sum", Double),
        (6, "scale", Sint32),
        (7, "zero_count", Fixed64),
        (8, "positive", One(&BUCKETS)),
        (9, "negative", One(&BUCKETS)),
        (10, "flags", Uint32),
        (11, "exemplars", Many(&EXEMPLAR)),
        (12, "min", Double),
        (13, "max", Double),
        (14, "zero_threshold", Double),
    ],
);
pub(crate) static QUANTILE: Schema = Schema::new("ValueAtQuantile", [(1, "quantile", Double), (2, "value", Double)]);
pub(crate) static SUMMARY_POINT: Schema = Schema::new(
    "SummaryDataPoint",
    [
        (2, "start_time_unix_nano", Fixed64),
        (3, "time_unix_nano", Fixed64),
        (4, "count", Fixed64),
        (5, "sum", Double),
        (6, "quantile_values", Many(&QUANTILE)),
        (7, "attributes", Many(&KEY_VALUE)),
        (8, "flags", Uint32),
    ],
);
pub(crate) static GAUGE: Schema = Schema::new("Gauge", [(1, "data_points", Many(&NUMBER_POINT))]);
pub(crate) static SUM: Schema = Schema::new(
    "Sum",
    [(1, "data_points", Many(&NUMBER_POINT)), (2, "aggregation_temporality", Enum), (3, "is_monotonic", Bool)],
);
pub(crate) static HISTOGRAM: Schema =
    Schema::new("Histogram", [(1, "data_points", Many(&HISTOGRAM_POINT)), (2, "aggregation_temporality", Enum)]);
pub(crate) static EXPONENTIAL: Schema = Schema::new(
    "ExponentialHistogram",
    [(1, "data_points", Many(&EXPONENTIAL_POINT)), (2, "aggregation_temporality", Enum)],
);
pub(crate) static SUMMARY: Schema = Schema::new("Summary", [(1, "data_points", Many(&SUMMARY_POINT))]);
pub(crate) static METRIC: Schema = Schema::new(
    "Metric",
    [
        (1, "name", Text),
        (2, "description", Text),
        (3, "unit", Text),
        (5, "gauge", One(&GAUGE)),
        (7, "sum", One(&SUM)),
        (9, "histogram", One(&HISTOGRAM)),
        (10, "exponential_histogram", One(&EXPONENTIAL)),
        (11, "summary", One(&SUMMARY)),
        (12, "metadata", Many(&KEY_VALUE)),
    ],
)
.one_of([5, 7, 9, 10, 11]);
pub(crate) static LOG_RECORD: Schema = Schema::new(
    "LogRecord",
    [
        (1, "time_unix_nano", Fixed64),
        (2, "severity_number", Enum),
        (3, "severity_text", Text),
        (5, "body", One(&ANY_VALUE)),
        (6, "attributes", Many(&KEY_VALUE)),
        (7, "dropped_attributes_count", Uint32),
        (8, "flags", Fixed32),
        (9, "trace_id", Hex),
        (10, "span_id", Hex),
        (11, "observed_time_unix_nano", Fixed64),
        (12, "event_name", Text),
    ],
);

static SCOPE_METRICS: Schema =
    Schema::new("ScopeMetrics", [(1, "scope", One(&SCOPE)), (2, "metrics", Many(&METRIC)), (3, "schema_url", Text)]);
static SCOPE_LOGS: Schema = Schema::new(
    "ScopeLogs",
    [(1, "scope", One(&SCOPE)), (2, "log_records", Many(&LOG_RECORD)), (3, "schema_url", Text)],
);
static RESOURCE_METRICS: Schema = Schema::new(
    "ResourceMetrics",
    [(1, "resource", One(&RESOURCE)), (2, "scope_metrics", Many(&SCOPE_METRICS)), (3, "schema_url", Text)],
);
static RESOURCE_LOGS: Schema = Schema::new(
    "ResourceLogs",
    [(1, "resource", One(&RESOURCE)), (2, "scope_logs", Many(&SCOPE_LOGS)), (3, "schema_url", Text)],
);
static METRICS_REQUEST: Schema =
    Schema::new("ExportMetricsServiceRequest", [(1, "resource_metrics", Many(&RESOURCE_METRICS))]);
static LOGS_REQUEST: Schema = Schema::new("ExportLogsServiceRequest", [(1, "resource_logs", Many(&RESOURCE_LOGS))]);

/// The three levels above an item.
pub(crate) struct Levels {
    pub(crate) request: &'static Schema,
    pub(crate) resource: &'static Schema,
    pub(crate) scope: &'static Schema,
}

pub(crate) static METRICS: Levels =
    Levels { request: &METRICS_REQUEST, resource: &RESOURCE_METRICS, scope: &SCOPE_METRICS };
pub(crate) static LOGS: Levels = Levels { request: &LOGS_REQUEST, resource: &RESOURCE_LOGS, scope: &SCOPE_LOGS };
