//! Telemetry on its way through the broker: bytes of one tenant and one shard, and headers that say what they are.

use bytes::Bytes;

use crate::Outgoing;

const SCHEMA: &str = "Sl-Schema";
const TENANT: &str = "Sl-Tenant";
const ITEMS: &str = "Sl-Items";
const RECEIVED: &str = "Sl-Received";
const ENCODING: &str = "Sl-Encoding";

/// Headers that a dead letter keeps.
pub(crate) const HEADERS: [&str; 5] = [SCHEMA, TENANT, ITEMS, RECEIVED, ENCODING];

/// No envelope of ours is larger; a forged length is refused before anything is allocated.
const LARGEST_BODY: usize = 64 << 20;

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Not at all.
    Identity,
    /// LZ4 block with the body's length before it, as four little-endian bytes.
    Lz4,
    /// A Zstandard frame.
    Zstd,
}

impl Encoding {
    fn as_str(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

/// What a telemetry message carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// `otlp.metrics.v1`, `otlp.logs.v1` or `sightline.processes.v1`; a reader sets aside what it does not know.
    pub schema: String,
    /// Whose it is.
    pub tenant: String,
    /// Points, records or snapshots in it.
    pub items: u64,
    /// When the gateway took in the oldest item.
    pub received_unix_nano: u64,
    /// Serialized, not compressed.
    pub body: Bytes,
}

/// Why an envelope cannot be read. It never will be.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// A header is missing or unreadable.
    #[error("the header {0} is missing or unreadable")]
    Header(&'static str),
    /// The encoding is not one of ours.
    #[error("the encoding `{0}` is not known")]
    Encoding(String),
    /// The body does not decompress.
    #[error("the body does not decompress: {0}")]
    Body(String),
}

impl Envelope {
    /// As a message under `id`.
    ///
    /// # Errors
    /// Only Zstandard can fail, and only for lack of memory.
    pub fn encode(
        &self,
        id: impl Into<String>,
        encoding: Encoding,
    ) -> Result<Outgoing, std::io::Error> {
        let payload = match encoding {
            Encoding::Identity => self.body.clone(),
            Encoding::Lz4 => lz4_flex::compress_prepend_size(&self.body).into(),
            Encoding::Zstd => zstd::bulk::compress(&self.body, 1)?.into(),
        };
        let mut message = Outgoing::new(id, payload);
        message.headers = vec![
            (SCHEMA, self.schema.clone()),
            (TENANT, self.tenant.clone()),
            (ITEMS, self.items.to_string()),
            (RECEIVED, self.received_unix_nano.to_string()),
            (ENCODING, encoding.as_str().to_owned()),
        ];
        Ok(message)
    }

    /// Reads a message's headers and body.
    pub(crate) fn decode<'a>(
        header: impl Fn(&str) -> Option<&'a str>,
        payload: &Bytes,
    ) -> Result<Self, EnvelopeError> {
        let text = |name| {
            header(name)
                .map(str::to_owned)
                .ok_or(EnvelopeError::Header(name))
        };
        let number = |name| {
            header(name)
                .and_then(|text| text.parse().ok())
                .ok_or(EnvelopeError::Header(name))
        };
        let body = match header(ENCODING).unwrap_or("identity") {
            "identity" => payload.clone(),
            "lz4" => decompress_lz4(payload)?,
            "zstd" => zstd::bulk::decompress(payload, LARGEST_BODY)
                .map_err(|error| EnvelopeError::Body(error.to_string()))?
                .into(),
            other => return Err(EnvelopeError::Encoding(other.to_owned())),
        };
        Ok(Self {
            schema: text(SCHEMA)?,
            tenant: text(TENANT)?,
            items: number(ITEMS)?,
            received_unix_nano: number(RECEIVED)?,
            body,
        })
    }
}

fn decompress_lz4(payload: &[u8]) -> Result<Bytes, EnvelopeError> {
    let wrong = |error: lz4_flex::block::DecompressError| EnvelopeError::Body(error.to_string());
    let (size, block) = lz4_flex::block::uncompressed_size(payload).map_err(wrong)?;
    if size > LARGEST_BODY {
        return Err(EnvelopeError::Body(format!("it claims {size} bytes")));
    }
    lz4_flex::block::decompress(block, size)
        .map(Bytes::from)
        .map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope() -> Envelope {
        Envelope {
            schema: "otlp.logs.v1".to_owned(),
            tenant: "default".to_owned(),
            items: 3,
            received_unix_nano: 17,
            body: Bytes::from(vec![7; 5_000]),
        }
    }

    fn read(message: &Outgoing) -> Result<Envelope, EnvelopeError> {
        let header = |wanted: &str| {
            message
                .headers
                .iter()
                .find(|(name, _)| *name == wanted)
                .map(|(_, value)| value.as_str())
        };
        Envelope::decode(header, &message.payload)
    }

    #[test]
    fn every_encoding_reads_back() {
        for encoding in [Encoding::Identity, Encoding::Lz4, Encoding::Zstd] {
            assert_eq!(
                read(&envelope().encode("a", encoding).unwrap()).unwrap(),
                envelope()
            );
        }
    }

    #[test]
    fn a_forged_length_allocates_nothing() {
        let mut message = envelope().encode("a", Encoding::Lz4).unwrap();
        message.payload = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0]);
        assert!(matches!(read(&message), Err(EnvelopeError::Body(_))));
    }

    #[test]
    fn what_is_not_known_is_named() {
        let mut message = envelope().encode("a", Encoding::Identity).unwrap();
        message.headers.retain(|(name, _)| *name != TENANT);
        assert!(matches!(read(&message), Err(EnvelopeError::Header(TENANT))));
    }
}
