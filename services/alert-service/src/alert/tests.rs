//! Transitions in every order that a broker and a crash can make of them.

use super::*;
use crate::transition::Says;

fn transition(says: Says, order: u64) -> Transition {
    Transition {
        says,
        wire: proto::alerts::Transition {
            id: format!("{}-{order}", says.as_str()),
            tenant: "default".into(),
            rule_id: "rule".into(),
            rule_version: 1,
            evaluated_version: 1,
            kind: "metric".into(),
            series: "00ff".into(),
            state: says.as_str().into(),
            value: 97.0,
            sample_unix_nano: order,
            order,
            series_labels: [("instance".to_owned(), "a".to_owned()), ("team".to_owned(), "x".to_owned())].into(),
            descriptive_labels: [("host_name".to_owned(), "web-1".to_owned())].into(),
            rule_name: "cpu high".into(),
            level: "critical".into(),
            rule_labels: [("team".to_owned(), "ops".to_owned())].into(),
            annotations: [(
                "summary".to_owned(),
                "{{ $labels.team }} {{ $labels.host_name }}: {{ $value }}".to_owned(),
            )]
            .into(),
            receivers: vec!["pager".into(), "ops".into()],
            shard: "00/metrics".into(),
            ..proto::alerts::Transition::default()
        },
    }
}

fn taken(current: Option<&Alert>, transition: &Transition) -> Change {
    match decide(current, transition, Predecessor::Known) {
        Verdict::Change(change) => *change,
        Verdict::Await => panic!("{transition:?} waits"),
    }
}

fn firing(order: u64) -> Alert {
    taken(None, &transition(Says::Firing, order)).alert.unwrap()
}

fn route() -> Tell {
    Tell::Route(vec!["pager".into(), "ops".into()])
}

#[test]
fn the_first_firing_opens_an_alert_and_tells_the_route() {
    let change = taken(None, &transition(Says::Firing, 10));
    let alert = change.alert.unwrap();
    assert_eq!((change.outcome, alert.occurrences, alert.starts, alert.ends), (Outcome::Opened, 1, 10, 0));
    assert_eq!((change.tell, alert.revision), (route(), 1));
    assert_eq!(alert.id, alert_id("default", "rule", "00ff"));
}

#[test]
fn the_rules_labels_win_over_the_series_which_win_over_what_describes() {
    let alert = firing(10);
    assert_eq!(alert.labels["team"], "ops");
    assert_eq!(alert.labels["alertname"], "cpu high");
    assert_eq!(alert.labels["severity"], "critical");
    assert_eq!((alert.labels.get("host_name"), alert.label("host_name")), (None, Some("web-1")));
    assert_eq!(alert.annotations["summary"], "ops web-1: 97");
}

#[test]
fn another_version_name_or_address_is_the_same_alert() {
    let mut upgraded = transition(Says::Resolved, 20);
    upgraded.wire.descriptive_labels.insert("agent_version".into(), "2".into());
    upgraded.wire.rule_name = "renamed".into();
    let ended = taken(Some(&firing(10)), &upgraded).alert.unwrap();
    assert_eq!((ended.id.as_str(), ended.is_on()), (firing(10).id.as_str(), false));
}

#[test]
fn resolved_ends_it_and_the_next_firing_is_a_second_occurrence() {
    let ended = taken(Some(&firing(10)), &transition(Says::Resolved, 20));
    assert_eq!((ended.outcome, ended.tell), (Outcome::Resolved, Tell::WhoKnows));
    let ended = ended.alert.unwrap();
    assert_eq!((ended.state.as_str(), ended.ended_reason.as_str()), (RESOLVED, "resolved"));
    assert_eq!((ended.starts, ended.ends, ended.is_on()), (10, 20, false));
    let again = taken(Some(&ended), &transition(Says::Firing, 30));
    let alert = again.alert.unwrap();
    assert_eq!((again.outcome, alert.occurrences, alert.starts, alert.ends), (Outcome::Reopened, 2, 30, 0));
    assert_eq!((alert.ended_reason.as_str(), alert.revision), ("", 3));
}

#[test]
fn why_it_ended_is_kept_in_the_engines_words() {
    let mut deleted = transition(Says::Resolved, 20);
    deleted.wire.reason = "rule_deleted".into();
    assert_eq!(taken(Some(&firing(10)), &deleted).alert.unwrap().ended_reason, "rule_deleted");
}

#[test]
fn what_names_another_waits_for_it_as_long_as_that_may_come() {
    let end = transition(Says::Resolved, 20);
    assert_eq!(decide(None, &end, Predecessor::Missing), Verdict::Await);
    assert_eq!(decide(Some(&firing(10)), &transition(Says::Firing, 30), Predecessor::Missing), Verdict::Await);
    let Verdict::Change(unheard) = decide(None, &end, Predecessor::GivenUp) else { panic!("still waits") };
    assert_eq!((unheard.outcome, unheard.tell), (Outcome::Unmatched, Tell::Nobody));
    let remembered = unheard.alert.unwrap();
    assert_eq!((remembered.occurrences, remembered.is_on()), (0, false));
    let overtaken = taken(Some(&remembered), &transition(Says::Firing, 10));
    assert_eq!((overtaken.outcome, overtaken.alert), (Outcome::Overtaken, None));
    assert_eq!(taken(Some(&remembered), &transition(Says::Firing, 30)).outcome, Outcome::Opened);
}

#[test]
fn an_edited_rule_renews_the_alert_and_says_it_to_the_route_again() {
    let mut changed = transition(Says::Firing, 30);
    changed.wire.rule_version = 2;
    changed.wire.receivers = vec!["chat".into()];
    let change = taken(Some(&firing(10)), &changed);
    assert_eq!((change.outcome, change.tell), (Outcome::Refreshed, Tell::Route(vec!["chat".into()])));
    let alert = change.alert.unwrap();
    assert_eq!((alert.starts, alert.occurrences, alert.rule_version), (10, 1, 2));
}

#[test]
fn what_fires_is_shown_as_its_rule_is_written_today_and_stays_what_it_is() {
    let alert = firing(10);
    let mut edited = transition(Says::Firing, 10);
    edited.wire.rule_version = 2;
    edited.wire.value = 99.0;
    edited.wire.level = "warning".into();
    edited.wire.rule_labels = [("tier".to_owned(), "web".to_owned())].into();
    edited.wire.annotations = [("summary".to_owned(), "{{ $value }} in {{ $labels.tier }}".to_owned())].into();
    edited.wire.receivers = vec!["chat".into()];
    let change = present(&alert, &edited, 30).unwrap();
    assert_eq!((change.outcome, change.tell), (Outcome::Refreshed, Tell::Route(vec!["chat".into()])));
    let shown = change.alert.unwrap();
    assert_eq!((shown.level.as_str(), shown.labels["severity"].as_str()), ("warning", "warning"));
    // The rule's own label is gone, and the series' is seen again.
    assert_eq!((shown.labels["team"].as_str(), shown.labels["tier"].as_str()), ("x", "web"));
    assert_eq!(shown.annotations["summary"], "97 in web", "with the value that decided");
    let same = |alert: &Alert| (alert.id.clone(), alert.starts, alert.occurrences, alert.place.clone());
    assert_eq!((same(&shown), shown.revision, shown.updated), (same(&alert), 2, 30));

    assert_eq!(present(&shown, &edited, 40), None, "said twice");
    assert_eq!(present(&shown, &transition(Says::Firing, 10), 40), None, "older words");
    let mut other = edited.clone();
    other.wire.id = "firing-9".into();
    assert_eq!(present(&alert, &other, 30), None, "of a beginning before this one");
    assert_eq!(present(&end_by_hand(&alert, "ann", 20).unwrap().alert.unwrap(), &edited, 30), None, "over");
    edited.wire.late = true;
    assert_eq!(present(&alert, &edited, 30).unwrap().tell, Tell::Nobody, "no news for anybody");

    let mut end = transition(Says::Resolved, 20);
    end.wire.rule_version = 2;
    end.wire.value = 1.0;
    end.wire.annotations = edited.wire.annotations.clone();
    let ended = taken(Some(&alert), &end).alert.unwrap();
    assert_eq!((ended.annotations["summary"].as_str(), ended.value, ended.rule_version), ("97 in ", 1.0, 2));
}

#[test]
fn decisions_of_one_shard_are_ordered_by_their_order_and_never_by_sample_time() {
    let mut tomorrow = transition(Says::Firing, 10);
    tomorrow.wire.sample_unix_nano = u64::try_from(i64::MAX).unwrap();
    let alert = taken(None, &tomorrow).alert.unwrap();
    let ended = taken(Some(&alert), &transition(Says::Resolved, 20));
    assert_eq!(ended.outcome, Outcome::Resolved);
    let ended = ended.alert.unwrap();
    assert!(ended.ends >= ended.starts);
    assert_eq!(taken(Some(&ended), &transition(Says::Firing, 30)).outcome, Outcome::Reopened);
    assert_eq!(taken(Some(&firing(10)), &transition(Says::Resolved, 9)).outcome, Outcome::Overtaken);
}

#[test]
fn between_shards_the_time_of_the_decision_counts() {
    let moved = |evaluated| {
        let mut moved = transition(Says::Resolved, 1);
        moved.wire.shard = "01/metrics".into();
        moved.wire.evaluated_unix_nano = evaluated;
        moved
    };
    let mut alert = firing(10);
    alert.place.evaluated = 100;
    assert_eq!(taken(Some(&alert), &moved(101)).outcome, Outcome::Resolved);
    assert_eq!(taken(Some(&alert), &moved(99)).outcome, Outcome::Overtaken);
}

#[test]
fn what_came_too_late_changes_the_alert_and_tells_nobody_until_it_goes_on_in_time() {
    let mut late = transition(Says::Firing, 10);
    late.wire.late = true;
    let opened = taken(None, &late);
    assert_eq!((opened.outcome, opened.tell), (Outcome::Opened, Tell::Nobody));
    let alert = opened.alert.unwrap();
    assert!(alert.late && alert.is_on());
    let goes_on = taken(Some(&alert), &transition(Says::Firing, 20));
    assert_eq!((goes_on.outcome, goes_on.tell), (Outcome::Refreshed, route()));
    assert!(!goes_on.alert.unwrap().late);
    let mut end = transition(Says::Resolved, 20);
    end.wire.late = true;
    assert_eq!(taken(Some(&firing(10)), &end).tell, Tell::WhoKnows);
}

#[test]
fn a_state_of_tomorrow_is_on_as_long_as_it_has_no_end_and_is_kept() {
    for state in ["acknowledged", "no_data", "suppressed"] {
        let alert = Alert { state: state.into(), ..firing(10) };
        let refreshed = taken(Some(&alert), &transition(Says::Firing, 20)).alert.unwrap();
        assert_eq!((refreshed.state.as_str(), refreshed.is_on()), (state, true));
        assert_eq!(taken(Some(&alert), &transition(Says::Resolved, 20)).outcome, Outcome::Resolved);
        assert!(end_by_hand(&alert, "ann", 30).is_some());
    }
}

#[test]
fn what_was_ended_by_hand_stays_ended_until_the_rule_fires_anew() {
    let change = end_by_hand(&firing(10), "ann", 30).unwrap();
    assert_eq!((change.outcome, change.tell), (Outcome::ByHand, Tell::WhoKnows));
    let ended = change.alert.unwrap();
    assert_eq!((ended.ended_reason.as_str(), ended.ended_by.as_str(), ended.ends), ("by_hand", "ann", 30));
    assert_eq!(end_by_hand(&ended, "bob", 40), None);
    let over = taken(Some(&ended), &transition(Says::Resolved, 20));
    assert_eq!((over.outcome, over.tell), (Outcome::Over, Tell::Nobody));
    let over = over.alert.unwrap();
    assert_eq!((over.ended_by.as_str(), over.ends), ("ann", 30));
    assert_eq!(taken(Some(&over), &transition(Says::Firing, 30)).outcome, Outcome::Reopened);
}

#[test]
fn what_was_lost_is_told_and_found_again() {
    let lost = lose(&firing(10), 30).alert.unwrap();
    assert_eq!((lost.ended_reason.as_str(), lost.ends), ("lost", 30));
    let found = find_again(&lost, "loss".into());
    assert_eq!((found.outcome, found.tell), (Outcome::Reopened, Tell::WhoHeard("loss".into())));
    let found = found.alert.unwrap();
    assert_eq!((found.is_on(), found.occurrences, found.starts, found.ended_reason.as_str()), (true, 2, 10, ""));
}

#[test]
fn each_outcome_has_a_word_of_its_own() {
    let words: std::collections::BTreeSet<&str> = Outcome::ALL.into_iter().map(Outcome::as_str).collect();
    assert_eq!(words.len(), Outcome::ALL.len());
}
