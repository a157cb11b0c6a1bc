//! Messages that are handled together: held while that cannot be done, taken apart to find the one that never can.

use std::fmt::Display;
use std::iter::zip;
use std::slice::from_ref;
use std::time::Duration;

use lifecycle::CancellationToken;

use crate::consume::GIVE_BACK_AFTER;
use crate::delivery::{Delivery, in_work};
use crate::pull::{PATIENCE, pause};

/// Well within the shortest time after which the broker gives a message to somebody else, that of the control streams.
const REPORT_EVERY: Duration = Duration::from_millis(1500);

/// Messages, and what was read from each.
pub struct Batch<I> {
    deliveries: Vec<Delivery>,
    items: Vec<I>,
}

impl<I> Default for Batch<I> {
    fn default() -> Self {
        Self { deliveries: Vec::new(), items: Vec::new() }
    }
}

impl<I> Batch<I> {
    /// Adds a message and what was read from it.
    pub fn push(&mut self, delivery: Delivery, item: I) {
        self.deliveries.push(delivery);
        self.items.push(item);
    }

    /// Does `work` for all items at once, then tells `settle` what came of it, whose part it is to answer the broker.
    ///
    /// - Where the work fails for a reason that will pass, it is done again. Meanwhile the messages are held in their
    ///   order, and the broker hears that they are in work; when the process stops they are given back.
    /// - Where `is_poison` says that an item is at fault, it is done for each item alone. So `settle` is told of an error
    ///   only together with the one message that caused it.
    pub async fn work_off<'a, T, E: Display, W, S>(
        &'a self,
        stopping: &CancellationToken,
        is_poison: impl Fn(&E) -> bool,
        work: impl Fn(&'a [I]) -> W,
        settle: impl Fn(&'a [Delivery], Result<T, E>) -> S,
    ) where
        W: Future<Output = Result<T, E>>,
        S: Future<Output = ()>,
    {
        if self.items.is_empty() {
            return;
        }
        let all = &self.deliveries[..];
        match in_work(all.iter(), REPORT_EVERY, hold(all.len(), stopping, &is_poison, || work(&self.items))).await {
            None => give_back(all).await,
            Some(Err(error)) if self.items.len() > 1 => {
                tracing::warn!(%error, messages = self.items.len(), "messages are refused together; trying each alone");
                for (index, (delivery, item)) in zip(all, &self.items).enumerate() {
                    let left = &all[index..];
                    let alone = hold(1, stopping, &is_poison, || work(from_ref(item)));
                    match in_work(left.iter(), REPORT_EVERY, alone).await {
                        None => return give_back(left).await,
                        Some(outcome) => settle(from_ref(delivery), outcome).await,
                    }
                }
            }
            Some(outcome) => settle(all, outcome).await,
        }
    }
}

/// Does `work` until it succeeds or is refused for good; `None` when the process stops first.
async fn hold<T, E: Display, W: Future<Output = Result<T, E>>>(
    messages: usize,
    stopping: &CancellationToken,
    is_poison: impl Fn(&E) -> bool,
    work: impl Fn() -> W,
) -> Option<Result<T, E>> {
    let mut errors = 0;
    loop {
        let error = match work().await {
            Err(error) if !is_poison(&error) => error,
            outcome => return Some(outcome),
        };
        errors += 1;
        if errors == PATIENCE {
            tracing::warn!(%error, messages, "cannot handle messages; holding them and trying on");
        } else {
            tracing::debug!(%error, messages, "cannot handle messages yet");
        }
        stopping.run_until_cancelled(tokio::time::sleep(pause(errors))).await?;
    }
}

async fn give_back(deliveries: &[Delivery]) {
    for delivery in deliveries {
        delivery.nak(GIVE_BACK_AFTER).await;
    }
}
