//! What an error of Postgres means to a caller.

use fault::{Fault, Kind};
use sqlx::Error;
use sqlx::error::ErrorKind;

/// Whether Postgres is away, so that the same statement may succeed later.
#[must_use]
pub fn is_away(error: &Error) -> bool {
    match error {
        Error::Io(_)
        | Error::Tls(_)
        | Error::PoolTimedOut
        | Error::PoolClosed
        | Error::WorkerCrashed
        | Error::Protocol(_) => true,
        // Classes 08 (connection), 53 (resources), 57 (operator intervention), 58 (system); 40: serialization, deadlock;
        // 25006: read-only, as after a failover (PostgreSQL, Appendix A).
        Error::Database(database) => database.code().is_some_and(|code| {
            ["08", "53", "57", "58", "40"].iter().any(|class| code.starts_with(class)) || code == "25006"
        }),
        _ => false,
    }
}

/// Whether what was to be stored is itself the reason that it cannot be, so that trying again never helps. Whatever else
/// is wrong with Postgres, a missing right or table for example, somebody will put it right. A row that cannot be read
/// was written by a newer release: that is no fault of the message, and a replica of that release can handle it.
#[must_use]
pub fn is_poison(error: &Error) -> bool {
    match error {
        // Classes 21 (cardinality), 22 (data), 23 (constraints), 54 (limits, as when a key is too long for its index).
        Error::Database(database) => {
            database.code().is_some_and(|code| ["21", "22", "23", "54"].iter().any(|class| code.starts_with(class)))
        }
        Error::Encode(_) => true,
        _ => false,
    }
}

/// As [`fault`], for a list or a search: one that takes too long may be asked for less.
#[must_use]
pub fn search_fault(error: Error) -> Fault {
    if is_timeout(&error) { too_slow() } else { fault(error) }
}

/// A list or a search that takes too long, whatever takes it.
#[must_use]
pub fn too_slow() -> Fault {
    Fault::invalid("query_too_slow", "the query took too long; narrow the time range or the filters")
}

/// The fault that a caller is told when no constraint of the service explains the error better.
#[must_use]
pub fn fault(error: Error) -> Fault {
    // It waited for others, or they have all of the machine.
    if is_timeout(&error) {
        return Fault::unavailable("database_slow", "the database took too long; try again shortly", error);
    }
    if is_away(&error) {
        return Fault::unavailable("database_unavailable", "the database is away; try again shortly", error);
    }
    match &error {
        Error::Database(database) if database.kind() == ErrorKind::UniqueViolation => {
            Fault::new(Kind::Conflict, "already_exists", "there is one already").caused_by(error)
        }
        _ => Fault::internal(error),
    }
}

/// 57014: the statement timeout ended it; 25P03: a transaction in which nothing was asked for too long.
fn is_timeout(error: &Error) -> bool {
    matches!(error, Error::Database(database) if database.code().is_some_and(|code| code == "57014" || code == "25P03"))
}

/// A short reason for `/readyz`; a URL never stands in it.
pub(crate) fn reason(error: &Error) -> String {
    match error {
        Error::Io(error) => format!("Postgres cannot be reached: {error}"),
        Error::PoolTimedOut => "no connection to Postgres became free".to_owned(),
        error => format!("Postgres refuses: {error}"),
    }
}
