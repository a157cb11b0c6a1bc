//! What is known of a resource from its attributes.

use std::sync::Arc;

use model::label_value;
use otlp::ResourceMetrics;
use sha2::{Digest as _, Sha256};

use crate::cache::Weighed;
use crate::labels::Series;
use crate::name::Type;
use crate::prepare::{Base, by_key, target_info};

/// Stands for a resource's attributes in the keys of its points: a hash of them, so that a resource that is forgotten and
/// comes again finds its points again.
pub(crate) type Id = [u8; 16];

pub(crate) struct Resource {
    pub(crate) id: Id,
    pub(crate) base: Base,
    pub(crate) is_agents: bool,
    pub(crate) target_info: Option<Arc<Series>>,
}

impl Weighed for Arc<Resource> {
    fn bytes(&self) -> usize {
        let base = &self.base;
        let texts = [&base.tenant, &base.resource_id, &base.kind, &base.host_name, &base.service_name];
        let info = self.target_info.as_ref().map_or(0, |info| info.encoded_len() + 80);
        200 + info + texts.iter().map(|text| text.len()).sum::<usize>()
    }
}

impl Resource {
    /// `key` holds tenant and attributes. Also says how many labels `target_info` had too many.
    pub(crate) fn read(key: &[u8], tenant: &str, from: ResourceMetrics<'_>) -> (Self, u64) {
        let mut base = Base { tenant: tenant.to_owned(), ..Base::default() };
        let mut rest = by_key(from.attributes());
        // Of a key that repeats the last counts, so what the gateway stamped wins over what the client wrote.
        rest.retain(|(key, value)| {
            let place = match *key {
                "sightline.resource.id" => &mut base.resource_id,
                "sightline.resource.kind" => &mut base.kind,
                "host.name" => &mut base.host_name,
                "service.name" => &mut base.service_name,
                key => return !key.starts_with("sightline."),
            };
            *place = label_value(value).into_owned();
            false
        });
        let is_agents = rest.iter().any(|(key, _)| *key == "agent.id");
        let has_more = rest.iter().any(|(_, value)| !value.is_empty());
        let (labels, cut) = target_info(&base, &rest);
        let info = || Series::new(Type::Gauge, labels.iter().map(|(name, value)| (&**name, &**value)));
        let target_info = has_more.then(|| Arc::new(info()));
        (Self { id: id_of(key), base, is_agents, target_info }, if has_more { cut } else { 0 })
    }
}

/// Stands for these bytes: half of their SHA-256, so that nobody finds others for which it stands as well.
pub(crate) fn id_of(bytes: &[u8]) -> Id {
    let mut id = Id::default();
    id.copy_from_slice(&Sha256::digest(bytes)[..16]);
    id
}
