//! How the installation is: what each process says of itself, and the account of everything that was received. Both are asked
//! for in the background, so that a request never waits for whatever is away.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use bus::Bus;
use futures::future::join_all;
use lifecycle::{CancellationToken, Process};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout};
use utoipa::ToSchema;

use crate::config::Target;

const EVERY: Duration = Duration::from_secs(2);
/// An account takes a few questions a stream.
const ACCOUNT_WITHIN: Duration = Duration::from_secs(10);

/// What one service says of itself, all of its replicas together.
#[derive(Serialize, ToSchema, Clone)]
pub(crate) struct Service {
    name: String,
    /// Whether every replica is
    ready: bool,
    /// What replicas miss and why; empty when all are ready
    missing: BTreeMap<String, String>,
    /// One for each address that the name has
    replicas: Vec<Replica>,
}

/// What one process says of itself.
#[derive(Serialize, ToSchema, Clone)]
pub(crate) struct Replica {
    address: String,
    ready: bool,
    /// What it misses and why; empty when it is ready
    missing: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Readiness {
    ready: bool,
    missing: BTreeMap<String, String>,
}

/// The newest account, and when it was taken.
#[derive(Clone)]
pub(crate) struct Counted {
    pub(crate) account: Vec<bus::Account>,
    pub(crate) durability: String,
    at: Instant,
}

impl Counted {
    pub(crate) fn age(&self) -> Duration {
        self.at.elapsed()
    }
}

#[derive(Default)]
struct Known {
    services: Vec<Service>,
    counted: Option<Counted>,
    /// Why there is no newer account.
    broker: Option<String>,
}

/// The newest answers of everybody.
#[derive(Clone, Default)]
pub(crate) struct Status(Arc<Mutex<Known>>);

impl Status {
    /// Keeps asking until `process` stops.
    pub(crate) fn start(targets: Vec<Target>, bus: bus::Settings, process: &Process) -> Self {
        let status = Self::default();
        status.with(|known| known.broker = Some("the broker was never reached".to_owned()));
        process.spawn("status of services", status.clone().watch_services(targets, process.stopping()));
        process.spawn("status of the broker", status.clone().watch_broker(bus, process.clone()));
        status
    }

    pub(crate) fn services(&self) -> Vec<Service> {
        self.with(|known| known.services.clone())
    }

    /// The newest account, and why there is no newer one.
    pub(crate) fn broker(&self) -> (Option<Counted>, Option<String>) {
        self.with(|known| (known.counted.clone(), known.broker.clone()))
    }

    fn with<T>(&self, look: impl FnOnce(&mut Known) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn watch_services(self, targets: Vec<Target>, stopping: CancellationToken) -> anyhow::Result<()> {
        let http = reqwest::Client::builder().timeout(EVERY).no_proxy().build().context("build the status client")?;
        loop {
            let services = join_all(targets.iter().map(|target| ask(&http, target))).await;
            self.with(|known| known.services = services);
            if stopping.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_none() {
                return Ok(());
            }
        }
    }

    /// Connects when it can: a gateway without a broker serves everything but this.
    async fn watch_broker(self, settings: bus::Settings, process: Process) -> anyhow::Result<()> {
        let stopping = process.stopping();
        // A flag of its own, so that a broker that is away does not take the API away with it.
        let unnoticed = lifecycle::Ready::unnoticed();
        let Some(bus) = stopping.run_until_cancelled(Bus::connect(&settings, unnoticed)).await else { return Ok(()) };
        let bus = bus?;
        loop {
            let counted = timeout(ACCOUNT_WITHIN, bus.account()).await.context("wait for the broker").flatten();
            match counted {
                Ok(account) => {
                    let counted = Counted { account, durability: bus.durability(), at: Instant::now() };
                    self.with(|known| (known.counted, known.broker) = (Some(counted), None));
                }
                Err(error) => {
                    tracing::debug!(error = format!("{error:#}"), "the broker gives no account");
                    self.with(|known| known.broker = Some("the broker does not answer".to_owned()));
                }
            }
            if stopping.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_none() {
                return Ok(());
            }
        }
    }
}

async fn ask(http: &reqwest::Client, target: &Target) -> Service {
    let name = target.name.clone();
    let addresses = match addresses(target).await {
        Ok(addresses) => addresses,
        Err(error) => {
            tracing::debug!(service = name, error = format!("{error:#}"), "cannot look a service up");
            let missing = [("address".to_owned(), "its name has no address".to_owned())].into();
            return Service { name, ready: false, missing, replicas: Vec::new() };
        }
    };
    let replicas = join_all(addresses.iter().map(|address| replica(http, target, *address))).await;
    let ready = replicas.iter().all(|replica| replica.ready);
    let missing = replicas.iter().flat_map(|replica| replica.missing.clone()).collect();
    Service { name, ready, missing, replicas }
}

async fn addresses(target: &Target) -> anyhow::Result<Vec<SocketAddr>> {
    let host = target.url.host_str().context("read the host")?.trim_matches(['[', ']']).to_owned();
    let port = target.url.port_or_known_default().context("read the port")?;
    let found = timeout(EVERY, tokio::net::lookup_host((host, port))).await.context("look the name up")??;
    let mut addresses: Vec<SocketAddr> = found.collect();
    addresses.sort_unstable();
    addresses.dedup();
    anyhow::ensure!(!addresses.is_empty(), "the name has no address");
    Ok(addresses)
}

async fn replica(http: &reqwest::Client, target: &Target, address: SocketAddr) -> Replica {
    let answer = async {
        let url = format!("http://{address}/readyz");
        http.get(url).send().await.context("reach it")?.json::<Readiness>().await.context("read its answer")
    };
    let (ready, missing) = match answer.await {
        Ok(readiness) => (readiness.ready, readiness.missing),
        Err(error) => {
            tracing::debug!(service = target.name, %address, error = format!("{error:#}"), "cannot ask for readiness");
            (false, [("process".to_owned(), "does not answer".to_owned())].into())
        }
    };
    Replica { address: address.to_string(), ready, missing }
}
