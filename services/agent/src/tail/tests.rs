//! Following real files through what happens to log files.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use std::sync::Arc;
use std::time::Instant;

use super::*;
use crate::identity::Identity;
use crate::positions::Positions;

mod odd;
mod same;

struct Bench {
    folder: tempfile::TempDir,
    /// Moves by hand.
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), now: Instant::now() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn log(&self) -> String {
        self.path("app.log").to_str().unwrap().to_owned()
    }

    fn positions(&self) -> Arc<Positions> {
        Arc::new(Positions::load(&self.path("positions.json")).unwrap())
    }

    fn open(&self) -> Tail {
        Tail::open(&[self.log()], self.positions(), Options::default(), self.now)
    }
}

fn append(path: impl AsRef<Path>, text: &str) {
    File::options().append(true).create(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

fn look(tail: &mut Tail, now: Instant) -> (Harvest, Counts) {
    let mut harvest = Harvest::default();
    let counts = tail.poll(&mut harvest, now);
    (harvest, counts)
}

/// The lines of one poll, which count as spooled and are saved.
fn poll(tail: &mut Tail, now: Instant) -> Vec<String> {
    let (harvest, _) = look(tail, now);
    tail.positions.apply(tail.positions.next_generation(), &harvest.covers);
    tail.positions.forget(&harvest.finished);
    tail.positions.save().unwrap();
    harvest.lines.into_iter().map(|found| found.line.text).collect()
}

#[test]
fn a_file_that_is_there_at_the_first_start_is_followed_from_its_end() {
    let bench = Bench::new();
    append(bench.log(), "old\n");
    let mut tail = bench.open();
    assert!(poll(&mut tail, bench.now).is_empty());
    append(bench.log(), "new\n");
    assert_eq!(poll(&mut tail, bench.now), ["new"]);
}

#[test]
fn a_file_that_appears_later_is_read_from_its_start() {
    let bench = Bench::new();
    let mut tail = bench.open();
    let (harvest, counts) = look(&mut tail, bench.now);
    assert_eq!((harvest.lines.len(), counts.missing), (0, 1));
    append(bench.log(), "first\n");
    let (harvest, counts) = look(&mut tail, bench.now);
    assert_eq!((harvest.lines[0].line.text.as_str(), counts.missing), ("first", 0));
}

#[test]
fn a_file_that_appears_while_no_agent_runs_is_read_from_its_start() {
    let bench = Bench::new();
    drop(bench.open());
    append(bench.log(), "first\n");
    assert_eq!(poll(&mut bench.open(), bench.now), ["first"]);
}

#[test]
fn lines_written_while_no_agent_runs_are_read_at_the_next_start() {
    let bench = Bench::new();
    append(bench.log(), "old\n");
    drop(bench.open());
    append(bench.log(), "one\n");
    let mut tail = bench.open();
    assert_eq!(poll(&mut tail, bench.now), ["one"]);
    drop(tail);
    append(bench.log(), "two\n");
    assert_eq!(poll(&mut bench.open(), bench.now), ["two"]);
}

#[test]
fn lines_that_never_reached_the_spool_are_read_again() {
    let bench = Bench::new();
    let mut tail = bench.open();
    append(bench.log(), "one\n");
    assert_eq!(poll(&mut tail, bench.now), ["one"]);
    append(bench.log(), "two\n");
    let (harvest, _) = look(&mut tail, bench.now);
    assert_eq!(harvest.lines[0].line.text, "two");
    assert_eq!(poll(&mut bench.open(), bench.now), ["two"]);
}

#[test]
fn a_line_is_read_when_its_end_is_there() {
    let bench = Bench::new();
    let mut tail = bench.open();
    append(bench.log(), "whole\nhal");
    assert_eq!(poll(&mut tail, bench.now), ["whole"]);
    drop(tail);
    let mut tail = bench.open();
    assert!(poll(&mut tail, bench.now).is_empty());
    append(bench.log(), "f\n");
    assert_eq!(poll(&mut tail, bench.now), ["half"]);
}

#[test]
fn rotation_loses_nothing_also_what_the_writer_adds_before_it_reopens() {
    let mut bench = Bench::new();
    let mut tail = bench.open();
    append(bench.log(), "one\n");
    assert_eq!(poll(&mut tail, bench.now), ["one"]);
    append(bench.log(), "two\n");
    fs::rename(bench.log(), bench.path("app.log.1")).unwrap();
    append(bench.log(), "three\n");
    assert_eq!(poll(&mut tail, bench.now), ["two", "three"]);
    append(bench.path("app.log.1"), "late\nno end");
    append(bench.log(), "four\n");
    assert_eq!(poll(&mut tail, bench.now), ["late", "four"]);
    bench.now += Options::default().drain_time;
    assert_eq!(poll(&mut tail, bench.now), ["no end"]);
    assert!(poll(&mut tail, bench.now).is_empty());
    assert_eq!(tail.positions.of(&bench.log()).unwrap().len(), 1);
    drop(tail);
    assert!(poll(&mut bench.open(), bench.now).is_empty());
}

#[test]
fn a_file_moved_away_is_read_on_until_another_takes_its_place() {
    let bench = Bench::new();
    let mut tail = bench.open();
    append(bench.log(), "one\n");
    assert_eq!(poll(&mut tail, bench.now), ["one"]);
    fs::rename(bench.log(), bench.path("app.log.1")).unwrap();
    append(bench.path("app.log.1"), "two\n");
    assert_eq!(poll(&mut tail, bench.now), ["two"]);
}

#[test]
fn rotation_while_no_agent_runs_loses_nothing() {
    let bench = Bench::new();
    let mut tail = bench.open();
    append(bench.log(), "one\n");
    assert_eq!(poll(&mut tail, bench.now), ["one"]);
    drop(tail);
    append(bench.log(), "two\n");
    fs::rename(bench.log(), bench.path("app.log.1")).unwrap();
    append(bench.log(), "three\n");
    let mut tail = bench.open();
    assert_eq!(poll(&mut tail, bench.now), ["two", "three"]);
    drop(tail);
    assert!(poll(&mut bench.open(), bench.now).is_empty());
}

#[test]
fn a_truncated_file_is_read_from_its_start() {
    let bench = Bench::new();
    let mut tail = bench.open();
    append(bench.log(), "a long first line\n");
    assert_eq!(poll(&mut tail, bench.now), ["a long first line"]);
    fs::write(bench.log(), "short\n").unwrap();
    let (harvest, counts) = look(&mut tail, bench.now);
    assert_eq!((harvest.lines[0].line.text.as_str(), counts.truncations), ("short", 1));
}

#[test]
fn a_file_that_was_rewritten_longer_than_before_is_noticed_by_its_begin() {
    let bench = Bench::new();
    let mut tail = bench.open();
    append(bench.log(), "one\n");
    assert_eq!(poll(&mut tail, bench.now), ["one"]);
    fs::write(bench.log(), "another beginning\nand more\n").unwrap();
    assert_eq!(poll(&mut tail, bench.now), ["another beginning", "and more"]);
    drop(tail);
    fs::write(bench.log(), "a third beginning that is longer\nthan all of that together\n").unwrap();
    assert_eq!(poll(&mut bench.open(), bench.now).len(), 2);
}

#[test]
fn a_large_backlog_comes_in_several_requests_without_loss() {
    let bench = Bench::new();
    let mut tail = bench.open();
    let text: String = (0..20_000).map(|n| format!("line {n}\n\n")).collect();
    append(bench.log(), &text);
    let mut seen = Vec::new();
    loop {
        let lines = poll(&mut tail, bench.now);
        if lines.is_empty() {
            break;
        }
        assert!(lines.len() < 4_000);
        seen.extend(lines);
    }
    assert_eq!(seen.len(), 20_000);
    assert!(seen.iter().enumerate().all(|(n, line)| *line == format!("line {n}")));
}

#[test]
fn records_keep_the_order_of_lines_and_say_what_those_say_of_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let identity = Identity::for_test(folder.path());
    let found = |text: &str| Found {
        path: "/var/log/app.log".into(),
        line: lines::Line { text: text.to_owned(), cut: false, invalid: false },
        read_at: 1000,
    };
    let lines =
        [found("WARN a"), found("b"), found("Nov 21 03:57:01 web1 sshd[42]: c"), found("2026-11-21T03:57:01Z ERROR d")];
    let request = records::request(&identity, &lines);
    let scopes = &request.resource_logs[0].scope_logs;
    let names: Vec<_> = scopes.iter().map(|scope| scope.scope.as_ref().unwrap().name.as_str()).collect();
    assert_eq!(names, ["app", "sshd", "app"]);
    let records: Vec<_> = scopes.iter().flat_map(|scope| &scope.log_records).collect();
    let observed: Vec<_> = records.iter().map(|record| record.observed_time_unix_nano).collect();
    assert_eq!(observed, [1000, 1001, 1002, 1003]);
    // When a line was written is unknown unless it says so.
    let written: Vec<_> = records.iter().map(|record| record.time_unix_nano).collect();
    assert_eq!(written, [0, 0, 0, 1_795_233_421_000_000_000]);
    assert_eq!((records[0].severity_number, records[0].severity_text.as_str()), (13, "WARN"));
    assert_eq!(records[0].attributes[1].value, crate::attributes::attribute("", "app.log").value);
}
