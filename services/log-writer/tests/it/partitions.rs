//! Days come and go.

use sqlx::PgConnection;
use time::OffsetDateTime;

use crate::support::{PATIENCE, Running, each_once, stored};

const DAY: i64 = 86_400_000_000_000;

async fn run(tables: &mut PgConnection, statement: String) {
    sqlx::query(sqlx::AssertSqlSafe(statement)).execute(tables).await.unwrap();
}

async fn exists(tables: &mut PgConnection, table: &str) -> bool {
    sqlx::query_scalar("select to_regclass($1) is not null").bind(table).fetch_one(tables).await.unwrap()
}

/// The first nanosecond of the day `ahead`, and how partitions of it are called.
fn day(ahead: i64) -> (i64, String) {
    let begin = (i64::try_from(OffsetDateTime::now_utc().unix_timestamp_nanos()).unwrap() / DAY + ahead) * DAY;
    let date = OffsetDateTime::from_unix_timestamp_nanos(begin.into()).unwrap().date();
    (begin, format!("{:04}{:02}{:02}", date.year(), u8::from(date.month()), date.day()))
}

fn row(table: &str, time_ns: i64, body: &str) -> String {
    format!(
        "insert into {table} (tenant, time_ns, batch, part, idx, observed_ns, resource_ref, resource_id, host_name,
            service_name, source, severity, severity_text, body, attributes, trace_id, span_id)
         values ('default', {time_ns}, '', 0, 0, 0, 0, '', '', '', '', 9, '', '{body}', '{{}}', '', '')"
    )
}

#[tokio::test]
async fn what_is_past_its_retention_is_dropped_and_younger_rows_stay() {
    let running = Running::start().await;
    let mut tables = running.tables().await;
    for ahead in [-40, -29] {
        let (begin, name) = day(ahead);
        let bounds = format!("for values from ({begin}) to ({})", begin + DAY);
        run(&mut tables, format!("create table logs_{name} partition of logs {bounds}")).await;
        run(&mut tables, row("logs", begin, &format!("day {ahead}"))).await;
    }
    run(&mut tables, row("logs", day(-50).0, "day -50, by default")).await;
    run(&mut tables, row("logs", day(-20).0, "day -20, by default")).await;
    let running = running.restart().await;
    testkit::eventually("old rows are gone", PATIENCE, async || {
        let bodies: Vec<String> = stored(&mut tables).await.into_iter().map(|(body, _)| body).collect();
        if bodies == ["day -20, by default", "day -29"] { Ok(()) } else { Err(format!("{bodies:?}")) }
    })
    .await;
    assert!(!exists(&mut tables, &format!("logs_{}", day(-40).1)).await);
    running.stop().await;
}

#[tokio::test]
async fn a_day_whose_rows_came_before_its_partition_gets_them() {
    let running = Running::start().await;
    let mut tables = running.tables().await;
    let (begin, name) = day(2);
    run(&mut tables, format!("drop table logs_{name}")).await;
    run(&mut tables, row("logs", begin + 5, "early")).await;
    let running = running.restart().await;
    testkit::eventually("the row has moved", PATIENCE, async || {
        if !exists(&mut tables, &format!("logs_{name}")).await {
            return Err("no partition".to_owned());
        }
        let statement = sqlx::AssertSqlSafe(format!("select count(*) from logs_{name}"));
        let moved: i64 = sqlx::query_scalar(statement).fetch_one(&mut tables).await.unwrap();
        if moved == 1 { Ok(()) } else { Err(format!("{moved} rows")) }
    })
    .await;
    assert_eq!(stored(&mut tables).await, [("early".to_owned(), 1)]);
    running.stop().await;
}

#[tokio::test]
async fn what_was_stored_yesterday_is_known_today_and_forgotten_with_its_day() {
    let running = Running::start().await;
    let mut tables = running.tables().await;
    let yesterday = "insert into applied (day, tenant, batch, part) values (current_date - 1, 'default', $1, 0)";
    sqlx::query(yesterday).bind([1_u8; 16].as_slice()).execute(&mut tables).await.unwrap();
    run(&mut tables, "update applied_day set day = current_date - 1".to_owned()).await;
    let (_, old) = day(-40);
    run(
        &mut tables,
        format!("create table applied_{old} partition of applied for values from ('{old}') to ('{}')", day(-39).1),
    )
    .await;
    let running = running.restart().await;
    testkit::eventually("today has begun, and what is old is forgotten", PATIENCE, async || {
        let begun: bool =
            sqlx::query_scalar("select day = current_date from applied_day").fetch_one(&mut tables).await.unwrap();
        let is_old = exists(&mut tables, &format!("applied_{old}")).await;
        if begun && !is_old { Ok(()) } else { Err(format!("begun: {begun}, old: {is_old}")) }
    })
    .await;
    running.publish("b", 1, &["one"]).await;
    running.publish("c", 2, &["two"]).await;
    running.settles().await;
    each_once(&running.database, &["two".to_owned()], PATIENCE).await;
    let days: i64 = sqlx::query_scalar("select count(distinct day) from applied").fetch_one(&mut tables).await.unwrap();
    assert_eq!(days, 2);
    running.stop().await;
}
