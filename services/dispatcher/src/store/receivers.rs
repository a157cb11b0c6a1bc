//! Receivers: created, found, changed, deleted, given other secrets.

use std::sync::Arc;
use std::time::Duration;

use ::seal::{Kept, Seal};
use ::store::Pools;
use authn::Scope;
use fault::{Fault, Kind};
use settings::Secret;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, PgPool, Row as _};
use uuid::Uuid;

use super::adding::NO_RECEIVER;
use crate::receiver::{self, Draft, Receiver};

/// The receivers of all tenants.
#[derive(Clone)]
pub struct Receivers {
    /// Where they lie.
    pub pools: Pools,
    /// Encrypts their secrets.
    pub seal: Arc<Seal>,
}

/// Everything of a receiver, how it does included.
const SELECT: &str = "select receivers.*, receiver_state.failures, receiver_state.held_until
    from receivers left join receiver_state on receiver_state.receiver_id = receivers.id";

impl Receivers {
    fn pool(&self) -> &PgPool {
        &self.pools.api
    }

    /// Creates a receiver, or finds the one that the same idempotency key has created.
    ///
    /// # Errors
    /// The name or the key is taken by something else; Postgres.
    pub async fn create(&self, scope: &Scope, draft: &Draft, new_secret: &Secret) -> fault::Result<Receiver> {
        if let Some(receiver) = self.repeated(scope, draft).await? {
            return Ok(receiver);
        }
        let id = Uuid::now_v7();
        let kept = self.keep(id, draft.secret.as_ref().unwrap_or(new_secret))?;
        let inserted = sqlx::query(
            "with made as (
                 insert into receivers (id, tenant, name, url, secret, secret_sealed, idempotency_key)
                 values ($1, $2, $3, $4, $5, $6, $7) returning *
             ), state as (
                 insert into receiver_state (receiver_id, tenant) select id, tenant from made
             )
             select made.*, 0 as failures, null::timestamptz as held_until from made",
        )
        .bind(id)
        .bind(scope.tenant())
        .bind(&draft.name)
        .bind(&draft.url)
        .bind(&kept.bytes)
        .bind(kept.sealed)
        .bind(&draft.idempotency_key)
        .fetch_one(self.pool())
        .await;
        match inserted {
            Ok(row) => self.read(&row),
            Err(sqlx::Error::Database(error)) if error.constraint() == Some("receivers_name") => {
                // The same request a moment ago, on another connection, may have taken the name and the key.
                match self.repeated(scope, draft).await? {
                    Some(receiver) => Ok(receiver),
                    None => Err(Fault::new(
                        Kind::Conflict,
                        "receiver_exists",
                        format!("there is a receiver named `{}` already; choose another name", draft.name),
                    )),
                }
            }
            Err(sqlx::Error::Database(error)) if error.constraint() == Some("receivers_idempotency_key") => {
                self.repeated(scope, draft).await?.ok_or_else(|| Fault::internal(sqlx::Error::Database(error)))
            }
            Err(error) => Err(store::fault(error)),
        }
    }

    async fn repeated(&self, scope: &Scope, draft: &Draft) -> fault::Result<Option<Receiver>> {
        let Some(key) = &draft.idempotency_key else { return Ok(None) };
        let query = format!("{SELECT} where receivers.tenant = $1 and idempotency_key = $2");
        let row = sqlx::query(sqlx::AssertSqlSafe(query))
            .bind(scope.tenant())
            .bind(key)
            .fetch_optional(self.pool())
            .await
            .map_err(store::fault)?;
        let Some(row) = row else { return Ok(None) };
        let receiver = self.read(&row)?;
        if draft.is_same(&receiver) {
            return Ok(Some(receiver));
        }
        let detail = "this Idempotency-Key has created another receiver; use a new key for a new document";
        Err(Fault::new(Kind::Conflict, "idempotency_key_reused", detail))
    }

    /// A page of receivers by name, behind the name `after`.
    ///
    /// # Errors
    /// Postgres.
    pub async fn list(&self, scope: &Scope, after: &str, limit: i64) -> fault::Result<Vec<Receiver>> {
        let query = format!(
            "{SELECT} where receivers.tenant = $1 and name > $2 collate \"C\" order by name collate \"C\" limit $3"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(query))
            .bind(scope.tenant())
            .bind(after)
            .bind(limit)
            .fetch_all(self.pool())
            .await
            .map_err(store::fault)?;
        rows.iter().map(|row| self.read(row)).collect()
    }

    /// One receiver, by its id or name.
    ///
    /// # Errors
    /// There is none; Postgres.
    pub async fn get(&self, scope: &Scope, id: &str) -> fault::Result<Receiver> {
        let query = format!("{SELECT} where receivers.tenant = $1 and (receivers.id = $2 or name = $3)");
        let row = sqlx::query(sqlx::AssertSqlSafe(query))
            .bind(scope.tenant())
            .bind(Uuid::parse_str(id).ok())
            .bind(id.replace('\0', ""))
            .fetch_optional(self.pool())
            .await
            .map_err(store::fault)?;
        row.map_or_else(|| Err(Fault::not_found("receiver", id)), |row| self.read(&row))
    }

    /// Gives a receiver another URL. What waits for it goes there, and at once.
    ///
    /// # Errors
    /// There is none, or not in this version; Postgres.
    pub async fn update(&self, scope: &Scope, id: &str, version: u64, url: &str) -> fault::Result<Receiver> {
        let receiver = self.expect(scope, id, version).await?;
        let changed = async {
            let mut transaction = self.pool().begin().await?;
            lock(&mut transaction, receiver.id).await?;
            sqlx::query(
                "update deliveries set next_attempt_at = now()
                 where receiver_id = $1 and is_next and claim is null and next_attempt_at > now() and awaits is null",
            )
            .bind(receiver.id)
            .execute(&mut *transaction)
            .await?;
            let changed = sqlx::query(
                "update receivers set url = $3, version = version + 1, updated_at = now() where id = $1 and version = $2",
            )
            .bind(receiver.id)
            .bind(super::signed(receiver.version))
            .bind(url)
            .execute(&mut *transaction)
            .await?;
            sqlx::query(
                "update receiver_state set failures = 0, proven = false, held_until = null, due_at = now()
                 where receiver_id = $1",
            )
            .bind(receiver.id)
            .execute(&mut *transaction)
            .await?;
            if changed.rows_affected() > 0 {
                transaction.commit().await?;
            }
            Ok(changed)
        };
        let changed = self.pools.bounded(changed).await.map_err(store::fault)?;
        if changed.rows_affected() == 0 {
            return Err(stale());
        }
        self.get(scope, &receiver.id.to_string()).await
    }

    /// Gives a receiver another secret; the old one counts for `overlap` more. One that was old already ends now.
    ///
    /// # Errors
    /// There is none, or not in this version; Postgres.
    pub async fn rotate(
        &self,
        scope: &Scope,
        id: &str,
        version: u64,
        secret: &Secret,
        overlap: Duration,
    ) -> fault::Result<Receiver> {
        let receiver = self.expect(scope, id, version).await?;
        let kept = self.keep(receiver.id, secret)?;
        let changed = sqlx::query(
            "update receivers set old_secret = secret, old_secret_sealed = secret_sealed,
                 old_secret_until = now() + $5 * interval '1 second',
                 secret = $3, secret_sealed = $4, version = version + 1, updated_at = now()
             where id = $1 and version = $2",
        )
        .bind(receiver.id)
        .bind(super::signed(receiver.version))
        .bind(&kept.bytes)
        .bind(kept.sealed)
        .bind(overlap.as_secs_f64())
        .execute(self.pool())
        .await
        .map_err(store::fault)?;
        if changed.rows_affected() == 0 {
            return Err(stale());
        }
        self.get(scope, &receiver.id.to_string()).await
    }

    /// Deletes a receiver. What waits for it waits for another of its name, for a while.
    ///
    /// # Errors
    /// There is none, or not in this version; Postgres.
    pub async fn delete(&self, scope: &Scope, id: &str, version: u64) -> fault::Result<()> {
        let receiver = self.expect(scope, id, version).await?;
        let deleted = async {
            let mut transaction = self.pool().begin().await?;
            lock(&mut transaction, receiver.id).await?;
            sqlx::query(
                "update deliveries set receiver_id = null, next_attempt_at = null, reason = $2
                 where receiver_id = $1 and state = 'pending'",
            )
            .bind(receiver.id)
            .bind(NO_RECEIVER)
            .execute(&mut *transaction)
            .await?;
            sqlx::query("delete from receiver_state where receiver_id = $1")
                .bind(receiver.id)
                .execute(&mut *transaction)
                .await?;
            let deleted = sqlx::query("delete from receivers where id = $1 and version = $2")
                .bind(receiver.id)
                .bind(super::signed(receiver.version))
                .execute(&mut *transaction)
                .await?;
            if deleted.rows_affected() > 0 {
                transaction.commit().await?;
            }
            Ok(deleted.rows_affected())
        };
        match self.pools.bounded(deleted).await.map_err(store::fault)? {
            0 => Err(stale()),
            _ => Ok(()),
        }
    }

    /// Which of these names no receiver has.
    ///
    /// # Errors
    /// Postgres.
    pub async fn missing(&self, scope: &Scope, names: &[String]) -> fault::Result<Vec<String>> {
        sqlx::query_scalar(
            "select distinct asked from unnest($2::text[]) asked
             where not exists (select from receivers where tenant = $1 and name = asked) order by asked",
        )
        .bind(scope.tenant())
        .bind(names)
        .fetch_all(self.pool())
        .await
        .map_err(store::fault)
    }

    async fn expect(&self, scope: &Scope, id: &str, version: u64) -> fault::Result<Receiver> {
        let receiver = self.get(scope, id).await?;
        if version != 0 && version != receiver.version { Err(stale()) } else { Ok(receiver) }
    }

    fn keep(&self, id: Uuid, secret: &Secret) -> fault::Result<Kept> {
        self.seal.close(&id.to_string(), secret.reveal().as_bytes()).map_err(Fault::internal)
    }

    fn read(&self, row: &PgRow) -> fault::Result<Receiver> {
        let (mut receiver, kept) = read(row).map_err(store::fault)?;
        // One that cannot be read is no reason to hide the receiver: somebody has to rotate it.
        receiver.secret = receiver::open(&self.seal, receiver.id, &kept).ok();
        Ok(receiver)
    }
}

/// Locks a receiver, so that nobody gives it anything more, and then what waits for it: everybody takes the locks in this order,
/// deliveries by their ids, and the receiver's state last.
async fn lock(connection: &mut PgConnection, receiver: Uuid) -> sqlx::Result<()> {
    sqlx::query("select from receivers where id = $1 for update").bind(receiver).execute(&mut *connection).await?;
    sqlx::query(
        "select from deliveries where receiver_id = $1 and state = 'pending' order by id collate \"C\" for no key update",
    )
    .bind(receiver)
    .execute(connection)
    .await
    .map(|_| ())
}

fn stale() -> Fault {
    let detail = "the receiver has changed since it was read; read it again and repeat the change";
    Fault::new(Kind::Stale, "receiver_changed", detail)
}

fn read(row: &PgRow) -> sqlx::Result<(Receiver, Kept)> {
    let kept = Kept { bytes: row.try_get("secret")?, sealed: row.try_get("secret_sealed")? };
    let failures: Option<i32> = row.try_get("failures")?;
    let version: i64 = row.try_get("version")?;
    let receiver = Receiver {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        url: row.try_get("url")?,
        secret: None,
        created: super::nanos(row, "created_at")?,
        updated: super::nanos(row, "updated_at")?,
        version: u64::try_from(version).unwrap_or_default(),
        old_secret_until: super::nanos(row, "old_secret_until")?,
        failures: failures.and_then(|failures| u32::try_from(failures).ok()).unwrap_or_default(),
        held_until: super::nanos(row, "held_until")?,
    };
    Ok((receiver, kept))
}
