//! What the kernel's text files under `/proc` say, as plain values: every function here takes the file's text and
//! returns numbers.
//! Reading the files, and what is done with the values, lies elsewhere.

pub mod cpu;
pub mod disk;
pub mod host;
pub mod memory;
pub mod network;
pub mod process;

/// A line of a kernel file that does not read as documented in proc(5).
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{file} has no readable {field}")]
pub struct Malformed {
    pub file: &'static str,
    pub field: &'static str,
}

pub(crate) fn number<'a>(
    fields: &mut impl Iterator<Item = &'a str>,
    file: &'static str,
    field: &'static str,
) -> Result<u64, Malformed> {
    fields.next().and_then(|text| text.parse().ok()).ok_or(Malformed { file, field })
}

/// Kernel counters go to OTLP as doubles, exact up to 2^53: nine petabytes, or 285 years in microseconds.
#[expect(clippy::cast_precision_loss, reason = "the only conversion there is; see above for its range")]
pub fn double(value: u64) -> f64 {
    value as f64
}

/// `part` of `whole` in percent; 0 of nothing is 0.
pub fn percent(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole * 100.0 } else { 0.0 }
}
