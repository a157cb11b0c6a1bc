//! How the installation is: what each process says of itself, and the account of everything that was received.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use bus::Bus;
use lifecycle::CancellationToken;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::config::Target;

const EVERY: Duration = Duration::from_secs(2);

/// What one process says of itself.
#[derive(Serialize, ToSchema, Clone)]
pub(crate) struct Service {
    name: String,
    ready: bool,
    /// What it misses and why; empty when it is ready
    missing: std::collections::BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Readiness {
    ready: bool,
    missing: std::collections::BTreeMap<String, String>,
}

/// The newest answers of all processes. Asked in the background, so that a request never waits for a dead one.
#[derive(Clone)]
pub(crate) struct Status {
    services: Arc<Mutex<Vec<Service>>>,
    bus: Bus,
}

impl Status {
    pub(crate) fn new(bus: Bus) -> Self {
        Self { services: Arc::default(), bus }
    }

    pub(crate) fn services(&self) -> Vec<Service> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn bus(&self) -> &Bus {
        &self.bus
    }

    /// Asks every target again and again until the process stops.
    pub(crate) async fn watch(self, targets: Vec<Target>, stopping: CancellationToken) -> anyhow::Result<()> {
        let http = reqwest::Client::builder().timeout(EVERY).no_proxy().build().context("build the status client")?;
        loop {
            let mut services = Vec::with_capacity(targets.len());
            for target in &targets {
                services.push(ask(&http, target).await);
            }
            *self.services.lock().unwrap_or_else(PoisonError::into_inner) = services;
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = stopping.cancelled() => return Ok(()),
            }
        }
    }
}

async fn ask(http: &reqwest::Client, target: &Target) -> Service {
    let answer = async {
        let url = target.url.join("/readyz").context("build the address")?;
        http.get(url).send().await.context("reach it")?.json::<Readiness>().await.context("read its answer")
    };
    let (ready, missing) = match answer.await {
        Ok(readiness) => (readiness.ready, readiness.missing),
        Err(error) => {
            tracing::debug!(service = target.name, error = format!("{error:#}"), "cannot ask for readiness");
            (false, [("process".to_owned(), "does not answer".to_owned())].into())
        }
    };
    Service { name: target.name.clone(), ready, missing }
}
