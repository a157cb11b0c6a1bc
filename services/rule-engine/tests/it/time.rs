//! Time passes though nothing is sent.

use crate::support::{How, Installation, SECOND, TENANT, line, log_rule, now, rules};

#[tokio::test]
async fn an_alert_of_a_host_that_died_ends_on_a_shard_where_nothing_else_is_sent() {
    let installation = Installation::new().await;
    let replica = installation.replica().await;
    let mut document = log_rule("oom", "oom", "{}");
    document.hold_millis = 1_000;
    replica.create(document).await;
    installation.rules_are_in_force(&replica).await;
    let received = now();
    installation.publish_logs(TENANT, line("web", received, "oom")).await;
    let said = installation.says(2).await;
    let states: Vec<&str> = said.iter().map(|said| said.state.as_str()).collect();
    assert_eq!((states.as_slice(), said[1].shard.as_str()), (["firing", "resolved"].as_slice(), "00/logs"));
    replica.stop().await;
    installation.end().await;
}

#[tokio::test]
async fn the_owner_of_a_shard_puts_a_time_into_its_streams_when_they_are_silent() {
    let installation = Installation::new().await;
    let replica = installation.replica().await;
    for stream in [bus::Stream::Metrics(1), bus::Stream::Logs(1)] {
        let mut follow = installation.bus.follow(stream, bus::From::New).await;
        let before = now();
        for _ in 0..2 {
            let tick = follow.next().await;
            assert!(tick.tick().is_some_and(|time| time + 5_000_000_000 > before), "{:?}", tick.tick());
            assert_eq!(tick.items(), 0);
        }
    }
    replica.stop().await;
    installation.end().await;
}

#[tokio::test]
async fn an_owner_whose_clock_is_ahead_ends_no_hold_early() {
    let installation = Installation::new().await;
    let replica = installation.replica().await;
    for text in ["oom", "panic"] {
        let mut document = log_rule(text, text, "{}");
        document.hold_millis = 60_000;
        replica.create(document).await;
    }
    installation.rules_are_in_force(&replica).await;
    installation.publish_logs(TENANT, line("web", now(), "oom")).await;
    installation.bus.tick(bus::Subject::Logs(0), now() + 9 * 60 * SECOND).await.unwrap();
    installation.publish_logs(TENANT, line("web", now(), "panic")).await;
    let said = installation.says(2).await;
    assert_eq!([said[0].state.as_str(), said[1].state.as_str()], ["firing"; 2]);
    replica.stop().await;
    installation.end().await;
}

#[tokio::test]
async fn what_comes_too_late_is_told_as_late_and_counts_all_the_same() {
    let installation = Installation::new().await;
    let soon = rule_engine::config::Rules { lateness: std::time::Duration::from_secs(30), ..rules() };
    let replica = installation.replica_with(How { rules: soon, ..How::default() }).await;
    replica.create(log_rule("oom", "oom", "{}")).await;
    installation.rules_are_in_force(&replica).await;
    let time = now();
    installation.publish_logs(TENANT, line("web", time - 3_600_000_000_000, "oom")).await;
    installation.publish_logs(TENANT, line("web", time, "oom")).await;
    let said = installation.says(2).await;
    assert_eq!([said[0].late, said[1].late], [true, false]);
    assert_eq!(said[1].since_unix_nano, said[0].since_unix_nano);
    assert_eq!(said[1].previous, said[0].id);
    replica.stop().await;
    installation.end().await;
}
