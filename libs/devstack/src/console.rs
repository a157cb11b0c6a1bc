//! What `cargo dev` says while it works: one line a step, with the time it took.
//!
//! A closed terminal must not end the supervisor, so failed writes are ignored here and nowhere else.

use std::io::Write;
use std::time::{Duration, Instant};

/// Results: what a script may read.
pub fn result(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

/// Progress and trouble: what a person reads.
pub fn note(line: &str) {
    let mut err = std::io::stderr().lock();
    let _ = writeln!(err, "{line}");
}

/// A long piece of work, announced when it begins and timed when it ends.
pub struct Step {
    name: &'static str,
    began: Instant,
}

impl Step {
    pub fn begin(name: &'static str, what: &str) -> Self {
        note(&format!("{name:>8}  {what} ..."));
        Self { name, began: Instant::now() }
    }

    pub fn progress(&self, what: &str) {
        note(&format!("{:>8}  {what} ({})", self.name, seconds(self.began.elapsed())));
    }

    pub fn done(self, what: &str) {
        self.progress(what);
    }
}

pub fn seconds(elapsed: Duration) -> String {
    format!("{:.1} s", elapsed.as_secs_f64())
}
