//! What several services must compute alike: tenants, resource ids, batch ids, shards, which times are believed.
//!
//! What names things is a pure function of its arguments (random batch ids aside), so that any replica of any service,
//! of any version, answers the same. The tests hold fixed values: changing one of them renames what is stored.

mod batch;
mod digest;
mod hashed;
mod label;
mod level;
mod recent;
mod resource;
mod tenant;
mod times;

pub use batch::{BatchId, ClientBatch, InvalidBatchId};
pub use digest::digest;
pub use hashed::{HashedMap, Identity};
pub use label::{escaped, label_name, label_value, label_value_within, shortened};
pub use level::{Level, severity_number, syslog_severity_number};
pub use recent::RecentBatches;
pub use resource::{Identified, InvalidResourceId, ResourceId, ResourceKind, identify, shard};
pub use tenant::{InvalidTenantId, TenantId};
pub use times::{CLOCK_SKEW, Disbelieved, LOG_RETENTION, LogTime, METRICS_RETENTION, Times, Window};

/// Hash of a series' labels, which must come sorted by name; for maps and sharding, kept no longer than a snapshot.
pub fn series_hash<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> u64 {
    let mut hash = xxhash_rust::xxh3::Xxh3Default::new();
    for (name, value) in labels {
        hash.update(name.as_bytes());
        // 0xff occurs in no UTF-8 text, so no two label sets read alike.
        hash.update(&[0xff]);
        hash.update(value.as_bytes());
        hash.update(&[0xff]);
    }
    hash.digest()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_do_not_run_into_each_other() {
        assert_ne!(series_hash([("a", "bc")]), series_hash([("ab", "c")]));
        assert_ne!(series_hash([("a", "b"), ("c", "")]), series_hash([("a", "b")]));
    }
}
