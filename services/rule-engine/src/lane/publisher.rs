//! Publishes what was decided, in order, and not less than once.

use std::collections::HashSet;
use std::time::Duration;

use bus::{Bus, Outgoing, PublishError, Stream, Subject};
use futures::future::try_join_all;
use futures::{StreamExt as _, TryStreamExt as _};
use lifecycle::CancellationToken;
use prost::Message as _;
use proto::alerts::Levels;

use super::{Ended, unix_nano_now};
use crate::metrics::Metrics;
use crate::shard::{Progress, Tools};
use crate::store::LaneId;
use crate::transition::Decision;

/// Transitions of one message that may be on their way to the broker together.
const IN_FLIGHT: usize = 64;
/// After that the broker is asked again, under the same id.
const WITHIN: Duration = Duration::from_secs(3);

/// The voice of one lane's owner.
pub(super) struct Publisher {
    lane: String,
    epoch: u64,
    bus: Bus,
    metrics: Metrics,
    progress: Progress,
    release: CancellationToken,
}

impl Publisher {
    pub(super) fn new(
        lane: LaneId,
        epoch: i64,
        tools: &Tools,
        progress: &Progress,
        release: &CancellationToken,
    ) -> Self {
        Self {
            lane: lane.to_string(),
            epoch: u64::try_from(epoch).unwrap_or(0),
            bus: tools.bus.clone(),
            metrics: tools.metrics.clone(),
            progress: progress.clone(),
            release: release.clone(),
        }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn lane(&self) -> &str {
        &self.lane
    }

    /// Returns when the broker has acknowledged all.
    pub(super) async fn publish(&self, decisions: &[Decision]) -> Result<(), Ended> {
        for run in independent_runs(decisions) {
            let publishing: Vec<_> = run.iter().map(|decision| self.publish_one(decision)).collect();
            futures::stream::iter(publishing).buffered(IN_FLIGHT).try_collect::<()>().await?;
        }
        Ok(())
    }

    async fn publish_one(&self, decision: &Decision) -> Result<(), Ended> {
        let message = decision.message(&self.lane, self.epoch, unix_nano_now());
        // An owner's own id for it: what one before says behind us is fenced off, and must not keep ours out as a repeat.
        let mut id = format!("{}-{}", message.id, self.epoch);
        if decision.again {
            // Said within the broker's two minutes already, but not as the rule shows now.
            id = format!("{id}-v{}", message.rule_version);
        }
        let outgoing = Outgoing::new(id, message.encode_to_vec()).within(WITHIN);
        if !self.send(Subject::Transitions, outgoing).await? {
            self.metrics.refused_transitions.inc();
            return Ok(());
        }
        if decision.again {
            return Ok(());
        }
        self.metrics.transitions.of([decision.state.as_str()]).inc();
        if decision.facts.late {
            self.metrics.late_transitions.inc();
        }
        tracing::info!(
            transition = message.id,
            rule = message.rule_id,
            tenant = message.tenant,
            series = message.series,
            state = message.state,
            value = message.value,
            late = message.late,
            "transition"
        );
        Ok(())
    }

    /// Says again what fires. The broker forgets ids after two minutes, and within them a repetition would be no news to
    /// anybody, so it gets an id of its own.
    pub(super) async fn repeat(&self, decisions: &[Decision], round: u64) -> Result<(), Ended> {
        let again = decisions.iter().map(|decision| {
            let message = decision.message(&self.lane, self.epoch, unix_nano_now());
            let outgoing = Outgoing::new(format!("{}-{}-{round}", message.id, self.epoch), message.encode_to_vec());
            self.send(Subject::Transitions, outgoing.within(WITHIN))
        });
        // No two of them are about the same, so they need no order.
        try_join_all(again).await.map(drop)
    }

    pub(super) async fn levels(&self, levels: &Levels) -> Result<(), Ended> {
        let id = format!("levels-{}-{}-{}-{}", self.lane, self.epoch, levels.round, levels.part);
        self.send(Subject::Levels, Outgoing::new(id, levels.encode_to_vec()).within(WITHIN)).await.map(|_| ())
    }

    /// Whether the broker has it; it is sent until it has, or refuses it for ever.
    async fn send(&self, subject: Subject, outgoing: Outgoing) -> Result<bool, Ended> {
        loop {
            match self.bus.publish(subject, outgoing.clone()).await {
                Ok(()) => {
                    self.progress.alive();
                    return Ok(true);
                }
                Err(PublishError::Refused(reason)) => {
                    tracing::error!(
                        lane = self.lane,
                        id = outgoing.id,
                        reason,
                        "the broker will never take this message"
                    );
                    return Ok(false);
                }
                Err(error) => {
                    tracing::warn!(lane = self.lane, id = outgoing.id, %error, "cannot publish; trying again");
                    if self.release.is_cancelled() {
                        return Err(Ended::Unsaved);
                    }
                    self.ask_for_life(Stream::Transitions).await;
                }
            }
        }
    }

    /// A broker that answers but takes nothing (nobody handles what is there) would take no more from another replica.
    pub(super) async fn ask_for_life(&self, stream: Stream) {
        let asked = tokio::time::timeout(WITHIN, self.bus.progress(stream)).await;
        if matches!(asked, Ok(Ok(_))) {
            self.progress.alive();
        }
    }
}

/// Cuts decisions where one is about a rule and subject that the same run has already: these must arrive one by one.
fn independent_runs(decisions: &[Decision]) -> Vec<&[Decision]> {
    let mut seen = HashSet::new();
    let mut runs = Vec::new();
    let mut start = 0;
    for (index, decision) in decisions.iter().enumerate() {
        let subject = (decision.rule.id, decision.subject);
        if !seen.insert(subject) {
            runs.push(&decisions[start..index]);
            start = index;
            seen = HashSet::from([subject]);
        }
    }
    runs.push(&decisions[start..]);
    runs
}
