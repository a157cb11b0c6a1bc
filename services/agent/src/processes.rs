//! Snapshots of all processes, as GoSight's payload.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::time::Instant;

use prost::Message as _;
use proto::gosight::{ProcessInfo, ProcessPayload};

use crate::clock;
use crate::collect::process_ids;
use crate::host_root::HostRoot;
use crate::identity::Identity;
use crate::procfs::process::{ProcessStat, command_line};
use crate::procfs::{self, double, percent};

/// A process id is used again; together with the start it names one process.
type Key = (i32, u64);

pub struct Snapshots {
    identity: Arc<Identity>,
    root: HostRoot,
    boot_unix_seconds: u64,
    ticks_per_second: u64,
    page_bytes: u64,
    earlier: HashMap<Key, u64>,
    earlier_at: Option<Instant>,
    users: BTreeMap<u32, String>,
}

impl Snapshots {
    /// # Errors
    /// `/proc/stat` cannot be read.
    pub fn new(identity: Arc<Identity>, root: HostRoot) -> anyhow::Result<Self> {
        Ok(Self {
            identity,
            boot_unix_seconds: procfs::cpu::stat(&root.read("/proc/stat")?)?.boot_time_unix_seconds,
            root,
            ticks_per_second: rustix::param::clock_ticks_per_second().max(1),
            page_bytes: rustix::param::page_size() as u64,
            earlier: HashMap::new(),
            earlier_at: None,
            users: BTreeMap::new(),
        })
    }

    /// Every process as it is now; the load of each is since the snapshot before, for the first one since the process
    /// began.
    ///
    /// # Errors
    /// `/proc` cannot be read. Single processes that end meanwhile are left out.
    pub fn take(&mut self) -> anyhow::Result<ProcessPayload> {
        let memory = procfs::memory::memory(&self.root.read("/proc/meminfo")?)?.total;
        let uptime = procfs::host::uptime(&self.root.read("/proc/uptime")?)?;
        let elapsed = self.earlier_at.map(|at| at.elapsed().as_secs_f64());
        self.earlier_at = Some(Instant::now());
        // Accounts may be added at any time.
        self.users.clear();
        let passwd = self.root.read("/etc/passwd").unwrap_or_default();
        let mut now = HashMap::new();
        let mut processes = Vec::new();
        for pid in process_ids(&self.root)? {
            let Some(stat) =
                self.root.read(&format!("/proc/{pid}/stat")).ok().and_then(|text| procfs::process::stat(&text).ok())
            else {
                continue;
            };
            let key = (stat.pid, stat.start_ticks);
            now.insert(key, stat.cpu_ticks);
            let age = (uptime - self.seconds(stat.start_ticks)).max(0.0);
            let load = cpu_percent(&stat, self.earlier.get(&key).copied(), elapsed, age, self.ticks_per_second);
            processes.push(self.process(&stat, load, memory, &passwd));
        }
        self.earlier = now;
        Ok(self.payload(processes))
    }

    fn process(&mut self, stat: &ProcessStat, cpu_percent: f64, memory_total: u64, passwd: &str) -> ProcessInfo {
        let folder = self.root.path(format!("/proc/{}", stat.pid));
        let executable = fs::read_link(folder.join("exe"))
            .map_or_else(|_| stat.name.clone(), |path| path.to_string_lossy().into_owned());
        let uid = fs::metadata(&folder).map(|metadata| metadata.uid()).ok();
        let resident = double(stat.resident_pages.saturating_mul(self.page_bytes));
        let start_nanos = stat.start_ticks.saturating_mul(1_000_000_000 / self.ticks_per_second);
        ProcessInfo {
            pid: stat.pid,
            ppid: stat.ppid,
            user: uid.map(|uid| self.user(uid, passwd)).unwrap_or_default(),
            executable,
            cmdline: fs::read(folder.join("cmdline")).map(|raw| command_line(&raw)).unwrap_or_default(),
            cpu_percent,
            mem_percent: percent(resident, double(memory_total)),
            threads: stat.threads,
            start_time: Some(clock::timestamp(self.boot_unix_seconds * 1_000_000_000 + start_nanos)),
            labels: Default::default(),
        }
    }

    fn user(&mut self, uid: u32, passwd: &str) -> String {
        let name = || procfs::host::user_name(passwd, uid).map_or_else(|| uid.to_string(), str::to_owned);
        self.users.entry(uid).or_insert_with(name).clone()
    }

    fn payload(&self, processes: Vec<ProcessInfo>) -> ProcessPayload {
        ProcessPayload {
            agent_id: self.identity.agent_id.clone(),
            host_id: self.identity.host_id.clone(),
            hostname: self.identity.facts.host_name.clone(),
            endpoint_id: String::new(),
            timestamp: Some(clock::timestamp(clock::unix_nanos())),
            processes,
            meta: Some(self.identity.meta()),
        }
    }

    fn seconds(&self, ticks: u64) -> f64 {
        double(ticks) / double(self.ticks_per_second)
    }
}

/// A command line's length where whole ones are too much.
const SHORT_COMMAND_LINE: usize = 128;

/// Makes a snapshot fit: a gateway refuses a larger message, and would refuse the next as well. First command lines are
/// shortened; if that is not enough, the processes that use least are left out. Returns whether something was.
pub fn fit(payload: &mut ProcessPayload, most_bytes: usize) -> bool {
    if payload.encoded_len() <= most_bytes {
        return false;
    }
    for process in &mut payload.processes {
        process.cmdline.truncate(process.cmdline.floor_char_boundary(SHORT_COMMAND_LINE));
    }
    let load = |process: &ProcessInfo| process.cpu_percent + process.mem_percent;
    payload.processes.sort_by(|a, b| load(b).total_cmp(&load(a)));
    // Field and length of each process take a few bytes more.
    const FRAMING: usize = 8;
    let sizes: Vec<usize> = payload.processes.iter().map(|process| process.encoded_len() + FRAMING).collect();
    let rest = payload.encoded_len().saturating_sub(sizes.iter().sum());
    let mut room = most_bytes.saturating_sub(rest);
    let fitting = sizes.iter().take_while(|size| match room.checked_sub(**size) {
        Some(left) => {
            room = left;
            true
        }
        None => false,
    });
    let kept = fitting.count();
    payload.processes.truncate(kept);
    true
}

/// Percent of one core. `elapsed` is the time since the snapshot before, `age` that since the process began; a
/// process that the snapshot before did not see ran for its age.
fn cpu_percent(
    stat: &ProcessStat,
    earlier_ticks: Option<u64>,
    elapsed: Option<f64>,
    age: f64,
    ticks_per_second: u64,
) -> f64 {
    let (ticks, seconds) = match (earlier_ticks, elapsed) {
        (Some(earlier), Some(elapsed)) => (stat.cpu_ticks.saturating_sub(earlier), elapsed),
        _ => (stat.cpu_ticks, age),
    };
    percent(double(ticks) / double(ticks_per_second), seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(cpu_ticks: u64) -> ProcessStat {
        ProcessStat { pid: 1, name: "x".into(), ppid: 0, cpu_ticks, threads: 1, start_ticks: 0, resident_pages: 0 }
    }

    #[test]
    fn load_is_since_the_snapshot_before_or_since_the_process_began() {
        let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(near(cpu_percent(&stat(600), Some(100), Some(10.0), 99.0, 100), 50.0));
        assert!(near(cpu_percent(&stat(100), None, Some(10.0), 4.0, 100), 25.0));
        assert!(near(cpu_percent(&stat(100), None, None, 0.0, 100), 0.0));
    }

    #[test]
    fn a_snapshot_of_very_many_processes_is_made_to_fit() {
        let process = |pid: i32| ProcessInfo {
            pid,
            cmdline: "java -classpath ".repeat(100),
            cpu_percent: f64::from(pid % 100),
            ..ProcessInfo::default()
        };
        let mut payload = ProcessPayload { processes: (0..3000).map(process).collect(), ..ProcessPayload::default() };
        let whole = payload.encoded_len();
        assert!(!fit(&mut payload.clone(), whole));
        assert!(fit(&mut payload, 1 << 20) && payload.encoded_len() <= 1 << 20);
        assert_eq!((payload.processes.len(), payload.processes[0].cmdline.len()), (3000, SHORT_COMMAND_LINE));
        assert!(fit(&mut payload, 10_000) && payload.encoded_len() <= 10_000);
        assert!(payload.processes.len() > 20 && payload.processes.iter().all(|process| process.cpu_percent > 90.0));
        assert!(fit(&mut payload, 0) && payload.processes.is_empty());
    }

    #[test]
    fn a_snapshot_shows_this_very_process() {
        let folder = tempfile::tempdir().unwrap();
        let identity = Arc::new(Identity::for_test(folder.path()));
        let root = HostRoot::new(std::path::Path::new("/"));
        let mut snapshots = Snapshots::new(identity.clone(), root).unwrap();
        snapshots.take().unwrap();
        let payload = snapshots.take().unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        let process = payload.processes.iter().find(|process| process.pid == own).unwrap();
        let executable = std::env::current_exe().unwrap();
        assert_eq!(process.executable, executable.to_str().unwrap());
        assert!(process.threads >= 1 && process.mem_percent > 0.0 && !process.user.is_empty());
        let started = process.start_time.unwrap().seconds;
        let now = clock::timestamp(clock::unix_nanos()).seconds;
        assert!((now - 3600..=now + 2).contains(&started), "{started} is not just before {now}");
        assert_eq!(payload.meta.unwrap().agent_id, identity.agent_id);
    }
}
