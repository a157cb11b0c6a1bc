//! A resource, and a sighting of one.

use std::collections::{BTreeMap, HashMap};

use model::{ResourceId, label_name};
use prost::Message as _;
use proto::registry::{ResourceChanged, ResourceSeen};

use crate::presence::{Change, Nanos};

/// Something that reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    pub tenant: String,
    pub id: String,
    pub kind: String,
    pub name: String,
    pub labels: HashMap<String, String>,
    pub tags: HashMap<String, String>,
    pub agent_id: String,
    pub parent_id: String,
    /// A [`Status`](crate::presence::Status), or what a newer release calls one.
    pub status: String,
    pub first_seen: Nanos,
    pub last_seen: Nanos,
}

/// What a selector reads of a resource beside its properties: labels, then tags, under the names that labels have everywhere.
pub type Facts = BTreeMap<String, String>;

/// The facts that are kept beside `labels` and `tags`. Where several names become one, the smallest counts: an answer must not
/// depend on the order of a map.
#[must_use]
pub fn facts(labels: &HashMap<String, String>, tags: &HashMap<String, String>) -> Facts {
    let mut facts = Facts::new();
    for pairs in [labels, tags] {
        let mut pairs: Vec<_> = pairs.iter().collect();
        // A name that is written as it is stored comes before those that become it.
        pairs.sort_by_key(|(name, _)| (label_name(name) != **name, *name));
        for (name, value) in pairs {
            facts.entry(label_name(name)).or_insert_with(|| value.clone());
        }
    }
    facts
}

impl Resource {
    /// What a selector reads under `name`: a property of the resource itself, else one of its `facts`.
    #[must_use]
    pub fn label<'a>(&'a self, facts: &'a Facts, name: &str) -> Option<&'a str> {
        match name {
            "id" => Some(&self.id),
            "kind" => Some(&self.kind),
            "name" => Some(&self.name),
            "status" => Some(&self.status),
            "agent_id" if !self.agent_id.is_empty() => Some(&self.agent_id),
            "parent_id" => Some(&self.parent_id),
            _ => facts.get(name).map(String::as_str),
        }
    }

    /// The event that tells of `change`.
    #[must_use]
    pub fn changed(&self, change: Change, before: Option<&str>, now: Nanos) -> ResourceChanged {
        ResourceChanged {
            tenant: self.tenant.clone(),
            resource: Some(self.clone().into()),
            change: change.as_str().to_owned(),
            previous_status: before.unwrap_or_default().to_owned(),
            time_unix_nano: unsigned(now),
        }
    }
}

impl From<Resource> for proto::registry::Resource {
    fn from(resource: Resource) -> Self {
        Self {
            id: resource.id,
            kind: resource.kind,
            name: resource.name,
            labels: resource.labels,
            tags: resource.tags,
            status: resource.status,
            first_seen_unix_nano: unsigned(resource.first_seen),
            last_seen_unix_nano: unsigned(resource.last_seen),
            agent_id: resource.agent_id,
            parent_id: resource.parent_id,
        }
    }
}

fn unsigned(time: Nanos) -> u64 {
    u64::try_from(time).unwrap_or_default()
}

/// A gateway's word that a resource is there and what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    pub tenant: String,
    pub id: String,
    /// One of `model`'s, or one that a newer gateway knows.
    pub kind: String,
    pub labels: HashMap<String, String>,
    pub agent_id: String,
    pub parent_id: String,
    pub seen: Nanos,
}

/// Why a message is no sighting. It never will be.
#[derive(Debug, thiserror::Error)]
pub enum InvalidSighting {
    #[error("not a ResourceSeen: {0}")]
    Undecodable(#[from] prost::DecodeError),
    #[error("no tenant")]
    NoTenant,
    #[error("`{0}` is no resource id")]
    Id(String),
    #[error("the id `{id}` is not one of the kind `{kind}`")]
    Kind { id: String, kind: String },
}

impl Sighting {
    /// Reads a `ResourceSeen` that the broker took at `published`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(payload: &[u8], published: u64) -> Result<Self, InvalidSighting> {
        let seen = ResourceSeen::decode(payload)?;
        if seen.tenant.is_empty() || seen.tenant.contains('\0') {
            return Err(InvalidSighting::NoTenant);
        }
        let kind = kind(&seen.id).ok_or_else(|| InvalidSighting::Id(seen.id.clone()))?;
        if kind != seen.kind {
            return Err(InvalidSighting::Kind { id: seen.id, kind: seen.kind });
        }
        // Nothing is seen after it was told of; a gateway's clock that is ahead must not make its word the last one.
        let time = seen.seen_unix_nano.min(published);
        let labels = seen.labels.into_iter().map(|(key, value)| (storable(key), storable(value)));
        Ok(Self {
            tenant: seen.tenant,
            id: seen.id,
            kind: seen.kind,
            labels: labels.collect(),
            agent_id: storable(seen.agent_id),
            parent_id: storable(seen.parent_id),
            seen: Nanos::try_from(time).unwrap_or(Nanos::MAX),
        })
    }

    /// What people call it: by its kind, the first of these labels that it has.
    #[must_use]
    pub fn name(&self) -> &str {
        let labels: &[&str] = match self.kind.as_str() {
            "agent" => &["agent.name", "host.name", "agent.id"],
            "host" => &["host.name", "host.id"],
            "container" => &["container.name", "container.id"],
            "app" => &["service.name", "service.instance.id"],
            "pod" => &["k8s.pod.name", "k8s.pod.uid"],
            "device" | "syslog" => &["device.name", "host.name", "host.ip"],
            _ => &["service.name", "host.name", "telemetry.sdk.name"],
        };
        let named = labels.iter().filter_map(|label| self.labels.get(*label)).find(|name| !name.is_empty());
        named.map_or(self.id.as_str(), String::as_str)
    }
}

/// The kind in a resource's id: one that we know, or what reads like one of a newer release.
fn kind(id: &str) -> Option<&str> {
    let (kind, hash) = id.split_once('-')?;
    let is_kind = !kind.is_empty() && kind.len() <= 32 && kind.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    // The same hash behind a kind that is known.
    let is_hash = format!("host-{hash}").parse::<ResourceId>().is_ok();
    (is_kind && is_hash).then_some(kind)
}

/// Postgres takes any text but one with NUL in it.
fn storable(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen() -> ResourceSeen {
        let labels = [("host.id", "h1"), ("host.name", "web-1"), ("os.type", "li\0nux")];
        ResourceSeen {
            tenant: "default".into(),
            id: model::identify("default", [("host.id", "h1")]).id.to_string(),
            kind: "host".into(),
            labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            agent_id: "a1".into(),
            seen_unix_nano: 70,
            parent_id: String::new(),
        }
    }

    fn read(change: impl FnOnce(&mut ResourceSeen)) -> Result<Sighting, InvalidSighting> {
        let mut seen = seen();
        change(&mut seen);
        Sighting::read(&seen.encode_to_vec(), 100)
    }

    #[test]
    fn a_sighting_names_its_resource_by_its_kind() {
        assert_eq!(read(|_| ()).unwrap().name(), "web-1");
        assert_eq!(read(|seen| drop(seen.labels.remove("host.name"))).unwrap().name(), "h1");
        assert!(read(|seen| seen.labels.clear()).unwrap().name().starts_with("host-"));
    }

    #[test]
    fn what_can_never_be_stored_is_refused_and_what_nearly_can_is_mended() {
        assert!(matches!(read(|seen| seen.tenant.clear()), Err(InvalidSighting::NoTenant)));
        assert!(matches!(read(|seen| seen.id = "x".into()), Err(InvalidSighting::Id(_))));
        assert!(matches!(read(|seen| seen.kind = "pod".into()), Err(InvalidSighting::Kind { .. })));
        assert!(matches!(Sighting::read(b"\xff", 0), Err(InvalidSighting::Undecodable(_))));
        assert_eq!(read(|_| ()).unwrap().labels["os.type"], "li\u{fffd}nux");
    }

    #[test]
    fn a_clock_that_is_ahead_does_not_get_the_last_word() {
        assert_eq!(read(|seen| seen.seen_unix_nano = u64::MAX).unwrap().seen, 100);
    }

    #[test]
    fn a_kind_that_only_a_newer_gateway_knows_is_carried() {
        let sighting = read(|seen| {
            seen.id = seen.id.replace("host-", "lambda-");
            seen.kind = "lambda".into();
        });
        assert_eq!(sighting.unwrap().kind, "lambda");
        assert!(matches!(read(|seen| seen.id = "Host-x".into()), Err(InvalidSighting::Id(_))));
    }

    #[test]
    fn selectors_read_properties_then_labels_then_tags() {
        let resource = Resource {
            tenant: "default".into(),
            id: "host-1".into(),
            kind: "host".into(),
            name: "web-1".into(),
            labels: [("host.name".to_owned(), "web-1".to_owned()), ("status".to_owned(), "fake".to_owned())].into(),
            tags: [("env".to_owned(), "prod".to_owned()), ("host.name".to_owned(), "fake".to_owned())].into(),
            agent_id: String::new(),
            parent_id: String::new(),
            status: "idle".into(),
            first_seen: 1,
            last_seen: 2,
        };
        let facts = facts(&resource.labels, &resource.tags);
        assert_eq!(resource.label(&facts, "status"), Some("idle"));
        assert_eq!(resource.label(&facts, "host_name"), Some("web-1"));
        assert_eq!(resource.label(&facts, "env"), Some("prod"));
        assert_eq!(resource.label(&facts, "host_id"), None);
    }

    #[test]
    fn of_names_that_become_one_the_stored_form_counts_and_then_the_smallest() {
        let labels = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let read = |pairs: &[(&str, &str)]| facts(&labels(pairs), &HashMap::new())["a_b"].clone();
        assert_eq!(read(&[("a.b", "1"), ("a_b", "2"), ("a-b", "3")]), "2");
        assert_eq!(read(&[("a.b", "1"), ("a-b", "3")]), "3");
    }
}
