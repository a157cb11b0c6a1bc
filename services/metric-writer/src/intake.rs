//! From the broker to samples in memory.

use std::sync::Arc;

use bus::{Bus, Deliveries, Delivery, Envelope, InvalidEnvelope, Schema};
use lifecycle::CancellationToken;
use series::{Reader, Series, Tally};
use tokio::sync::mpsc;

use crate::writer;

/// One value of one series, held until it is stored.
#[derive(Debug, Clone)]
pub(crate) struct Value {
    pub(crate) series: Arc<Series>,
    pub(crate) time_ms: i64,
    pub(crate) value: f64,
}

/// One envelope's samples.
#[derive(Debug)]
pub(crate) struct Samples {
    pub(crate) values: Vec<Value>,
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

/// Reads an envelope as samples.
pub(crate) fn read(reader: &mut Reader, delivery: &Delivery) -> Result<Samples, Unreadable> {
    let envelope = Envelope::decode(delivery)?;
    if envelope.schema != Schema::OtlpMetrics {
        return Err(Unreadable::Schema(envelope.schema));
    }
    let mut values = Vec::new();
    let tally = reader.read(&envelope.tenant, &envelope.body, envelope.received_unix_nano, |sample| {
        values.push(Value { series: Arc::clone(sample.series), time_ms: sample.time_ms, value: sample.value });
    })?;
    Ok(Samples { values, items: envelope.items, received_unix_nano: envelope.received_unix_nano, tally })
}
