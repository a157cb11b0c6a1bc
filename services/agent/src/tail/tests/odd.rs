//! Files that cannot be read yet, are no logs, are written in other ways, have no ends.

use std::os::unix::fs::{FileExt as _, PermissionsExt as _};

use super::*;

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
        let mut tail = Tail::open(std::slice::from_ref(&log), bench.positions(), Options::default(), bench.now);
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
fn room_that_a_program_reserved_is_read_when_it_is_written() {
    let bench = Bench::new();
    let mut tail = bench.open();
    fs::write(bench.log(), [&b"one\n"[..], &[0; 50_000]].concat()).unwrap();
    assert_eq!(poll(&mut tail, bench.now), ["one"]);
    let file = File::options().write(true).open(bench.log()).unwrap();
    file.write_all_at(b"two\nthr", 4).unwrap();
    assert_eq!(poll(&mut tail, bench.now), ["two"]);
    file.write_all_at(b"three\n", 8).unwrap();
    let (harvest, counts) = look(&mut tail, bench.now);
    assert_eq!((harvest.lines.len(), harvest.lines[0].line.text.as_str(), counts.truncations), (1, "three", 0));
}
