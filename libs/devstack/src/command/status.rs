//! `cargo dev status`: what the supervisor knows, joined with what each child says of itself now.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::{Value, json};

use crate::address::redact;
use crate::console::result;
use crate::servers::{self, Probe};
use crate::services;
use crate::state::{Child, Lock, Picture};
use crate::watched::Health;
use crate::workspace::Workspace;

const NOT_RUNNING: &str = "not running";

/// Fails, in text, when not everything is ready. In JSON the answer is the answer.
pub fn run(as_json: bool) -> Result<ExitCode> {
    let state = Workspace::find()?.state();
    let picture = Lock::holder(&state).and_then(|_| Picture::load(&state)).unwrap_or_default();
    let report = Report::take(&picture);
    if as_json {
        result(&report.json().to_string());
        return Ok(ExitCode::SUCCESS);
    }
    result(&report.text());
    Ok(if report.all_ready() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[derive(Debug)]
struct Process {
    name: String,
    ready: bool,
    pid: Option<u32>,
    restarts: u64,
    reason: Option<String>,
}

#[derive(Debug)]
struct Server {
    name: String,
    ready: bool,
    version: Option<String>,
    url: Option<String>,
    reason: Option<String>,
}

#[derive(Debug)]
struct Report {
    processes: Vec<Process>,
    servers: Vec<Server>,
}

impl Report {
    /// Always the whole list, whatever runs. All are asked at once: one that hangs delays nobody's answer.
    fn take(picture: &Picture) -> Self {
        std::thread::scope(|scope| {
            let processes: Vec<_> = services::all()
                .map(|service| scope.spawn(move || process(service.name, &picture.processes)))
                .into_iter()
                .collect();
            let servers: Vec<_> =
                servers::NAMES.map(|name| scope.spawn(move || server(name, &picture.servers))).into_iter().collect();
            Self {
                processes: processes.into_iter().filter_map(|asked| asked.join().ok()).collect(),
                servers: servers.into_iter().filter_map(|asked| asked.join().ok()).collect(),
            }
        })
    }

    fn all_ready(&self) -> bool {
        self.processes.iter().all(|process| process.ready) && self.servers.iter().all(|server| server.ready)
    }

    fn json(&self) -> Value {
        let processes: Vec<Value> = self
            .processes
            .iter()
            .map(|one| json!({"name": one.name, "ready": one.ready, "pid": one.pid, "restarts": one.restarts, "reason": one.reason}))
            .collect();
        let servers: Vec<Value> = self
            .servers
            .iter()
            .map(|one| json!({"name": one.name, "version": one.version, "ready": one.ready, "url": one.url}))
            .collect();
        json!({"processes": processes, "servers": servers})
    }

    fn text(&self) -> String {
        let mut lines = vec![format!("{:<18} {:<10} {:>8} {:>9}  {}", "PROCESS", "STATE", "PID", "RESTARTS", "REASON")];
        for one in &self.processes {
            let pid = one.pid.map(|pid| pid.to_string()).unwrap_or_default();
            let line = format!(
                "{:<18} {:<10} {pid:>8} {:>9}  {}",
                one.name,
                state(one.ready),
                one.restarts,
                one.reason.as_deref().unwrap_or_default()
            );
            lines.push(line.trim_end().to_owned());
        }
        lines.push(String::new());
        lines.push(format!("{:<18} {:<10} {:<24} {}", "SERVER", "STATE", "VERSION", "URL"));
        for one in &self.servers {
            let url = one.url.as_deref().unwrap_or_default();
            let trouble = one.reason.as_deref().map(|reason| format!("  {reason}")).unwrap_or_default();
            let line = format!(
                "{:<18} {:<10} {:<24} {url}{trouble}",
                one.name,
                state(one.ready),
                one.version.as_deref().unwrap_or_default()
            );
            lines.push(line.trim_end().to_owned());
        }
        lines.join("\n")
    }
}

fn state(ready: bool) -> &'static str {
    if ready { "ready" } else { "not ready" }
}

fn process(name: &str, children: &[Child]) -> Process {
    let Some(child) = children.iter().find(|child| child.name == name) else {
        return Process {
            name: name.to_owned(),
            ready: false,
            pid: None,
            restarts: 0,
            reason: Some(NOT_RUNNING.to_owned()),
        };
    };
    let health = match child.pid {
        Some(_) => Health::Admin(child.admin.clone()).check(),
        None => Err(NOT_RUNNING.to_owned()),
    };
    let reason = match (&health, &child.reason) {
        (Ok(()), past) => past.as_ref().filter(|_| child.restarts > 0).map(|past| format!("last: {past}")),
        (Err(now), Some(past)) if child.restarts > 0 || child.pid.is_none() => {
            Some(if now == NOT_RUNNING { past.clone() } else { format!("{now} (last: {past})") })
        }
        (Err(now), _) => Some(now.clone()),
    };
    Process { name: name.to_owned(), ready: health.is_ok(), pid: child.pid, restarts: child.restarts, reason }
}

fn server(name: &str, children: &[Child]) -> Server {
    let Some(child) = children.iter().find(|child| child.name == name) else {
        return Server {
            name: name.to_owned(),
            ready: false,
            version: None,
            url: None,
            reason: Some(NOT_RUNNING.to_owned()),
        };
    };
    let url = child.url.clone();
    let probe = match name {
        servers::NATS => Probe::Nats { url, monitor: child.monitor.clone() },
        servers::POSTGRES => Probe::Postgres { url },
        servers::REDIS => Probe::Redis { url },
        _ => Probe::Metrics { url },
    };
    let answer = probe.check();
    Server {
        name: name.to_owned(),
        ready: answer.is_ok(),
        reason: answer.as_ref().err().map(|error| format!("{error:#}")),
        version: answer.ok().flatten().or_else(|| (!child.version.is_empty()).then(|| child.version.clone())),
        url: Some(redact(&child.url)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_running_stack_all_are_listed_and_none_is_ready() {
        let report = Report::take(&Picture::default()).json();
        let processes = report["processes"].as_array().unwrap();
        assert_eq!(processes.len(), 11);
        assert!(
            processes.iter().all(|one| one["ready"] == false && one["reason"] == "not running" && one["pid"].is_null())
        );
        assert_eq!(report["servers"].as_array().unwrap().len(), 4);
    }

    #[test]
    fn a_process_that_waits_to_be_restarted_says_what_ended_it() {
        let dead =
            Child { name: "auth".into(), restarts: 3, reason: Some("killed by signal 9".into()), ..Child::default() };
        let shown = process("auth", &[dead]);
        assert_eq!((shown.ready, shown.restarts, shown.reason.as_deref()), (false, 3, Some("killed by signal 9")));
    }
}
