//! A running alert-service, what feeds it, and what hears it.

use std::time::Duration;

use alert_service::app;
use alert_service::config::Settings;
use alert_service::store::{MIGRATIONS, SCHEMA};
use bus::{Bus, Delivery, Follow, From, Outgoing, Stream, Subject};
use lifecycle::Process;
use prost::Message as _;
use proto::alerts::alerts_client::AlertsClient;
use proto::alerts::{
    Alert, AlertChanged, DeliveryEvent, Level, Levels, ListAlertsRequest, Notification, ResolveAlertRequest, Transition,
};
use sqlx::PgPool;
use store::Pools;
use testkit::now;

pub const PATIENCE: Duration = Duration::from_secs(30);
pub const RETENTION: Duration = Duration::from_secs(90 * 24 * 60 * 60);
pub const SHARD: &str = "00/metrics";

pub fn settings() -> Settings {
    Settings {
        grpc_listen: settings::loopback(0),
        alert_retention: RETENTION,
        alert_predecessor_wait: Duration::from_secs(60),
    }
}

pub struct Service {
    pub process: Process,
    pub pools: Pools,
    pub pool: PgPool,
    pub bus: Bus,
    pub tenant: String,
    pub notifications: Follow,
    client: AlertsClient<rpc::Channel>,
    published: u64,
}

impl Service {
    pub async fn start() -> Self {
        Self::start_on(&testkit::database().await, &testkit::namespace()).await
    }

    pub async fn start_on(database: &store::Settings, namespace: &bus::Settings) -> Self {
        Self::start_with(settings(), database, namespace).await
    }

    pub async fn start_with(settings: Settings, database: &store::Settings, namespace: &bus::Settings) -> Self {
        let process = Process::for_test();
        let pools = store::open(&process, database, SCHEMA, MIGRATIONS).await.unwrap();
        let bus = Bus::connect(namespace, process.ready("nats")).await.unwrap();
        let notifications = bus.follow(Stream::Notifications, From::Sequence(1)).await;
        let (verifier, identity) = (testkit::tokens().verifier(), testkit::identity("alert-service"));
        let address = app::start(&process, pools.clone(), bus.clone(), verifier, &settings, &identity).await.unwrap();
        let client = AlertsClient::new(testkit::channel(address));
        let (pool, tenant) = (pools.work.clone(), testkit::tenant());
        Self { process, pools, pool, bus, tenant, notifications, client, published: 0 }
    }

    /// A transition of this test's tenant; the series' name is also a label.
    pub fn transition(&self, state: &str, series: &str, order: u64) -> Transition {
        Transition {
            id: format!("{}-{series}-{state}-{order}", self.tenant),
            tenant: self.tenant.clone(),
            rule_id: "rule".into(),
            rule_version: 1,
            evaluated_version: 1,
            kind: "metric".into(),
            series: series.into(),
            state: state.into(),
            value: 97.5,
            sample_unix_nano: order,
            order,
            received_unix_nano: now(),
            evaluated_unix_nano: now(),
            series_labels: [("series".to_owned(), series.to_owned())].into(),
            descriptive_labels: [("host_name".to_owned(), format!("host-{series}"))].into(),
            rule_name: "cpu high".into(),
            level: "critical".into(),
            condition: "> 90".into(),
            annotations: [("summary".to_owned(), "{{ $labels.series }} at {{ $value }}".to_owned())].into(),
            receivers: vec!["ops".into()],
            shard: SHARD.into(),
            epoch: 1,
            ..Transition::default()
        }
    }

    /// The same as the next of `before`'s series.
    pub fn after(&self, before: &Transition, state: &str, order: u64) -> Transition {
        Transition { previous: before.id.clone(), ..self.transition(state, &before.series, order) }
    }

    /// Publishes past the broker's own sorting out of repeats.
    pub async fn publish(&mut self, transition: &Transition) {
        self.published += 1;
        let id = format!("{}-{}", transition.id, self.published);
        self.bus.publish(Subject::Transitions, Outgoing::new(id, transition.encode_to_vec())).await.unwrap();
    }

    /// Says, as the owner of the shard, that these transitions fire in `round`, as of `order`.
    pub async fn say(&mut self, round: u64, order: u64, firing: &[&Transition]) {
        self.say_part((round, 0, 1), order, 1, firing).await;
    }

    /// Says one part (round, part, parts) of it under `epoch`.
    pub async fn say_part(&mut self, part: (u64, u32, u32), order: u64, epoch: u64, firing: &[&Transition]) {
        let firing = firing.iter().map(|transition| Level {
            tenant: transition.tenant.clone(),
            rule_id: transition.rule_id.clone(),
            series: vec![u64::from_str_radix(&transition.series, 16).unwrap()],
            transitions: vec![vec![0; 16]],
        });
        let firing = firing.collect();
        let (round, part, parts) = part;
        let levels = Levels { shard: SHARD.into(), epoch, order, round, part, parts, firing };
        self.published += 1;
        let id = format!("levels-{}", self.published);
        self.bus.publish(Subject::Levels, Outgoing::new(id, levels.encode_to_vec())).await.unwrap();
    }

    pub async fn notification(&mut self) -> Notification {
        let delivery = next(&mut self.notifications).await;
        let notification = Notification::decode(delivery.payload().clone()).unwrap();
        assert_eq!(delivery.id(), notification.id, "a notification published twice must be one message");
        notification
    }

    /// The one alert of the next notification.
    pub async fn told(&mut self) -> Alert {
        let mut alerts = self.notification().await.alerts;
        assert_eq!(alerts.len(), 1);
        alerts.remove(0)
    }

    /// Everything that followers heard of alerts so far, and the next `count`.
    pub async fn changes(&self, count: usize) -> Vec<AlertChanged> {
        let mut follow = self.bus.follow(Stream::Alerts, From::Sequence(1)).await;
        let mut changes = Vec::new();
        while changes.len() < count {
            changes.push(AlertChanged::decode(next(&mut follow).await.payload().clone()).unwrap());
        }
        changes
    }

    /// Says, as the dispatcher, what became of `told` at one receiver.
    pub async fn delivered(&self, told: &Notification, receiver: &str, state: &str, finished_unix_nano: u64) {
        let event = DeliveryEvent {
            tenant: self.tenant.clone(),
            notification_id: told.id.clone(),
            group_id: told.group.clone().unwrap().id,
            receiver: receiver.into(),
            state: state.into(),
            attempts: 2,
            received_unix_nano: told.received_unix_nano,
            finished_unix_nano,
            ..Default::default()
        };
        let message = Outgoing::new(format!("{}-{receiver}-{state}", told.id), event.encode_to_vec());
        self.bus.publish(Subject::Deliveries, message).await.unwrap();
    }

    pub async fn list(&mut self, request: ListAlertsRequest) -> Result<(Vec<Alert>, String), fault::Fault> {
        let token = testkit::admin_token(&self.tenant);
        let answer = self.client.list_alerts(rpc::forward(request, &token)).await?.into_inner();
        Ok((answer.items, answer.next))
    }

    pub async fn list_as(&mut self, token: &str) -> Result<usize, fault::Fault> {
        let answer = self.client.list_alerts(rpc::forward(ListAlertsRequest::default(), token)).await?;
        Ok(answer.into_inner().items.len())
    }

    pub async fn resolve_as(&mut self, id: &str, token: &str) -> Result<Alert, fault::Fault> {
        Ok(self.client.resolve_alert(rpc::forward(ResolveAlertRequest { id: id.into() }, token)).await?.into_inner())
    }

    pub async fn outcomes(&self) -> Vec<String> {
        let query = "select outcome from transitions where tenant = $1 order by recorded_at, stream_sequence";
        sqlx::query_scalar(query).bind(&self.tenant).fetch_all(&self.pool).await.unwrap()
    }
}

pub async fn next(follow: &mut Follow) -> Delivery {
    tokio::time::timeout(PATIENCE, follow.next()).await.expect("a message in time")
}
