//! A running dispatcher, what feeds it, and what hears it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use std::time::Duration;

use bus::{Bus, Follow, From, Outgoing, Stream, Subject};
use dispatcher::app;
use dispatcher::config::Settings;
use dispatcher::store::{MIGRATIONS, SCHEMA, adding};
use fault::Fault;
use lifecycle::Process;
use prost::Message as _;
use proto::alerts::{Alert, DeliveryEvent, Group, Notification};
use proto::dispatch::dispatch_client::DispatchClient;
use proto::dispatch::{
    CreateReceiverRequest, DeleteReceiverRequest, Delivery, GetReceiverRequest, ListDeliveriesRequest,
    ListReceiversRequest, MissingReceiversRequest, Receiver, RotateSecretRequest, UpdateReceiverRequest, Webhook,
};
use sqlx::PgPool;
use testkit::{eventually, now};

use crate::receiver::{Answer, Request};

pub const PATIENCE: Duration = Duration::from_secs(15);
pub const RETENTION: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// Quick, and open to this machine.
pub fn settings() -> Settings {
    Settings {
        grpc_listen: settings::loopback(0),
        webhook_allowed_networks: "127.0.0.0/8,::1/128".parse().unwrap(),
        webhook_timeout: Duration::from_secs(5),
        webhook_retry_first: Duration::from_millis(50),
        webhook_retry_most: Duration::from_secs(1),
        webhook_retry_for: Duration::from_secs(60),
        webhook_refused_for: Duration::from_secs(60),
        receiver_wait: Duration::from_secs(60),
        predecessor_wait: Duration::from_secs(60),
        webhook_attempts: 1024,
        webhook_concurrency: 2,
        external_url: "http://localhost:8080".parse().unwrap(),
        delivery_retention: RETENTION,
        encryption_key_file: None,
    }
}

pub struct Service {
    pub process: Process,
    pub pool: PgPool,
    pub bus: Bus,
    pub tenant: String,
    pub events: Follow,
    client: DispatchClient<rpc::Channel>,
    published: u64,
}

impl Service {
    pub async fn start() -> Self {
        Self::start_with(&settings()).await
    }

    pub async fn start_with(settings: &Settings) -> Self {
        Self::start_on(settings, &testkit::database().await, &testkit::namespace()).await
    }

    pub async fn start_on(settings: &Settings, database: &store::Settings, namespace: &bus::Settings) -> Self {
        let process = Process::for_test();
        let pools = store::open(&process, database, SCHEMA, MIGRATIONS).await.unwrap();
        let bus = Bus::connect(namespace, process.ready("nats")).await.unwrap();
        let events = bus.follow(Stream::Deliveries, From::Sequence(1)).await;
        let (verifier, identity) = (testkit::tokens().verifier(), testkit::identity("dispatcher"));
        let address = app::start(&process, pools.clone(), bus.clone(), verifier, settings, &identity).await.unwrap();
        let client = DispatchClient::new(testkit::channel(address));
        let (pool, tenant) = (pools.work.clone(), testkit::tenant());
        Self { process, pool, bus, tenant, events, client, published: 0 }
    }

    pub async fn create(&mut self, name: &str, url: &str) -> Receiver {
        self.try_create(request(name, url)).await.unwrap()
    }

    pub async fn try_create(&mut self, request: CreateReceiverRequest) -> Result<Receiver, Fault> {
        let token = testkit::admin_token(&self.tenant);
        self.create_as(request, &token).await
    }

    pub async fn create_as(&mut self, request: CreateReceiverRequest, token: &str) -> Result<Receiver, Fault> {
        Ok(self.client.create_receiver(rpc::forward(request, token)).await?.into_inner())
    }

    pub async fn receivers_as(
        &mut self,
        request: ListReceiversRequest,
        token: &str,
    ) -> Result<(Vec<Receiver>, String), Fault> {
        let answer = self.client.list_receivers(rpc::forward(request, token)).await?.into_inner();
        Ok((answer.items, answer.next))
    }

    pub async fn receiver(&mut self, id: &str) -> Result<Receiver, Fault> {
        let token = testkit::admin_token(&self.tenant);
        let request = GetReceiverRequest { id: id.into() };
        Ok(self.client.get_receiver(rpc::forward(request, &token)).await?.into_inner())
    }

    pub async fn update(&mut self, request: UpdateReceiverRequest) -> Result<Receiver, Fault> {
        let token = testkit::admin_token(&self.tenant);
        Ok(self.client.update_receiver(rpc::forward(request, &token)).await?.into_inner())
    }

    pub async fn rotate(&mut self, request: RotateSecretRequest) -> Result<Receiver, Fault> {
        let token = testkit::admin_token(&self.tenant);
        Ok(self.client.rotate_secret(rpc::forward(request, &token)).await?.into_inner())
    }

    pub async fn delete(&mut self, id: &str, version: u64) -> Result<(), Fault> {
        let token = testkit::admin_token(&self.tenant);
        let request = DeleteReceiverRequest { id: id.into(), version };
        self.client.delete_receiver(rpc::forward(request, &token)).await?;
        Ok(())
    }

    pub async fn missing_as(&mut self, names: &[&str], token: &str) -> Result<Vec<String>, Fault> {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let answer = self.client.missing_receivers(rpc::forward(MissingReceiversRequest { names }, token)).await?;
        Ok(answer.into_inner().names)
    }

    pub async fn deliveries(&mut self, request: ListDeliveriesRequest) -> Result<(Vec<Delivery>, String), Fault> {
        let token = testkit::admin_token(&self.tenant);
        let answer = self.client.list_deliveries(rpc::forward(request, &token)).await?.into_inner();
        Ok((answer.items, answer.next))
    }

    /// Until the first delivery waits for the one before it.
    pub async fn until_it_waits(&mut self) {
        let pending = ListDeliveriesRequest { state: "pending".into(), ..Default::default() };
        eventually("it waits", PATIENCE, async || {
            let (listed, _) = self.deliveries(pending.clone()).await.unwrap();
            match listed.first() {
                Some(delivery) if delivery.reason == adding::AWAITS => Ok(()),
                _ => Err(format!("{listed:?}")),
            }
        })
        .await;
    }

    /// The delivery to `receiver` as soon as it is over.
    pub async fn over(&mut self, receiver: &str) -> Delivery {
        let request = ListDeliveriesRequest { receiver: receiver.into(), ..Default::default() };
        eventually("the end of a delivery", PATIENCE, async || {
            let (mut items, _) = self.deliveries(request.clone()).await.unwrap();
            match items.pop() {
                Some(delivery) if delivery.state != "pending" => Ok(delivery),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }

    pub async fn event(&mut self) -> DeliveryEvent {
        let delivery = tokio::time::timeout(PATIENCE, self.events.next()).await.expect("an event in time");
        DeliveryEvent::decode(delivery.payload().clone()).unwrap()
    }

    /// Publishes past the broker's own sorting out of repeats.
    pub async fn publish(&mut self, notification: &Notification) {
        self.published += 1;
        let id = format!("{}-{}", notification.id, self.published);
        let message = Outgoing::new(id, notification.encode_to_vec());
        self.bus.publish(Subject::Notifications, message).await.unwrap();
    }
}

pub fn request(name: &str, url: &str) -> CreateReceiverRequest {
    let webhook = Webhook { url: url.into(), secret: String::new() };
    CreateReceiverRequest { name: name.into(), webhook: Some(webhook), idempotency_key: String::new() }
}

/// A notification about `alert` in `state`, to `receivers`; an end comes behind its beginning.
pub fn notification(tenant: &str, alert: &str, state: &str, receivers: &[&str]) -> Notification {
    numbered(tenant, alert, state, if state == "firing" { 10 } else { 20 }, receivers)
}

/// The sequence of number `number` of a group: sequences are taken from the clock, here an hour ago.
pub fn at(number: u64) -> u64 {
    static BEGIN: LazyLock<u64> = LazyLock::new(|| now() / 1_000_000 - 3_600_000);
    *BEGIN + number
}

/// The same as number `number` of its group.
pub fn numbered(tenant: &str, alert: &str, state: &str, number: u64, receivers: &[&str]) -> Notification {
    let told = Alert {
        id: alert.into(),
        rule_id: "rule".into(),
        rule_name: "cpu high".into(),
        state: state.into(),
        labels: [("alertname".to_owned(), "cpu high".to_owned())].into(),
        annotations: [("sequence".to_owned(), number.to_string())].into(),
        value: 97.5,
        starts_unix_nano: 10,
        ends_unix_nano: if state == "firing" { 0 } else { 20 },
        ..Alert::default()
    };
    let group = Group {
        id: format!("{tenant}-{alert}"),
        key: format!("{{rule=\"rule\"}}:{{alert={alert:?}}}"),
        ..Group::default()
    };
    Notification {
        id: format!("{tenant}-{alert}-{number}"),
        tenant: tenant.into(),
        group: Some(group),
        sequence: at(number),
        alerts: vec![told],
        receivers: receivers.iter().map(|name| (*name).to_owned()).collect(),
        received_unix_nano: now(),
        created_unix_nano: now(),
        ..Notification::default()
    }
}

/// What a receiver heard of each group. It panics where that is out of order, or was told again after it was taken.
#[derive(Default)]
pub struct Heard {
    /// Of each group the requests: which notification, the delivery's id, whether it was taken.
    pub groups: BTreeMap<String, Vec<(u64, String, bool)>>,
    /// How often something came that had been taken before.
    pub repeats: usize,
}

impl Heard {
    pub fn hear(&mut self, request: &Request) {
        let heard = self.groups.entry(request.json()["groupKey"].as_str().unwrap().to_owned()).or_default();
        let (sequence, id) = (request.sequence(), request.header("webhook-id").to_owned());
        if let Some((last, of, _)) = heard.last() {
            assert!(*last <= sequence, "{sequence} was told after {last}: {heard:?}");
            assert!(*last < sequence || *of == id, "the same told under two ids: {heard:?}");
        }
        self.repeats += usize::from(heard.iter().any(|(_, other, taken)| *taken && *other == id));
        heard.push((sequence, id, matches!(request.answer, Answer::Status(200))));
    }

    /// How many different notifications were taken.
    pub fn taken(&self) -> usize {
        let all = self.groups.values().flatten().filter(|(_, _, taken)| *taken);
        all.map(|(_, id, _)| id).collect::<BTreeSet<_>>().len()
    }
}
