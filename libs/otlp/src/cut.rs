//! Rebuilding one resource's message without what is refused: ranges that stay are copied, lengths above them rewritten.

use crate::judge::{self, shape};
use crate::limits::{Mode, Rules};
use crate::signal::Signal;
use crate::stamp::RESERVED_PREFIX;
use crate::value::Attribute;
use crate::wire::{Reader, Wire, put_bytes};

/// What becomes of one field.
enum Fate {
    Stays,
    Goes,
    Becomes(Vec<u8>),
}

/// The content of a checked `ResourceMetrics` or `ResourceLogs` without refused items and reserved attributes.
pub(crate) fn rebuild(content: &[u8], signal: Signal, rules: &Rules) -> Vec<u8> {
    edit(content, |number, field| match number {
        1 => Fate::Becomes(without_reserved(field)),
        2 if judge::scope_is_refused(field, rules) => Fate::Goes,
        2 => Fate::Becomes(scope(field, signal, rules)),
        _ => Fate::Stays,
    })
}

fn without_reserved(resource: &[u8]) -> Vec<u8> {
    edit(resource, |number, field| {
        if number == 1 && Attribute::read(field).key.starts_with(RESERVED_PREFIX) { Fate::Goes } else { Fate::Stays }
    })
}

fn scope(content: &[u8], signal: Signal, rules: &Rules) -> Vec<u8> {
    let mode = Mode::Gateway(rules);
    edit(content, |number, item| match (number, signal) {
        (2, Signal::Metrics) => match judge::metric(item, mode) {
            Ok(verdict) if verdict.whole.is_some() => Fate::Goes,
            Ok(verdict) if verdict.single.total() > 0 => Fate::Becomes(metric(item, rules)),
            Ok(_) => Fate::Stays,
            Err(_) => Fate::Goes,
        },
        (2, Signal::Logs) => match judge::record(item, mode) {
            Ok(verdict) if verdict.refused.is_none() => Fate::Stays,
            _ => Fate::Goes,
        },
        _ => Fate::Stays,
    })
}

fn metric(content: &[u8], rules: &Rules) -> Vec<u8> {
    edit(content, |number, data| match shape(number) {
        None => Fate::Stays,
        Some(shape) => Fate::Becomes(edit(data, |number, point| {
            let stays = number != 1 || matches!(judge::point(point, shape, Mode::Gateway(rules)), Ok(None));
            if stays { Fate::Stays } else { Fate::Goes }
        })),
    })
}

fn edit(content: &[u8], mut decide: impl FnMut(u32, &[u8]) -> Fate) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len());
    let mut reader = Reader::new(content);
    let mut begin = 0;
    while let Ok(Some((number, wire))) = reader.next() {
        let fate = if let Wire::Bytes(field) = wire { decide(number, field) } else { Fate::Stays };
        match fate {
            Fate::Stays => out.extend_from_slice(&content[begin..reader.position()]),
            Fate::Goes => {}
            Fate::Becomes(field) => put_bytes(&mut out, number, &field),
        }
        begin = reader.position();
    }
    out
}
