//! Choosing from many things, beside the async threads and with an end: expressions take their time.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use crate::Selector;

/// As many sift at a time as there are processors.
static SIFTING: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(std::thread::available_parallelism().map_or(2, std::num::NonZero::get)));

/// There was no time to look at all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("matching takes too long; write simpler expressions, or narrow what they are matched with")]
pub struct TooSlow;

/// Says of each thing whether `is_chosen`, until `end`; what looks at one thing is not cut off.
///
/// # Errors
/// The end came first.
pub async fn sift<T: Send + 'static>(
    things: Vec<T>,
    end: Instant,
    is_chosen: impl Fn(&T) -> bool + Send + 'static,
) -> Result<Vec<(T, bool)>, TooSlow> {
    let place = tokio::time::timeout(left(end), SIFTING.acquire()).await.map_err(|_| TooSlow)?;
    let work = move || {
        // Also where nobody waits for the answer any more.
        let _place = place;
        let look = |thing: T| {
            let chosen = (Instant::now() < end).then(|| is_chosen(&thing)).ok_or(TooSlow)?;
            Ok((thing, chosen))
        };
        things.into_iter().map(look).collect()
    };
    // It panics only where `is_chosen` does.
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

fn left(end: Instant) -> Duration {
    end.saturating_duration_since(Instant::now())
}

impl Selector {
    /// Says of each thing, whose labels `label` looks up, whether it is chosen, as [`sift`]; at once where values are only
    /// compared.
    ///
    /// # Errors
    /// The end came first.
    pub async fn sift<T: Send + 'static>(
        self: &Arc<Self>,
        things: Vec<T>,
        end: Instant,
        label: impl for<'a> Fn(&'a T, &str) -> Option<&'a str> + Send + 'static,
    ) -> Result<Vec<(T, bool)>, TooSlow> {
        if self.weight() == 0 {
            let look = |thing: T| {
                let chosen = self.matches(|name| label(&thing, name));
                (thing, chosen)
            };
            return Ok(things.into_iter().map(look).collect());
        }
        let selector = Arc::clone(self);
        sift(things, end, move |thing| selector.matches(|name| label(thing, name))).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_thing_is_judged_in_its_order_and_what_takes_too_long_ends() {
        let selector = Arc::new(Selector::parse(r#"{host=~"web-.*"}"#).unwrap());
        let hosts = || vec!["web-1", "db-1", "web-2"];
        let end = Instant::now() + Duration::from_secs(60);
        let judged = selector.sift(hosts(), end, |host, _| Some(host)).await.unwrap();
        assert_eq!(judged, [("web-1", true), ("db-1", false), ("web-2", true)]);
        assert_eq!(selector.sift(hosts(), Instant::now(), |host, _| Some(host)).await, Err(TooSlow));
        let compared = Arc::new(Selector::parse(r#"{host="db-1"}"#).unwrap());
        assert_eq!(compared.sift(hosts(), Instant::now(), |host, _| Some(host)).await.unwrap()[1], ("db-1", true));
    }
}
