//! How many bytes of messages may be in memory at once. Who finds no room is told to come back, before anything is unpacked.

use std::sync::Arc;

use fault::Fault;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::refusal;

/// The room that there is. Clones share it.
#[derive(Clone)]
pub struct Admission {
    room: Arc<Semaphore>,
    gauge: Gauge,
}

impl Admission {
    #[must_use]
    pub fn new(bytes: u64, gauge: Gauge) -> Self {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { room: Arc::new(Semaphore::new(bytes)), gauge }
    }

    /// A message of which nothing is in memory yet.
    #[must_use]
    pub fn begin(&self) -> Hold {
        Hold { admission: self.clone(), permit: None }
    }
}

/// The room that one message takes, given back when it is dropped.
pub struct Hold {
    admission: Admission,
    permit: Option<OwnedSemaphorePermit>,
}

impl Hold {
    /// Takes room for more bytes of the message.
    ///
    /// # Errors
    /// There is none.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Fault> {
        let count = u32::try_from(bytes).map_err(|_| refusal::too_large("message", u32::MAX as usize))?;
        let Ok(more) = Arc::clone(&self.admission.room).try_acquire_many_owned(count) else {
            return Err(refusal::overloaded("too much data is in flight here; try again shortly"));
        };
        self.admission.gauge.inc_by(i64::from(count));
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            None => self.permit = Some(more),
        }
        Ok(())
    }

    /// Gives back the room of `bytes`.
    pub fn shrink(&mut self, bytes: usize) {
        if let Some(rest) = self.permit.as_mut().and_then(|permit| permit.split(bytes)) {
            self.admission.gauge.dec_by(gauge_value(rest.num_permits()));
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let held = self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        self.admission.gauge.dec_by(gauge_value(held));
    }
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
        assert!(second.grow(41).is_err());
        first.shrink(30);
        second.grow(41).unwrap();
        drop((first, second));
        assert_eq!(admission.gauge.get(), 0);
        admission.begin().grow(100).unwrap();
    }
}
