//! Every metric of the registry.

use crate::presence::Status;

telemetry::metrics! {
    /// Clones count into the same metrics.
    pub struct Metrics in "sightline_registry" {
        /// Sightings by what became of them: registered, described, known, dead
        pub sightings: Counter by [outcome],
        /// Changes of resources by kind of change
        pub changes: Counter by [change],
        /// Resources by status, on the replica that judges
        pub resources: Gauge by [status],
        /// Heartbeats read by the last sweep
        pub heartbeats: Gauge,
        /// 1 on the replica that judges heartbeats
        pub leading: Gauge,
        /// 1 while no gateway is there to hear anybody, so that silence proves nothing
        pub deaf: Gauge,
        /// Time of a sweep
        pub sweep [Seconds]: Histogram = [0.002, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0],
        /// Changes by what became of them: published, dead
        pub outgoing: Counter by [outcome],
        /// Changes that wait to be published
        pub waiting: Gauge,
    }
}

impl Metrics {
    /// Another replica judges, and counts.
    pub(crate) fn forget(&self) {
        for status in Status::ALL {
            self.resources.of([status.as_str()]).set(0);
        }
        self.deaf.set(0);
    }
}
