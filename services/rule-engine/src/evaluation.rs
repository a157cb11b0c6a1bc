//! The evaluation of one shard: what every rule thinks of every series, and how new telemetry changes it. Pure: time is
//! what samples and gateways say, so that reading the same messages again decides the same.

mod matches;
mod phase;
mod thresholds;

use std::sync::Arc;

use model::RecentBatches;
use otlp::{Invalid, Logs};

use crate::book::Book;
use crate::snapshot::Saved;
use crate::transition::Decision;

pub(crate) use matches::{Match, Resource};
pub(crate) use phase::Phase;
pub(crate) use thresholds::{Bound, Watched};

use matches::Matches;
use thresholds::Thresholds;

/// Series without news for that long are forgotten.
const IDLE_SECONDS: u64 = 60 * 60;
/// How far a sample's own time may be ahead of the gateway's before it is not believed: it would silence its series.
const MAX_AHEAD_MS: i64 = 10 * 60 * 1_000;
/// Series and matches that one shard remembers, each. A series costs 24 bytes, and some 200 once a rule is about it.
const CAPACITY: usize = 1_000_000;

/// Bytes of series that a shard's reader remembers; up to twice as many while series come and go.
const REMEMBERED: usize = 20 << 20;

/// What an envelope came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Samples or log records read.
    pub items: u64,
    /// Times that a rule looked at one of them.
    pub evaluated: u64,
    /// Samples not newer than what was seen of their series.
    pub late: u64,
    /// Samples whose time is too far ahead of the gateway's.
    pub ahead: u64,
    /// Log records of batches that a client sent again.
    pub repeated: u64,
    /// Series and matches that there was no room for.
    pub over_capacity: u64,
}

/// What all rules think of one shard's telemetry.
pub struct Evaluation {
    book: Arc<Book>,
    reader: series::Reader,
    thresholds: Thresholds,
    matches: Matches,
    batches: RecentBatches,
}

impl Evaluation {
    /// Nothing seen yet.
    #[must_use]
    pub fn new(book: Arc<Book>) -> Self {
        Self {
            book,
            reader: series::Reader::new(REMEMBERED),
            thresholds: Thresholds::default(),
            matches: Matches::default(),
            batches: RecentBatches::default(),
        }
    }

    /// Goes on from a snapshot that was made with the rules of `book`.
    #[must_use]
    pub fn restore(book: Arc<Book>, saved: Saved) -> Self {
        let thresholds = Thresholds::restore(&book, saved.series, saved.metrics_seconds);
        let matches = Matches::restore(&book, saved.matches, saved.stream_time);
        Self { thresholds, matches, batches: saved.batches.into_iter().collect(), ..Self::new(book) }
    }

    /// What must be kept to go on from here.
    #[must_use]
    pub fn save(&self) -> Saved {
        Saved {
            series: self.thresholds.save(),
            matches: self.matches.save(),
            stream_time: self.matches.now(),
            metrics_seconds: self.thresholds.now(),
            batches: self.batches.iter().collect(),
        }
    }

    /// The rules in use.
    #[must_use]
    pub fn book(&self) -> &Arc<Book> {
        &self.book
    }

    /// Goes on with other rules. What fired under a version that is no longer in force resolves; what was pending is
    /// forgotten.
    pub fn switch(&mut self, book: Arc<Book>, decide: &mut dyn FnMut(Decision)) {
        self.thresholds.switch(&book, decide);
        self.matches.switch(&book, decide);
        self.book = book;
    }

    /// Evaluates a metrics envelope's body.
    ///
    /// # Errors
    /// The bytes are no OTLP metrics; then nothing was evaluated.
    pub fn metrics(
        &mut self,
        tenant: &str,
        body: &[u8],
        received_unix_nano: u64,
        decide: &mut dyn FnMut(Decision),
    ) -> Result<Tally, Invalid> {
        let mut tally = Tally::default();
        self.thresholds.pass_time(received_unix_nano, decide);
        let (book, thresholds) = (&self.book, &mut self.thresholds);
        self.reader.read(tenant, body, received_unix_nano, |sample| {
            tally.items += 1;
            thresholds.sample(book, &sample, received_unix_nano, &mut tally, decide);
        })?;
        Ok(tally)
    }

    /// Evaluates a log envelope's body.
    ///
    /// # Errors
    /// The bytes are no OTLP logs; then nothing was evaluated.
    pub fn logs(
        &mut self,
        tenant: &str,
        body: &[u8],
        received_unix_nano: u64,
        decide: &mut dyn FnMut(Decision),
    ) -> Result<Tally, Invalid> {
        let logs = Logs::parse(body)?;
        self.matches.pass_time(received_unix_nano, decide);
        let mut tally = Tally::default();
        let Some(literals) = self.book.on_logs(tenant) else {
            return Ok(tally);
        };
        for resource in logs.resources() {
            let is_new = resource.batch().is_none_or(|(batch, part)| self.batches.is_new(tenant, batch, part));
            if !is_new {
                tally.repeated += resource.scopes().map(|scope| scope.records().count() as u64).sum::<u64>();
                continue;
            }
            self.matches.resource(literals, tenant, resource, received_unix_nano, &mut tally, decide);
        }
        Ok(tally)
    }

    /// The stream has come to this time: log alerts whose hold is over resolve.
    pub fn pass_time(&mut self, received_unix_nano: u64, decide: &mut dyn FnMut(Decision)) {
        self.matches.pass_time(received_unix_nano, decide);
    }
}

#[cfg(test)]
mod tests;
