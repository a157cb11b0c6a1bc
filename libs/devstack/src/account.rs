//! The account that PostgreSQL runs under: it refuses root, everything else runs as whoever called `cargo dev`.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

pub fn current_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// `None` where PostgreSQL can run as the caller.
pub fn for_postgres() -> Result<Option<Account>> {
    if !is_root() {
        return Ok(None);
    }
    let passwd = std::fs::read_to_string("/etc/passwd").context("read /etc/passwd")?;
    ["postgres", "nobody"]
        .iter()
        .find_map(|name| find(&passwd, name))
        .map(Some)
        .context("find an account for PostgreSQL: /etc/passwd has neither postgres nor nobody")
}

/// The account that owns `uid`, so that a cluster keeps its owner when a `postgres` user appears later.
pub fn by_uid(uid: u32) -> Option<Account> {
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    passwd.lines().filter_map(parse).find(|account| account.uid == uid)
}

impl Account {
    /// Whether this account may enter `directory`; asked of the kernel, since modes are not the whole truth.
    pub fn can_enter(&self, directory: &Path) -> bool {
        Command::new("setpriv")
            .args(["--reuid", &self.uid.to_string(), "--regid", &self.gid.to_string(), "--clear-groups", "--"])
            .args(["test", "-x"])
            .arg(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }
}

fn find(passwd: &str, name: &str) -> Option<Account> {
    passwd.lines().filter_map(parse).find(|account| account.name == name)
}

fn parse(line: &str) -> Option<Account> {
    let mut fields = line.split(':');
    let name = fields.next()?.to_owned();
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    Some(Account { name, uid, gid })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_found_by_its_whole_name() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\npostgresx:x:7:7::/:\npostgres:x:101:104:admin,,,:/var/lib/postgresql:/bin/bash\n";
        let account = find(passwd, "postgres").unwrap();
        assert_eq!((account.uid, account.gid), (101, 104));
        assert_eq!(find(passwd, "nobody"), None);
    }
}
