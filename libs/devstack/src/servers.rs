//! The four servers Sightline stands on: where their programs are, how they are started, whether they answer.
//!
//! Nothing here touches a server that somebody else runs on a standard port.

pub mod apt;
pub mod binaries;
pub mod postgres;
pub mod probe;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use crate::account::{self, Account};
use crate::interrupt::Interrupt;
use crate::ports;
use crate::process::{Process, Spawn, stop_together};
pub use binaries::{Binaries, Program};
pub use probe::Probe;

pub const NATS: &str = "nats-server";
pub const POSTGRES: &str = "postgres";
pub const REDIS: &str = "redis-server";
pub const METRICS: &str = "victoria-metrics";
/// In the order they are listed and started.
pub const NAMES: [&str; 4] = [NATS, POSTGRES, REDIS, METRICS];

const START_DEADLINE: Duration = Duration::from_secs(60);
const STOP_DEADLINE: Duration = Duration::from_secs(15);
/// Streams reserve their `max_bytes` when they are made, and every test makes streams: the broker must not run out of
/// promises long before the disk is full.
const JETSTREAM_RESERVATION: &str = "100TB";

/// Where clients reach the servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerUrls {
    pub nats: String,
    /// Unknown for a broker that somebody else runs.
    pub nats_monitor: Option<String>,
    /// Of the administrator, with the maintenance database.
    pub postgres: String,
    pub redis: String,
    pub metrics: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerPorts {
    pub nats: u16,
    pub nats_monitor: u16,
    pub postgres: u16,
    pub redis: u16,
    pub metrics: u16,
}

impl ServerPorts {
    /// What `cargo dev up` uses unless told otherwise.
    pub const DEVELOPMENT: Self =
        Self { nats: 14222, nats_monitor: 18222, postgres: 15432, redis: 16379, metrics: 18428 };

    pub fn free() -> Result<Self> {
        let [nats, nats_monitor, postgres, redis, metrics] = ports::free_set(5)?[..] else {
            bail!("find five free ports");
        };
        Ok(Self { nats, nats_monitor, postgres, redis, metrics })
    }

    pub fn urls(&self) -> ServerUrls {
        ServerUrls {
            nats: format!("nats://127.0.0.1:{}", self.nats),
            nats_monitor: Some(format!("http://127.0.0.1:{}", self.nats_monitor)),
            postgres: format!("postgres://postgres@127.0.0.1:{}/postgres", self.postgres),
            redis: format!("redis://127.0.0.1:{}", self.redis),
            metrics: format!("http://127.0.0.1:{}", self.metrics),
        }
    }
}

/// Whether what the servers hold is worth keeping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Data survives a power cut as far as the server's defaults go.
    Kept,
    /// For tests: no fsync, many connections, a directory that is deleted afterwards.
    Throwaway,
}

/// Everything needed to start the servers in one directory.
#[derive(Debug, Clone)]
pub struct Layout<'a> {
    pub binaries: &'a Binaries,
    pub ports: &'a ServerPorts,
    pub data: &'a Path,
    pub logs: &'a Path,
    pub durability: Durability,
    pub postgres_account: Option<Account>,
}

impl Layout<'_> {
    /// Makes ready what `name` needs on disk and says how to start it and how to see that it answers.
    pub fn server(&self, name: &str) -> Result<(Spawn, Probe)> {
        match name {
            NATS => self.nats(),
            POSTGRES => self.postgres(),
            REDIS => self.redis(),
            METRICS => self.metrics(),
            _ => bail!("there is no server {name}"),
        }
    }

    fn nats(&self) -> Result<(Spawn, Probe)> {
        let directory = self.directory("nats")?;
        let configuration = directory.join("server.conf");
        let text = format!(
            "listen: \"127.0.0.1:{}\"\nhttp: \"127.0.0.1:{}\"\njetstream {{ store_dir: \"{}\", max_file_store: {JETSTREAM_RESERVATION} }}\n",
            self.ports.nats,
            self.ports.nats_monitor,
            directory.display()
        );
        std::fs::write(&configuration, text).with_context(|| format!("write {}", configuration.display()))?;
        let spawn = self.spawn(NATS, self.binaries.get(NATS)?).arg("-c").arg(configuration).on_parent_death("TERM");
        let urls = self.ports.urls();
        Ok((spawn, Probe::Nats { url: urls.nats, monitor: urls.nats_monitor }))
    }

    fn postgres(&self) -> Result<(Spawn, Probe)> {
        let cluster = postgres::Cluster::prepare(self)?;
        let program = self.binaries.get(POSTGRES)?;
        let mut spawn = self
            .spawn(POSTGRES, program)
            .args(["-D".into(), cluster.directory().as_os_str().to_owned()])
            .args(["-p", &self.ports.postgres.to_string()])
            .run_as(cluster.account().cloned())
            // Fast shutdown when asked; immediate, so that nothing waits for clients, when we die.
            .stop_signal(Signal::INT)
            .on_parent_death("QUIT");
        for setting in postgres::settings(self.durability) {
            spawn = spawn.arg("-c").arg(setting);
        }
        Ok((spawn, Probe::Postgres { url: self.ports.urls().postgres }))
    }

    fn redis(&self) -> Result<(Spawn, Probe)> {
        let directory = self.directory("redis")?;
        let spawn = self
            .spawn(REDIS, self.binaries.get(REDIS)?)
            .args(["--bind", "127.0.0.1", "--port", &self.ports.redis.to_string()])
            .args(["--save", "", "--appendonly", "no", "--dir"])
            .arg(directory)
            .on_parent_death("TERM");
        Ok((spawn, Probe::Redis { url: self.ports.urls().redis }))
    }

    fn metrics(&self) -> Result<(Spawn, Probe)> {
        let directory = self.directory("victoria-metrics")?;
        let spawn = self
            .spawn(METRICS, self.binaries.get(METRICS)?)
            .arg(format!("-storageDataPath={}", directory.display()))
            .arg(format!("-httpListenAddr=127.0.0.1:{}", self.ports.metrics))
            // A sample is visible and final when it is written, and the same sample written twice is one.
            .args(["-search.latencyOffset=0s", "-search.disableCache", "-dedup.minScrapeInterval=1ms"])
            .args(["-retentionPeriod=100y", "-selfScrapeInterval=0", "-memory.allowedPercent=5"])
            // It holds seconds of acknowledged samples in memory and needs the time to write them.
            .on_parent_death("TERM");
        Ok((spawn, Probe::Metrics { url: self.ports.urls().metrics }))
    }

    fn spawn(&self, name: &str, program: &Program) -> Spawn {
        let spawn = Spawn::new(name, &program.path, self.logs.join(format!("{name}.log")));
        match &program.library_path {
            Some(path) => spawn.env("LD_LIBRARY_PATH", path),
            None => spawn,
        }
    }

    fn directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.data.join(name);
        std::fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(path)
    }
}

/// Four servers of our own, for as long as this value lives.
#[derive(Debug)]
pub struct Servers {
    pub urls: ServerUrls,
    pub running: Vec<Running>,
    processes: Vec<Process>,
}

/// A server that answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    pub name: &'static str,
    pub pid: u32,
    /// Where it says so.
    pub version: Option<String>,
}

impl Servers {
    /// Starts all four at once on free ports under `root` and waits until each answers.
    pub fn start_apart(
        binaries: &Binaries,
        root: &Path,
        durability: Durability,
        interrupt: &Interrupt,
    ) -> Result<Self> {
        let postgres_account = account::for_postgres()?;
        let logs = root.join("logs");
        let mut attempt = 1;
        loop {
            // A fresh directory an attempt: what a failed one leaves behind may still be in use.
            let data = root.join(format!("data-{attempt}"));
            std::fs::create_dir_all(&data).with_context(|| format!("create {}", data.display()))?;
            let ports = ServerPorts::free()?;
            let layout = Layout {
                binaries,
                ports: &ports,
                data: &data,
                logs: &logs,
                durability,
                postgres_account: postgres_account.clone(),
            };
            match Self::start(&layout, interrupt) {
                // Another process may have taken one of the ports in between.
                Err(_) if attempt < 3 && !interrupt.requested() => attempt += 1,
                outcome => return outcome,
            }
        }
    }

    fn start(layout: &Layout<'_>, interrupt: &Interrupt) -> Result<Self> {
        let mut servers = Self { urls: layout.ports.urls(), running: Vec::new(), processes: Vec::new() };
        let mut probes = Vec::new();
        for name in NAMES {
            let (spawn, probe) = layout.server(name)?;
            servers.processes.push(spawn.start()?);
            probes.push((probe, spawn));
        }
        for (index, (name, (probe, spawn))) in NAMES.into_iter().zip(&probes).enumerate() {
            let mut last = String::from("not asked yet");
            let ready = interrupt.wait_for(START_DEADLINE, || {
                if servers.processes[index].exited().is_some() {
                    bail!("{} ended while starting; its log ends with:\n{}", spawn.name, log_tail(spawn.log()));
                }
                match probe.check() {
                    Ok(version) => Ok(Some(version)),
                    Err(reason) => {
                        last = format!("{reason:#}");
                        Ok(None)
                    }
                }
            })?;
            let Some(version) = ready else { bail!("{name} does not answer: {last}") };
            servers.running.push(Running { name, pid: servers.processes[index].pid(), version });
        }
        Ok(servers)
    }

    pub fn stop(&mut self) {
        let mut processes: Vec<&mut Process> = self.processes.iter_mut().collect();
        stop_together(&mut processes, STOP_DEADLINE, || false);
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The last lines of a log, for an error message.
pub fn log_tail(path: &Path) -> String {
    let text = std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(8)..].iter().map(|line| format!("    {line}\n")).collect()
}
