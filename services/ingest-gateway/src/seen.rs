//! Tells the registry which resources there are: at first sight, when they describe themselves differently, and every few minutes.
//!
//! This never delays an answer. What cannot be told now is told when the resource is seen again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bus::{Bus, Outgoing, Subject};
use lifecycle::CancellationToken;
use model::{ResourceId, ResourceKind, identify};
use moka::sync::Cache;
use otlp::Attribute;
use prost::Message as _;
use proto::registry::ResourceSeen;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use uuid::Uuid;
use xxhash_rust::xxh3::Xxh3Default;

use crate::metrics::{Aside, Metrics};

const AGAIN_AFTER: Duration = Duration::from_secs(5 * 60);
/// Two clients that describe one host differently would otherwise announce it with every request.
const CHANGED_AFTER: Duration = Duration::from_secs(10);
const REMEMBERED: u64 = 200_000;
const QUEUE: usize = 8_192;
/// Bytes of all that waits to be told.
const QUEUE_BYTES: usize = 16 << 20;
const AT_ONCE: usize = 32;
const MOST_LABELS: usize = 128;
const LONGEST_LABEL: usize = 1_024;

/// What a sighting is remembered by.
type Key = (Arc<str>, ResourceId);

/// A resource as its telemetry describes it.
pub struct Described<'a> {
    pub tenant: &'a Arc<str>,
    pub id: ResourceId,
    /// The agent that reports it.
    pub agent_id: Option<&'a str>,
    /// Its attributes, those of the client only.
    pub labels: &'a [(&'a str, std::borrow::Cow<'a, str>)],
    pub now_unix_nano: u64,
}

/// Whether a description replaces another.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// It says all there is to say.
    Full,
    /// It only names the resource: worth telling when nothing better was told.
    Sparse,
}

#[derive(Clone, Copy)]
struct Told {
    labels: u64,
    detail: bool,
    at: Instant,
}

/// Clones share what they remember.
#[derive(Clone)]
pub struct Sightings {
    told: Cache<Key, Told>,
    queue: mpsc::Sender<Waiting>,
    room: Arc<Semaphore>,
    metrics: Metrics,
}

/// What waits to be told, with the room that it takes.
type Waiting = (Key, ResourceSeen, OwnedSemaphorePermit);

/// The other end of the queue.
pub struct Announcer {
    told: Cache<Key, Told>,
    queue: mpsc::Receiver<Waiting>,
    metrics: Metrics,
}

/// Makes both ends.
#[must_use]
pub fn sightings(metrics: &Metrics) -> (Sightings, Announcer) {
    let (sender, queue) = mpsc::channel(QUEUE);
    let told = Cache::builder().max_capacity(REMEMBERED).time_to_idle(2 * AGAIN_AFTER).build();
    let announcer = Announcer { told: told.clone(), queue, metrics: metrics.clone() };
    let room = Arc::new(Semaphore::new(QUEUE_BYTES));
    (Sightings { told, queue: sender, room, metrics: metrics.clone() }, announcer)
}

impl Sightings {
    /// Notes that a resource was seen, and its agent with it.
    pub fn note(&self, seen: &Described<'_>, detail: Detail) {
        let labels = fingerprint(seen);
        let key = (Arc::clone(seen.tenant), seen.id);
        if !self.is_due(&key, labels, detail) {
            return;
        }
        self.told.insert(key.clone(), Told { labels, detail: detail == Detail::Full, at: Instant::now() });
        if let Some((agent, announcement)) = agent(seen) {
            self.tell((Arc::clone(seen.tenant), agent), announcement);
        }
        self.tell(key, announcement(seen));
    }

    fn is_due(&self, key: &Key, labels: u64, detail: Detail) -> bool {
        let Some(told) = self.told.get(key) else { return true };
        let age = told.at.elapsed();
        match detail {
            Detail::Full => !told.detail || age > AGAIN_AFTER || (told.labels != labels && age > CHANGED_AFTER),
            Detail::Sparse => !told.detail && age > AGAIN_AFTER,
        }
    }

    fn tell(&self, key: Key, seen: ResourceSeen) {
        if self.put(key.clone(), seen).is_none() {
            self.told.invalidate(&key);
            self.metrics.sighting(Aside::Skipped);
        }
    }

    /// Nothing when there is no room.
    fn put(&self, key: Key, seen: ResourceSeen) -> Option<()> {
        let bytes = u32::try_from(seen.encoded_len()).ok()?;
        let room = Arc::clone(&self.room).try_acquire_many_owned(bytes).ok()?;
        self.queue.try_send((key, seen, room)).ok()
    }
}

impl Announcer {
    /// Publishes sightings until the process stops.
    ///
    /// # Errors
    /// None; the signature is a task's.
    pub async fn run(mut self, bus: Bus, stopping: CancellationToken) -> anyhow::Result<()> {
        let mut publishing = JoinSet::new();
        loop {
            tokio::select! {
                () = stopping.cancelled() => break,
                Some(_) = publishing.join_next() => continue,
                Some((key, seen, room)) = self.queue.recv(), if publishing.len() < AT_ONCE => {
                    let told = publish(bus.clone(), key, seen, self.told.clone(), self.metrics.clone());
                    publishing.spawn(async move {
                        told.await;
                        drop(room);
                    });
                }
            }
        }
        while publishing.join_next().await.is_some() {}
        Ok(())
    }
}

async fn publish(bus: Bus, key: Key, seen: ResourceSeen, told: Cache<Key, Told>, metrics: Metrics) {
    let message = Outgoing::new(Uuid::new_v4().simple().to_string(), seen.encode_to_vec());
    match bus.publish(Subject::ResourcesSeen, message).await {
        Ok(()) => metrics.sighting(Aside::Done),
        Err(error) => {
            // It is told when it is seen again.
            told.invalidate(&key);
            metrics.sighting(Aside::Failed);
            tracing::debug!(resource = %key.1, %error, "cannot tell the registry of a resource");
        }
    }
}

fn fingerprint(seen: &Described<'_>) -> u64 {
    let mut hash = Xxh3Default::new();
    for text in seen.labels.iter().flat_map(|(name, value)| [*name, value]).chain(seen.agent_id) {
        hash.update(text.as_bytes());
        hash.update(&[0xff]);
    }
    hash.digest()
}

fn announcement(seen: &Described<'_>) -> ResourceSeen {
    let mut labels = HashMap::new();
    for (name, value) in seen.labels.iter().take(MOST_LABELS) {
        labels.insert((*name).to_owned(), cut(value).to_owned());
    }
    ResourceSeen {
        tenant: seen.tenant.to_string(),
        id: seen.id.to_string(),
        kind: seen.id.kind().to_string(),
        labels,
        agent_id: seen.agent_id.unwrap_or_default().to_owned(),
        seen_unix_nano: seen.now_unix_nano,
        parent_id: parent(seen).map(|id| id.to_string()).unwrap_or_default(),
    }
}

/// The resource that this one lives in: app in container in pod in host, and a host with its agent.
fn parent(seen: &Described<'_>) -> Option<ResourceId> {
    let attributes: BTreeMap<&str, &str> =
        seen.labels.iter().map(|(name, value)| (*name, value.as_ref())).filter(|(_, v)| !v.is_empty()).collect();
    let one = |kind: ResourceKind, keys: &[&'static str]| {
        let known: Vec<_> = keys.iter().filter_map(|key| Some((*key, *attributes.get(key)?))).collect();
        let kind_name = [("resource.kind", kind.as_str())];
        (!known.is_empty()).then(|| identify(seen.tenant, known.into_iter().chain(kind_name)).id)
    };
    let container = || one(ResourceKind::Container, &["container.id"]);
    let pod = || one(ResourceKind::Pod, &["k8s.pod.uid"]);
    let host = || one(ResourceKind::Host, &["host.id", "host.name"]);
    match seen.id.kind() {
        ResourceKind::App => container().or_else(pod).or_else(host),
        ResourceKind::Container => pod().or_else(host),
        ResourceKind::Pod => host(),
        ResourceKind::Host => seen.agent_id.map(|agent| agent_resource(seen.tenant, agent)),
        ResourceKind::Agent | ResourceKind::Device | ResourceKind::Syslog | ResourceKind::Otel => None,
    }
}

/// The resource that an agent is itself.
#[must_use]
pub fn agent_resource(tenant: &str, agent_id: &str) -> ResourceId {
    let kind = ResourceKind::Agent.as_str();
    identify(tenant, [("resource.kind", kind), ("agent.id", agent_id)]).id
}

/// What is told of a resource's agent: itself, and where it runs.
fn agent(seen: &Described<'_>) -> Option<(ResourceId, ResourceSeen)> {
    const OF_AGENTS: [&str; 6] = ["agent.version", "host.id", "host.name", "os.type", "platform", "endpoint.id"];
    let agent_id = seen.agent_id?;
    // Only what runs beside it says where it runs; a container's own facts are not its agent's.
    if seen.id.kind() != ResourceKind::Host {
        return None;
    }
    let id = agent_resource(seen.tenant, agent_id);
    let described = seen.labels.iter().filter(|(name, _)| OF_AGENTS.contains(name));
    let mut labels: HashMap<String, String> =
        described.map(|(name, value)| ((*name).to_owned(), cut(value).to_owned())).collect();
    labels.insert("agent.id".to_owned(), agent_id.to_owned());
    let announcement = ResourceSeen {
        tenant: seen.tenant.to_string(),
        id: id.to_string(),
        kind: ResourceKind::Agent.to_string(),
        labels,
        agent_id: agent_id.to_owned(),
        seen_unix_nano: seen.now_unix_nano,
        parent_id: String::new(),
    };
    Some((id, announcement))
}

/// A resource's attributes as labels.
#[must_use]
pub fn labels<'a>(attributes: impl Iterator<Item = Attribute<'a>>) -> Vec<(&'a str, std::borrow::Cow<'a, str>)> {
    attributes.map(|attribute| (attribute.key, attribute.value.text())).collect()
}

fn cut(value: &str) -> &str {
    &value[..value.floor_char_boundary(LONGEST_LABEL)]
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use telemetry::metrics::Registry;

    use super::*;

    fn note(sightings: &Sightings, attributes: &[(&'static str, &'static str)], detail: Detail) -> ResourceId {
        let tenant: Arc<str> = "default".into();
        let labels: Vec<_> = attributes.iter().map(|(name, value)| (*name, Cow::Borrowed(*value))).collect();
        let id = identify(&tenant, attributes.iter().copied()).id;
        let seen = Described { tenant: &tenant, id, agent_id: Some("a1"), labels: &labels, now_unix_nano: 7 };
        sightings.note(&seen, detail);
        id
    }

    #[test]
    fn a_host_is_told_once_with_its_agent_above_it() {
        let (sightings, mut announcer) = sightings(&Metrics::register(&mut Registry::default()));
        let host = [("host.id", "h1"), ("host.name", "web-1"), ("resource.kind", "host")];
        let id = note(&sightings, &host[..1], Detail::Sparse);
        note(&sightings, &host, Detail::Full);
        note(&sightings, &host, Detail::Full);
        note(&sightings, &host[..1], Detail::Sparse);
        let told: Vec<_> = std::iter::from_fn(|| announcer.queue.try_recv().ok()).map(|(_, seen, _)| seen).collect();
        let ids: Vec<_> = told.iter().map(|seen| seen.kind.as_str()).collect();
        assert_eq!(ids, ["agent", "host", "agent", "host"]);
        assert_eq!(told[3].id, id.to_string());
        assert_eq!(told[3].parent_id, told[2].id);
        assert_eq!(told[3].labels["host.name"], "web-1");
        assert_eq!(told[2].labels["agent.id"], "a1");
    }

    #[test]
    fn what_waits_to_be_told_is_bounded_by_its_bytes() {
        let (sightings, mut announcer) = sightings(&Metrics::register(&mut Registry::default()));
        let tenant: Arc<str> = "default".into();
        let long = "x".repeat(LONGEST_LABEL);
        let names: Vec<String> = (0..MOST_LABELS).map(|n| n.to_string()).collect();
        let labels: Vec<_> = names.iter().map(|name| (name.as_str(), Cow::Borrowed(long.as_str()))).collect();
        for n in 0..1_000 {
            let id = identify(&tenant, [("host.id", n.to_string().as_str())]).id;
            let seen = Described { tenant: &tenant, id, agent_id: None, labels: &labels, now_unix_nano: 7 };
            sightings.note(&seen, Detail::Full);
        }
        let waiting: usize =
            std::iter::from_fn(|| announcer.queue.try_recv().ok()).map(|(_, seen, _)| seen.encoded_len()).sum();
        assert!(waiting > QUEUE_BYTES / 2 && waiting <= QUEUE_BYTES, "{waiting} bytes wait");
    }

    #[test]
    fn a_container_lives_in_its_host() {
        let (sightings, mut announcer) = sightings(&Metrics::register(&mut Registry::default()));
        let host = note(&sightings, &[("host.id", "h1")], Detail::Full);
        note(&sightings, &[("container.id", "c1"), ("host.id", "h1")], Detail::Full);
        let told: Vec<_> = std::iter::from_fn(|| announcer.queue.try_recv().ok()).map(|(_, seen, _)| seen).collect();
        assert_eq!(told.last().map(|seen| seen.parent_id.clone()), Some(host.to_string()));
    }
}
