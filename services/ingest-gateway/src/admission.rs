//! How many bytes of messages, and of what is made of them, may be in memory at once. Who finds no room is told to come back,
//! before anything is unpacked; who could never find any is told so.
//!
//! What is whole is soon done with. What still comes in takes as long as its sender likes, so of that one sender may have a
//! quarter of the room.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fault::Fault;
use telemetry::metrics::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::refusal;
use crate::sender::Sender;

/// How often who waits for its share looks again.
const PAUSE: Duration = Duration::from_millis(20);

/// The room that there is. Clones share it.
#[derive(Clone)]
pub struct Admission {
    room: Arc<Semaphore>,
    capacity: usize,
    gauge: Gauge,
    unfinished: Arc<Unfinished>,
}

/// Bytes of messages that are not whole, by who sends them.
struct Unfinished {
    most: usize,
    bytes: Mutex<HashMap<String, usize>>,
}

impl Admission {
    /// Room for `bytes`. One unfinished message of `message` bytes always fits its sender's share.
    #[must_use]
    pub fn new(bytes: u64, message: usize, gauge: Gauge) -> Self {
        let capacity = usize::try_from(bytes).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        let unfinished = Unfinished { most: message.max(capacity / 4), bytes: Mutex::default() };
        Self { room: Arc::new(Semaphore::new(capacity)), capacity, gauge, unfinished: Arc::new(unfinished) }
    }

    /// A message of which nothing is in memory yet.
    #[must_use]
    pub fn begin(&self) -> Hold {
        Hold { admission: self.clone(), permit: None, beside: 0, share: None }
    }
}

/// The room that one message takes, given back when it is dropped.
pub struct Hold {
    admission: Admission,
    permit: Option<OwnedSemaphorePermit>,
    /// Bytes that another hold has for the same message.
    beside: usize,
    /// While the message is not whole.
    share: Option<Share>,
}

/// What one unfinished message takes of its sender's share, given back when it is dropped.
struct Share {
    unfinished: Arc<Unfinished>,
    sender: String,
    bytes: usize,
}

impl Share {
    fn grow(&mut self, bytes: usize) -> Result<(), Fault> {
        let mut all = self.unfinished.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = all.get(&self.sender).copied().unwrap_or_default();
        if taken.saturating_add(bytes) > self.unfinished.most {
            return Err(refusal::overloaded("too many of your messages are coming in at once; send fewer at a time"));
        }
        all.insert(self.sender.clone(), taken + bytes);
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut all = self.unfinished.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(taken) = all.get_mut(&self.sender) else { return };
        *taken = taken.saturating_sub(self.bytes);
        if *taken == 0 {
            all.remove(&self.sender);
        }
    }
}

impl Hold {
    /// There is more of the message to come: until it is [whole](Self::whole), it counts against the share of `sender`, which
    /// is waited for.
    ///
    /// # Errors
    /// The sender had too much on the way until `patience` ended.
    pub async fn unfinished(&mut self, sender: &Sender, patience: Duration) -> Result<(), Fault> {
        if self.share.is_some() {
            return Ok(());
        }
        let sender = format!("{} {}", sender.tenant, sender.identity());
        self.share = Some(Share { unfinished: Arc::clone(&self.admission.unfinished), sender, bytes: 0 });
        self.share_within(self.held(), patience).await
    }

    /// All of the message is here.
    pub fn whole(&mut self) {
        self.share = None;
    }

    /// Takes room for more bytes of the message.
    ///
    /// # Errors
    /// There is none now, or never.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Fault> {
        let count = self.possible(bytes)?;
        self.share(bytes)?;
        let more = Arc::clone(&self.admission.room).try_acquire_many_owned(count);
        self.add(more.map_err(|_| full())?);
        Ok(())
    }

    /// As [`Hold::grow`], but waits for room.
    ///
    /// # Errors
    /// There was none until `patience` ended, or will never be.
    pub async fn grow_within(&mut self, bytes: usize, patience: Duration) -> Result<(), Fault> {
        if patience.is_zero() {
            return self.grow(bytes);
        }
        let count = self.possible(bytes)?;
        self.share_within(bytes, patience).await?;
        let more = tokio::time::timeout(patience, Arc::clone(&self.admission.room).acquire_many_owned(count));
        self.add(more.await.map_err(|_| full())?.map_err(|_| full())?);
        Ok(())
    }

    /// Room for what is made of the message, which may be given back before the message's own.
    #[must_use]
    pub fn beside(&self) -> Self {
        Self { admission: self.admission.clone(), permit: None, beside: self.beside + self.held(), share: None }
    }

    /// Gives back the room of `bytes`.
    pub fn shrink(&mut self, bytes: usize) {
        if let Some(rest) = self.permit.as_mut().and_then(|permit| permit.split(bytes)) {
            self.admission.gauge.dec_by(gauge_value(rest.num_permits()));
        }
    }

    async fn share_within(&mut self, bytes: usize, patience: Duration) -> Result<(), Fault> {
        let end = Instant::now() + patience;
        loop {
            match self.share(bytes) {
                Err(_) if Instant::now() + PAUSE < end => tokio::time::sleep(PAUSE).await,
                shared => return shared,
            }
        }
    }

    fn share(&mut self, bytes: usize) -> Result<(), Fault> {
        self.share.as_mut().map_or(Ok(()), |share| share.grow(bytes))
    }

    fn held(&self) -> usize {
        self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits)
    }

    /// What can never fit must not be sent again.
    fn possible(&self, bytes: usize) -> Result<u32, Fault> {
        let all = self.beside.saturating_add(self.held()).saturating_add(bytes);
        let count = u32::try_from(bytes).ok().filter(|_| all <= self.admission.capacity);
        count.ok_or_else(|| refusal::too_large("message, with what is made of it,", self.admission.capacity))
    }

    fn add(&mut self, more: OwnedSemaphorePermit) {
        self.admission.gauge.inc_by(gauge_value(more.num_permits()));
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            None => self.permit = Some(more),
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.admission.gauge.dec_by(gauge_value(self.held()));
    }
}

fn full() -> Fault {
    refusal::overloaded("too much data is in flight here; try again shortly")
}

fn gauge_value(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_given_back_when_the_message_is_done() {
        let admission = Admission::new(100, 10, Gauge::default());
        let mut first = admission.begin();
        first.grow(60).unwrap();
        let mut second = admission.begin();
        assert!(second.grow(41).unwrap_err().is_retryable());
        first.shrink(30);
        second.grow(41).unwrap();
        drop((first, second));
        assert_eq!(admission.gauge.get(), 0);
        admission.begin().grow(100).unwrap();
    }

    #[test]
    fn what_can_never_fit_is_not_to_be_sent_again() {
        let admission = Admission::new(100, 10, Gauge::default());
        let mut hold = admission.begin();
        assert!(!hold.grow(101).unwrap_err().is_retryable());
        hold.grow(60).unwrap();
        assert!(!hold.beside().grow(41).unwrap_err().is_retryable());
        hold.beside().grow(40).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_whole_takes_a_quarter_at_most_of_one_sender() {
        let admission = Admission::new(100, 10, Gauge::default());
        let sender = |number| Sender::at("acme", std::net::Ipv4Addr::from_bits(number).into());
        let unfinished = async |number, bytes, patience| {
            let mut hold = admission.begin();
            hold.grow(5).unwrap();
            hold.unfinished(&sender(number), patience).await?;
            hold.grow_within(bytes, patience).await.map(|()| hold)
        };
        let mut first = unfinished(1, 15, Duration::ZERO).await.unwrap();
        let second = unfinished(1, 0, Duration::ZERO).await.unwrap();
        assert!(unfinished(1, 0, Duration::ZERO).await.is_err_and(|fault| fault.is_retryable()));
        let other = unfinished(2, 15, Duration::ZERO).await.unwrap();
        let (third, ()) = tokio::join!(unfinished(1, 15, Duration::from_secs(1)), async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            first.whole();
            first.grow(30).unwrap();
        });
        drop((first, second, third.unwrap(), other));
        assert!(admission.unfinished.bytes.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn who_waits_gets_the_room_that_is_given_back() {
        let admission = Admission::new(100, 10, Gauge::default());
        let mut first = admission.begin();
        first.grow(60).unwrap();
        let mut second = admission.begin();
        assert!(second.grow_within(50, Duration::from_millis(1)).await.unwrap_err().is_retryable());
        let waiting = second.grow_within(50, Duration::from_secs(20));
        let (waited, ()) = tokio::join!(waiting, async { drop(first) });
        waited.unwrap();
        assert_eq!(admission.gauge.get(), 50);
    }
}
