//! Messages that are handled together: held while that cannot be done, taken apart to find the one that never can.

use std::fmt::Display;
use std::iter::zip;
use std::slice::from_ref;
use std::time::Duration;

use lifecycle::CancellationToken;
use tokio::time::Instant;

use crate::consume::GIVE_BACK_AFTER;
use crate::delivery::{Delivery, in_work};
use crate::pull::{PATIENCE, pause};

/// How long one try may take unless the batch says otherwise: a store that neither answers nor closes is away.
const ONE_TRY: Duration = Duration::from_secs(60);
/// How long what was held too long stays away from this process, so that another replica gets it.
const ELSEWHERE_AFTER: Duration = Duration::from_secs(1);
/// Well within the shortest time after which the broker gives a message to somebody else, that of the control streams.
const REPORT_EVERY: Duration = Duration::from_millis(1500);

/// Messages, and what was read from each.
pub struct Batch<I> {
    deliveries: Vec<Delivery>,
    items: Vec<I>,
    one_try: Duration,
    hold_limit: Option<Duration>,
}

impl<I> Default for Batch<I> {
    fn default() -> Self {
        Self { deliveries: Vec::new(), items: Vec::new(), one_try: ONE_TRY, hold_limit: None }
    }
}

impl<I> Batch<I> {
    /// Sets how long one try of the work may take. What takes longer is dropped, and done again.
    #[must_use]
    pub fn within(mut self, one_try: Duration) -> Self {
        self.one_try = one_try;
        self
    }

    /// Sets how long messages are held at the most, where that is less than the setting: what people wait for is better
    /// given to a replica that has more luck.
    #[must_use]
    pub fn held(mut self, limit: Duration) -> Self {
        self.hold_limit = Some(limit);
        self
    }

    /// Adds a message and what was read from it.
    pub fn push(&mut self, delivery: Delivery, item: I) {
        self.deliveries.push(delivery);
        self.items.push(item);
    }

    /// Does `work` for all items at once, then tells `settle` what came of it, whose part it is to answer the broker.
    ///
    /// - Where the work fails for a reason that will pass, it is done again. Meanwhile the messages are held in their
    ///   order, and the broker hears that they are in work; when the process stops, or they were held for
    ///   [`Settings::hold_limit`](crate::Settings::hold_limit), they are given back, and another replica may have more luck.
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
        let setting = all[0].bus().settings().hold_limit;
        let limit = self.hold_limit.map_or(setting, |limit| limit.min(setting));
        let hold = Hold { stopping, one_try: self.one_try, end: Instant::now() + limit };
        match in_work(all.iter(), REPORT_EVERY, hold.until_done(all.len(), &is_poison, || work(&self.items))).await {
            None => hold.give_back(all).await,
            Some(Err(error)) if self.items.len() > 1 => {
                tracing::warn!(%error, messages = self.items.len(), "messages are refused together; trying each alone");
                for (index, (delivery, item)) in zip(all, &self.items).enumerate() {
                    let left = &all[index..];
                    let alone = hold.until_done(1, &is_poison, || work(from_ref(item)));
                    match in_work(left.iter(), REPORT_EVERY, alone).await {
                        None => return hold.give_back(left).await,
                        Some(outcome) => settle(from_ref(delivery), outcome).await,
                    }
                }
            }
            Some(outcome) => settle(all, outcome).await,
        }
    }
}

/// How long messages are held.
struct Hold<'s> {
    stopping: &'s CancellationToken,
    one_try: Duration,
    end: Instant,
}

impl Hold<'_> {
    /// Does `work` until it succeeds or is refused for good; `None` when the process stops first, or it was held too long.
    async fn until_done<T, E: Display, W: Future<Output = Result<T, E>>>(
        &self,
        messages: usize,
        is_poison: impl Fn(&E) -> bool,
        work: impl Fn() -> W,
    ) -> Option<Result<T, E>> {
        let mut errors = 0;
        loop {
            let error = match tokio::time::timeout(self.one_try, work()).await {
                Ok(Err(error)) if !is_poison(&error) => error.to_string(),
                Ok(outcome) => return Some(outcome),
                Err(_) => format!("no answer within {:?}", self.one_try),
            };
            errors += 1;
            if errors == PATIENCE {
                tracing::warn!(error, messages, "cannot handle messages; holding them and trying on");
            } else {
                tracing::debug!(error, messages, "cannot handle messages yet");
            }
            let next = Instant::now() + pause(errors);
            if next > self.end {
                tracing::warn!(error, messages, "messages were held for too long; another replica may have more luck");
                return None;
            }
            self.stopping.run_until_cancelled(tokio::time::sleep_until(next)).await?;
        }
    }

    async fn give_back(&self, deliveries: &[Delivery]) {
        let after = if self.stopping.is_cancelled() { GIVE_BACK_AFTER } else { ELSEWHERE_AFTER };
        for delivery in deliveries {
            delivery.nak(after).await;
        }
    }
}
