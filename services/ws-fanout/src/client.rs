//! Who listens.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::ws::Utf8Bytes;

use crate::metrics::Metrics;
use crate::queue::Queue;
use crate::wanted::Wanted;

const SECOND: Duration = Duration::from_secs(1);

/// One listener of one topic.
pub(crate) struct Client {
    pub(crate) tenant: String,
    pub(crate) wanted: Wanted,
    pub(crate) queue: Queue,
    expressions: Mutex<Spent>,
}

/// What a client's expressions have cost in the present second.
struct Spent {
    since: Instant,
    time: Duration,
}

impl Client {
    pub(crate) fn new(tenant: String, wanted: Wanted, queue: Queue) -> Self {
        let spent = Spent { since: Instant::now(), time: Duration::ZERO };
        Self { tenant, wanted, queue, expressions: Mutex::new(spent) }
    }

    /// Whether it wants something of a resource with these labels. Nothing where that is not known, since its expressions have
    /// cost `most` of a processor's time in this second already: then it misses what it may have wanted.
    pub(crate) fn wants<'a>(
        &self,
        resource_id: &str,
        label: impl Fn(&str) -> Option<&'a str>,
        most: Duration,
    ) -> Option<bool> {
        if !self.wanted.is_about(resource_id) {
            return Some(false);
        }
        if self.wanted.selector.weight() == 0 {
            return Some(self.wanted.selector.matches(label));
        }
        let begun = Instant::now();
        if !self.spent(begun, |time| *time < most) {
            return None;
        }
        let wants = self.wanted.selector.matches(label);
        let ended = Instant::now();
        self.spent(ended, |time| *time += ended - begun);
        Some(wants)
    }

    fn spent<T>(&self, now: Instant, look: impl FnOnce(&mut Duration) -> T) -> T {
        let mut spent = self.expressions.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(spent.since) >= SECOND {
            *spent = Spent { since: now, time: Duration::ZERO };
        }
        look(&mut spent.time)
    }

    pub(crate) fn give(&self, frame: Utf8Bytes, metrics: &Metrics) {
        metrics.frames.inc();
        metrics.dropped_frames.inc_by(self.queue.push(frame));
    }

    /// Gives a frame, or counts one that would have cost too much.
    pub(crate) fn give_or_miss(&self, frame: Option<&Utf8Bytes>, metrics: &Metrics) {
        match frame {
            Some(frame) => self.give(frame.clone(), metrics),
            None => {
                metrics.dropped_frames.inc();
                self.queue.miss();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use selector::Selector;

    use super::*;
    use crate::queue::Room;

    const MOST: Duration = Duration::from_millis(1);

    fn client(selector: &str) -> Client {
        let wanted = Wanted { selector: Selector::parse(selector).unwrap(), ..Wanted::default() };
        Client::new("acme".to_owned(), wanted, Queue::new(&Room::new(1, 1)))
    }

    #[test]
    fn who_has_spent_its_time_misses_until_the_next_second() {
        let client = client(r#"{host=~"web-.*"}"#);
        let wants = |host: &'static str| client.wants("r", |_| Some(host), MOST);
        assert_eq!([wants("web-1"), wants("db-1")], [Some(true), Some(false)]);
        client.spent(Instant::now(), |time| *time = MOST);
        assert_eq!(wants("web-1"), None);
        client.spent(Instant::now() + SECOND, |time| assert!(time.is_zero()));
    }

    #[test]
    fn comparing_is_free() {
        let client = client(r#"{host="web-1"}"#);
        client.spent(Instant::now(), |time| *time = SECOND);
        assert_eq!(client.wants("r", |_| Some("web-1"), MOST), Some(true));
    }
}
