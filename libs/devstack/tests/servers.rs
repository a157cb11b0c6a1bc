//! The four servers, for real: found or fetched, started, asked, killed and started again.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use devstack::account;
use devstack::configuration::Configuration;
use devstack::interrupt::Interrupt;
use devstack::process::Process;
use devstack::servers::{Binaries, Durability, Layout, NAMES, POSTGRES, Probe, ServerPorts, Servers, postgres};
use devstack::services::{SERVICES, owners};
use devstack::workspace::Scratch;

fn binaries() -> &'static Binaries {
    static BINARIES: OnceLock<Binaries> = OnceLock::new();
    BINARIES.get_or_init(|| {
        let variables =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        // Whatever else is set in the environment of this run is not for this test.
        let configuration =
            Configuration::parse(variables.filter(|(name, _)| !name.starts_with("SIGHTLINE_"))).unwrap();
        let search = configuration.search(account::for_postgres().unwrap().as_ref()).unwrap();
        search.obtain(&NAMES, &Interrupt::default()).unwrap()
    })
}

fn eventually(mut ready: impl FnMut() -> Result<(), String>) {
    let mut last = String::new();
    let answer =
        Interrupt::default().wait_for(Duration::from_secs(60), || Ok(ready().map_err(|reason| last = reason).ok()));
    assert!(matches!(answer, Ok(Some(()))), "{last}");
}

fn database_url(server: &str, database: &str) -> String {
    format!("{}/{database}", server.rsplit_once('/').unwrap().0)
}

fn start(layout: &Layout<'_>, name: &str) -> (Process, Probe) {
    let (spawn, probe) = layout.server(name).unwrap();
    let mut process = spawn.start().unwrap();
    eventually(|| match process.exited() {
        Some(status) => Err(format!("{name}: {status}")),
        None => probe.check().map(|_| ()).map_err(|error| format!("{error:#}")),
    });
    (process, probe)
}

fn layout<'a>(ports: &'a ServerPorts, data: &'a Path) -> Layout<'a> {
    Layout {
        binaries: binaries(),
        ports,
        data,
        logs: data,
        durability: Durability::Kept,
        postgres_account: account::for_postgres().unwrap(),
    }
}

#[test]
fn all_four_answer_and_tell_their_version_and_each_service_has_a_role() {
    let scratch = Scratch::create().unwrap();
    let servers =
        Servers::start_apart(binaries(), scratch.path(), Durability::Throwaway, &Interrupt::default()).unwrap();
    let urls = servers.urls.clone();
    let probes = [
        Probe::Nats { url: urls.nats, monitor: urls.nats_monitor },
        Probe::Postgres { url: urls.postgres.clone() },
        Probe::Redis { url: urls.redis },
        Probe::Metrics { url: urls.metrics },
    ];
    for (name, probe) in NAMES.iter().zip(&probes) {
        let version = probe.check().unwrap().unwrap_or_else(|| binaries().get(name).unwrap().version.clone());
        assert!(version.starts_with(|letter: char| letter.is_ascii_digit()), "{name} {version}");
    }

    // Several at once, as parallel tests do it, and again afterwards.
    std::thread::scope(|scope| {
        for database in ["one", "two", "one", "two", "one", "two"] {
            let url = &urls.postgres;
            scope.spawn(move || postgres::prepare_database(binaries(), url, database, &owners()).unwrap());
        }
    });
    postgres::prepare_database(binaries(), &urls.postgres, "one", &owners()).unwrap();
    for service in SERVICES.iter().filter(|service| service.owns_tables) {
        let url = database_url(&urls.postgres, "one").replace("//postgres@", &format!("//{}@", service.role()));
        Probe::Postgres { url }.check().unwrap();
    }

    drop(servers);
    assert!(probes.iter().all(|probe| probe.check().is_err()), "a server outlived its owner");
}

#[test]
fn a_killed_postgres_starts_again_on_the_same_data() {
    let folder = Scratch::create_named("restart").unwrap();
    let ports = ServerPorts::free().unwrap();
    let layout = layout(&ports, folder.path());
    let (mut process, _) = start(&layout, POSTGRES);
    postgres::prepare_database(binaries(), &ports.urls().postgres, "kept", &owners()).unwrap();
    process.kill();

    // A later process may have got the number that the dead one left behind.
    let data = std::fs::read_dir(folder.path())
        .unwrap()
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().starts_with("postgres-"))
        .unwrap();
    let pid_file = data.path().join("postmaster.pid");
    let stale = std::fs::read_to_string(&pid_file).unwrap();
    std::fs::write(&pid_file, stale.replacen(&process.pid().to_string(), &std::process::id().to_string(), 1)).unwrap();

    let (_process, _) = start(&layout, POSTGRES);
    Probe::Postgres { url: database_url(&ports.urls().postgres, "kept") }.check().unwrap();
}
