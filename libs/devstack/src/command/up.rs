//! `cargo dev up`: everything, in the foreground, until somebody stops it.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

use super::test::{Programs, prepare};
use crate::account::{self, Account};
use crate::configuration::{Configuration, port_variable};
use crate::console::{Step, note, result, seconds};
use crate::http;
use crate::interrupt::{Interrupt, Interrupted};
use crate::ports;
use crate::process::Spawn;
use crate::servers::{self, Binaries, Durability, Layout, postgres};
use crate::services::{self, DatabaseAccess, Listener, Stack};
use crate::session;
use crate::state::{Lock, Picture};
use crate::supervisor::{Enrolment, Supervisor};
use crate::watched::{Health, Watched};
use crate::workspace::Workspace;

const DATABASE: &str = "sightline";
const NAMESPACE: &str = "sl";
/// What a machine's own log files are usually called; the agent follows those that it may read.
const SYSTEM_LOGS: [&str; 3] = ["/var/log/syslog", "/var/log/messages", "/var/log/auth.log"];
/// The agent reports at its start, and every ten seconds.
const FIRST_METRICS: Duration = Duration::from_secs(12);
/// How long children of a killed `up` may take to follow it.
const LEFTOVER_DEADLINE: Duration = Duration::from_secs(8);

pub fn run() -> Result<ExitCode> {
    let began = Instant::now();
    let interrupt = Interrupt::install()?;
    let workspace = Workspace::find()?;
    let configuration = Configuration::from_environment()?;
    let account = account::for_postgres()?;
    let state = workspace.prepare_state(account.as_ref())?;
    let _lock = Lock::take(&state)?;
    end_leftovers(&state, &interrupt)?;
    check_ports(&configuration)?;
    match supervise(&Site { workspace, configuration, account, state }, began, &interrupt) {
        Err(error) if !error.is::<Interrupted>() => Err(error),
        // Being told to stop is how this command ends.
        _ => {
            note(&format!("{:>8}  all has stopped", "stop"));
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Where and how this `up` runs.
struct Site {
    workspace: Workspace,
    configuration: Configuration,
    account: Option<Account>,
    state: PathBuf,
}

fn supervise(site: &Site, began: Instant, interrupt: &Interrupt) -> Result<()> {
    let binaries =
        prepare(&site.configuration, &site.workspace, &site.configuration.own_servers(), Programs::Debug, interrupt)?;
    let stack = site.stack()?;
    make_certificates(site, &stack)?;
    session::ensure_key(&stack.encryption_key_file())?;
    keep_previous_logs(&site.logs())?;
    let mut supervisor = Supervisor::new(site.state.clone(), stack.http_address("api-gateway"));
    let outcome = site.run(&mut supervisor, &stack, &binaries, began, interrupt);
    supervisor.stop(interrupt);
    outcome
}

impl Site {
    fn logs(&self) -> PathBuf {
        self.state.join("logs")
    }

    fn run(
        &self,
        supervisor: &mut Supervisor,
        stack: &Stack,
        binaries: &Binaries,
        began: Instant,
        interrupt: &Interrupt,
    ) -> Result<()> {
        let step = Step::begin("start", &servers::NAMES.join(", "));
        self.start_servers(supervisor, binaries)?;
        supervisor.await_servers(interrupt)?;
        step.done("servers are ready");
        if self.configuration.existing.database.is_none() {
            let step =
                Step::begin("migrate", "database, roles and schemas; each service brings its tables when it starts");
            postgres::prepare_database(binaries, &stack.servers.postgres, DATABASE, &services::owners())?;
            step.done("database is ready");
        }
        let step = Step::begin("start", "ten services and the agent");
        for service in services::SERVICES {
            supervisor.add_service(self.process(stack, service.name), service.at_the_edge)?;
        }
        supervisor.add_agent(self.process(stack, services::AGENT), self.enrolment(stack))?;
        supervisor.await_all(interrupt)?;
        step.done("all are ready");
        await_first_metrics(stack, interrupt)?;
        welcome(stack, &self.workspace, began.elapsed());
        supervisor.watch(interrupt)
    }

    fn start_servers(&self, supervisor: &mut Supervisor, binaries: &Binaries) -> Result<()> {
        let logs = self.logs();
        let layout = Layout {
            binaries,
            ports: &self.configuration.server_ports,
            data: &self.state,
            logs: &logs,
            durability: Durability::Kept,
            postgres_account: self.account.clone(),
        };
        for name in servers::NAMES {
            match self.configuration.existing.probe(name) {
                Some(probe) => supervisor.add_existing(name, probe),
                None => {
                    let (spawn, probe) = layout.server(name)?;
                    supervisor
                        .add_server(Watched::new(spawn, Health::Server(probe)).version(&binaries.get(name)?.version))?;
                }
            }
        }
        Ok(())
    }

    fn process(&self, stack: &Stack, name: &str) -> Watched {
        let spawn = Spawn::new(name, self.workspace.bin().join(name), self.logs().join(format!("{name}.log")))
            .envs(stack.environment(name));
        Watched::new(spawn, Health::Admin(stack.admin_address(name)))
    }

    fn stack(&self) -> Result<Stack> {
        let demo = self.state.join("demo.log");
        std::fs::OpenOptions::new().create(true).append(true).open(&demo).context("create demo.log")?;
        let readable = SYSTEM_LOGS.iter().map(PathBuf::from).filter(|path| std::fs::File::open(path).is_ok());
        let servers = self.configuration.existing.over(self.configuration.server_ports.urls());
        let database = match &self.configuration.existing.database {
            Some(url) => DatabaseAccess::Shared { url: url.clone() },
            None => DatabaseAccess::role_per_service(&servers.postgres, DATABASE)?,
        };
        Ok(Stack {
            namespace: NAMESPACE.to_owned(),
            servers,
            database,
            ports: self.configuration.ports.clone(),
            tls: self.state.join("tls"),
            state: self.state.clone(),
            agent_logs: std::iter::once(demo.clone()).chain(readable).collect(),
            overrides: self.configuration.handed_on.clone(),
        })
    }

    fn enrolment(&self, stack: &Stack) -> Enrolment {
        Enrolment {
            api: stack.http_address("api-gateway"),
            password_file: stack.password_file(),
            agent: self.workspace.bin().join(services::AGENT),
            environment: stack.environment(services::AGENT),
            directory: stack.agent_directory(),
            token_file: stack.agent_token_file(),
        }
    }
}

/// After `kill -9` the kernel ends our children; those that it could not, and only those, are ended here.
fn end_leftovers(state: &Path, interrupt: &Interrupt) -> Result<()> {
    let Some(picture) = Picture::load(state) else {
        return Ok(());
    };
    interrupt.wait_for(LEFTOVER_DEADLINE, || Ok(picture.living().is_empty().then_some(())))?;
    for child in picture.living() {
        let Some(group) = child.pid.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw) else {
            continue;
        };
        note(&format!("{:>8}  {} (pid {group:?}) is left over from an earlier run", "kill", child.name));
        let _ = kill_process_group(group, Signal::KILL);
    }
    let gone = interrupt.wait_for(LEFTOVER_DEADLINE, || Ok(picture.living().is_empty().then_some(())))?;
    gone.context("end the children of an earlier run")
}

fn check_ports(configuration: &Configuration) -> Result<()> {
    let of_servers =
        configuration.server_listeners().into_iter().map(|(name, variable, port)| (name.to_owned(), variable, port));
    let of_services = configuration.ports.iter().map(|(service, listener, port)| {
        let what = if listener == Listener::Admin { format!("{service} (admin)") } else { service.to_owned() };
        (what, port_variable(service, listener), port)
    });
    let taken: Vec<String> = of_servers
        .chain(of_services)
        .filter_map(|(what, variable, port)| {
            let trouble = ports::conflict(port)?;
            Some(format!("port {port} of {what} {trouble}: free it, or set {variable} to another"))
        })
        .collect();
    if !taken.is_empty() {
        bail!("{}", taken.join("\n"));
    }
    Ok(())
}

fn make_certificates(site: &Site, stack: &Stack) -> Result<()> {
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let output = Command::new(site.workspace.bin().join("devcerts"))
        .arg("--out")
        .arg(&stack.tls)
        .args(services::certificates(hostname.trim()))
        .output()
        .context("run devcerts")?;
    if !output.status.success() {
        bail!("devcerts: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// A run begins new logs; the ones of the run before stay beside them.
fn keep_previous_logs(logs: &Path) -> Result<()> {
    std::fs::create_dir_all(logs).context("create the log folder")?;
    for entry in std::fs::read_dir(logs).context("list logs")?.flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            std::fs::rename(&path, path.with_extension("log.1")).context("keep the previous log")?;
        }
    }
    Ok(())
}

/// So that the first question that is tried has an answer: the store shows what it took a moment later.
fn await_first_metrics(stack: &Stack, interrupt: &Interrupt) -> Result<()> {
    let step = Step::begin("wait", "this host's first metrics");
    let api = stack.http_address("api-gateway");
    let token = session::login(&api, &stack.password_file())?;
    let shown = interrupt.wait_for(FIRST_METRICS, || {
        let path = "/prometheus/api/v1/query?query=system_memory_total";
        let answer = http::get_as(&token, &api, path, Duration::from_secs(2));
        Ok(answer.is_ok_and(|answer| answer.body.contains("\"value\"")).then_some(()))
    })?;
    step.done(if shown.is_some() { "they can be queried" } else { "not there yet; they come with the next round" });
    Ok(())
}

fn welcome(stack: &Stack, workspace: &Workspace, took: Duration) {
    let port = |service, listener| stack.ports.of(service, listener);
    let api = format!("http://localhost:{}", port("api-gateway", Listener::Http));
    let state = workspace.root().join(".dev");
    note(&format!("   ready  after {}", seconds(took)));
    result("sightline is ready");
    result(&format!(
        "\n  API        {api}/api/v1   documentation {api}/docs\n  live       ws://localhost:{}/api/v1/ws/metrics (also logs, alerts)\n  \
         OTLP       grpc localhost:{}   http localhost:{}   (with TLS or without, no credential from loopback)\n  \
         log in     user {}, password in {}; or use the output of `cargo dev token`\n\n\
         try\n  token=$(cargo dev token)\n  curl -H \"Authorization: Bearer $token\" '{api}/prometheus/api/v1/query?query=system_memory_total'\n  \
         echo \"hello $(date)\" >> .dev/demo.log; sleep 2; curl -H \"Authorization: Bearer $token\" '{api}/api/v1/logs?contains=hello'\n  \
         cargo dev status\n\nCtrl-C stops everything. {}",
        port("api-gateway", Listener::Http),
        port("ingest-gateway", Listener::Grpc),
        port("ingest-gateway", Listener::Http),
        crate::session::ADMIN,
        stack.password_file().display(),
        if state.is_symlink() {
            format!("State and logs are in {} ({}).", state.display(), stack.state.display())
        } else {
            format!("State and logs are in {}.", state.display())
        },
    ));
}
