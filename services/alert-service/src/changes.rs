//! What one transaction does to alerts: their new states, who is told, what followers hear. Whoever changes alerts goes
//! this way: transitions, rounds, people.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use proto::alerts::AlertChanged;
use sqlx::PgConnection;
use store::outbox::{self, Message};

use crate::alert::{Alert, Change, Outcome};
use crate::outbox::Topic;
use crate::policy::route::{self, Group};
use crate::policy::{self, Told};
use crate::store::deliveries::{self, News};
use crate::store::{alerts, told};
use crate::wire;

/// What makes a change happen.
#[derive(Debug, Clone, Copy)]
pub struct Cause<'a> {
    /// Names it: for the same alert and cause there is one notification and one message, however often it is taken.
    pub id: &'a str,
    /// When the gateway took the deciding sample in, Unix nanoseconds; 0 where there is none.
    pub received: u64,
    /// The trace that it belongs to.
    pub traceparent: Option<&'a str>,
}

/// Alerts that are locked, and what becomes of them.
pub struct Changes {
    now: u64,
    alerts: BTreeMap<String, Alert>,
    told: BTreeMap<String, Told>,
    news: BTreeMap<String, News>,
    changed: BTreeSet<String>,
    tellings: Vec<Telling>,
    messages: Vec<Message>,
}

/// A notification that is to be made.
struct Telling {
    id: String,
    group: Group,
    alert: Alert,
    state: &'static str,
    receivers: Vec<String>,
    received: u64,
    traceparent: Option<String>,
}

impl Changes {
    /// Locks these alerts, also those that are not there yet, and loads what is known of them.
    ///
    /// # Errors
    /// Postgres.
    pub async fn begin(connection: &mut PgConnection, ids: &[String]) -> sqlx::Result<Self> {
        let now = alerts::lock(connection, ids).await?;
        let (alerts, told) = (alerts::load(connection, ids).await?, told::load(connection, ids).await?);
        let news = deliveries::news(&mut *connection, &ids.iter().map(String::as_str).collect::<Vec<_>>()).await?;
        Ok(Self { now, alerts, told, news, changed: BTreeSet::new(), tellings: Vec::new(), messages: Vec::new() })
    }

    /// Now, by the clock of Postgres, Unix nanoseconds.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.now
    }

    /// An alert as it is after what was applied.
    #[must_use]
    pub fn alert(&self, id: &str) -> Option<&Alert> {
        self.alerts.get(id)
    }

    /// Applies a change; gives the id of the notification that it causes, if any.
    pub fn apply(&mut self, change: Change, cause: Cause<'_>) -> Option<String> {
        let alert = change.alert?;
        let known = self.told.entry(alert.id.clone()).or_default();
        let id = notification_id(&alert, cause.id);
        let news = self.news.entry(alert.id.clone()).or_default();
        let notification = policy::settle(&change.tell, known, &id).map(|(state, receivers)| {
            wait_for(news, &receivers);
            self.tellings.push(Telling {
                id: id.clone(),
                group: route::group(&alert),
                alert: alert.clone(),
                state,
                receivers,
                received: cause.received,
                traceparent: cause.traceparent.map(str::to_owned),
            });
            id.clone()
        });
        if change.outcome.is_news() {
            self.messages.push(changed(&alert, change.outcome, news.clone(), cause, self.now));
        }
        self.changed.insert(alert.id.clone());
        self.alerts.insert(alert.id.clone(), alert);
        notification
    }

    /// Writes all of it; says whether the outbox has something now.
    ///
    /// # Errors
    /// Postgres.
    pub async fn write(mut self, connection: &mut PgConnection) -> sqlx::Result<bool> {
        if self.changed.is_empty() {
            return Ok(false);
        }
        let changed: Vec<&Alert> = self.changed.iter().filter_map(|id| self.alerts.get(id)).collect();
        alerts::save(connection, &changed).await?;
        if !self.tellings.is_empty() {
            let sequences = sequences(connection, &self.tellings, self.now).await?;
            let entries = self.tellings.iter().flat_map(entries).collect::<Vec<_>>();
            told::save(connection, &entries).await?;
            let notifications = self.tellings.iter().zip(sequences);
            let notifications = notifications.map(|(telling, sequence)| telling.message(sequence, self.now));
            // A notification comes before the word of the change: somebody may be waiting for it.
            self.messages = notifications.chain(std::mem::take(&mut self.messages)).collect();
        }
        outbox::put(connection, &self.messages).await?;
        Ok(!self.messages.is_empty())
    }
}

/// What these receivers heard before is old news.
fn wait_for(news: &mut News, receivers: &[String]) {
    news.receivers.retain(|told| !receivers.contains(&told.receiver));
    news.receivers.extend(wire::pending(receivers).receivers);
    news.receivers.sort_unstable_by(|one, other| one.receiver.cmp(&other.receiver));
    news.waits = true;
}

/// The id of what is told of an alert for that cause.
#[must_use]
pub fn notification_id(alert: &Alert, cause: &str) -> String {
    model::digest(&[&route::group(alert).id, cause])
}

/// A sequence for each telling, in their order, and the one before it in its group.
async fn sequences(connection: &mut PgConnection, tellings: &[Telling], now: u64) -> sqlx::Result<Vec<(u64, u64)>> {
    let mut groups: BTreeMap<&str, (&Group, u64)> = BTreeMap::new();
    for telling in tellings {
        groups.entry(&telling.group.id).or_insert((&telling.group, 0)).1 += 1;
    }
    let mut reserved = told::sequences(connection, &groups, now / 1_000_000).await?;
    let next = tellings.iter().map(|telling| {
        let left = groups.get_mut(telling.group.id.as_str()).map_or(0, |(_, left)| {
            *left = left.saturating_sub(1);
            *left
        });
        let Some((last, before)) = reserved.get_mut(&telling.group.id) else { return (0, 0) };
        let sequence = last.saturating_sub(left);
        (sequence, std::mem::replace(before, sequence))
    });
    Ok(next.collect())
}

fn entries(telling: &Telling) -> impl Iterator<Item = told::Entry<'_>> {
    telling.receivers.iter().map(|receiver| told::Entry {
        alert_id: &telling.alert.id,
        receiver,
        group_id: &telling.group.id,
        state: telling.state,
        notification_id: &telling.id,
    })
}

impl Telling {
    fn message(&self, (sequence, previous_sequence): (u64, u64), now: u64) -> Message {
        let group = proto::alerts::Group {
            id: self.group.id.clone(),
            key: self.group.key.clone(),
            labels: self.alert.labels.clone().into_iter().collect(),
            route: self.group.route.clone(),
        };
        let notification = proto::alerts::Notification {
            id: self.id.clone(),
            tenant: self.alert.tenant.clone(),
            group: Some(group),
            sequence,
            alerts: vec![wire::alert(&self.alert, wire::pending(&self.receivers))],
            omitted: 0,
            receivers: self.receivers.clone(),
            received_unix_nano: self.received,
            created_unix_nano: now,
            previous_sequence,
        };
        Message {
            id: self.id.clone(),
            topic: Topic::Notifications.as_str().to_owned(),
            key: format!("group/{}", self.group.id),
            tenant: self.alert.tenant.clone(),
            payload: notification.encode_to_vec(),
            traceparent: self.traceparent.clone(),
        }
    }
}

fn changed(alert: &Alert, outcome: Outcome, news: News, cause: Cause<'_>, now: u64) -> Message {
    let id = model::digest(&["changed", &alert.id, cause.id]);
    let event = AlertChanged {
        id: id.clone(),
        tenant: alert.tenant.clone(),
        alert: Some(wire::alert(alert, news)),
        change: outcome.as_str().to_owned(),
        changed_unix_nano: now,
        received_unix_nano: cause.received,
        revision: alert.revision,
    };
    Message {
        id,
        topic: Topic::Changed.as_str().to_owned(),
        key: format!("alert/{}", alert.id),
        tenant: alert.tenant.clone(),
        payload: event.encode_to_vec(),
        traceparent: cause.traceparent.map(str::to_owned),
    }
}
