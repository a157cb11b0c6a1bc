//! The spool on a real folder, across restarts.

use super::*;
use crate::positions::Position;

const LOCK_FILES: usize = 1;

struct Bench {
    folder: tempfile::TempDir,
    metrics: Metrics,
}

impl Bench {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), metrics: Metrics::for_test() }
    }

    fn positions(&self) -> Arc<Positions> {
        Arc::new(Positions::load(&self.folder.path().join("positions.json")).unwrap())
    }

    fn start(&self, max_bytes: u64) -> (Spool, Arc<Positions>) {
        let positions = self.positions();
        let folder = self.folder.path().join("spool");
        let room = Room { bytes: max_bytes, memory_bytes: 1 << 20 };
        (Spool::open(&folder, room, positions.clone(), self.metrics.clone()).unwrap(), positions)
    }

    fn dropped(&self, reason: &'static str) -> u64 {
        self.metrics.items_dropped.of(["metrics", reason]).get()
    }

    fn files(&self) -> usize {
        fs::read_dir(self.folder.path().join("spool")).unwrap().count() - LOCK_FILES
    }
}

fn cover(offset: u64) -> Cover {
    Cover { path: "/a.log".to_owned(), position: Position { device: 1, inode: 2, offset, ..Position::default() } }
}

#[test]
fn requests_keep_their_batch_ids_and_order_across_a_restart() {
    let bench = Bench::new();
    let (spool, _) = bench.start(1 << 20);
    let first = spool.push(Signal::Logs, 1, &[cover(10)], b"one").unwrap();
    let second = spool.push(Signal::Logs, 2, &[cover(20)], b"two").unwrap();
    drop(spool);
    let (spool, positions) = bench.start(1 << 20);
    assert_eq!(positions.of("/a.log").unwrap()[0].offset, 20);
    let oldest = spool.take(Signal::Logs, End::Oldest, 0).unwrap();
    let newest = spool.take(Signal::Logs, End::Newest, 0).unwrap();
    assert_eq!((oldest.id, &oldest.payload[..]), (first, &b"one"[..]));
    assert_eq!((newest.id.to_string(), newest.items), (second.to_string(), 2));
    assert_eq!(spool.take(Signal::Logs, End::Oldest, 0), None);
    let third = spool.push(Signal::Logs, 1, &[], b"three").unwrap();
    assert_ne!(third.to_string().split('-').next(), second.to_string().split('-').next());
}

#[test]
fn an_acknowledged_request_is_gone_and_its_position_saved() {
    let bench = Bench::new();
    let (spool, _) = bench.start(1 << 20);
    let later = {
        spool.push(Signal::Logs, 1, &[cover(10)], b"one").unwrap();
        spool.push(Signal::Logs, 1, &[cover(20)], b"two").unwrap()
    };
    assert_eq!(bench.positions().of("/a.log"), None);
    spool.take(Signal::Logs, End::Newest, 0).unwrap();
    spool.done(&later);
    drop(spool);
    let (spool, positions) = bench.start(1 << 20);
    assert_eq!(spool.take(Signal::Logs, End::Newest, 0).unwrap().payload, &b"one"[..]);
    // The request that is still here ends at 10; the one after it was acknowledged and must not be read again.
    assert_eq!(positions.of("/a.log").unwrap()[0].offset, 20);
}

#[test]
fn for_want_of_room_the_oldest_metrics_go_and_logs_are_refused() {
    let bench = Bench::new();
    // Each takes a block.
    let (spool, _) = bench.start(4 * 4096);
    for items in [7, 5, 3] {
        spool.push(Signal::Metrics, items, &[], &[1; 300]).unwrap();
    }
    spool.push(Signal::Logs, 1, &[], &[3; 300]).unwrap();
    assert_eq!(bench.dropped("spool_full"), 0);
    spool.push(Signal::Logs, 1, &[], &[4; 300]).unwrap();
    assert_eq!(bench.dropped("spool_full"), 7);
    spool.push(Signal::Logs, 1, &[], &[5; 300]).unwrap();
    assert_eq!(bench.dropped("spool_full"), 12);
    // A quarter stays with the metrics, whose newest replace the oldest.
    assert!(matches!(spool.push(Signal::Logs, 1, &[], &[6; 300]), Err(Refused::Full)));
    spool.push(Signal::Metrics, 1, &[], &[6; 300]).unwrap();
    assert_eq!(bench.dropped("spool_full"), 15);
    assert_eq!((spool.pending(Signal::Logs), spool.pending(Signal::Metrics), bench.files()), (3, 1, 4));
}

#[test]
fn a_request_that_was_given_back_can_be_taken_again() {
    let bench = Bench::new();
    let (spool, _) = bench.start(1 << 20);
    let mut changes = spool.changes();
    let id = spool.push(Signal::Metrics, 1, &[], b"x").unwrap();
    assert!(changes.has_changed().unwrap());
    assert_eq!(spool.take(Signal::Logs, End::Oldest, 0), None);
    assert_eq!(spool.take(Signal::Metrics, End::Oldest, 0).unwrap().failures, 0);
    changes.mark_unchanged();
    spool.give_back(&id, Reaction::Failed);
    assert!(changes.has_changed().unwrap());
    let spooled = spool.take(Signal::Metrics, End::Newest, 0).unwrap();
    assert_eq!((spooled.failures, spooled.stumbles), (1, 0));
    spool.give_back(&id, Reaction::Stumbled);
    let spooled = spool.take(Signal::Metrics, End::Newest, 0).unwrap();
    assert_eq!((spooled.failures, spooled.stumbles), (2, 1));
}

#[test]
fn a_cut_file_is_dropped_and_drafts_are_cleared() {
    let bench = Bench::new();
    let (spool, _) = bench.start(1 << 20);
    let id = spool.push(Signal::Logs, 1, &[cover(10)], b"some lines").unwrap();
    let path = spool.path(&id, Signal::Logs);
    drop(spool);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 3]).unwrap();
    fs::write(path.with_extension("logs.7.tmp"), "x").unwrap();
    let (spool, positions) = bench.start(1 << 20);
    assert_eq!(spool.take(Signal::Logs, End::Oldest, 0), None);
    assert_eq!((positions.of("/a.log"), bench.files()), (None, 0));
}

#[test]
fn metrics_wait_in_memory_when_the_disk_takes_nothing_and_logs_are_refused() {
    let bench = Bench::new();
    let (spool, _) = bench.start(1 << 20);
    fs::remove_dir_all(&spool.folder).unwrap();
    let id = spool.push(Signal::Metrics, 1, &[], b"points").unwrap();
    assert!(matches!(spool.push(Signal::Logs, 1, &[cover(5)], b"line"), Err(Refused::Write(_))));
    assert_eq!(spool.take(Signal::Metrics, End::Oldest, 0).unwrap().payload, &b"points"[..]);
    spool.done(&id);
    let queue = spool.queue();
    assert_eq!((queue.bytes, queue.memory_bytes), (0, 0));
}

#[test]
fn a_file_that_kept_its_length_but_lost_its_bytes_is_damaged_and_covers_nothing() {
    let bench = Bench::new();
    let (spool, _) = bench.start(1 << 20);
    let id = spool.push(Signal::Logs, 1, &[cover(10)], b"some lines").unwrap();
    let path = spool.path(&id, Signal::Logs);
    drop(spool);
    let mut bytes = fs::read(&path).unwrap();
    let begin = bytes.len() - b"some lines".len();
    bytes[begin..].fill(0);
    fs::write(&path, bytes).unwrap();
    let (spool, positions) = bench.start(1 << 20);
    assert_eq!((spool.pending(Signal::Logs), positions.of("/a.log")), (0, None));
}

#[test]
fn what_a_newer_agent_left_is_kept_and_its_lines_are_not_sent_twice() {
    let bench = Bench::new();
    let (spool, _) = bench.start(1 << 20);
    let id = spool.push(Signal::Logs, 1, &[cover(10)], b"some lines").unwrap();
    let path = spool.path(&id, Signal::Logs);
    drop(spool);
    let newer = fs::read_to_string(&path).unwrap().replace("\"version\":1", "\"version\":2,\"lines\":{\"a\":1}");
    assert!(newer.contains("\"version\":2"));
    fs::write(&path, &newer).unwrap();
    let (spool, positions) = bench.start(1 << 20);
    assert_eq!(spool.take(Signal::Logs, End::Oldest, 0), None);
    assert_eq!(positions.of("/a.log").unwrap()[0].offset, 10);
    assert_eq!((fs::read_to_string(&path).unwrap(), bench.metrics.spool_unknown.get()), (newer, 1));
}

#[test]
fn a_request_that_the_disk_does_not_give_now_is_kept_and_tried_again() {
    let bench = Bench::new();
    let (spool, _) = bench.start(1 << 20);
    let first = spool.push(Signal::Logs, 1, &[], b"one").unwrap();
    let second = spool.push(Signal::Logs, 1, &[], b"two").unwrap();
    let path = spool.path(&first, Signal::Logs);
    let aside = path.with_extension("aside");
    fs::rename(&path, &aside).unwrap();
    // Reading a folder fails with an error that is neither damage nor absence.
    fs::create_dir(&path).unwrap();
    assert_eq!(spool.take(Signal::Logs, End::Oldest, 0).unwrap().id, second);
    assert_eq!((spool.take(Signal::Logs, End::Oldest, 0), spool.pending(Signal::Logs)), (None, 2));
    fs::remove_dir(&path).unwrap();
    fs::rename(&aside, &path).unwrap();
    spool.acknowledged(&second);
    assert_eq!(spool.take(Signal::Logs, End::Oldest, 0).unwrap().id, first);
}

#[test]
fn a_gateway_that_stumbles_on_everything_is_not_the_requests_fault() {
    let bench = Bench::new();
    let (spool, _) = bench.start(1 << 20);
    let poison = spool.push(Signal::Logs, 1, &[], b"poison").unwrap();
    let stumble = || {
        let spooled = spool.take(Signal::Logs, End::Oldest, 0).unwrap();
        spool.give_back(&poison, Reaction::Stumbled);
        spooled.stumbles
    };
    assert_eq!([stumble(), stumble(), stumble()], [0, 1, 1]);
    for _ in 0..2 {
        let other = spool.push(Signal::Metrics, 1, &[], b"x").unwrap();
        spool.acknowledged(&other);
        stumble();
    }
    assert_eq!(stumble(), 3);
}
