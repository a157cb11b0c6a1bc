//! Every metric of public ports. Ports are named by their service.

telemetry::metrics! {
    /// Clones count into the same metrics.
    pub struct Metrics in "sightline_edge" {
        /// Open connections by port
        pub(crate) connections: Gauge by [port],
        /// Connections by port and how they began: plain, tls, failed, too_many, too_many_of_client
        pub(crate) opened: Counter by [port, how],
        /// Connections by port and why they ended: closed, error, aged, unused, stopped, cut_off
        pub(crate) ended: Counter by [port, why],
        /// Changed certificate files by port: renewed, unusable
        pub(crate) certificates: Counter by [port, outcome],
    }
}
