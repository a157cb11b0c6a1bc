//! Where in a request something is wrong: the slow walk, for requests that the fast one has refused.

use std::fmt::Write as _;

use crate::judge::MAX_NESTING;
use crate::schema::{Kind, Schema};
use crate::signal::Signal;
use crate::wire::{Invalid, Problem, Reader, Wire};

/// Says which field of which message is wrong, as `resource_logs[0].scope_logs[0].log_records[2].severity_text`.
#[must_use]
pub fn describe(request: &[u8], signal: Signal, invalid: Invalid) -> String {
    let mut path = String::new();
    // Levels above an item do not count as nesting.
    match find(signal.levels().request, request, MAX_NESTING + 8, &mut path) {
        Some((message, problem)) => format!("{path} in {message}: {problem}"),
        None => invalid.to_string(),
    }
}

/// The first field that is wrong, added to `path`; its message's name and the problem.
fn find(schema: &Schema, bytes: &[u8], depth: u8, path: &mut String) -> Option<(&'static str, Problem)> {
    let Some(depth) = depth.checked_sub(1) else { return Some((schema.name, crate::wire::TOO_DEEP)) };
    let mut seen = [0usize; 16];
    let mut reader = Reader::new(bytes);
    let mut last = 0;
    loop {
        let (number, wire) = match reader.next() {
            Ok(Some(field)) => field,
            Ok(None) => return None,
            Err(problem) => {
                push(path, schema.field(last).0, None);
                return Some((schema.name, problem));
            }
        };
        last = number;
        let (name, kind) = schema.field(number);
        let count = seen.get_mut(number as usize).map(|count| std::mem::replace(count, *count + 1));
        let before = path.len();
        push(path, name, count.filter(|_| matches!(kind, Kind::Many(_) | Kind::Texts)));
        match (kind, wire) {
            (Kind::One(inner) | Kind::Many(inner), Wire::Bytes(content)) => {
                if let Some(found) = find(inner, content, depth, path) {
                    return Some(found);
                }
            }
            _ => {
                if let Err(invalid) = schema.check_field(number, wire, depth) {
                    return Some((invalid.message, invalid.problem));
                }
            }
        }
        path.truncate(before);
    }
}

fn push(path: &mut String, name: &str, index: Option<usize>) {
    if name.is_empty() {
        return;
    }
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(name);
    if let Some(index) = index {
        // Writing to a string cannot fail.
        let _ = write!(path, "[{index}]");
    }
}
