//! What shards say of what fires in them, and which alerts nobody has named.

use sqlx::PgConnection;

use super::signed;

/// One part of a round.
#[derive(Debug, Clone)]
pub struct Part<'a> {
    /// The shard and lane.
    pub shard: &'a str,
    /// The owner's epoch.
    pub epoch: u64,
    /// The round.
    pub round: u64,
    /// Decisions up to this one are in it.
    pub order: u64,
    /// Which part.
    pub part: u32,
    /// Of how many.
    pub parts: u32,
}

/// Notes a part, and the alerts that it names; says whether its round is complete now.
///
/// # Errors
/// Postgres.
pub async fn hear(connection: &mut PgConnection, part: &Part<'_>, named: &[String]) -> sqlx::Result<bool> {
    sqlx::query(
        "update firing set confirmed_epoch = $2, confirmed_round = $3
         where alert_id = any($1) and (confirmed_epoch, confirmed_round) < ($2, $3)",
    )
    .bind(named)
    .bind(signed(part.epoch))
    .bind(signed(part.round))
    .execute(&mut *connection)
    .await?;
    sqlx::query_scalar(
        "insert into rounds (shard, epoch, round, decided_order, parts, heard) values ($1, $2, $3, $4, $5, array[$6::integer])
         on conflict (shard, epoch, round) do update
         set heard = case when $6 = any(rounds.heard) then rounds.heard else rounds.heard || $6 end
         returning cardinality(heard) >= parts",
    )
    .bind(part.shard)
    .bind(signed(part.epoch))
    .bind(signed(part.round))
    .bind(signed(part.order))
    .bind(i32::try_from(part.parts).unwrap_or(i32::MAX))
    .bind(i32::try_from(part.part).unwrap_or(i32::MAX))
    .fetch_one(connection)
    .await
}

/// Of these alerts, so many of those that were ended because nobody confirmed them, before `order`.
///
/// # Errors
/// Postgres.
pub async fn lost(
    connection: &mut PgConnection,
    named: &[String],
    order: u64,
    limit: i64,
) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar(
        "select id from alerts where id = any($1) and ended_reason = 'lost' and ends_unix_nano > 0 and decided_order <= $2
         limit $3",
    )
    .bind(named)
    .bind(signed(order))
    .bind(limit)
    .fetch_all(connection)
    .await
}

/// Alerts of `shard` that are on, were decided before its last two complete rounds of `epoch`, and are named by neither.
///
/// # Errors
/// Postgres.
pub async fn unconfirmed(
    connection: &mut PgConnection,
    shard: &str,
    epoch: u64,
    limit: i64,
) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar(
        "with latest as (
             select round, decided_order from rounds
             where shard = $1 and epoch = $2 and cardinality(heard) >= parts order by round desc limit 2
         ), both_rounds as (
             select min(round) as round, min(decided_order) as decided_order from latest having count(*) = 2
         )
         select alert_id from firing join both_rounds on true
         where shard = $1 and firing.decided_order <= both_rounds.decided_order
           and (confirmed_epoch, confirmed_round) < ($2, both_rounds.round)
         limit $3",
    )
    .bind(shard)
    .bind(signed(epoch))
    .bind(limit)
    .fetch_all(connection)
    .await
}

/// Waits no more for anybody to confirm these, which are not on: without an end to it they would be looked at for ever.
///
/// # Errors
/// Postgres.
pub async fn leave(connection: &mut PgConnection, over: &[&str]) -> sqlx::Result<()> {
    sqlx::query("delete from firing where alert_id = any($1)").bind(over).execute(connection).await.map(|_| ())
}

/// Forgets the rounds of `shard` before the last two complete ones of `epoch`.
///
/// # Errors
/// Postgres.
pub async fn forget(connection: &mut PgConnection, shard: &str, epoch: u64) -> sqlx::Result<()> {
    sqlx::query(
        "delete from rounds where shard = $1 and (epoch < $2 or epoch = $2 and round < (
             select min(round) from (select round from rounds
                 where shard = $1 and epoch = $2 and cardinality(heard) >= parts order by round desc limit 2) latest))",
    )
    .bind(shard)
    .bind(signed(epoch))
    .execute(connection)
    .await
    .map(|_| ())
}
