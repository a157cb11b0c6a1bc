//! Process snapshots of GoSight's agents as envelopes carry them. Pure.

use std::borrow::Cow;

use model::{BatchId, ResourceId};
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost::{DecodeError, Message as _};
use prost_types::Timestamp;
use proto::gosight::{ProcessInfo, ProcessPayload};
use proto::telemetry::{Process, ProcessSnapshot};

/// A command line may be as long as the kernel lets it be; this much of it is kept.
const LONGEST_TEXT: usize = 16 << 10;
const MOST_LABELS: usize = 64;

/// The bytes are no protobuf message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are no protobuf message")]
pub struct Broken;

impl From<DecodeError> for Broken {
    fn from(_: DecodeError) -> Self {
        Self
    }
}

/// How much a payload has of what takes many times its bytes once it is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size {
    pub processes: usize,
    /// Labels of processes and of the host.
    pub labels: usize,
}

impl Size {
    /// Counts without reading.
    ///
    /// # Errors
    /// It is no protobuf message.
    pub fn of(payload: &[u8]) -> Result<Self, Broken> {
        let mut size = Self::default();
        each_field(payload, |number, content| match number {
            6 => {
                size.processes += 1;
                each_field(content, |number, _| {
                    size.labels += usize::from(number == 10);
                    Ok(())
                })
            }
            7 => each_field(content, |number, _| {
                size.labels += usize::from(number == 36 || number == 49);
                Ok(())
            }),
            _ => Ok(()),
        })?;
        Ok(size)
    }

    /// What reading the payload takes, beside its texts.
    #[must_use]
    pub fn bytes_in_memory(&self) -> usize {
        // As they came and as they go, the structs and the places of a map.
        self.processes * 640 + self.labels * 256
    }
}

/// Gives the number and content of each length-delimited field.
///
/// # Errors
/// It is no protobuf message, or `each` says so.
pub fn each_field<'a>(
    mut message: &'a [u8],
    mut each: impl FnMut(u32, &'a [u8]) -> Result<(), Broken>,
) -> Result<(), Broken> {
    while !message.is_empty() {
        let (number, wire_type) = decode_key(&mut message)?;
        if wire_type != WireType::LengthDelimited {
            skip_field(wire_type, number, &mut message, DecodeContext::default())?;
            continue;
        }
        let length = usize::try_from(decode_varint(&mut message)?).map_err(|_| Broken)?;
        let (content, rest) = message.split_at_checked(length).ok_or(Broken)?;
        message = rest;
        each(number, content)?;
    }
    Ok(())
}

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
    fn what_multiplies_is_counted_before_it_is_read() {
        let mut payload = payload(3, 10);
        payload.processes[1].labels = [("a".to_owned(), "b".to_owned())].into();
        payload.meta =
            Some(proto::gosight::Meta { tags: [("c".to_owned(), String::new())].into(), ..Default::default() });
        assert_eq!(Size::of(&payload.encode_to_vec()), Ok(Size { processes: 3, labels: 2 }));
        assert_eq!(Size::of(&[0x32, 0].repeat(1000)), Ok(Size { processes: 1000, labels: 0 }));
        assert_eq!(Size::of(&[0x32, 5, 0]), Err(Broken));
    }

    #[test]
    fn a_host_without_processes_is_a_snapshot_too() {
        assert_eq!(converted(payload(0, 0), 1000).len(), 1);
    }
}
