//! Every metric of ws-fanout.

telemetry::metrics! {
    /// Clones count into the same metrics.
    pub(crate) struct Metrics in "sightline_ws_fanout" {
        /// WebSockets that listen now
        pub(crate) clients: Gauge,
        /// Events read for listeners
        pub(crate) events: Counter,
        /// Frames queued for clients
        pub(crate) frames: Counter,
        /// Frames that slow clients missed and were told of
        pub(crate) dropped_frames: Counter,
        /// Times that clients were told they miss, by why: evicted, behind
        pub(crate) gaps: Counter by [why],
        /// Messages of tenants for whom nobody listens, passed over unread
        pub(crate) passed_messages: Counter,
        /// Clients closed because they did not read
        pub(crate) stalled_clients: Counter,
        /// Messages of the broker that cannot be shown
        pub(crate) unreadable_messages: Counter,
    }
}
