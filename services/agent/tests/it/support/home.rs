//! An agent to send to the gateway, its folder and its log.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agent::config::Config;
use lifecycle::{CancellationToken, Process};

/// A folder for an agent: its state and the log that it follows.
pub struct Home {
    folder: tempfile::TempDir,
}

impl Home {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn log(&self) -> PathBuf {
        self.path("app.log")
    }

    pub fn append(&self, lines: impl IntoIterator<Item = impl AsRef<str>>) {
        let text: String = lines.into_iter().map(|line| format!("{}\n", line.as_ref())).collect();
        append(&self.log(), &text);
    }

    pub fn spooled(&self) -> usize {
        std::fs::read_dir(self.path("state/spool"))
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|extension| extension == "logs"))
            .count()
    }

    pub fn arguments(&self, endpoint: &str) -> Vec<String> {
        [
            ("--endpoint", endpoint),
            ("--state-dir", self.path("state").to_str().unwrap()),
            ("--log-files", self.log().to_str().unwrap()),
            ("--interval", "300ms"),
            ("--process-interval", "300ms"),
            ("--linger", "20ms"),
            ("--admin-listen", "127.0.0.1:0"),
        ]
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), value.to_owned()])
        .collect()
    }

    /// Starts an agent in this process.
    pub async fn start(&self, address: SocketAddr) -> Process {
        self.start_with(&format!("http://{address}"), &[]).await
    }

    pub async fn start_with(&self, endpoint: &str, more: &[String]) -> Process {
        // What is given here replaces what every agent of these tests is told.
        let usual = self.arguments(endpoint);
        let usual = usual.chunks(2).filter(|pair| !more.contains(&pair[0])).flatten();
        let arguments = std::iter::once("agent".to_owned()).chain(usual.cloned()).chain(more.iter().cloned());
        let config: Config =
            settings::read(arguments.map(Into::into).collect(), &BTreeMap::new()).unwrap().settings().unwrap();
        let process = Process::for_test();
        agent::app::run(config, process.clone()).await.unwrap();
        process
    }
}

pub fn append(path: &Path, text: &str) {
    File::options().append(true).create(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

pub fn numbered(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| format!("line {number}")).collect()
}

/// Appends numbered lines, a few at a time, until it is told to stop; gives how many it wrote.
pub async fn write_until(log: PathBuf, stop: CancellationToken) -> u32 {
    let mut written = 0;
    while !stop.is_cancelled() {
        append(&log, &format!("line {written}\nline {}\nline {}\n", written + 1, written + 2));
        written += 3;
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    written
}

/// Requests may overtake each other on the way, so only the set of lines is looked at.
pub fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort_by_key(|line| line.trim_start_matches("line ").parse::<u32>().unwrap_or(u32::MAX));
    lines
}
