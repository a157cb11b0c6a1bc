//! Keeps the whole stack running: servers first, then services, then the agent; stopped in the opposite order.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::console::note;
use crate::interrupt::Interrupt;
use crate::process::{Process, stop_together};
use crate::servers::{Probe, log_tail};
use crate::session;
use crate::state::{Child, Picture};
use crate::watched::Watched;

const TICK: Duration = Duration::from_millis(50);
const REPORT_PAUSE: Duration = Duration::from_secs(10);
const SERVERS_DEADLINE: Duration = Duration::from_secs(60);
const ENROLMENT_PAUSE: Duration = Duration::from_secs(1);
/// Services drain for up to 25 s by themselves.
const SERVICE_DEADLINE: Duration = Duration::from_secs(30);
const SERVER_DEADLINE: Duration = Duration::from_secs(20);

/// What the agent needs before it can start: an identity and a credential for it.
pub struct Enrolment {
    pub api: String,
    pub password_file: PathBuf,
    pub agent: PathBuf,
    pub environment: BTreeMap<String, String>,
    pub directory: PathBuf,
    pub token_file: PathBuf,
}

impl Enrolment {
    pub fn run(&self) -> Result<()> {
        std::fs::create_dir_all(&self.directory).context("create the agent's folder")?;
        let output =
            Command::new(&self.agent).arg("id").envs(&self.environment).output().context("ask the agent for its id")?;
        if !output.status.success() {
            bail!("ask the agent for its id: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let id = String::from_utf8(output.stdout).context("read the agent's id")?;
        let access = session::login(&self.api, &self.password_file)?;
        let token = session::agent_token(&self.api, &access, id.trim())?;
        session::write_secret(&self.token_file, &token)
    }
}

pub struct Supervisor {
    state: PathBuf,
    api: String,
    existing: Vec<Child>,
    servers: Vec<Watched>,
    inner: Vec<Watched>,
    edge: Vec<Watched>,
    agent: Option<Watched>,
    enrolment: Option<Enrolment>,
    next_enrolment: Instant,
}

impl Supervisor {
    /// `api` is the api-gateway's `host:port`.
    pub fn new(state: PathBuf, api: String) -> Self {
        Self {
            state,
            api,
            existing: Vec::new(),
            servers: Vec::new(),
            inner: Vec::new(),
            edge: Vec::new(),
            agent: None,
            enrolment: None,
            next_enrolment: Instant::now(),
        }
    }

    /// A server that somebody else runs: shown, never touched.
    pub fn add_existing(&mut self, name: &str, probe: Probe) {
        self.existing.push(Child { name: name.to_owned(), url: probe.url().to_owned(), ..Child::default() });
    }

    pub fn add_server(&mut self, mut server: Watched) -> Result<()> {
        server.start()?;
        self.servers.push(server);
        self.publish()
    }

    pub fn add_service(&mut self, mut service: Watched, at_the_edge: bool) -> Result<()> {
        service.start()?;
        if at_the_edge {
            self.edge.push(service)
        } else {
            self.inner.push(service)
        }
        self.publish()
    }

    /// The agent starts when it can be enrolled.
    pub fn add_agent(&mut self, mut agent: Watched, enrolment: Enrolment) -> Result<()> {
        agent.hold("waits for auth and api-gateway".to_owned());
        self.agent = Some(agent);
        self.enrolment = Some(enrolment);
        self.publish()
    }

    /// A server that cannot start at all is an error, not a reason to try for ever.
    pub fn await_servers(&mut self, interrupt: &Interrupt) -> Result<()> {
        let end = Instant::now() + SERVERS_DEADLINE;
        while let Some(waiting) = self.servers.iter().position(|server| !server.is_ready()) {
            interrupt.check()?;
            self.tick()?;
            let server = &self.servers[waiting];
            if server.has_died() || Instant::now() > end {
                bail!("{} does not start: {}\n{}", server.name(), server.reason(), log_tail(server.log()));
            }
            std::thread::sleep(TICK);
        }
        Ok(())
    }

    pub fn await_all(&mut self, interrupt: &Interrupt) -> Result<()> {
        let mut next_report = Instant::now() + REPORT_PAUSE;
        loop {
            interrupt.check()?;
            self.tick()?;
            let waiting: Vec<String> = self
                .all()
                .filter(|one| !one.is_ready())
                .map(|one| format!("{} ({})", one.name(), one.reason()))
                .collect();
            if waiting.is_empty() {
                return Ok(());
            }
            if Instant::now() >= next_report {
                next_report = Instant::now() + REPORT_PAUSE;
                note(&format!("{:>8}  still waiting for {}", "start", waiting.join(", ")));
            }
            std::thread::sleep(TICK);
        }
    }

    /// Until somebody interrupts.
    pub fn watch(&mut self, interrupt: &Interrupt) -> Result<()> {
        while !interrupt.requested() {
            self.tick()?;
            std::thread::sleep(TICK);
        }
        Ok(())
    }

    /// The agent, the edge, what is behind it, the servers. A second interrupt kills what is left.
    pub fn stop(&mut self, interrupt: &Interrupt) {
        interrupt.acknowledge();
        note(&format!("{:>8}  stopping; once more kills", "stop"));
        let waves: [(Vec<&mut Watched>, Duration); 4] = [
            (self.agent.iter_mut().collect(), SERVICE_DEADLINE),
            (self.edge.iter_mut().collect(), SERVICE_DEADLINE),
            (self.inner.iter_mut().collect(), SERVICE_DEADLINE),
            (self.servers.iter_mut().collect(), SERVER_DEADLINE),
        ];
        for (wave, deadline) in waves {
            let mut processes: Vec<&mut Process> = wave.into_iter().filter_map(Watched::process).collect();
            let killed = stop_together(&mut processes, deadline, || interrupt.requested());
            if !killed.is_empty() {
                note(&format!("{:>8}  had to kill {}", "stop", killed.join(", ")));
            }
        }
    }

    fn tick(&mut self) -> Result<()> {
        let mut changed = false;
        for one in self.servers.iter_mut().chain(&mut self.inner).chain(&mut self.edge).chain(&mut self.agent) {
            changed |= one.tick();
        }
        changed |= self.enrol()?;
        if changed {
            self.publish()?;
        }
        Ok(())
    }

    fn enrol(&mut self) -> Result<bool> {
        let Some(enrolment) = &self.enrolment else {
            return Ok(false);
        };
        let ready = |name: &str| self.all().any(|one| one.name() == name && one.is_ready());
        if Instant::now() < self.next_enrolment || !ready("auth") || !ready("api-gateway") {
            return Ok(false);
        }
        let outcome = enrolment.run();
        let Some(agent) = &mut self.agent else {
            return Ok(false);
        };
        match outcome {
            Ok(()) => {
                self.enrolment = None;
                agent.start()?;
            }
            Err(error) => {
                agent.hold(format!("{error:#}"));
                self.next_enrolment = Instant::now() + ENROLMENT_PAUSE;
            }
        }
        Ok(true)
    }

    fn all(&self) -> impl Iterator<Item = &Watched> {
        self.servers.iter().chain(&self.inner).chain(&self.edge).chain(&self.agent)
    }

    fn publish(&self) -> Result<()> {
        let services = self.inner.iter().chain(&self.edge).chain(&self.agent);
        let picture = Picture {
            api: self.api.clone(),
            processes: services.map(Watched::child).collect(),
            servers: self.servers.iter().map(Watched::child).chain(self.existing.iter().cloned()).collect(),
        };
        picture.save(&self.state)
    }
}
