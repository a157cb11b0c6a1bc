//! What processes used, from `/proc`.

use std::collections::BTreeMap;

/// The kernel's clock ticks a second on every Linux that Rust runs on (`getconf CLK_TCK`).
const TICKS: f64 = 100.0;

/// CPU time, user and system, of a process, of its children that have ended and of those that live: a PostgreSQL is a
/// process a connection. In seconds.
#[must_use]
pub fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The program's name may hold anything; fields 14 to 17 count from behind its parenthesis.
    let ticks: f64 = stat.rsplit_once(')').map_or(0.0, |(_, rest)| {
        rest.split_whitespace().skip(11).take(4).filter_map(|field| field.parse::<f64>().ok()).sum()
    });
    ticks / TICKS + children(pid).into_iter().map(cpu_seconds).sum::<f64>()
}

/// Most memory that a process ever had resident, in mebibytes.
#[must_use]
pub fn peak_rss_mib(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_default();
    let kibibytes: f64 = line.split_whitespace().nth(1).and_then(|field| field.parse().ok()).unwrap_or_default();
    kibibytes / 1024.0
}

fn children(pid: u32) -> Vec<u32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}

/// What each of some processes used until now.
#[must_use]
pub fn all(pids: &BTreeMap<String, u32>) -> BTreeMap<String, f64> {
    pids.iter().map(|(name, pid)| (name.clone(), cpu_seconds(*pid))).collect()
}
