//! What a page costs among a hundred thousand resources, in rows that Postgres looks at for it.

use lifecycle::Process;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Execute as _};

use super::*;
use crate::store::MIGRATIONS;

const RESOURCES: i64 = 100_000;
const PAGE: i64 = 101;

/// Hosts with nineteen containers each; one in a hundred is offline, one in a thousand is `rare`. Another tenant has as many.
const SEED: &str = "insert into resources (tenant, id, kind, name, labels, facts, agent_id, parent_id, first_seen,
                                           described_at, status, last_seen, report_interval)
    select tenant, 'host-' || lpad(n::text, 26, '0'), case when n % 20 = 0 then 'host' else 'container' end, 'name-' || n,
           '{}', jsonb_build_object('__tenant__', tenant, 'host_name', 'web-' || n / 20, 'env', 'e' || n % 3,
                                    'rare', case when n % 1000 = 0 then 'yes' else 'no' end),
           'agent-' || n / 20, 'host-' || n / 20, 1, 1, case when n % 100 = 0 then 'offline' else 'online' end, 1, 0
    from generate_series(1, $1) n, (values ('a'), ('b')) t (tenant)";

async fn seeded() -> Store {
    let process = Process::for_test();
    let ready = process.ready("postgres");
    let pools = ::store::connect(&testkit::database().await, "registry", MIGRATIONS, &ready).await.unwrap();
    sqlx::query(SEED).bind(RESOURCES).execute(&pools.work).await.unwrap();
    sqlx::query("vacuum analyze resources").execute(&pools.work).await.unwrap();
    Store::new(pools)
}

/// An entry of a bitmap costs about as much of a row that is read: 0.26 us against 12 us, measured.
const BITMAP_ENTRIES_A_ROW: f64 = 50.0;

/// Rows that a plan's nodes gave and threw away.
fn looked_at(plan: &Value) -> f64 {
    let number = |name: &str| plan[name].as_f64().unwrap_or_default();
    if plan["Node Type"] == "Bitmap Index Scan" {
        return number("Actual Rows") / BITMAP_ENTRIES_A_ROW;
    }
    let removed = number("Rows Removed by Filter") + number("Rows Removed by Index Recheck");
    let below = plan["Plans"].as_array().into_iter().flatten().map(looked_at).sum::<f64>();
    (number("Actual Rows") + removed) * number("Actual Loops").max(1.0) + below
}

async fn cost(store: &Store, narrow: &Narrow, after: &str) -> (f64, String) {
    let mut query = list_query("a", narrow, after, PAGE);
    let sql = format!("explain (analyze, format json) {}", query.sql().as_str());
    let arguments = query.build().take_arguments().unwrap().unwrap();
    let plan: Value = sqlx::query_scalar_with(AssertSqlSafe(sql), arguments)
        .persistent(false)
        .fetch_one(&store.pools.api)
        .await
        .unwrap();
    (looked_at(&plan[0]["Plan"]), plan.to_string())
}

fn text(value: &str) -> Option<String> {
    Some(value.to_owned())
}

fn fact(name: &str, value: &str) -> Narrow {
    Narrow { facts: [(name.to_owned(), value.to_owned())].into(), ..Narrow::default() }
}

#[tokio::test]
async fn a_page_among_a_hundred_thousand_looks_at_little_more_than_it_shows() {
    let store = seeded().await;
    let half_way = format!("host-{:026}", RESOURCES / 2);
    let cases = [
        ("everything", Narrow::default()),
        ("a kind", Narrow { kind: text("host"), ..Narrow::default() }),
        ("a name", Narrow { name: text("name-70000"), ..Narrow::default() }),
        ("a status", Narrow { status: text("offline"), ..Narrow::default() }),
        ("an agent", Narrow { agent_id: text("agent-4000"), ..Narrow::default() }),
        ("a parent", Narrow { parent_id: text("host-4000"), ..Narrow::default() }),
        ("nothing", Narrow { name: text("nobody"), ..Narrow::default() }),
        ("a label of few", fact("host_name", "web-4000")),
        ("a label of some", fact("rare", "yes")),
        ("a label of many", fact("env", "e1")),
        ("a label of nobody", fact("env", "nowhere")),
        ("a kind and a label", Narrow { kind: text("host"), ..fact("env", "e1") }),
    ];
    for (name, narrow) in &cases {
        for after in ["", half_way.as_str()] {
            let (rows, plan) = cost(&store, narrow, after).await;
            assert!(rows < 20.0 * PAGE as f64, "{name} after {after:?} looks at {rows} rows: {plan}");
        }
    }
}

#[tokio::test]
async fn pages_are_the_same_whatever_they_are_narrowed_by() {
    let store = seeded().await;
    let scope = Scope::tenant_wide("a");
    let narrow = Narrow { kind: text("host"), status: text("offline"), ..fact("rare", "yes") };
    let (mut found, mut after) = (Vec::new(), String::new());
    loop {
        let page = store.list(&scope, &narrow, &after, 30).await.unwrap();
        let Some(last) = page.last() else { break };
        after = last.resource.id.clone();
        found.extend(page);
    }
    assert_eq!(found.len(), 100);
    assert!(found.iter().all(|listed| listed.resource.tenant == "a" && listed.facts["rare"] == "yes"));
    assert!(store.get(&scope, &found[0].resource.id).await.unwrap().is_some());
    assert!(store.get(&Scope::tenant_wide("c"), &found[0].resource.id).await.unwrap().is_none());
}
