//! Who listens, and what they want to see.

use selector::Selector;

use crate::event::Event;
use crate::queue::Queue;

/// One listener of one topic.
pub(crate) struct Client {
    pub(crate) tenant: String,
    pub(crate) wanted: Wanted,
    pub(crate) queue: Queue,
}

/// Which events a listener wants.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) selector: Selector,
    /// Stored metric names; empty takes all.
    pub(crate) names: Vec<String>,
    pub(crate) resource_id: Option<String>,
}

impl Client {
    pub(crate) fn wants(&self, event: &Event) -> bool {
        self.tenant == event.tenant() && self.wanted.takes(event)
    }
}

impl Wanted {
    fn takes(&self, event: &Event) -> bool {
        let named =
            self.names.is_empty() || self.names.iter().any(|name| Some(name.as_str()) == event.label("__name__"));
        let located = self.resource_id.as_deref().is_none_or(|id| Some(id) == event.label("resource_id"));
        named && located && self.selector.matches(|label| event.label(label))
    }
}
