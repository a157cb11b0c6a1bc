//! The ten services and the agent: their ports, what they own, and the environment each is started with.
//!
//! The environment is a pure function of a [`Stack`], so that a test can start any of them exactly as `cargo dev up`
//! does, on other ports, in another namespace, on another database.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::address::Address;
use crate::ports;
use crate::servers::postgres::Owner;
use crate::servers::{ServerPorts, ServerUrls};

pub const AGENT: &str = "agent";
/// What `cargo dev` chooses but anybody may choose otherwise.
const SAME_FOR_ALL: [&str; 6] = [
    "SIGHTLINE_NAMESPACE",
    "SIGHTLINE_AGENT_INTERVAL",
    "SIGHTLINE_AGENT_PROCESS_INTERVAL",
    "SIGHTLINE_ANONYMOUS_NETWORKS",
    "SIGHTLINE_INGEST_TLS",
    "SIGHTLINE_WEBHOOK_ALLOWED_NETWORKS",
];
/// Clients that come from here need no credential in development.
const LOOPBACK_NETWORKS: &str = "127.0.0.0/8,::1/128";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Service {
    pub name: &'static str,
    pub admin: u16,
    pub grpc: Option<u16>,
    pub http: Option<u16>,
    /// Has a schema and a role of its own in PostgreSQL.
    pub owns_tables: bool,
    /// Takes connections from outside: these stop first, so that the others finish what was accepted.
    pub at_the_edge: bool,
}

/// In the order they are listed.
pub const SERVICES: [Service; 10] = [
    edge("ingest-gateway", 9401, Some(4317), 4318),
    inner("registry", 9402, Some(9502), true),
    inner("metric-writer", 9403, None, false),
    inner("log-writer", 9404, Some(9504), true),
    inner("rule-engine", 9405, Some(9505), true),
    inner("alert-service", 9406, Some(9506), true),
    inner("dispatcher", 9407, Some(9507), true),
    inner("auth", 9408, Some(9508), true),
    edge("api-gateway", 9409, None, 8080),
    edge("ws-fanout", 9410, None, 8081),
];

/// Not one of the ten, but started, watched and shown like them.
pub const AGENT_PROCESS: Service = inner(AGENT, 9411, None, false);

const fn inner(name: &'static str, admin: u16, grpc: Option<u16>, owns_tables: bool) -> Service {
    Service { name, admin, grpc, http: None, owns_tables, at_the_edge: false }
}

const fn edge(name: &'static str, admin: u16, grpc: Option<u16>, http: u16) -> Service {
    Service { name, admin, grpc, http: Some(http), owns_tables: false, at_the_edge: true }
}

impl Service {
    pub fn find(name: &str) -> Option<&'static Self> {
        static ALL: [Service; 11] = all();
        ALL.iter().find(|service| service.name == name)
    }

    pub fn schema(&self) -> String {
        self.name.replace('-', "_")
    }

    pub fn role(&self) -> String {
        format!("sightline_{}", self.schema())
    }

    pub fn listeners(&self) -> impl Iterator<Item = (Listener, u16)> {
        [(Listener::Admin, Some(self.admin)), (Listener::Grpc, self.grpc), (Listener::Http, self.http)]
            .into_iter()
            .filter_map(|(listener, port)| Some((listener, port?)))
    }
}

/// The eleven processes.
pub const fn all() -> [Service; 11] {
    let [a, b, c, d, e, f, g, h, i, j] = SERVICES;
    [a, b, c, d, e, f, g, h, i, j, AGENT_PROCESS]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Listener {
    Admin,
    Grpc,
    Http,
}

impl Listener {
    pub fn name(self) -> &'static str {
        match self {
            Self::Admin => "ADMIN",
            Self::Grpc => "GRPC",
            Self::Http => "HTTP",
        }
    }
}

/// A port for every listener of the eleven processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ports(BTreeMap<(&'static str, Listener), u16>);

impl Ports {
    /// The ports that the documentation names.
    pub fn documented() -> Self {
        let listeners = all().map(|service| {
            service.listeners().map(move |(listener, port)| ((service.name, listener), port)).collect::<Vec<_>>()
        });
        Self(listeners.into_iter().flatten().collect())
    }

    pub fn free() -> Result<Self> {
        let mut set = Self::documented();
        let free = ports::free_set(set.0.len())?;
        for (slot, port) in set.0.values_mut().zip(free) {
            *slot = port;
        }
        Ok(set)
    }

    /// 0 for a listener that the service does not have.
    pub fn of(&self, service: &str, listener: Listener) -> u16 {
        let found = self.0.iter().find(|((name, kind), _)| *name == service && *kind == listener);
        found.map(|(_, port)| *port).unwrap_or_default()
    }

    pub fn set(&mut self, service: &str, listener: Listener, port: u16) -> Result<()> {
        let slot = self.0.iter_mut().find(|((name, kind), _)| *name == service && *kind == listener);
        let Some((_, slot)) = slot else { bail!("{service} has no {} port", listener.name()) };
        *slot = port;
        Ok(())
    }

    pub fn iter(&self) -> impl Iterator<Item = (&'static str, Listener, u16)> {
        self.0.iter().map(|((service, listener), port)| (*service, *listener, *port))
    }
}

/// How services reach their tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseAccess {
    /// Each service logs in under its own role, without a password: a server of ours on loopback.
    RolePerService { server: String, database: String },
    /// Everybody uses this URL as it is: somebody else's server.
    Shared { url: String },
}

impl DatabaseAccess {
    /// `server` is the administrator's URL.
    pub fn role_per_service(server: &str, database: &str) -> Result<Self> {
        Ok(Self::RolePerService { server: Address::parse(server)?.authority(), database: database.to_owned() })
    }

    pub fn url(&self, service: &Service) -> String {
        match self {
            Self::RolePerService { server, database } => {
                format!("postgres://{}@{server}/{database}", service.role())
            }
            Self::Shared { url } => url.clone(),
        }
    }
}

/// One installation on this machine: all that the eleven environments are made of. Paths must be absolute.
#[derive(Debug, Clone)]
pub struct Stack {
    pub namespace: String,
    pub servers: ServerUrls,
    pub database: DatabaseAccess,
    pub ports: Ports,
    /// Made by `devcerts`, see [`certificates`].
    pub tls: PathBuf,
    /// Holds `admin-password`, `encryption-key` and the agent's folder.
    pub state: PathBuf,
    /// Comma-separated in the agent's environment.
    pub agent_logs: Vec<PathBuf>,
    /// Settings for all eleven processes, stronger than what is computed here.
    pub overrides: BTreeMap<String, String>,
}

impl Stack {
    pub fn password_file(&self) -> PathBuf {
        self.state.join("admin-password")
    }

    /// Encrypts the keys that auth and the dispatcher sign with, as they lie in the database.
    pub fn encryption_key_file(&self) -> PathBuf {
        self.state.join("encryption-key")
    }

    pub fn agent_directory(&self) -> PathBuf {
        self.state.join(AGENT)
    }

    pub fn agent_token_file(&self) -> PathBuf {
        self.agent_directory().join("token")
    }

    /// Where `service` answers `/readyz`.
    pub fn admin_address(&self, service: &str) -> String {
        format!("127.0.0.1:{}", self.ports.of(service, Listener::Admin))
    }

    /// Where `service` answers HTTP.
    pub fn http_address(&self, service: &str) -> String {
        format!("127.0.0.1:{}", self.ports.of(service, Listener::Http))
    }

    /// The `SIGHTLINE_*` variables of one of the eleven processes; empty for any other name.
    pub fn environment(&self, process: &str) -> BTreeMap<String, String> {
        let Some(service) = Service::find(process) else {
            return BTreeMap::new();
        };
        let mut variables = Variables::default();
        variables.set("ADMIN_LISTEN", self.admin_address(service.name));
        if service.name == AGENT {
            self.agent(&mut variables);
        } else {
            self.service(service, &mut variables);
        }
        variables.0.extend(self.overrides.clone());
        variables.0
    }

    fn service(&self, service: &Service, variables: &mut Variables) {
        variables.set("NAMESPACE", &self.namespace);
        variables.set("NATS_URL", &self.servers.nats);
        variables.set("REDIS_URL", &self.servers.redis);
        variables.set("METRICS_URL", &self.servers.metrics);
        if service.owns_tables {
            variables.set("DATABASE_URL", self.database.url(service));
        }
        for (listener, name) in [(Listener::Grpc, "GRPC_LISTEN"), (Listener::Http, "HTTP_LISTEN")] {
            let port = self.ports.of(service.name, listener);
            if port != 0 {
                variables.set(name, format!("127.0.0.1:{port}"));
            }
        }
        variables.set("TLS_CA_FILE", self.tls_file("ca.pem"));
        variables.set("TLS_CERT_FILE", self.tls_file(&format!("{}.pem", service.name)));
        variables.set("TLS_KEY_FILE", self.tls_file(&format!("{}-key.pem", service.name)));
        self.peers(variables);
        match service.name {
            "ingest-gateway" => self.ingest(variables),
            "auth" => {
                variables.set("AUTH_INITIAL_PASSWORD_FILE", self.password_file().display().to_string());
                variables.set("AUTH_ENCRYPTION_KEY_FILE", self.encryption_key_file().display().to_string());
            }
            // A receiver on this machine is the one that people try first.
            "dispatcher" => {
                variables.set("WEBHOOK_ALLOWED_NETWORKS", LOOPBACK_NETWORKS);
                variables.set("DISPATCHER_ENCRYPTION_KEY_FILE", self.encryption_key_file().display().to_string());
            }
            "api-gateway" => variables.set("STATUS_TARGETS", self.status_targets()),
            _ => {}
        }
    }

    fn peers(&self, variables: &mut Variables) {
        for peer in SERVICES.iter().filter(|peer| peer.grpc.is_some() && !peer.at_the_edge) {
            let name = format!("{}_URL", peer.schema().to_uppercase());
            variables.set(&name, format!("https://127.0.0.1:{}", self.ports.of(peer.name, Listener::Grpc)));
        }
        variables.set("WS_FANOUT_URL", format!("http://{}", self.http_address("ws-fanout")));
    }

    fn status_targets(&self) -> String {
        let targets: Vec<String> = all()
            .iter()
            .map(|service| format!("{0}=http://{1}", service.name, self.admin_address(service.name)))
            .collect();
        targets.join(",")
    }

    fn ingest(&self, variables: &mut Variables) {
        variables.set("INGEST_TLS", "optional");
        variables.set("INGEST_TLS_CERT_FILE", self.tls_file("ingest.pem"));
        variables.set("INGEST_TLS_KEY_FILE", self.tls_file("ingest-key.pem"));
        variables.set("INGEST_TLS_CLIENT_CA_FILE", self.tls_file("ca.pem"));
        variables.set("ANONYMOUS_NETWORKS", LOOPBACK_NETWORKS);
    }

    fn agent(&self, variables: &mut Variables) {
        let logs: Vec<String> = self.agent_logs.iter().map(|path| path.display().to_string()).collect();
        let endpoint = format!("https://localhost:{}", self.ports.of("ingest-gateway", Listener::Grpc));
        variables.set("AGENT_ENDPOINT", endpoint);
        variables.set("AGENT_CA_FILE", self.tls_file("ca.pem"));
        variables.set("AGENT_TOKEN_FILE", self.agent_token_file().display().to_string());
        variables.set("AGENT_STATE_DIR", self.agent_directory().display().to_string());
        variables.set("AGENT_LOG_FILES", logs.join(","));
        variables.set("AGENT_INTERVAL", "5s");
        variables.set("AGENT_PROCESS_INTERVAL", "10s");
    }

    fn tls_file(&self, name: &str) -> String {
        self.tls.join(name).display().to_string()
    }
}

/// Who logs in to PostgreSQL and owns a schema there.
pub fn owners() -> Vec<Owner> {
    let owning = SERVICES.iter().filter(|service| service.owns_tables);
    owning.map(|service| Owner { role: service.role(), schema: service.schema() }).collect()
}

/// Settings that no two services or installations share: `cargo dev` gives each service its own.
pub fn computed() -> BTreeSet<String> {
    let servers = ServerPorts::DEVELOPMENT.urls();
    let stack = Stack {
        namespace: String::new(),
        database: DatabaseAccess::Shared { url: String::new() },
        servers,
        ports: Ports::documented(),
        tls: PathBuf::new(),
        state: PathBuf::new(),
        agent_logs: Vec::new(),
        overrides: BTreeMap::new(),
    };
    let names = all().into_iter().flat_map(|service| stack.environment(service.name).into_keys());
    names.filter(|name| !SAME_FOR_ALL.contains(&name.as_str())).collect()
}

/// The certificates a stack needs, as `devcerts` takes them: `name=san,san`.
pub fn certificates(hostname: &str) -> Vec<String> {
    let services = SERVICES.iter().map(|service| format!("{0}={0},localhost,127.0.0.1", service.name));
    let mut listener = vec!["localhost", "127.0.0.1", "::1"];
    if !hostname.is_empty() && hostname != "localhost" {
        listener.push(hostname);
    }
    services.chain([format!("ingest={}", listener.join(",")), format!("{AGENT}={AGENT}")]).collect()
}

#[derive(Default)]
struct Variables(BTreeMap<String, String>);

impl Variables {
    fn set(&mut self, name: &str, value: impl Into<String>) {
        self.0.insert(format!("SIGHTLINE_{name}"), value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack() -> Stack {
        let servers = ServerPorts::DEVELOPMENT.urls();
        Stack {
            namespace: "sl".to_owned(),
            database: DatabaseAccess::role_per_service(&servers.postgres, "sightline").unwrap(),
            servers,
            ports: Ports::documented(),
            tls: "/s/tls".into(),
            state: "/s".into(),
            agent_logs: vec!["/s/demo.log".into(), "/var/log/syslog".into()],
            overrides: BTreeMap::new(),
        }
    }

    #[test]
    fn every_listener_has_a_port_of_its_own() {
        let mut ports: Vec<u16> = Ports::documented().iter().map(|(_, _, port)| port).collect();
        let count = ports.len();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), count);
    }

    #[test]
    fn a_service_logs_in_under_its_own_role() {
        let environment = stack().environment("log-writer");
        assert_eq!(environment["SIGHTLINE_DATABASE_URL"], "postgres://sightline_log_writer@127.0.0.1:15432/sightline");
        assert_eq!(environment["SIGHTLINE_GRPC_LISTEN"], "127.0.0.1:9504");
        assert_eq!(environment["SIGHTLINE_TLS_KEY_FILE"], "/s/tls/log-writer-key.pem");
        assert_eq!(environment["SIGHTLINE_ALERT_SERVICE_URL"], "https://127.0.0.1:9506");
    }

    #[test]
    fn six_services_own_tables() {
        let schemas: Vec<String> = owners().into_iter().map(|owner| owner.schema).collect();
        assert_eq!(schemas, ["registry", "log_writer", "rule_engine", "alert_service", "dispatcher", "auth"]);
    }

    #[test]
    fn who_owns_no_tables_gets_no_database() {
        for name in ["ingest-gateway", "metric-writer", "api-gateway", "ws-fanout", AGENT] {
            assert!(!stack().environment(name).contains_key("SIGHTLINE_DATABASE_URL"), "{name}");
        }
    }

    #[test]
    fn the_agent_knows_the_gateway_and_nothing_of_the_inside() {
        let environment = stack().environment(AGENT);
        assert_eq!(environment["SIGHTLINE_AGENT_ENDPOINT"], "https://localhost:4317");
        assert_eq!(environment["SIGHTLINE_AGENT_LOG_FILES"], "/s/demo.log,/var/log/syslog");
        assert!(!environment.contains_key("SIGHTLINE_NATS_URL"));
    }

    #[test]
    fn overrides_win_and_no_private_name_leaks() {
        let mut stack = stack();
        stack.overrides.insert("SIGHTLINE_LOG".to_owned(), "debug".to_owned());
        stack.overrides.insert("SIGHTLINE_NAMESPACE".to_owned(), "other".to_owned());
        for service in all() {
            let environment = stack.environment(service.name);
            assert_eq!(environment["SIGHTLINE_LOG"], "debug");
            assert_eq!(environment["SIGHTLINE_NAMESPACE"], "other");
            assert!(
                environment.keys().all(|name| name.starts_with("SIGHTLINE_") && !name.starts_with("SIGHTLINE_DEV_"))
            );
        }
    }

    #[test]
    fn a_moved_port_moves_for_everybody() {
        let mut stack = stack();
        stack.ports.set("ingest-gateway", Listener::Grpc, 5317).unwrap();
        stack.ports.set("auth", Listener::Grpc, 5508).unwrap();
        assert_eq!(stack.environment("ingest-gateway")["SIGHTLINE_GRPC_LISTEN"], "127.0.0.1:5317");
        assert_eq!(stack.environment(AGENT)["SIGHTLINE_AGENT_ENDPOINT"], "https://localhost:5317");
        assert_eq!(stack.environment("api-gateway")["SIGHTLINE_AUTH_URL"], "https://127.0.0.1:5508");
        assert!(stack.ports.set("auth", Listener::Http, 1).is_err());
    }

    #[test]
    fn the_public_listener_s_certificate_names_the_host() {
        let certificates = certificates("laptop");
        assert!(certificates.contains(&"ingest=localhost,127.0.0.1,::1,laptop".to_owned()));
        assert!(certificates.contains(&"auth=auth,localhost,127.0.0.1".to_owned()));
        assert_eq!(certificates.len(), 12);
    }
}
