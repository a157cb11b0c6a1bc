//! Every metric of this service.

telemetry::metrics! {
    /// Handles on the metrics; clones share them.
    pub struct Metrics in "sightline_alert_service" {
        /// Transitions by what they did
        pub transitions: Counter by [outcome],
        /// Parts of rounds that say what fires, by what became of them
        pub levels: Counter by [outcome],
        /// Alerts ended because their shard did not confirm them, or found again
        pub reconciled: Counter by [outcome],
        /// News of deliveries, by how they ended
        pub deliveries: Counter by [state],
        /// Rows deleted past their retention, by table
        pub pruned_rows: Counter by [table],
        /// Messages published, by topic
        pub published: Counter by [topic],
        /// Messages that the broker never takes, by topic; they lie in the table `outgoing` with their reason
        pub outbox_dead: Counter by [topic],
        /// Messages not published yet
        pub outbox_waiting: Gauge,
        /// From a message's transaction to the broker's acknowledgement, by topic
        pub publish_delay [Seconds]: Histogram by [topic] =
            [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0],
        /// From the gateway's receipt of the deciding sample to the receiver's answer, for firing alerts
        pub signal_to_page [Seconds]: Histogram =
            [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 600.0],
    }
}
