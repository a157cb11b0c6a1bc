//! In which order a receiver hears of one group: of the deliveries that are pending one is the next, by its sequence, and
//! the others wait. Kept when something comes or goes, so that nobody has to look through what waits.

use std::collections::BTreeSet;

use sqlx::{PgConnection, Row as _};

use uuid::Uuid;

/// A receiver, by name, and a group.
pub type Line = (String, String);

/// Keeps everybody else from changing these until the transaction ends.
///
/// # Errors
/// Postgres.
pub async fn lock(connection: &mut PgConnection, lines: &BTreeSet<Line>) -> sqlx::Result<()> {
    let (receivers, groups) = columns(lines);
    sqlx::query(
        "with keys as materialized (
             select distinct hashtextextended(receiver || '/' || group_id, 1) as key
             from unnest($1::text[], $2::text[]) line (receiver, group_id) order by 1)
         select pg_advisory_xact_lock(key) from keys",
    )
    .bind(receivers)
    .bind(groups)
    .execute(connection)
    .await
    .map(|_| ())
}

/// Says which delivery is the next of these; gives the receivers that have something new to do. They must be locked.
///
/// # Errors
/// Postgres.
pub async fn settle(connection: &mut PgConnection, lines: &BTreeSet<Line>) -> sqlx::Result<BTreeSet<Uuid>> {
    let (receivers, groups) = columns(lines);
    let rows = sqlx::query(
        "select line.receiver, line.group_id,
             (select id from deliveries d
              where d.receiver = line.receiver and d.group_id = line.group_id and d.is_next) as held,
             (select id from deliveries d
              where d.receiver = line.receiver and d.group_id = line.group_id and d.state = 'pending'
              order by sequence, number limit 1) as first
         from unnest($1::text[], $2::text[]) line (receiver, group_id)",
    )
    .bind(receivers)
    .bind(groups)
    .fetch_all(&mut *connection)
    .await?;
    let (mut leave, mut take, mut empty) = (Vec::new(), Vec::new(), Vec::new());
    for row in &rows {
        let (held, first): (Option<String>, Option<String>) = (row.try_get("held")?, row.try_get("first")?);
        match (held, first) {
            (Some(held), Some(first)) if held != first => {
                leave.push(held);
                take.push(first);
            }
            (None, Some(first)) => empty.push(first),
            (_, None) | (Some(_), Some(_)) => {}
        }
    }
    // One that is on its way is not overtaken any more.
    let left: Vec<String> = sqlx::query_scalar(
        "update deliveries set is_next = false
         where id = any($1) and (claim is null or claimed_until < clock_timestamp()) returning id",
    )
    .bind(&leave)
    .fetch_all(&mut *connection)
    .await?;
    let taken = leave.iter().zip(take).filter(|(held, _)| left.contains(held)).map(|(_, first)| first);
    empty.extend(taken);
    if empty.is_empty() {
        return Ok(BTreeSet::new());
    }
    let receivers = sqlx::query_scalar("update deliveries set is_next = true where id = any($1) returning receiver_id");
    let receivers: Vec<Option<Uuid>> = receivers.bind(&empty).fetch_all(connection).await?;
    Ok(receivers.into_iter().flatten().collect())
}

fn columns(lines: &BTreeSet<Line>) -> (Vec<&str>, Vec<&str>) {
    lines.iter().map(|(receiver, group)| (receiver.as_str(), group.as_str())).unzip()
}
