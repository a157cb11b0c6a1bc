//! Following real files through what happens to log files.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::*;
use crate::identity::Identity;

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
fn a_large_backlog_comes_in_several_batches_without_loss() {
    let bench = Bench::new();
    let mut tail = bench.open();
    let text: String = (0..20_000).map(|n| format!("line {n}\n\n")).collect();
    append(bench.log(), &text);
    let mut seen = Vec::new();
    loop {
        let batch = poll(&mut tail, bench.now);
        if batch.is_empty() {
            break;
        }
        assert!(batch.len() < 4_000);
        seen.extend(batch);
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

/// Two files that begin alike for longer than a head, and then differ.
fn alike(name: &str, lines: usize) -> String {
    let banner = format!("{}\n", "=".repeat(300));
    let lines = (0..lines).map(|number| format!("{name} {number:04}\n"));
    std::iter::once(banner).chain(lines).collect()
}

fn ends(lines: &[String]) -> (usize, &str, &str) {
    (lines.len(), &lines[lines.len().min(2) - 1], &lines[lines.len() - 1])
}

#[test]
fn a_file_emptied_while_no_agent_ran_that_begins_like_before_is_read_whole() {
    let bench = Bench::new();
    let mut tail = bench.open();
    append(bench.log(), &alike("old", 100));
    assert_eq!(poll(&mut tail, bench.now).len(), 101);
    drop(tail);
    // As logrotate does with `copytruncate`; the last line was never read.
    append(bench.log(), "unread\n");
    fs::copy(bench.log(), bench.path("app.log.1")).unwrap();
    fs::write(bench.log(), alike("new", 200)).unwrap();
    let mut tail = bench.open();
    let (harvest, counts) = look(&mut tail, bench.now);
    let mut lines: Vec<String> = harvest.lines.into_iter().map(|found| found.line.text).collect();
    assert_eq!((counts.truncations, lines.remove(0).as_str()), (1, "unread"));
    assert_eq!(ends(&lines), (201, "new 0000", "new 0199"));
}

#[test]
fn a_file_emptied_between_two_looks_that_begins_like_before_is_read_whole() {
    let bench = Bench::new();
    let mut tail = bench.open();
    append(bench.log(), &alike("old", 100));
    assert_eq!(poll(&mut tail, bench.now).len(), 101);
    append(bench.log(), "unread\n");
    fs::copy(bench.log(), bench.path("app.log.1")).unwrap();
    fs::write(bench.log(), alike("new", 200)).unwrap();
    let mut lines = poll(&mut tail, bench.now);
    assert_eq!(lines.remove(0), "unread");
    assert_eq!(ends(&lines), (201, "new 0000", "new 0199"));
    assert!(poll(&mut tail, bench.now).is_empty());
}

#[test]
fn a_file_made_anew_under_the_same_number_is_read_whole() {
    let bench = Bench::new();
    let mut tail = bench.open();
    append(bench.log(), &alike("old", 100));
    assert_eq!(poll(&mut tail, bench.now).len(), 101);
    drop(tail);
    let old = fs::metadata(bench.log()).unwrap();
    fs::remove_file(bench.log()).unwrap();
    // Even where the new one shows all that was read of the old one, it was made later.
    fs::write(bench.log(), alike("old", 200)).unwrap();
    let positions = bench.positions();
    let mut known = positions.of(&bench.log()).unwrap().remove(0);
    let new = fs::metadata(bench.log()).unwrap();
    use std::os::unix::fs::MetadataExt as _;
    assert_ne!(old.created().unwrap(), new.created().unwrap());
    (known.device, known.inode) = (new.dev(), new.ino());
    positions.begin(&crate::positions::Cover { path: bench.log(), position: known });
    positions.save().unwrap();
    assert_eq!(poll(&mut bench.open(), bench.now).len(), 201);
}

#[test]
fn where_it_cannot_be_known_whether_a_file_was_emptied_it_is_read_again_and_counted() {
    let bench = Bench::new();
    let mut tail = bench.open();
    append(bench.log(), "tick\ntick\n");
    assert_eq!(poll(&mut tail, bench.now).len(), 2);
    drop(tail);
    fs::copy(bench.log(), bench.path("app.log.1")).unwrap();
    fs::write(bench.log(), "tick\ntick\ntick\n").unwrap();
    let mut tail = bench.open();
    let (harvest, counts) = look(&mut tail, bench.now);
    assert_eq!((harvest.lines.len(), counts.guesses), (3, 1));
    // Without a copy nothing speaks for it.
    drop(tail);
    assert_eq!(poll(&mut bench.open(), bench.now).len(), 3);
    append(bench.log(), "tick\n");
    let (harvest, counts) = look(&mut bench.open(), bench.now);
    assert_eq!((harvest.lines.len(), counts.guesses), (1, 0));
}

/// Runs `test` as a user to whom things can be forbidden.
fn as_nobody(test: fn(Bench)) {
    let bench = Bench::new();
    let thread = std::thread::spawn(move || {
        if rustix::process::geteuid().is_root() {
            const NOBODY: u32 = 65534;
            std::os::unix::fs::chown(bench.folder.path(), Some(NOBODY), None).unwrap();
            // Of this thread alone.
            rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(NOBODY)).unwrap();
        }
        test(bench);
    });
    thread.join().unwrap();
}

fn set_mode(path: impl AsRef<Path>, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn what_is_written_while_a_file_cannot_be_read_is_read_once_it_can() {
    as_nobody(|bench| {
        append(bench.log(), "old\n");
        let writer = File::options().append(true).open(bench.log()).unwrap();
        set_mode(bench.log(), 0);
        let mut tail = bench.open();
        for number in 0..5 {
            writeln!(&writer, "hidden {number}").unwrap();
        }
        let (harvest, counts) = look(&mut tail, bench.now);
        assert_eq!((harvest.lines.len(), counts.unreadable), (0, 1));
        // The agent may be started again meanwhile.
        drop(tail);
        let mut tail = bench.open();
        set_mode(bench.log(), 0o644);
        append(bench.log(), "seen\n");
        assert_eq!(poll(&mut tail, bench.now), ["hidden 0", "hidden 1", "hidden 2", "hidden 3", "hidden 4", "seen"]);
    });
}

#[test]
fn a_new_file_that_cannot_be_read_is_read_whole_once_it_can_also_after_it_was_rotated() {
    as_nobody(|bench| {
        append(bench.log(), "old\n");
        let mut tail = bench.open();
        fs::rename(bench.log(), bench.path("app.log.2")).unwrap();
        append(bench.log(), "hidden\n");
        set_mode(bench.log(), 0);
        assert!(poll(&mut tail, bench.now).is_empty());
        fs::rename(bench.log(), bench.path("app.log.1")).unwrap();
        set_mode(bench.path("app.log.1"), 0o644);
        append(bench.log(), "new\n");
        let (first, second) = (poll(&mut tail, bench.now), poll(&mut tail, bench.now));
        let mut lines = [first, second].concat();
        lines.sort();
        assert_eq!(lines, ["hidden", "new"]);
    });
}

#[test]
fn a_file_in_a_folder_that_cannot_be_looked_into_is_read_whole_once_it_can() {
    as_nobody(|bench| {
        fs::create_dir(bench.path("logs")).unwrap();
        let log = bench.path("logs/app.log").to_str().unwrap().to_owned();
        set_mode(bench.path("logs"), 0);
        let mut tail = Tail::open(&[log.clone()], bench.positions(), Options::default(), bench.now);
        assert!(poll(&mut tail, bench.now).is_empty());
        set_mode(bench.path("logs"), 0o755);
        append(&log, "one\n");
        assert_eq!(poll(&mut tail, bench.now), ["one"]);
    });
}

fn utf16(text: &str, unit: fn(u16) -> [u8; 2]) -> Vec<u8> {
    text.encode_utf16().flat_map(unit).collect()
}

#[test]
fn utf_16_with_a_mark_is_decoded_also_after_a_restart() {
    for unit in [u16::to_le_bytes as fn(u16) -> [u8; 2], u16::to_be_bytes] {
        let bench = Bench::new();
        let mut tail = bench.open();
        fs::write(bench.log(), utf16("\u{feff}Error: größer\r\nનext Ċ\nhal", unit)).unwrap();
        let (harvest, _) = look(&mut tail, bench.now);
        assert!(harvest.lines.iter().all(|found| !found.line.invalid));
        let lines: Vec<_> = harvest.lines.iter().map(|found| found.line.text.as_str()).collect();
        assert_eq!(lines, ["Error: größer", "નext Ċ"]);
        drop(tail);
        drop(bench.open());
        let mut file = File::options().append(true).open(bench.log()).unwrap();
        // A unit that is written in two pieces.
        let rest = utf16("f 😀\n", unit);
        file.write_all(&rest[..5]).unwrap();
        let mut tail = bench.open();
        let (harvest, _) = look(&mut tail, bench.now);
        assert_eq!(harvest.lines.len(), 2);
        file.write_all(&rest[5..]).unwrap();
        assert_eq!(poll(&mut tail, bench.now), ["half 😀"]);
    }
}

#[test]
fn a_mark_of_utf_8_is_no_part_of_the_first_line_and_other_encodings_are_counted() {
    let bench = Bench::new();
    let mut tail = bench.open();
    fs::write(bench.log(), b"\xef\xbb").unwrap();
    assert!(poll(&mut tail, bench.now).is_empty());
    File::options().append(true).open(bench.log()).unwrap().write_all(b"\xbffirst\nsecond\nGr\xfc\xdfe\n").unwrap();
    let (harvest, _) = look(&mut tail, bench.now);
    let seen: Vec<_> = harvest.lines.iter().map(|found| (found.line.text.as_str(), found.line.invalid)).collect();
    assert_eq!(seen, [("first", false), ("second", false), ("Gr\u{fffd}\u{fffd}e", true)]);
}

#[test]
fn a_link_that_is_led_elsewhere_is_a_rotation_also_while_no_agent_runs() {
    use std::os::unix::fs::symlink;
    let bench = Bench::new();
    let lead = |target: &str| {
        let _ = fs::remove_file(bench.log());
        symlink(bench.path(target), bench.log()).unwrap();
    };
    append(bench.path("monday"), "old\n");
    lead("monday");
    let mut tail = bench.open();
    append(bench.path("monday"), "one\n");
    assert_eq!(poll(&mut tail, bench.now), ["one"]);
    drop(tail);
    append(bench.path("monday"), "two\n");
    append(bench.path("tuesday"), "three\n");
    lead("tuesday");
    let mut tail = bench.open();
    assert_eq!(poll(&mut tail, bench.now), ["two", "three"]);
    append(bench.path("tuesday"), "four\n");
    append(bench.path("wednesday"), "five\n");
    lead("wednesday");
    assert_eq!(poll(&mut tail, bench.now), ["four", "five"]);
}

#[test]
fn two_paths_to_one_file_are_one_log() {
    let bench = Bench::new();
    append(bench.log(), "old\n");
    let link = bench.path("link");
    std::os::unix::fs::symlink(bench.log(), &link).unwrap();
    let paths = [bench.log(), link.to_str().unwrap().to_owned()];
    let mut tail = Tail::open(&paths, bench.positions(), Options::default(), bench.now);
    append(bench.log(), "once\n");
    assert_eq!(poll(&mut tail, bench.now), ["once"]);
}

#[test]
fn a_pipe_is_no_log_and_holds_nothing_up() {
    let bench = Bench::new();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, bench.path("app.log"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let (harvest, counts) = look(&mut bench.open(), bench.now);
    assert_eq!((harvest.lines.len(), counts.unreadable), (0, 1));
}

#[test]
fn an_endless_line_is_given_out_once_and_not_read_again_after_a_restart() {
    let bench = Bench::new();
    let mut tail = bench.open();
    fs::write(bench.log(), vec![b'x'; 3 << 20]).unwrap();
    let lines = poll(&mut tail, bench.now);
    assert!(lines.len() == 1 && lines[0].contains("[cut:"));
    assert!(poll(&mut tail, bench.now).is_empty());
    drop(tail);
    let offset = bench.positions().of(&bench.log()).unwrap()[0].offset;
    assert!(offset > 1 << 20, "{offset}");
    append(bench.log(), "its end\nnext\n");
    assert_eq!(poll(&mut bench.open(), bench.now), ["next"]);
}

#[test]
fn a_long_path_counts_in_the_size_of_a_request() {
    let bench = Bench::new();
    let name = "n".repeat(200);
    let path = bench.path(&name);
    append(&path, "");
    let mut tail = Tail::open(&[path.to_str().unwrap().to_owned()], bench.positions(), Options::default(), bench.now);
    append(&path, &"x\n".repeat(20_000));
    let (harvest, _) = look(&mut tail, bench.now);
    let identity = Identity::for_test(bench.folder.path());
    let bytes = prost::Message::encoded_len(&records::request(&identity, &harvest.lines));
    assert!(harvest.is_full() && bytes < 512 * 1024, "{bytes}");
    assert!(bytes <= harvest.bytes() + 4096, "{bytes} of {}", harvest.bytes());
}

#[test]
fn places_in_files_that_have_long_been_gone_are_forgotten() {
    let bench = Bench::new();
    let options = Options { forget_after: std::time::Duration::ZERO, ..Options::default() };
    let open = || Tail::open(&[bench.log()], bench.positions(), options.clone(), bench.now);
    let mut tail = open();
    append(bench.log(), "one\n");
    assert_eq!(poll(&mut tail, bench.now), ["one"]);
    drop(tail);
    // Rotated and compressed.
    fs::remove_file(bench.log()).unwrap();
    append(bench.path("other"), "two\n");
    fs::rename(bench.path("other"), bench.log()).unwrap();
    let mut tail = open();
    assert_eq!(poll(&mut tail, bench.now), ["two"]);
    assert_eq!(bench.positions().of(&bench.log()).unwrap().len(), 1);
}
