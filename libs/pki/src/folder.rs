//! A folder of certificates, kept up to date: `ca.pem`, `ca-key.pem`, and `<name>.pem` with `<name>-key.pem`.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result, bail};
use time::{Duration, OffsetDateTime};

use crate::authority::Authority;

/// What is issued, one line each: name, expiry in Unix seconds, hosts. It spares us a certificate parser.
const LEDGER: &str = "issued.txt";
const CERTIFICATE: &str = "ca.pem";
const KEY: &str = "ca-key.pem";
/// A certificate that is about to expire is replaced at the next start.
const REMAINING: Duration = Duration::days(30);
const PUBLIC: u32 = 0o644;
const SECRET: u32 = 0o600;

/// One certificate to have: `name=host,host`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub name: String,
    pub hosts: Vec<String>,
}

impl FromStr for Request {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, hosts) = text.split_once('=').with_context(|| format!("read {text}: write name=host,host"))?;
        let plain = |name: &str| name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '-');
        if name.is_empty() || !plain(name) || name == "ca" {
            bail!("{name:?} cannot name a certificate: use letters, digits and hyphens, and not `ca`");
        }
        Ok(Self { name: name.to_owned(), hosts: hosts.split(',').map(str::to_owned).collect() })
    }
}

/// Makes what is missing, outdated or for other hosts. Returns the names of what was made.
pub fn ensure(folder: &Path, requests: &[Request]) -> Result<Vec<String>> {
    std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let (authority, fresh) = authority(folder)?;
    let mut ledger = if fresh { Ledger::default() } else { Ledger::load(folder) };
    let mut made = Vec::new();
    for request in requests {
        let files = [format!("{}.pem", request.name), format!("{}-key.pem", request.name)];
        if ledger.is_current(request) && files.iter().all(|file| folder.join(file).is_file()) {
            continue;
        }
        let hosts: Vec<&str> = request.hosts.iter().map(String::as_str).collect();
        let issued = authority.issue(&request.name, &hosts).with_context(|| format!("issue {}", request.name))?;
        write(&folder.join(&files[1]), &issued.key, SECRET)?;
        write(&folder.join(&files[0]), &issued.certificate, PUBLIC)?;
        ledger.enter(request, issued.expires);
        made.push(request.name.clone());
    }
    if !made.is_empty() {
        write(&folder.join(LEDGER), &ledger.text(), PUBLIC)?;
    }
    Ok(made)
}

/// The folder's authority, and whether it is new, in which case nothing that was issued before is worth anything.
fn authority(folder: &Path) -> Result<(Authority, bool)> {
    let read = |name: &str| std::fs::read_to_string(folder.join(name));
    if let (Ok(certificate), Ok(key)) = (read(CERTIFICATE), read(KEY)) {
        let authority =
            Authority::load(&certificate, &key).with_context(|| format!("read {}", folder.join(KEY).display()))?;
        return Ok((authority, false));
    }
    let authority = Authority::new().context("make an authority")?;
    write(&folder.join(KEY), &authority.key(), SECRET)?;
    write(&folder.join(CERTIFICATE), authority.certificate(), PUBLIC)?;
    Ok((authority, true))
}

#[derive(Default)]
struct Ledger(BTreeMap<String, (i64, String)>);

impl Ledger {
    fn load(folder: &Path) -> Self {
        let text = std::fs::read_to_string(folder.join(LEDGER)).unwrap_or_default();
        let entry = |line: &str| {
            let mut words = line.split(' ');
            Some((words.next()?.to_owned(), (words.next()?.parse().ok()?, words.next()?.to_owned())))
        };
        Self(text.lines().filter_map(entry).collect())
    }

    fn is_current(&self, request: &Request) -> bool {
        let enough = (OffsetDateTime::now_utc() + REMAINING).unix_timestamp();
        self.0.get(&request.name).is_some_and(|(expires, hosts)| *expires > enough && *hosts == request.hosts.join(","))
    }

    fn enter(&mut self, request: &Request, expires: OffsetDateTime) {
        self.0.insert(request.name.clone(), (expires.unix_timestamp(), request.hosts.join(",")));
    }

    fn text(&self) -> String {
        self.0.iter().map(|(name, (expires, hosts))| format!("{name} {expires} {hosts}\n")).collect()
    }
}

/// With its mode from the first byte on, and in one step: a service may be reading the old one.
fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    let beside = path.with_extension("new");
    let _ = std::fs::remove_file(&beside);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&beside)
        .with_context(|| format!("create {}", beside.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("write {}", beside.display()))?;
    std::fs::rename(&beside, path).with_context(|| format!("put {} in its place", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn requests(texts: &[&str]) -> Vec<Request> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn certificates_are_kept_until_their_hosts_change() {
        let folder = tempfile::tempdir().unwrap();
        let first = requests(&["auth=auth,localhost", "ingest=localhost,127.0.0.1,::1"]);
        assert_eq!(ensure(folder.path(), &first).unwrap(), ["auth", "ingest"]);
        assert_eq!(ensure(folder.path(), &first).unwrap(), Vec::<String>::new());
        let moved = requests(&["auth=auth,localhost", "ingest=localhost,laptop"]);
        assert_eq!(ensure(folder.path(), &moved).unwrap(), ["ingest"]);
    }

    #[test]
    fn a_new_authority_replaces_everything() {
        let folder = tempfile::tempdir().unwrap();
        let wanted = requests(&["auth=auth"]);
        ensure(folder.path(), &wanted).unwrap();
        std::fs::remove_file(folder.path().join(KEY)).unwrap();
        assert_eq!(ensure(folder.path(), &wanted).unwrap(), ["auth"]);
    }

    #[test]
    fn keys_are_for_their_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        ensure(folder.path(), &requests(&["auth=auth"])).unwrap();
        for name in ["ca-key.pem", "auth-key.pem"] {
            let mode = std::fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn a_name_cannot_leave_the_folder() {
        for text in ["../evil=localhost", "ca=localhost", "=localhost", "auth"] {
            assert!(text.parse::<Request>().is_err(), "{text}");
        }
    }
}
