//! What the worst selectors that are taken cost, in bytes that are allocated: kept, at the highest, and in all, which stands
//! for the work, since nothing here computes long without building something.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use proptest::prelude::*;
use selector::Selector;
use selector::limits::MAX_LENGTH;

/// What a thread has allocated.
#[derive(Debug, Clone, Copy, Default)]
struct Bytes {
    held: isize,
    highest: isize,
    all: usize,
}

thread_local! {
    static BYTES: Cell<Bytes> = const { Cell::new(Bytes { held: 0, highest: 0, all: 0 }) };
}

struct Counting;

impl Counting {
    fn note(bytes: isize) {
        // A thread that ends may free after its locals are gone.
        let _ = BYTES.try_with(|counted| {
            let mut now = counted.get();
            now.held += bytes;
            now.highest = now.highest.max(now.held);
            now.all += usize::try_from(bytes).unwrap_or(0);
            counted.set(now);
        });
    }
}

#[expect(unsafe_code, reason = "an allocator that counts hands on what it is given")]
// SAFETY: everything is the system's allocator's; the counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::note(isize::try_from(layout.size()).unwrap_or(0));
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        Self::note(-isize::try_from(layout.size()).unwrap_or(0));
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What is done with `text` costs so much at the most; tells whether it was taken.
#[track_caller]
fn costs_little(text: &str) -> bool {
    BYTES.set(Bytes::default());
    let read = Selector::parse(text);
    let reading = BYTES.get();
    let shown = &text[..text.floor_char_boundary(60)];
    assert!(reading.highest < 16 << 20, "{shown}: {reading:?}");
    assert!(reading.all < 64 << 20, "{shown}: {reading:?}");
    assert!(reading.held < 1 << 20, "{shown}: {reading:?}");
    let Ok(selector) = read else { return false };
    for value in ["", "x", &"ä".repeat(2_048), &"host-1.example.com ".repeat(200)] {
        selector.matches(|_| Some(value));
    }
    let used = BYTES.get();
    // What matching has built for this thread stays with the selector.
    assert!(used.held < 3 << 20, "{shown}: {used:?}");
    true
}

/// As many repetitions of `piece` between `before` and `after` as a selector has room for.
fn full(before: &str, piece: &str, after: &str) -> String {
    let room = MAX_LENGTH - before.len() - after.len();
    format!("{before}{}{after}", piece.repeat(room / piece.len()))
}

#[test]
fn the_worst_that_was_thought_of_costs_little() {
    for text in [
        full("{", "a=~`\\w{20}`,", "}"),
        full("{a=~`", "\\w", "`}"),
        full("{a=~`", "\\pL?", "`}"),
        full("{a=~`(?i)", "\\w", "`}"),
        full("{a=~`(?i)", "[!-\u{10ffff}]", "`}"),
        full("{a=~`[\\w", "[a]", "]`}"),
        full("{a=~`[\\w", "\u{4e01}\u{4e03}", "]`}"),
        full("{a=~`", "(?:", "`}"),
        full("{a=~`", "[^", "`}"),
        full("{a=~`x", "{1000}", "`}"),
        full("{a=~`(?:)", "{1000}", "`}"),
        full("{a=~`", "a|", "`}"),
        full("{a=~`", "(a|b)*", "`}"),
        full("{", "a=~``,", "}"),
        full("{a=\"", "\\n", "\"}"),
    ] {
        costs_little(&text);
    }
}

#[test]
fn the_worst_that_is_taken_costs_little() {
    let largest = |piece: &str, before: &str, after: &str| {
        let taken = |count: usize| costs_little(&format!("{before}{}{after}", piece.repeat(count)));
        let most = (1..).take_while(|&count| count * piece.len() + 20 < MAX_LENGTH && taken(count)).last();
        assert!(most.is_some(), "{piece} is not taken even once");
    };
    largest("\\pL", "{a=~`", "`}");
    largest("a=~`\\pL\\d+.{20}`,", "{", "}");
    largest("(a|b|.)*", "{a=~`", "`}");
    largest("a=~`(?i)[\\p{Greek}]`,", "{", "}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_is_put_together_costs_little(
        pieces in prop::collection::vec(
            prop::sample::select(vec![
                "\\w", "\\pL", "[^a-z]", "[\\d\\s]", "(?i)", "(?:a|bc)", ".", "x", "{2,300}", "*", "+", "?", "|", "(\\W", ")", "\\b",
            ]),
            1..400,
        ),
        matchers in 1_usize..8,
    ) {
        let expression: String = pieces.concat();
        let matcher = format!("a=~`{expression}`,");
        costs_little(&format!("{{{}}}", matcher.repeat(matchers)));
    }
}
