//! What the connected server's acknowledgement is worth when the power fails.

/// One sentence for people, by the server's version and the number of copies.
pub(crate) fn describe(version: &str, replicas: usize) -> String {
    let server = format!("nats-server {version}");
    if replicas > 1 {
        return format!(
            "{server}, {replicas} copies of each stream: the power cut of one server loses nothing; if all lose power at \
             once, acknowledged messages since their last sync to disk are lost unless they run with sync_interval: always"
        );
    }
    if before_sync_interval(version) {
        return format!(
            "{server}, one copy of each stream: this version cannot sync before it acknowledges, so a power cut can lose \
             all acknowledged messages of the last minutes (a killed process loses none); nats-server 2.12 or newer with \
             sync_interval: always, or three replicas, does not"
        );
    }
    format!(
        "{server}, one copy of each stream: a power cut loses nothing only if the server runs with sync_interval: always, \
         which clients cannot see; with its default, acknowledged messages of the last minutes can be lost"
    )
}

fn before_sync_interval(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or_default());
    let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    (major, minor) < (2, 10)
}

#[cfg(test)]
mod tests {
    use super::describe;

    #[test]
    fn power_safety_is_never_claimed_for_one_copy() {
        assert!(describe("2.9.10", 1).contains("can lose"));
        assert!(describe("2.12.15", 1).contains("only if"));
        assert!(describe("2.12.15", 3).contains("one server loses nothing"));
    }
}
