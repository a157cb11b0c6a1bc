//! A tenant that has very much to say does not keep the others waiting.

use std::time::Duration;

use crate::support::{Installation, PATIENCE, TENANT, gauge, metric_rule, now};

const OTHER: &str = "other";
const SERIES: usize = 3_000;

#[tokio::test]
async fn while_a_rule_that_fires_on_very_much_is_deleted_the_rules_of_others_go_on() {
    let installation = Installation::new().await;
    let replica = installation.replica().await;
    let broad = replica.create(metric_rule("broad", "m", "> 1", 0)).await;
    replica.create_for(OTHER, metric_rule("quiet", "m", "> 1", 0)).await;
    installation.rules_are_in_force(&replica).await;
    // Messages of OTLP that follow each other are one with all of their parts.
    let all: Vec<u8> = (0..SERIES).flat_map(|host| gauge("m", &format!("h{host}"), now(), 2.0)).collect();
    installation.publish_metrics(TENANT, all).await;
    installation.says(SERIES).await;

    let of = |name: &str| installation.said().iter().filter(|said| said.rule_name == name).count();
    let go_on = async {
        let mut value = 0.0;
        while of("broad") < 2 * SERIES {
            value = 2.0 - value;
            installation.publish_metrics(OTHER, gauge("m", "web", now(), value)).await;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    replica.delete(&broad).await;
    tokio::time::timeout(PATIENCE, go_on).await.expect("everything ends");
    let said = installation.said();
    let ends = |name: &'static str| {
        move |said: &&proto::alerts::Transition| said.rule_name == name && said.state == "resolved"
    };
    assert_eq!(said.iter().filter(ends("broad")).count(), SERIES);
    let first = said.iter().position(|said| ends("broad")(&said)).unwrap();
    let last = said.iter().rposition(|said| ends("broad")(&said)).unwrap();
    let between = said[first..last].iter().filter(|said| said.rule_name == "quiet").count();
    assert!(between > 0, "the others waited for {SERIES} ends");
    replica.stop().await;
    installation.end().await;
}
