//! Envelopes that are written together.

use bus::Delivery;

use crate::intake::{Samples, Value};

/// VictoriaMetrics is cheapest with thousands of series a request.
pub(crate) const ENOUGH_SAMPLES: usize = 8_000;

/// An envelope with its samples.
pub(crate) struct Unit {
    pub(crate) delivery: Delivery,
    pub(crate) samples: Samples,
}

/// What is written in one request.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) units: Vec<Unit>,
}

impl Batch {
    pub(crate) fn is_enough(&self) -> bool {
        self.sample_count() >= ENOUGH_SAMPLES
    }

    pub(crate) fn sample_count(&self) -> usize {
        self.units.iter().map(|unit| unit.samples.values.len()).sum()
    }

    pub(crate) fn item_count(&self) -> u64 {
        self.units.iter().map(|unit| unit.samples.items).sum()
    }

    /// When the gateway took the oldest of it, Unix nanoseconds.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.units.iter().map(|unit| unit.samples.received_unix_nano).min()
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &Value> {
        self.units.iter().flat_map(|unit| &unit.samples.values)
    }

    /// The later half, which is empty when there is only one envelope.
    pub(crate) fn split_off_half(&mut self) -> Self {
        let half = self.units.len().div_ceil(2);
        Self { units: self.units.split_off(half) }
    }
}
