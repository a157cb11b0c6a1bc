//! Every SQL statement of this service. Rules here; what evaluating them needs in `lanes` and `replicas`, what is told of them
//! in `bindings`.

mod bindings;
mod lanes;
mod replicas;
mod row;

use authn::Scope;
use fault::{Fault, Kind};
use prost::Message as _;
use proto::rules::{Rule as Wire, RuleDocument};
use sha2::{Digest as _, Sha256};
use sqlx::{PgConnection, Row as _};
use store::{Pool, Pools, fault};
use uuid::Uuid;

pub use bindings::Report;
pub use lanes::{Attempt, Claim, Fenced, LaneId, Position, SavedLane};
pub use row::Stored;
use row::{COLUMNS, New, read};

/// The channel on which a change of rules is told.
pub const CHANNEL: &str = "sightline_rules";

/// The migrations of this service.
pub const MIGRATIONS: store::Migrations = store::migrations!("../../../migrations/rule_engine"; 1 "create_rules");

/// The service's tables.
#[derive(Clone)]
pub struct Store {
    pools: Pools,
    per_tenant: u32,
}

/// What changed between two revisions.
#[derive(Debug, Default)]
pub struct Changes {
    /// Ids and versions that are no longer in force.
    pub gone: Vec<(Uuid, u64)>,
    /// What is in force instead.
    pub new: Vec<Stored>,
}

/// Who asks for a change, and how it is recognised when it is asked for again.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub scope: &'a Scope,
    pub subject: &'a str,
    /// Empty when the caller gave none.
    pub idempotency_key: &'a str,
}

impl Store {
    /// `per_tenant` is how many rules one tenant may have.
    #[must_use]
    pub fn new(pools: Pools, per_tenant: u32) -> Self {
        Self { pools, per_tenant }
    }

    /// The connections for work, to listen on and to lease with.
    #[must_use]
    pub fn work(&self) -> &Pool {
        &self.pools.work
    }

    /// The rules that a caller may see, oldest first, behind the rule `after`.
    ///
    /// # Errors
    /// Postgres.
    pub async fn list(&self, scope: &Scope, after: Option<Uuid>, limit: usize) -> fault::Result<Vec<Wire>> {
        let mut found = Vec::new();
        let mut after = after;
        loop {
            // Ids are UUIDv7: their order is that of creation.
            let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
                "select {COLUMNS} from rule_versions
                 where tenant = $1 and until_revision is null and ($2::uuid is null or rule_id > $2)
                 order by rule_id limit $3"
            )))
            .bind(scope.tenant())
            .bind(after)
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&self.pools.api)
            .await
            .map_err(fault)?;
            let stored: Vec<Stored> = rows.iter().map(read).collect::<Result<_, _>>().map_err(fault)?;
            let is_last = stored.len() < limit;
            after = stored.last().map(|last| last.id);
            found.extend(stored.iter().filter(|rule| is_seen(scope, &rule.document)).map(Stored::wire));
            found.truncate(limit);
            if is_last || found.len() == limit {
                return Ok(found);
            }
        }
    }

    /// One rule that a caller may see.
    ///
    /// # Errors
    /// NotFound, or Postgres.
    pub async fn get(&self, scope: &Scope, id: Uuid) -> fault::Result<Stored> {
        let mut connection = self.pools.api.acquire().await.map_err(fault)?;
        current(&mut connection, scope, id).await
    }

    /// Creates a rule from a checked document.
    ///
    /// # Errors
    /// Conflict when the name is taken, the key was used for another document, or there are too many; Forbidden outside of
    /// the caller's scope; Postgres.
    pub async fn create(&self, request: Request<'_>, document: &RuleDocument) -> fault::Result<Stored> {
        is_allowed(request.scope, document)?;
        let id = Uuid::now_v7();
        let tenant = request.scope.tenant();
        let mut transaction = self.pools.api.begin().await.map_err(fault)?;
        if !request.idempotency_key.is_empty()
            && let Some(first) = remember(&mut transaction, request, document, id).await?
        {
            return current(&mut transaction, request.scope, first).await.map_err(|error| match error.kind() {
                Kind::NotFound => Fault::new(
                    Kind::Conflict,
                    "rule_deleted",
                    "the rule that this key created was deleted; use another key",
                ),
                _ => error,
            });
        }
        let revision = next_revision(&mut transaction).await?;
        let count: i64 =
            sqlx::query_scalar("select count(*) from rule_versions where tenant = $1 and until_revision is null")
                .bind(tenant)
                .fetch_one(&mut *transaction)
                .await
                .map_err(fault)?;
        if count >= i64::from(self.per_tenant) {
            let detail = format!(
                "there are {count} rules already, as many as a tenant may have; delete some, or raise SIGHTLINE_RULES_PER_TENANT"
            );
            return Err(Fault::new(Kind::Conflict, "too_many_rules", detail));
        }
        insert(&mut transaction, New { id, version: 1, tenant, document, before: None, revision }).await?;
        let rule = current(&mut transaction, request.scope, id).await?;
        announce(&mut transaction, revision).await?;
        transaction.commit().await.map_err(fault)?;
        Ok(rule)
    }

    /// Replaces a rule's document; the same document again changes nothing.
    ///
    /// # Errors
    /// NotFound, Stale, Conflict when the name is taken, Forbidden outside of the caller's scope, Postgres.
    pub async fn update(
        &self,
        scope: &Scope,
        id: Uuid,
        document: &RuleDocument,
        expected: u64,
    ) -> fault::Result<Stored> {
        is_allowed(scope, document)?;
        let mut transaction = self.pools.api.begin().await.map_err(fault)?;
        let revision = next_revision(&mut transaction).await?;
        let before = expect(current(&mut transaction, scope, id).await?, expected)?;
        if before.document == *document {
            return Ok(before);
        }
        retire(&mut transaction, id, revision).await?;
        let (version, tenant) = (before.version + 1, scope.tenant());
        insert(&mut transaction, New { id, version, tenant, document, before: Some(&before), revision }).await?;
        let rule = current(&mut transaction, scope, id).await?;
        announce(&mut transaction, revision).await?;
        transaction.commit().await.map_err(fault)?;
        Ok(rule)
    }

    /// Deletes a rule; its versions stay for a while.
    ///
    /// # Errors
    /// NotFound, Stale, Postgres.
    pub async fn delete(&self, scope: &Scope, id: Uuid, expected: u64) -> fault::Result<()> {
        let mut transaction = self.pools.api.begin().await.map_err(fault)?;
        let revision = next_revision(&mut transaction).await?;
        expect(current(&mut transaction, scope, id).await?, expected)?;
        retire(&mut transaction, id, revision).await?;
        announce(&mut transaction, revision).await?;
        transaction.commit().await.map_err(fault)
    }

    /// The newest revision.
    ///
    /// # Errors
    /// Postgres.
    pub async fn revision(&self) -> Result<i64, sqlx::Error> {
        let number = sqlx::query_scalar("select number from revision").fetch_one(self.work());
        self.pools.bounded(number).await
    }

    /// What it takes to come from the rules of one revision to those of another, in either direction.
    ///
    /// # Errors
    /// Postgres.
    pub async fn changes(&self, from: i64, to: i64) -> Result<Changes, sqlx::Error> {
        let (gone, new) = if to >= from {
            (
                "until_revision > $1 and until_revision <= $2 and since_revision <= $1",
                "since_revision > $1 and since_revision <= $2 and (until_revision is null or until_revision > $2)",
            )
        } else {
            (
                "since_revision > $2 and since_revision <= $1 and (until_revision is null or until_revision > $1)",
                "until_revision > $2 and until_revision <= $1 and since_revision <= $2",
            )
        };
        let select = |columns: &str, condition: &str| {
            sqlx::AssertSqlSafe(format!("select {columns} from rule_versions where {condition}"))
        };
        let read_all =
            |statement| self.pools.bounded(sqlx::query(statement).bind(from).bind(to).fetch_all(self.work()));
        let rows = read_all(select("rule_id, version", gone)).await?;
        let gone = rows.iter().map(|row| Ok((row.try_get("rule_id")?, row::number(row, "version")?)));
        let gone = gone.collect::<Result<_, sqlx::Error>>()?;
        let rows = read_all(select(COLUMNS, new)).await?;
        Ok(Changes { gone, new: rows.iter().map(read).collect::<Result<_, _>>()? })
    }
}

/// Whether a caller's scope covers a rule, by the rule's own labels.
fn is_seen(scope: &Scope, document: &RuleDocument) -> bool {
    scope.selector().matches(|name| document.labels.get(name).map(String::as_str))
}

fn is_allowed(scope: &Scope, document: &RuleDocument) -> fault::Result<()> {
    if is_seen(scope, document) {
        return Ok(());
    }
    let detail = format!("your access covers rules whose labels match {}; give the rule such labels", scope.selector());
    Err(Fault::new(Kind::Forbidden, "outside_scope", detail))
}

fn expect(rule: Stored, version: u64) -> fault::Result<Stored> {
    if version == 0 || rule.version == version {
        return Ok(rule);
    }
    let detail = format!("the rule is at version {} by now; read it again, then change it", rule.version);
    Err(Fault::new(Kind::Stale, "rule_changed", detail))
}

async fn current(connection: &mut PgConnection, scope: &Scope, id: Uuid) -> fault::Result<Stored> {
    let row = sqlx::query(sqlx::AssertSqlSafe(format!(
        "select {COLUMNS} from rule_versions where tenant = $1 and rule_id = $2 and until_revision is null"
    )))
    .bind(scope.tenant())
    .bind(id)
    .fetch_optional(connection)
    .await
    .map_err(fault)?;
    let stored = row.as_ref().map(read).transpose().map_err(fault)?;
    stored.filter(|rule| is_seen(scope, &rule.document)).ok_or_else(|| Fault::not_found("rule", &id.to_string()))
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
    // What no snapshot was made with is of no more use; the hour is for one that is being made. A lane that was not saved
    // for a day while others were belongs to no shard any more.
    sqlx::query(
        "delete from rule_versions
         where until_revision <= (
                 select coalesce(min(revision), $1) from lanes
                 where saved_at > (select max(saved_at) from lanes) - interval '1 day')
           and retired_at < now() - interval '1 hour'",
    )
    .bind(revision)
    .execute(connection)
    .await
    .map_err(fault)?;
    Ok(())
}

async fn insert(connection: &mut PgConnection, new: New<'_>) -> fault::Result<()> {
    let name = new.document.name.clone();
    row::insert(connection, new).await.map_err(|error| match &error {
        sqlx::Error::Database(database) if database.constraint() == Some("rules_by_name") => {
            Fault::new(Kind::Conflict, "rule_exists", format!("there is already a rule called `{name}`"))
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
    .bind(request.scope.tenant())
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
    .bind(request.scope.tenant())
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
