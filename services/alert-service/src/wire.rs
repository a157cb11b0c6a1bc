//! Alerts as the contract's messages say them.

use proto::alerts::{self, ReceiverNews};

use crate::alert::Alert;
use crate::store::deliveries::News;

/// An alert for an answer or a message, and what its receivers have heard.
#[must_use]
pub fn alert(alert: &Alert, news: News) -> alerts::Alert {
    alerts::Alert {
        id: alert.id.clone(),
        rule_id: alert.rule_id.clone(),
        rule_name: alert.rule_name.clone(),
        level: alert.level.clone(),
        state: alert.state.clone(),
        labels: alert.labels.clone().into_iter().collect(),
        annotations: alert.annotations.clone().into_iter().collect(),
        value: alert.value,
        line: alert.line.clone(),
        condition: alert.condition.clone(),
        starts_unix_nano: alert.starts,
        ends_unix_nano: alert.ends,
        updated_unix_nano: alert.updated,
        resource_id: alert.resource_id.clone(),
        receivers: news.receivers.iter().map(|told| told.receiver.clone()).collect(),
        occurrences: alert.occurrences,
        delivery: sum(&news).to_owned(),
        descriptive_labels: alert.descriptive.clone().into_iter().collect(),
        ended_reason: alert.ended_reason.clone(),
        ended_by: alert.ended_by.clone(),
        kind: alert.kind.clone(),
        deliveries: news.receivers,
        rule_version: alert.rule_version,
        late: alert.late,
    }
}

/// News of receivers that are about to be told.
#[must_use]
pub fn pending(receivers: &[String]) -> News {
    let news = |receiver: &String| ReceiverNews {
        receiver: receiver.clone(),
        state: "pending".to_owned(),
        ..ReceiverNews::default()
    };
    News { receivers: receivers.iter().map(news).collect(), waits: true }
}

/// One word for what all receivers have heard. What was superseded is told by something newer, so it is over as well.
fn sum(news: &News) -> &'static str {
    let count = |state: &str| news.receivers.iter().filter(|told| told.state == state).count();
    let (all, delivered) = (news.receivers.len(), count("delivered") + count("superseded"));
    match (delivered, count("failed")) {
        _ if all == 0 => "none",
        (delivered, _) if delivered == all => "delivered",
        (0, failed) if failed == all => "failed",
        (0, 0) if news.waits => "pending",
        (0, 0) => "sent",
        _ => "partly_delivered",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_word_tells_partial_truths_apart() {
        let cases: [(&[&str], bool, &str); 10] = [
            (&[], false, "none"),
            (&["pending"], true, "pending"),
            (&["pending", "pending"], false, "sent"),
            (&["delivered", "delivered"], false, "delivered"),
            (&["delivered", "superseded"], false, "delivered"),
            (&["failed", "failed"], false, "failed"),
            (&["delivered", "failed"], false, "partly_delivered"),
            (&["delivered", "pending"], true, "partly_delivered"),
            (&["failed", "pending"], false, "partly_delivered"),
            // A word of tomorrow is no failure and no success.
            (&["snoozed", "pending"], false, "sent"),
        ];
        for (states, waits, word) in cases {
            let receivers =
                states.iter().map(|state| ReceiverNews { state: (*state).to_owned(), ..Default::default() });
            assert_eq!(sum(&News { receivers: receivers.collect(), waits }), word, "{states:?}");
        }
    }
}
