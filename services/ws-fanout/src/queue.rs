//! Queues bounded in bytes, which forget the oldest and count what they forgot.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::ws::Utf8Bytes;
use tokio::sync::Notify;

/// What a frame takes beside its text.
const OVERHEAD: usize = 64;

/// Memory of all queues together. Clones share it.
#[derive(Clone)]
pub(crate) struct Room(Arc<Shares>);

struct Shares {
    each: usize,
    all: usize,
    queues: AtomicUsize,
}

impl Room {
    pub(crate) fn new(each: usize, all: usize) -> Self {
        Self(Arc::new(Shares { each, all, queues: AtomicUsize::new(0) }))
    }

    /// What one queue may hold now.
    fn share(&self) -> usize {
        self.0.each.min(self.0.all / self.0.queues.load(Ordering::Relaxed).max(1))
    }
}

/// Frames on their way to one client.
pub(crate) struct Queue {
    inner: Mutex<Inner>,
    arrived: Notify,
    room: Room,
}

#[derive(Default)]
struct Inner {
    frames: VecDeque<Utf8Bytes>,
    bytes: usize,
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
    pub(crate) fn new(room: &Room) -> Self {
        room.0.queues.fetch_add(1, Ordering::Relaxed);
        Self { inner: Mutex::default(), arrived: Notify::new(), room: room.clone() }
    }

    /// Adds a frame, and tells how many had to go for it: of the oldest, or the frame itself where it alone is too large.
    pub(crate) fn push(&self, frame: Utf8Bytes) -> u64 {
        let (share, size) = (self.room.share(), frame.len() + OVERHEAD);
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let mut dropped = 0;
        if size > share {
            dropped = 1;
        } else {
            while inner.bytes + size > share
                && let Some(oldest) = inner.frames.pop_front()
            {
                inner.bytes -= oldest.len() + OVERHEAD;
                dropped += 1;
            }
            inner.bytes += size;
            inner.frames.push_back(frame);
        }
        inner.dropped += dropped;
        drop(inner);
        self.arrived.notify_one();
        dropped
    }

    /// Counts a frame that was not even made.
    pub(crate) fn miss(&self) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).dropped += 1;
        self.arrived.notify_one();
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
        if inner.dropped > 0 {
            return Some(Next::Dropped(std::mem::take(&mut inner.dropped)));
        }
        let frame = inner.frames.pop_front()?;
        inner.bytes -= frame.len() + OVERHEAD;
        Some(Next::Frame(frame))
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.room.0.queues.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: usize = OVERHEAD + 1;

    fn held(queue: &Queue) -> usize {
        queue.inner.lock().unwrap().bytes
    }

    #[tokio::test]
    async fn the_oldest_go_first_and_are_counted() {
        let queue = Queue::new(&Room::new(2 * FRAME, 100 * FRAME));
        assert_eq!(queue.push("a".into()), 0);
        assert_eq!(queue.push("b".into()), 0);
        assert_eq!(queue.push("c".into()), 1);
        assert_eq!(queue.next().await, Next::Dropped(1));
        assert_eq!(queue.next().await, Next::Frame("b".into()));
        assert_eq!(queue.next().await, Next::Frame("c".into()));
        assert_eq!(held(&queue), 0);
    }

    #[tokio::test]
    async fn one_large_frame_takes_the_place_of_many_small_ones_and_never_more_than_all() {
        let queue = Queue::new(&Room::new(1_000, 10_000));
        for _ in 0..10 {
            queue.push("x".into());
        }
        assert_eq!(queue.push("x".repeat(900).into()), 10);
        assert_eq!(queue.push("x".repeat(1_000).into()), 1, "itself");
        assert_eq!(queue.next().await, Next::Dropped(11));
        assert_eq!(queue.next().await, Next::Frame("x".repeat(900).into()));
    }

    #[test]
    fn whatever_is_pushed_all_queues_together_stay_within_their_room() {
        let room = Room::new(1_000, 4_000);
        let queues: Vec<Queue> = (0..20).map(|_| Queue::new(&room)).collect();
        for round in 0..50 {
            for queue in &queues {
                queue.push("x".repeat(1 + round * 7 % 130).into());
            }
        }
        assert!(queues.iter().map(held).sum::<usize>() <= 4_000);
        drop(queues);
        let alone = Queue::new(&room);
        for _ in 0..20 {
            alone.push("x".repeat(100).into());
        }
        assert!(held(&alone) > 500, "who is alone has its share again");
    }
}
