//! Cutting one resource's message into several that are small enough, each with the resource and scope it needs.

use std::borrow::Cow;

use crate::check::shape;
use crate::wire::{Fields, Reader, Wire, put_bytes};

/// What a request carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Signal {
    /// Data points.
    Metrics,
    /// Log records.
    Logs,
}

/// One of the messages that a resource's message was cut into.
#[derive(Debug, Clone)]
pub struct Piece<'a> {
    /// The content of a whole `ResourceMetrics` or `ResourceLogs`.
    pub content: Cow<'a, [u8]>,
    /// Data points or log records in it.
    pub items: u64,
}

/// Keys and lengths of the three levels above an item.
const FRAMING: usize = 32;

/// Cuts checked `content` into pieces of at most `max` bytes, as far as single items allow.
///
/// The same bytes are always cut alike, so that pieces can be numbered. `items` is how many items `content` has.
#[must_use]
pub fn split(content: Cow<'_, [u8]>, signal: Signal, items: u64, max: usize) -> Vec<Piece<'_>> {
    if content.len() <= max {
        return vec![Piece { content, items }];
    }
    let mut cutter = Cutter { max, header: beside(&content, 2), ..Cutter::default() };
    for (number, field) in length_delimited(&content) {
        if number != 2 {
            continue;
        }
        cutter.begin_scope(beside(field, 2));
        for (_, item) in length_delimited(field).filter(|(number, _)| *number == 2) {
            match signal {
                Signal::Logs => cutter.add(item, 1),
                Signal::Metrics if item.len() <= max / 4 => cutter.add(item, count_points(item)),
                Signal::Metrics => {
                    for (metric, points) in split_metric(item, max / 4) {
                        cutter.add(&metric, points);
                    }
                }
            }
        }
    }
    cutter.finish()
}

#[derive(Default)]
struct Cutter {
    max: usize,
    /// What each piece begins with.
    header: Vec<u8>,
    /// What the current scope begins with.
    scope_header: Vec<u8>,
    /// Scopes of the current piece that are complete.
    scopes: Vec<u8>,
    /// Content of the scope that is being filled.
    scope: Vec<u8>,
    scope_items: u64,
    items: u64,
    pieces: Vec<Piece<'static>>,
}

impl Cutter {
    fn begin_scope(&mut self, header: Vec<u8>) {
        self.close_scope();
        self.scope.clone_from(&header);
        self.scope_header = header;
    }

    fn add(&mut self, item: &[u8], items: u64) {
        let size = self.header.len() + self.scopes.len() + self.scope.len() + item.len() + FRAMING;
        if size > self.max && self.items + self.scope_items > 0 {
            self.close_piece();
            self.scope.clone_from(&self.scope_header);
        }
        put_bytes(&mut self.scope, 2, item);
        self.scope_items += items.max(1);
        self.items += items;
    }

    fn close_scope(&mut self) {
        if self.scope_items > 0 {
            put_bytes(&mut self.scopes, 2, &self.scope);
        }
        self.scope.clear();
        self.scope_items = 0;
    }

    fn close_piece(&mut self) {
        self.close_scope();
        if !self.scopes.is_empty() {
            let mut content = self.header.clone();
            content.append(&mut self.scopes);
            self.pieces.push(Piece { content: Cow::Owned(content), items: self.items });
        }
        self.items = 0;
    }

    fn finish(mut self) -> Vec<Piece<'static>> {
        self.close_piece();
        self.pieces
    }
}

/// Metrics like this one, each with some of its points and about `target` bytes.
fn split_metric(metric: &[u8], target: usize) -> Vec<(Vec<u8>, u64)> {
    let header = outside(metric, |number| shape(number).is_some());
    let mut metrics = Vec::new();
    for (kind, data) in length_delimited(metric).filter(|(number, _)| shape(*number).is_some()) {
        let data_header = beside(data, 1);
        let mut run = data_header.clone();
        let mut points = 0;
        let mut close = |run: &mut Vec<u8>, points: &mut u64| {
            let mut whole = header.clone();
            put_bytes(&mut whole, kind, run);
            metrics.push((whole, *points));
            run.clone_from(&data_header);
            *points = 0;
        };
        for (_, point) in length_delimited(data).filter(|(number, _)| *number == 1) {
            if points > 0 && run.len() + point.len() > target {
                close(&mut run, &mut points);
            }
            put_bytes(&mut run, 1, point);
            points += 1;
        }
        if points > 0 {
            close(&mut run, &mut points);
        }
    }
    metrics
}

fn count_points(metric: &[u8]) -> u64 {
    length_delimited(metric)
        .filter(|(number, _)| shape(*number).is_some())
        .map(|(_, data)| length_delimited(data).filter(|(number, _)| *number == 1).count() as u64)
        .sum()
}

fn length_delimited(content: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    let mut fields = Fields::new(content);
    std::iter::from_fn(move || fields.next_bytes())
}

/// All fields but those with `number`, as they stand.
fn beside(content: &[u8], number: u32) -> Vec<u8> {
    outside(content, |n| n == number)
}

fn outside(content: &[u8], leave_out: impl Fn(u32) -> bool) -> Vec<u8> {
    let mut out = Vec::new();
    let mut reader = Reader::new(content);
    let mut begin = 0;
    while let Ok(Some((number, wire))) = reader.next() {
        if !(leave_out(number) && matches!(wire, Wire::Bytes(_))) {
            out.extend_from_slice(&content[begin..reader.position()]);
        }
        begin = reader.position();
    }
    out
}
