//! A bounded queue that forgets the oldest and counts what it forgot.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use axum::extract::ws::Utf8Bytes;
use tokio::sync::Notify;

/// Frames on their way to one client.
pub(crate) struct Queue {
    inner: Mutex<Inner>,
    arrived: Notify,
    most: usize,
}

#[derive(Default)]
struct Inner {
    frames: VecDeque<Utf8Bytes>,
    dropped: u64,
}

/// What a client is sent next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Frame(Utf8Bytes),
    /// So many frames were dropped before the next one.
    Dropped(u64),
}

impl Queue {
    pub(crate) fn new(most: usize) -> Self {
        Self { inner: Mutex::default(), arrived: Notify::new(), most }
    }

    /// Adds a frame; true when the oldest had to go for it.
    pub(crate) fn push(&self, frame: Utf8Bytes) -> bool {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let full = inner.frames.len() == self.most;
        if full {
            inner.frames.pop_front();
            inner.dropped += 1;
        }
        inner.frames.push_back(frame);
        drop(inner);
        self.arrived.notify_one();
        full
    }

    /// Waits for what comes next. May be dropped at any time without losing a frame.
    pub(crate) async fn next(&self) -> Next {
        loop {
            if let Some(next) = self.take() {
                return next;
            }
            self.arrived.notified().await;
        }
    }

    fn take(&self) -> Option<Next> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::take(&mut inner.dropped) {
            0 => inner.frames.pop_front().map(Next::Frame),
            dropped => Some(Next::Dropped(dropped)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_go_first_and_are_counted() {
        let queue = Queue::new(2);
        assert!(!queue.push("a".into()));
        assert!(!queue.push("b".into()));
        assert!(queue.push("c".into()));
        assert_eq!(queue.next().await, Next::Dropped(1));
        assert_eq!(queue.next().await, Next::Frame("b".into()));
        assert_eq!(queue.next().await, Next::Frame("c".into()));
    }
}
