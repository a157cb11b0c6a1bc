//! Every SQL statement of this service: [`receivers`], [`deliveries`] and what people see of them, the [`ledger`],
//! [`pruning`].

pub mod deliveries;
pub mod ledger;
pub mod pruning;
pub mod receivers;

use sqlx::Row as _;
use sqlx::postgres::PgRow;
use time::OffsetDateTime;

/// Binary and folder share one set of migrations.
pub const MIGRATIONS: store::Migrations =
    store::migrations!("../../../migrations/dispatcher"; 1 "create_receivers", 2 "index_ages");

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

/// Times end in 2262; what comes from outside was checked before.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
