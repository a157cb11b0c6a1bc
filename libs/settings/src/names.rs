//! The `SIGHTLINE_*` names that some program of ours knows.

use std::collections::BTreeMap;
use std::ffi::OsString;

const KNOWN: &str = include_str!("names.txt");

/// `cargo dev` and the test kit read these themselves; they reach services only by inheritance.
const OUTSIDE: [&str; 2] = ["SIGHTLINE_DEV_", "SIGHTLINE_TEST_"];

/// A sentence for each name that no program knows: somebody meant it to have an effect.
pub(crate) fn unknown(environment: &BTreeMap<String, OsString>) -> Vec<String> {
    let known: Vec<&str> = KNOWN.lines().collect();
    let ours = environment.keys().filter(|name| name.starts_with("SIGHTLINE_"));
    ours.filter(|name| {
        let is_known = known.contains(&name.as_str()) || OUTSIDE.iter().any(|prefix| name.starts_with(prefix));
        !is_known && !is_of_kubernetes(name)
    })
    .map(|name| {
        let nearest = known.iter().min_by_key(|candidate| distance(name, candidate));
        let hint = nearest.map(|nearest| format!("; did you mean {nearest}?")).unwrap_or_default();
        format!("{name} is set, but no Sightline program of this version knows it{hint}")
    })
    .collect()
}

/// Kubernetes tells every container about every Service of its namespace; those of a release are named `sightline-*`.
fn is_of_kubernetes(name: &str) -> bool {
    if name.ends_with("_SERVICE_HOST") || name.ends_with("_PORT") || name.contains("_SERVICE_PORT") {
        return true;
    }
    // SIGHTLINE_REGISTRY_PORT_9502_TCP_ADDR and the like.
    name.split_once("_PORT_").is_some_and(|(_, rest)| {
        let mut parts = rest.split('_');
        let number = parts.next().is_some_and(|port| port.parse::<u16>().is_ok());
        let protocol = parts.next().is_some_and(|protocol| ["TCP", "UDP", "SCTP"].contains(&protocol));
        number && protocol && parts.next().is_none_or(|what| ["PROTO", "PORT", "ADDR"].contains(&what))
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn unknown_of(names: &[&str]) -> Vec<String> {
        unknown(&names.iter().map(|name| ((*name).to_owned(), OsString::new())).collect())
    }

    #[test]
    fn what_kubernetes_injects_is_no_setting() {
        let injected = [
            "SIGHTLINE_REGISTRY_SERVICE_HOST",
            "SIGHTLINE_REGISTRY_SERVICE_PORT",
            "SIGHTLINE_REGISTRY_SERVICE_PORT_GRPC",
            "SIGHTLINE_REGISTRY_PORT",
            "SIGHTLINE_REGISTRY_PORT_9502_TCP",
            "SIGHTLINE_REGISTRY_PORT_9502_TCP_PROTO",
            "SIGHTLINE_REGISTRY_PORT_9502_TCP_PORT",
            "SIGHTLINE_INGEST_GATEWAY_PORT_5514_UDP_ADDR",
        ];
        assert_eq!(unknown_of(&injected), Vec::<String>::new());
        assert_eq!(unknown_of(&["SIGHTLINE_PORT_RANGE", "SIGHTLINE_REGISTRY_PORT_X_TCP"]).len(), 2);
    }

    #[test]
    fn no_setting_of_ours_looks_like_one_of_kubernetes() {
        assert!(KNOWN.lines().all(|name| !is_of_kubernetes(name)));
    }
}
