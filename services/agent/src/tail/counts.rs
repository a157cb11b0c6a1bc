//! What a look at log files is counted by.

/// What happened to files since the last poll.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    pub rotations: u64,
    pub truncations: u64,
    /// Files that were read again because it could not be known whether they were emptied.
    pub guesses: u64,
    /// How many files cannot be read now.
    pub unreadable: u64,
    /// At how many paths there has been nothing.
    pub missing: u64,
}
