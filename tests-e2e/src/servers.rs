//! The four servers of one installation alone, to be killed and started again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use devstack::account;
use devstack::configuration::Configuration;
use devstack::interrupt::Interrupt;
use devstack::process::Process;
use devstack::servers::{Binaries, Durability, Layout, NAMES, ServerPorts, ServerUrls, log_tail};
use devstack::workspace::Scratch;
use testkit::eventually;

const ANSWERS_WITHIN: Duration = Duration::from_secs(60);

/// Running servers, as durable as those of `cargo dev up`. Dropping them stops them and removes what they hold.
pub struct Servers {
    binaries: Binaries,
    ports: ServerPorts,
    data: PathBuf,
    processes: BTreeMap<&'static str, Process>,
    // Last, since the servers lie in it.
    _scratch: Scratch,
}

impl Servers {
    /// Starts all four; `name` tells them apart from those of other tests of this process.
    pub async fn start(name: &str) -> Self {
        // Whatever else is set in the environment of this run is not for these servers.
        let variables =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let configuration =
            Configuration::parse(variables.filter(|(name, _)| !name.starts_with("SIGHTLINE_"))).unwrap();
        let search = configuration.search(account::for_postgres().unwrap().as_ref()).unwrap();
        let scratch = Scratch::create_named(name).unwrap();
        let mut servers = Self {
            binaries: search.obtain(&NAMES, &Interrupt::default()).unwrap(),
            ports: ServerPorts::free().unwrap(),
            data: scratch.path().to_owned(),
            processes: BTreeMap::new(),
            _scratch: scratch,
        };
        for name in NAMES {
            servers.spawn(name).await;
        }
        servers
    }

    #[must_use]
    pub fn urls(&self) -> ServerUrls {
        self.ports.urls()
    }

    /// Kills a server as a crash would.
    pub fn kill(&mut self, name: &'static str) {
        self.processes.get_mut(name).unwrap().kill();
    }

    /// Starts a server that does not run, on what it left behind, and waits until it answers.
    pub async fn spawn(&mut self, name: &'static str) {
        let layout = Layout {
            binaries: &self.binaries,
            ports: &self.ports,
            data: &self.data,
            logs: &self.data,
            durability: Durability::Kept,
            postgres_account: account::for_postgres().unwrap(),
        };
        let (spawn, probe) = layout.server(name).unwrap();
        let mut process = spawn.start().unwrap();
        eventually("the server answers", ANSWERS_WITHIN, async || {
            // A PostgreSQL refuses to start while a backend of the killed one lives; whoever supervises it tries again.
            if process.exited().is_some() {
                process = spawn.start().unwrap();
            }
            probe.check().map(|_| ()).map_err(|reason| format!("{name}: {reason:#}\n{}", log_tail(spawn.log())))
        })
        .await;
        self.processes.insert(name, process);
    }
}
