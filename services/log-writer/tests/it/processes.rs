//! Process snapshots.

use bus::{Encoding, Envelope, Schema, Subject};
use prost::Message as _;
use proto::telemetry::{Process, ProcessBatch, ProcessSnapshot};
use testkit::now;
use tonic::Code;

use crate::support::{PATIENCE, Running};

fn part(time: u64, batch: u8, part: u32, pids: std::ops::Range<i32>) -> Envelope {
    let processes = pids.map(|pid| Process { pid, executable: format!("program-{pid}"), ..Process::default() });
    let snapshot = ProcessSnapshot {
        resource_id: "host-abc".to_owned(),
        host_name: "web-1".to_owned(),
        time_unix_nano: time,
        batch_id: vec![batch; 16],
        part,
        processes: processes.collect(),
        ..ProcessSnapshot::default()
    };
    Envelope {
        schema: Schema::Processes,
        tenant: "default".to_owned(),
        items: 1,
        received_unix_nano: time,
        encoding: Encoding::Zstd,
        body: ProcessBatch { snapshots: vec![snapshot] }.encode_to_vec().into(),
    }
}

#[tokio::test]
async fn the_texts_of_very_many_processes_are_cut_alike() {
    let running = Running::start().await;
    let time = now();
    // 24 MB: more than an answer should have.
    for n in 0..30_u8 {
        let pids = i32::from(n) * 100..(i32::from(n) + 1) * 100;
        let mut message = part(time, 7, u32::from(n), pids);
        let mut batch = ProcessBatch::decode(message.body.clone()).unwrap();
        batch.snapshots[0].processes.iter_mut().for_each(|process| process.command_line = "x".repeat(8_000));
        message.body = batch.encode_to_vec().into();
        running.bus.publish(Subject::Processes(0), message.encode(n.to_string()).unwrap()).await.unwrap();
    }
    testkit::eventually("the whole snapshot", PATIENCE, async || {
        let found = running.processes("host-abc").await.map_err(|status| status.to_string())?;
        let bytes: usize = found.items.iter().map(|process| process.command_line.len()).sum();
        assert!(bytes <= 2 << 20, "{bytes}");
        if found.items.len() == 3_000 { Ok(()) } else { Err(format!("{} of 3000", found.items.len())) }
    })
    .await;
    running.stop().await;
}

#[tokio::test]
async fn a_snapshot_that_came_in_several_parts_is_shown_whole() {
    let running = Running::start().await;
    let time = now();
    let older = part(time - 1_000_000_000, 6, 0, 500..600);
    for (id, envelope) in [("old", older), ("b", part(time, 7, 1, 60..120)), ("a", part(time, 7, 0, 1..60))] {
        running.bus.publish(Subject::Processes(0), envelope.encode(id).unwrap()).await.unwrap();
    }
    testkit::eventually("the whole snapshot", PATIENCE, async || {
        let found = running.processes("host-abc").await.map_err(|status| status.to_string())?;
        let pids: Vec<i32> = found.items.iter().map(|process| process.pid).collect();
        if pids == (1..120).collect::<Vec<_>>() { Ok(()) } else { Err(format!("{} of 119", pids.len())) }
    })
    .await;
    assert_eq!(running.processes("host-of-nobody").await.unwrap_err().code(), Code::NotFound);
    running.stop().await;
}
