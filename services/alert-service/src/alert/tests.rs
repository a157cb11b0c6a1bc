//! Transitions in every order that a broker and a crash can make of them.

use super::*;

fn transition(state: State, sample: u64) -> Transition {
    Transition {
        state,
        wire: proto::alerts::Transition {
            id: format!("{}-{sample}", state.as_str()),
            tenant: "default".into(),
            rule_id: "rule".into(),
            rule_version: 1,
            series: "00ff".into(),
            state: state.as_str().into(),
            value: 97.0,
            sample_unix_nano: sample,
            series_labels: [("host_name".to_owned(), "a".to_owned()), ("team".to_owned(), "x".to_owned())].into(),
            rule_name: "cpu high".into(),
            level: "critical".into(),
            rule_labels: [("team".to_owned(), "ops".to_owned())].into(),
            annotations: [("summary".to_owned(), "{{ $labels.team }}: {{ $value }}".to_owned())].into(),
            receivers: vec!["pager".into(), "ops".into(), "ops".into()],
            shard: "metrics.00".into(),
            ..proto::alerts::Transition::default()
        },
    }
}

fn taken(current: Option<&Alert>, transition: &Transition) -> Change {
    match decide(current, transition, true) {
        Verdict::Change(change) => *change,
        Verdict::AwaitPredecessor => panic!("{transition:?} waits"),
    }
}

fn firing(sample: u64) -> Alert {
    taken(None, &transition(State::Firing, sample)).alert.unwrap()
}

#[test]
fn the_first_firing_opens_an_alert_and_tells_each_receiver_once() {
    let change = taken(None, &transition(State::Firing, 10));
    let alert = change.alert.unwrap();
    assert_eq!((change.outcome, alert.occurrences, alert.starts, alert.ends), (Outcome::Opened, 1, 10, 0));
    assert_eq!(change.tell, ["ops", "pager"]);
    assert_eq!(alert.id, alert_id("default", "rule", "00ff"));
}

#[test]
fn the_rules_labels_win_over_the_series_and_fill_the_annotations() {
    let alert = firing(10);
    assert_eq!(alert.labels["team"], "ops");
    assert_eq!(alert.labels["host_name"], "a");
    assert_eq!(alert.labels["alertname"], "cpu high");
    assert_eq!(alert.labels["severity"], "critical");
    assert_eq!(alert.annotations["summary"], "ops: 97");
}

#[test]
fn resolved_ends_it_and_the_next_firing_is_a_second_occurrence() {
    let ended = taken(Some(&firing(10)), &transition(State::Resolved, 20));
    assert_eq!((ended.outcome, ended.tell.len()), (Outcome::Resolved, 2));
    let ended = ended.alert.unwrap();
    assert_eq!((ended.state, ended.starts, ended.ends), (State::Resolved, 10, 20));
    let again = taken(Some(&ended), &transition(State::Firing, 30));
    let alert = again.alert.unwrap();
    assert_eq!((again.outcome, alert.occurrences, alert.starts, alert.ends), (Outcome::Reopened, 2, 30, 0));
}

#[test]
fn an_end_waits_for_its_beginning_as_long_as_that_may_come() {
    let end = transition(State::Resolved, 20);
    assert_eq!(decide(None, &end, true), Verdict::AwaitPredecessor);
    let Verdict::Change(unheard) = decide(None, &end, false) else { panic!("still waits") };
    assert_eq!((unheard.outcome, unheard.tell.len()), (Outcome::Unmatched, 0));
    let remembered = unheard.alert.unwrap();
    assert_eq!(remembered.occurrences, 0);
    let late = taken(Some(&remembered), &transition(State::Firing, 10));
    assert_eq!((late.outcome, late.alert), (Outcome::Late, None));
    let next = taken(Some(&remembered), &transition(State::Firing, 30));
    assert_eq!(next.outcome, Outcome::Opened);
}

#[test]
fn a_second_beginning_waits_for_the_end_in_between() {
    let again = transition(State::Firing, 30);
    assert_eq!(decide(Some(&firing(10)), &again, true), Verdict::AwaitPredecessor);
    let Verdict::Change(change) = decide(Some(&firing(10)), &again, false) else { panic!("still waits") };
    assert_eq!((change.outcome, change.tell.len()), (Outcome::Refreshed, 0));
}

#[test]
fn a_changed_rule_renews_the_alert_and_tells_only_new_receivers() {
    let mut changed = transition(State::Firing, 30);
    changed.wire.rule_version = 2;
    changed.wire.receivers = vec!["chat".into(), "ops".into()];
    let change = taken(Some(&firing(10)), &changed);
    assert_eq!(change.tell, ["chat"]);
    let alert = change.alert.unwrap();
    assert_eq!((alert.starts, alert.occurrences, alert.rule_version), (10, 1, 2));
    assert_eq!(alert.receivers, ["ops", "pager", "chat"]);
}

#[test]
fn what_is_older_than_the_alert_changes_nothing() {
    let late = taken(Some(&firing(10)), &transition(State::Resolved, 9));
    assert_eq!((late.outcome, late.alert, late.tell.len()), (Outcome::Late, None, 0));
}

#[test]
fn ids_depend_on_where_the_parts_begin() {
    assert_ne!(alert_id("a", "bc", "d"), alert_id("ab", "c", "d"));
    assert_eq!(notification_id("a", "b").len(), 32);
}
