//! The newest owner of each shard.

use std::collections::BTreeMap;

use sqlx::{PgConnection, Row as _};

use super::{signed, unsigned};
use crate::fence::Fence;

/// The fences of these shards, made where there are none, and nobody else's until the transaction ends: so one shard's
/// words are taken one after another, whichever replica has them.
///
/// # Errors
/// Postgres.
pub async fn lock(connection: &mut PgConnection, shards: &[String]) -> sqlx::Result<BTreeMap<String, Fence>> {
    sqlx::query(
        "insert into fences (shard, epoch, first_sequence)
         select distinct shard, 0, 0 from unnest($1::text[]) shard order by shard on conflict do nothing",
    )
    .bind(shards)
    .execute(&mut *connection)
    .await?;
    let rows = sqlx::query(
        "select shard, epoch, first_sequence from fences where shard = any($1) order by shard for no key update",
    )
    .bind(shards)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            let fence = Fence { epoch: unsigned(row, "epoch")?, first_sequence: unsigned(row, "first_sequence")? };
            Ok((row.try_get("shard")?, fence))
        })
        .collect()
}

/// Puts fences up that were locked before.
///
/// # Errors
/// Postgres.
pub async fn raise(connection: &mut PgConnection, fences: &BTreeMap<String, Fence>) -> sqlx::Result<()> {
    sqlx::query(
        "update fences set epoch = raised.epoch, first_sequence = raised.first_sequence
         from unnest($1::text[], $2::bigint[], $3::bigint[]) raised (shard, epoch, first_sequence)
         where fences.shard = raised.shard
           and (fences.epoch, fences.first_sequence) is distinct from (raised.epoch, raised.first_sequence)",
    )
    .bind(fences.keys().map(String::as_str).collect::<Vec<_>>())
    .bind(fences.values().map(|fence| signed(fence.epoch)).collect::<Vec<_>>())
    .bind(fences.values().map(|fence| signed(fence.first_sequence)).collect::<Vec<_>>())
    .execute(connection)
    .await
    .map(|_| ())
}
