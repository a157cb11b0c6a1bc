//! A PostgreSQL cluster of our own, and the schemas and roles the services expect in a database.

use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::{Binaries, Durability, Layout, POSTGRES};
use crate::account::{self, Account};
use crate::process::bound_to_us;

/// How long a server that another life of ours left behind may take to go.
const LEFTOVER_DEADLINE: Duration = Duration::from_secs(10);

/// Any number will do, as long as it stays: two scripts must not create one database at once.
const CREATION_LOCK: u32 = 0x5167;

/// A data directory that is initialised and that no living server uses.
#[derive(Debug)]
pub struct Cluster {
    directory: PathBuf,
    account: Option<Account>,
}

impl Cluster {
    pub fn prepare(layout: &Layout<'_>) -> Result<Self> {
        // One directory a major version: a newer server cannot read an older one's files.
        let directory = layout.data.join(format!("postgres-{}", major(&layout.binaries.get(POSTGRES)?.version)));
        let account = owner(&directory).or_else(|| layout.postgres_account.clone());
        let cluster = Self { directory, account };
        if cluster.directory.join("PG_VERSION").exists() {
            cluster.clear_leftover()?;
        } else {
            cluster.initialise(layout.binaries)?;
        }
        Ok(cluster)
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn account(&self) -> Option<&Account> {
        self.account.as_ref()
    }

    /// In a directory beside the final one, so that an interrupted `initdb` leaves nothing that looks finished.
    fn initialise(&self, binaries: &Binaries) -> Result<()> {
        let fresh = self.directory.with_extension("new");
        if fresh.exists() {
            std::fs::remove_dir_all(&fresh).with_context(|| format!("remove {}", fresh.display()))?;
        }
        std::fs::create_dir_all(&fresh).with_context(|| format!("create {}", fresh.display()))?;
        std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o700)).context("close the data directory")?;
        if let Some(account) = &self.account {
            std::os::unix::fs::chown(&fresh, Some(account.uid), Some(account.gid))
                .context("hand over the data directory")?;
        }
        let output = self
            .command(binaries, "initdb")?
            .arg("-D")
            .arg(&fresh)
            .args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"])
            .stdin(Stdio::null())
            .current_dir("/")
            .output()
            .context("run initdb")?;
        if !output.status.success() {
            bail!("initdb failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        std::fs::rename(&fresh, &self.directory).context("put the data directory in its place")
    }

    /// `postmaster.pid` outlives a killed server, and its number may by now belong to any process of the same user:
    /// only a server of this very directory is stopped, and only a dead one's file is removed.
    fn clear_leftover(&self) -> Result<()> {
        let file = self.directory.join("postmaster.pid");
        let Ok(text) = std::fs::read_to_string(&file) else {
            return Ok(());
        };
        let pid = text.lines().next().and_then(|line| line.trim().parse::<i32>().ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid.filter(|pid| self.is_served_by(*pid)) {
            let _ = kill_process(pid, Signal::QUIT);
            let end = Instant::now() + LEFTOVER_DEADLINE;
            while self.is_served_by(pid) {
                if Instant::now() > end {
                    bail!("an earlier PostgreSQL (pid {}) does not stop", pid.as_raw_nonzero());
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        match std::fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).context("remove a stale postmaster.pid")
            }
            _ => Ok(()),
        }
    }

    fn is_served_by(&self, pid: Pid) -> bool {
        let command_line = std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
        let directory = self.directory.as_os_str().as_encoded_bytes();
        command_line.split(|byte| *byte == 0).any(|argument| argument == directory)
    }

    fn command(&self, binaries: &Binaries, program: &str) -> Result<Command> {
        let mut command = bound_to_us("KILL", self.account.as_ref());
        command.arg(binaries.of_postgres(program)?).env_remove("TZ");
        if let Some(path) = &binaries.get(POSTGRES)?.library_path {
            command.env("LD_LIBRARY_PATH", path);
        }
        Ok(command)
    }
}

/// TCP on loopback only: a socket file would be one more thing that goes stale, and its path has a length limit.
pub fn settings(durability: Durability) -> Vec<&'static str> {
    let mut settings = vec![
        "listen_addresses=127.0.0.1",
        "unix_socket_directories=",
        "timezone=GMT",
        "log_timezone=GMT",
        // The library that compiles queries is large and is not fetched.
        "jit=off",
        "max_connections=300",
    ];
    if durability == Durability::Throwaway {
        settings.extend(["max_connections=400", "fsync=off", "full_page_writes=off"]);
    }
    settings
}

/// Somebody who logs in and owns a schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub role: String,
    pub schema: String,
}

/// Creates `database` with a role and a schema for each of `owners`, on our own server. Does nothing to what exists, and
/// several may do it at once.
pub fn prepare_database(binaries: &Binaries, server_url: &str, database: &str, owners: &[Owner]) -> Result<()> {
    run_script(binaries, server_url, &database_script(database, owners))
        .with_context(|| format!("prepare database {database}"))
}

fn run_script(binaries: &Binaries, url: &str, script: &str) -> Result<()> {
    let mut command = Command::new(binaries.of_postgres("psql")?);
    if let Some(path) = &binaries.get(POSTGRES)?.library_path {
        command.env("LD_LIBRARY_PATH", path);
    }
    let mut psql = command
        .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", url, "-f", "-"])
        .env("PGOPTIONS", "-c client_min_messages=warning")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("start psql")?;
    if let Some(mut input) = psql.stdin.take() {
        input.write_all(script.as_bytes()).context("send script to psql")?;
    }
    let output = psql.wait_with_output().context("wait for psql")?;
    if !output.status.success() {
        bail!("psql: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

fn database_script(database: &str, owners: &[Owner]) -> String {
    // The session of the first database ends with `\\connect`, and the lock with it; the second lock is the new
    // database's own, since `create schema if not exists` alone is not safe against itself.
    let mut script = format!(
        "select pg_advisory_lock({CREATION_LOCK}) \\g /dev/null\n\
         select 'create database \"{database}\"' where not exists (select from pg_database where datname = '{database}') \\gexec\n\
         \\connect \"{database}\"\n\
         select pg_advisory_lock({CREATION_LOCK}) \\g /dev/null\n"
    );
    for owner in owners {
        script.push_str(&role_and_schema(owner));
    }
    script
}

/// Roles belong to the whole server, so parallel callers meet here: losing the race is as good as winning it. Two that
/// alter one role at once get "tuple concurrently updated", which is an internal error.
fn role_and_schema(Owner { role, schema }: &Owner) -> String {
    format!(
        "do $$ begin\n  create role {role} login;\n  alter role {role} set search_path = {schema};\n\
         exception when duplicate_object or unique_violation or internal_error then null; end $$;\n\
         create schema if not exists {schema} authorization {role};\n"
    )
}

fn major(version: &str) -> &str {
    version.split(|letter: char| !letter.is_ascii_digit()).next().unwrap_or_default()
}

/// Root keeps running an existing cluster as the account that made it.
fn owner(directory: &Path) -> Option<Account> {
    if !account::is_root() {
        return None;
    }
    account::by_uid(std::fs::metadata(directory).ok()?.uid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_leads() {
        assert_eq!(major("15.13 (Debian 15.13-0+deb12u1)"), "15");
        assert_eq!(major("18beta1"), "18");
    }

    #[test]
    fn every_owner_gets_a_role_and_a_schema() {
        let owner = Owner { role: "sightline_registry".to_owned(), schema: "registry".to_owned() };
        let script = database_script("sightline", &[owner]);
        assert!(script.contains("create role sightline_registry login;"), "{script}");
        assert!(script.contains("create schema if not exists registry authorization sightline_registry;"), "{script}");
    }
}
