//! The `SIGHTLINE_*` names that some program of ours knows.

use std::collections::BTreeMap;
use std::ffi::OsString;

const KNOWN: &str = include_str!("names.txt");

/// `cargo dev` and the test kit read these themselves; they reach services only by inheritance.
const OUTSIDE: [&str; 2] = ["SIGHTLINE_DEV_", "SIGHTLINE_TEST_"];

/// Refuses a name that no program knows, since it is one that somebody meant to have an effect.
pub(crate) fn check(environment: &BTreeMap<String, OsString>) -> Result<(), String> {
    let known: Vec<&str> = KNOWN.lines().collect();
    for name in environment.keys().filter(|name| name.starts_with("SIGHTLINE_")) {
        if known.contains(&name.as_str()) || OUTSIDE.iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        let nearest = known.iter().min_by_key(|candidate| distance(name, candidate));
        let hint = nearest.map(|nearest| format!("; did you mean {nearest}?")).unwrap_or_default();
        return Err(format!("{name} is set, but no Sightline program knows it{hint}"));
    }
    Ok(())
}

/// Levenshtein distance in bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}
