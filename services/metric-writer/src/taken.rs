//! From an envelope to samples in memory.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bus::{Delivery, Envelope, InvalidEnvelope, Schema};
use series::{Reader, Series, Tally};

use crate::samples::Value;

/// What was read from an envelope.
pub(crate) struct Taken {
    pub(crate) received_unix_nano: u64,
    pub(crate) traceparent: Option<String>,
    pub(crate) samples: Vec<(Arc<Series>, Value)>,
    pub(crate) tally: Tally,
    /// Of labels and samples, as they are written; what has a series in common is counted each time.
    pub(crate) bytes: usize,
}

/// Bytes of a sample in a request.
const SAMPLE: usize = 20;

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
    /// Reads an envelope whole, or not at all.
    pub(crate) fn read(reader: &mut Reader, delivery: &Delivery) -> Result<Self, Unreadable> {
        let envelope = Envelope::decode(delivery)?;
        if envelope.schema != Schema::OtlpMetrics {
            return Err(Unreadable::Schema(envelope.schema));
        }
        let (mut samples, mut bytes) = (Vec::new(), 0);
        let tally = reader.read(&envelope.tenant, &envelope.body, envelope.received_unix_nano, |sample| {
            bytes += sample.series.encoded_len() + SAMPLE;
            samples.push((Arc::clone(sample.series), Value { time_ms: sample.time_ms, value: sample.value }));
        })?;
        let traceparent = delivery.traceparent().map(str::to_owned);
        Ok(Self { received_unix_nano: envelope.received_unix_nano, traceparent, samples, tally, bytes })
    }
}

/// Seconds since a gateway took in the oldest of them.
pub(crate) fn age(taken: &[Taken]) -> f64 {
    let oldest = taken.iter().map(|taken| taken.received_unix_nano).min().unwrap_or_default();
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    now.saturating_sub(Duration::from_nanos(oldest)).as_secs_f64()
}
