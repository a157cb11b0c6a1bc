//! A running alert-service, what feeds it, and what hears it.

use std::time::Duration;

use alert_service::app;
use alert_service::config::Settings;
use alert_service::store::{MIGRATIONS, SCHEMA};
use bus::{Bus, Delivery, Follow, From, Outgoing, Stream, Subject};
use lifecycle::Process;
use prost::Message as _;
use proto::alerts::alerts_client::AlertsClient;
use proto::alerts::{Alert, DeliveryEvent, ListAlertsRequest, Notification, Transition};
use sqlx::PgPool;
use testkit::now;

pub const PATIENCE: Duration = Duration::from_secs(10);
pub const RETENTION: Duration = Duration::from_secs(90 * 24 * 60 * 60);

pub struct Service {
    pub process: Process,
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
        Self::start_with(RETENTION, database, namespace).await
    }

    pub async fn start_with(alert_retention: Duration, database: &store::Settings, namespace: &bus::Settings) -> Self {
        let process = Process::for_test();
        let pool = store::open(&process, database, SCHEMA, MIGRATIONS).await.unwrap().work;
        let bus = Bus::connect(namespace, process.ready("nats")).await.unwrap();
        let notifications = bus.follow(Stream::Notifications, From::Sequence(1)).await;
        let (verifier, identity) = (testkit::tokens().verifier(), testkit::identity("alert-service"));
        let settings = Settings { grpc_listen: settings::loopback(0), alert_retention };
        let address = app::start(&process, pool.clone(), bus.clone(), verifier, &settings, &identity).await.unwrap();
        let client = AlertsClient::new(testkit::channel(address));
        Self { process, pool, bus, tenant: testkit::tenant(), notifications, client, published: 0 }
    }

    /// A transition of this test's tenant; the series' name is also a label.
    pub fn transition(&self, state: &str, series: &str, sample: u64) -> Transition {
        Transition {
            id: format!("{}-{series}-{state}-{sample}", self.tenant),
            tenant: self.tenant.clone(),
            rule_id: "rule".into(),
            rule_version: 1,
            series: series.into(),
            state: state.into(),
            value: 97.5,
            sample_unix_nano: sample,
            received_unix_nano: now(),
            evaluated_unix_nano: now(),
            series_labels: [("series".to_owned(), series.to_owned())].into(),
            rule_name: "cpu high".into(),
            level: "critical".into(),
            condition: "> 90".into(),
            annotations: [("summary".to_owned(), "{{ $labels.series }} at {{ $value }}".to_owned())].into(),
            receivers: vec!["ops".into()],
            shard: "metrics.00".into(),
            epoch: 1,
            ..Transition::default()
        }
    }

    /// Publishes past the broker's own sorting out of repeats.
    pub async fn publish(&mut self, transition: &Transition) {
        self.published += 1;
        let id = format!("{}-{}", transition.id, self.published);
        self.bus.publish(Subject::Transitions, Outgoing::new(id, transition.encode_to_vec())).await.unwrap();
    }

    pub async fn notification(&mut self) -> Notification {
        let delivery = next(&mut self.notifications).await;
        let notification = Notification::decode(delivery.payload().clone()).unwrap();
        assert_eq!(delivery.id(), notification.id, "a notification published twice must be one message");
        notification
    }

    /// Says, as the dispatcher, that `told` was delivered.
    pub async fn delivered(&self, told: &Notification, finished_unix_nano: u64) {
        let event = DeliveryEvent {
            tenant: self.tenant.clone(),
            notification_id: told.id.clone(),
            alert_id: told.alert.clone().unwrap().id,
            receiver: "ops".into(),
            state: "delivered".into(),
            attempts: 2,
            received_unix_nano: told.received_unix_nano,
            finished_unix_nano,
            ..Default::default()
        };
        let message = Outgoing::new(told.id.clone(), event.encode_to_vec());
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

    pub async fn outcomes(&self) -> Vec<String> {
        let query = "select outcome from transitions where tenant = $1 order by recorded_at";
        sqlx::query_scalar(query).bind(&self.tenant).fetch_all(&self.pool).await.unwrap()
    }
}

pub async fn next(follow: &mut Follow) -> Delivery {
    tokio::time::timeout(PATIENCE, follow.next()).await.expect("a message in time")
}
