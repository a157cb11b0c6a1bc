//! Metric rules. Which rules are about a series is decided once, at its first sight or after rules changed; a series that
//! no rule is about costs one look-up a sample.

use std::sync::Arc;

use model::HashedMap;
use series::{Sample, Series};

use super::phase::{Change, Phase};
use super::{CAPACITY, IDLE_SECONDS, MAX_AHEAD_MS, Tally};
use crate::book::Book;
use crate::rule::{Rule, Watch};
use crate::snapshot::SavedSeries;
use crate::transition::{Decision, State};

/// How often idle series are looked for, in seconds of stream time.
const SWEEP_SECONDS: u64 = 60;

#[derive(Default)]
pub(crate) struct Thresholds {
    series: HashedMap<Entry>,
    /// Seconds of the newest time at which a gateway took in metrics.
    now: u64,
}

struct Entry {
    /// Revision of the rules that it was last looked up in; none after a restart, when its labels are still to come.
    checked: Option<i64>,
    /// When the rules on its metric were last changed, as it was bound to them.
    bound: Option<i64>,
    /// When it was last heard of, by the gateway's clock.
    seen: u64,
    watched: Option<Box<Watched>>,
}

/// A series that rules are about.
pub(crate) struct Watched {
    /// Unix milliseconds of the newest sample.
    pub(crate) last_ms: i64,
    /// Known once it was seen since the start, and for what fires.
    pub(crate) series: Option<Arc<Series>>,
    pub(crate) bound: Vec<Bound>,
}

/// A rule and what it thinks.
pub(crate) struct Bound {
    pub(crate) rule: Arc<Rule>,
    pub(crate) phase: Phase,
    pub(crate) value: f64,
}

impl Thresholds {
    pub(crate) fn sample(
        &mut self,
        book: &Book,
        sample: &Sample<'_>,
        received_unix_nano: u64,
        tally: &mut Tally,
        decide: &mut dyn FnMut(Decision),
    ) {
        let full = self.series.len() >= CAPACITY;
        let entry = match self.series.entry(sample.series.hash) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(_) if full => {
                tally.over_capacity += 1;
                return;
            }
            std::collections::hash_map::Entry::Vacant(vacant) => {
                vacant.insert(Entry { checked: None, bound: None, seen: 0, watched: None })
            }
        };
        entry.seen = self.now;
        if entry.checked != Some(book.revision) {
            entry.check(book, sample.series);
        }
        let Some(watched) = &mut entry.watched else {
            return;
        };
        let received_ms = i64::try_from(received_unix_nano / 1_000_000).unwrap_or(i64::MAX);
        if sample.time_ms <= watched.last_ms {
            tally.late += 1;
        } else if sample.time_ms > received_ms.saturating_add(MAX_AHEAD_MS) {
            tally.ahead += 1;
        } else {
            tally.evaluated += watched.bound.len() as u64;
            watched.last_ms = sample.time_ms;
            watched.evaluate(sample, received_unix_nano, decide);
        }
    }

    /// The stream has come to this time: series without news for an hour are forgotten, and what fires there resolves.
    pub(crate) fn pass_time(&mut self, received_unix_nano: u64, decide: &mut dyn FnMut(Decision)) {
        let before = self.now;
        self.now = self.now.max(received_unix_nano / 1_000_000_000);
        // At round times, so that whoever takes over looks at the same moments.
        if self.now / SWEEP_SECONDS == before / SWEEP_SECONDS {
            return;
        }
        let now = self.now;
        self.series.retain(|_, entry| {
            let stays = entry.seen + IDLE_SECONDS > now;
            if !stays && let Some(watched) = &mut entry.watched {
                watched.end(|_| true, now, decide);
            }
            stays
        });
    }

    pub(crate) fn switch(&mut self, book: &Book, decide: &mut dyn FnMut(Decision)) {
        let now = self.now;
        for watched in self.series.values_mut().filter_map(|e| e.watched.as_mut()) {
            watched.end(|rule| !book.has(rule), now, decide);
        }
    }

    pub(crate) fn save(&self) -> Vec<SavedSeries> {
        let watched = self.series.iter();
        watched.filter_map(|(hash, entry)| Some(SavedSeries::of(*hash, entry.seen, entry.watched.as_ref()?))).collect()
    }

    pub(crate) fn now(&self) -> u64 {
        self.now
    }

    pub(crate) fn restore(book: &Book, saved: Vec<SavedSeries>, now: u64) -> Self {
        let mut thresholds = Self { now, ..Self::default() };
        for saved in saved {
            let (hash, seen, watched) = saved.into_watched(book);
            let entry = Entry { checked: None, bound: None, seen, watched: Some(Box::new(watched)) };
            thresholds.series.insert(hash, entry);
        }
        thresholds
    }
}

impl Entry {
    /// Binds the series anew where rules on its metric changed.
    fn check(&mut self, book: &Book, series: &Arc<Series>) {
        let known = self.checked.replace(book.revision).is_some();
        let thresholds = book.on_metric(series.label("tenant"), series.name());
        let since = thresholds.map(|thresholds| thresholds.since);
        if !known || self.bound != since {
            self.bound = since;
            self.bind(thresholds.map_or(&[], |thresholds| &thresholds.rules), series);
        }
    }

    /// Finds the rules that are about the series; what the same versions thought before stays.
    fn bind(&mut self, rules: &[Arc<Rule>], series: &Arc<Series>) {
        let mut about = rules.iter().filter(|rule| rule.is_about(|name| Some(series.label(name)))).peekable();
        if about.peek().is_none() {
            self.watched = None;
            return;
        }
        let (last_ms, mut before) = match self.watched.take() {
            Some(watched) => (watched.last_ms, watched.bound),
            None => (i64::MIN, Vec::new()),
        };
        let bound = about.map(|rule| {
            let known = before.iter().position(|bound| bound.rule.is_same_version(rule));
            known.map_or_else(|| Bound::new(rule), |index| before.swap_remove(index))
        });
        self.watched = Some(Box::new(Watched { last_ms, series: Some(Arc::clone(series)), bound: bound.collect() }));
    }
}

impl Bound {
    fn new(rule: &Arc<Rule>) -> Self {
        Self { rule: Arc::clone(rule), phase: Phase::Inactive, value: f64::NAN }
    }
}

impl Watched {
    fn evaluate(&mut self, sample: &Sample<'_>, received_unix_nano: u64, decide: &mut dyn FnMut(Decision)) {
        for bound in &mut self.bound {
            let Watch::Metric { condition, for_ms, .. } = &bound.rule.watch else {
                continue;
            };
            let holds = !sample.is_stale() && condition.holds(sample.value);
            let (phase, change) = bound.phase.after(holds, sample.time_ms, *for_ms);
            (bound.phase, bound.value) = (phase, sample.value);
            if let Some(change) = change {
                decide(bound.decision(sample.series, change, sample.time_ms, received_unix_nano));
            }
        }
    }

    /// Ends what the chosen rules think; what fires resolves at the time of the newest sample.
    fn end(&mut self, chosen: impl Fn(&Rule) -> bool, now_seconds: u64, decide: &mut dyn FnMut(Decision)) {
        let (series, last_ms) = (self.series.clone(), self.last_ms);
        self.bound.retain(|bound| {
            if !chosen(&bound.rule) {
                return true;
            }
            if let (Phase::Firing { since_ms }, Some(series)) = (bound.phase, &series) {
                let received_unix_nano = now_seconds.saturating_mul(1_000_000_000);
                decide(bound.decision(series, Change::Resolves { since_ms }, last_ms, received_unix_nano));
            }
            false
        });
    }
}

impl Bound {
    fn decision(&self, series: &Series, change: Change, time_ms: i64, received_unix_nano: u64) -> Decision {
        let (state, since_ms) = match change {
            Change::Fires { since_ms } => (State::Firing, since_ms),
            Change::Resolves { since_ms } => (State::Resolved, since_ms),
        };
        let labels = series.labels().filter(|(name, _)| *name != "tenant");
        Decision {
            rule: Arc::clone(&self.rule),
            state,
            series: series.hash,
            labels: labels.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            resource_id: series.resource_id().to_owned(),
            value: self.value,
            line: String::new(),
            sample_unix_nano: nanos(time_ms),
            since_unix_nano: nanos(since_ms),
            received_unix_nano,
        }
    }
}

fn nanos(ms: i64) -> u64 {
    u64::try_from(ms).unwrap_or(0).saturating_mul(1_000_000)
}
