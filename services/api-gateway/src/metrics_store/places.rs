//! How many questions may be under way, for each tenant and for all.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use moka::sync::Cache;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Refusal;

/// A dashboard asks thirty questions at once; they wait for each other.
const QUEUE: Duration = Duration::from_secs(10);
/// Tenants that asked lately.
const TENANTS: u64 = 10_000;

pub(super) struct Places {
    all: Arc<Semaphore>,
    tenants: Cache<String, Arc<Semaphore>>,
    each: usize,
}

/// Held while a question is under way.
pub(super) struct Place {
    _all: OwnedSemaphorePermit,
    _tenant: OwnedSemaphorePermit,
}

impl Places {
    pub(super) fn new(all: usize, each: usize) -> Self {
        let tenants = Cache::builder().max_capacity(TENANTS).time_to_idle(Duration::from_secs(600)).build();
        Self { all: Arc::new(Semaphore::new(all)), tenants, each }
    }

    /// A place of `tenant`'s first: whoever asks much waits for themselves before they wait for others.
    pub(super) async fn take(&self, tenant: &str) -> Result<Place, Refusal> {
        let own = self.tenants.get_with_by_ref(tenant, || Arc::new(Semaphore::new(self.each)));
        let waited = tokio::time::timeout(QUEUE, async {
            let tenant = own.acquire_owned().await.ok()?;
            let all = Arc::clone(&self.all).acquire_owned().await.ok()?;
            Some(Place { _all: all, _tenant: tenant })
        });
        waited.await.ok().flatten().ok_or_else(|| {
            let advice = "too many queries at the same time; try again in a few seconds";
            Refusal::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", advice)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_tenant_cannot_take_the_places_of_others() {
        let places = Places::new(4, 2);
        let held = (places.take("a").await.ok().unwrap(), places.take("a").await.ok().unwrap());
        assert_eq!(places.take("a").await.err().unwrap().status, StatusCode::TOO_MANY_REQUESTS);
        places.take("b").await.ok().unwrap();
        drop(held);
        places.take("a").await.ok().unwrap();
    }
}
