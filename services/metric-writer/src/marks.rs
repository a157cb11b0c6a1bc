//! What the writers note in the store about the store itself, so that a later process can tell what was lost.
//!
//! Two metrics without a tenant, so that no tenant sees them: which process of the store answers, and for each stream up to
//! where it had answered everything at that time. A store that loses its last seconds loses these notes with them, which is
//! what makes the older ones trustworthy. The store puts its own time on them, so the clocks of replicas do not matter.

use std::fmt::Write as _;

use anyhow::Context as _;

use crate::store::Store;

const STORE_START: &str = "sightline_metric_writer_seen_store_start";
const STORED: &str = "sightline_metric_writer_seen_stored";
/// How far back notes are looked for.
const WINDOW: &str = "[30d]";

/// The newest note.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Mark {
    /// The start time of the store that it was written to, Unix seconds.
    pub(crate) store_start: f64,
    /// When it was written by the store's clock, Unix seconds.
    pub(crate) at: f64,
}

/// Notes for each shard the sequence up to which everything is answered, beside the store that answered.
pub(crate) async fn answered(store: &Store, namespace: &str, store_start: f64, stored: &[u64]) -> anyhow::Result<()> {
    let mut lines = format!("{STORE_START}{{namespace=\"{namespace}\"}} {store_start}\n");
    for (shard, sequence) in stored.iter().enumerate() {
        // Exact up to 2^53 messages. Writing to a string cannot fail.
        let _ = writeln!(lines, "{STORED}{{namespace=\"{namespace}\",shard=\"{shard}\"}} {sequence}");
    }
    store.import(lines).await.context("leave a note in the store")
}

/// The newest note of any replica, or none.
pub(crate) async fn newest(store: &Store, namespace: &str) -> anyhow::Result<Option<Mark>> {
    let series = format!("{STORE_START}{{namespace=\"{namespace}\"}}{WINDOW}");
    let number = async |function: &str| {
        let rows = store.query(&format!("{function}({series})"), None).await?;
        rows.first().map(|(_, value)| value.parse::<f64>().context("read a note")).transpose()
    };
    let (store_start, at) = (number("last_over_time").await?, number("tlast_over_time").await?);
    Ok(store_start.zip(at).map(|(store_start, at)| Mark { store_start, at }))
}

/// For each shard the sequence up to which everything had been answered at `at`; 0 where no note says.
pub(crate) async fn stored(store: &Store, namespace: &str, shards: u16, at: f64) -> anyhow::Result<Vec<u64>> {
    let query = format!("last_over_time({STORED}{{namespace=\"{namespace}\"}}{WINDOW})");
    let rows = store.query(&query, Some(at)).await?;
    let of = |shard: u16| {
        let shard = shard.to_string();
        let row = rows.iter().find(|(labels, _)| labels.get("shard") == Some(&shard));
        row.map_or(Ok(0), |(_, value)| value.parse().context("read a note"))
    };
    (0..shards).map(of).collect()
}
