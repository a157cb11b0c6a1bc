//! What a kill, a stop and a second replica change: who evaluates, never what is decided.

use std::sync::Arc;
use std::time::Duration;

use bus::Stream;
use proto::rules::Rule as Wire;
use rule_engine::config::Rules;
use rule_engine::evaluation::Evaluation;
use rule_engine::rule::Rule;
use rule_engine::rule_set::RuleSet;
use rule_engine::signal::Signal;
use rule_engine::store::{Claim, LaneId, Position, SavedLane, Store};

use crate::support::{How, Installation, PATIENCE, SECOND, TENANT, gauge, line, log_rule, metric_rule, now, rules};

/// Sample times and states that a run without disturbances gives.
fn undisturbed(rule: &Wire, bodies: &[Vec<u8>]) -> Vec<(String, u64)> {
    let (id, document) = (rule.id.parse().unwrap(), rule.document.clone().unwrap());
    let rule = Rule::new(id, rule.version, rule.evaluated_version, TENANT.to_owned(), rule.kind.clone(), document);
    let set = Arc::new(RuleSet::new(1, vec![Arc::new(rule)], &RuleSet::default()));
    let mut evaluation = Evaluation::new(Signal::Metrics, set, rules().limits(Signal::Metrics, 2), 0);
    let mut said = Vec::new();
    for body in bodies {
        evaluation.message(TENANT, body, 1, now(), &mut said).unwrap();
    }
    said.iter().map(|decision| (decision.state.as_str().to_owned(), decision.facts.sample)).collect()
}

/// The place of the newest message of shard 0's metrics.
async fn newest(installation: &Installation) -> i64 {
    i64::try_from(installation.bus.progress(Stream::Metrics(0)).await.unwrap().last).unwrap()
}

#[tokio::test]
async fn a_wait_that_is_half_over_at_a_kill_ends_when_it_would_have_ended() {
    let installation = Installation::new().await;
    let first = installation.replica().await;
    let rule = first.create(metric_rule("hot", "m", "> 90", 30_000)).await;
    installation.rules_are_in_force(&first).await;

    // Half a minute of samples, one a second, that came in late and all at once.
    let begin = now() - 60 * SECOND;
    let bodies: Vec<Vec<u8>> = (0..40)
        .map(|second| gauge("m", "web", begin + second * SECOND, if second < 35 { 95.0 } else { 1.0 }))
        .collect();
    for body in &bodies[..15] {
        installation.publish_metrics(TENANT, body.clone()).await;
    }
    // The first owner has waited for fifteen seconds, and its snapshot says so.
    let waited = newest(&installation).await;
    installation.saved_beyond("metrics", waited - 1).await;
    first.kill();
    let second = installation.replica().await;
    for body in &bodies[15..] {
        installation.publish_metrics(TENANT, body.clone()).await;
    }
    let said = installation.says(2).await;
    let told: Vec<(String, u64)> = said.iter().map(|said| (said.state.clone(), said.sample_unix_nano)).collect();
    assert_eq!(told, undisturbed(&rule, &bodies));
    assert_eq!(told.iter().map(|(_, time)| (time - begin) / SECOND).collect::<Vec<_>>(), [30, 35]);
    assert!(said.iter().all(|said| said.epoch == 2), "the second owner said it: {said:?}");
    second.stop().await;
    installation.end().await;
}

#[tokio::test]
async fn what_the_owner_before_has_said_is_said_again_under_the_new_epoch() {
    let installation = Installation::new().await;
    // No round says anything again.
    let silent = || How { rules: Rules { digest_interval: Duration::from_secs(3_600), ..rules() }, ..How::default() };
    let first = installation.replica_with(silent()).await;
    first.create(metric_rule("hot", "m", "> 1", 0)).await;
    installation.rules_are_in_force(&first).await;
    // From here on nothing is saved.
    let pool = installation.pool().await;
    let mut holding = pool.begin().await.unwrap();
    sqlx::query("select from rule_engine.lanes for update").execute(&mut *holding).await.unwrap();
    installation.publish_metrics(TENANT, gauge("m", "web", now(), 2.0)).await;
    let said = installation.says(1).await.remove(0);
    first.kill();
    let cut = "select pg_terminate_backend(pid) from pg_stat_activity
               where datname = current_database() and pid <> pg_backend_pid()";
    sqlx::query(cut).execute(&mut *holding).await.unwrap();
    holding.rollback().await.unwrap();

    // The fence may have buried what the first one said: the broker must not take this one for a repeat of it.
    let second = installation.replica_with(silent()).await;
    let again = testkit::eventually("the next owner says it", PATIENCE, async || {
        installation.said_again().into_iter().find(|again| again.id == said.id).ok_or("it does not")
    })
    .await;
    assert_eq!((again.epoch, again.order), (2, said.order));
    second.stop().await;
    installation.end().await;
}

#[tokio::test]
async fn kill_after_kill_between_snapshots_says_everything_once_and_in_order() {
    let installation = Installation::new().await;
    let mut replica = installation.replica().await;
    let rule = replica.create(metric_rule("hot", "m", "> 90", 4_000)).await;
    installation.rules_are_in_force(&replica).await;
    let begin = now() - 300 * SECOND;
    // Seven seconds hot, three seconds cold, and so on.
    let value = |second: u64| if second % 10 < 7 { 95.0 } else { 1.0 };
    let bodies: Vec<Vec<u8>> =
        (0..90).map(|second| gauge("m", "web", begin + second * SECOND, value(second))).collect();
    let mut expected = 0;
    for part in bodies.chunks(30) {
        for body in &part[..10] {
            installation.publish_metrics(TENANT, body.clone()).await;
        }
        let saved = newest(&installation).await;
        installation.saved_beyond("metrics", saved - 1).await;
        // What follows is evaluated and said, and most likely in no snapshot when the owner is killed.
        for body in &part[10..20] {
            installation.publish_metrics(TENANT, body.clone()).await;
        }
        expected += 4;
        installation.says(expected).await;
        replica.kill();
        replica = installation.replica().await;
        for body in &part[20..] {
            installation.publish_metrics(TENANT, body.clone()).await;
        }
        expected += 2;
        installation.says(expected).await;
    }
    let said = installation.says(18).await;
    let told: Vec<(String, u64)> = said.iter().map(|said| (said.state.clone(), said.sample_unix_nano)).collect();
    assert_eq!(told, undisturbed(&rule, &bodies));
    assert!(said.windows(2).all(|pair| pair[0].order < pair[1].order && pair[1].previous == pair[0].id), "{said:?}");
    replica.stop().await;
    installation.end().await;
}

#[tokio::test]
async fn rules_that_changed_behind_the_snapshot_are_taken_up_where_the_killed_owner_took_them_up() {
    let installation = Installation::new().await;
    let first = installation.replica().await;
    let rule = first.create(metric_rule("hot", "m", "> 90", 0)).await;
    installation.rules_are_in_force(&first).await;
    let begin = now() - 60 * SECOND;
    installation.publish_metrics(TENANT, gauge("m", "web", begin, 60.0)).await;
    let saved = newest(&installation).await;
    installation.saved_beyond("metrics", saved - 1).await;
    // The next snapshot is two seconds away.
    first.update(&rule, metric_rule("hot", "m", "> 50", 0)).await;
    let mut second = begin;
    let fired = testkit::eventually("the changed rule fires", PATIENCE, async || {
        second += SECOND / 10;
        installation.publish_metrics(TENANT, gauge("m", "web", second, 70.0)).await;
        installation.said().pop().ok_or("it does not")
    })
    .await;
    first.kill();

    let next = installation.replica().await;
    installation.publish_metrics(TENANT, gauge("m", "web", begin + 50 * SECOND, 10.0)).await;
    let ended = installation.says(2).await.remove(1);
    assert_eq!((ended.state.as_str(), ended.evaluated_version, ended.epoch), ("resolved", 2, 2));
    assert_eq!(ended.previous, fired.id, "it fired for the next owner as it did for the one before");
    next.stop().await;
    installation.end().await;
}

#[tokio::test]
async fn edits_in_a_row_do_not_stall_the_evaluation() {
    let installation = Installation::new().await;
    let replica = installation.replica().await;
    replica.create(metric_rule("hot", "m", "> 1", 0)).await;
    let mut edited = replica.create(metric_rule("edited", "other", "> 1", 0)).await;
    installation.rules_are_in_force(&replica).await;
    let begin = now() - 60 * SECOND;
    for turn in 0..40 {
        let document = metric_rule("edited", "other", &format!("> {turn}"), 0);
        let value = if turn % 2 == 0 { 2.0 } else { 0.0 };
        let sample = gauge("m", "web", begin + turn * SECOND, value);
        let (changed, ()) =
            tokio::join!(replica.update(&edited, document), installation.publish_metrics(TENANT, sample));
        edited = changed;
    }
    let said = installation.says(40).await;
    let times: Vec<u64> = said.iter().map(|said| (said.sample_unix_nano - begin) / SECOND).collect();
    assert_eq!(times, (0..40).collect::<Vec<u64>>());
    installation.rules_are_in_force(&replica).await;
    replica.stop().await;
    installation.end().await;
}

#[tokio::test]
async fn replicas_share_the_shards_and_take_over_from_one_that_dies() {
    let installation = Installation::new().await;
    let first = installation.replica().await;
    installation.holds(&[2]).await;
    let second = installation.replica().await;
    installation.holds(&[1, 1]).await;
    first.create(metric_rule("hot", "m", "> 1", 0)).await;
    installation.rules_are_in_force(&second).await;

    first.kill();
    installation.holds(&[2]).await;
    installation.publish_metrics(TENANT, gauge("m", "web", now(), 2.0)).await;
    installation.says(1).await;
    second.stop().await;
    installation.end().await;
}

#[tokio::test]
async fn a_clean_stop_saves_and_hands_on_at_once() {
    let installation = Installation::new().await;
    let first = installation.replica().await;
    first.create(metric_rule("hot", "m", "> 1", 10_000)).await;
    first.create(log_rule("oom", "oom", "{}")).await;
    installation.rules_are_in_force(&first).await;
    let begin = now();
    installation.publish_metrics(TENANT, gauge("m", "web", begin, 2.0)).await;
    installation.publish_logs(TENANT, line("web", begin, "oom")).await;
    installation.says(1).await;
    first.stop().await;
    assert_eq!(installation.holdings().await, [0; 0], "no lease is left to run out");

    let second = installation.replica().await;
    installation.holds(&[2]).await;
    installation.publish_logs(TENANT, line("web", begin + SECOND, "oom")).await;
    installation.publish_metrics(TENANT, gauge("m", "web", begin + 10 * SECOND, 2.0)).await;
    let said = installation.says(2).await;
    assert_eq!((said.len(), said[1].rule_name.as_str()), (2, "hot"));
    assert_eq!(said[1].since_unix_nano, begin);
    second.stop().await;
    installation.end().await;
}

#[tokio::test]
async fn what_fired_before_a_kill_resolves_though_its_rule_was_deleted_meanwhile() {
    let installation = Installation::new().await;
    let first = installation.replica().await;
    let rule = first.create(metric_rule("hot", "m", "> 1", 0)).await;
    installation.rules_are_in_force(&first).await;
    installation.publish_metrics(TENANT, gauge("m", "web", now(), 2.0)).await;
    installation.says(1).await;
    // Killed before the alert is in any snapshot, and the rule goes before anybody takes over.
    first.kill();
    let pool = sqlx::PgPool::connect(installation.database.database_url.reveal()).await.unwrap();
    sqlx::query(
        "with next as (update rule_engine.revision set number = number + 1 returning number)
         update rule_engine.rule_versions set until_revision = next.number, retired_at = now() from next
         where rule_id = $1::uuid",
    )
    .bind(&rule.id)
    .execute(&pool)
    .await
    .unwrap();

    let second = installation.replica().await;
    let said = installation.says(2).await;
    assert_eq!((said[1].state.as_str(), said[1].rule_id.as_str()), ("resolved", rule.id.as_str()));
    second.stop().await;
    installation.end().await;
}

#[tokio::test]
async fn an_owner_that_was_replaced_cannot_write_its_snapshot() {
    let installation = Installation::new().await;
    let replica = installation.replica().await;
    installation.holds(&[2]).await;
    testkit::eventually("both shards have a snapshot", Duration::from_secs(10), async || {
        let epochs = installation.epochs().await;
        if epochs == [(0, 1), (1, 1)] { Ok(()) } else { Err(format!("{epochs:?}")) }
    })
    .await;
    replica.stop().await;

    let process = lifecycle::Process::for_test();
    let ready = process.ready("postgres");
    let pools =
        store::connect(&installation.database, "rule_engine", rule_engine::store::MIGRATIONS, &ready).await.unwrap();
    let store = Store::new(pools, 10);
    let lane = LaneId { number: 0, signal: Signal::Metrics };
    let Claim::Snapshot(snapshot, _) = store.claim(lane, 3).await.unwrap() else { panic!("there is a snapshot") };
    let moved = SavedLane { position: Position { sequence: 77, published_unix_nano: 1 }, ..snapshot };
    assert!(store.save(lane, 2, &moved).await.unwrap().is_err());
    assert!(store.put_part(lane, 2, ("subjects", 0, 9), b"old").await.unwrap().is_err());
    assert!(store.note_switch(lane, 2, 5, 5).await.unwrap().is_err());
    assert!(store.put_part(lane, 3, ("subjects", 0, 9), b"new").await.unwrap().is_ok());
    assert!(store.save(lane, 3, &moved).await.unwrap().is_ok());
    assert_eq!(store.claim(lane, 2).await.unwrap(), Claim::Fenced);
    assert_eq!(store.claim(lane, 4).await.unwrap(), Claim::Snapshot(moved, 1));
    process.stop().await;
    installation.end().await;
}

#[tokio::test]
async fn a_shard_that_somebody_else_took_is_left_to_him_until_he_is_gone() {
    let installation = Installation::new().await;
    let replica = installation.replica().await;
    replica.create(metric_rule("hot", "m", "> 1", 0)).await;
    installation.rules_are_in_force(&replica).await;
    let pool = sqlx::PgPool::connect(installation.database.database_url.reveal()).await.unwrap();
    let steal = "update rule_engine.leases set owner = gen_random_uuid(), epoch = epoch + 1,
                 expires_at = now() + interval '3 seconds' where name = 'shard-00'";
    sqlx::query(steal).execute(&pool).await.unwrap();
    testkit::eventually("the shard comes back", Duration::from_secs(20), async || {
        let epochs = installation.epochs().await;
        if epochs[0] == (0, 3) { Ok(()) } else { Err(format!("{epochs:?}")) }
    })
    .await;
    installation.publish_metrics(TENANT, gauge("m", "web", now(), 2.0)).await;
    let said = installation.says(1).await;
    assert_eq!((said.len(), said[0].epoch), (1, 3));
    replica.stop().await;
    installation.end().await;
}

#[tokio::test]
async fn connections_to_the_database_that_break_are_made_again() {
    let installation = Installation::new().await;
    let replica = installation.replica().await;
    installation.holds(&[2]).await;
    let pool = sqlx::PgPool::connect(installation.database.database_url.reveal()).await.unwrap();
    let cut = "select pg_terminate_backend(pid) from pg_stat_activity
               where datname = current_database() and pid <> pg_backend_pid()";
    sqlx::query(cut).execute(&pool).await.unwrap();
    let created = testkit::eventually("a rule is created", Duration::from_secs(10), async || {
        let request = proto::rules::CreateRuleRequest {
            document: Some(metric_rule("hot", "m", "> 1", 0)),
            idempotency_key: "once".to_owned(),
        };
        replica.client().create_rule(crate::support::as_admin(request)).await.map_err(|status| status.to_string())
    });
    created.await;
    installation.rules_are_in_force(&replica).await;
    installation.publish_metrics(TENANT, gauge("m", "web", now(), 2.0)).await;
    installation.says(1).await;
    replica.stop().await;
    installation.end().await;
}
