//! What the writers note in the store about the store itself, so that a later process can tell what was lost.
//!
//! Two metrics without a tenant, so that no tenant sees them: which process of the store was seen, and for each stream up
//! to where everything had been answered by the store at that time. A store that loses its last seconds loses these
//! notes with them, which is what makes the older ones trustworthy.

use std::sync::Arc;

use anyhow::Context as _;
use series::{Series, Type};

use crate::samples::Samples;
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
    /// When it was written, Unix seconds.
    pub(crate) at: f64,
}

/// Notes to write: this store, and for each shard the sequence up to which everything is answered.
pub(crate) fn samples(namespace: &str, store_start: f64, stored: &[u64], time_ms: i64) -> Samples {
    let mut samples = Samples::default();
    let start = Series::new(Type::Gauge, [("__name__", STORE_START), ("namespace", namespace)]);
    samples.push(&Arc::new(start), time_ms, store_start);
    for (shard, &sequence) in stored.iter().enumerate() {
        let shard = shard.to_string();
        let labels = [("__name__", STORED), ("namespace", namespace), ("shard", shard.as_str())];
        // Exact up to 2^53 messages.
        samples.push(&Arc::new(Series::new(Type::Gauge, labels)), time_ms, sequence as f64);
    }
    samples
}

/// The newest note of any replica, or none.
pub(crate) async fn newest(store: &Store, namespace: &str, now: f64) -> anyhow::Result<Option<Mark>> {
    let series = format!("{STORE_START}{{namespace=\"{namespace}\"}}{WINDOW}");
    let number = async |function: &str| {
        let rows = store.query(&format!("{function}({series})"), now).await?;
        rows.first().map(|(_, value)| value.parse::<f64>().context("read a note")).transpose()
    };
    let (store_start, at) = (number("last_over_time").await?, number("tlast_over_time").await?);
    Ok(store_start.zip(at).map(|(store_start, at)| Mark { store_start, at }))
}

/// For each shard the sequence up to which everything had been answered at `at`; 0 where no note says.
pub(crate) async fn stored(store: &Store, namespace: &str, shards: u16, at: f64) -> anyhow::Result<Vec<u64>> {
    let query = format!("last_over_time({STORED}{{namespace=\"{namespace}\"}}{WINDOW})");
    let rows = store.query(&query, at).await?;
    let of = |shard: u16| {
        let shard = shard.to_string();
        let row = rows.iter().find(|(labels, _)| labels.get("shard") == Some(&shard));
        row.map_or(Ok(0), |(_, value)| value.parse().context("read a note"))
    };
    (0..shards).map(of).collect()
}
