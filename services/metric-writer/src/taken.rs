//! From an envelope to samples in memory.

use std::time::{Duration, SystemTime};

use bus::{Delivery, Envelope, InvalidEnvelope, Schema};
use model::Times;
use series::{Reader, Tally};

use crate::samples::Samples;

/// Bytes of a sample in a request.
const SAMPLE: usize = 20;
/// Bytes of series that are remembered while one envelope is read by itself.
const ALONE: usize = 1 << 20;

/// An envelope whose samples lie among those of its group.
pub(crate) struct Taken {
    delivery: Delivery,
    received_unix_nano: u64,
    pub(crate) tally: Tally,
    /// Of labels and samples as they would be written; of a series that comes several times, each time.
    pub(crate) bytes: usize,
}

/// Why an envelope can never be stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error("not an envelope: {0}")]
    Envelope(#[from] InvalidEnvelope),
    #[error("the schema is {}, not metrics", .0.as_str())]
    Schema(Schema),
    #[error("not OTLP metrics: {0}")]
    Otlp(#[from] otlp::Invalid),
}

impl Unreadable {
    /// Whether a newer version may be able to read it.
    pub(crate) fn is_unknown(&self) -> bool {
        matches!(self, Self::Envelope(invalid) if invalid.is_unknown())
    }
}

impl Taken {
    /// Reads an envelope and adds what it holds to `samples`; nothing, when it cannot be read.
    pub(crate) fn read(reader: &mut Reader, delivery: &Delivery, samples: &mut Samples) -> Result<Self, Unreadable> {
        let envelope = Envelope::decode(delivery)?;
        if envelope.schema != Schema::OtlpMetrics {
            return Err(Unreadable::Schema(envelope.schema));
        }
        let mut bytes = 0;
        let tally = reader.read(&envelope.tenant, &envelope.body, envelope.received_unix_nano, |sample| {
            bytes += sample.series.encoded_len() + SAMPLE;
            samples.push(sample.series, sample.time_ms, sample.value);
        })?;
        Ok(Self { delivery: delivery.clone(), received_unix_nano: envelope.received_unix_nano, tally, bytes })
    }

    /// Its samples without those of its group.
    pub(crate) fn alone(&self, times: Times) -> Samples {
        let mut samples = Samples::default();
        let mut reader = Reader::new(ALONE).believing(times);
        if let Err(error) = Self::read(&mut reader, &self.delivery, &mut samples) {
            tracing::error!(%error, "an envelope that was read before cannot be read again");
        }
        samples
    }

    pub(crate) fn traceparent(&self) -> Option<&str> {
        self.delivery.traceparent()
    }
}

/// Seconds since a gateway took in the oldest of them.
pub(crate) fn age(taken: &[Taken]) -> f64 {
    let oldest = taken.iter().map(|taken| taken.received_unix_nano).min().unwrap_or_default();
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    now.saturating_sub(Duration::from_nanos(oldest)).as_secs_f64()
}
