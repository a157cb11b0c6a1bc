//! Every SQL statement of this service, by what it is about: [`receivers`] and how they do ([`health`]); what is
//! [`added`](adding), [claimed](claiming), [finished](finishing) or never will be ([`overdue`]), and in which order
//! ([`order`]); what people see of it, the [`ledger`]; [`pruning`].
//!
//! Whoever locks several things does it in one sequence: orders, deliveries, the health of receivers, each sorted. Who goes
//! the other way passes over what is locked.

pub mod adding;
pub mod claiming;
pub mod finishing;
pub mod health;
pub mod ledger;
pub mod order;
pub mod overdue;
pub mod pruning;
pub mod receivers;

use sqlx::Row as _;
use sqlx::postgres::PgRow;
use time::OffsetDateTime;

/// Binary and folder share one set of migrations.
pub const MIGRATIONS: store::Migrations =
    store::migrations!("../../../migrations/dispatcher"; 1 "create_receivers", 2 "count_looks");

/// The schema that only this service writes.
pub const SCHEMA: &str = "dispatcher";

/// A time as Unix nanoseconds; 0 where there is none.
fn nanos(row: &PgRow, column: &str) -> sqlx::Result<u64> {
    let time: Option<OffsetDateTime> = row.try_get(column)?;
    Ok(time.map_or(0, |time| u64::try_from(time.unix_timestamp_nanos()).unwrap_or_default()))
}

/// A count; the tables hold none below 0.
fn count(row: &PgRow, column: &str) -> sqlx::Result<u32> {
    let value: i32 = row.try_get(column)?;
    u32::try_from(value).map_err(|error| sqlx::Error::Decode(error.into()))
}

fn unsigned(row: &PgRow, column: &str) -> sqlx::Result<u64> {
    let value: i64 = row.try_get(column)?;
    u64::try_from(value).map_err(|error| sqlx::Error::Decode(error.into()))
}

/// Times end in 2262; what comes from outside was checked before.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
