//! TCP ports on loopback: a free one, and who holds a taken one.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use anyhow::{Context, Result};

const LISTEN: &str = "0A";

/// A port that nobody listens on now. Another process may still take it first: whoever uses it must be ready to retry.
pub fn free() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port")?;
    Ok(listener.local_addr().context("read the free port")?.port())
}

/// Several different free ports: all are held until the last is known.
pub fn free_set(count: usize) -> Result<Vec<u16>> {
    let listeners: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port"))
        .collect::<Result<_>>()?;
    listeners.iter().map(|listener| Ok(listener.local_addr().context("read the free port")?.port())).collect()
}

/// Why `port` cannot be listened on, or `None` if it can.
pub fn conflict(port: u16) -> Option<String> {
    let error = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).err()?;
    if error.kind() != std::io::ErrorKind::AddrInUse {
        return Some(format!("cannot be opened: {error}"));
    }
    Some(match holder(port) {
        Some((pid, program)) => format!("is taken by {program} (pid {pid})"),
        None => "is taken by another user's process".to_owned(),
    })
}

fn holder(port: u16) -> Option<(u32, String)> {
    let inodes: Vec<u64> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| std::fs::read_to_string(table).ok())
        .flat_map(|table| listening_inodes(&table, port))
        .collect();
    std::fs::read_dir("/proc")
        .ok()?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .find(|pid| holds_socket(*pid, &inodes))
        .map(|pid| (pid, program(pid)))
}

/// The sockets that listen on `port` in a table laid out like `/proc/net/tcp` (see proc(5)).
fn listening_inodes(table: &str, port: u16) -> Vec<u64> {
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let local = fields.get(1)?.rsplit_once(':')?.1;
            let listens = *fields.get(3)? == LISTEN && u16::from_str_radix(local, 16) == Ok(port);
            listens.then(|| fields.get(9)?.parse().ok())?
        })
        .collect()
}

fn holds_socket(pid: u32, inodes: &[u64]) -> bool {
    let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    descriptors.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok()).any(|target| {
        target
            .to_str()
            .and_then(|text| text.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok())
            .is_some_and(|inode| inodes.contains(&inode))
    })
}

fn program(pid: u32) -> String {
    let command_line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let first = command_line.split(|byte| *byte == 0).next().unwrap_or_default();
    let path = String::from_utf8_lossy(first).into_owned();
    let name = Path::new(&path).file_name().map(|name| name.to_string_lossy().into_owned());
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| "an unnamed process".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12345 1 0000000000000000 100 0 0 10 0
   1: 0100007F:1F90 0100007F:C001 01 00000000:00000000 00:00000000 00000000     0        0 12346 1 0000000000000000 20 4 30 10 -1
   2: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 777 1 0000000000000000 100 0 0 10 0
";

    #[test]
    fn only_the_listening_socket_of_the_port_counts() {
        assert_eq!(listening_inodes(TABLE, 8080), [12345]);
        assert_eq!(listening_inodes(TABLE, 80), [777]);
        assert_eq!(listening_inodes(TABLE, 8081), Vec::<u64>::new());
    }

    #[test]
    fn the_holder_of_a_taken_port_is_named() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let trouble = conflict(port).unwrap();
        assert!(trouble.contains(&format!("pid {}", std::process::id())), "{trouble}");
        drop(listener);
        // Somebody else may have taken it at once.
        let trouble = conflict(port).unwrap_or_default();
        assert!(!trouble.contains(&format!("pid {}", std::process::id())), "{trouble}");
    }

    #[test]
    fn free_ports_differ() {
        let mut ports = free_set(20).unwrap();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 20);
    }
}
