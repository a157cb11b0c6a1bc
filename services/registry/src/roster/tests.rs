//! Days of resources, in a few lines.

use std::time::Duration;

use super::*;

const SECOND: Nanos = 1_000_000_000;
const THRESHOLDS: Thresholds = Thresholds {
    idle_after: Duration::from_secs(10),
    offline_after: Duration::from_secs(60),
    first_interval: Duration::from_secs(60),
    longest_interval: Duration::from_secs(300),
};

fn key(id: &str) -> Key {
    Key { tenant: "t".into(), id: id.into() }
}

fn online(heard: Nanos) -> Known {
    Known { status: Status::Online, heard: heard * SECOND, interval: Interval::default() }
}

/// Looks at `now`, writes what there is to write, and tells it.
fn sweep(roster: &mut Roster, now: Nanos) -> Vec<(String, &'static str)> {
    let silent = roster.overdue(now * SECOND);
    let verdicts = roster.verdicts(&silent, now * SECOND);
    for verdict in &verdicts {
        roster.settle(verdict);
    }
    verdicts.iter().map(|verdict| (verdict.key.id.to_string(), verdict.after.as_str())).collect()
}

fn told(id: &str, status: &'static str) -> Vec<(String, &'static str)> {
    vec![(id.to_owned(), status)]
}

#[test]
fn silence_is_noticed_when_it_means_something_and_a_return_at_once() {
    let mut roster = Roster::new(THRESHOLDS);
    roster.enter(key("a"), online(0));
    assert_eq!(sweep(&mut roster, 10), []);
    assert_eq!(sweep(&mut roster, 11), told("a", "idle"));
    assert_eq!(sweep(&mut roster, 60), []);
    assert!(roster.hear(&key("a"), 60 * SECOND));
    assert_eq!(sweep(&mut roster, 61), told("a", "online"));
    assert_eq!(sweep(&mut roster, 62), []);
}

#[test]
fn who_goes_offline_is_forgotten_here_until_somebody_knows_more() {
    let mut roster = Roster::new(THRESHOLDS);
    roster.enter(key("a"), online(0));
    sweep(&mut roster, 11);
    assert_eq!(sweep(&mut roster, 61), told("a", "offline"));
    assert!(!roster.hear(&key("a"), 70 * SECOND), "whoever calls looks it up");
    roster.enter(key("a"), Known { status: Status::Offline, ..online(0) });
    roster.hear(&key("a"), 70 * SECOND);
    assert_eq!(sweep(&mut roster, 71), told("a", "online"));
}

#[test]
fn a_silence_that_spans_both_thresholds_is_told_as_what_it_is() {
    let mut roster = Roster::new(THRESHOLDS);
    roster.enter(key("a"), online(0));
    assert_eq!(sweep(&mut roster, 3_600), told("a", "offline"));
}

#[test]
fn what_could_not_be_written_comes_again() {
    let mut roster = Roster::new(THRESHOLDS);
    roster.enter(key("a"), online(0));
    let silent = roster.overdue(11 * SECOND);
    assert_eq!(roster.verdicts(&silent, 11 * SECOND).len(), 1);
    assert_eq!(sweep(&mut roster, 12), told("a", "idle"));
}

#[test]
fn a_sign_of_life_that_is_found_at_the_last_moment_counts() {
    let mut roster = Roster::new(THRESHOLDS);
    roster.enter(key("a"), online(0));
    let silent = roster.overdue(11 * SECOND);
    roster.hear(&key("a"), 5 * SECOND);
    assert_eq!(roster.verdicts(&silent, 11 * SECOND), []);
    assert_eq!(sweep(&mut roster, 18), told("a", "idle"));
}

#[test]
fn while_the_way_in_is_away_nobody_gets_worse_and_then_everybody_has_their_time() {
    let mut roster = Roster::new(THRESHOLDS);
    roster.enter(key("a"), online(0));
    roster.enter(key("seldom"), Known { interval: Interval::of(60 * SECOND), ..online(0) });
    roster.forgive(300 * SECOND, |own| own);
    assert_eq!(sweep(&mut roster, 310), []);
    assert_eq!(sweep(&mut roster, 311), told("a", "idle"));
    assert_eq!(sweep(&mut roster, 361), told("a", "offline"));
    assert_eq!(sweep(&mut roster, 450), []);
    assert_eq!(sweep(&mut roster, 451), told("seldom", "idle"));
}

#[test]
fn a_short_credit_gives_no_more_than_that() {
    let mut roster = Roster::new(THRESHOLDS);
    roster.enter(key("seldom"), Known { interval: Interval::of(60 * SECOND), ..online(0) });
    roster.forgive(200 * SECOND, |_| 10 * SECOND);
    assert_eq!(sweep(&mut roster, 210), []);
    assert_eq!(sweep(&mut roster, 211), told("seldom", "idle"));
}

#[test]
fn intervals_are_learned_and_written_down_when_they_are_news() {
    let mut roster = Roster::new(THRESHOLDS);
    roster.enter(key("a"), online(0));
    for report in 1..5 {
        roster.hear(&key("a"), report * 60 * SECOND);
        assert_eq!(sweep(&mut roster, report * 60 + 59), [], "report {report}");
    }
    let learned = roster.learned();
    assert_eq!(learned, [(key("a"), Interval::of(60 * SECOND))]);
    roster.saved(&learned);
    assert_eq!(roster.learned(), []);
}

#[test]
fn a_second_costs_what_happens_in_it_not_what_there_is() {
    let mut roster = Roster::new(THRESHOLDS);
    for n in 0..100_000 {
        // A report every five seconds each, evenly.
        roster.enter(key(&n.to_string()), Known { interval: Interval::of(5 * SECOND), ..online(n % 5 - 5) });
    }
    let mut looked_at = 0;
    for now in 0..20 {
        for n in (0..100_000).filter(|n| n % 5 == now % 5) {
            roster.hear(&key(&n.to_string()), now * SECOND);
        }
        looked_at += roster.due.iter().take_while(|(due, _)| *due <= now * SECOND).count();
        assert_eq!(sweep(&mut roster, now), []);
    }
    assert!(looked_at <= 2 * 100_000, "{looked_at} entries were looked at in 20 s, each once in 10 s or so");
}
