//! What is known about the host. What cannot be found out is empty.

use std::fs;
use std::net::{IpAddr, UdpSocket};

use crate::host_root::HostRoot;
use crate::procfs::{cpu, host, network};

#[derive(Debug, Clone, Default)]
pub struct Facts {
    pub host_name: String,
    pub os: &'static str,
    pub platform: String,
    pub platform_family: String,
    pub platform_version: String,
    pub kernel_version: String,
    pub arch: &'static str,
    pub virtualization_system: &'static str,
    pub virtualization_role: &'static str,
    /// The address that packets to the outside leave with.
    pub ip: String,
    pub mac: String,
}

impl Facts {
    pub fn read(root: &HostRoot) -> Self {
        let release = ["/etc/os-release", "/usr/lib/os-release"]
            .into_iter()
            .map(|path| read(root, path))
            .find(|text| !text.is_empty())
            .map(|text| host::os_release(&text))
            .unwrap_or_default();
        let virtualization_system = virtualization(root);
        Self {
            host_name: host_name(root),
            os: std::env::consts::OS,
            platform: release.id,
            platform_family: release.family,
            platform_version: release.version_id,
            kernel_version: read(root, "/proc/sys/kernel/osrelease"),
            arch: std::env::consts::ARCH,
            virtualization_role: if virtualization_system.is_empty() { "" } else { "guest" },
            virtualization_system,
            ip: address().map(|address| address.to_string()).unwrap_or_default(),
            mac: hardware_address(root),
        }
    }
}

fn read(root: &HostRoot, path: &str) -> String {
    root.read(path).unwrap_or_default().trim().to_owned()
}

/// The kernel tells whoever asks the name in his own namespace, which in a container is the container's.
fn host_name(root: &HostRoot) -> String {
    let kernel = || read(root, "/proc/sys/kernel/hostname");
    if root.is_own() {
        return kernel();
    }
    Some(read(root, "/etc/hostname")).filter(|name| !name.is_empty()).unwrap_or_else(kernel)
}

fn virtualization(root: &HostRoot) -> &'static str {
    for (mark, system) in [("/.dockerenv", "docker"), ("/run/.containerenv", "podman")] {
        if root.path(mark).exists() {
            return system;
        }
    }
    let hypervisor = cpu::processors(&read(root, "/proc/cpuinfo")).iter().any(|processor| processor.hypervisor);
    let dmi = |name: &str| read(root, &format!("/sys/class/dmi/id/{name}"));
    host::virtualization(&dmi("sys_vendor"), &dmi("product_name"), hypervisor).unwrap_or_default()
}

/// Connecting a datagram socket sends nothing, but makes the kernel choose a route and with it an address of ours.
/// The target is from the range for documentation (RFC 5737), which nobody answers at.
fn address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_unspecified() && !address.is_loopback()).then_some(address)
}

/// Of the interface with the default route, else of the first that has one.
fn hardware_address(root: &HostRoot) -> String {
    let route = root.read_of_host("net/route").unwrap_or_default();
    let preferred = network::default_interface(&route).map(str::to_owned);
    let mut names: Vec<String> = fs::read_dir(root.path("/sys/class/net"))
        .map(|entries| entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
        .unwrap_or_default();
    names.sort();
    preferred
        .into_iter()
        .chain(names)
        .map(|name| read(root, &format!("/sys/class/net/{name}/address")))
        .find(|address| !address.is_empty() && address != "00:00:00:00:00:00")
        .unwrap_or_default()
}
