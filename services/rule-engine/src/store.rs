//! Every SQL statement of this service. Rules here; what evaluating them needs in `evaluation`.

mod evaluation;
mod row;

use fault::{Fault, Kind};
use prost::Message as _;
use proto::rules::{Rule as Wire, RuleDocument};
use sha2::{Digest as _, Sha256};
use sqlx::{PgConnection, Row as _};
use store::{Pool, fault};
use uuid::Uuid;

use crate::rule::Rule;

pub use evaluation::{Claim, Fenced, Position, Snapshot};
use row::{COLUMNS, wire};

/// The channel on which a change of rules is told.
pub const CHANNEL: &str = "sightline_rules";

/// The migrations of this service.
pub const MIGRATIONS: store::Migrations = store::migrations!("../../../migrations/rule_engine"; 1 "create_rules");

/// The service's tables.
#[derive(Clone)]
pub struct Store {
    pool: Pool,
}

/// Who asks for a change, and how it is recognised when it is asked for again.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub tenant: &'a str,
    pub subject: &'a str,
    /// Empty when the caller gave none.
    pub idempotency_key: &'a str,
}

impl Store {
    #[must_use]
    pub fn new(pool: Pool) -> Self {
        Self { pool }
    }

    /// The pool, to listen on.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// A page of a tenant's rules, oldest first, behind the rule `after`.
    ///
    /// # Errors
    /// Postgres.
    pub async fn list(&self, tenant: &str, after: Option<Uuid>, limit: i64) -> fault::Result<Vec<Wire>> {
        // Ids are UUIDv7: their order is that of creation.
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
            "select {COLUMNS} from rule_versions
             where tenant = $1 and until_revision is null and ($2::uuid is null or rule_id > $2)
             order by rule_id limit $3"
        )))
        .bind(tenant)
        .bind(after)
        .bind(limit)
        .fetch_all(&self.pool)
        .await
        .map_err(fault)?;
        rows.iter().map(wire).collect::<Result<_, _>>().map_err(fault)
    }

    /// One rule of a tenant.
    ///
    /// # Errors
    /// NotFound, or Postgres.
    pub async fn get(&self, tenant: &str, id: Uuid) -> fault::Result<Wire> {
        let mut connection = self.pool.acquire().await.map_err(fault)?;
        current(&mut connection, tenant, id).await
    }

    /// Creates a rule from a checked document.
    ///
    /// # Errors
    /// Conflict when the name is taken or the key was used for another document; Postgres.
    pub async fn create(&self, request: Request<'_>, document: &RuleDocument) -> fault::Result<Wire> {
        let id = Uuid::now_v7();
        let mut transaction = self.pool.begin().await.map_err(fault)?;
        if !request.idempotency_key.is_empty()
            && let Some(first) = remember(&mut transaction, request, document, id).await?
        {
            return current(&mut transaction, request.tenant, first).await.map_err(|error| match error.kind() {
                Kind::NotFound => Fault::new(
                    Kind::Conflict,
                    "rule_deleted",
                    "the rule that this key created was deleted; use another key",
                ),
                _ => error,
            });
        }
        let revision = next_revision(&mut transaction).await?;
        insert(&mut transaction, request.tenant, id, 1, document, None, revision).await?;
        let rule = current(&mut transaction, request.tenant, id).await?;
        announce(&mut transaction, revision).await?;
        transaction.commit().await.map_err(fault)?;
        Ok(rule)
    }

    /// Replaces a rule's document; the same document again changes nothing.
    ///
    /// # Errors
    /// NotFound, Stale, Conflict when the name is taken, Postgres.
    pub async fn update(&self, tenant: &str, id: Uuid, document: &RuleDocument, expected: u64) -> fault::Result<Wire> {
        let mut transaction = self.pool.begin().await.map_err(fault)?;
        let revision = next_revision(&mut transaction).await?;
        let before = expect(current(&mut transaction, tenant, id).await?, expected)?;
        if before.document.as_ref() == Some(document) {
            return Ok(before);
        }
        retire(&mut transaction, id, revision).await?;
        insert(&mut transaction, tenant, id, before.version + 1, document, Some(&before), revision).await?;
        let rule = current(&mut transaction, tenant, id).await?;
        announce(&mut transaction, revision).await?;
        transaction.commit().await.map_err(fault)?;
        Ok(rule)
    }

    /// Deletes a rule; its versions stay for a while.
    ///
    /// # Errors
    /// NotFound, Stale, Postgres.
    pub async fn delete(&self, tenant: &str, id: Uuid, expected: u64) -> fault::Result<()> {
        let mut transaction = self.pool.begin().await.map_err(fault)?;
        let revision = next_revision(&mut transaction).await?;
        expect(current(&mut transaction, tenant, id).await?, expected)?;
        retire(&mut transaction, id, revision).await?;
        announce(&mut transaction, revision).await?;
        transaction.commit().await.map_err(fault)
    }

    /// The newest revision.
    ///
    /// # Errors
    /// Postgres.
    pub async fn revision(&self) -> Result<i64, sqlx::Error> {
        sqlx::query_scalar("select number from revision").fetch_one(&self.pool).await
    }

    /// The rules in force at `revision`; those in `known`, by id and version, are lent, not made again.
    ///
    /// # Errors
    /// Postgres.
    pub async fn rules_at(
        &self,
        revision: i64,
        known: &crate::book::Book,
    ) -> Result<Vec<std::sync::Arc<Rule>>, sqlx::Error> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
            "select {COLUMNS} from rule_versions
             where since_revision <= $1 and (until_revision is null or until_revision > $1)"
        )))
        .bind(revision)
        .fetch_all(&self.pool)
        .await?;
        let mut rules = Vec::with_capacity(rows.len());
        for row in &rows {
            let id: Uuid = row.try_get("rule_id")?;
            let version = row::number(row, "version")?;
            if let Some(rule) = known.rule(id).filter(|rule| rule.version == version) {
                rules.push(std::sync::Arc::clone(rule));
                continue;
            }
            let document = wire(row)?.document.unwrap_or_default();
            match Rule::new(id, version, row.try_get("tenant")?, document) {
                Ok(rule) => rules.push(std::sync::Arc::new(rule)),
                Err(error) => tracing::error!(rule = %id, %error, "a stored rule cannot be evaluated; it is left out"),
            }
        }
        Ok(rules)
    }
}

fn expect(rule: Wire, version: u64) -> fault::Result<Wire> {
    if version == 0 || rule.version == version {
        return Ok(rule);
    }
    let detail = format!("the rule is at version {} by now; read it again, then change it", rule.version);
    Err(Fault::new(Kind::Stale, "rule_changed", detail))
}

async fn current(connection: &mut PgConnection, tenant: &str, id: Uuid) -> fault::Result<Wire> {
    let row = sqlx::query(sqlx::AssertSqlSafe(format!(
        "select {COLUMNS} from rule_versions where tenant = $1 and rule_id = $2 and until_revision is null"
    )))
    .bind(tenant)
    .bind(id)
    .fetch_optional(connection)
    .await
    .map_err(fault)?;
    let row = row.ok_or_else(|| Fault::not_found("rule", &id.to_string()))?;
    wire(&row).map_err(fault)
}

/// Also keeps other changes waiting until this one is committed.
async fn next_revision(connection: &mut PgConnection) -> fault::Result<i64> {
    sqlx::query_scalar("update revision set number = number + 1 returning number")
        .fetch_one(connection)
        .await
        .map_err(fault)
}

async fn retire(connection: &mut PgConnection, id: Uuid, revision: i64) -> fault::Result<()> {
    sqlx::query(
        "update rule_versions set until_revision = $2, retired_at = now() where rule_id = $1 and until_revision is null",
    )
    .bind(id)
    .bind(revision)
    .execute(&mut *connection)
    .await
    .map_err(fault)?;
    // What no snapshot was made with is of no more use; the hour is for one that is being made.
    sqlx::query(
        "delete from rule_versions
         where until_revision <= (select coalesce(min(revision), $1) from snapshots)
           and retired_at < now() - interval '1 hour'",
    )
    .bind(revision)
    .execute(connection)
    .await
    .map_err(fault)?;
    Ok(())
}

async fn insert(
    connection: &mut PgConnection,
    tenant: &str,
    id: Uuid,
    version: u64,
    document: &RuleDocument,
    before: Option<&Wire>,
    revision: i64,
) -> fault::Result<()> {
    let inserted =
        row::insert(connection, tenant, id, version, document, before.map(|b| b.created_unix_nano), revision).await;
    inserted.map_err(|error| match &error {
        sqlx::Error::Database(database) if database.constraint() == Some("rules_by_name") => {
            let detail = format!("there is already a rule called `{}`", document.name);
            Fault::new(Kind::Conflict, "rule_exists", detail)
        }
        _ => fault(error),
    })
}

async fn announce(connection: &mut PgConnection, revision: i64) -> fault::Result<()> {
    sqlx::query("select pg_notify($1, $2)")
        .bind(CHANNEL)
        .bind(revision.to_string())
        .execute(connection)
        .await
        .map(|_| ())
        .map_err(fault)
}

/// Claims an idempotency key for `id`, or gives the rule that it was claimed for before. A concurrent request with the
/// same key waits here for the first one's end.
async fn remember(
    connection: &mut PgConnection,
    request: Request<'_>,
    document: &RuleDocument,
    id: Uuid,
) -> fault::Result<Option<Uuid>> {
    sqlx::query("delete from idempotency_keys where created_at < now() - interval '1 day'")
        .execute(&mut *connection)
        .await
        .map_err(fault)?;
    let hash = document_hash(document);
    let claimed = sqlx::query(
        "insert into idempotency_keys (tenant, subject, key, document_hash, rule_id) values ($1, $2, $3, $4, $5)
         on conflict do nothing",
    )
    .bind(request.tenant)
    .bind(request.subject)
    .bind(request.idempotency_key)
    .bind(&hash)
    .bind(id)
    .execute(&mut *connection)
    .await
    .map_err(fault)?;
    if claimed.rows_affected() == 1 {
        return Ok(None);
    }
    let (known, first): (Vec<u8>, Uuid) = sqlx::query_as(
        "select document_hash, rule_id from idempotency_keys where tenant = $1 and subject = $2 and key = $3",
    )
    .bind(request.tenant)
    .bind(request.subject)
    .bind(request.idempotency_key)
    .fetch_one(connection)
    .await
    .map_err(fault)?;
    if known == hash {
        return Ok(Some(first));
    }
    let detail = "this idempotency key was used for another document; use a new key for a new rule";
    Err(Fault::new(Kind::Conflict, "idempotency_key_reused", detail))
}

/// Maps have no order on the wire: they are hashed sorted.
fn document_hash(document: &RuleDocument) -> Vec<u8> {
    let mut rest = document.clone();
    let mut pairs: Vec<(u8, String, String)> = Vec::new();
    pairs.extend(rest.labels.drain().map(|(name, value)| (0, name, value)));
    pairs.extend(rest.annotations.drain().map(|(name, value)| (1, name, value)));
    pairs.sort_unstable();
    let mut hash = Sha256::new();
    hash.update(rest.encode_to_vec());
    hash.update(format!("{pairs:?}"));
    hash.finalize().to_vec()
}
