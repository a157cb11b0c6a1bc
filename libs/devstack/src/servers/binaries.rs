//! Finds the servers' programs: on the path, in the usual places, in our cache, or fetched into our cache.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::POSTGRES;
use super::apt::{self, Apt};
use crate::account::Account;
use crate::console::Step;
use crate::interrupt::Interrupt;

const USUAL_PLACES: [&str; 4] = ["/usr/local/bin", "/usr/local/sbin", "/usr/bin", "/usr/sbin"];
const POSTGRES_VERSIONS: &str = "usr/lib/postgresql";
/// What we need of PostgreSQL, all from one directory.
const POSTGRES_PROGRAMS: [&str; 3] = ["postgres", "initdb", "psql"];

/// A program that was seen to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    pub path: PathBuf,
    /// For one from our cache: its libraries are not where the loader looks.
    pub library_path: Option<OsString>,
    pub version: String,
}

/// The programs of the servers that were asked for.
#[derive(Debug, Clone)]
pub struct Binaries(BTreeMap<&'static str, Program>);

impl Binaries {
    pub fn get(&self, server: &str) -> Result<&Program> {
        self.0.get(server).with_context(|| format!("find {server}: nobody asked for it"))
    }

    /// One of `postgres`, `initdb` and `psql`, which lie together.
    pub fn of_postgres(&self, program: &str) -> Result<PathBuf> {
        Ok(self.get(POSTGRES)?.path.with_file_name(program))
    }
}

/// Where to look and where to keep what is fetched.
#[derive(Debug, Clone)]
pub struct Search {
    /// The directories of `PATH`.
    pub path: Vec<PathBuf>,
    pub cache: PathBuf,
    /// Leaves aside what the machine has, as on a bare one.
    pub only_fetched: bool,
}

impl Search {
    /// `account` must be able to run PostgreSQL from the cache, which a closed home forbids.
    pub fn new(
        path: Option<&str>,
        cache_home: Option<&Path>,
        home: Option<&Path>,
        account: Option<&Account>,
        only_fetched: bool,
    ) -> Result<Self> {
        let path = std::env::split_paths(path.unwrap_or_default()).collect();
        let own = cache_home.map(Path::to_owned).or_else(|| Some(home?.join(".cache")));
        let reachable = |base: &PathBuf| account.is_none_or(|account| account.can_enter(nearest_existing(base)));
        let base = match own.filter(reachable) {
            Some(base) => base,
            None if account.is_some() => PathBuf::from("/var/cache"),
            None => bail!("set HOME or XDG_CACHE_HOME: fetched programs need a place"),
        };
        Ok(Self { path, cache: base.join("sightline/servers").join(platform()), only_fetched })
    }

    /// Finds the programs of `servers` and fetches what is missing. An error names the packages to install by hand.
    pub fn obtain(&self, servers: &[&'static str], interrupt: &Interrupt) -> Result<Binaries> {
        let missing: Vec<&'static str> = servers.iter().copied().filter(|name| self.locate(name).is_none()).collect();
        if !missing.is_empty() {
            self.fetch(&missing, interrupt).map_err(|error| {
                let packages = missing.iter().flat_map(|name| apt::packages(name)).copied().collect::<Vec<_>>().join(" ");
                error.context(format!(
                    "cannot fetch {}. Install by hand and try again: apt-get install --no-install-recommends {packages}",
                    missing.join(", ")
                ))
            })?;
        }
        let found: Result<_> = servers.iter().map(|name| Ok((*name, self.expect(name)?))).collect();
        found.map(Binaries)
    }

    fn expect(&self, name: &str) -> Result<Program> {
        self.locate(name).with_context(|| format!("find {name}: it was fetched but does not run"))
    }

    fn fetch(&self, missing: &[&'static str], interrupt: &Interrupt) -> Result<()> {
        let step = Step::begin(
            "fetch",
            &format!("{} from the distribution into {}", missing.join(", "), self.cache.display()),
        );
        let apt = Apt::open(&self.cache)?;
        // Another `cargo dev` may have fetched them while this one waited for the cache.
        let missing: Vec<&str> = missing.iter().copied().filter(|name| self.locate(name).is_none()).collect();
        if !missing.is_empty() {
            apt.update(interrupt)?;
            step.progress("package lists are here");
        }
        for name in &missing {
            apt.fetch(name, &self.root(name), interrupt).with_context(|| format!("fetch {name}"))?;
            if self.locate(name).is_none() {
                bail!("{name} was fetched but does not run: {}", self.complaint(name));
            }
        }
        step.done(&format!("{} ready", missing.join(", ")));
        Ok(())
    }

    fn root(&self, name: &str) -> PathBuf {
        self.cache.join(name)
    }

    fn locate(&self, name: &str) -> Option<Program> {
        self.candidates(name).into_iter().find_map(|(path, library_path)| {
            let told = version(&path, library_path.as_ref()).ok()?;
            // Debian builds VictoriaMetrics without telling it its version.
            let version = if told.is_empty() { self.package_version(name, &path) } else { told };
            Some(Program { path, library_path, version })
        })
    }

    fn candidates(&self, name: &str) -> Vec<(PathBuf, Option<OsString>)> {
        let mut found = Vec::new();
        if !self.only_fetched {
            let usual = USUAL_PLACES.iter().map(PathBuf::from);
            let mut directories: Vec<PathBuf> = self.path.iter().cloned().chain(usual).collect();
            if name == POSTGRES {
                directories.extend(postgres_directories(Path::new("/")));
            }
            found.extend(
                directories.into_iter().filter(|place| is_complete(place, name)).map(|place| (place.join(name), None)),
            );
        }
        let root = self.root(name);
        let libraries = library_path(&root);
        let mut directories: Vec<PathBuf> = ["usr/bin", "usr/sbin"].iter().map(|place| root.join(place)).collect();
        directories.extend(postgres_directories(&root));
        found.extend(
            directories
                .into_iter()
                .filter(|place| is_complete(place, name))
                .map(|place| (place.join(name), libraries.clone())),
        );
        found
    }

    fn package_version(&self, name: &str, path: &Path) -> String {
        let root = self.root(name);
        if path.starts_with(&root) {
            return std::fs::read_to_string(root.join(apt::VERSION_FILE)).unwrap_or_default().trim().to_owned();
        }
        let query = Command::new("dpkg-query").args(["--show", "--showformat=${Version}", name]).output();
        query.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
    }

    fn complaint(&self, name: &str) -> String {
        match self.candidates(name).pop() {
            Some((path, libraries)) => {
                version(&path, libraries.as_ref()).err().map(|error| format!("{error:#}")).unwrap_or_default()
            }
            None => "the package holds no such program".to_owned(),
        }
    }
}

/// A home can be shared by machines, and a machine can be upgraded: packages of one release stay apart from another's.
fn platform() -> String {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let field = |name: &str| {
        release
            .lines()
            .find_map(|line| Some(line.strip_prefix(name)?.trim_matches('"').to_owned()))
            .unwrap_or_else(|| "unknown".to_owned())
    };
    format!("{}-{}-{}", field("ID="), field("VERSION_ID="), std::env::consts::ARCH)
}

/// Newest version first.
fn postgres_directories(root: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(root.join(POSTGRES_VERSIONS)) else {
        return Vec::new();
    };
    let mut versions: Vec<(u32, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    versions.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    versions.into_iter().map(|(_, path)| path).collect()
}

fn is_complete(directory: &Path, name: &str) -> bool {
    let runs = |program: &str| {
        std::fs::metadata(directory.join(program))
            .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    if name == POSTGRES { POSTGRES_PROGRAMS.iter().all(|program| runs(program)) } else { runs(name) }
}

/// Debian keeps libraries in a folder named after the machine's triplet, below `usr/lib` and below `lib`.
fn library_path(root: &Path) -> Option<OsString> {
    let folders: Vec<PathBuf> = ["usr/lib", "lib"]
        .iter()
        .filter_map(|lib| std::fs::read_dir(root.join(lib)).ok())
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir() && path.to_string_lossy().contains("-linux-gnu"))
        .collect();
    std::env::join_paths(folders).ok().filter(|joined| !joined.is_empty())
}

/// Asks the program itself, which also shows that it runs here.
fn version(path: &Path, library_path: Option<&OsString>) -> Result<String> {
    let mut command = Command::new(path);
    command.arg("--version");
    if let Some(libraries) = library_path {
        command.env("LD_LIBRARY_PATH", libraries);
    }
    let output = command.output().with_context(|| format!("run {}", path.display()))?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(version_in(&String::from_utf8_lossy(&output.stdout)))
}

/// The first word that begins with a digit, with or without a `v`.
fn version_in(text: &str) -> String {
    text.split(|letter: char| letter.is_whitespace() || letter == '=')
        .map(|word| word.trim_start_matches('v'))
        .find(|word| word.starts_with(|letter: char| letter.is_ascii_digit()))
        .unwrap_or(text.trim())
        .to_owned()
}

fn nearest_existing(path: &Path) -> &Path {
    path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_each_server_s_own_words() {
        assert_eq!(version_in("nats-server: v2.9.10\n"), "2.9.10");
        assert_eq!(version_in("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64"), "7.0.15");
        assert_eq!(version_in("postgres (PostgreSQL) 15.13 (Debian 15.13-0+deb12u1)"), "15.13");
    }

    #[test]
    fn a_place_without_all_programs_of_postgres_does_not_count() {
        let directory = tempfile::tempdir().unwrap();
        for program in ["postgres", "initdb"] {
            let path = directory.path().join(program);
            std::fs::write(&path, "").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        assert!(!is_complete(directory.path(), POSTGRES));
    }
}
