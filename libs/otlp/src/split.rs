//! Cutting one resource's message into several that are small enough, each with the resource and scope it needs.
//!
//! Where pieces of logs end, and so which number a record's piece has, follows from the client's bytes alone, whatever of
//! them is kept: what is refused depends on the moment and on a gateway's limits, and a retry has to be the same batch.

use std::borrow::Cow;

use crate::check::Checked;
use crate::cut;
use crate::judge::{self, shape};
use crate::limits::{Mode, Rules};
use crate::signal::Signal;
use crate::wire::{Fields, Reader, Wire, put_bytes};

/// One of the messages that a resource's message was cut into.
#[derive(Debug, Clone)]
pub struct Piece<'a> {
    /// The content of a whole `ResourceMetrics` or `ResourceLogs`.
    pub content: Cow<'a, [u8]>,
    /// Data points or log records in it.
    pub items: u64,
    /// Which of its resource's pieces it is.
    pub number: usize,
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

impl Checked<'_> {
    /// Cuts what is kept into pieces, which `each` gets one after the other: all of them together are never in memory. Gives
    /// how many pieces there are with those of which nothing is kept; for logs that follows from the client's bytes alone.
    ///
    /// `rules` must be those of the check.
    pub fn pieces(&self, rules: &Rules, most: Most, mut each: impl FnMut(Piece<'_>)) -> usize {
        let items = self.items + self.refused.total();
        if self.content.len() <= most.bytes && items <= most.items {
            if self.items > 0 {
                each(Piece { content: self.kept(rules), items: self.items, number: 0 });
            }
            return 1;
        }
        if self.signal == Signal::Metrics || self.is_whole() {
            return if self.items > 0 { split(self.kept(rules), self.signal, self.items, most, each) } else { 0 };
        }
        let header = beside(self.content, 2);
        let kept = if self.items > 0 { cut::rebuild(&header, self.signal, rules) } else { Vec::new() };
        let mut cutter = Cutter::new(most, header.len(), kept, each);
        for (_, field) in length_delimited(self.content).filter(|(number, _)| *number == 2) {
            let header = beside(field, 2);
            let is_kept = self.items > 0 && !judge::scope_is_refused(field, rules);
            cutter.begin_scope(header.len(), if is_kept { header } else { Vec::new() });
            for (_, record) in length_delimited(field).filter(|(number, _)| *number == 2) {
                let verdict = is_kept.then(|| judge::record(record, Mode::Gateway(rules)));
                let stays = matches!(verdict, Some(Ok(verdict)) if verdict.refused.is_none());
                cutter.add(record, u64::from(stays), 1);
            }
        }
        cutter.finish()
    }
}

/// Cuts checked `content` into pieces, which `each` gets one after the other; gives how many. `items` is how many items it has.
pub fn split(content: Cow<'_, [u8]>, signal: Signal, items: u64, most: Most, mut each: impl FnMut(Piece<'_>)) -> usize {
    if content.len() <= most.bytes && items <= most.items {
        each(Piece { content, items, number: 0 });
        return 1;
    }
    let header = beside(&content, 2);
    let mut cutter = Cutter::new(most, header.len(), header, each);
    for (_, field) in length_delimited(&content).filter(|(number, _)| *number == 2) {
        let header = beside(field, 2);
        cutter.begin_scope(header.len(), header);
        for (_, item) in length_delimited(field).filter(|(number, _)| *number == 2) {
            match signal {
                Signal::Logs => cutter.add(item, 1, 1),
                Signal::Metrics => cutter.add_metric(item),
            }
        }
    }
    cutter.finish()
}

/// Bytes and items of the client's in the current piece, kept or not: they decide where it ends.
#[derive(Default)]
struct Sizes {
    header: usize,
    scope_header: usize,
    scopes: usize,
    scope: usize,
    scope_has_items: bool,
    items: u64,
}

struct Cutter<F> {
    most: Most,
    sizes: Sizes,
    number: usize,
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
    /// The client's header has `size` bytes; of these `header` is kept.
    fn new(most: Most, size: usize, header: Vec<u8>, each: F) -> Self {
        Self {
            most,
            sizes: Sizes { header: size, ..Sizes::default() },
            number: 0,
            header,
            scope_header: Vec::new(),
            scopes: Vec::new(),
            scope: Vec::new(),
            scope_has_items: false,
            items: 0,
            each,
        }
    }

    fn begin_scope(&mut self, size: usize, header: Vec<u8>) {
        self.close_scope();
        (self.sizes.scope, self.sizes.scope_header) = (size, size);
        self.scope.clone_from(&header);
        self.scope_header = header;
    }

    fn add_metric(&mut self, metric: &[u8]) {
        let points = count_points(metric);
        let bytes = self.most.bytes / 4;
        if metric.len() <= bytes && points <= self.room() {
            self.add(metric, points, points);
        } else {
            // Each part fills the piece that it is in, so that long headers are not repeated for few points.
            split_metric(metric, bytes, self.room(), |metric, points| {
                self.add(metric, points, points);
                self.room()
            });
        }
    }

    /// How many items may be added: to this piece, or to the next where this one is full.
    fn room(&self) -> u64 {
        match self.most.items.saturating_sub(self.sizes.items) {
            0 => self.most.items,
            room => room,
        }
    }

    /// The client's `item`, which counts for `items`; `kept` of them are.
    fn add(&mut self, item: &[u8], kept: u64, items: u64) {
        let sizes = &self.sizes;
        let size = sizes.header + sizes.scopes + sizes.scope + item.len() + FRAMING;
        let is_full = size > self.most.bytes || sizes.items + items > self.most.items;
        if is_full && (sizes.scope_has_items || sizes.scopes > 0) {
            self.close_piece();
            self.scope.clone_from(&self.scope_header);
            self.sizes.scope = self.sizes.scope_header;
        }
        self.sizes.scope += field_len(item.len());
        self.sizes.scope_has_items = true;
        self.sizes.items += items;
        if kept > 0 {
            put_bytes(&mut self.scope, 2, item);
            self.scope_has_items = true;
            self.items += kept;
        }
    }

    fn close_scope(&mut self) {
        if self.sizes.scope_has_items {
            self.sizes.scopes += field_len(self.sizes.scope);
        }
        if self.scope_has_items {
            put_bytes(&mut self.scopes, 2, &self.scope);
        }
        self.scope.clear();
        self.scope_has_items = false;
        self.sizes.scope_has_items = false;
    }

    fn close_piece(&mut self) {
        self.close_scope();
        if !self.scopes.is_empty() {
            let mut content = Vec::with_capacity(self.header.len() + self.scopes.len());
            content.extend_from_slice(&self.header);
            content.append(&mut self.scopes);
            (self.each)(Piece { content: Cow::Owned(content), items: self.items, number: self.number });
        }
        self.number += usize::from(self.sizes.scopes > 0);
        self.items = 0;
        (self.sizes.scopes, self.sizes.items) = (0, 0);
    }

    /// How many pieces there were.
    fn finish(mut self) -> usize {
        self.close_piece();
        self.number
    }
}

/// Bytes of a field of so many bytes, with key and length.
fn field_len(content: usize) -> usize {
    let mut bytes = content + 2;
    let mut rest = content >> 7;
    while rest > 0 {
        bytes += 1;
        rest >>= 7;
    }
    bytes
}

/// Gives metrics like this one, each with some of its points, of about so many bytes, and at the most as many points as there
/// is `room` for, which `each` says anew.
fn split_metric(metric: &[u8], bytes: usize, mut room: u64, mut each: impl FnMut(&[u8], u64) -> u64) {
    let header = outside(metric, |number| shape(number).is_some());
    for (kind, data) in length_delimited(metric).filter(|(number, _)| shape(*number).is_some()) {
        let data_header = beside(data, 1);
        let mut run = data_header.clone();
        let mut points = 0;
        let mut close = |run: &mut Vec<u8>, points: &mut u64| {
            let mut whole = header.clone();
            put_bytes(&mut whole, kind, run);
            let room = each(&whole, *points);
            run.clone_from(&data_header);
            *points = 0;
            room
        };
        for (_, point) in length_delimited(data).filter(|(number, _)| *number == 1) {
            if points > 0 && (run.len() + point.len() > bytes || points >= room) {
                room = close(&mut run, &mut points);
            }
            put_bytes(&mut run, 1, point);
            points += 1;
        }
        if points > 0 {
            room = close(&mut run, &mut points);
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
