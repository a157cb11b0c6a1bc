//! How many bytes of messages, and of what is made of them, may be in memory at once. Who finds no room is told to come back,
//! before anything is unpacked; who could never find any is told so.

use std::sync::Arc;
use std::time::Duration;

use fault::Fault;
use telemetry::metrics::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::refusal;

/// The room that there is. Clones share it.
#[derive(Clone)]
pub struct Admission {
    room: Arc<Semaphore>,
    capacity: usize,
    gauge: Gauge,
}

impl Admission {
    #[must_use]
    pub fn new(bytes: u64, gauge: Gauge) -> Self {
        let capacity = usize::try_from(bytes).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { room: Arc::new(Semaphore::new(capacity)), capacity, gauge }
    }

    /// A message of which nothing is in memory yet.
    #[must_use]
    pub fn begin(&self) -> Hold {
        Hold { admission: self.clone(), permit: None, beside: 0 }
    }
}

/// The room that one message takes, given back when it is dropped.
pub struct Hold {
    admission: Admission,
    permit: Option<OwnedSemaphorePermit>,
    /// Bytes that another hold has for the same message.
    beside: usize,
}

impl Hold {
    /// Takes room for more bytes of the message.
    ///
    /// # Errors
    /// There is none now, or never.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Fault> {
        let count = self.possible(bytes)?;
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
        let more = tokio::time::timeout(patience, Arc::clone(&self.admission.room).acquire_many_owned(count));
        self.add(more.await.map_err(|_| full())?.map_err(|_| full())?);
        Ok(())
    }

    /// Room for what is made of the message, which may be given back before the message's own.
    #[must_use]
    pub fn beside(&self) -> Self {
        Self { admission: self.admission.clone(), permit: None, beside: self.beside + self.held() }
    }

    /// Gives back the room of `bytes`.
    pub fn shrink(&mut self, bytes: usize) {
        if let Some(rest) = self.permit.as_mut().and_then(|permit| permit.split(bytes)) {
            self.admission.gauge.dec_by(gauge_value(rest.num_permits()));
        }
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
        let admission = Admission::new(100, Gauge::default());
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
        let admission = Admission::new(100, Gauge::default());
        let mut hold = admission.begin();
        assert!(!hold.grow(101).unwrap_err().is_retryable());
        hold.grow(60).unwrap();
        assert!(!hold.beside().grow(41).unwrap_err().is_retryable());
        hold.beside().grow(40).unwrap();
    }

    #[tokio::test]
    async fn who_waits_gets_the_room_that_is_given_back() {
        let admission = Admission::new(100, Gauge::default());
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
