//! `/proc/stat`, `/proc/loadavg` and `/proc/cpuinfo`.

use std::collections::{BTreeMap, BTreeSet};

use super::{Malformed, double, number, percent};

/// Clock ticks since boot that one core, or all of them, spent in each state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ticks {
    pub user: u64,
    pub nice: u64,
    pub system: u64,
    pub idle: u64,
    pub iowait: u64,
    pub irq: u64,
    pub softirq: u64,
    pub steal: u64,
    pub guest: u64,
    pub guest_nice: u64,
}

impl Ticks {
    /// Guest time is part of user and nice already.
    fn total(&self) -> u64 {
        self.busy() + self.idle + self.iowait
    }

    fn busy(&self) -> u64 {
        self.user + self.nice + self.system + self.irq + self.softirq + self.steal
    }

    /// Percent of the time since `earlier` that was neither idle nor waiting for a disk.
    pub fn usage_since(&self, earlier: &Self) -> f64 {
        let whole = self.total().saturating_sub(earlier.total());
        let busy = self.busy().saturating_sub(earlier.busy());
        percent(double(busy), double(whole)).min(100.0)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stat {
    pub total: Ticks,
    /// By core number; a core that is offline is absent.
    pub cores: BTreeMap<u32, Ticks>,
    pub boot_time_unix_seconds: u64,
}

pub fn stat(text: &str) -> Result<Stat, Malformed> {
    let mut stat = Stat::default();
    let mut total = None;
    for line in text.lines() {
        let mut fields = line.split_ascii_whitespace();
        match fields.next() {
            Some("cpu") => total = Some(ticks(fields)?),
            Some("btime") => stat.boot_time_unix_seconds = number(&mut fields, "/proc/stat", "btime")?,
            Some(name) => {
                if let Some(core) = name.strip_prefix("cpu").and_then(|n| n.parse().ok()) {
                    stat.cores.insert(core, ticks(fields)?);
                }
            }
            None => {}
        }
    }
    stat.total = total.ok_or(Malformed { file: "/proc/stat", field: "cpu line" })?;
    Ok(stat)
}

/// Old kernels print fewer columns; those they lack are 0.
fn ticks<'a>(mut fields: impl Iterator<Item = &'a str>) -> Result<Ticks, Malformed> {
    let mut required = |field| number(&mut fields, "/proc/stat", field);
    let (user, nice, system, idle) =
        (required("user time")?, required("nice time")?, required("system time")?, required("idle time")?);
    let mut optional = || fields.next().and_then(|text| text.parse().ok()).unwrap_or(0);
    Ok(Ticks {
        user,
        nice,
        system,
        idle,
        iowait: optional(),
        irq: optional(),
        softirq: optional(),
        steal: optional(),
        guest: optional(),
        guest_nice: optional(),
    })
}

/// Load averages over 1, 5 and 15 minutes.
pub fn load_averages(text: &str) -> Result<[f64; 3], Malformed> {
    let mut fields = text.split_ascii_whitespace();
    let mut next = || {
        fields
            .next()
            .and_then(|text| text.parse().ok())
            .ok_or(Malformed { file: "/proc/loadavg", field: "load average" })
    };
    Ok([next()?, next()?, next()?])
}

/// One logical processor as `/proc/cpuinfo` describes it. Fields that an architecture does not print are empty.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Processor {
    pub number: String,
    pub vendor: String,
    pub family: String,
    pub model: String,
    pub stepping: String,
    pub physical_id: String,
    pub core_id: String,
    /// Kilobytes.
    pub cache: String,
    pub mhz: Option<f64>,
    pub hypervisor: bool,
}

pub fn processors(text: &str) -> Vec<Processor> {
    text.split("\n\n").filter_map(processor).collect()
}

fn processor(block: &str) -> Option<Processor> {
    let mut found = Processor::default();
    for line in block.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        match key.trim() {
            "processor" => value.clone_into(&mut found.number),
            "vendor_id" => value.clone_into(&mut found.vendor),
            "cpu family" => value.clone_into(&mut found.family),
            "model name" => value.clone_into(&mut found.model),
            "stepping" => value.clone_into(&mut found.stepping),
            "physical id" => value.clone_into(&mut found.physical_id),
            "core id" => value.clone_into(&mut found.core_id),
            "cache size" => value.trim_end_matches(" KB").clone_into(&mut found.cache),
            "cpu MHz" => found.mhz = value.parse().ok(),
            "flags" => found.hypervisor = value.split(' ').any(|flag| flag == "hypervisor"),
            _ => {}
        }
    }
    (!found.number.is_empty()).then_some(found)
}

/// Distinct cores over all sockets. Architectures that print no core ids have one thread a core as far as one can tell.
pub fn physical_cores(processors: &[Processor]) -> usize {
    let distinct: BTreeSet<_> = processors
        .iter()
        .filter(|processor| !processor.core_id.is_empty())
        .map(|processor| (&processor.physical_id, &processor.core_id))
        .collect();
    if distinct.is_empty() { processors.len() } else { distinct.len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = include_str!("../../tests/fixtures/stat.txt");
    const CPUINFO: &str = include_str!("../../tests/fixtures/cpuinfo.txt");

    #[test]
    fn stat_of_a_debian_12_host_reads_completely() {
        let stat = stat(STAT).unwrap();
        assert_eq!(stat.cores.keys().copied().collect::<Vec<_>>(), [0, 1]);
        assert!(stat.boot_time_unix_seconds > 1_600_000_000);
        assert_eq!(stat.cores.values().map(|core| core.guest).sum::<u64>(), stat.total.guest);
        assert!(stat.total.user.abs_diff(stat.cores.values().map(|core| core.user).sum()) <= 2);
    }

    #[test]
    fn stat_of_an_old_kernel_lacks_columns_and_still_reads() {
        let stat = stat("cpu  10 2 3 40\nbtime 1700000000\n").unwrap();
        assert_eq!((stat.total.user, stat.total.idle, stat.total.steal), (10, 40, 0));
    }

    #[test]
    fn text_without_a_cpu_line_is_malformed() {
        assert!(stat("intr 5\n").is_err());
        assert!(stat("cpu  x 2 3 4\n").is_err());
    }

    #[test]
    fn usage_counts_neither_idle_nor_iowait_nor_guest_twice() {
        let earlier = Ticks { user: 100, idle: 900, ..Ticks::default() };
        let later = Ticks { user: 130, guest: 30, system: 20, idle: 940, iowait: 10, ..Ticks::default() };
        assert!((later.usage_since(&earlier) - 50.0).abs() < 1e-9);
        assert!(later.usage_since(&later).abs() < f64::EPSILON);
    }

    #[test]
    fn processors_and_their_physical_cores_are_told_apart() {
        let processors = processors(CPUINFO);
        assert_eq!(processors.len(), 2);
        assert_eq!(processors[0].vendor, "AuthenticAMD");
        assert_eq!(processors[0].cache, "1024");
        assert!(processors[0].mhz.unwrap() > 100.0);
        assert!(processors[0].hypervisor);
        assert_eq!(physical_cores(&processors), 2);
    }

    #[test]
    fn hyperthreads_share_a_physical_core() {
        let text = "processor: 0\nphysical id: 0\ncore id: 0\n\nprocessor: 1\nphysical id: 0\ncore id: 0\n";
        assert_eq!(physical_cores(&super::processors(text)), 1);
    }

    #[test]
    fn load_averages_are_the_first_three_fields() {
        assert_eq!(load_averages("0.52 0.34 1.10 2/345 6789\n").unwrap(), [0.52, 0.34, 1.10]);
        assert!(load_averages("0.52").is_err());
    }
}
