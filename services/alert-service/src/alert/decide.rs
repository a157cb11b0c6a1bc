//! What a transition means for the alert that is there.

use super::{Alert, Outcome, Place};
use crate::transition::{FIRING, RESOLVED, Says, Transition};

/// What is known of the transition that this one names as the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Predecessor {
    /// It was taken, or none is named.
    Known,
    /// It has not come, and may still.
    Missing,
    /// It has not come in all the time that we wait.
    GivenUp,
}

/// Whom a change is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tell {
    /// Nobody.
    Nobody,
    /// The receivers of the route, as far as they do not know that it fires.
    Route(Vec<String>),
    /// Those who know that it fires: that it is over.
    WhoKnows,
    /// Those whom this notification told last, that it is over: that it fires, after all.
    WhoHeard(String),
}

/// What is to be written because of a transition.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// What it did.
    pub outcome: Outcome,
    /// The alert as it is afterwards; `None` when it did not change.
    pub alert: Option<Alert>,
    /// Who is to be told.
    pub tell: Tell,
}

/// What a transition means for the alert that is there.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Write this.
    Change(Box<Change>),
    /// It must not be taken before the one that it names: a crash left that to be redelivered.
    Await,
}

/// Decides what `transition` does to `current`.
#[must_use]
pub fn decide(current: Option<&Alert>, transition: &Transition, predecessor: Predecessor) -> Verdict {
    if current.is_some_and(|alert| Place::of(transition).is_before(&alert.place)) {
        return change(Outcome::Overtaken, None, Tell::Nobody);
    }
    if predecessor == Predecessor::Missing {
        return Verdict::Await;
    }
    let on = current.filter(|alert| alert.is_on());
    match (transition.says, on) {
        (Says::Firing, None) => begin(current, transition),
        (Says::Firing, Some(alert)) => refresh(alert, transition),
        (Says::Resolved, Some(alert)) => end(alert, transition),
        (Says::Resolved, None) => end_unheard(current, transition),
    }
}

fn change(outcome: Outcome, alert: Option<Alert>, tell: Tell) -> Verdict {
    let alert = alert.map(|alert| Alert { revision: alert.revision + 1, ..alert });
    Verdict::Change(Box::new(Change { outcome, alert, tell }))
}

/// Whom a beginning is told: nobody where it came too late to be news.
fn tell(transition: &Transition) -> Tell {
    if transition.wire.late { Tell::Nobody } else { Tell::Route(transition.wire.receivers.clone()) }
}

fn begin(current: Option<&Alert>, transition: &Transition) -> Verdict {
    let (occurrences, revision) = current.map_or((0, 0), |alert| (alert.occurrences, alert.revision));
    let alert = Alert { occurrences: occurrences + 1, revision, ..Alert::described(transition) };
    let outcome = if occurrences == 0 { Outcome::Opened } else { Outcome::Reopened };
    change(outcome, Some(alert), tell(transition))
}

/// Who knows already is not told again: only receivers that the rule has gained, or all where it began too late to be
/// told and goes on.
fn refresh(alert: &Alert, transition: &Transition) -> Verdict {
    let fresh = Alert {
        // A state of a newer release, as acknowledged, outlives what the rule says again.
        state: alert.state.clone(),
        starts: alert.starts,
        occurrences: alert.occurrences,
        revision: alert.revision,
        late: alert.late && transition.wire.late,
        ..Alert::described(transition)
    };
    change(Outcome::Refreshed, Some(fresh), tell(transition))
}

/// What `transition` means, which was taken before: news only where the rule shows otherwise by now. What is on stays what
/// it is, and who knows of it hears nothing.
#[must_use]
pub fn present(alert: &Alert, transition: &Transition, now: u64) -> Option<Change> {
    let is_about_it = alert.is_on() && alert.place.transition_id == transition.wire.id;
    if !is_about_it || transition.wire.rule_version <= alert.rule_version {
        return None;
    }
    let alert = Alert { revision: alert.revision + 1, updated: now, ..shown(alert, transition) };
    Some(Change { outcome: Outcome::Refreshed, alert: Some(alert), tell: tell(transition) })
}

/// `alert` as the rule shows it in `transition`; what decided stays as it was.
fn shown(alert: &Alert, transition: &Transition) -> Alert {
    let mut transition = transition.clone();
    transition.wire.value = alert.value;
    let Alert { rule_version, rule_name, level, labels, descriptive, annotations, .. } = Alert::described(&transition);
    Alert { rule_version, rule_name, level, labels, descriptive, annotations, ..alert.clone() }
}

/// Told to those who heard the beginning, even if the rule has been given other receivers since, and however late; in the
/// words of today.
fn end(alert: &Alert, transition: &Transition) -> Verdict {
    let wire = &transition.wire;
    let is_edited = wire.rule_version > alert.rule_version;
    let alert = &if is_edited { shown(alert, transition) } else { alert.clone() };
    let reason = if wire.reason.is_empty() { RESOLVED } else { &wire.reason };
    let ended =
        Alert { value: wire.value, place: Place::of(transition), ..alert.ended(reason, "", wire.sample_unix_nano) };
    change(Outcome::Resolved, Some(ended), Tell::WhoKnows)
}

/// Remembers its place at least, so that a beginning that comes still later does not fire for ever.
fn end_unheard(current: Option<&Alert>, transition: &Transition) -> Verdict {
    let place = Place::of(transition);
    match current {
        Some(alert) if alert.occurrences > 0 => {
            change(Outcome::Over, Some(Alert { place, ..alert.clone() }), Tell::Nobody)
        }
        Some(alert) => change(Outcome::Unmatched, Some(Alert { place, ..alert.clone() }), Tell::Nobody),
        None => {
            let heard = Alert::described(transition).ended(RESOLVED, "", transition.wire.sample_unix_nano);
            change(Outcome::Unmatched, Some(heard), Tell::Nobody)
        }
    }
}

/// An alert that its shard does not confirm any more, at `now`.
#[must_use]
pub fn lose(alert: &Alert, now: u64) -> Change {
    let ended = Alert { revision: alert.revision + 1, ..alert.ended("lost", "", now) };
    Change { outcome: Outcome::Lost, alert: Some(ended), tell: Tell::WhoKnows }
}

/// An alert that was ended as lost, as the notification `loss` told, and that its shard says fires all the same.
#[must_use]
pub fn find_again(alert: &Alert, loss: String) -> Change {
    let found = Alert {
        state: FIRING.to_owned(),
        ended_reason: String::new(),
        ends: 0,
        occurrences: alert.occurrences + 1,
        revision: alert.revision + 1,
        ..alert.clone()
    };
    Change { outcome: Outcome::Reopened, alert: Some(found), tell: Tell::WhoHeard(loss) }
}

/// An alert that `who` ends by hand at `now`; nothing where it is over already.
#[must_use]
pub fn end_by_hand(alert: &Alert, who: &str, now: u64) -> Option<Change> {
    let ended = Alert { revision: alert.revision + 1, ..alert.ended("by_hand", who, now) };
    alert.is_on().then_some(Change { outcome: Outcome::ByHand, alert: Some(ended), tell: Tell::WhoKnows })
}
