//! From a rule and telemetry to transitions.

use crate::support::{Installation, SECOND, TENANT, gauge, line, log_rule, metric_rule, now};

#[tokio::test]
async fn a_new_rule_fires_on_the_stream_and_resolves() {
    let installation = Installation::new().await;
    let replica = installation.replica().await;
    let mut document = metric_rule("cpu high", "system.load", "> 90", 0);
    document.r#match = r#"{host_name=~"web.*"}"#.to_owned();
    document.labels = [("team".to_owned(), "infra".to_owned())].into();
    document.annotations = [("summary".to_owned(), "too hot".to_owned())].into();
    let rule = replica.create(document).await;
    installation.rules_are_in_force(&replica).await;

    let time = now();
    installation.publish_metrics(TENANT, gauge("system.load", "db", time, 95.0)).await;
    installation.publish_metrics(TENANT, gauge("system.load", "web-1", time, 95.0)).await;
    installation.publish_metrics(TENANT, gauge("system.load", "web-1", time + SECOND, 10.0)).await;
    let said = installation.says(2).await;

    let fired = &said[0];
    assert_eq!((fired.state.as_str(), said[1].state.as_str(), said.len()), ("firing", "resolved", 2));
    assert_eq!((fired.rule_id.as_str(), fired.rule_version, fired.tenant.as_str()), (rule.id.as_str(), 1, TENANT));
    assert_eq!(
        (fired.rule_name.as_str(), fired.level.as_str(), fired.condition.as_str()),
        ("cpu high", "critical", "> 90")
    );
    assert_eq!((fired.value, said[1].value), (95.0, 10.0));
    assert_eq!((fired.sample_unix_nano, fired.since_unix_nano), (time, time));
    assert!(fired.received_unix_nano > 0 && fired.evaluated_unix_nano >= fired.received_unix_nano);
    assert_eq!(
        (fired.descriptive_labels["host_name"].as_str(), fired.series_labels["__name__"].as_str()),
        ("web-1", "system_load")
    );
    assert_eq!((fired.resource_id.as_str(), fired.series.len(), fired.id.len()), ("host-web-1", 16, 32));
    assert_eq!((fired.rule_labels["team"].as_str(), fired.annotations["summary"].as_str()), ("infra", "too hot"));
    assert_eq!(
        (fired.receivers.as_slice(), fired.shard.as_str(), fired.epoch),
        (["ops".to_owned()].as_slice(), "00/metrics", 1)
    );
    replica.stop().await;
    installation.end().await;
}

#[tokio::test]
async fn a_rule_is_in_force_on_other_replicas_too() {
    let installation = Installation::new().await;
    let first = installation.replica().await;
    installation.holds(&[2]).await;
    let second = installation.replica().await;
    installation.holds(&[1, 1]).await;
    // Whichever replica owns shard 0, one of these two rules was made at the other.
    first.create(metric_rule("by the first", "m", "> 1", 0)).await;
    second.create(metric_rule("by the second", "m", "> 1", 0)).await;
    installation.rules_are_in_force(&second).await;
    installation.publish_metrics(TENANT, gauge("m", "web", now(), 2.0)).await;
    let mut names: Vec<String> = installation.says(2).await.into_iter().map(|said| said.rule_name).collect();
    names.sort_unstable();
    assert_eq!(names, ["by the first", "by the second"]);
    first.stop().await;
    second.stop().await;
    installation.end().await;
}

#[tokio::test]
async fn repeated_and_older_samples_change_nothing() {
    let installation = Installation::new().await;
    let replica = installation.replica().await;
    replica.create(metric_rule("hot", "m", "> 1", 0)).await;
    installation.rules_are_in_force(&replica).await;
    let time = now();
    installation.publish_metrics(TENANT, gauge("m", "web", time, 2.0)).await;
    for value in [0.0, 2.0, 0.0] {
        installation.publish_metrics(TENANT, gauge("m", "web", time, value)).await;
        installation.publish_metrics(TENANT, gauge("m", "web", time - SECOND, value)).await;
    }
    installation.publish_metrics(TENANT, gauge("m", "web", time + SECOND, 0.0)).await;
    let said = installation.says(2).await;
    let states: Vec<(&str, u64)> = said.iter().map(|said| (said.state.as_str(), said.sample_unix_nano)).collect();
    assert_eq!(states, [("firing", time), ("resolved", time + SECOND)]);
    replica.stop().await;
    installation.end().await;
}

#[tokio::test]
async fn a_line_fires_for_the_resource_that_wrote_it() {
    let installation = Installation::new().await;
    let replica = installation.replica().await;
    replica.create(log_rule("oom", "Out of memory", r#"{host_name="web"}"#)).await;
    installation.rules_are_in_force(&replica).await;
    let time = now();
    installation.publish_logs(TENANT, line("db", time, "Out of memory")).await;
    installation.publish_logs(TENANT, line("web", time, "all is well")).await;
    installation.publish_logs(TENANT, line("web", time, "kernel: Out of memory: killed 7")).await;
    let said = installation.says(1).await;
    assert_eq!(said.len(), 1);
    assert_eq!((said[0].line.as_str(), said[0].resource_id.as_str()), ("kernel: Out of memory: killed 7", "host-web"));
    assert_eq!((said[0].state.as_str(), said[0].sample_unix_nano), ("firing", time));
    assert!(said[0].value.is_nan() && said[0].descriptive_labels["kind"] == "host");
    replica.stop().await;
    installation.end().await;
}

#[tokio::test]
async fn a_tenants_rules_see_only_its_own_telemetry() {
    let installation = Installation::new().await;
    let replica = installation.replica().await;
    replica.create(metric_rule("hot", "m", "> 1", 0)).await;
    replica.create(log_rule("oom", "oom", "{}")).await;
    installation.rules_are_in_force(&replica).await;
    installation.publish_metrics("other", gauge("m", "web", now(), 2.0)).await;
    installation.publish_logs("other", line("web", now(), "oom")).await;
    installation.publish_metrics(TENANT, gauge("m", "mine", now(), 2.0)).await;
    installation.publish_logs(TENANT, line("mine", now(), "oom")).await;
    let said = installation.says(2).await;
    assert!(said.iter().all(|said| said.resource_id == "host-mine" && said.tenant == TENANT), "{said:?}");
    replica.stop().await;
    installation.end().await;
}

#[tokio::test]
async fn a_changed_or_deleted_rule_ends_its_alert_without_another_sample() {
    let installation = Installation::new().await;
    let replica = installation.replica().await;
    let rule = replica.create(metric_rule("hot", "m", "> 1", 0)).await;
    installation.rules_are_in_force(&replica).await;
    installation.publish_metrics(TENANT, gauge("m", "web", now(), 5.0)).await;
    installation.says(1).await;

    let changed = replica.update(&rule, metric_rule("hot", "m", "> 3", 0)).await;
    installation.says(2).await;
    installation.publish_metrics(TENANT, gauge("m", "web", now(), 5.0)).await;
    installation.says(3).await;
    replica.delete(&changed).await;
    let said = installation.says(4).await;
    let told: Vec<(&str, u64)> = said.iter().map(|said| (said.state.as_str(), said.rule_version)).collect();
    assert_eq!(told, [("firing", 1), ("resolved", 1), ("firing", 2), ("resolved", 2)]);
    replica.stop().await;
    installation.end().await;
}

#[tokio::test]
async fn editing_what_only_shows_tells_nobody_and_is_seen_in_what_comes_next() {
    let installation = Installation::new().await;
    let replica = installation.replica().await;
    let rule = replica.create(metric_rule("hot", "m", "> 1", 0)).await;
    installation.rules_are_in_force(&replica).await;
    installation.publish_metrics(TENANT, gauge("m", "web", now(), 5.0)).await;
    installation.says(1).await;
    let mut document = metric_rule("a better name", "m", "> 1", 0);
    document.annotations = [("summary".to_owned(), "too hot".to_owned())].into();
    replica.update(&rule, document).await;
    installation.rules_are_in_force(&replica).await;
    installation.publish_metrics(TENANT, gauge("m", "web", now(), 5.0)).await;
    installation.publish_metrics(TENANT, gauge("m", "web", now() + SECOND, 0.0)).await;
    let said = installation.says(2).await;
    let told: Vec<(&str, u64, u64, &str)> = said
        .iter()
        .map(|said| (said.state.as_str(), said.rule_version, said.evaluated_version, said.rule_name.as_str()))
        .collect();
    assert_eq!(told, [("firing", 1, 1, "hot"), ("resolved", 2, 1, "a better name")]);
    assert_eq!((said[1].previous.as_str(), said[1].order > said[0].order), (said[0].id.as_str(), true));
    replica.stop().await;
    installation.end().await;
}

#[tokio::test]
async fn a_metric_is_found_under_the_name_that_people_know_it_by() {
    let installation = Installation::new().await;
    let replica = installation.replica().await;
    replica.create(metric_rule("as the instrument is called", "shop.queue.size", "> 1", 0)).await;
    replica.create(metric_rule("as it is stored", "shop_queue_size", "> 1", 0)).await;
    installation.rules_are_in_force(&replica).await;
    installation.publish_metrics(TENANT, gauge("shop.queue.size", "web", now(), 2.0)).await;
    assert_eq!(installation.says(2).await.len(), 2);
    replica.stop().await;
    installation.end().await;
}

#[tokio::test]
async fn unreadable_messages_do_not_stop_the_evaluation() {
    let installation = Installation::new().await;
    let replica = installation.replica().await;
    replica.create(metric_rule("hot", "m", "> 1", 0)).await;
    installation.rules_are_in_force(&replica).await;
    installation.publish_metrics(TENANT, vec![0xff; 20]).await;
    let odd = bus::Outgoing::new("odd", "no envelope at all");
    installation.bus.publish(bus::Subject::Metrics(0), odd).await.unwrap();
    installation.publish_metrics(TENANT, gauge("m", "web", now(), 2.0)).await;
    assert_eq!(installation.says(1).await.len(), 1);
    replica.stop().await;
    installation.end().await;
}
