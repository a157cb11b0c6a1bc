//! The connections to read on. What is asked for on one of them is bounded, since a server that has too much waiting for a
//! client cuts it off; so a process that reads many streams has more than one.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;

use crate::connection::{Connection, Links};

/// Pulls on one connection. With one and a half times [`PULL_BYTES`](crate::pull::PULL_BYTES) each that is 32 MiB, half of
/// what a server lets wait by default.
const SEATS: usize = 20;

/// The connections of a process to read on, opened when they are needed.
pub(crate) struct Lines {
    url: String,
    links: Links,
    lines: Mutex<Vec<Line>>,
}

struct Line {
    connection: Arc<OnceCell<Connection>>,
    taken: usize,
}

/// A reader's place on a connection, free again when it is dropped.
pub(crate) struct Seat {
    lines: Arc<Lines>,
    index: usize,
    connection: Arc<OnceCell<Connection>>,
}

impl Lines {
    pub(crate) fn new(url: &str, links: &Links) -> Arc<Self> {
        Arc::new(Self { url: url.to_owned(), links: links.clone(), lines: Mutex::default() })
    }

    /// A place on the first connection that has one.
    pub(crate) fn seat(self: &Arc<Self>) -> Seat {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let index = lines.iter().position(|line| line.taken < SEATS).unwrap_or(lines.len());
        if index == lines.len() {
            lines.push(Line { connection: Arc::default(), taken: 0 });
        }
        let line = &mut lines[index];
        line.taken += 1;
        Seat { lines: Arc::clone(self), index, connection: Arc::clone(&line.connection) }
    }

    /// Those that are open.
    pub(crate) fn open(&self) -> Vec<Connection> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().filter_map(|line| line.connection.get().cloned()).collect()
    }
}

impl Seat {
    /// The connection; waits until it is open.
    pub(crate) async fn connection(&self) -> &Connection {
        let purpose = if self.index == 0 { "consuming".to_owned() } else { format!("consuming {}", self.index + 1) };
        self.connection.get_or_init(|| Connection::open(&self.lines.url, &purpose, &self.lines.links)).await
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut lines = self.lines.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = lines.get_mut(self.index) {
            line.taken = line.taken.saturating_sub(1);
        }
    }
}
