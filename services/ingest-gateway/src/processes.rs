//! Process snapshots of GoSight's agents as envelopes carry them. Pure.

use std::borrow::Cow;

use model::{BatchId, ResourceId};
use prost::Message as _;
use prost_types::Timestamp;
use proto::gosight::{ProcessInfo, ProcessPayload};
use proto::telemetry::{Process, ProcessSnapshot};

/// A command line may be as long as the kernel lets it be; this much of it is kept.
const LONGEST_TEXT: usize = 16 << 10;
const MOST_LABELS: usize = 64;

/// What the payload says about its host, under OpenTelemetry's names.
#[must_use]
pub fn labels(payload: &ProcessPayload) -> Vec<(&'static str, Cow<'_, str>)> {
    let meta = payload.meta.as_ref();
    let from_meta = |pick: fn(&proto::gosight::Meta) -> &str| meta.map_or("", pick);
    let first = |a, b| if str::is_empty(a) { b } else { a };
    let known = [
        ("resource.kind", "host"),
        ("host.id", first(payload.host_id.as_str(), from_meta(|meta| &meta.host_id))),
        ("host.name", first(payload.hostname.as_str(), from_meta(|meta| &meta.hostname))),
        ("agent.id", first(payload.agent_id.as_str(), from_meta(|meta| &meta.agent_id))),
        ("agent.version", from_meta(|meta| &meta.agent_version)),
        ("os.type", from_meta(|meta| &meta.os)),
    ];
    known.into_iter().filter(|(_, value)| !value.is_empty()).map(|(key, value)| (key, Cow::Borrowed(value))).collect()
}

/// The payload as one snapshot, or as several numbered ones where it is larger than `max` bytes.
#[must_use]
pub fn snapshots(
    payload: ProcessPayload,
    resource: ResourceId,
    agent_id: &str,
    batch: BatchId,
    received_unix_nano: u64,
    max: usize,
) -> Vec<ProcessSnapshot> {
    let empty = ProcessSnapshot {
        resource_id: resource.to_string(),
        agent_id: agent_id.to_owned(),
        host_name: shorten(payload.hostname),
        time_unix_nano: payload.timestamp.as_ref().and_then(nanos).unwrap_or(received_unix_nano),
        batch_id: batch.as_bytes().to_vec(),
        part: 0,
        processes: Vec::new(),
    };
    // Key and length of a process, and of the snapshot around it.
    const FRAMING: usize = 16;
    let base = empty.encoded_len() + FRAMING;
    let mut parts = vec![empty.clone()];
    let mut size = base;
    for process in payload.processes.into_iter().map(convert) {
        let length = process.encoded_len() + FRAMING;
        if size + length > max && size > base {
            parts.push(ProcessSnapshot { part: u32::try_from(parts.len()).unwrap_or(u32::MAX), ..empty.clone() });
            size = base;
        }
        size += length;
        if let Some(part) = parts.last_mut() {
            part.processes.push(process);
        }
    }
    parts
}

fn convert(process: ProcessInfo) -> Process {
    Process {
        pid: process.pid,
        ppid: process.ppid,
        user: shorten(process.user),
        executable: shorten(process.executable),
        command_line: shorten(process.cmdline),
        cpu_percent: process.cpu_percent,
        memory_percent: process.mem_percent,
        threads: process.threads,
        start_time_unix_nano: process.start_time.as_ref().and_then(nanos).unwrap_or(0),
        labels: process
            .labels
            .into_iter()
            .take(MOST_LABELS)
            .map(|(key, value)| (cut(key, 256), cut(value, 1024)))
            .collect(),
    }
}

fn shorten(text: String) -> String {
    cut(text, LONGEST_TEXT)
}

fn cut(mut text: String, longest: usize) -> String {
    text.truncate(text.floor_char_boundary(longest));
    text
}

fn nanos(time: &Timestamp) -> Option<u64> {
    let seconds = u64::try_from(time.seconds).ok()?.checked_mul(1_000_000_000)?;
    seconds.checked_add(u64::try_from(time.nanos).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(processes: usize, command: usize) -> ProcessPayload {
        let one = |pid| ProcessInfo { pid, cmdline: "x".repeat(command), ..ProcessInfo::default() };
        ProcessPayload {
            host_id: "h1".into(),
            hostname: "web-1".into(),
            timestamp: Some(Timestamp { seconds: 5, nanos: 7 }),
            processes: (0..i32::try_from(processes).unwrap()).map(one).collect(),
            ..ProcessPayload::default()
        }
    }

    fn converted(payload: ProcessPayload, max: usize) -> Vec<ProcessSnapshot> {
        let id = model::identify("default", [("host.id", "h1")]).id;
        snapshots(payload, id, "a1", BatchId::from([1; 16]), 9, max)
    }

    #[test]
    fn a_large_snapshot_becomes_numbered_parts_that_fit() {
        let parts = converted(payload(100, 1000), 10_000);
        assert!(parts.len() > 9);
        assert_eq!(parts.iter().map(|part| part.processes.len()).sum::<usize>(), 100);
        for (number, part) in parts.iter().enumerate() {
            assert_eq!(part.part as usize, number);
            assert_eq!((part.time_unix_nano, part.agent_id.as_str()), (5_000_000_007, "a1"));
            assert!(part.encoded_len() <= 10_000);
        }
    }

    #[test]
    fn an_endless_command_line_is_cut() {
        let parts = converted(payload(1, 1 << 20), 500_000);
        assert_eq!(parts[0].processes[0].command_line.len(), LONGEST_TEXT);
    }

    #[test]
    fn a_host_without_processes_is_a_snapshot_too() {
        assert_eq!(converted(payload(0, 0), 1000).len(), 1);
    }
}
