//! From the broker to samples in memory.

use bus::{Bus, Deliveries, Delivery, Envelope, InvalidEnvelope, Schema};
use lifecycle::CancellationToken;
use series::{Reader, Tally};
use tokio::sync::mpsc;

use crate::samples::Samples;
use crate::writer;

/// Bytes of series that a reader remembers; up to twice as many while series come and go.
pub(crate) const REMEMBERED: usize = 40 << 20;

/// What an envelope came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Summary {
    pub(crate) items: u64,
    pub(crate) received_unix_nano: u64,
    pub(crate) tally: Tally,
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

/// Hands on what a shard's consumer brings until the process stops, then gives back what nobody took.
pub(crate) async fn pull(
    bus: Bus,
    mut deliveries: Deliveries,
    envelopes: mpsc::Sender<Delivery>,
    stopping: CancellationToken,
) -> anyhow::Result<()> {
    loop {
        let next = async {
            // A place first, so that a message is never read without somebody to take it.
            let place = envelopes.reserve().await?;
            place.send(deliveries.next().await);
            Ok::<_, mpsc::error::SendError<()>>(())
        };
        tokio::select! {
            () = stopping.cancelled() => break,
            sent = next => sent?,
        }
    }
    deliveries.close().await;
    writer::flush(&bus).await;
    Ok(())
}

/// Reads an envelope and adds what it holds to `samples`; nothing, when it cannot be read.
pub(crate) fn read(reader: &mut Reader, delivery: &Delivery, samples: &mut Samples) -> Result<Summary, Unreadable> {
    let envelope = Envelope::decode(delivery)?;
    if envelope.schema != Schema::OtlpMetrics {
        return Err(Unreadable::Schema(envelope.schema));
    }
    let tally = reader.read(&envelope.tenant, &envelope.body, envelope.received_unix_nano, |sample| {
        samples.push(sample.series, sample.time_ms, sample.value);
    })?;
    Ok(Summary { items: envelope.items, received_unix_nano: envelope.received_unix_nano, tally })
}
