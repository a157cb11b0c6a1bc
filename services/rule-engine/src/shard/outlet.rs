//! Publishes what was decided, in order, and not less than once.

use std::collections::HashSet;
use std::time::Duration;

use bus::{Bus, Outgoing, Subject};
use futures::{StreamExt as _, TryStreamExt as _};
use lifecycle::CancellationToken;
use prost::Message as _;

use super::{Control, Ended, Tools, unix_nano_now};
use crate::metrics::Metrics;
use crate::transition::Decision;

/// Transitions of one message that may be on their way to the broker together.
const IN_FLIGHT: usize = 64;
/// After that the broker is asked again, under the same id.
const WITHIN: Duration = Duration::from_secs(3);

/// The voice of one shard's owner.
pub(super) struct Outlet {
    shard: String,
    epoch: u64,
    bus: Bus,
    metrics: Metrics,
    release: CancellationToken,
}

impl Outlet {
    pub(super) fn new(number: u16, epoch: i64, tools: &Tools, control: &Control) -> Self {
        Self {
            shard: format!("{number:02}"),
            epoch: u64::try_from(epoch).unwrap_or(0),
            bus: tools.bus.clone(),
            metrics: tools.metrics.clone(),
            release: control.release.clone(),
        }
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
        let message = decision.message(&self.shard, self.epoch, unix_nano_now());
        let outgoing = Outgoing::new(message.id.clone(), message.encode_to_vec()).within(WITHIN);
        while let Err(error) = self.bus.publish(Subject::Transitions, outgoing.clone()).await {
            tracing::warn!(shard = self.shard, transition = message.id, %error, "cannot publish a transition; trying again");
            if self.release.is_cancelled() {
                return Err(Ended::Unsaved);
            }
        }
        self.metrics.published(decision.state);
        tracing::info!(
            transition = message.id,
            rule = message.rule_id,
            tenant = message.tenant,
            series = message.series,
            state = message.state,
            value = message.value,
            "transition"
        );
        Ok(())
    }
}

/// Cuts decisions where one is about a rule and series that the same run has already: these must arrive one by one.
fn independent_runs(decisions: &[Decision]) -> Vec<&[Decision]> {
    let mut seen = HashSet::new();
    let mut runs = Vec::new();
    let mut start = 0;
    for (index, decision) in decisions.iter().enumerate() {
        let subject = (decision.rule.id, decision.series);
        if !seen.insert(subject) {
            runs.push(&decisions[start..index]);
            start = index;
            seen = HashSet::from([subject]);
        }
    }
    runs.push(&decisions[start..]);
    runs
}
