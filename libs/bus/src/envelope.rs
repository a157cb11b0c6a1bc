//! What travels in a signal stream: many items of one tenant and one shard in one message, compressed.
//!
//! The bytes of the body are a schema's; this file knows headers and compression only.

use std::fmt;
use std::io::Read as _;
use std::str::FromStr;

use bytes::Bytes;

use crate::delivery::Delivery;
use crate::headers::{ENCODING, ITEMS, RECEIVED, SCHEMA, TENANT, TICK};
use crate::publish::Outgoing;

/// A body may not grow beyond this when it is unpacked.
pub const MAX_BODY_BYTES: usize = 64 << 20;

/// What the body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Schema {
    /// `ExportMetricsServiceRequest`
    OtlpMetrics,
    /// `ExportLogsServiceRequest`
    OtlpLogs,
    /// `sightline.telemetry.v1.ProcessBatch`
    Processes,
    /// No items: only the time, on a stream that would be silent otherwise. Whoever stores passes over it.
    Tick,
}

/// How the body is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    Identity,
    /// LZ4 block after its unpacked length, four bytes, little endian.
    Lz4,
    Zstd,
}

/// One message of a signal stream, unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    pub schema: Schema,
    pub tenant: String,
    /// Points, lines or snapshots inside.
    pub items: u64,
    /// When the oldest item came in, Unix nanoseconds.
    pub received_unix_nano: u64,
    /// How it travels.
    pub encoding: Encoding,
    /// Never packed here.
    pub body: Bytes,
}

/// Why a message is not an envelope that this version can read. Unless it [is unknown](InvalidEnvelope::is_unknown), it
/// never will be: such a message is a dead letter.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidEnvelope {
    #[error("header {0} is missing")]
    Missing(&'static str),
    #[error("header {name} is not understood: `{value}`")]
    Header { name: &'static str, value: String },
    /// A schema or an encoding that a newer version may know: see [`Delivery::put_off`].
    #[error("header {name} is not known to this version: `{value}`")]
    Unknown { name: &'static str, value: String },
    #[error("the body unpacks to more than {MAX_BODY_BYTES} bytes")]
    TooLarge,
    #[error("the body cannot be unpacked: {0}")]
    Corrupt(String),
}

impl InvalidEnvelope {
    /// Whether a newer version may be able to read it.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown { .. })
    }
}

impl Envelope {
    /// The time alone, for a stream that has been silent.
    #[must_use]
    pub fn tick(received_unix_nano: u64) -> Self {
        Self {
            schema: Schema::Tick,
            tenant: String::new(),
            items: 0,
            received_unix_nano,
            encoding: Encoding::Identity,
            body: Bytes::new(),
        }
    }

    /// Packs it for publishing under `id`.
    ///
    /// # Errors
    /// Compression failed, which only lack of memory explains.
    pub fn encode(&self, id: impl Into<String>) -> std::io::Result<Outgoing> {
        let payload = match self.encoding {
            Encoding::Identity => self.body.clone(),
            Encoding::Lz4 => lz4_flex::block::compress_prepend_size(&self.body).into(),
            Encoding::Zstd => zstd::bulk::compress(&self.body, 1)?.into(),
        };
        Ok(Outgoing::new(id, payload)
            .header(SCHEMA, self.schema.as_str())
            .header(TENANT, &self.tenant)
            .header(ITEMS, self.items.to_string())
            .header(RECEIVED, self.received_unix_nano.to_string())
            .header(ENCODING, self.encoding.as_str()))
    }

    /// Reads headers and unpacks the body.
    ///
    /// # Errors
    /// A reason to make it a dead letter.
    pub fn decode(delivery: &Delivery) -> Result<Self, InvalidEnvelope> {
        Self::read(|name| delivery.header(name), delivery.payload())
    }

    /// What of its headers this version does not know, without a look inside: ask before [`Trial::begin`](crate::Trial::begin)
    /// is, since such a message waits for a newer version and costs nobody anything.
    #[must_use]
    pub fn unknown(delivery: &Delivery) -> Option<InvalidEnvelope> {
        let is_known = |name: &'static str, knows: fn(&str) -> bool| {
            let value = delivery.header(name).filter(|value| !knows(value))?;
            Some(InvalidEnvelope::Unknown { name, value: value.chars().take(64).collect() })
        };
        is_known(SCHEMA, |value| value.parse::<Schema>().is_ok())
            .or_else(|| is_known(ENCODING, |value| value.parse::<Encoding>().is_ok()))
    }

    fn read<'a>(header: impl Fn(&str) -> Option<&'a str>, payload: &Bytes) -> Result<Self, InvalidEnvelope> {
        let text = |name: &'static str| header(name).ok_or(InvalidEnvelope::Missing(name));
        let schema: Schema = known(SCHEMA, text(SCHEMA)?)?;
        if schema == Schema::Tick {
            return Ok(Self::tick(parse(RECEIVED, text(RECEIVED)?)?));
        }
        let encoding: Encoding = known(ENCODING, text(ENCODING)?)?;
        let tenant = text(TENANT)?;
        if tenant.is_empty() {
            return Err(InvalidEnvelope::Missing(TENANT));
        }
        Ok(Self {
            schema,
            tenant: tenant.to_owned(),
            items: parse(ITEMS, text(ITEMS)?)?,
            received_unix_nano: parse(RECEIVED, text(RECEIVED)?)?,
            encoding,
            body: unpack(encoding, payload)?,
        })
    }
}

fn parse<T: FromStr>(name: &'static str, value: &str) -> Result<T, InvalidEnvelope> {
    value.parse().map_err(|_| InvalidEnvelope::Header { name, value: value.chars().take(64).collect() })
}

fn known<T: FromStr>(name: &'static str, value: &str) -> Result<T, InvalidEnvelope> {
    value.parse().map_err(|_| InvalidEnvelope::Unknown { name, value: value.chars().take(64).collect() })
}

fn unpack(encoding: Encoding, payload: &Bytes) -> Result<Bytes, InvalidEnvelope> {
    let body = match encoding {
        Encoding::Identity => payload.clone(),
        Encoding::Lz4 => {
            let (size, block) = lz4_flex::block::uncompressed_size(payload).map_err(corrupt)?;
            // The length is the sender's word: it is checked before anything is allocated for it.
            if size > MAX_BODY_BYTES {
                return Err(InvalidEnvelope::TooLarge);
            }
            lz4_flex::block::decompress(block, size).map_err(corrupt)?.into()
        }
        Encoding::Zstd => {
            let limit = u64::try_from(MAX_BODY_BYTES).unwrap_or(u64::MAX) + 1;
            let mut body = Vec::new();
            let decoder = zstd::stream::Decoder::with_buffer(payload.as_ref()).map_err(corrupt)?;
            decoder.take(limit).read_to_end(&mut body).map_err(corrupt)?;
            body.into()
        }
    };
    if body.len() > MAX_BODY_BYTES { Err(InvalidEnvelope::TooLarge) } else { Ok(body) }
}

fn corrupt(error: impl fmt::Display) -> InvalidEnvelope {
    InvalidEnvelope::Corrupt(error.to_string())
}

impl Schema {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OtlpMetrics => "otlp.metrics.v1",
            Self::OtlpLogs => "otlp.logs.v1",
            Self::Processes => "sightline.processes.v1",
            Self::Tick => TICK,
        }
    }
}

impl FromStr for Schema {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let known = [Self::OtlpMetrics, Self::OtlpLogs, Self::Processes, Self::Tick];
        known.into_iter().find(|schema| schema.as_str() == text).ok_or(())
    }
}

impl Encoding {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

impl FromStr for Encoding {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let known = [Self::Identity, Self::Lz4, Self::Zstd];
        known.into_iter().find(|encoding| encoding.as_str() == text).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(encoding: Encoding) -> Envelope {
        Envelope {
            schema: Schema::OtlpLogs,
            tenant: "default".to_owned(),
            items: 3,
            received_unix_nano: 1_790_230_470_084_404_000,
            encoding,
            body: Bytes::from("hello hello hello hello".repeat(50)),
        }
    }

    fn read(message: &Outgoing) -> Result<Envelope, InvalidEnvelope> {
        Envelope::read(|name| message.headers.get(name).map(async_nats::HeaderValue::as_str), &message.payload)
    }

    #[test]
    fn every_encoding_gives_back_what_was_put_in() {
        for encoding in [Encoding::Identity, Encoding::Lz4, Encoding::Zstd] {
            let before = envelope(encoding);
            assert_eq!(read(&before.encode("x").unwrap()).unwrap(), before);
        }
    }

    #[test]
    fn an_unknown_schema_is_not_guessed() {
        let message = envelope(Encoding::Lz4).encode("x").unwrap().header(SCHEMA, "otlp.metrics.v2");
        let unread = read(&message).unwrap_err();
        assert!(unread.is_unknown() && matches!(unread, InvalidEnvelope::Unknown { name: SCHEMA, .. }), "{unread}");
    }

    #[test]
    fn a_tick_is_a_time_without_a_tenant() {
        let mut message = Envelope::tick(7).encode("x").unwrap();
        assert_eq!(read(&message).unwrap(), Envelope::tick(7));
        message.headers = async_nats::HeaderMap::new();
        let message = message.header(SCHEMA, Schema::Tick.as_str()).header(RECEIVED, "7").header(ITEMS, "0");
        assert_eq!(read(&message).unwrap(), Envelope::tick(7));
    }

    #[test]
    fn a_bomb_is_refused_before_memory_is_taken() {
        let mut message = envelope(Encoding::Lz4).encode("x").unwrap();
        let mut lie = message.payload.to_vec();
        lie[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        message.payload = lie.into();
        assert_eq!(read(&message), Err(InvalidEnvelope::TooLarge));

        let mut message = envelope(Encoding::Zstd).encode("x").unwrap();
        message.payload = zstd::bulk::compress(&vec![0; MAX_BODY_BYTES + 1], 1).unwrap().into();
        assert_eq!(read(&message), Err(InvalidEnvelope::TooLarge));
    }

    #[test]
    fn a_broken_body_says_so() {
        let mut message = envelope(Encoding::Lz4).encode("x").unwrap();
        message.payload = message.payload.slice(..message.payload.len() - 2);
        assert!(matches!(read(&message), Err(InvalidEnvelope::Corrupt(_))));
    }
}
