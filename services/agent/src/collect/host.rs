//! `System.Host`.

use super::sheet::Sheet;
use crate::identity::Identity;
use crate::procfs::double;

pub fn fill(sheet: &mut Sheet, processes: usize, users: usize, uptime_seconds: f64, identity: &Identity) {
    sheet.gauge("procs", "count", double(processes as u64), &[]);
    sheet.gauge("users_loggedin", "count", double(users as u64), &[]);
    sheet.gauge("uptime", "seconds", uptime_seconds, &[]);
    let facts = &identity.facts;
    let attributes = [
        ("host_id", identity.host_id.as_str()),
        ("hostname", &facts.host_name),
        ("os", facts.os),
        ("platform", &facts.platform),
        ("platform_family", &facts.platform_family),
        ("platform_version", &facts.platform_version),
        ("kernel_version", &facts.kernel_version),
        ("kernel_arch", facts.arch),
        ("virtualization_system", facts.virtualization_system),
        ("virtualization_role", facts.virtualization_role),
    ];
    sheet.gauge("info", "info", 1.0, &attributes);
}
