//! Who listens.

use axum::extract::ws::Utf8Bytes;

use crate::metrics::Metrics;
use crate::queue::Queue;
use crate::wanted::Wanted;

/// One listener of one topic.
pub(crate) struct Client {
    pub(crate) tenant: String,
    pub(crate) wanted: Wanted,
    pub(crate) queue: Queue,
}

impl Client {
    pub(crate) fn give(&self, frame: Utf8Bytes, metrics: &Metrics) {
        metrics.frames.inc();
        metrics.dropped_frames.inc_by(self.queue.push(frame));
    }

    /// Gives a frame, or counts one that would have cost too much.
    pub(crate) fn give_or_miss(&self, frame: Option<&Utf8Bytes>, metrics: &Metrics) {
        match frame {
            Some(frame) => self.give(frame.clone(), metrics),
            None => {
                metrics.dropped_frames.inc();
                self.queue.miss();
            }
        }
    }
}
