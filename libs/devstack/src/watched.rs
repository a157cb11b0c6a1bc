//! One child under supervision: started, asked whether it is ready, started again with back-off when it dies.

use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::backoff::Backoff;
use crate::console::{note, seconds};
use crate::http;
use crate::process::{Process, Spawn, describe_exit, start_time};
use crate::servers::{Probe, log_tail};
use crate::state::Child;

const PROBE_PAUSE: Duration = Duration::from_millis(250);
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);
const REASON_LIMIT: usize = 300;

/// How a child says that it is ready.
#[derive(Debug, Clone)]
pub enum Health {
    Server(Probe),
    /// `host:port` whose `/readyz` answers 200.
    Admin(String),
}

impl Health {
    /// An error is the reason why not.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Self::Server(probe) => probe.check().map(|_| ()).map_err(|error| format!("{error:#}")),
            Self::Admin(address) => match http::get(address, "/readyz", PROBE_TIMEOUT) {
                Ok(response) if response.status == 200 => Ok(()),
                Ok(response) => Err(missing(&response.body)),
                Err(error) => Err(format!("{error:#}")),
            },
        }
    }
}

#[derive(Debug)]
pub struct Watched {
    spawn: Spawn,
    health: Health,
    process: Option<Process>,
    backoff: Backoff,
    restart_at: Option<Instant>,
    next_probe: Instant,
    restarts: u64,
    /// Why it died last, or what it waits for.
    reason: Option<String>,
    ready: bool,
    version: String,
}

impl Watched {
    pub fn new(spawn: Spawn, health: Health) -> Self {
        Self {
            spawn,
            health,
            process: None,
            backoff: Backoff::default(),
            restart_at: None,
            next_probe: Instant::now(),
            restarts: 0,
            reason: None,
            ready: false,
            version: String::new(),
        }
    }

    /// The version to show for a server that does not tell its own.
    pub fn version(mut self, version: &str) -> Self {
        version.clone_into(&mut self.version);
        self
    }

    pub fn name(&self) -> &str {
        &self.spawn.name
    }

    pub fn is_ready(&self) -> bool {
        self.ready
    }

    pub fn has_died(&self) -> bool {
        self.restarts > 0
    }

    pub fn log(&self) -> &std::path::Path {
        self.spawn.log()
    }

    pub fn reason(&self) -> &str {
        self.reason.as_deref().unwrap_or("starting")
    }

    /// A child that cannot be started yet says why.
    pub fn hold(&mut self, reason: String) {
        self.reason = Some(reason);
    }

    pub fn process(&mut self) -> Option<&mut Process> {
        self.process.as_mut()
    }

    pub fn start(&mut self) -> Result<()> {
        self.process = Some(self.spawn.start()?);
        self.reason = None;
        Ok(())
    }

    /// Reaps, restarts and probes. True if what others see of it has changed.
    pub fn tick(&mut self) -> bool {
        if let Some(status) = self.process.as_mut().and_then(Process::exited) {
            self.bury(status);
            return true;
        }
        if self.restart_at.is_some_and(|at| Instant::now() >= at) {
            self.restart();
            return true;
        }
        if !self.ready && self.process.is_some() && Instant::now() >= self.next_probe {
            return self.probe();
        }
        false
    }

    pub fn child(&self) -> Child {
        let pid = self.process.as_ref().map(Process::pid);
        let (admin, url, monitor) = match &self.health {
            Health::Admin(address) => (address.clone(), String::new(), None),
            Health::Server(Probe::Nats { url, monitor }) => (String::new(), url.clone(), monitor.clone()),
            Health::Server(probe) => (String::new(), probe.url().to_owned(), None),
        };
        Child {
            name: self.spawn.name.clone(),
            pid,
            start_time: pid.and_then(start_time),
            restarts: self.restarts,
            reason: self.reason.clone(),
            admin,
            url,
            monitor,
            version: self.version.clone(),
        }
    }

    fn bury(&mut self, status: ExitStatus) {
        let lived = self.process.take().map(|process| process.uptime()).unwrap_or_default();
        let wait = self.backoff.after(lived);
        let what = describe_exit(status);
        note(&format!(
            "{:>8}  {} {what} after {}; starts again in {}",
            "restart",
            self.spawn.name,
            seconds(lived),
            seconds(wait)
        ));
        if !self.ready && self.restarts == 0 {
            note(&log_tail(self.spawn.log()));
        }
        self.reason = Some(what);
        self.ready = false;
        self.restarts += 1;
        self.restart_at = Some(Instant::now() + wait);
    }

    fn restart(&mut self) {
        self.restart_at = None;
        self.next_probe = Instant::now();
        match self.spawn.start() {
            Ok(process) => self.process = Some(process),
            Err(error) => {
                self.reason = Some(format!("{error:#}"));
                self.restart_at = Some(Instant::now() + self.backoff.after(Duration::ZERO));
            }
        }
    }

    fn probe(&mut self) -> bool {
        self.next_probe = Instant::now() + PROBE_PAUSE;
        match self.health.check() {
            Ok(()) => {
                self.ready = true;
                if self.restarts == 0 {
                    self.reason = None;
                } else {
                    note(&format!("{:>8}  {} is ready again", "restart", self.spawn.name));
                }
                true
            }
            Err(reason) => {
                // After a death its cause tells more than what the newcomer still waits for.
                if self.restarts == 0 {
                    self.reason = Some(reason);
                }
                false
            }
        }
    }
}

/// Our services answer `{"missing": {"<what>": "<why>"}}`.
fn missing(body: &str) -> String {
    let answer: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    let reasons: Vec<String> = answer["missing"]
        .as_object()
        .map(|parts| parts.iter().map(|(what, why)| format!("{what}: {}", why.as_str().unwrap_or("missing"))).collect())
        .unwrap_or_default();
    one_line(if reasons.is_empty() { body.to_owned() } else { reasons.join("; ") }.as_str())
}

/// A readiness answer may have many lines; a table has room for one.
fn one_line(text: &str) -> String {
    let joined = text.split_whitespace().collect::<Vec<_>>().join(" ");
    joined.chars().take(REASON_LIMIT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_dies_is_started_again_and_counted() {
        let directory = tempfile::tempdir().unwrap();
        let marker = directory.path().join("marker");
        let script = format!("echo x >> {0}; test $(wc -l < {0}) -ge 3 && sleep 600; exit 4", marker.display());
        let spawn = Spawn::new("flaky", "/bin/sh", directory.path().join("log")).args(["-c", &script]);
        let mut watched = Watched::new(spawn, Health::Admin("127.0.0.1:1".to_owned()));
        watched.start().unwrap();
        while std::fs::read_to_string(&marker).unwrap_or_default().lines().count() < 3 {
            watched.tick();
            std::thread::yield_now();
        }
        let child = watched.child();
        assert_eq!((child.restarts, child.reason.as_deref()), (2, Some("ended with exit status 4")));
        assert!(child.pid.is_some() && !watched.is_ready());
    }

    #[test]
    fn a_readiness_answer_becomes_a_sentence() {
        let answer = r#"{"missing":{"broker":"connection refused","keys":"not given yet"},"ready":false}"#;
        assert_eq!(missing(answer), "broker: connection refused; keys: not given yet");
    }

    #[test]
    fn a_reason_is_one_line() {
        assert_eq!(one_line("postgres:\n  away\n"), "postgres: away");
    }
}
