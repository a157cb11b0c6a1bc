//! The owner's work on one lane: read, evaluate, publish, save.
//!
//! A message is behind us when the broker has acknowledged what followed from it. Everything that takes time (evaluating,
//! packing a snapshot) leaves the async threads; snapshots are written beside the evaluation, which goes on.

mod evaluate;
mod publisher;
mod rounds;
mod save;
mod showing;
mod start;
mod waiting;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use bus::{Delivery, Follow};
use lifecycle::CancellationToken;
use tracing::Instrument as _;
use uuid::Uuid;

use crate::evaluation::{Binding, Evaluation};
use crate::rule_set::RuleSet;
use crate::shard::{Progress, Tools};
use crate::signal::Signal;
use crate::store::{Attempt, Fenced, LaneId, Position, Report};
use crate::transition::Decision;

use publisher::Publisher;
use rounds::Rounds;
use save::Saver;
use showing::Showing;
use waiting::Waiting;

/// A stream that has been silent for so long gets a tick.
const SILENCE: Duration = Duration::from_secs(1);
/// The least time, or the fewest messages, between two changes of rules: edits in a row do not stall the evaluation.
const BETWEEN_SWITCHES: Duration = Duration::from_millis(250);
const MESSAGES_BETWEEN_SWITCHES: u32 = 64;
/// Rules that changed while nobody owned the lane wait for the backlog to be read, but not for longer than that.
const LONGEST_CATCH_UP: Duration = Duration::from_secs(30);
/// How often it is said what rules are about.
const REPORT_EVERY: Duration = Duration::from_secs(5);
/// While so many decisions wait to be said, or some do for so long that nothing was saved meanwhile, nothing more is read.
const MOST_WAITING: usize = 500_000;
const LONGEST_UNSAVED: Duration = Duration::from_secs(120);
const RETRY: Duration = Duration::from_millis(200);

/// Why an owner ended without a last snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// A newer owner has claimed it.
    #[error("a newer owner has it")]
    Fenced,
    /// The broker or Postgres was away when it was to be released; the next owner starts from the snapshot before.
    #[error("the broker or Postgres was away when it was to be released")]
    Unsaved,
    /// A message could not be evaluated; the next owner tries it again, or sets it aside.
    #[error("the evaluation of a message panicked")]
    Panicked,
}

impl From<Fenced> for Ended {
    fn from(_: Fenced) -> Self {
        Self::Fenced
    }
}

/// One signal stream of a shard, and what its owner knows.
struct Lane {
    id: LaneId,
    epoch: i64,
    tools: Tools,
    progress: Progress,
    release: CancellationToken,
    /// Shared with the thread that evaluates; never locked for long by anybody else.
    evaluation: Arc<Mutex<Evaluation>>,
    follow: Follow,
    position: Position,
    /// The stream's last sequence when the lane was taken over.
    backlog_end: u64,
    /// Until then the rules of the snapshot's revision stay in use while the backlog is read.
    catch_up_ends: Instant,
    /// Changes of rules that the former owner noted: a sequence, and the revision behind it.
    noted: VecDeque<(u64, i64)>,
    /// Messages that owners have failed at.
    set_aside: HashSet<Attempt>,
    /// Nobody has saved anything yet.
    is_first: bool,
    /// Owners before have ended from this snapshot on: what is touched is noted first.
    is_careful: bool,
    publisher: Arc<Publisher>,
    waiting: Waiting,
    saver: Saver,
    rounds: Rounds,
    showing: Showing,
    heard: Instant,
    switched: (Instant, u32),
    next_report: Instant,
    reported: HashMap<Uuid, Binding>,
    /// Rules that were taken up, and when; until they have been in use for long enough.
    settling: VecDeque<(Instant, i64)>,
    /// Until then what former owners reported stands where it is more than what this one has heard of.
    inherits_until: Option<Instant>,
    /// When it was last said that there is no room.
    complained: Option<Instant>,
}

/// Owns a lane until told otherwise.
pub async fn run(
    id: LaneId,
    epoch: i64,
    tools: Tools,
    progress: Progress,
    release: CancellationToken,
) -> Result<(), Ended> {
    let started = tokio::select! {
        started = start::start(id, epoch, &tools, &progress) => started?,
        // Nothing was evaluated, so there is nothing to save.
        () = release.cancelled() => return Ok(()),
    };
    Lane::new(id, epoch, tools, progress, release, started).run().await
}

impl Lane {
    fn new(
        id: LaneId,
        epoch: i64,
        tools: Tools,
        progress: Progress,
        release: CancellationToken,
        started: start::Started,
    ) -> Self {
        let position = started.position;
        let revision = started.evaluation.rules().revision;
        tracing::info!(lane = %id, epoch, sequence = position.sequence, revision, "lane taken over");
        Self {
            publisher: Arc::new(Publisher::new(id, epoch, &tools, &progress, &release)),
            waiting: Waiting::default(),
            saver: Saver::new(id, epoch, started.generations),
            rounds: Rounds::new(tools.settings.digest_interval),
            showing: Showing::default(),
            evaluation: Arc::new(Mutex::new(started.evaluation)),
            follow: started.follow,
            backlog_end: started.backlog_end,
            noted: started.noted,
            set_aside: started.set_aside,
            is_first: started.is_first,
            is_careful: started.is_careful,
            catch_up_ends: Instant::now() + LONGEST_CATCH_UP,
            heard: Instant::now(),
            switched: (Instant::now(), MESSAGES_BETWEEN_SWITCHES),
            next_report: Instant::now(),
            reported: HashMap::new(),
            settling: VecDeque::from([(Instant::now(), revision)]),
            inherits_until: (id.signal == Signal::Logs).then(|| Instant::now() + tools.settings.idle),
            complained: None,
            id,
            epoch,
            tools,
            progress,
            release,
            position,
        }
    }

    async fn run(&mut self) -> Result<(), Ended> {
        // Whoever comes next must know the place where the first owner ever began.
        while self.is_first {
            self.begin_save();
            let saved = self.saver.ended().await;
            if self.saved(saved)? {
                self.is_first = false;
            } else {
                self.pause().await?;
            }
        }
        loop {
            self.rules().await?;
            let (save_at, is_saving) = (self.saver.next(), !self.saver.is_idle());
            let (switch_at, has_other_rules) = (self.may_switch_at(), self.has_other_rules());
            let (round_at, silent_at) = (self.rounds.next(), self.heard + SILENCE);
            // A snapshot must not claim more than was said, and a round must not miss what is still to be said.
            let is_said = self.waiting.is_idle();
            let repeats = self.rounds.is_waiting() || (is_said && !self.showing.is_idle());
            let may_read = is_said || self.may_read_on();
            tokio::select! {
                biased;
                () = self.release.cancelled() => return self.leave().await,
                saved = self.saver.ended() => {
                    self.saved(saved)?;
                }
                said = self.waiting.said() => said?,
                () = until(save_at), if !is_saving && is_said => self.begin_save(),
                () = until(round_at), if is_said => self.round().await?,
                () = until(self.next_report) => self.report().await,
                delivery = self.follow.next(), if may_read => self.deliver(delivery).await?,
                // Changed rules are taken up at the top.
                Ok(()) = self.tools.sets.changed() => {}
                () = until(switch_at), if has_other_rules => {}
                () = until(silent_at), if may_read => self.tick().await,
                () = std::future::ready(()), if repeats => {}
            }
            self.waiting.begin(&self.publisher);
            self.repeat_some().await?;
            self.show_some().await?;
        }
    }

    fn may_read_on(&self) -> bool {
        self.waiting.count() < MOST_WAITING && Instant::now() < self.saver.next() + LONGEST_UNSAVED
    }

    /// Returns when the broker has what was decided, but for what is too much to be waited for.
    async fn say(&mut self, decisions: Vec<Decision>) -> Result<(), Ended> {
        let at_once = self.waiting.sort(decisions);
        self.publisher.publish(&at_once).await
    }

    fn with<T>(&self, act: impl FnOnce(&mut Evaluation) -> T) -> T {
        act(&mut self.evaluation.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Works with the evaluation on a thread that may take its time.
    async fn off<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Evaluation) -> T + Send + 'static,
    ) -> Result<T, tokio::task::JoinError> {
        let evaluation = Arc::clone(&self.evaluation);
        let span = tracing::Span::current();
        tokio::task::spawn_blocking(move || {
            span.in_scope(|| act(&mut evaluation.lock().unwrap_or_else(PoisonError::into_inner)))
        })
        .await
    }

    /// One message. When this returns, the broker has what was decided, or it waits to be said.
    async fn deliver(&mut self, delivery: Delivery) -> Result<(), Ended> {
        let span = tracing::info_span!("evaluate", lane = %self.id);
        if let Some(traceparent) = delivery.traceparent() {
            telemetry::context::adopt(&span, traceparent);
        }
        self.heard = Instant::now();
        self.switched.1 = self.switched.1.saturating_add(1);
        async {
            if delivery.missed() > 0 {
                tracing::error!(
                    lane = %self.id,
                    missed = delivery.missed(),
                    "the stream dropped messages before they were evaluated"
                );
                self.tools.metrics.missed_messages.of([self.id.signal.as_str()]).inc_by(delivery.missed());
            }
            let position = Position { sequence: delivery.stream_sequence(), published_unix_nano: delivery.published() };
            let decisions = self.evaluate(delivery).await?;
            self.say(decisions).await?;
            self.position = position;
            Ok(())
        }
        .instrument(span)
        .await
    }

    /// Puts a time into a stream that is silent. It is evaluated when it comes back, like everything else.
    async fn tick(&mut self) {
        self.heard = Instant::now();
        if let Err(error) = self.tools.bus.tick(self.id.signal.subject(self.id.number), unix_nano_now()).await {
            tracing::debug!(lane = %self.id, %error, "cannot publish a tick; trying again");
            // A stream that is full is so for every owner.
            self.publisher.ask_for_life(self.id.signal.stream(self.id.number)).await;
        }
    }

    fn is_caught_up(&self) -> bool {
        self.position.sequence >= self.backlog_end || Instant::now() >= self.catch_up_ends
    }

    fn has_other_rules(&self) -> bool {
        self.noted.is_empty()
            && self.is_caught_up()
            // A replica that has not heard of the newest rules yet may own a lane that has taken them up already.
            && self.tools.sets.borrow().revision > self.with(|evaluation| evaluation.rules().revision)
    }

    fn may_switch_at(&self) -> Instant {
        let (at, messages) = self.switched;
        if messages >= MESSAGES_BETWEEN_SWITCHES { at } else { at + BETWEEN_SWITCHES }
    }

    /// Takes up other rules where it is time: first those that a former owner took up at this place, then the newest.
    async fn rules(&mut self) -> Result<(), Ended> {
        while let Some((sequence, revision)) = self.noted.front().copied() {
            // Where the broker lost the stream's end, numbers begin anew: what was noted is not waited for beyond the backlog.
            if sequence > self.position.sequence && self.position.sequence < self.backlog_end {
                return Ok(());
            }
            let current = self.with(|evaluation| Arc::clone(evaluation.rules()));
            match crate::reload::load(&self.tools.store, revision, &current).await {
                Ok(rules) => {
                    self.noted.pop_front();
                    self.switch(rules).await?;
                }
                Err(error) => {
                    tracing::warn!(lane = %self.id, error = format!("{error:#}"), "cannot load noted rules; trying again");
                    self.pause().await?;
                }
            }
        }
        if self.has_other_rules() && Instant::now() >= self.may_switch_at() {
            let rules = Arc::clone(&self.tools.sets.borrow_and_update());
            self.note_switch(rules.revision).await?;
            self.switch(rules).await?;
        }
        Ok(())
    }

    /// From here on others evaluate with these rules, too.
    async fn note_switch(&self, revision: i64) -> Result<(), Ended> {
        loop {
            let store = &self.tools.store;
            match store.note_switch(self.id, self.epoch, self.position.sequence, revision).await {
                Ok(noted) => return Ok(noted?),
                Err(error) => {
                    tracing::warn!(lane = %self.id, %error, "cannot note the change of rules; trying again");
                    self.pause().await?;
                }
            }
        }
    }

    async fn switch(&mut self, rules: Arc<RuleSet>) -> Result<(), Ended> {
        self.settling.push_back((Instant::now(), rules.revision));
        let switched = self.off(move |evaluation| {
            let mut decisions: Vec<Decision> = Vec::new();
            let shown = evaluation.switch(rules, &mut decisions);
            (decisions, shown)
        });
        let (decisions, shown) = switched.await.map_err(|_| Ended::Panicked)?;
        self.switched = (Instant::now(), 0);
        self.next_report = self.next_report.min(Instant::now() + RETRY);
        self.progress.alive();
        self.showing.begin(shown);
        self.say(decisions).await
    }

    /// Before something is tried again; not longer than the lane is to be kept.
    async fn pause(&self) -> Result<(), Ended> {
        tokio::select! {
            () = self.release.cancelled() => Err(Ended::Unsaved),
            () = tokio::time::sleep(RETRY) => Ok(()),
        }
    }

    /// Says how many subjects each rule is about, where that changed.
    async fn report(&mut self) {
        if self.inherits_until.is_some_and(|until| Instant::now() >= until)
            && self.tools.store.forget_bindings(self.id, self.epoch).await.is_ok()
        {
            self.inherits_until = None;
            self.reported.clear();
        }
        let counting = self.off(|evaluation| (evaluation.rules().revision, evaluation.bindings())).await;
        let Ok((revision, bindings)) = counting else { return };
        let mut now: HashMap<Uuid, Binding> = bindings.into_iter().map(|binding| (binding.rule, binding)).collect();
        for (rule, before) in &self.reported {
            now.entry(*rule).or_insert(Binding { subjects: 0, over_capacity: 0, ..*before });
        }
        let changed: Vec<Binding> =
            now.values().filter(|binding| self.reported.get(&binding.rule) != Some(binding)).copied().collect();
        self.next_report = Instant::now() + REPORT_EVERY;
        let long_ago = |(at, _): &(Instant, i64)| at.elapsed() >= self.tools.settings.settle;
        let count = self.settling.partition_point(long_ago);
        let settled = self.settling.range(..count).last().map_or(0, |(_, revision)| *revision);
        let report = Report { revision, settled, keeps_more: self.inherits_until.is_some() };
        match self.tools.store.report(self.id, self.epoch, report, &changed).await {
            Ok(()) => {
                self.settling.drain(..count);
                now.retain(|_, binding| binding.subjects > 0 || binding.over_capacity > 0);
                self.reported = now;
            }
            Err(error) => tracing::debug!(lane = %self.id, %error, "cannot report what rules are about"),
        }
    }
}

async fn until(moment: Instant) {
    tokio::time::sleep_until(moment.into()).await;
}

fn unix_nano_now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.ok().and_then(|now| u64::try_from(now.as_nanos()).ok()).unwrap_or(0)
}
