//! Which file is which: emptied, made anew, copied, linked, on a device with another number.

use std::os::unix::fs::{FileExt as _, MetadataExt as _, symlink};

use super::*;

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

#[test]
fn a_link_that_is_led_elsewhere_is_a_rotation_also_while_no_agent_runs() {
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
    symlink(bench.log(), &link).unwrap();
    let paths = [bench.log(), link.to_str().unwrap().to_owned()];
    let mut tail = Tail::open(&paths, bench.positions(), Options::default(), bench.now);
    append(bench.log(), "once\n");
    assert_eq!(poll(&mut tail, bench.now), ["once"]);
    fs::rename(bench.log(), bench.path("app.log.1")).unwrap();
    append(bench.log(), "new\n");
    assert_eq!(poll(&mut tail, bench.now), ["new"]);
    assert!(poll(&mut tail, bench.now).is_empty());
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

#[test]
fn a_device_that_has_another_number_after_a_reboot_is_still_the_same() {
    let bench = Bench::new();
    let mut tail = bench.open();
    append(bench.log(), "one\n");
    assert_eq!(poll(&mut tail, bench.now), ["one"]);
    append(bench.log(), "two\n");
    fs::rename(bench.log(), bench.path("app.log.1")).unwrap();
    append(bench.log(), "three\n");
    drop(tail);
    let reboot = || {
        let saved = fs::read_to_string(bench.path("positions.json")).unwrap();
        let device = bench.positions().of(&bench.log()).unwrap()[0].device;
        let (old, new) = (format!("\"device\":{device},"), format!("\"device\":{},", device + 1));
        fs::write(bench.path("positions.json"), saved.replace(&old, &new)).unwrap();
    };
    reboot();
    let mut tail = bench.open();
    assert_eq!(poll(&mut tail, bench.now), ["two", "three"]);
    drop(tail);
    reboot();
    append(bench.log(), "four\n");
    assert_eq!(poll(&mut bench.open(), bench.now), ["four"]);
    assert!(poll(&mut bench.open(), bench.now).is_empty());
}

#[test]
fn a_file_emptied_under_a_program_that_goes_on_at_its_old_place_loses_no_line() {
    let bench = Bench::new();
    let mut tail = bench.open();
    append(bench.log(), &"old\n".repeat(100_000));
    while !poll(&mut tail, bench.now).is_empty() {}
    let file = File::options().write(true).open(bench.log()).unwrap();
    file.set_len(0).unwrap();
    file.write_all_at(b"new\n", 400_000).unwrap();
    let (harvest, _) = look(&mut tail, bench.now);
    let lines: Vec<_> = harvest.lines.iter().map(|found| (found.line.text.as_str(), found.line.invalid)).collect();
    assert_eq!(lines, [("new", false)]);
}
