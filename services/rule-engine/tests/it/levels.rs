//! What fires is said again and again.

use std::collections::BTreeMap;
use std::time::Duration;

use proto::rules::RuleDocument;
use rule_engine::config::Rules;

use crate::support::{How, Installation, PATIENCE, SECOND, TENANT, gauge, metric_rule, now, rules};

/// Series and the transitions that they began with, of the newest whole round of a lane.
fn newest_round(installation: &Installation, lane: &str) -> Option<BTreeMap<String, String>> {
    let levels = installation.levels(lane);
    let round = levels.iter().rev().find(|last| {
        let parts = levels.iter().filter(|part| (part.epoch, part.round) == (last.epoch, last.round));
        u32::try_from(parts.count()).unwrap() == last.parts
    })?;
    let parts = levels.iter().filter(|part| (part.epoch, part.round) == (round.epoch, round.round));
    let firing = parts.flat_map(|part| &part.firing);
    let pairs = firing.flat_map(|level| level.series.iter().zip(&level.transitions));
    Some(pairs.map(|(series, id)| (format!("{series:016x}"), hex::encode(id))).collect())
}

#[tokio::test]
async fn a_lane_says_all_that_fires_in_it_and_that_nothing_does() {
    let installation = Installation::new().await;
    let replica = installation.replica().await;
    replica.create(metric_rule("hot", "m", "> 1", 0)).await;
    installation.rules_are_in_force(&replica).await;
    let time = now();
    for host in ["a", "b", "c"] {
        installation.publish_metrics(TENANT, gauge("m", host, time, 2.0)).await;
    }
    let said = installation.says(3).await;
    let expected: BTreeMap<String, String> = said.iter().map(|said| (said.series.clone(), said.id.clone())).collect();
    let becomes = async |lane: &str, expected: BTreeMap<String, String>| {
        testkit::eventually("a round says it", PATIENCE, async || {
            let found = newest_round(&installation, lane);
            if found.as_ref() == Some(&expected) { Ok(()) } else { Err(format!("{found:?}, not {expected:?}")) }
        })
        .await;
    };
    becomes("00/metrics", expected.clone()).await;
    becomes("00/logs", BTreeMap::new()).await;
    becomes("01/metrics", BTreeMap::new()).await;
    let order = said.iter().map(|said| said.order).max().unwrap();
    assert!(installation.levels("00/metrics").last().unwrap().order >= order);

    installation.publish_metrics(TENANT, gauge("m", "a", time + SECOND, 0.0)).await;
    let ended = installation.says(4).await[3].series.clone();
    let mut rest = expected;
    rest.remove(&ended);
    becomes("00/metrics", rest.clone()).await;

    // The next owner knows it as well, and says so under its own epoch.
    replica.stop().await;
    let next = installation.replica().await;
    testkit::eventually("the next owner says it", PATIENCE, async || {
        let levels = installation.levels("00/metrics");
        let last = levels.last().unwrap();
        let is_next = last.epoch == 2 && newest_round(&installation, "00/metrics").as_ref() == Some(&rest);
        if is_next { Ok(()) } else { Err(format!("{last:?}")) }
    })
    .await;
    next.stop().await;
    installation.end().await;
}

#[tokio::test]
async fn what_began_is_said_again_in_full_under_its_old_id() {
    let installation = Installation::new().await;
    let replica = installation.replica().await;
    replica.create(metric_rule("hot", "m", "> 1", 0)).await;
    installation.rules_are_in_force(&replica).await;
    installation.publish_metrics(TENANT, gauge("m", "web", now(), 2.0)).await;
    let first = installation.says(1).await.remove(0);
    let again = testkit::eventually("it is said again", PATIENCE, async || {
        installation.said_again().into_iter().find(|again| again.id == first.id).ok_or("it is not")
    })
    .await;
    let evaluated_unix_nano = first.evaluated_unix_nano;
    assert_eq!(proto::alerts::Transition { evaluated_unix_nano, ..again }, first);
    assert_eq!(installation.said().len(), 1);
    replica.stop().await;
    installation.end().await;
}

#[tokio::test]
async fn an_edit_of_what_shows_is_said_of_what_fires_at_once() {
    let installation = Installation::new().await;
    // No round says anything again.
    let silent = Rules { digest_interval: Duration::from_secs(3_600), ..rules() };
    let replica = installation.replica_with(How { rules: silent, ..How::default() }).await;
    let rule = replica.create(metric_rule("hot", "m", "> 1", 0)).await;
    installation.rules_are_in_force(&replica).await;
    installation.publish_metrics(TENANT, gauge("m", "web", now(), 2.0)).await;
    let fired = installation.says(1).await.remove(0);
    let mut document = metric_rule("hot", "m", "> 1", 0);
    document.receivers.push("chat".to_owned());
    let edited = replica.update(&rule, document.clone()).await;
    replica.update(&edited, RuleDocument { level: "info".into(), ..document }).await;
    let shown = testkit::eventually("it is said", PATIENCE, async || {
        let newest = installation.said_again().into_iter().rfind(|again| again.id == fired.id);
        newest.filter(|again| again.rule_version == 3).ok_or("it is not")
    })
    .await;
    assert_eq!((shown.order, shown.state.as_str(), shown.level.as_str()), (fired.order, "firing", "info"));
    assert_eq!(shown.receivers, ["ops", "chat"]);
    installation.publish_metrics(TENANT, gauge("m", "web", now() + SECOND, 0.0)).await;
    let ended = installation.says(2).await.remove(1);
    assert_eq!((ended.state.as_str(), ended.previous), ("resolved", fired.id));
    replica.stop().await;
    installation.end().await;
}
