//! Work that takes over a millisecond, beside the async threads: as much at once as there are processors, so that many large
//! requests do not take the time of the small ones.

use std::sync::Arc;

use fault::Fault;
use tokio::sync::Semaphore;
use tracing::Span;

/// Clones share the places.
#[derive(Clone)]
pub struct Heavy {
    places: Arc<Semaphore>,
}

impl Default for Heavy {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        Self { places: Arc::new(Semaphore::new(processors)) }
    }
}

impl Heavy {
    /// Runs `work` in the caller's span when a place is free. What has begun runs to its end, even if nobody waits any more.
    ///
    /// # Errors
    /// It panicked.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Fault> {
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(Fault::internal)?;
        let span = Span::current();
        let work = move || {
            let _place = place;
            span.in_scope(work)
        };
        tokio::task::spawn_blocking(work).await.map_err(Fault::internal)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn no_more_runs_at_once_than_there_are_places() {
        let heavy = Heavy { places: Arc::new(Semaphore::new(2)) };
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let works = (0..20).map(|n| {
            let (heavy, now, most) = (heavy.clone(), Arc::clone(&now), Arc::clone(&most));
            async move {
                let work = move || {
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::yield_now();
                    now.fetch_sub(1, Ordering::SeqCst);
                    n
                };
                heavy.run(work).await.unwrap()
            }
        });
        assert_eq!(futures::future::join_all(works).await, (0..20).collect::<Vec<_>>());
        assert!(most.load(Ordering::SeqCst) <= 2);
    }
}
