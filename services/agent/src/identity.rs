//! Who this agent is and what host it runs on, read once at start.

mod facts;

use std::path::Path;

use anyhow::Context as _;
use opentelemetry_proto::tonic::resource::v1::Resource;
use proto::gosight::Meta;
use uuid::Uuid;

use crate::attributes::attributes;
use crate::host_root::HostRoot;
use crate::state;
pub use facts::Facts;

pub const VERSION: &str = env!("CARGO_PKG_VERSION");

#[derive(Debug, Clone)]
pub struct Identity {
    /// A UUID, made at the first start and kept.
    pub agent_id: String,
    pub host_id: String,
    pub facts: Facts,
}

impl Identity {
    /// # Errors
    /// The state folder cannot be read or written, or its agent id is damaged.
    pub fn establish(state_dir: &Path, root: &HostRoot) -> anyhow::Result<Self> {
        let (agent_id, host_id) = (agent_id(state_dir)?, host_id(state_dir, root)?);
        Ok(Self { agent_id, host_id, facts: Facts::read(root) })
    }

    #[cfg(test)]
    pub fn for_test(state_dir: &Path) -> Self {
        Self::establish(state_dir, &HostRoot::new(Path::new("/"))).unwrap()
    }

    /// The OTLP resource of this host.
    pub fn resource(&self) -> Resource {
        let facts = &self.facts;
        let attributes = attributes(&[
            ("host.id", &self.host_id),
            ("host.name", &facts.host_name),
            ("agent.id", &self.agent_id),
            ("agent.version", VERSION),
            ("resource.kind", "host"),
            ("os.type", facts.os),
            ("os.version", &facts.platform_version),
            ("platform", &facts.platform),
            ("arch", facts.arch),
            ("kernel.version", &facts.kernel_version),
            ("host.ip", &facts.ip),
            ("host.mac", &facts.mac),
        ]);
        Resource { attributes, ..Resource::default() }
    }

    /// The same for GoSight's payloads.
    pub fn meta(&self) -> Meta {
        let facts = self.facts.clone();
        Meta {
            agent_id: self.agent_id.clone(),
            agent_version: VERSION.to_owned(),
            host_id: self.host_id.clone(),
            hostname: facts.host_name,
            ip_address: facts.ip,
            mac_address: facts.mac,
            os: facts.os.to_owned(),
            os_version: facts.platform_version.clone(),
            platform: facts.platform,
            platform_family: facts.platform_family,
            platform_version: facts.platform_version,
            kernel_version: facts.kernel_version,
            kernel_architecture: facts.arch.to_owned(),
            architecture: facts.arch.to_owned(),
            virtualization_system: facts.virtualization_system.to_owned(),
            virtualization_role: facts.virtualization_role.to_owned(),
            kind: "host".to_owned(),
            ..Meta::default()
        }
    }
}

/// The agent's id, created when there is none yet. A damaged one is not replaced silently: it would make a second
/// agent of this host.
pub fn agent_id(state_dir: &Path) -> anyhow::Result<String> {
    state::prepare(state_dir)?;
    let path = state_dir.join("agent-id");
    let text = state::keep(&path, || Uuid::new_v4().to_string())?;
    let id = Uuid::parse_str(&text)
        .with_context(|| format!("read the agent id in {}; remove the file to become a new agent", path.display()))?;
    Ok(id.to_string())
}

fn host_id(state_dir: &Path, root: &HostRoot) -> anyhow::Result<String> {
    let machine_id = ["/etc/machine-id", "/var/lib/dbus/machine-id"]
        .into_iter()
        .filter_map(|path| root.read(path).ok())
        .find_map(|text| machine_id(&text));
    match machine_id {
        Some(id) => Ok(id),
        None => state::keep(&state_dir.join("host-id"), || Uuid::new_v4().simple().to_string()),
    }
}

/// An image that has not been booted yet holds `uninitialized` or nothing.
fn machine_id(text: &str) -> Option<String> {
    let text = text.trim();
    (text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_id_outlives_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let state_dir = folder.path().join("new/state");
        let id = agent_id(&state_dir).unwrap();
        assert_eq!(agent_id(&state_dir).unwrap(), id);
        assert!(Uuid::parse_str(&id).is_ok());
    }

    #[test]
    fn a_damaged_agent_id_is_an_error_not_a_new_agent() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("agent-id"), "half-a-").unwrap();
        assert!(format!("{:#}", agent_id(folder.path()).unwrap_err()).contains("remove the file"));
    }

    #[test]
    fn an_unbooted_image_has_no_machine_id() {
        assert_eq!(machine_id("uninitialized\n"), None);
        assert_eq!(machine_id(""), None);
        assert!(machine_id("3d1219c7c4c5404aaa1f6d2a48adfda4\n").is_some());
    }

    #[test]
    fn the_resource_names_host_and_agent_and_no_service() {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity::for_test(folder.path());
        let resource = identity.resource();
        let keys: Vec<_> = resource.attributes.iter().map(|attribute| attribute.key.as_str()).collect();
        for key in
            ["host.id", "host.name", "agent.id", "agent.version", "resource.kind", "os.type", "arch", "kernel.version"]
        {
            assert!(keys.contains(&key), "{key} is missing");
        }
        assert!(!keys.contains(&"service.name"));
    }
}
