//! Every SQL statement that writes.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::{Error, PgConnection, Postgres, Transaction};
use store::Pools;

use crate::copy::Rows;
use crate::known::Known;
use crate::record::{Content, LogRecord, LogResource, Part, Snapshot};

const COPY_LOGS: &str = "copy logs (tenant, time_ns, batch, part, idx, observed_ns, resource_ref, resource_id, \
    host_name, service_name, source, severity, severity_text, body, attributes, trace_id, span_id) \
    from stdin (format binary)";
const COPY_SNAPSHOTS: &str = "copy process_snapshots (tenant, resource_id, time_ns, batch, part, agent_id, host_name) \
    from stdin (format binary)";
const COPY_PROCESSES: &str = "copy processes (tenant, resource_id, time_ns, batch, part, pid, ppid, user_name, \
    executable, command_line, cpu_percent, memory_percent, threads, start_ns, labels) from stdin (format binary)";
/// Held by whoever inserts into `applied`, and alone by whoever begins a new day of it. Any number that no other lock of the
/// database uses.
pub(crate) const APPLIED_LOCK: i64 = 0x5167_6874_6170_7064;

/// What became of a transaction's parts, in items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) items: u64,
    pub(crate) duplicates: u64,
}

/// The tables, and what is known to be in them.
pub(crate) struct Tables {
    pub(crate) pools: Pools,
    /// Whether what was stored before is left out.
    pub(crate) batch_check: bool,
    pub(crate) known: Known,
}

impl Tables {
    /// Stores parts, each once; with the batch check off, every time that they come. Ends in time.
    pub(crate) async fn store(&self, parts: &[&Part]) -> Result<Stored, Error> {
        let resources = self.unknown(parts);
        let stored = self.pools.bounded(self.transact(parts, &resources)).await?;
        self.known.learn(resources.iter().map(|(tenant, resource)| ((*tenant).clone(), resource.reference)));
        Ok(stored)
    }

    /// Each resource of the parts once, but for those that were written down a short while ago.
    fn unknown<'a>(&self, parts: &[&'a Part]) -> Vec<(&'a Arc<str>, &'a LogResource)> {
        let mut resources: Vec<(&Arc<str>, &LogResource)> = parts
            .iter()
            .filter_map(|part| match &part.content {
                Content::Logs { resource, .. } => Some((&part.tenant, resource)),
                Content::Processes(_) => None,
            })
            .filter(|(tenant, resource)| !self.known.contains(tenant, resource.reference))
            .collect();
        resources.sort_by_key(|(tenant, resource)| (*tenant, resource.reference));
        resources.dedup_by_key(|(tenant, resource)| (*tenant, resource.reference));
        resources
    }

    async fn transact(&self, parts: &[&Part], resources: &[(&Arc<str>, &LogResource)]) -> Result<Stored, Error> {
        let mut transaction = self.pools.work.begin().await?;
        let fresh = if self.batch_check { not_applied(&mut transaction, parts).await? } else { parts.to_vec() };
        put_resources(&mut transaction, resources).await?;
        copy_logs(&mut transaction, &fresh).await?;
        copy_processes(&mut transaction, &fresh).await?;
        transaction.commit().await?;
        let count = |parts: &[&Part]| parts.iter().map(|part| part.items() as u64).sum::<u64>();
        let items = count(&fresh);
        Ok(Stored { items, duplicates: count(parts) - items })
    }
}

/// Tenant, batch and part: what a part is known by.
type Key<'a> = (&'a str, [u8; 16], i32);

/// Records the parts as applied and gives those that were not applied before.
async fn not_applied<'a>(
    transaction: &mut Transaction<'_, Postgres>,
    parts: &[&'a Part],
) -> Result<Vec<&'a Part>, Error> {
    // The same part may be here twice; only its first appearance counts. Sorted, so that two writers that insert the
    // same parts wait for each other instead of deadlocking.
    let mut wanted: Vec<(Key<'_>, &Part)> =
        parts.iter().map(|part| ((&*part.tenant, part.batch, part.part), *part)).collect();
    wanted.sort_by_key(|(key, _)| *key);
    wanted.dedup_by_key(|(key, _)| *key);
    let tenants: Vec<&str> = wanted.iter().map(|((tenant, ..), _)| *tenant).collect();
    let batches: Vec<&[u8]> = wanted.iter().map(|(_, part)| part.batch.as_slice()).collect();
    let numbers: Vec<i32> = wanted.iter().map(|((_, _, part), _)| *part).collect();
    sqlx::query("select pg_advisory_xact_lock_shared($1)").bind(APPLIED_LOCK).execute(&mut **transaction).await?;
    // `limit 1` keeps the look at the days before in the index: without it, the planner may choose to read them whole.
    let inserted: Vec<(String, Vec<u8>, i32)> = sqlx::query_as(
        "insert into applied (day, tenant, batch, part)
         select today.day, new.tenant, new.batch, new.part
         from applied_day today, unnest($1::text[], $2::bytea[], $3::int[]) as new (tenant, batch, part)
         left join lateral (
             select true as found from applied before
             where before.tenant = new.tenant and before.batch = new.batch and before.part = new.part limit 1
         ) before on true
         where before.found is null
         order by new.tenant, new.batch, new.part
         on conflict do nothing
         returning tenant, batch, part",
    )
    .bind(&tenants)
    .bind(&batches)
    .bind(&numbers)
    .fetch_all(&mut **transaction)
    .await?;
    let mut by_key: HashMap<(&str, &[u8], i32), &Part> =
        wanted.iter().map(|((tenant, _, number), part)| ((*tenant, part.batch.as_slice(), *number), *part)).collect();
    Ok(inserted
        .iter()
        .filter_map(|(tenant, batch, part)| by_key.remove(&(tenant.as_str(), batch.as_slice(), *part)))
        .collect())
}

/// Writes down what is new, and when the rest was seen last. Neither waits for another writer that does the same, unless
/// both are the first to see a resource.
async fn put_resources(
    transaction: &mut Transaction<'_, Postgres>,
    resources: &[(&Arc<str>, &LogResource)],
) -> Result<(), Error> {
    if resources.is_empty() {
        return Ok(());
    }
    let tenants: Vec<&str> = resources.iter().map(|(tenant, _)| &***tenant).collect();
    let references: Vec<i64> = resources.iter().map(|(_, resource)| resource.reference).collect();
    sqlx::query(
        "insert into log_resources (tenant, ref, resource_id, attributes, labels)
         select t, r, i, a::jsonb, l::jsonb
         from unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[]) as new (t, r, i, a, l)
         on conflict do nothing",
    )
    .bind(&tenants)
    .bind(&references)
    .bind(resources.iter().map(|(_, resource)| resource.id.as_str()).collect::<Vec<&str>>())
    .bind(resources.iter().map(|(_, resource)| resource.attributes.as_str()).collect::<Vec<&str>>())
    .bind(resources.iter().map(|(_, resource)| resource.labels.as_str()).collect::<Vec<&str>>())
    .execute(&mut **transaction)
    .await?;
    sqlx::query(
        "update log_resources as known set last_seen = now()
         from (
             select tenant, ref from log_resources
             where (tenant, ref) in (select * from unnest($1::text[], $2::bigint[]))
               and last_seen < now() - interval '1 hour'
             for update skip locked
         ) as seen
         where known.tenant = seen.tenant and known.ref = seen.ref",
    )
    .bind(&tenants)
    .bind(&references)
    .execute(&mut **transaction)
    .await
    .map(|_| ())
}

async fn copy_logs(connection: &mut PgConnection, parts: &[&Part]) -> Result<(), Error> {
    let mut copying = Copying::default();
    for part in parts {
        let Content::Logs { resource, records } = &part.content else { continue };
        for record in records {
            push_log(copying.rows(), part, resource, record);
            copying.send(connection, COPY_LOGS).await?;
        }
    }
    copying.end(connection, COPY_LOGS).await
}

async fn copy_processes(connection: &mut PgConnection, parts: &[&Part]) -> Result<(), Error> {
    let (mut snapshots, mut processes) = (Copying::default(), Copying::default());
    for part in parts {
        let Content::Processes(snapshot) = &part.content else { continue };
        push_snapshot(snapshots.rows(), part, snapshot);
        for process in &snapshot.processes {
            push_process(processes.rows(), part, snapshot, process);
        }
        // One after the other: a connection copies into one table at a time.
        processes.send(connection, COPY_PROCESSES).await?;
    }
    processes.end(connection, COPY_PROCESSES).await?;
    snapshots.end(connection, COPY_SNAPSHOTS).await
}

/// Rows on their way into a table, sent in pieces, so that those of a batch are never in memory twice.
#[derive(Default)]
struct Copying {
    rows: Option<Rows>,
}

impl Copying {
    fn rows(&mut self) -> &mut Rows {
        self.rows.get_or_insert_with(Rows::new)
    }

    /// Sends what is there when it is worth it.
    async fn send(&mut self, connection: &mut PgConnection, statement: &str) -> Result<(), Error> {
        if self.rows.as_ref().is_some_and(Rows::is_enough) {
            self.end(connection, statement).await?;
        }
        Ok(())
    }

    /// Sends what is there.
    async fn end(&mut self, connection: &mut PgConnection, statement: &str) -> Result<(), Error> {
        let Some(rows) = self.rows.take() else { return Ok(()) };
        let mut sink = connection.copy_in_raw(statement).await?;
        sink.send(rows.finish()).await?;
        sink.finish().await.map(|_| ())
    }
}

fn push_log(rows: &mut Rows, part: &Part, resource: &LogResource, record: &LogRecord) {
    rows.begin(17)
        .text(&part.tenant)
        .i64(record.time_ns)
        .bytes(&part.batch)
        .i32(part.part)
        .i32(record.index)
        .i64(record.observed_ns)
        .i64(resource.reference)
        .text(&resource.id)
        .text(&resource.host_name)
        .text(&resource.service_name)
        .text(&record.source)
        .i16(record.severity)
        .text(&record.severity_text)
        .text(&record.body)
        .jsonb(&record.attributes)
        .bytes(&record.trace_id)
        .bytes(&record.span_id);
}

fn push_snapshot(rows: &mut Rows, part: &Part, snapshot: &Snapshot) {
    rows.begin(7)
        .text(&part.tenant)
        .text(&snapshot.resource_id)
        .i64(snapshot.time_ns)
        .bytes(&part.batch)
        .i32(part.part)
        .text(&snapshot.agent_id)
        .text(&snapshot.host_name);
}

fn push_process(rows: &mut Rows, part: &Part, snapshot: &Snapshot, process: &proto::telemetry::Process) {
    let labels = serde_json::to_string(&process.labels).unwrap_or_default();
    rows.begin(15)
        .text(&part.tenant)
        .text(&snapshot.resource_id)
        .i64(snapshot.time_ns)
        .bytes(&part.batch)
        .i32(part.part)
        .i32(process.pid)
        .i32(process.ppid)
        .text(&process.user)
        .text(&process.executable)
        .text(&process.command_line)
        .f64(process.cpu_percent)
        .f64(process.memory_percent)
        .i32(process.threads)
        .i64(i64::try_from(process.start_time_unix_nano).unwrap_or_default())
        .jsonb(&labels);
}
