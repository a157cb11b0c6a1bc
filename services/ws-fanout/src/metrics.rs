//! Every metric of ws-fanout.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Clone, Default)]
pub(crate) struct Metrics {
    pub(crate) clients: Gauge,
    pub(crate) events: Counter,
    pub(crate) frames: Counter,
    pub(crate) dropped: Counter,
    pub(crate) stalled: Counter,
    pub(crate) unreadable: Counter,
}

impl Metrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("sightline_ws_fanout_clients", "WebSockets that listen now", metrics.clients.clone());
        registry.register("sightline_ws_fanout_events", "Events read for listeners", metrics.events.clone());
        registry.register("sightline_ws_fanout_frames", "Frames queued for clients", metrics.frames.clone());
        registry.register(
            "sightline_ws_fanout_dropped_frames",
            "Frames that slow clients missed and were told of",
            metrics.dropped.clone(),
        );
        registry.register(
            "sightline_ws_fanout_stalled_clients",
            "Clients closed because they did not read",
            metrics.stalled.clone(),
        );
        registry.register(
            "sightline_ws_fanout_unreadable_messages",
            "Messages of the broker that cannot be shown",
            metrics.unreadable.clone(),
        );
        metrics
    }
}
