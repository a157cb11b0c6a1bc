//! What goes on over the connection of an agent: it is what says when the agent may be sent away at the least cost, and whether it
//! has stopped sending snapshots.
//!
//! The field's newer agents keep commands, snapshots and exports on one connection, never open a snapshot stream again that
//! ended with an error, and lose what their exporters hold when they are told to disconnect.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lifecycle::CancellationToken;
use tokio::sync::watch;

use crate::metrics::Metrics;

/// The longest wait for a moment in which nothing is under way.
const PATIENCE: Duration = Duration::from_secs(3);
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Connections that are remembered for their exports alone.
const MOST: usize = 100_000;

/// Connections of agents, by the other end of their socket: those with streams, and those whose exports name an agent, since
/// an agent that has lost its streams is what is looked for. Clones share it.
#[derive(Clone, Default)]
pub struct Visits {
    open: Arc<Mutex<HashMap<SocketAddr, Arc<Visit>>>>,
}

/// One connection.
pub struct Visit {
    begun: Instant,
    state: Mutex<State>,
    exports: watch::Sender<Exports>,
}

#[derive(Default)]
struct State {
    streams: usize,
    last_snapshot: Option<Instant>,
    /// The last export that named an agent.
    last_export: Option<Instant>,
    /// Who the last snapshot was from, or whose credential opened a stream.
    agent: Option<String>,
    told: bool,
}

/// Exports on the connection.
#[derive(Default, Clone, Copy)]
struct Exports {
    under_way: usize,
    answered: u64,
}

impl Visits {
    /// A stream begins on the connection.
    #[must_use]
    pub fn stream(&self, socket: SocketAddr, agent: Option<&str>) -> Stream {
        let visit = {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(open.entry(socket).or_default())
        };
        let mut state = visit.state();
        state.streams += 1;
        if state.agent.is_none() {
            state.agent = agent.map(str::to_owned);
        }
        drop(state);
        Stream { visits: self.clone(), socket, visit }
    }

    /// An export of `agent` was taken on the connection.
    pub fn exported(&self, socket: SocketAddr, agent: &str) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= MOST && !open.contains_key(&socket) {
            return;
        }
        let visit = open.entry(socket).or_default();
        let mut state = visit.state();
        state.last_export = Some(Instant::now());
        if state.agent.is_none() {
            state.agent = Some(agent.to_owned());
        }
    }

    /// An export begins on the connection; it matters where there are streams.
    #[must_use]
    pub fn export(&self, socket: SocketAddr) -> Option<Export> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let visit = Arc::clone(open.get(&socket)?);
        visit.exports.send_modify(|exports| exports.under_way += 1);
        Some(Export(visit))
    }

    /// Shows agents that live without sending snapshots, until the process stops.
    ///
    /// # Errors
    /// None; the signature is a task's.
    pub async fn watch(self, silence: Duration, metrics: Metrics, stopping: CancellationToken) -> anyhow::Result<()> {
        while !stopping.is_cancelled() {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = stopping.cancelled() => break,
            }
            let silent = self.silent(silence, Instant::now());
            metrics.agents_without_snapshots.set(i64::try_from(silent.len()).unwrap_or(i64::MAX));
            for (socket, agent) in
                silent.into_iter().filter_map(|(socket, agent, is_news)| is_news.then_some((socket, agent)))
            {
                tracing::warn!(
                    client = %socket,
                    agent = agent.as_deref().unwrap_or("unknown"),
                    "an agent's connection is open, but no process snapshot came over it for a while; an agent of GoSight \
                     whose snapshot stream broke sends none until it is started again"
                );
            }
        }
        Ok(())
    }

    /// Connections without a snapshot for that long, whose they are, and whether that was not told before. Those over which
    /// nothing comes any more are forgotten.
    fn silent(&self, silence: Duration, now: Instant) -> Vec<(SocketAddr, Option<String>, bool)> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let is_long_ago = |time: Instant| now.saturating_duration_since(time) >= silence;
        open.retain(|_, visit| {
            let state = visit.state();
            state.streams > 0 || state.last_export.is_some_and(|export| !is_long_ago(export))
        });
        let is_silent = |visit: &Visit, state: &State| is_long_ago(state.last_snapshot.unwrap_or(visit.begun));
        // An agent may have its snapshots on one connection and its exports on another.
        let well: HashSet<String> = open
            .values()
            .filter_map(|visit| {
                let state = visit.state();
                state.agent.clone().filter(|_| state.last_snapshot.is_some() && !is_silent(visit, &state))
            })
            .collect();
        let silent = open.iter().filter_map(|(socket, visit)| {
            let mut state = visit.state();
            if !is_silent(visit, &state) || state.agent.as_ref().is_some_and(|agent| well.contains(agent)) {
                state.told = false;
                return None;
            }
            let is_news = !std::mem::replace(&mut state.told, true);
            Some((*socket, state.agent.clone(), is_news))
        });
        silent.collect()
    }
}

impl Default for Visit {
    fn default() -> Self {
        Self { begun: Instant::now(), state: Mutex::default(), exports: watch::Sender::default() }
    }
}

impl Visit {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves right after an export was answered while no other is under way: then the agent holds least. At the latest
    /// after a few seconds, or at once when `last_call` is over and nothing is under way.
    pub async fn quiet_moment(&self, last_call: CancellationToken) {
        let mut exports = self.exports.subscribe();
        let before = exports.borrow().answered;
        let quiet = async {
            // The sender lives as long as this.
            let _ = exports
                .wait_for(|exports| exports.under_way == 0 && (exports.answered > before || last_call.is_cancelled()))
                .await;
        };
        let over = async {
            last_call.cancelled().await;
            // Wakes the wait above, which looks again.
            self.exports.send_modify(|_| {});
            tokio::time::sleep(PATIENCE).await;
        };
        tokio::select! {
            () = quiet => {}
            () = over => {}
        }
    }
}

/// A stream of a connection, until it is dropped.
pub struct Stream {
    visits: Visits,
    socket: SocketAddr,
    visit: Arc<Visit>,
}

impl Stream {
    /// A snapshot came over it.
    pub fn snapshot(&self, agent: Option<&str>) {
        let mut state = self.visit.state();
        state.last_snapshot = Some(Instant::now());
        if let Some(agent) = agent {
            state.agent = Some(agent.to_owned());
        }
    }

    /// Whether snapshots have come over the connection.
    #[must_use]
    pub fn has_snapshots(&self) -> bool {
        self.visit.state().last_snapshot.is_some()
    }

    #[must_use]
    pub fn visit(&self) -> Arc<Visit> {
        Arc::clone(&self.visit)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut open = self.visits.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.visit.state();
        state.streams -= 1;
        if state.streams == 0 && state.last_export.is_none() {
            open.remove(&self.socket);
        }
    }
}

/// An export of a connection with streams, until it is dropped: then it was answered.
pub struct Export(Arc<Visit>);

impl Drop for Export {
    fn drop(&mut self) {
        self.0.exports.send_modify(|exports| {
            exports.under_way -= 1;
            exports.answered += 1;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILENCE: Duration = Duration::from_secs(60);

    fn socket() -> SocketAddr {
        "10.0.0.1:5000".parse().unwrap()
    }

    #[test]
    fn an_agent_that_lives_without_snapshots_is_told_once() {
        let visits = Visits::default();
        let stream = visits.stream(socket(), None);
        let (soon, late) = (Instant::now(), Instant::now() + 2 * SILENCE);
        assert!(visits.silent(SILENCE, soon).is_empty());
        assert_eq!(visits.silent(SILENCE, late), [(socket(), None, true)]);
        assert_eq!(visits.silent(SILENCE, late), [(socket(), None, false)]);
        stream.snapshot(Some("a1"));
        assert!(visits.silent(SILENCE, soon).is_empty());
        assert_eq!(visits.silent(SILENCE, late), [(socket(), Some("a1".to_owned()), true)]);
        drop(stream);
        assert!(visits.silent(SILENCE, late).is_empty());
        assert!(visits.export(socket()).is_none());
    }

    #[test]
    fn an_agent_that_exports_and_has_lost_its_streams_is_told_until_it_is_gone() {
        let visits = Visits::default();
        visits.exported(socket(), "a1");
        let begun = Instant::now();
        assert!(visits.silent(SILENCE, begun).is_empty());
        // It goes on exporting, as the clock of this test goes on.
        let later = begun + SILENCE;
        visits.open.lock().unwrap()[&socket()].state().last_export = Some(later);
        assert_eq!(visits.silent(SILENCE, later), [(socket(), Some("a1".to_owned()), true)]);
        // Another connection of the same agent has its snapshots.
        let stream = visits.stream("10.0.0.1:6000".parse().unwrap(), None);
        stream.snapshot(Some("a1"));
        stream.visit.state().last_snapshot = Some(later);
        assert!(visits.silent(SILENCE, later).is_empty());
        drop(stream);
        assert!(visits.silent(SILENCE, later + SILENCE).is_empty());
        assert!(visits.open.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn the_quiet_moment_is_behind_an_answer() {
        let visits = Visits::default();
        let stream = visits.stream(socket(), None);
        let last_call = CancellationToken::new();
        let visit = stream.visit();
        let mut quiet = std::pin::pin!(visit.quiet_moment(last_call.clone()));
        assert!(futures::poll!(&mut quiet).is_pending());
        let (first, second) = (visits.export(socket()), visits.export(socket()));
        drop(first);
        assert!(futures::poll!(&mut quiet).is_pending(), "another is under way");
        drop(second);
        quiet.await;
    }

    #[tokio::test]
    async fn on_the_last_call_nothing_is_waited_for_that_is_not_under_way() {
        let visits = Visits::default();
        let stream = visits.stream(socket(), None);
        let last_call = CancellationToken::new();
        let visit = stream.visit();
        let quiet = visit.quiet_moment(last_call.clone());
        last_call.cancel();
        tokio::time::timeout(PATIENCE / 2, quiet).await.unwrap();
    }
}
