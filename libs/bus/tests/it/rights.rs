//! Services with no more rights than `docs/contracts/nats.md` gives them.

use bus::{Bus, From, Options, Outgoing, Stream, Subject, Trial};

use crate::support::{Broker, PATIENCE, connect_to, next, next_followed, text};

/// The rights of the contract, in the namespace `rights`.
fn users() -> String {
    let everybody = ["$JS.API.STREAM.INFO.*", "$JS.API.CONSUMER.INFO.*.*", "$JS.API.STREAM.MSG.GET.RIGHTS_STATE"];
    let publishes = ["rights.logs.*", "$JS.API.STREAM.PURGE.RIGHTS_LOGS_00", "$JS.API.STREAM.PURGE.RIGHTS_LOGS_01"];
    let reads = [
        "$JS.API.CONSUMER.MSG.NEXT.RIGHTS_LOGS_00.log-writer",
        "$JS.ACK.RIGHTS_LOGS_00.log-writer.>",
        "rights.dead.log-writer",
        "rights.state.counts.LOGS_00",
        "rights.state.trials.log-writer.>",
        "$JS.API.STREAM.MSG.DELETE.RIGHTS_STATE",
    ];
    let follows = [
        "$JS.API.STREAM.MSG.GET.RIGHTS_LOGS_00",
        "$JS.API.CONSUMER.CREATE.RIGHTS_LOGS_00",
        "$JS.API.CONSUMER.CREATE.RIGHTS_LOGS_00.>",
        "$JS.API.CONSUMER.MSG.NEXT.RIGHTS_LOGS_00.*",
    ];
    let user = |name: &str, subjects: &[&str]| {
        let all: Vec<String> = everybody.iter().chain(subjects).map(|subject| format!("\"{subject}\"")).collect();
        let publish = all.join(", ");
        format!(
            "{{user: {name}, password: {name}, permissions: {{publish: [{publish}], subscribe: [\"_INBOX.>\"]}}}}\n"
        )
    };
    let limited = user("gateway", &publishes) + &user("writer", &reads) + &user("fanout", &follows);
    format!("authorization {{users: [\n{{user: installer, password: installer}}\n{limited}]}}\n")
}

async fn connect_as(broker: &Broker, name: &str) -> (Bus, lifecycle::Process) {
    let settings = bus::Settings { namespace: "rights".to_owned(), ..broker.settings_of(name) };
    tokio::time::timeout(PATIENCE, connect_to(&settings)).await.expect("the rights do not suffice to start")
}

#[tokio::test]
async fn the_rights_of_the_contract_suffice_and_others_are_not_there() {
    let broker = Broker::with_users(&users());
    drop(connect_as(&broker, "installer").await);
    let (gateway, _gateway) = connect_as(&broker, "gateway").await;
    let (writer, _writer) = connect_as(&broker, "writer").await;
    let (fanout, _fanout) = connect_as(&broker, "fanout").await;

    let mut follow = fanout.follow(Stream::Logs(0), From::New).await;
    for id in ["a", "poison", "b"] {
        gateway.publish(Subject::Logs(0), Outgoing::new(id, id)).await.unwrap();
    }
    assert_eq!(text(&next_followed(&mut follow).await), "a");
    let mut deliveries = writer.consume(Stream::Logs(0), "log-writer", Options::default());
    next(&mut deliveries).await.ack().await;
    let mut poison = next(&mut deliveries).await;
    while poison.id() != "poison" || !poison.is_suspect() {
        poison.nak(std::time::Duration::ZERO).await;
        poison = next(&mut deliveries).await;
    }
    let trial = Trial::begin("log-writer", std::slice::from_ref(&poison)).await.unwrap();
    poison.dead("log-writer", "poison").await.unwrap();
    trial.end().await;
    testkit::eventually("the account", PATIENCE, async || {
        let accounts = gateway.account().await.unwrap();
        let logs = accounts.into_iter().find(|account| account.stream == "RIGHTS_LOGS_00").unwrap();
        if (logs.stored, logs.dead, logs.in_flight) == (1, 1, 1) { Ok(()) } else { Err(format!("{logs:?}")) }
    })
    .await;
    assert!(!gateway.backlog(Stream::Logs(0)).await.unwrap().must_refuse());

    let stolen = Outgoing::new("x", "x").within(std::time::Duration::from_millis(500));
    assert!(writer.publish(Subject::Metrics(0), stolen).await.is_err());
}
