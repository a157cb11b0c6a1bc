//! What the environment tells `cargo dev`: `SIGHTLINE_DEV_*` for itself, four URLs of existing servers, and settings that
//! it hands to the services.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::account::Account;
use crate::address::Address;
use crate::servers::{self, binaries::Search};
use crate::servers::{METRICS, NATS, POSTGRES, Probe, REDIS, ServerPorts, ServerUrls};
use crate::services::{self, Listener, Ports, SERVICES, all};

const OWN_PREFIX: &str = "SIGHTLINE_DEV_";
const ONLY_FETCHED: &str = "SIGHTLINE_DEV_ONLY_FETCHED";
/// Every setting that some program knows.
const KNOWN: &str = include_str!("../../settings/src/names.txt");

/// Servers that somebody else runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Existing {
    pub nats: Option<String>,
    pub database: Option<String>,
    pub redis: Option<String>,
    pub metrics: Option<String>,
}

impl Existing {
    /// The URL of `server` if it is somebody else's.
    pub fn url(&self, server: &str) -> Option<&str> {
        match server {
            NATS => self.nats.as_deref(),
            POSTGRES => self.database.as_deref(),
            REDIS => self.redis.as_deref(),
            METRICS => self.metrics.as_deref(),
            _ => None,
        }
    }

    pub fn probe(&self, server: &str) -> Option<Probe> {
        let url = self.url(server)?.to_owned();
        match server {
            NATS => Some(Probe::Nats { url, monitor: None }),
            POSTGRES => Some(Probe::Postgres { url }),
            REDIS => Some(Probe::Redis { url }),
            METRICS => Some(Probe::Metrics { url }),
            _ => None,
        }
    }

    /// `ours`, with what exists in its place.
    pub fn over(&self, mut ours: ServerUrls) -> ServerUrls {
        if let Some(url) = &self.nats {
            ours.nats.clone_from(url);
            ours.nats_monitor = None;
        }
        for (slot, existing) in
            [(&mut ours.postgres, &self.database), (&mut ours.redis, &self.redis), (&mut ours.metrics, &self.metrics)]
        {
            if let Some(url) = existing {
                slot.clone_from(url);
            }
        }
        ours
    }
}

#[derive(Debug, Clone)]
pub struct Configuration {
    pub server_ports: ServerPorts,
    pub ports: Ports,
    pub existing: Existing,
    pub handed_on: BTreeMap<String, String>,
    only_fetched: bool,
    path: Option<String>,
    home: Option<PathBuf>,
    cache_home: Option<PathBuf>,
}

impl Configuration {
    pub fn from_environment() -> Result<Self> {
        Self::parse(
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))),
        )
    }

    pub fn parse(variables: impl IntoIterator<Item = (String, String)>) -> Result<Self> {
        let mut configuration = Self {
            server_ports: ServerPorts::DEVELOPMENT,
            ports: Ports::documented(),
            existing: Existing::default(),
            handed_on: BTreeMap::new(),
            only_fetched: false,
            path: None,
            home: None,
            cache_home: None,
        };
        for (name, value) in variables {
            configuration.take(&name, value)?;
        }
        Ok(configuration)
    }

    pub fn search(&self, account: Option<&Account>) -> Result<Search> {
        Search::new(self.path.as_deref(), self.cache_home.as_deref(), self.home.as_deref(), account, self.only_fetched)
    }

    /// The servers that nobody else runs for us.
    pub fn own_servers(&self) -> Vec<&'static str> {
        servers::NAMES.into_iter().filter(|name| self.existing.url(name).is_none()).collect()
    }

    /// What each server of ours would listen on: `(name in messages, variable, port)`.
    pub fn server_listeners(&self) -> Vec<(&'static str, String, u16)> {
        let ports = &self.server_ports;
        [
            (NATS, "NATS", ports.nats),
            (NATS, "NATS_MONITOR", ports.nats_monitor),
            (POSTGRES, "POSTGRES", ports.postgres),
            (REDIS, "REDIS", ports.redis),
            (METRICS, "METRICS", ports.metrics),
        ]
        .into_iter()
        .filter(|(server, ..)| self.existing.url(server).is_none())
        .map(|(server, name, port)| (server, format!("{OWN_PREFIX}{name}_PORT"), port))
        .collect()
    }

    fn take(&mut self, name: &str, value: String) -> Result<()> {
        let existing = &mut self.existing;
        match name {
            "PATH" => self.path = Some(value),
            "HOME" => self.home = Some(value.into()),
            "XDG_CACHE_HOME" if !value.is_empty() => self.cache_home = Some(value.into()),
            "SIGHTLINE_NATS_URL" => existing.nats = Some(checked(name, value)?),
            "SIGHTLINE_DATABASE_URL" => existing.database = Some(checked(name, value)?),
            "SIGHTLINE_REDIS_URL" => existing.redis = Some(checked(name, value)?),
            "SIGHTLINE_METRICS_URL" => existing.metrics = Some(checked(name, value)?),
            // Ours for the children of `cargo dev test`, which may call `cargo dev` again.
            "SIGHTLINE_TEST_SERVERS" => {}
            ONLY_FETCHED => self.only_fetched = !matches!(value.as_str(), "" | "0" | "false"),
            _ if name.starts_with(OWN_PREFIX) => self.take_port(name, &value)?,
            _ if services::computed().contains(name) => {
                bail!("{name} differs from service to service, and `cargo dev` computes it; unset it")
            }
            _ if KNOWN.lines().any(|known| known == name) => {
                self.handed_on.insert(name.to_owned(), value);
            }
            _ if name.starts_with("SIGHTLINE_") => {
                bail!("{name} is set, but no Sightline program knows it; unset it")
            }
            _ => {}
        }
        Ok(())
    }

    fn take_port(&mut self, name: &str, value: &str) -> Result<()> {
        let port = value.parse::<u16>().ok().filter(|port| *port != 0);
        let port = port.with_context(|| format!("{name}={value} is not a port: give a number from 1 to 65535"))?;
        let ports = &mut self.server_ports;
        match name.trim_start_matches(OWN_PREFIX) {
            "NATS_PORT" => ports.nats = port,
            "NATS_MONITOR_PORT" => ports.nats_monitor = port,
            "POSTGRES_PORT" => ports.postgres = port,
            "REDIS_PORT" => ports.redis = port,
            "METRICS_PORT" => ports.metrics = port,
            _ => {
                let (service, listener) =
                    listener_of(name).with_context(|| format!("`cargo dev` knows no variable {name}"))?;
                self.ports.set(service, listener, port)?;
            }
        }
        Ok(())
    }
}

/// The variable that moves a listener of Sightline.
pub fn port_variable(service: &str, listener: Listener) -> String {
    format!("{OWN_PREFIX}{}_{}_PORT", service.replace('-', "_").to_uppercase(), listener.name())
}

fn listener_of(variable: &str) -> Option<(&'static str, Listener)> {
    all().into_iter().find_map(|service| {
        let found = service.listeners().find(|(listener, _)| port_variable(service.name, *listener) == variable);
        found.map(|(listener, _)| (service.name, listener))
    })
}

fn checked(name: &str, url: String) -> Result<String> {
    Address::parse(&url).with_context(|| format!("{name} is not a server's URL"))?;
    Ok(url)
}

/// Names for `cargo dev logs`.
pub fn log_names() -> Vec<&'static str> {
    SERVICES.iter().map(|service| service.name).chain(["agent"]).chain(servers::NAMES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(variables: &[(&str, &str)]) -> Result<Configuration> {
        Configuration::parse(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn ports_of_servers_and_services_can_be_moved() {
        let configuration =
            parse(&[("SIGHTLINE_DEV_NATS_PORT", "24222"), ("SIGHTLINE_DEV_API_GATEWAY_HTTP_PORT", "28080")]).unwrap();
        assert_eq!(configuration.server_ports.nats, 24222);
        assert_eq!(configuration.ports.of("api-gateway", Listener::Http), 28080);
        assert_eq!(configuration.ports.of("ws-fanout", Listener::Http), 8081);
    }

    #[test]
    fn a_misspelt_variable_is_an_error_that_names_it() {
        for name in
            ["SIGHTLINE_DEV_NATS_PROT", "SIGHTLINE_DEV_AUTH_HTTP_PORT", "SIGHTLINE_GRPC_LISTEN", "SIGHTLINE_SHARD"]
        {
            let error = parse(&[(name, "1")]).unwrap_err();
            assert!(format!("{error:#}").contains(name), "{error:#}");
        }
        assert!(parse(&[("SIGHTLINE_DEV_NATS_PORT", "0")]).is_err());
    }

    #[test]
    fn an_existing_server_takes_the_place_of_ours() {
        let configuration = parse(&[("SIGHTLINE_NATS_URL", "nats://broker:4222")]).unwrap();
        let urls = configuration.existing.over(configuration.server_ports.urls());
        assert_eq!((urls.nats.as_str(), urls.nats_monitor), ("nats://broker:4222", None));
        assert_eq!(urls.redis, "redis://127.0.0.1:16379");
        assert!(configuration.server_listeners().iter().all(|(server, ..)| *server != NATS));
    }

    #[test]
    fn settings_of_the_services_are_handed_on() {
        let configuration =
            parse(&[("SIGHTLINE_LOG", "debug"), ("SIGHTLINE_CLOCK_SKEW", "1h"), ("EDITOR", "vi")]).unwrap();
        let handed_on: Vec<&str> = configuration.handed_on.keys().map(String::as_str).collect();
        assert_eq!(handed_on, ["SIGHTLINE_CLOCK_SKEW", "SIGHTLINE_LOG"]);
    }
}
