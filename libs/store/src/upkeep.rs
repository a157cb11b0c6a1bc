//! Work that one replica does for all from time to time: partitions, an end to what is past its retention.

use std::time::Duration;

use lifecycle::CancellationToken;
use uuid::Uuid;

use crate::{Lease, Pool};

/// After a round that failed.
const AGAIN: Duration = Duration::from_secs(10);

/// Does `round` at once and then every `every`, on the replica that holds the lease `name`, until the process stops; then
/// the round that runs is dropped. Should a replica vanish, another goes on after twice that time.
///
/// A round that takes longer may meet one of another replica, so two at once must do no harm.
///
/// # Errors
/// None: what cannot be done now is done later.
pub async fn upkeep<R>(
    pool: Pool,
    name: &'static str,
    every: Duration,
    stopping: CancellationToken,
    round: impl Fn() -> R,
) -> anyhow::Result<()>
where
    R: Future<Output = Result<(), sqlx::Error>>,
{
    let owner = Uuid::new_v4();
    let mut lease = None;
    let rounds = async {
        loop {
            let done = async {
                lease = Lease::acquire(&pool, name, owner, every * 2).await?;
                if lease.is_some() { round().await } else { Ok(()) }
            };
            // By then another may have taken the lease over; a silent Postgres must not end the upkeep for ever.
            let done = tokio::time::timeout(every * 2, done).await;
            let pause = match done.unwrap_or(Err(sqlx::Error::PoolTimedOut)) {
                Ok(()) => every,
                Err(error) => {
                    tracing::warn!(name, %error, "cannot do the upkeep; trying again");
                    every.min(AGAIN)
                }
            };
            tokio::time::sleep(pause).await;
        }
    };
    stopping.run_until_cancelled(rounds).await;
    if let Some(lease) = lease {
        // Whoever comes next need not wait; if this fails, the lease ends by itself.
        let _ = lease.release(&pool).await;
    }
    Ok(())
}
