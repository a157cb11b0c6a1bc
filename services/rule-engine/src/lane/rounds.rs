//! Levels beside edges: from time to time a lane says everything that fires in it, and says some of it in full, in turn. What
//! was lost on the way is found by it: an alert that nobody confirms ends, one that nobody heard of begins.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use proto::alerts::{Level, Levels};
use uuid::Uuid;

use super::{Ended, Lane, unix_nano_now};
use crate::evaluation::Evaluation;

/// The most bytes of one part, about.
const PART_BYTES: usize = 128 << 10;
/// A series in a part, and a rule.
const SERIES_BYTES: usize = 8 + 18;
const RULE_BYTES: usize = 64;
/// What is said again in full with each round: this many, or this share if that is more.
const REPEATED: usize = 256;
const REPEATED_SHARE: usize = 10;
/// And so many at a time, so that the evaluation goes on between them.
const AT_ONCE: usize = 16;

/// When the lane speaks of everything, and what is still to be repeated.
pub(super) struct Rounds {
    every: Duration,
    next: Instant,
    round: u64,
    /// Where repeating goes on in the next round.
    behind: Option<(Uuid, u64)>,
    waiting: VecDeque<(Uuid, u64)>,
}

impl Rounds {
    pub(super) fn new(every: Duration) -> Self {
        Self { every, next: Instant::now() + every, round: 0, behind: None, waiting: VecDeque::new() }
    }

    /// Whether something is still to be said again.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(super) fn next(&self) -> Instant {
        self.next
    }
}

impl Lane {
    /// Says what fires.
    pub(super) async fn round(&mut self) -> Result<(), Ended> {
        let rounds = &mut self.rounds;
        rounds.next = Instant::now() + rounds.every;
        rounds.round = (rounds.round + 1).max(unix_nano_now() / 1_000_000);
        let (round, behind) = (rounds.round, rounds.behind);
        let counting = self.off(move |evaluation| {
            let count = evaluation.firing_count();
            let again = evaluation.firing_behind(behind, REPEATED.max(count / REPEATED_SHARE));
            (evaluation.order(), count, parts(evaluation), again, evaluation.bytes())
        });
        let (order, firing, parts, again, bytes) = counting.await.map_err(|_| Ended::Panicked)?;
        let count = u32::try_from(parts.len()).unwrap_or(u32::MAX);
        for (part, firing) in (0..).zip(parts) {
            let (shard, epoch) = (self.publisher.lane().to_owned(), self.publisher.epoch());
            self.publisher.levels(&Levels { shard, epoch, order, round, part, parts: count, firing }).await?;
        }
        self.rounds.behind = again.last().copied();
        self.rounds.waiting = again.into();
        self.show(firing, bytes);
        Ok(())
    }

    /// Says some more of the round in full.
    pub(super) async fn repeat_some(&mut self) -> Result<(), Ended> {
        let count = self.rounds.waiting.len().min(AT_ONCE);
        if count == 0 {
            return Ok(());
        }
        let keys: Vec<(Uuid, u64)> = self.rounds.waiting.drain(..count).collect();
        let decisions: Vec<_> = self
            .with(|evaluation| keys.iter().filter_map(|(rule, subject)| evaluation.again(*rule, *subject)).collect());
        self.publisher.repeat(&decisions, self.rounds.round).await
    }

    #[expect(clippy::cast_precision_loss, reason = "counts and sizes stay far below 2^53")]
    fn show(&self, firing: usize, bytes: usize) {
        self.tools.metrics.firing.observe(firing as f64);
        self.tools.metrics.state_size.observe(bytes as f64);
    }
}

/// Everything that fires, by rule, in parts; one empty part where nothing does.
fn parts(evaluation: &Evaluation) -> Vec<Vec<Level>> {
    let mut parts = vec![Vec::<Level>::new()];
    let (mut bytes, mut rule) = (0, None);
    for fires in evaluation.firing() {
        if bytes >= PART_BYTES {
            parts.push(Vec::new());
            (bytes, rule) = (0, None);
        }
        let Some(part) = parts.last_mut() else { continue };
        if rule != Some(fires.rule) {
            rule = Some(fires.rule);
            bytes += RULE_BYTES + fires.tenant.len();
            let (tenant, rule_id) = (fires.tenant.to_owned(), fires.rule.to_string());
            part.push(Level { tenant, rule_id, ..Level::default() });
        }
        if let Some(level) = part.last_mut() {
            level.series.push(fires.subject);
            level.transitions.push(fires.transition.to_vec());
            bytes += SERIES_BYTES;
        }
    }
    parts
}
