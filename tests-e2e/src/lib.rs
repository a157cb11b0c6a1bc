//! A whole Sightline of its own for each test: the built programs, started as `cargo dev up` starts them, on free ports,
//! in a namespace and a database that nobody else has.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test or benchmark that cannot get its installation must stop at once"
)]

pub mod bench;
pub mod client;
pub mod otlp;
pub mod receiver;
pub mod servers;
pub mod traces;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use devstack::process::{Process, Spawn};
use devstack::servers::ServerUrls;
use devstack::services::{AGENT, DatabaseAccess, Listener, Ports, SERVICES, Service, Stack, certificates};
use tempfile::TempDir;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::client::Client;

/// Debug builds on two busy cores start slowly.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Kubernetes' own default.
const GRACE: Duration = Duration::from_secs(30);

/// How a process ended after it was asked to.
#[derive(Debug)]
pub struct Stopped {
    /// Its exit status, or the signal that killed it.
    pub end: String,
    pub took: Duration,
}

impl Stopped {
    /// Whether it went by itself and had nothing to complain about.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.end == "ended with exit status 0"
    }
}

/// One process of an installation, running or not.
struct Member {
    service: &'static str,
    /// The installation as this process sees it: its own ports, everybody else's as they are.
    stack: Stack,
    /// Where its program lies.
    programs: PathBuf,
    process: Option<Process>,
}

impl Member {
    fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("it was spawned")
    }
}

/// A running Sightline. Dropping it kills everything that it started.
///
/// A process is called by its service's name; a second replica is `<service>-2`.
pub struct Sightline {
    pub stack: Stack,
    members: BTreeMap<String, Member>,
    /// The database, as its superuser sees it.
    pub database_url: String,
    folder: TempDir,
    _turn: OwnedMutexGuard<()>,
}

impl Sightline {
    /// Starts the ten services and waits until all are ready. `overrides` are settings for all of them.
    pub async fn start(overrides: &[(&str, &str)]) -> Self {
        let mut sightline = Self::prepare(overrides).await;
        sightline.spawn_services();
        sightline.wait_all_ready().await;
        sightline
    }

    /// Everything that the services need, but none of them started yet: `stack` may still be changed.
    pub async fn prepare(overrides: &[(&str, &str)]) -> Self {
        // Ten processes are enough for two cores: installations take turns.
        static TURN: LazyLock<Arc<Mutex<()>>> = LazyLock::new(Arc::default);
        let turn = Arc::clone(&TURN).lock_owned().await;
        let folder = tempfile::tempdir().unwrap();
        let servers = testkit::servers();
        let database_url = testkit::database().await.database_url.reveal().to_owned();
        let mut stack = Stack {
            namespace: testkit::namespace().namespace,
            servers: ServerUrls {
                nats: servers.nats.clone(),
                nats_monitor: Some(servers.nats_monitor.clone()),
                postgres: servers.postgres.clone(),
                redis: servers.redis.clone(),
                metrics: servers.metrics.clone(),
            },
            database: DatabaseAccess::Shared { url: database_url.clone() },
            ports: Ports::free().unwrap(),
            tls: folder.path().join("tls"),
            state: folder.path().to_owned(),
            agent_logs: vec![folder.path().join("demo.log")],
            overrides: overrides.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        };
        stack.overrides.entry("SIGHTLINE_STREAM_MAX_BYTES".to_owned()).or_insert_with(|| "64MiB".to_owned());
        let made =
            Command::new(program("devcerts")).arg("--out").arg(&stack.tls).args(certificates("")).output().unwrap();
        assert!(made.status.success(), "devcerts: {}", String::from_utf8_lossy(&made.stderr));
        devstack::session::ensure_key(&stack.encryption_key_file()).unwrap();
        Self { stack, members: BTreeMap::new(), database_url, folder, _turn: turn }
    }

    /// Starts the ten services.
    pub fn spawn_services(&mut self) {
        for service in &SERVICES {
            self.spawn(service.name);
        }
    }

    /// Waits until the ten services are ready.
    pub async fn wait_all_ready(&mut self) {
        for service in &SERVICES {
            self.wait_ready(service.name).await;
        }
    }

    /// Starts the agent with a token of its own, as `cargo dev up` does, and waits until it has delivered.
    pub async fn start_agent(&mut self) {
        let environment = self.stack.environment(AGENT);
        let id = Command::new(program(AGENT)).arg("id").envs(&environment).output().unwrap();
        assert!(id.status.success(), "agent id: {}", String::from_utf8_lossy(&id.stderr));
        let id = String::from_utf8(id.stdout).unwrap().trim().to_owned();
        let api = self.stack.http_address("api-gateway");
        let access = devstack::session::login(&api, &self.stack.password_file()).unwrap();
        let token = devstack::session::agent_token(&api, &access, &id).unwrap();
        std::fs::create_dir_all(self.stack.agent_directory()).unwrap();
        devstack::session::write_secret(&self.stack.agent_token_file(), &token).unwrap();
        self.spawn(AGENT);
        self.wait_ready(AGENT).await;
    }

    /// A client that is logged in as the first admin.
    pub async fn admin(&self) -> Client {
        let password = std::fs::read_to_string(self.stack.password_file()).unwrap();
        Client::login(&self.stack, password.trim()).await
    }

    /// Starts a process that does not run.
    pub fn spawn(&mut self, name: &str) {
        if !self.members.contains_key(name) {
            self.add_service(name);
        }
        let log = self.log(name);
        let member = self.members.get_mut(name).unwrap();
        let spawn = Spawn::new(name, member.programs.join(member.service), log);
        member.process = Some(spawn.envs(member.stack.environment(member.service)).start().unwrap());
    }

    /// Adds a second replica of a service and starts it; gives the name that it goes by here.
    pub fn spawn_second(&mut self, service: &'static str) -> String {
        let name = self.add_second(service);
        self.spawn(&name);
        name
    }

    /// Adds a service, which [`spawn`](Self::spawn) starts.
    pub fn add_service(&mut self, name: &str) {
        let service = Service::find(name).expect("a service, or a replica that was added").name;
        self.add(name.to_owned(), service, self.stack.clone());
    }

    /// Adds a second replica of a service, on ports of its own; gives the name that it goes by here.
    pub fn add_second(&mut self, service: &'static str) -> String {
        let name = format!("{service}-2");
        if !self.members.contains_key(&name) {
            let mut stack = self.stack.clone();
            let free = Ports::free().unwrap();
            for (listener, _) in Service::find(service).unwrap().listeners() {
                stack.ports.set(service, listener, free.of(service, listener)).unwrap();
            }
            self.add(name.clone(), service, stack);
        }
        name
    }

    /// From the next start on, the process is the program in `folder`: that of another release.
    pub fn install(&mut self, name: &str, folder: &Path) {
        self.members.get_mut(name).unwrap().programs = folder.to_owned();
    }

    fn add(&mut self, name: String, service: &'static str, stack: Stack) {
        let member = Member { service, stack, programs: programs(), process: None };
        self.members.insert(name, member);
    }

    fn running(&mut self, name: &str) -> &mut Process {
        self.members.get_mut(name).expect("a process of this installation").process()
    }

    /// Kills a process as a crash would, and says how it ended.
    pub fn kill(&mut self, name: &str) -> String {
        let process = self.running(name);
        process.kill();
        devstack::process::describe_exit(process.exited().unwrap())
    }

    /// Asks a process to stop, as Kubernetes would, and says how it ended; what takes too long is killed as there.
    pub fn stop(&mut self, name: &str) -> Stopped {
        let process = self.running(name);
        let begun = Instant::now();
        process.stop(GRACE);
        Stopped { end: devstack::process::describe_exit(process.exited().unwrap()), took: begun.elapsed() }
    }

    /// Makes a process hang: it keeps its connections and answers nothing.
    pub fn freeze(&self, name: &str) {
        self.signal(name, "STOP");
    }

    /// Lets a frozen process go on.
    pub fn thaw(&self, name: &str) {
        self.signal(name, "CONT");
    }

    fn signal(&self, name: &str, signal: &str) {
        // The shell's own `kill`: a bare machine may have no other.
        let command = format!("kill -{signal} {}", self.pid(name));
        let told = Command::new("sh").arg("-c").arg(command).status().unwrap();
        assert!(told.success(), "cannot send {signal} to {name}");
    }

    #[must_use]
    pub fn pid(&self, name: &str) -> u32 {
        self.members[name].process.as_ref().expect("it was spawned").pid()
    }

    /// Waits until `/readyz` says yes; fails with its log when the process ends or time is up.
    pub async fn wait_ready(&mut self, name: &str) {
        let begun = Instant::now();
        let address = self.admin_address(name);
        loop {
            let asked = address.clone();
            let answer =
                tokio::task::spawn_blocking(move || devstack::http::get(&asked, "/readyz", Duration::from_secs(2)));
            let state = match answer.await.unwrap() {
                Ok(answer) if answer.status == 200 => return,
                Ok(answer) => answer.body,
                Err(error) => format!("{error:#}"),
            };
            if let Some(status) = self.running(name).exited() {
                panic!("{name} {}:\n{}", devstack::process::describe_exit(status), self.tail(name));
            }
            assert!(begun.elapsed() < READY_WITHIN, "{name} is not ready: {state}\n{}", self.tail(name));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The value of a metric that has no labels, from a process's `/metrics`.
    pub async fn metric(&self, name: &str, metric: &str) -> Option<f64> {
        let address = self.admin_address(name);
        let answer =
            tokio::task::spawn_blocking(move || devstack::http::get(&address, "/metrics", Duration::from_secs(2)));
        let text = answer.await.unwrap().ok()?.body;
        text.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' ')?.parse().ok())
    }

    /// Where a process answers `/readyz` and `/metrics`.
    #[must_use]
    pub fn admin_address(&self, name: &str) -> String {
        let member = &self.members[name];
        member.stack.admin_address(member.service)
    }

    /// Base URL of a process's HTTP listener.
    #[must_use]
    pub fn http(&self, name: &str) -> String {
        let member = &self.members[name];
        format!("http://{}", member.stack.http_address(member.service))
    }

    /// The file that the agent watches.
    #[must_use]
    pub fn demo_log(&self) -> PathBuf {
        self.stack.agent_logs[0].clone()
    }

    /// Base URL of the gateway's HTTP listener.
    #[must_use]
    pub fn ingest_http(&self) -> String {
        format!("http://{}", self.stack.http_address("ingest-gateway"))
    }

    /// Base URL of the gateway's gRPC listener.
    #[must_use]
    pub fn ingest_grpc(&self) -> String {
        format!("http://127.0.0.1:{}", self.stack.ports.of("ingest-gateway", Listener::Grpc))
    }

    /// The last lines that a process logged.
    #[must_use]
    pub fn tail(&self, name: &str) -> String {
        devstack::servers::log_tail(&self.log(name))
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.path().join("logs").join(format!("{name}.log"))
    }
}

impl Drop for Sightline {
    /// Of a test that fails, the logs would be gone with it.
    #[expect(clippy::print_stderr, reason = "a test says why it failed")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in self.members.keys() {
                eprintln!("{name} logged last:\n{}", self.tail(name));
            }
        }
    }
}

fn programs() -> PathBuf {
    PathBuf::from(&testkit::servers().bin_dir)
}

fn program(name: &str) -> PathBuf {
    programs().join(name)
}
