//! What benchmarks share: the load, and what processes used.

pub mod load;
pub mod payload;
pub mod usage;
