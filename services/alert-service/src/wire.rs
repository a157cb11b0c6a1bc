//! Alerts as the contract's messages say them.

use proto::alerts;

use crate::alert::{Alert, Change, notification_id};

/// An alert for an answer or a notification; `delivery` is what was last heard of its notification.
#[must_use]
pub fn alert(alert: Alert, delivery: &str) -> alerts::Alert {
    alerts::Alert {
        id: alert.id,
        rule_id: alert.rule_id,
        rule_name: alert.rule_name,
        level: alert.level,
        state: alert.state.as_str().to_owned(),
        labels: alert.labels.into_iter().collect(),
        annotations: alert.annotations.into_iter().collect(),
        value: alert.value,
        line: alert.line,
        condition: alert.condition,
        starts_unix_nano: alert.starts,
        ends_unix_nano: alert.ends,
        updated_unix_nano: alert.updated,
        resource_id: alert.resource_id,
        receivers: alert.receivers,
        occurrences: alert.occurrences,
        delivery: delivery.to_owned(),
        ..alerts::Alert::default()
    }
}

/// The notification that a change causes; nothing when nobody is to be told.
#[must_use]
pub fn notification(
    change: &Change,
    transition: &alerts::Transition,
    created_unix_nano: u64,
) -> Option<alerts::Notification> {
    let told = change.alert.as_ref().filter(|_| !change.tell.is_empty())?;
    Some(alerts::Notification {
        id: notification_id(&told.id, &transition.id),
        tenant: told.tenant.clone(),
        alerts: vec![alert(told.clone(), "pending")],
        receivers: change.tell.clone(),
        received_unix_nano: transition.received_unix_nano,
        created_unix_nano,
        ..alerts::Notification::default()
    })
}
