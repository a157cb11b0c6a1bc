//! Logs as consumers read them.

use crate::check::well_formed;
use crate::signal::Signal;
use crate::value::{Attribute, Attributes, Value};
use crate::walk::{each, resource_attributes, scope_attributes, scope_text};
use crate::wire::{Invalid, Reader, Wire, text};

/// A checked `ExportLogsServiceRequest`.
#[derive(Debug, Clone, Copy)]
pub struct Logs<'a>(&'a [u8]);

impl<'a> Logs<'a> {
    /// Checks the whole structure, so that reading cannot fail afterwards.
    ///
    /// # Errors
    /// The bytes are no such request.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Invalid> {
        well_formed(bytes, Signal::Logs)?;
        Ok(Self(bytes))
    }

    /// Resource by resource.
    pub fn resources(&self) -> impl Iterator<Item = ResourceLogs<'a>> + use<'a> {
        each(self.0, 1).map(ResourceLogs)
    }
}

/// What one resource logged.
#[derive(Debug, Clone, Copy)]
pub struct ResourceLogs<'a>(&'a [u8]);

impl<'a> ResourceLogs<'a> {
    /// The message's bytes.
    #[must_use]
    pub fn raw(&self) -> &'a [u8] {
        self.0
    }

    /// The resource's attributes, the client's first, then those stamped by the gateway.
    pub fn attributes(&self) -> impl Iterator<Item = Attribute<'a>> + use<'a> {
        resource_attributes(self.0)
    }

    /// The batch that the gateway stamped on it, and which part of that batch this is; none on what no gateway stamped.
    #[must_use]
    pub fn batch(&self) -> Option<(&'a str, i64)> {
        let (mut batch, mut part) = (None, 0);
        for attribute in self.attributes() {
            match (attribute.key, attribute.value) {
                ("sightline.batch.id", Value::Str(id)) => batch = Some(id),
                ("sightline.batch.part", Value::Int(number)) => part = number,
                _ => {}
            }
        }
        batch.map(|batch| (batch, part))
    }

    /// Scope by scope.
    pub fn scopes(&self) -> impl Iterator<Item = ScopeLogs<'a>> + use<'a> {
        each(self.0, 2).map(ScopeLogs)
    }
}

/// What one instrumentation scope logged.
#[derive(Debug, Clone, Copy)]
pub struct ScopeLogs<'a>(&'a [u8]);

impl<'a> ScopeLogs<'a> {
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

    /// Record by record; the position of a record within its part is its index, counted over all scopes.
    pub fn records(&self) -> impl Iterator<Item = LogRecord<'a>> + use<'a> {
        each(self.0, 2).map(LogRecord::read)
    }
}

/// One log record.
#[derive(Debug, Clone, Copy)]
pub struct LogRecord<'a> {
    /// When it happened; 0 when the client does not say.
    pub time_unix_nano: u64,
    /// When it was seen by a collector; 0 when unknown.
    pub observed_unix_nano: u64,
    /// 1 to 24, or 0 when unknown.
    pub severity_number: i32,
    /// The severity in the source's own words, or "".
    pub severity_text: &'a str,
    /// What it says.
    pub body: Value<'a>,
    /// Its attributes.
    pub attributes: Attributes<'a>,
    /// 16 bytes, or none.
    pub trace_id: &'a [u8],
    /// 8 bytes, or none.
    pub span_id: &'a [u8],
    /// W3C trace flags.
    pub flags: u32,
    /// What class of event it is, or "".
    pub event_name: &'a str,
}

impl<'a> LogRecord<'a> {
    /// When it happened, else when it was seen; 0 when neither is known.
    #[must_use]
    pub fn time_or_observed(&self) -> u64 {
        if self.time_unix_nano == 0 { self.observed_unix_nano } else { self.time_unix_nano }
    }

    fn read(bytes: &'a [u8]) -> Self {
        let mut record = Self {
            time_unix_nano: 0,
            observed_unix_nano: 0,
            severity_number: 0,
            severity_text: "",
            body: Value::Empty,
            attributes: Attributes::empty(),
            trace_id: &[],
            span_id: &[],
            flags: 0,
            event_name: "",
        };
        let (mut begin, mut first, mut last) = (0, None, 0);
        let mut fields = Reader::new(bytes);
        while let Ok(Some(field)) = fields.next() {
            match field {
                (1, Wire::Fixed64(bits)) => record.time_unix_nano = bits,
                (11, Wire::Fixed64(bits)) => record.observed_unix_nano = bits,
                (2, Wire::Varint(number)) => record.severity_number = i32::try_from(number).unwrap_or(0),
                (3, Wire::Bytes(bytes)) => record.severity_text = text(bytes),
                (5, Wire::Bytes(bytes)) => record.body = Value::read(bytes),
                (6, Wire::Bytes(_)) => {
                    first.get_or_insert(begin);
                    last = fields.position();
                }
                (8, Wire::Fixed32(bits)) => record.flags = bits,
                (9, Wire::Bytes(bytes)) => record.trace_id = bytes,
                (10, Wire::Bytes(bytes)) => record.span_id = bytes,
                (12, Wire::Bytes(bytes)) => record.event_name = text(bytes),
                _ => {}
            }
            begin = fields.position();
        }
        if let Some(first) = first {
            record.attributes = Attributes::new(&bytes[first..last], 6);
        }
        record
    }
}
