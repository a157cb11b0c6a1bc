//! What each shard says from time to time about everything that fires in it. A lost word that an alert is over, or that it
//! was lost wrongly, is put right by it: an alert that two complete rounds do not name is ended, one that was ended so and
//! is named fires again. What began unheard is told again by the shard itself, and taken as any transition.
//!
//! A shard that says nothing ends nothing.

use ::store::Pools;
use prost::Message as _;
use proto::alerts::Levels as Wire;

use crate::alert::{Alert, alert_id, find_again, lose};
use crate::changes::{Cause, Changes, notification_id};
use crate::fence::Fence;
use crate::store::rounds::{self, Part};
use crate::store::{fences, timers};

/// The timer by which what is unconfirmed is ended.
pub const UNCONFIRMED: &str = "unconfirmed";

/// Alerts ended in one transaction.
const AT_ONCE: i64 = 256;

/// The most parts of a round.
const MOST_PARTS: u32 = 100_000;

/// A part of a round: what fires, as ids of alerts.
#[derive(Debug, Clone, PartialEq)]
pub struct Levels {
    wire: Wire,
    named: Vec<String>,
    sequence: u64,
}

/// What became of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Heard {
    /// It came from an owner that was replaced, and says nothing any more.
    pub is_outdated: bool,
    /// Its round is complete: there may be something to be ended.
    pub is_complete: bool,
    /// Alerts that were ended so, and fire all the same.
    pub found: u64,
}

impl Levels {
    /// Reads a message's payload, which stood at `sequence` of the stream.
    ///
    /// # Errors
    /// What is wrong with it; trying again cannot help.
    pub fn decode(payload: &[u8], sequence: u64) -> Result<Self, String> {
        let wire = Wire::decode(payload).map_err(|error| format!("not a part of a round: {error}"))?;
        if wire.shard.is_empty() || wire.shard.contains('\0') {
            return Err("the shard is missing".to_owned());
        }
        if wire.part >= wire.parts || wire.parts > MOST_PARTS {
            return Err(format!("part {} of {} cannot be", wire.part, wire.parts));
        }
        if [wire.epoch, wire.order, wire.round].iter().any(|number| i64::try_from(*number).is_err()) {
            return Err("a number is out of range".to_owned());
        }
        let named = wire.firing.iter().flat_map(|level| {
            let series = level.series.iter();
            series.map(|series| alert_id(&level.tenant, &level.rule_id, &format!("{series:016x}")))
        });
        let named = named.collect();
        Ok(Self { wire, named, sequence })
    }
}

/// Takes a part in. Parts may come in any order, twice, and to any replica.
///
/// # Errors
/// Postgres.
pub async fn take(pools: &Pools, levels: &Levels) -> sqlx::Result<Heard> {
    let mut heard = pools.bounded(hear(pools, levels)).await?;
    // What is found again comes in portions, and the part is heard once more with each.
    for _ in 0..levels.named.len() as u64 / AT_ONCE.unsigned_abs() {
        let more = pools.bounded(hear(pools, levels)).await?;
        if more.found == 0 {
            break;
        }
        heard.found += more.found;
    }
    Ok(heard)
}

async fn hear(pools: &Pools, levels: &Levels) -> sqlx::Result<Heard> {
    let wire = &levels.wire;
    let mut transaction = pools.work.begin().await?;
    let mut fences = fences::lock(&mut transaction, std::slice::from_ref(&wire.shard)).await?;
    let fence = fences.get(&wire.shard).copied();
    if fence.is_some_and(|fence| wire.epoch < fence.epoch) {
        return Ok(Heard { is_outdated: true, ..Heard::default() });
    }
    if let Some(raised) = Fence::raised(fence, wire.epoch, levels.sequence) {
        fences.insert(wire.shard.clone(), raised);
        fences::raise(&mut transaction, &fences).await?;
    }
    let part = Part {
        shard: &wire.shard,
        epoch: wire.epoch,
        round: wire.round,
        order: wire.order,
        part: wire.part,
        parts: wire.parts,
    };
    let is_complete = rounds::hear(&mut transaction, &part, &levels.named).await?;
    if is_complete {
        timers::set(&mut transaction, UNCONFIRMED, &wire.shard).await?;
    }
    let found = rounds::lost(&mut transaction, &levels.named, wire.order, AT_ONCE).await?;
    let mut heard = Heard { is_complete, ..Heard::default() };
    if !found.is_empty() {
        let mut changes = Changes::begin(&mut transaction, &found).await?;
        let cause = format!("found/{}/{}", wire.epoch, wire.round);
        for id in &found {
            if let Some(alert) = changes.alert(id).filter(|alert| alert.ended_reason == "lost") {
                let change = find_again(alert, notification_id(alert, &loss(alert)));
                changes.apply(change, Cause { id: &cause, received: 0, traceparent: None });
                heard.found += 1;
            }
        }
        changes.write(&mut transaction).await?;
    }
    transaction.commit().await?;
    Ok(heard)
}

/// Ends a portion of what the last two complete rounds of `shard` do not name, and the timer when that was all; gives how
/// many.
///
/// # Errors
/// Postgres.
pub async fn end_unconfirmed(pools: &Pools, shard: &str) -> sqlx::Result<u64> {
    let mut transaction = pools.work.begin().await?;
    // What the shard decides meanwhile waits, so that none of it is taken for lost.
    let fences = fences::lock(&mut transaction, &[shard.to_owned()]).await?;
    let epoch = fences.get(shard).map_or(0, |fence| fence.epoch);
    let unconfirmed = rounds::unconfirmed(&mut transaction, shard, epoch, AT_ONCE).await?;
    if unconfirmed.is_empty() {
        rounds::forget(&mut transaction, shard, epoch).await?;
        timers::done(&mut transaction, UNCONFIRMED, shard).await?;
        transaction.commit().await?;
        return Ok(0);
    }
    let mut changes = Changes::begin(&mut transaction, &unconfirmed).await?;
    let now = changes.now();
    let mut lost = 0;
    let mut over: Vec<&str> = Vec::new();
    for id in &unconfirmed {
        if let Some(alert) = changes.alert(id).filter(|alert| alert.is_on()) {
            let cause = loss(alert);
            let change = lose(alert, now);
            changes.apply(change, Cause { id: &cause, received: 0, traceparent: None });
            lost += 1;
        } else {
            over.push(id);
        }
    }
    changes.write(&mut transaction).await?;
    rounds::leave(&mut transaction, &over).await?;
    transaction.commit().await?;
    Ok(lost)
}

/// The cause of a loss. What was found again may be lost again, by the same transition.
fn loss(alert: &Alert) -> String {
    format!("lost/{}/{}", alert.place.transition_id, alert.occurrences)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_names_alerts_by_rule_and_series() {
        let firing = vec![proto::alerts::Level {
            tenant: "t".into(),
            rule_id: "r".into(),
            series: vec![255],
            transitions: vec![vec![0; 16]],
        }];
        let wire = Wire { shard: "00/logs".into(), parts: 1, firing, ..Wire::default() };
        let levels = Levels::decode(&wire.encode_to_vec(), 7).unwrap();
        assert_eq!(levels.named, [alert_id("t", "r", "00000000000000ff")]);
    }

    #[test]
    fn what_cannot_be_a_part_of_a_round_is_refused() {
        let part = |part, parts| Wire { shard: "00/logs".into(), part, parts, ..Wire::default() }.encode_to_vec();
        assert!(Levels::decode(&part(0, 1), 1).is_ok());
        assert!(Levels::decode(&part(1, 1), 1).is_err());
        assert!(Levels::decode(&part(0, 0), 1).is_err());
        assert!(Levels::decode(&part(0, MOST_PARTS + 1), 1).is_err());
        assert!(Levels::decode(&Wire { parts: 1, ..Wire::default() }.encode_to_vec(), 1).is_err());
    }
}
