//! Every metric of this service.

telemetry::metrics! {
    /// Handles on the metrics; clones share them.
    pub struct Metrics in "sightline_dispatcher" {
        /// Notifications taken in
        pub notifications: Counter,
        /// Messages that are no notification
        pub malformed: Counter,
        /// Notifications older than what is remembered
        pub expired: Counter,
        /// Deliveries that are not over, counted up to 100,000
        pub deliveries_pending: Gauge,
        /// Receivers that fail again and again, and are only asked once in a while
        pub receivers_down: Gauge,
        /// Attempts under way
        pub attempts_running: Gauge,
        /// Attempts by how they ended
        pub attempts: Counter by [outcome],
        /// Deliveries by how they ended
        pub deliveries: Counter by [state],
        /// Rows deleted past their retention, by table
        pub pruned_rows: Counter by [table],
        /// Events that the broker never takes; they lie in the table `outgoing` with their reason
        pub outbox_dead: Counter,
        /// Events not published yet
        pub outbox_waiting: Gauge,
        /// How long attempts took
        pub attempt_duration [Seconds]: Histogram = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0],
    }
}
