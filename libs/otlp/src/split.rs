//! Cutting one resource's message into several that are small enough, each with the resource and scope it needs.

use std::borrow::Cow;

use crate::judge::shape;
use crate::signal::Signal;
use crate::wire::{Fields, Reader, Wire, put_bytes};

/// One of the messages that a resource's message was cut into.
#[derive(Debug, Clone)]
pub struct Piece<'a> {
    /// The content of a whole `ResourceMetrics` or `ResourceLogs`.
    pub content: Cow<'a, [u8]>,
    /// Data points or log records in it.
    pub items: u64,
}

/// What one piece may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Most {
    /// Bytes; more only where a single item with its headers is larger.
    pub bytes: usize,
    /// Data points or log records: a reader makes much more of each than the few bytes that it may have.
    pub items: u64,
}

/// Keys and lengths of the three levels above an item.
const FRAMING: usize = 32;

/// Cuts checked `content` into pieces, which `each` gets one after the other: all of them together are never in memory.
///
/// The same bytes are always cut alike, so that pieces can be numbered. `items` is how many items `content` has.
pub fn split(content: Cow<'_, [u8]>, signal: Signal, items: u64, most: Most, mut each: impl FnMut(Piece<'_>)) {
    if content.len() <= most.bytes && items <= most.items {
        return each(Piece { content, items });
    }
    let mut cutter = Cutter {
        most,
        header: beside(&content, 2),
        scope_header: Vec::new(),
        scopes: Vec::new(),
        scope: Vec::new(),
        scope_has_items: false,
        items: 0,
        each,
    };
    for (_, field) in length_delimited(&content).filter(|(number, _)| *number == 2) {
        cutter.begin_scope(beside(field, 2));
        for (_, item) in length_delimited(field).filter(|(number, _)| *number == 2) {
            match signal {
                Signal::Logs => cutter.add(item, 1),
                Signal::Metrics => cutter.add_metric(item),
            }
        }
    }
    cutter.close_piece();
}

struct Cutter<F> {
    most: Most,
    /// What each piece begins with.
    header: Vec<u8>,
    /// What the current scope begins with.
    scope_header: Vec<u8>,
    /// Scopes of the current piece that are complete.
    scopes: Vec<u8>,
    /// Content of the scope that is being filled.
    scope: Vec<u8>,
    scope_has_items: bool,
    items: u64,
    each: F,
}

impl<F: FnMut(Piece<'_>)> Cutter<F> {
    fn begin_scope(&mut self, header: Vec<u8>) {
        self.close_scope();
        self.scope.clone_from(&header);
        self.scope_header = header;
    }

    fn add_metric(&mut self, metric: &[u8]) {
        let points = count_points(metric);
        let target = Most { bytes: self.most.bytes / 4, items: (self.most.items / 4).max(1) };
        if metric.len() <= target.bytes && points <= target.items {
            self.add(metric, points);
        } else {
            split_metric(metric, target, |metric, points| self.add(metric, points));
        }
    }

    fn add(&mut self, item: &[u8], items: u64) {
        let size = self.header.len() + self.scopes.len() + self.scope.len() + item.len() + FRAMING;
        let is_full = size > self.most.bytes || self.items + items > self.most.items;
        if is_full && (self.scope_has_items || !self.scopes.is_empty()) {
            self.close_piece();
            self.scope.clone_from(&self.scope_header);
        }
        put_bytes(&mut self.scope, 2, item);
        self.scope_has_items = true;
        self.items += items;
    }

    fn close_scope(&mut self) {
        if self.scope_has_items {
            put_bytes(&mut self.scopes, 2, &self.scope);
        }
        self.scope.clear();
        self.scope_has_items = false;
    }

    fn close_piece(&mut self) {
        self.close_scope();
        if !self.scopes.is_empty() {
            let mut content = Vec::with_capacity(self.header.len() + self.scopes.len());
            content.extend_from_slice(&self.header);
            content.append(&mut self.scopes);
            (self.each)(Piece { content: Cow::Owned(content), items: self.items });
        }
        self.items = 0;
    }
}

/// Gives metrics like this one, each with some of its points and about as many bytes and points as `target` says.
fn split_metric(metric: &[u8], target: Most, mut each: impl FnMut(&[u8], u64)) {
    let header = outside(metric, |number| shape(number).is_some());
    for (kind, data) in length_delimited(metric).filter(|(number, _)| shape(*number).is_some()) {
        let data_header = beside(data, 1);
        let mut run = data_header.clone();
        let mut points = 0;
        let mut close = |run: &mut Vec<u8>, points: &mut u64| {
            let mut whole = header.clone();
            put_bytes(&mut whole, kind, run);
            each(&whole, *points);
            run.clone_from(&data_header);
            *points = 0;
        };
        for (_, point) in length_delimited(data).filter(|(number, _)| *number == 1) {
            if points > 0 && (run.len() + point.len() > target.bytes || points >= target.items) {
                close(&mut run, &mut points);
            }
            put_bytes(&mut run, 1, point);
            points += 1;
        }
        if points > 0 {
            close(&mut run, &mut points);
        }
    }
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
