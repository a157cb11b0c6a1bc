//! One message, on a thread that may take its time, and what becomes of one that does not end well.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use bus::{Delivery, Envelope, Schema};

use super::{Ended, Lane, unix_nano_now};
use crate::evaluation::{Evaluation, Tally};
use crate::signal::Signal;
use crate::store::Attempt;
use crate::transition::Decision;

/// What evaluating a message came to.
struct Evaluated {
    decisions: Vec<Decision>,
    outcome: anyhow::Result<(Tally, u64, String)>,
}

impl Lane {
    /// Evaluates one message, unless owners have failed at it before.
    pub(super) async fn evaluate(&mut self, delivery: Delivery) -> Result<Vec<Decision>, Ended> {
        let message = Attempt { sequence: delivery.stream_sequence(), published_unix_nano: delivery.published() };
        if delivery.tick().is_some() {
            // By the broker's clock: an owner's own may be ahead, and every hold of a silent lane would end early by it.
            let now = delivery.published();
            let mut decisions = Vec::new();
            self.with(|evaluation| evaluation.pass_time(now, &mut decisions));
            self.progress.alive();
            return Ok(decisions);
        }
        // What had to wait for its writer was evaluated where it was first, or could not be.
        if delivery.has_waited() {
            self.progress.alive();
            return Ok(Vec::new());
        }
        let signal = self.id.signal;
        if self.set_aside.contains(&message) {
            tracing::error!(lane = %self.id, sequence = message.sequence, "message set aside: evaluating it has ended two owners");
            self.tools.metrics.set_aside_messages.of([signal.as_str()]).inc();
            self.progress.alive();
            return Ok(Vec::new());
        }
        if self.is_careful {
            self.note(message, "its owner ended").await?;
        }
        self.progress.begin(message, self.is_careful);
        let (witness, skew) = (self.tools.witness, self.tools.settings.clock_skew);
        let evaluating = self.off(move |evaluation| evaluate(evaluation, signal, &delivery, skew, witness)).await;
        let Ok(Evaluated { decisions, outcome }) = evaluating else {
            return Err(self.failed(message).await);
        };
        if self.progress.end().is_some_and(|hand| hand.is_noted) {
            self.ended_well(message).await;
        }
        match outcome {
            Ok((tally, received, tenant)) => {
                let lag = Duration::from_nanos(unix_nano_now().saturating_sub(received));
                self.tools.metrics.evaluated(signal, tally, lag.as_secs_f64());
                self.complain(&tenant, tally);
            }
            // The stream's writer keeps it as a dead letter.
            Err(error) => {
                self.tools.metrics.unreadable_messages.of([signal.as_str()]).inc();
                let (lane, sequence) = (self.id, message.sequence);
                tracing::warn!(%lane, sequence, error = format!("{error:#}"), "message passed over");
            }
        }
        Ok(decisions)
    }

    fn complain(&mut self, tenant: &str, tally: Tally) {
        let is_short = tally.over_capacity > 0 || tally.over_work > 0;
        if !is_short || self.complained.is_some_and(|at| at.elapsed() <= Duration::from_secs(60)) {
            return;
        }
        self.complained = Some(Instant::now());
        if tally.over_work > 0 {
            tracing::error!(
                lane = %self.id,
                tenant,
                left_out = tally.over_work,
                "a tenant's rules cost too much on its telemetry: raise SIGHTLINE_RULE_TENANT_WORK, or SIGHTLINE_RULE_TENANT_DECISIONS where they decide so often, or let rules ask for a label by `=`"
            );
        }
        if tally.over_capacity > 0 {
            let bytes = self.with(|evaluation| evaluation.bytes());
            tracing::error!(
                lane = %self.id,
                tenant,
                bytes,
                "no room for all that rules are about: raise SIGHTLINE_RULE_STATE_BYTES or SIGHTLINE_RULE_TENANT_STATE_BYTES, or write narrower rules"
            );
        }
    }

    /// The evaluation panicked, and its state is worth nothing any more.
    async fn failed(&self, message: Attempt) -> Ended {
        self.tools.metrics.failed_evaluations.of(["panicked"]).inc();
        tracing::error!(lane = %self.id, sequence = message.sequence, "the evaluation of a message panicked");
        match self.note(message, "panicked").await {
            Ok(()) => Ended::Panicked,
            Err(ended) => ended,
        }
    }

    async fn note(&self, message: Attempt, reason: &str) -> Result<(), Ended> {
        while let Err(error) = self.tools.store.note_attempt(self.id, self.epoch, message, reason).await {
            tracing::warn!(lane = %self.id, %error, "cannot note an attempt; trying again");
            self.pause().await?;
        }
        Ok(())
    }

    async fn ended_well(&self, message: Attempt) {
        if let Err(error) = self.tools.store.attempt_ended_well(self.id, self.epoch, message).await {
            tracing::warn!(lane = %self.id, sequence = message.sequence, %error, "cannot take back an attempt");
        }
    }
}

fn evaluate(
    evaluation: &mut Evaluation,
    signal: Signal,
    delivery: &Delivery,
    skew: Duration,
    witness: fn(&Envelope),
) -> Evaluated {
    let mut decisions = Vec::new();
    let outcome = Envelope::decode(delivery).context("read the envelope").and_then(|envelope| {
        witness(&envelope);
        let expected: Schema = signal.schema();
        if envelope.schema != expected {
            anyhow::bail!("the schema `{}` does not belong here", envelope.schema.as_str());
        }
        let received = believed(envelope.received_unix_nano, delivery.published(), skew);
        let (tenant, body, items) = (&envelope.tenant, &envelope.body, envelope.items);
        let tally = evaluation.message(tenant, body, items, received, &mut decisions).context("evaluate")?;
        Ok((tally, received, envelope.tenant))
    });
    Evaluated { decisions, outcome }
}

/// When a gateway says that it received something, held against the broker's clock: one wrong gateway must not move the time
/// of a whole lane. Both stay in the stream, so a replay sees the same.
fn believed(received: u64, published: u64, skew: Duration) -> u64 {
    let skew = u64::try_from(skew.as_nanos()).unwrap_or(u64::MAX);
    if received > published.saturating_add(skew) { published } else { received }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_of_tomorrow_does_not_move_the_time() {
        let skew = Duration::from_nanos(10);
        assert_eq!([believed(5, 100, skew), believed(110, 100, skew), believed(111, 100, skew)], [5, 110, 100]);
    }
}
