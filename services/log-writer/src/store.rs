//! Every SQL statement that writes.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::{Error, PgConnection, Postgres, Transaction};
use store::Pool;

use crate::copy::Rows;
use crate::record::{Content, LogRecord, LogResource, Part, Snapshot};
use crate::severity;

const COPY_LOGS: &str = "copy logs (tenant, time_ns, batch, part, idx, observed_ns, resource_ref, resource_id, \
    host_name, service_name, source, severity, level, body, attributes, trace_id, span_id) from stdin (format binary)";
const COPY_SNAPSHOTS: &str = "copy process_snapshots (tenant, resource_id, time_ns, batch, part, agent_id, host_name) \
    from stdin (format binary)";
const COPY_PROCESSES: &str = "copy processes (tenant, resource_id, time_ns, batch, part, pid, ppid, user_name, \
    executable, command_line, cpu_percent, memory_percent, threads, start_ns, labels) from stdin (format binary)";

/// What became of a transaction's parts, in items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) items: u64,
    pub(crate) duplicates: u64,
}

/// Stores parts, each once; with `batch_check` off, every time that they come.
pub(crate) async fn store(pool: &Pool, parts: &[&Part], batch_check: bool) -> Result<Stored, Error> {
    let mut transaction = pool.begin().await?;
    let fresh: Vec<&Part> = if batch_check { not_applied(&mut transaction, parts).await? } else { parts.to_vec() };
    put_resources(&mut transaction, &fresh).await?;
    let mut logs = Rows::new();
    let mut snapshots = Rows::new();
    let mut processes = Rows::new();
    for part in &fresh {
        match &part.content {
            Content::Logs { resource, records } => {
                records.iter().for_each(|record| push_log(&mut logs, part, resource, record));
            }
            Content::Processes(snapshot) => push_snapshot(&mut snapshots, &mut processes, part, snapshot),
        }
    }
    copy(&mut transaction, COPY_LOGS, logs).await?;
    copy(&mut transaction, COPY_SNAPSHOTS, snapshots).await?;
    copy(&mut transaction, COPY_PROCESSES, processes).await?;
    transaction.commit().await?;
    let count = |parts: &[&Part]| parts.iter().map(|part| part.items() as u64).sum::<u64>();
    let items = count(&fresh);
    Ok(Stored { items, duplicates: count(parts) - items })
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
    let inserted: Vec<(String, Vec<u8>, i32)> = sqlx::query_as(
        "insert into applied (tenant, batch, part)
         select * from unnest($1::text[], $2::bytea[], $3::int[])
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

async fn put_resources(transaction: &mut Transaction<'_, Postgres>, parts: &[&Part]) -> Result<(), Error> {
    let mut resources: Vec<(&Arc<str>, &LogResource)> = parts
        .iter()
        .filter_map(|part| match &part.content {
            Content::Logs { resource, .. } => Some((&part.tenant, resource)),
            Content::Processes(_) => None,
        })
        .collect();
    resources.sort_by_key(|(tenant, resource)| (*tenant, resource.reference));
    resources.dedup_by_key(|(tenant, resource)| (*tenant, resource.reference));
    if resources.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "insert into log_resources as known (tenant, ref, resource_id, attributes)
         select t, r, i, a::jsonb from unnest($1::text[], $2::bigint[], $3::text[], $4::text[]) as new (t, r, i, a)
         on conflict (tenant, ref) do update set last_seen = now()
         where known.last_seen < now() - interval '1 hour'",
    )
    .bind(resources.iter().map(|(tenant, _)| &***tenant).collect::<Vec<&str>>())
    .bind(resources.iter().map(|(_, resource)| resource.reference).collect::<Vec<i64>>())
    .bind(resources.iter().map(|(_, resource)| resource.id.as_str()).collect::<Vec<&str>>())
    .bind(resources.iter().map(|(_, resource)| resource.attributes.as_str()).collect::<Vec<&str>>())
    .execute(&mut **transaction)
    .await
    .map(|_| ())
}

async fn copy(connection: &mut PgConnection, statement: &str, rows: Rows) -> Result<(), Error> {
    if rows.count() == 0 {
        return Ok(());
    }
    let mut sink = connection.copy_in_raw(statement).await?;
    sink.send(rows.finish()).await?;
    sink.finish().await.map(|_| ())
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
        .text(severity::name(record.severity))
        .text(&record.body)
        .jsonb(&record.attributes)
        .bytes(&record.trace_id)
        .bytes(&record.span_id);
}

fn push_snapshot(snapshots: &mut Rows, processes: &mut Rows, part: &Part, snapshot: &Snapshot) {
    snapshots
        .begin(7)
        .text(&part.tenant)
        .text(&snapshot.resource_id)
        .i64(snapshot.time_ns)
        .bytes(&part.batch)
        .i32(part.part)
        .text(&snapshot.agent_id)
        .text(&snapshot.host_name);
    for process in &snapshot.processes {
        let labels = serde_json::to_string(&process.labels).unwrap_or_default();
        processes
            .begin(15)
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
}
