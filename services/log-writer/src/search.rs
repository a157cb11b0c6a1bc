//! Every SQL statement that reads.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use authn::Scope;
use fault::Fault;
use futures::TryStreamExt as _;
use model::Level;
use proto::logs::{LogRecord, ProcessRow};
use regex::Regex;
use selector::Selector;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Postgres, Row as _, Transaction};
use store::Pool;

use crate::resources::Chosen;

/// Rows that one statement reads while they are sifted.
const SIFTED: i64 = 2_000;
/// Of them, those whose lines are matched at a time.
const MATCHED: usize = 250;
/// Bytes of a record without its texts.
const ROW: usize = 200;
/// Bytes of an answer, but for the last record.
const ANSWER_BYTES: usize = 2 << 20;

/// Processes in an answer, and characters of each of their texts together, which are cut alike where they are more.
const MOST_PROCESSES: i64 = 20_000;
const SNAPSHOT_TEXT: i64 = 2 << 20;
const LEAST_TEXT: i32 = 128;
const MOST_TEXT: i32 = 16 << 10;

/// What is searched for.
pub(crate) struct Query {
    pub(crate) scope: Scope,
    pub(crate) from_ns: i64,
    pub(crate) to_ns: i64,
    pub(crate) selector: Selector,
    pub(crate) least_severity: i16,
    pub(crate) contains: String,
    pub(crate) regex: Option<Arc<Regex>>,
    pub(crate) newest_first: bool,
    pub(crate) limit: usize,
    pub(crate) after: Option<Place>,
}

/// A record's place in the order of time, as a cursor names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    time_ns: i64,
    batch: Vec<u8>,
    part: i32,
    index: i32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}:{}", self.time_ns, hex::encode(&self.batch), self.part, self.index)
    }
}

impl Place {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let [time_ns, batch, part, index] = text.split(':').collect::<Vec<_>>().try_into().ok()?;
        Some(Self {
            time_ns: time_ns.parse().ok()?,
            batch: hex::decode(batch).ok()?,
            part: part.parse().ok()?,
            index: index.parse().ok()?,
        })
    }
}

struct Row {
    time_ns: i64,
    batch: Vec<u8>,
    part: i32,
    idx: i32,
    observed_ns: i64,
    resource_ref: i64,
    resource_id: String,
    host_name: String,
    service_name: String,
    source: String,
    severity: i16,
    severity_text: String,
    body: String,
    attributes: String,
    trace_id: Vec<u8>,
    span_id: Vec<u8>,
}

impl Row {
    fn read(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            time_ns: row.try_get("time_ns")?,
            batch: row.try_get("batch")?,
            part: row.try_get("part")?,
            idx: row.try_get("idx")?,
            observed_ns: row.try_get("observed_ns")?,
            resource_ref: row.try_get("resource_ref")?,
            resource_id: row.try_get("resource_id")?,
            host_name: row.try_get("host_name")?,
            service_name: row.try_get("service_name")?,
            source: row.try_get("source")?,
            severity: row.try_get("severity")?,
            severity_text: row.try_get("severity_text")?,
            body: row.try_get("body")?,
            attributes: row.try_get("attributes")?,
            trace_id: row.try_get("trace_id")?,
            span_id: row.try_get("span_id")?,
        })
    }

    fn bytes(&self) -> usize {
        self.body.len()
            + self.attributes.len()
            + self.severity_text.len()
            + self.resource_id.len()
            + self.host_name.len()
            + self.service_name.len()
            + self.source.len()
            + ROW
    }

    fn place(&self) -> Place {
        Place { time_ns: self.time_ns, batch: self.batch.clone(), part: self.part, index: self.idx }
    }
}

/// Finds a page of records, and the cursor of the next.
pub(crate) async fn logs(pool: &Pool, query: Query, timeout: Duration) -> fault::Result<(Vec<LogRecord>, String)> {
    let mut transaction = begin(pool, timeout).await?;
    let found = find(&mut transaction, query, Instant::now() + timeout).await?;
    // A search changes nothing, so how it ends does not matter.
    let _ = transaction.rollback().await;
    Ok(found)
}

async fn find(
    transaction: &mut Transaction<'_, Postgres>,
    mut query: Query,
    deadline: Instant,
) -> fault::Result<(Vec<LogRecord>, String)> {
    let selector = query.scope.narrow(&query.selector);
    let mut chosen = Chosen::by(transaction, &query.scope, selector, deadline).await?;
    if chosen.references().is_some_and(<[i64]>::is_empty) {
        return Ok((Vec::new(), String::new()));
    }
    let wanted = query.limit + 1;
    let (mut found, mut bytes): (Vec<Row>, usize) = (Vec::new(), 0);
    let is_sifted = query.regex.is_some() || chosen.is_sifted();
    while found.len() < wanted && bytes < ANSWER_BYTES {
        let most = if is_sifted { SIFTED } else { i64::try_from(wanted - found.len()).unwrap_or(SIFTED) };
        let page = page(transaction, &query, chosen.references(), most, deadline).await?;
        query.after = page.after.or(query.after);
        let resources = page.rows.iter().map(|row| row.resource_ref);
        chosen.learn(transaction, &query.scope, resources, deadline).await?;
        for row in page.rows.into_iter().filter(|row| chosen.passes(row.resource_ref)) {
            if found.len() < wanted && bytes < ANSWER_BYTES {
                bytes += row.bytes();
                found.push(row);
            }
        }
        if page.is_last {
            break;
        }
        if Instant::now() > deadline {
            return Err(store::too_slow());
        }
    }
    // What ended for its bytes goes on behind the last record but one.
    let limit = if bytes < ANSWER_BYTES { query.limit } else { query.limit.min((found.len() - 1).max(1)) };
    // Each record is given with its resource.
    let sizes = sizes(transaction, query.scope.tenant(), &found).await?;
    let limit = limit.min(fitting(&found, &sizes));
    let next = page::cut(&mut found, limit, |row| row.place().to_string());
    let attributes = attributes(transaction, query.scope.tenant(), &found).await?;
    Ok((found.into_iter().map(|row| record(row, &attributes)).collect(), next))
}

async fn begin(pool: &Pool, timeout: Duration) -> fault::Result<Transaction<'static, Postgres>> {
    let mut transaction = pool.begin().await.map_err(store::search_fault)?;
    // Also between statements: lines are matched there, which may have to wait for its turn.
    let statement = format!(
        "select set_config('statement_timeout', '{0}', true),
             set_config('idle_in_transaction_session_timeout', '{0}', true)",
        timeout.as_millis()
    );
    sqlx::query(AssertSqlSafe(statement)).execute(&mut *transaction).await.map_err(store::search_fault)?;
    Ok(transaction)
}

/// Rows that one statement read.
struct Page {
    /// Those that the regular expression let pass, and no more than fit into an answer.
    rows: Vec<Row>,
    /// The place of the last one that was looked at.
    after: Option<Place>,
    /// Whether nothing lies behind it.
    is_last: bool,
}

async fn page(
    transaction: &mut Transaction<'_, Postgres>,
    query: &Query,
    references: Option<&[i64]>,
    most: i64,
    deadline: Instant,
) -> fault::Result<Page> {
    let (beyond, order) = if query.newest_first { ("<", "desc") } else { (">", "asc") };
    // The bound on time alone lets the index begin at the cursor; the row comparison then settles ties.
    let statement = format!(
        "select time_ns, batch, part, idx, observed_ns, resource_ref, resource_id, host_name, service_name, source,
                severity, severity_text, body, attributes::text as attributes, trace_id, span_id
         from logs
         where tenant = $1 and time_ns >= $2 and time_ns < $3
           and ($4::bigint[] is null or resource_ref = any($4))
           and ($5::smallint = 0 or severity >= $5)
           and ($6 = '' or strpos(body, $6) > 0)
           and ($7::bigint is null or (time_ns {beyond}= $7 and (time_ns, batch, part, idx) {beyond} ($7, $8, $9, $10)))
         order by time_ns {order}, batch {order}, part {order}, idx {order}
         limit $11"
    );
    let after = query.after.as_ref();
    let mut read = sqlx::query(AssertSqlSafe(statement))
        .bind(query.scope.tenant())
        .bind(query.from_ns)
        .bind(query.to_ns)
        .bind(references)
        .bind(query.least_severity)
        .bind(&query.contains)
        .bind(after.map(|place| place.time_ns))
        .bind(after.map(|place| place.batch.as_slice()))
        .bind(after.map(|place| place.part))
        .bind(after.map(|place| place.index))
        .bind(most)
        .fetch(&mut **transaction);
    let mut page = Page { rows: Vec::new(), after: None, is_last: true };
    let (mut seen, mut bytes, mut portion) = (0, 0, Portion::default());
    loop {
        let row = read.try_next().await.map_err(store::search_fault)?;
        let is_end = row.is_none();
        if let Some(row) = row {
            let row = Row::read(&row).map_err(store::search_fault)?;
            seen += 1;
            portion.bytes += row.bytes();
            portion.rows.push(row);
        }
        if !is_end && !portion.is_enough(query.regex.is_some()) {
            continue;
        }
        for (row, passes) in portion.sift(query.regex.as_ref(), deadline).await? {
            if bytes >= ANSWER_BYTES {
                page.is_last = false;
                break;
            }
            page.after = Some(row.place());
            if passes {
                bytes += row.bytes();
                page.rows.push(row);
            }
        }
        if is_end || bytes >= ANSWER_BYTES {
            page.is_last &= is_end && seen < most;
            return Ok(page);
        }
    }
}

/// Rows that are matched together.
#[derive(Default)]
struct Portion {
    rows: Vec<Row>,
    bytes: usize,
}

impl Portion {
    /// One row where nothing has to be matched.
    fn is_enough(&self, is_matched: bool) -> bool {
        !is_matched || self.rows.len() >= MATCHED || self.bytes >= ANSWER_BYTES
    }

    /// Says of each row whether its line matches, and begins anew.
    async fn sift(&mut self, regex: Option<&Arc<Regex>>, deadline: Instant) -> fault::Result<Vec<(Row, bool)>> {
        let rows = std::mem::take(self).rows;
        let Some(regex) = regex.cloned() else { return Ok(rows.into_iter().map(|row| (row, true)).collect()) };
        let sifted = selector::sift(rows, deadline, move |row| regex.is_match(&row.body)).await;
        sifted.map_err(|_| store::too_slow())
    }
}

/// How many of these records, with the attributes of their resources, make an answer; one at the least.
fn fitting(rows: &[Row], sizes: &HashMap<i64, i32>) -> usize {
    let mut bytes = 0;
    let fits = rows.iter().take_while(|row| {
        let resource = sizes.get(&row.resource_ref).and_then(|size| usize::try_from(*size).ok());
        bytes += row.bytes() + resource.unwrap_or_default();
        bytes <= ANSWER_BYTES
    });
    fits.count().max(1)
}

fn references(rows: &[Row]) -> Vec<i64> {
    let mut references: Vec<i64> = rows.iter().map(|row| row.resource_ref).collect();
    references.sort_unstable();
    references.dedup();
    references
}

async fn sizes(
    transaction: &mut Transaction<'_, Postgres>,
    tenant: &str,
    rows: &[Row],
) -> fault::Result<HashMap<i64, i32>> {
    let sizes: Vec<(i64, i32)> = sqlx::query_as(
        "select ref, octet_length(attributes::text) from log_resources where tenant = $1 and ref = any($2)",
    )
    .bind(tenant)
    .bind(references(rows))
    .fetch_all(&mut **transaction)
    .await
    .map_err(store::search_fault)?;
    Ok(sizes.into_iter().collect())
}

async fn attributes(
    transaction: &mut Transaction<'_, Postgres>,
    tenant: &str,
    rows: &[Row],
) -> fault::Result<HashMap<i64, String>> {
    let rows: Vec<(i64, String)> =
        sqlx::query_as("select ref, attributes::text from log_resources where tenant = $1 and ref = any($2)")
            .bind(tenant)
            .bind(references(rows))
            .fetch_all(&mut **transaction)
            .await
            .map_err(store::search_fault)?;
    Ok(rows.into_iter().collect())
}

fn record(row: Row, resources: &HashMap<i64, String>) -> LogRecord {
    LogRecord {
        id: format!("{}-{}-{}", hex::encode(&row.batch), row.part, row.idx),
        time_unix_nano: u64::try_from(row.time_ns).unwrap_or_default(),
        observed_unix_nano: u64::try_from(row.observed_ns).unwrap_or_default(),
        severity_number: row.severity.into(),
        level: Level::of_number(row.severity.into()).map_or("", Level::name).to_owned(),
        severity_text: row.severity_text,
        body: row.body,
        resource_json: resources.get(&row.resource_ref).cloned().unwrap_or_default(),
        resource_id: row.resource_id,
        host_name: row.host_name,
        service_name: row.service_name,
        source: row.source,
        attributes_json: row.attributes,
        trace_id: hex::encode(row.trace_id),
        span_id: hex::encode(row.span_id),
    }
}

fn process(row: &PgRow) -> Result<ProcessRow, sqlx::Error> {
    let start_ns: i64 = row.try_get("start_ns")?;
    Ok(ProcessRow {
        pid: row.try_get("pid")?,
        ppid: row.try_get("ppid")?,
        user: row.try_get("user_name")?,
        executable: row.try_get("executable")?,
        command_line: row.try_get("command_line")?,
        cpu_percent: row.try_get("cpu_percent")?,
        memory_percent: row.try_get("memory_percent")?,
        threads: row.try_get("threads")?,
        start_time_unix_nano: u64::try_from(start_ns).unwrap_or_default(),
    })
}

/// Characters that each text of a process may have in an answer of `count` processes.
fn text_share(count: i64) -> i32 {
    i32::try_from(SNAPSHOT_TEXT / count.max(1)).unwrap_or(i32::MAX).clamp(LEAST_TEXT, MOST_TEXT)
}

/// The newest snapshot of a host: its time and its processes by pid, of all parts that it came in; nothing when there is
/// none.
pub(crate) async fn processes(
    pool: &Pool,
    scope: &Scope,
    resource_id: &str,
    timeout: Duration,
) -> fault::Result<Option<(u64, Vec<ProcessRow>)>> {
    let mut transaction = begin(pool, timeout).await?;
    let newest: Option<(i64, Vec<u8>, String)> = sqlx::query_as(
        "select time_ns, batch, host_name from process_snapshots where tenant = $1 and resource_id = $2
         order by time_ns desc, batch desc limit 1",
    )
    .bind(scope.tenant())
    .bind(resource_id)
    .fetch_optional(&mut *transaction)
    .await
    .map_err(store::search_fault)?;
    let Some((time_ns, batch, host_name)) = newest else { return Ok(None) };
    let may_see = scope.selector().matches(|label| match label {
        "resource_id" => Some(resource_id),
        "kind" => Some("host"),
        "host_name" => Some(&host_name),
        _ => None,
    });
    if !may_see {
        return Ok(None);
    }
    let count: i64 = sqlx::query_scalar(
        "select count(*) from processes where tenant = $1 and resource_id = $2 and time_ns = $3 and batch = $4",
    )
    .bind(scope.tenant())
    .bind(resource_id)
    .bind(time_ns)
    .bind(&batch)
    .fetch_one(&mut *transaction)
    .await
    .map_err(store::search_fault)?;
    let rows = sqlx::query(
        "select pid, ppid, left(user_name, $5) as user_name, left(executable, $5) as executable,
                left(command_line, $5) as command_line, cpu_percent, memory_percent, threads, start_ns
         from processes
         where tenant = $1 and resource_id = $2 and time_ns = $3 and batch = $4
         order by pid limit $6",
    )
    .bind(scope.tenant())
    .bind(resource_id)
    .bind(time_ns)
    .bind(batch)
    .bind(text_share(count))
    .bind(MOST_PROCESSES)
    .fetch_all(&mut *transaction)
    .await
    .map_err(store::search_fault)?;
    let items = rows.iter().map(process).collect::<Result<_, _>>().map_err(store::search_fault)?;
    Ok(Some((u64::try_from(time_ns).unwrap_or_default(), items)))
}

/// The lowest severity number for a level's name; 0 for the empty one.
pub(crate) fn least_severity(level: &str) -> fault::Result<i16> {
    if level.is_empty() {
        return Ok(0);
    }
    model::severity_number(level).map(i16::from).ok_or_else(|| {
        Fault::field("level", format!("`{level}` is no level; write trace, debug, info, warn, error or fatal"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_reads_back_and_anything_else_is_refused() {
        let place = Place { time_ns: -5, batch: vec![7; 16], part: 1, index: 2 };
        assert_eq!(Place::parse(&place.to_string()), Some(place));
        assert_eq!(Place::parse("1:2"), None);
    }
}
