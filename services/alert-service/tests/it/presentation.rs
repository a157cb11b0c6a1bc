//! Rules of which only what shows was edited while they fire.

use proto::alerts::{Alert, ListAlertsRequest, Transition};
use testkit::eventually;

use crate::support::{PATIENCE, Service};

/// The same beginning, as an owner says it again after an edit.
fn edited(fired: &Transition, rule_version: u64, receivers: &[&str]) -> Transition {
    Transition {
        rule_version,
        level: "warning".into(),
        annotations: [("summary".to_owned(), format!("version {rule_version}: {{{{ $value }}}}"))].into(),
        receivers: receivers.iter().map(|receiver| (*receiver).to_owned()).collect(),
        // A later sample; what is shown is the value that decided.
        value: 99.0,
        ..fired.clone()
    }
}

async fn listed(service: &mut Service) -> Alert {
    service.list(ListAlertsRequest::default()).await.unwrap().0.remove(0)
}

#[tokio::test]
async fn what_fires_shows_the_new_words_and_only_receivers_that_were_added_hear_of_it() {
    let mut service = Service::start().await;
    let fired = service.transition("firing", "a", 10);
    service.publish(&fired).await;
    let first = service.notification().await;
    assert_eq!(first.receivers, ["ops"]);

    // Twice, and again in the words of before.
    for version in [2, 2, 1] {
        service.publish(&edited(&fired, version, &["chat"])).await;
    }
    let added = service.notification().await;
    let (told, alert) = (&added.alerts[0], listed(&mut service).await);
    assert_eq!(added.receivers, ["chat"]);
    assert_eq!((told.state.as_str(), told.starts_unix_nano, told.occurrences), ("firing", 10, 1));
    for alert in [told, &alert] {
        assert_eq!((alert.level.as_str(), alert.labels["severity"].as_str()), ("warning", "warning"));
        assert_eq!((alert.annotations["summary"].as_str(), alert.rule_version), ("version 2: 97.5", 2));
    }
    assert_eq!(alert.receivers, ["chat", "ops"]);
    assert_eq!(
        (&added.group.as_ref().unwrap().key, added.previous_sequence),
        (&first.group.as_ref().unwrap().key, first.sequence)
    );

    // Nobody is new: nobody hears anything but followers, and these what has become of what was told.
    for (told, receiver, state) in [(&first, "ops", "delivered"), (&added, "chat", "failed")] {
        service.delivered(told, receiver, state, testkit::now()).await;
    }
    eventually("the news", PATIENCE, async || match listed(&mut service).await.delivery.as_str() {
        "partly_delivered" => Ok(()),
        other => Err(other.to_owned()),
    })
    .await;
    service.publish(&edited(&fired, 3, &["chat"])).await;
    let changes = service.changes(3).await;
    let shown = changes[2].alert.as_ref().unwrap();
    assert_eq!((changes[2].change.as_str(), shown.rule_version), ("refreshed", 3));
    assert_eq!(
        (&shown.receivers, shown.delivery.as_str()),
        (&vec!["chat".to_owned(), "ops".to_owned()], "partly_delivered")
    );

    // The one that was taken away knows of it.
    let ended = edited(&service.after(&fired, "resolved", 20), 4, &["chat"]);
    service.publish(&ended).await;
    let end = service.notification().await;
    assert_eq!((end.receivers, end.previous_sequence), (vec!["chat".to_owned(), "ops".to_owned()], added.sequence));
    assert_eq!(end.alerts[0].annotations["summary"], "version 4: 97.5");
    assert_eq!(service.outcomes().await, ["opened", "resolved"]);
    service.process.stop().await;
}

#[tokio::test]
async fn words_of_an_owner_that_was_replaced_or_about_what_is_over_tell_nobody() {
    let mut service = Service::start().await;
    let fired = service.transition("firing", "a", 10);
    let newer = Transition { epoch: 2, ..service.transition("firing", "b", 11) };
    let over = Transition { epoch: 2, ..service.after(&newer, "resolved", 12) };
    for transition in [&fired, &newer, &over] {
        service.publish(transition).await;
        service.told().await;
    }
    service.publish(&edited(&fired, 2, &["chat"])).await;
    service.publish(&edited(&newer, 2, &["chat"])).await;
    let end = Transition { epoch: 2, ..service.after(&fired, "resolved", 20) };
    service.publish(&end).await;
    let told = service.notification().await;
    assert_eq!((told.receivers, told.alerts[0].labels["series"].as_str()), (vec!["ops".to_owned()], "a"));
    service.process.stop().await;
}

#[tokio::test]
async fn what_is_not_remembered_any_more_but_ended_by_hand_stays_ended_when_it_is_said_again() {
    let mut service = Service::start().await;
    let fired = service.transition("firing", "a", 10);
    service.publish(&fired).await;
    let alert = service.told().await;
    let token = testkit::admin_token(&service.tenant);
    service.resolve_as(&alert.id, &token).await.unwrap();
    service.told().await;
    // It fires for longer than is remembered what was taken.
    sqlx::query("delete from applied_transitions").execute(&service.pool).await.unwrap();
    service.publish(&fired).await;
    let other = service.transition("firing", "b", 11);
    service.publish(&other).await;
    assert_eq!(service.told().await.labels["series"], "b");
    assert_eq!(service.outcomes().await, ["opened", "opened"]);
    service.process.stop().await;
}
