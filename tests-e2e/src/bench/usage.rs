//! What a process used, from `/proc`.

use std::path::Path;

/// The kernel's clock ticks a second on every Linux that Rust runs on (`getconf CLK_TCK`).
const TICKS: f64 = 100.0;

/// CPU time of a process so far, user and system, in seconds.
#[must_use]
pub fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The program's name may hold anything; fields 14 and 15 count from behind its parenthesis.
    let fields: Vec<f64> = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace().skip(11).take(2).filter_map(|field| field.parse().ok()).collect())
        .unwrap_or_default();
    fields.iter().sum::<f64>() / TICKS
}

/// Most memory that a process ever had resident, in mebibytes.
#[must_use]
pub fn peak_rss_mib(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_default();
    let kibibytes: f64 = line.split_whitespace().nth(1).and_then(|field| field.parse().ok()).unwrap_or_default();
    kibibytes / 1024.0
}

/// The process of a server that was started with `argument` among its arguments.
#[must_use]
pub fn find(program: &str, argument: &str) -> Option<u32> {
    std::fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let arguments: Vec<&str> =
            line.split(|byte| *byte == 0).filter_map(|part| std::str::from_utf8(part).ok()).collect();
        let named = Path::new(arguments.first()?).file_name()?.to_str()? == program;
        (named && arguments.iter().any(|part| part.contains(argument))).then_some(pid)
    })
}
