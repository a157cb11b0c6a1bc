//! What is accepted is bounded in what it becomes: check, cut, split and stamp of hostile requests.
//!
//! Each request is written by hand on the wire, since the worst ones are those that no encoder would write: many tiny
//! messages, few huge ones, empty ones, repeated ones.
#![expect(clippy::unwrap_used, reason = "tests")]

use otlp::{Limits, Most, Rules, Signal, Stamp, append_stamped, check, count_resources};
use proptest::prelude::*;

const NOW: u64 = 1_790_000_000_000_000_000;
const MOST: Most = Most { bytes: 510 << 10, items: 20_000 };

fn rules() -> Rules {
    let month = std::time::Duration::from_secs(30 * 86_400);
    Rules { limits: Limits::default(), times: model::Times { ahead: month, age: month }.window(NOW) }
}

fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = content.len();
    while length >= 0x80 {
        out.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    out.push(u8::try_from(length).unwrap());
    out.extend_from_slice(content);
    out
}

/// What a gateway makes of a request.
#[derive(Debug, Default)]
struct Made {
    bytes: usize,
    pieces: usize,
    largest: usize,
    most_items: u64,
    resources: usize,
}

fn made(request: &[u8], signal: Signal) -> Made {
    let rules = rules();
    let mut made = Made::default();
    if count_resources(request, rules.limits.resources + 1) > rules.limits.resources {
        return made;
    }
    let Ok(walk) = check(request, signal, &rules) else { return made };
    let stamp = Stamp::new().text("sightline.resource.id", &"x".repeat(32)).text("sightline.batch.id", &"x".repeat(32));
    for resource in &walk.resources {
        made.resources += usize::from(resource.items > 0);
        resource.pieces(&rules, MOST, |piece| {
            assert!(piece.items > 0, "nothing is handed on for nothing");
            let mut body = Vec::new();
            append_stamped(&mut body, &piece.content, &stamp);
            made.pieces += 1;
            made.bytes += body.len();
            made.largest = made.largest.max(body.len());
            made.most_items = made.most_items.max(piece.items);
        });
    }
    made
}

fn check_bounds(request: &[u8], signal: Signal) {
    let made = made(request, signal);
    // A stamp for each resource, of which there are so many at the most; each piece but the last has at least a quarter of the
    // bytes, or as many items as it may.
    let bound = 4 * request.len() + 200 * made.resources;
    assert!(made.bytes <= bound, "{made:?} of {} bytes", request.len());
    assert!(made.largest <= 512 << 10 && made.most_items <= MOST.items, "{made:?}");
    assert!(made.resources <= rules().limits.resources);
}

fn logs(scope_header: usize, records: usize, record: &[u8]) -> Vec<u8> {
    let scope = field(1, &field(1, &vec![b'a'; scope_header]));
    field(1, &field(2, &[scope, field(2, record).repeat(records)].concat()))
}

#[test]
fn a_long_scope_name_is_not_copied_for_each_empty_record() {
    // 690 KB that once became 42 GB.
    let request = logs(530_000, 80_000, &[]);
    assert_eq!(made(&request, Signal::Logs).pieces, 0);
    check_bounds(&logs(65_000, 200_000, &[]), Signal::Logs);
    check_bounds(&logs(65_000, 200_000, &field(3, &[b'w'; 300])), Signal::Logs);
}

#[test]
fn a_resource_of_six_bytes_costs_no_more_than_its_stamp() {
    let one = [0x0a, 4, 0x12, 2, 0x12, 0];
    check_bounds(&one.repeat(10_000), Signal::Logs);
    assert_eq!(made(&one.repeat(10_000), Signal::Logs).resources, 10_000);
    assert_eq!(made(&one.repeat(10_001), Signal::Logs).resources, 0);
}

#[test]
fn headers_on_every_level_are_repeated_at_most_once_a_quarter_piece() {
    let point = field(1, &[&[0x21][..], &1f64.to_le_bytes(), &field(7, &field(1, &[b'k'; 200]))].concat());
    let gauge = field(5, &point.repeat(20_000));
    let metric = field(2, &[field(1, b"m"), field(2, &[b'd'; 65_000]), gauge].concat());
    let scope = field(1, &field(3, &field(1, &[b's'; 65_000])));
    let resource = field(1, &field(1, &field(1, &[b'r'; 65_000])));
    let request = field(1, &[resource, field(2, &[scope, metric].concat())].concat());
    let all = made(&request, Signal::Metrics);
    assert!(all.pieces > 5, "{all:?}");
    check_bounds(&request, Signal::Metrics);
}

#[test]
fn the_longest_headers_are_repeated_once_for_as_many_points_as_a_piece_may_have() {
    // More points of two bytes make it worse, up to some 4.4 times what was sent with as many as a request may have.
    let histogram = [field(1, &[]).repeat(200_000), vec![0x10, 2]].concat();
    let metric = field(2, &[field(1, b"m"), field(2, &[b'd'; 65_000]), field(9, &histogram)].concat());
    let scope = field(1, &field(3, &field(1, &[b's'; 65_000])));
    let resource = field(1, &field(1, &field(1, &[b'r'; 65_000])));
    let request = field(1, &[resource, field(2, &[scope, metric].concat())].concat());
    assert_eq!(made(&request, Signal::Metrics).pieces, 10);
    check_bounds(&request, Signal::Metrics);
}

/// Children of a level, many and tiny, few and huge, or none; now and then without their frame.
fn repeated(child: impl Strategy<Value = Vec<u8>>, most: usize) -> impl Strategy<Value = Vec<u8>> {
    let framed = prop_oneof![19 => Just(true), 1 => Just(false)];
    (child, prop_oneof![1 => Just(0), 2 => Just(1), 6 => 1..most], framed).prop_map(|(child, count, framed)| {
        let one = if framed { field(2, &child) } else { child };
        let count = if one.is_empty() { 1 } else { count.min(600_000 / one.len() + 1) };
        one.repeat(count)
    })
}

/// What stands beside the children: `wrapped` in so many fields 1, so that it is a name, or the key of an attribute.
fn header(wrapped: usize) -> impl Strategy<Value = Vec<u8>> {
    let sizes = prop_oneof![4 => Just(0usize), 2 => 1..200usize, 3 => 60_000..70_000usize, 3 => 480_000..530_000usize];
    sizes.prop_map(move |size| {
        if size == 0 { Vec::new() } else { (0..wrapped).fold(vec![b'a'; size], |inner, _| field(1, &inner)) }
    })
}

fn record() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => Just(Vec::new()),
        2 => (1..50usize).prop_map(|size| field(3, &vec![b'w'; size])),
        1 => (200_000..300_000usize).prop_map(|size| field(12, &vec![b'w'; size])),
    ]
}

fn metric() -> impl Strategy<Value = Vec<u8>> {
    let point = prop_oneof![
        2 => Just(vec![0x21, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f]),
        1 => Just(Vec::new()),
        1 => (1..40_000usize).prop_map(|count| field(7, &vec![0; count * 8])),
        1 => (1..30usize).prop_map(|count| field(9, &field(1, &[b'k'; 200])).repeat(count)),
    ];
    let kind = prop_oneof![Just(5u8), Just(9), Just(11)];
    (kind, point, prop_oneof![Just(1usize), 1..40_000usize], header(0)).prop_map(|(kind, point, count, header)| {
        let one = field(1, &point);
        let points = one.repeat(count.min(600_000 / one.len() + 1));
        let temporality = if kind == 9 { &[0x10, 2][..] } else { &[] };
        [field(1, b"m"), field(2, &header), field(kind, &[&points, temporality].concat())].concat()
    })
}

fn request(item: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let scope = (header(2), repeated(item, 100_000)).prop_map(|(header, items)| [header, items].concat());
    let resource = (header(3), repeated(scope, 5_000)).prop_map(|(header, scopes)| [header, scopes].concat());
    (resource, prop_oneof![3 => Just(1usize), 1 => 1..20_000usize]).prop_map(|(content, count)| {
        let one = field(1, &content);
        one.repeat(count.min(2_000_000 / one.len() + 1))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn hostile_logs_become_no_more_than_they_pay_for(request in request(record())) {
        check_bounds(&request, Signal::Logs);
    }

    #[test]
    fn hostile_metrics_become_no_more_than_they_pay_for(request in request(metric())) {
        check_bounds(&request, Signal::Metrics);
    }
}
