//! Queues bounded in bytes, which forget the oldest and count what they forgot.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::ws::Utf8Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

/// What a frame takes beside its text.
const OVERHEAD: usize = 64;

/// How often a client is told of frames that were not made for it, while none is.
const TELL_EVERY: Duration = Duration::from_secs(1);

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
    /// Frames that were not even made, of which is told once in [`TELL_EVERY`] where no frame follows.
    missed: u64,
    told: Option<Instant>,
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
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.missed += 1;
        let is_first = inner.missed == 1;
        drop(inner);
        // Who waits then knows when to look again.
        if is_first {
            self.arrived.notify_one();
        }
    }

    /// Waits for what comes next. May be dropped at any time without losing a frame.
    pub(crate) async fn next(&self) -> Next {
        loop {
            let again = match self.take() {
                Ok(next) => return next,
                Err(again) => again,
            };
            let due = async {
                match again {
                    Some(again) => tokio::time::sleep_until(again).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.arrived.notified() => {}
                () = due => {}
            }
        }
    }

    /// What there is, or when there will be something to tell of though nothing comes.
    fn take(&self) -> Result<Next, Option<Instant>> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let due = inner.told.map_or(now, |told| told + TELL_EVERY);
        // What a frame follows is told before it.
        if inner.dropped > 0 || inner.missed > 0 && (due <= now || !inner.frames.is_empty()) {
            inner.told = Some(now);
            return Ok(Next::Dropped(std::mem::take(&mut inner.dropped) + std::mem::take(&mut inner.missed)));
        }
        match inner.frames.pop_front() {
            Some(frame) => {
                inner.bytes -= frame.len() + OVERHEAD;
                Ok(Next::Frame(frame))
            }
            None => Err((inner.missed > 0).then_some(due)),
        }
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

    #[tokio::test(start_paused = true)]
    async fn what_was_not_made_is_told_before_what_follows_and_else_once_a_second() {
        let queue = Queue::new(&Room::new(2 * FRAME, 100 * FRAME));
        let begun = Instant::now();
        queue.miss();
        assert_eq!((queue.next().await, begun.elapsed()), (Next::Dropped(1), Duration::ZERO));
        for _ in 0..1_000 {
            queue.miss();
        }
        assert_eq!((queue.next().await, begun.elapsed()), (Next::Dropped(1_000), TELL_EVERY));
        queue.miss();
        queue.push("a".into());
        assert_eq!((queue.next().await, begun.elapsed()), (Next::Dropped(1), TELL_EVERY));
        assert_eq!((queue.next().await, begun.elapsed()), (Next::Frame("a".into()), TELL_EVERY));
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
