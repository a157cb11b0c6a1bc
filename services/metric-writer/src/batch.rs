//! Envelopes that are written together.

use bus::Delivery;

use crate::intake::Summary;
use crate::samples::Samples;

/// The more samples a series has in a request, the less each costs the store; and all of it is held in memory.
const ENOUGH_SAMPLES: usize = 100_000;

/// An envelope whose samples are in the batch.
pub(crate) struct Unit {
    pub(crate) delivery: Delivery,
    pub(crate) summary: Summary,
}

/// What is written and answered for together.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) units: Vec<Unit>,
    pub(crate) samples: Samples,
}

impl Batch {
    pub(crate) fn is_enough(&self) -> bool {
        self.samples.len() >= ENOUGH_SAMPLES
    }

    pub(crate) fn item_count(&self) -> u64 {
        self.units.iter().map(|unit| unit.summary.items).sum()
    }

    /// When the gateway took the oldest of it, Unix nanoseconds.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.units.iter().map(|unit| unit.summary.received_unix_nano).min()
    }
}
