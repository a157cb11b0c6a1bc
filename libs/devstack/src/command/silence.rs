//! A test that hangs must not hold up all others until somebody looks: its program is ended, and the rest goes on.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::console::note;

/// No single test takes so long, also on a slow machine.
const LONGEST: Duration = Duration::from_secs(10 * 60);

/// How long nothing was heard of the tests.
#[derive(Debug, Default)]
pub struct Silence(Mutex<Heard>);

#[derive(Debug, Default)]
struct Heard {
    /// None before the first word: until then cargo compiles.
    last: Option<Instant>,
    /// Tests that libtest has said to be slow and that have not ended.
    slow: BTreeSet<String>,
}

impl Silence {
    /// Takes a line of libtest's.
    pub fn hear(&self, line: &str) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.last = Some(Instant::now());
        if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.split(' ').next()) {
            if line.contains(" has been running for over ") {
                heard.slow.insert(name.to_owned());
            } else {
                heard.slow.remove(name);
            }
        }
    }

    /// Ends the test program that cargo runs, if it has been silent for too long; cargo counts it as failed.
    pub fn end(&self, cargo: Pid) {
        let Some(slow) = self.over(LONGEST) else { return };
        let names: Vec<&str> = slow.iter().map(String::as_str).collect();
        let names = if names.is_empty() { "unknown".to_owned() } else { names.join(", ") };
        note(&format!("no test has ended for {} minutes; still running: {names}", LONGEST.as_secs() / 60));
        for child in children(cargo) {
            let _ = kill_process(child, Signal::KILL);
        }
    }

    fn over(&self, longest: Duration) -> Option<BTreeSet<String>> {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.last?.elapsed() <= longest {
            return None;
        }
        heard.last = Some(Instant::now());
        Some(std::mem::take(&mut heard.slow))
    }
}

fn children(parent: Pid) -> Vec<Pid> {
    let parent = parent.as_raw_nonzero();
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{parent}/task")) else { return Vec::new() };
    let lists = tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let lists: Vec<String> = lists.collect();
    lists.iter().flat_map(|list| list.split_whitespace()).filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_measured_from_the_first_word_and_names_who_is_slow() {
        let silence = Silence::default();
        assert_eq!(silence.over(Duration::ZERO), None);
        silence.hear("running 3 tests");
        for name in ["a::slow", "b::hangs"] {
            silence.hear(&format!("test {name} has been running for over 60 seconds"));
        }
        silence.hear("test a::slow ... ok");
        assert_eq!(silence.over(Duration::from_secs(60)), None);
        assert_eq!(silence.over(Duration::ZERO), Some(BTreeSet::from(["b::hangs".to_owned()])));
        assert_eq!(silence.over(Duration::from_secs(60)), None, "what comes next has its own time");
    }

    #[test]
    fn the_children_of_a_process_are_found() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let us = Pid::from_raw(i32::try_from(std::process::id()).unwrap()).unwrap();
        let found = children(us).contains(&Pid::from_child(&child));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found);
    }
}
