//! Brings Debian packages into a folder of ours, without root and without changing the system.
//!
//! apt runs with lists, cache and state of its own and only reads which packages are installed, so that no more
//! libraries are fetched than this machine lacks. Nothing is installed, so nothing starts by itself.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{METRICS, NATS, POSTGRES, REDIS};
use crate::account;
use crate::interrupt::Interrupt;
use crate::process::{bound_to_us, describe_exit, spawn_from_lasting_thread};

const UPDATE_DEADLINE: Duration = Duration::from_secs(300);
const DOWNLOAD_DEADLINE: Duration = Duration::from_secs(600);
const QUESTION_DEADLINE: Duration = Duration::from_secs(60);
/// Hooks of the distribution that would clean up or re-index the *system's* caches after our private update.
const FOREIGN_HOOKS: [&str; 5] = [
    "APT::Update::Pre-Invoke",
    "APT::Update::Post-Invoke",
    "APT::Update::Post-Invoke-Success",
    "DPkg::Pre-Invoke",
    "DPkg::Post-Invoke",
];

/// The system's own C library must stay with its loader; the others are large and serve what we switch off: the compiler
/// of queries, and scripts around the servers.
const UNWANTED: [&str; 5] = ["libc6", "libc-", "libllvm", "libz3", "libperl"];

/// Below a fetched program's root: the version of its package.
pub const VERSION_FILE: &str = "package-version";

/// The packages a person would install for `server`.
pub fn packages(server: &str) -> &'static [&'static str] {
    match server {
        NATS => &["nats-server"],
        POSTGRES => &["postgresql"],
        // `redis-server` alone is a link to a program in the other one.
        REDIS => &["redis-server", "redis-tools"],
        METRICS => &["victoria-metrics"],
        _ => &[],
    }
}

/// apt with a state of its own. Holds the cache's lock: others wait until it is dropped.
pub struct Apt {
    directory: PathBuf,
    configuration: PathBuf,
    _lock: File,
}

impl Apt {
    pub fn open(cache: &Path) -> Result<Self> {
        for tool in ["apt-get", "apt-cache", "dpkg-deb"] {
            let answers = Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
            if !answers.is_ok_and(|status| status.success()) {
                bail!("this machine has no {tool}");
            }
        }
        let directory = cache.join("apt");
        for folder in ["lists/partial", "cache/archives/partial", "state", "debs"] {
            let folder = directory.join(folder);
            std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        }
        let lock = File::create(cache.join("lock")).context("create the cache's lock")?;
        lock.lock().context("wait for the cache's lock")?;
        let configuration = directory.join("apt.conf");
        std::fs::write(&configuration, configuration_text(&directory, account::is_root())).context("write apt.conf")?;
        Ok(Self { directory, configuration, _lock: lock })
    }

    /// Refreshes the private lists. One broken source among many is no reason to stop: what is missing shows later.
    pub fn update(&self, interrupt: &Interrupt) -> Result<()> {
        let outcome = self.run("apt-get", &["-q", "update"], UPDATE_DEADLINE, interrupt)?;
        if !outcome.success && !self.has_lists() {
            bail!("apt-get update: {}", outcome.trouble());
        }
        Ok(())
    }

    /// Puts `server`'s packages and the libraries this machine lacks below `root`, all or nothing.
    pub fn fetch(&self, server: &str, root: &Path, interrupt: &Interrupt) -> Result<()> {
        let named = self.named(server, interrupt)?;
        let debs = self.directory.join("debs").join(server);
        let fresh = root.with_extension("new");
        for leftover in [&debs, &fresh, &root.to_owned()] {
            if leftover.exists() {
                std::fs::remove_dir_all(leftover).with_context(|| format!("remove {}", leftover.display()))?;
            }
            if *leftover != root {
                std::fs::create_dir_all(leftover).with_context(|| format!("create {}", leftover.display()))?;
            }
        }
        let libraries = self.libraries(&named, interrupt)?;
        let mut arguments = vec!["-q", "download"];
        arguments.extend(named.iter().chain(&libraries).map(String::as_str));
        let outcome = self.run_in(&debs, "apt-get", &arguments, DOWNLOAD_DEADLINE, interrupt)?;
        if !outcome.success {
            bail!("apt-get download: {}", outcome.trouble());
        }
        for entry in std::fs::read_dir(&debs).context("list downloads")? {
            let deb = entry.context("list downloads")?.path();
            if deb.file_name().is_some_and(|file| file.to_string_lossy().starts_with(&format!("{}_", named[0]))) {
                let version =
                    Command::new("dpkg-deb").arg("-f").arg(&deb).arg("Version").output().context("run dpkg-deb")?;
                std::fs::write(fresh.join(VERSION_FILE), version.stdout).context("note the package's version")?;
            }
            let arguments = ["-x".as_ref(), deb.as_os_str(), fresh.as_os_str()];
            let status = Command::new("dpkg-deb").args(arguments).status().context("run dpkg-deb")?;
            if !status.success() {
                bail!("dpkg-deb -x {}: {}", deb.display(), describe_exit(status));
            }
        }
        std::fs::rename(&fresh, root).context("put the programs in their place")?;
        std::fs::remove_dir_all(&debs).context("remove downloads")
    }

    fn named(&self, server: &str, interrupt: &Interrupt) -> Result<Vec<String>> {
        let named: Vec<String> = packages(server).iter().map(|name| (*name).to_owned()).collect();
        if server != POSTGRES {
            return Ok(named);
        }
        // `postgresql` only names the release's version.
        let outcome = self.run("apt-cache", &["depends", "postgresql"], QUESTION_DEADLINE, interrupt)?;
        let version = postgres_version(&outcome.output).context("find the distribution's PostgreSQL version")?;
        Ok(vec![format!("postgresql-{version}"), format!("postgresql-client-{version}")])
    }

    /// What apt would install besides. Empty if it cannot say, because the system's own packages are in disorder:
    /// then the machine's libraries have to do.
    fn libraries(&self, named: &[String], interrupt: &Interrupt) -> Result<Vec<String>> {
        let mut arguments = vec!["-s", "--no-install-recommends", "install"];
        arguments.extend(named.iter().map(String::as_str));
        let outcome = self.run("apt-get", &arguments, QUESTION_DEADLINE, interrupt)?;
        Ok(if outcome.success { libraries_in(&outcome.output) } else { Vec::new() })
    }

    fn has_lists(&self) -> bool {
        std::fs::read_dir(self.directory.join("lists")).is_ok_and(|entries| {
            entries.flatten().any(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
        })
    }

    fn run(&self, program: &str, arguments: &[&str], deadline: Duration, interrupt: &Interrupt) -> Result<Outcome> {
        self.run_in(&self.directory, program, arguments, deadline, interrupt)
    }

    fn run_in(
        &self,
        directory: &Path,
        program: &str,
        arguments: &[&str],
        deadline: Duration,
        interrupt: &Interrupt,
    ) -> Result<Outcome> {
        // To a file: a pipe that nobody reads while we wait would fill up.
        let log = self.directory.join("last.log");
        let file = File::create(&log).context("create apt's log")?;
        let mut command = bound_to_us("TERM", None);
        command.arg(program).arg("-c").arg(&self.configuration).args(arguments).current_dir(directory);
        command.env("LC_ALL", "C").env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
        command.stdout(file.try_clone().context("share apt's log")?).stderr(file);
        let mut child = spawn_from_lasting_thread(command).with_context(|| format!("start {program}"))?;
        let waited = interrupt.wait_for(deadline, || child.try_wait().context("wait for apt"));
        if !matches!(waited, Ok(Some(_))) {
            let _ = child.kill();
            let _ = child.wait();
        }
        let status = waited?.with_context(|| format!("{program} took longer than {} s", deadline.as_secs()))?;
        let output = std::fs::read(&log).context("read apt's log")?;
        Ok(Outcome { success: status.success(), output: String::from_utf8_lossy(&output).into_owned() })
    }
}

struct Outcome {
    success: bool,
    output: String,
}

impl Outcome {
    fn trouble(&self) -> String {
        let errors: Vec<&str> =
            self.output.lines().filter(|line| line.starts_with("E:") || line.starts_with("Err:")).collect();
        if errors.is_empty() { self.output.lines().last().unwrap_or("no output").to_owned() } else { errors.join("; ") }
    }
}

fn configuration_text(directory: &Path, as_root: bool) -> String {
    let directory = directory.display();
    let mut text = String::new();
    for hook in FOREIGN_HOOKS {
        text.push_str(&format!("#clear {hook};\n"));
    }
    text.push_str(&format!(
        "Dir::State \"{directory}/state\";\nDir::State::Lists \"{directory}/lists\";\n\
         Dir::State::status \"/var/lib/dpkg/status\";\nDir::Cache \"{directory}/cache\";\n\
         Acquire::Languages \"none\";\nAcquire::Retries \"3\";\n"
    ));
    if as_root {
        // The account apt drops to cannot enter a closed home, and says so on every run.
        text.push_str("APT::Sandbox::User \"root\";\n");
    }
    text
}

/// The highest `postgresql-<number>` among dependencies.
fn postgres_version(depends: &str) -> Option<u32> {
    depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: postgresql-")?.parse().ok()).max()
}

/// The libraries in a simulated installation, as `name=version`. Upgrades are left out: a newer C library beside the
/// system's loader would break more than it helps.
fn libraries_in(simulation: &str) -> Vec<String> {
    simulation
        .lines()
        .filter_map(|line| {
            let (name, rest) = line.strip_prefix("Inst ")?.split_once(' ')?;
            let version = rest.strip_prefix('(')?.split(' ').next()?;
            let wanted = name.starts_with("lib")
                && !name.ends_with("-perl")
                && !UNWANTED.iter().any(|prefix| name.starts_with(prefix));
            wanted.then(|| format!("{name}={version}"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_new_libraries_are_taken_from_a_simulation() {
        let simulation = "NOTE: This is only a simulation!\n\
            Inst libjemalloc2 (5.3.0-1 Debian:12.11/stable [amd64])\n\
            Inst liblzf1 (3.6-3 Debian:12.11/stable [amd64]) []\n\
            Inst libc6 [2.36-9+deb12u9] (2.36-9+deb12u10 Debian:12.11/stable [amd64])\n\
            Inst libjson-perl (4.10000-1 Debian:12.11/stable [all])\n\
            Inst libllvm14 (1:14.0.6-12 Debian:12.11/stable [amd64])\n\
            Inst postgresql-common (248 Debian:12.11/stable [all])\n\
            Conf libjemalloc2 (5.3.0-1 Debian:12.11/stable [amd64])\n";
        assert_eq!(libraries_in(simulation), ["libjemalloc2=5.3.0-1", "liblzf1=3.6-3"]);
    }

    #[test]
    fn the_release_s_postgres_is_the_one_the_metapackage_names() {
        assert_eq!(postgres_version("postgresql\n  Depends: postgresql-15\n  Suggests: postgresql-doc\n"), Some(15));
    }

    #[test]
    fn hooks_of_the_system_are_cleared_before_anything_runs() {
        let text = configuration_text(Path::new("/c/apt"), true);
        assert!(text.starts_with("#clear APT::Update::Pre-Invoke;"), "{text}");
        assert!(text.contains("Dir::State::Lists \"/c/apt/lists\";"));
    }
}
