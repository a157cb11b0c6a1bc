//! What a selector may cost: anyone who may read anything may write one, and rules keep theirs for ever.
//!
//! These are no settings: every service and every replica must read what another one took.

/// The longest selector that is read, in bytes.
pub const MAX_LENGTH: usize = 8 * 1024;

/// The most comparisons.
pub const MAX_MATCHERS: usize = 30;

/// The largest automaton of one expression, in bytes. `(a{1000}){1000}` is short to write.
pub const MAX_EXPRESSION_BYTES: usize = 64 << 10;

/// The same of all expressions of a selector together.
pub const MAX_COMPILED_BYTES: usize = 256 << 10;

/// Ranges of characters that all expressions together may put into classes while they are read. A Unicode class of three
/// bytes, such as `\pL`, is hundreds, and what is repeated in the text is built anew each time: before the automaton's
/// size can be looked at.
const MAX_RANGES: usize = 32_000;

/// What is left to the expressions of one selector.
#[derive(Debug)]
pub(crate) struct Budget {
    pub(crate) ranges: usize,
    pub(crate) bytes: usize,
}

impl Budget {
    pub(crate) const fn whole() -> Self {
        Self { ranges: MAX_RANGES, bytes: MAX_COMPILED_BYTES }
    }
}
