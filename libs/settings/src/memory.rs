//! How much memory the process may use, for limits whose default is a share of it.

use std::fs;

/// What is assumed where the system does not say.
const UNKNOWN: u64 = 1 << 30;

/// Bytes that this process may use: what its control group is limited to, else what the machine has.
#[must_use]
pub fn memory() -> u64 {
    let group = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = limit_files(&group).into_iter().filter_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok());
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
    limits.chain(machine).min().unwrap_or(UNKNOWN)
}

/// Where limits stand: of the group and of those above it, of both generations of control groups.
fn limit_files(group: &str) -> Vec<String> {
    let mut files = Vec::new();
    for line in group.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (root, name, mut path) = match (fields.next(), fields.next()) {
            (Some(""), Some(path)) => ("/sys/fs/cgroup", "memory.max", path),
            (Some(kinds), Some(path)) if kinds.split(',').any(|kind| kind == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", path)
            }
            _ => continue,
        };
        while let Some((above, _)) = path.rsplit_once('/').filter(|_| path != "/") {
            files.push(format!("{root}{path}/{name}"));
            path = above;
        }
        files.push(format!("{root}/{name}"));
    }
    files
}

fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_looked_for_in_the_group_and_above() {
        let second = limit_files("0::/kubepods/pod1\n");
        let expected = ["/kubepods/pod1", "/kubepods", ""].map(|path| format!("/sys/fs/cgroup{path}/memory.max"));
        assert_eq!(second, expected);
        assert_eq!(limit_files("0::/\n"), ["/sys/fs/cgroup/memory.max"]);
        let first = limit_files("9:name=systemd:/x\n4:cpu,memory:/docker/1\n");
        assert_eq!(first[0], "/sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes");
        assert_eq!(first.len(), 3);
    }

    #[test]
    fn the_machine_says_how_much_it_has() {
        assert_eq!(total("MemFree: 1 kB\nMemTotal:       2048 kB\n"), Some(2 << 20));
        assert_eq!(total("MemTotal: many"), None);
        assert!(memory() > 16 << 20);
    }
}
