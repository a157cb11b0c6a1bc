//! This version beside a newer one: what it does not understand stays as it is.

use std::collections::BTreeMap;

use prost::Message as _;
use proto::rules::RuleDocument;

use crate::support::{Installation, PATIENCE, SECOND, TENANT, gauge, metric_rule, now};

/// A subject that tomorrow's version knows: field 20, two bytes.
const TOMORROW: [u8; 5] = [0xa2, 1, 2, 7, 7];

#[tokio::test]
async fn a_rule_of_an_unknown_kind_is_shown_and_kept_and_the_replica_stays_ready() {
    let installation = Installation::new().await;
    let replica = installation.replica().await;
    replica.create(metric_rule("hot", "m", "> 1", 0)).await;
    let stranger = replica.create(metric_rule("of tomorrow", "m", "> 1", 0)).await;
    let mut bytes = TOMORROW.to_vec();
    bytes.extend(
        RuleDocument { name: "of tomorrow".into(), level: "info".into(), ..Default::default() }.encode_to_vec(),
    );
    let pool = installation.pool().await;
    // As a newer replica would have written it.
    let mut transaction = pool.begin().await.unwrap();
    let steps = [
        "update rule_engine.revision set number = number + 1 where $1 <> '' and $2 <> ''::bytea",
        "update rule_engine.rule_versions set until_revision = (select number from rule_engine.revision), retired_at = now()
         where rule_id = $1::uuid and $2 <> ''::bytea",
        "insert into rule_engine.rule_versions
         select rule_id, 2, tenant, name, 'tomorrow', $2, 2, until_revision, created_at, now(), until_revision, null, null
         from rule_engine.rule_versions where rule_id = $1::uuid",
    ];
    for step in steps {
        sqlx::query(step).bind(&stranger.id).bind(&bytes).execute(&mut *transaction).await.unwrap();
    }
    transaction.commit().await.unwrap();
    // What is in force now was loaded together with it.
    installation.rules_are_in_force(&replica).await;
    assert_eq!(replica.missing(), BTreeMap::new());
    let shown = replica.get(&stranger).await;
    assert_eq!((shown.kind.as_str(), shown.document.unwrap().subject), ("tomorrow", None));
    installation.publish_metrics(TENANT, gauge("m", "web", now(), 2.0)).await;
    assert_eq!(installation.says(1).await[0].rule_name, "hot", "the others go on");
    let kept: Vec<u8> =
        sqlx::query_scalar("select document from rule_engine.rule_versions where rule_id = $1::uuid and version = 2")
            .bind(&stranger.id)
            .fetch_one(&pool)
            .await
            .unwrap();
    assert_eq!(kept, bytes);
    replica.stop().await;
    installation.end().await;
}

#[tokio::test]
async fn replicas_that_all_do_not_understand_a_rule_leave_the_shards_to_one_of_them() {
    let installation = Installation::new().await;
    let (first, second) = (installation.replica().await, installation.replica().await);
    installation.holds(&[1, 1]).await;
    first.create(metric_rule("hot", "m", "> 1", 0)).await;
    let stranger = first.create(metric_rule("of tomorrow", "m", "> 1", 0)).await;
    let pool = installation.pool().await;
    let steps = [
        "update rule_engine.rule_versions set kind = 'tomorrow', since_revision = since_revision + 1 where rule_id = $1::uuid",
        "update rule_engine.revision set number = number + 1 where $1 <> ''",
    ];
    for step in steps {
        sqlx::query(step).bind(&stranger.id).execute(&pool).await.unwrap();
    }
    // Whoever is left: it would be the one of tomorrow, if there were one.
    installation.holds(&[2]).await;
    testkit::eventually("the rules that are understood go on", PATIENCE, async || {
        installation.publish_metrics(TENANT, gauge("m", "web", now(), 2.0)).await;
        installation.said().iter().any(|said| said.rule_name == "hot").then_some(()).ok_or("nothing is said")
    })
    .await;
    // When the rule is gone, the shards are shared again.
    first.delete(&stranger).await;
    installation.holds(&[1, 1]).await;
    first.stop().await;
    second.stop().await;
    installation.end().await;
}

#[tokio::test]
async fn fields_of_a_newer_version_survive_an_edit() {
    let installation = Installation::new().await;
    let replica = installation.replica().await;
    let rule = replica.create(metric_rule("hot", "m", "> 1", 0)).await;
    let pool = installation.pool().await;
    sqlx::query("update rule_engine.rule_versions set document = $2 || document where rule_id = $1::uuid")
        .bind(&rule.id)
        .bind(TOMORROW.as_slice())
        .execute(&pool)
        .await
        .unwrap();
    let edited = replica.update(&rule, metric_rule("a better name", "m", "> 1", 0)).await;
    assert_eq!(edited.document.unwrap().name, "a better name");
    let kept: Vec<u8> =
        sqlx::query_scalar("select document from rule_engine.rule_versions where rule_id = $1::uuid and version = 2")
            .bind(&rule.id)
            .fetch_one(&pool)
            .await
            .unwrap();
    assert!(kept.starts_with(&TOMORROW), "{kept:?}");
    replica.stop().await;
    installation.end().await;
}

#[tokio::test]
async fn state_and_parts_of_unknown_kinds_pass_through_a_replica_that_does_not_know_them() {
    let installation = Installation::new().await;
    let pool = installation.pool().await;
    let knows = installation.replica().await;
    let rule = knows.create(metric_rule("hot", "m", "> 1", 0)).await;
    installation.rules_are_in_force(&knows).await;
    let time = now();
    installation.publish_metrics(TENANT, gauge("m", "web", time, 2.0)).await;
    let fired = installation.says(1).await.remove(0);
    knows.stop().await;

    // From here on the rule is of a kind that the next replica does not know, and there is a part that it never wrote.
    let call_it = async |kind: &str| {
        let query = sqlx::query("update rule_engine.rule_versions set kind = $2 where rule_id = $1::uuid");
        query.bind(&rule.id).bind(kind).execute(&pool).await.unwrap();
    };
    call_it("tomorrow").await;
    sqlx::query("insert into rule_engine.lane_parts values (0, 'metrics', 'tomorrow', 3, 1, 'kept'::bytea)")
        .execute(&pool)
        .await
        .unwrap();
    let stranger = installation.replica().await;
    let beyond = installation.saved_beyond("metrics", 0).await;
    installation.publish_metrics(TENANT, gauge("m", "web", time + SECOND, 0.0)).await;
    installation.saved_beyond("metrics", beyond).await;
    testkit::eventually("it is said to fire all the same", PATIENCE, async || {
        let levels = installation.levels("00/metrics");
        let last = levels.iter().rfind(|levels| levels.epoch == 2).ok_or("no round yet")?;
        let is_there = last.firing.iter().any(|level| level.rule_id == rule.id);
        is_there.then_some(()).ok_or("it is not among what fires")
    })
    .await;
    assert_eq!(installation.said().len(), 1, "and nobody judged it");
    stranger.stop().await;

    call_it("metric").await;
    let knows = installation.replica().await;
    installation.publish_metrics(TENANT, gauge("m", "web", time + 2 * SECOND, 0.0)).await;
    let ended = installation.says(2).await.remove(1);
    assert_eq!((ended.state.as_str(), ended.previous.as_str()), ("resolved", fired.id.as_str()));
    assert_eq!(ended.since_unix_nano, fired.since_unix_nano);
    let parts: i64 = sqlx::query_scalar("select count(*) from rule_engine.lane_parts where kind = 'tomorrow'")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(parts, 1);
    knows.stop().await;
    installation.end().await;
}
