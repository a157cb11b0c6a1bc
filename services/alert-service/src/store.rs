//! Every SQL statement of this service, by what it is about. Statements take a batch at once.

pub mod alerts;
pub mod deliveries;
pub mod fences;
pub mod listing;
pub mod pruning;
pub mod rounds;
pub mod timers;
pub mod told;
pub mod transitions;

use sqlx::Row as _;
use sqlx::postgres::PgRow;

/// Binary and folder share one set of migrations.
pub const MIGRATIONS: store::Migrations =
    store::migrations!("../../../migrations/alert_service"; 1 "create_alerts", 2 "count_looks");

/// The schema that only this service writes.
pub const SCHEMA: &str = "alert_service";

/// Times end in 2262 and counts do not get there; what comes from outside was checked before.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned(row: &PgRow, column: &str) -> sqlx::Result<u64> {
    let value: i64 = row.try_get(column)?;
    u64::try_from(value).map_err(|error| sqlx::Error::Decode(error.into()))
}
