//! What reports, and the name that it keeps: a resource's kind and id, computed from its OpenTelemetry attributes.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;
use sha2::{Digest as _, Sha256};
use xxhash_rust::xxh3::Xxh3Default;

/// What sort of thing reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResourceKind {
    /// A program of ours or of GoSight's that collects.
    Agent,
    /// A machine.
    Host,
    /// A container on a host.
    Container,
    /// A service, or one instance of it.
    App,
    /// A Kubernetes pod.
    Pod,
    /// Network gear and the like.
    Device,
    /// A sender of syslog.
    Syslog,
    /// Anything else that speaks OTLP.
    Otel,
}

impl ResourceKind {
    /// Every kind.
    pub const ALL: [Self; 8] =
        [Self::Agent, Self::Host, Self::Container, Self::App, Self::Pod, Self::Device, Self::Syslog, Self::Otel];

    /// The kind's name in labels, ids and the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Host => "host",
            Self::Container => "container",
            Self::App => "app",
            Self::Pod => "pod",
            Self::Device => "device",
            Self::Syslog => "syslog",
            Self::Otel => "otel",
        }
    }
}

impl fmt::Display for ResourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ResourceKind {
    type Err = InvalidResourceId;

    fn from_str(text: &str) -> Result<Self, InvalidResourceId> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or(InvalidResourceId)
    }
}

/// `<kind>-<26 characters of base32, lower case>`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceId {
    kind: ResourceKind,
    hash: [u8; 16],
}

/// The text is no resource id, or names no kind.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a resource id is a kind, `-` and 26 characters of base32, such as host-abc...")]
pub struct InvalidResourceId;

impl ResourceId {
    /// The kind, which is part of the id.
    #[must_use]
    pub fn kind(&self) -> ResourceKind {
        self.kind
    }
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 26];
        BASE32_NOPAD.encode_mut(&self.hash, &mut text);
        text.make_ascii_lowercase();
        write!(f, "{}-{}", self.kind, std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ResourceId {
    type Err = InvalidResourceId;

    fn from_str(text: &str) -> Result<Self, InvalidResourceId> {
        let (kind, hash) = text.split_once('-').ok_or(InvalidResourceId)?;
        if hash.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(InvalidResourceId);
        }
        let bytes = BASE32_NOPAD.decode(hash.to_ascii_uppercase().as_bytes()).map_err(|_| InvalidResourceId)?;
        Ok(Self { kind: kind.parse()?, hash: bytes.try_into().map_err(|_| InvalidResourceId)? })
    }
}

/// What [`identify`] found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identified {
    /// The resource's id.
    pub id: ResourceId,
    /// The resource's kind.
    pub kind: ResourceKind,
}

/// Names the resource that `attributes` describe; of a key that repeats, the last counts.
///
/// The kind is what `resource.kind` says when that is a kind whose identifying attributes are there, else it follows from
/// which attributes are present: an instance of a service before its container, a container before its pod, and a pod
/// before its host. A resource without any of them is `otel`, identified by all that it says about itself.
pub fn identify<'a>(tenant: &str, attributes: impl IntoIterator<Item = (&'a str, &'a str)>) -> Identified {
    let mut seen = Seen::default();
    for (key, value) in attributes {
        seen.note(key, value);
    }
    let claimed = seen.kind.and_then(|kind| kind.parse().ok());
    let inferred =
        [ResourceKind::App, ResourceKind::Container, ResourceKind::Pod, ResourceKind::Host, ResourceKind::Agent];
    let (kind, labels) = claimed
        .into_iter()
        .chain(inferred)
        .find_map(|kind| seen.identity(kind).map(|labels| (kind, labels)))
        .unwrap_or_else(|| (ResourceKind::Otel, seen.everything()));
    Identified { id: ResourceId { kind, hash: digest(tenant, kind, &labels) }, kind }
}

/// The shard, below `shards`, that carries a resource's telemetry.
#[must_use]
pub fn shard(tenant: &str, resource: &ResourceId, shards: u16) -> u16 {
    let mut hash = Xxh3Default::new();
    hash.update(tenant.as_bytes());
    hash.update(&[0xff]);
    hash.update(resource.kind.as_str().as_bytes());
    hash.update(&resource.hash);
    let shard = hash.digest() % u64::from(shards.max(1));
    u16::try_from(shard).unwrap_or(0)
}

type Label<'a> = (&'static str, &'a str);

#[derive(Default)]
struct Seen<'a> {
    all: Vec<(&'a str, &'a str)>,
    kind: Option<&'a str>,
    host_id: Option<&'a str>,
    host_name: Option<&'a str>,
    host_ip: Option<&'a str>,
    container_id: Option<&'a str>,
    pod_uid: Option<&'a str>,
    service_namespace: Option<&'a str>,
    service_name: Option<&'a str>,
    service_instance: Option<&'a str>,
    process_id: Option<&'a str>,
    agent_id: Option<&'a str>,
}

impl<'a> Seen<'a> {
    fn note(&mut self, key: &'a str, value: &'a str) {
        if value.is_empty() {
            return;
        }
        self.all.push((key, value));
        let place = match key {
            "resource.kind" => &mut self.kind,
            "host.id" => &mut self.host_id,
            "host.name" => &mut self.host_name,
            "host.ip" => &mut self.host_ip,
            "container.id" => &mut self.container_id,
            "k8s.pod.uid" => &mut self.pod_uid,
            "service.namespace" => &mut self.service_namespace,
            "service.name" => &mut self.service_name,
            "service.instance.id" => &mut self.service_instance,
            "process.pid" => &mut self.process_id,
            "agent.id" => &mut self.agent_id,
            _ => return,
        };
        *place = Some(value);
    }

    /// The identifying labels of `kind`, when they are there.
    fn identity(&self, kind: ResourceKind) -> Option<Vec<Label<'a>>> {
        let of = |name, value: Option<&'a str>| value.map(|value| vec![(name, value)]);
        match kind {
            ResourceKind::Host => of("host.id", self.host_id).or_else(|| of("host.name", self.host_name)),
            ResourceKind::Container => of("container.id", self.container_id),
            ResourceKind::Pod => of("k8s.pod.uid", self.pod_uid),
            ResourceKind::Agent => of("agent.id", self.agent_id),
            ResourceKind::App => self.service_name.map(|name| {
                let namespace = ("service.namespace", self.service_namespace.unwrap_or_default());
                vec![namespace, ("service.name", name), self.instance()]
            }),
            ResourceKind::Device | ResourceKind::Syslog => {
                let (ip, name) = (self.host_ip.unwrap_or_default(), self.host_name.unwrap_or_default());
                (!ip.is_empty() || !name.is_empty()).then(|| vec![("host.ip", ip), ("host.name", name)])
            }
            ResourceKind::Otel => None,
        }
    }

    /// What tells instances of one service apart. Few SDKs set an instance id by themselves; without this all replicas of a
    /// deployment would be one resource, and their counters one series.
    fn instance(&self) -> Label<'a> {
        let known = [
            ("service.instance.id", self.service_instance),
            ("container.id", self.container_id),
            ("k8s.pod.uid", self.pod_uid),
            ("host.id", self.host_id),
            ("host.name", self.host_name),
            ("process.pid", self.process_id),
        ];
        let first = known.into_iter().find_map(|(name, value)| Some((name, value?)));
        first.unwrap_or(("service.instance.id", ""))
    }

    fn everything(&self) -> Vec<(&'a str, &'a str)> {
        let mut all = self.all.clone();
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// SHA-256, cut to 128 bits, over length-prefixed parts.
fn digest(tenant: &str, kind: ResourceKind, labels: &[(&str, &str)]) -> [u8; 16] {
    let mut sha = Sha256::new();
    let mut part = |text: &str| {
        sha.update((text.len() as u64).to_be_bytes());
        sha.update(text.as_bytes());
    };
    part(tenant);
    part(kind.as_str());
    for (name, value) in labels {
        part(name);
        part(value);
    }
    let mut hash = [0; 16];
    hash.copy_from_slice(&sha.finalize()[..16]);
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(attributes: &[(&'static str, &'static str)]) -> String {
        identify("default", attributes.iter().copied()).id.to_string()
    }

    #[test]
    fn ids_never_change_between_versions() {
        let cases: [(&str, &[(&'static str, &'static str)]); 13] = [
            ("host-qweikbwvw5jerkrfyuohirspfm", &[("host.id", "h1"), ("host.name", "web-1")]),
            ("host-o5srxv6y2xfb4xsaakioqpq2xy", &[("host.name", "web-1")]),
            ("container-om5phzlidablrvsaqokywqjepi", &[("container.id", "c1"), ("host.id", "h1")]),
            ("app-x52gdlh32vm2gfpl3ueimeabjm", &[("service.name", "shop"), ("service.instance.id", "i1")]),
            (
                "app-5ia2sz4m2vyp5qqzrfwkoh2jai",
                &[("service.name", "shop"), ("service.namespace", "eu"), ("container.id", "c1")],
            ),
            ("app-2tpelcqjwy75lahudmhdjqcx4i", &[("service.name", "shop"), ("k8s.pod.uid", "p1"), ("host.id", "h1")]),
            ("app-dlg5euzisafqhlleg7zc4vcydi", &[("service.name", "shop"), ("host.id", "h1"), ("host.name", "web-1")]),
            (
                "app-jyfdivy5efjyz3dmjwaaywivea",
                &[("service.name", "shop"), ("host.name", "web-1"), ("process.pid", "17")],
            ),
            ("app-mw4bsvsxjrxq53kcxh2bnwcsze", &[("service.name", "shop"), ("process.pid", "17")]),
            ("app-kwaxdwh27ltyjdb2ogbygevhlm", &[("service.name", "shop")]),
            ("device-lm5rnm6d4tjvyoz2jfgi2zkvpa", &[("resource.kind", "device"), ("host.ip", "10.0.0.1")]),
            ("agent-2ecs2t2vp4lvoaaw3g7coium6a", &[("agent.id", "a1")]),
            ("otel-iau4zgli2xteyteajqsnsdtrgy", &[]),
        ];
        for (expected, attributes) in cases {
            assert_eq!(id(attributes), expected);
        }
    }

    #[test]
    fn the_kind_follows_from_what_is_there() {
        let kind = |attributes: &[(&'static str, &'static str)]| identify("t", attributes.iter().copied()).kind;
        assert_eq!(kind(&[("host.id", "h"), ("service.name", "s")]), ResourceKind::App);
        assert_eq!(kind(&[("host.id", "h"), ("service.name", "s"), ("resource.kind", "host")]), ResourceKind::Host);
        assert_eq!(kind(&[("host.id", "h"), ("resource.kind", "container")]), ResourceKind::Host);
        assert_eq!(kind(&[("host.id", "h"), ("agent.id", "a")]), ResourceKind::Host);
        assert_eq!(kind(&[("host.id", "h"), ("agent.id", "a"), ("resource.kind", "agent")]), ResourceKind::Agent);
        assert_eq!(kind(&[("host.id", "h"), ("resource.kind", "toaster")]), ResourceKind::Host);
        assert_eq!(kind(&[("host.name", "h"), ("container.id", "c")]), ResourceKind::Container);
        assert_eq!(kind(&[("host.name", "h"), ("k8s.pod.uid", "p")]), ResourceKind::Pod);
        assert_eq!(kind(&[("colour", "blue"), ("host.name", "")]), ResourceKind::Otel);
    }

    #[test]
    fn replicas_of_a_service_are_apart_by_the_first_identity_that_is_there() {
        let shop = |more: &[(&'static str, &'static str)]| {
            let name = [("service.name", "shop")];
            identify("t", name.into_iter().chain(more.iter().copied())).id
        };
        for key in ["service.instance.id", "container.id", "k8s.pod.uid", "host.id", "host.name", "process.pid"] {
            assert_ne!(shop(&[(key, "a")]), shop(&[(key, "b")]), "{key}");
            assert_ne!(shop(&[(key, "a")]), shop(&[]), "{key}");
        }
        // What comes behind it does not matter: a pod that moves, a host that is renamed, a process that starts again.
        let pod = shop(&[("k8s.pod.uid", "p"), ("host.name", "n1"), ("process.pid", "1")]);
        assert_eq!(pod, shop(&[("k8s.pod.uid", "p"), ("host.name", "n2"), ("process.pid", "2")]));
    }

    #[test]
    fn tenants_do_not_share_a_resource() {
        let a = identify("a", [("host.id", "h")]);
        let b = identify("b", [("host.id", "h")]);
        assert_ne!(a.id, b.id);
    }

    #[test]
    fn what_does_not_identify_does_not_matter() {
        assert_eq!(id(&[("host.id", "h"), ("os.type", "linux")]), id(&[("os.type", "plan9"), ("host.id", "h")]));
        assert_ne!(id(&[("colour", "blue")]), id(&[("colour", "red")]));
    }

    #[test]
    fn an_id_reads_back_from_its_text() {
        let id = identify("default", [("host.id", "h1")]).id;
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "host", "host-", "toaster-aaaaaaaaaaaaaaaaaaaaaaaaaa", "host-AAAAAAAAAAAAAAAAAAAAAAAAAA"] {
            assert_eq!(bad.parse::<ResourceId>(), Err(InvalidResourceId), "{bad}");
        }
    }

    #[test]
    fn shards_are_even_and_fixed() {
        let ids: Vec<ResourceId> =
            (0..1000).map(|n| identify("default", [("host.id", n.to_string().as_str())]).id).collect();
        let first = ids.iter().filter(|id| shard("default", id, 4) == 0).count();
        assert!((180..320).contains(&first), "{first} of 1000 in one of four shards");
        assert_eq!(shard("default", &ids[0], 1), 0);
        assert_eq!((0..8).map(|n| shard("default", &ids[n], 16)).collect::<Vec<_>>(), [3, 12, 15, 9, 2, 7, 15, 10]);
    }
}
