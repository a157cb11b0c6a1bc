//! Samples to the store, in as many requests as it takes, and the question who is at fault when it refuses one.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use series::{Series, Type};
use tokio::task::block_in_place;
use tracing::warn;

use crate::metrics::Metrics;
use crate::remote_write::Requests;
use crate::samples::Samples;
use crate::store::{Store, WriteError};

/// No request is made smaller than that because something in between finds it too large.
const LEAST_BYTES: usize = 64 << 10;
/// Written when the store refuses something, to see whether it takes anything at all.
const PROBE: &str = "sightline_metric_writer_probe";

/// The way to the store. Clones share it.
#[derive(Clone)]
pub(crate) struct Sending {
    store: Store,
    metrics: Metrics,
    request_bytes: usize,
    probe: Arc<Series>,
}

/// What was written.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Written {
    pub(crate) samples: u64,
    /// Those of which a store keeps one of two.
    pub(crate) melted: u64,
}

impl Sending {
    pub(crate) fn new(store: Store, metrics: Metrics, request_bytes: usize, namespace: &str) -> Self {
        let probe = Series::new(Type::Gauge, [("__name__", PROBE), ("namespace", namespace)]);
        Self { store, metrics, request_bytes, probe: Arc::new(probe) }
    }

    /// Writes all of them; the first request that does not pass ends it.
    ///
    /// # Errors
    /// Refused only when something that is known to be good passes, so that a wrong address costs no data.
    pub(crate) async fn write(&self, samples: &Samples) -> Result<Written, WriteError> {
        // Laying out and packing take tens of milliseconds.
        let sorted = block_in_place(|| samples.sorted());
        let mut most_bytes = self.request_bytes;
        let mut requests = Requests::new(&sorted, most_bytes);
        while let Some(body) = block_in_place(|| requests.next()) {
            let body = body.map_err(|error| WriteError::Away(format!("cannot pack samples: {error}")))?;
            match self.request(body).await {
                Ok(()) => {}
                Err(error) if error.is_too_large() && most_bytes > LEAST_BYTES => {
                    most_bytes = (most_bytes / 4).max(LEAST_BYTES);
                    warn!(%error, most_bytes, "writing smaller requests");
                    requests = Requests::new(&sorted, most_bytes);
                }
                Err(error) if error.is_refused() => return Err(self.whose_fault(error).await),
                Err(error) => return Err(error),
            }
        }
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        Ok(Written { samples: count(samples.len()), melted: count(sorted.melted) })
    }

    async fn request(&self, body: Bytes) -> Result<(), WriteError> {
        let begun = Instant::now();
        let written = self.store.write(body).await;
        self.metrics.wrote(&written, begun.elapsed());
        written
    }

    async fn whose_fault(&self, refusal: WriteError) -> WriteError {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let mut good = Samples::default();
        good.push(&self.probe, i64::try_from(now.as_millis()).unwrap_or(i64::MAX), 1.0);
        let body = Requests::new(&good.sorted(), LEAST_BYTES).next();
        match body {
            Some(Ok(body)) => match self.request(body).await {
                Ok(()) => refusal,
                Err(_) => WriteError::Away(format!(
                    "it takes nothing, not even what is known to be good (is SIGHTLINE_METRICS_URL right?): {refusal}"
                )),
            },
            Some(Err(_)) | None => refusal,
        }
    }
}
