//! A registry of one's own, with the gateway's part played by the test.

use std::collections::HashMap;
use std::time::Duration;

use authn::Permission;
use bus::{Bus, Follow, From, Outgoing, Stream, Subject};
use fault::Fault;
use lifecycle::Process;
use prost::Message as _;
use proto::registry::registry_client::RegistryClient;
use proto::registry::{
    GetResourceRequest, ListResourcesRequest, ListResourcesResponse, Resource, ResourceChanged, ResourceSeen,
};
use registry::config::Settings;
use settings::Secret;
use sqlx::ConnectOptions as _;
use testkit::{eventually, now};
use tokio::task::JoinSet;

/// Longer than a replica that lost its way to Postgres can hold what it was about to do.
pub const SOON: Duration = Duration::from_secs(45);
pub const IDLE_AFTER: Duration = Duration::from_millis(600);
pub const OFFLINE_AFTER: Duration = Duration::from_millis(1_500);

/// What outlives a registry: its servers, and a connection to each.
pub struct Site {
    pub database: store::Settings,
    pub broker: bus::Settings,
    pub redis_url: Secret,
    pub bus: Bus,
    process: Process,
}

pub struct Registry {
    client: RegistryClient<rpc::Channel>,
    pub process: Process,
}

/// Heartbeats until it is dropped.
pub struct Beating(#[expect(dead_code, reason = "dropping it ends the beating")] JoinSet<()>);

impl Site {
    pub async fn new() -> Self {
        let (process, broker) = (Process::for_test(), testkit::namespace());
        let bus = Bus::connect(&broker, process.ready("nats")).await.unwrap();
        let redis_url = Secret::from(testkit::redis_url());
        Self { database: testkit::database().await, broker, redis_url, bus, process }
    }

    pub async fn start(&self) -> Registry {
        self.start_with(IDLE_AFTER, OFFLINE_AFTER).await
    }

    /// With thresholds that nothing in a test reaches.
    pub async fn start_patient(&self) -> Registry {
        self.start_with(Duration::from_secs(600), Duration::from_secs(6_000)).await
    }

    /// Settings of a registry that judges fast.
    pub fn settings(&self) -> Settings {
        self.settings_with(IDLE_AFTER, OFFLINE_AFTER)
    }

    pub async fn start_with(&self, idle_after: Duration, offline_after: Duration) -> Registry {
        self.start_as(self.settings_with(idle_after, offline_after)).await
    }

    fn settings_with(&self, idle_after: Duration, offline_after: Duration) -> Settings {
        Settings {
            grpc_listen: settings::loopback(0),
            redis_url: self.redis_url.clone(),
            idle_after,
            offline_after,
            first_interval: Duration::from_secs(60),
            longest_interval: Duration::from_secs(300),
            gateways_away_after: Duration::from_secs(10),
            resource_retention: Duration::from_secs(30 * 24 * 3_600),
            short_lived_retention: Duration::from_secs(3 * 24 * 3_600),
        }
    }

    pub async fn start_as(&self, settings: Settings) -> Registry {
        let process = Process::for_test();
        let verifier = testkit::tokens().verifier();
        let identity = testkit::identity("registry");
        let address = registry::app::serve(&settings, &self.database, &self.broker, &identity, verifier, &process);
        Registry { client: RegistryClient::new(testkit::channel(address.await.unwrap())), process }
    }

    pub async fn publish(&self, seen: &ResourceSeen) {
        self.publish_bytes(seen.encode_to_vec()).await;
    }

    pub async fn publish_bytes(&self, payload: Vec<u8>) {
        let id = uuid::Uuid::new_v4().to_string();
        self.bus.publish(Subject::ResourcesSeen, Outgoing::new(id, payload)).await.unwrap();
    }

    pub async fn changes(&self) -> Changes {
        Changes(self.bus.follow(Stream::Changes, From::New).await)
    }

    pub async fn redis(&self) -> redis::aio::MultiplexedConnection {
        let client = redis::Client::open(self.redis_url.reveal()).unwrap();
        client.get_multiplexed_async_connection().await.unwrap()
    }

    pub fn heartbeats_key(&self, tenant: &str) -> String {
        format!("{}:heartbeats:{tenant}", self.broker.namespace)
    }

    /// Loses everything that Redis holds for this namespace.
    pub async fn flush(&self) {
        let mut redis = self.redis().await;
        let pattern = format!("{}:*", self.broker.namespace);
        let keys: Vec<String> = redis::cmd("KEYS").arg(pattern).query_async(&mut redis).await.unwrap();
        let _: i64 = redis::cmd("DEL").arg(keys).query_async(&mut redis).await.unwrap();
    }

    /// Leaves heartbeats of `id` as a gateway does, only faster.
    pub async fn beat(&self, tenant: &str, id: &str) -> Beating {
        let (mut redis, key, id) = (self.redis().await, self.heartbeats_key(tenant), id.to_owned());
        let mut beating = JoinSet::new();
        beating.spawn(async move {
            // Ends when its way to Redis is cut.
            while let Ok((seconds, micros)) = redis::cmd("TIME").query_async::<(u64, u64)>(&mut redis).await {
                let now = seconds * 1_000 + micros / 1_000;
                let added: Result<i64, _> =
                    redis::cmd("ZADD").arg(&key).arg(now).arg(&id).query_async(&mut redis).await;
                if added.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        Beating(beating)
    }

    /// Leaves one heartbeat, as a gateway does.
    pub async fn beat_once(&self, tenant: &str, id: &str) {
        let mut redis = self.redis().await;
        let (seconds, micros): (u64, u64) = redis::cmd("TIME").query_async(&mut redis).await.unwrap();
        let now = seconds * 1_000 + micros / 1_000;
        let key = self.heartbeats_key(tenant);
        let _: i64 = redis::cmd("ZADD").arg(key).arg(now).arg(id).query_async(&mut redis).await.unwrap();
    }

    /// Says, as a gateway does, that one is there, until it is dropped.
    pub async fn gateway(&self) -> Beating {
        let (mut redis, key) = (self.redis().await, format!("{}:gateways", self.broker.namespace));
        let mut beating = JoinSet::new();
        beating.spawn(async move {
            while let Ok((seconds, micros)) = redis::cmd("TIME").query_async::<(u64, u64)>(&mut redis).await {
                let now = seconds * 1_000 + micros / 1_000;
                let _ = redis::cmd("ZADD").arg(&key).arg(now).arg("gateway-1").query_async::<i64>(&mut redis).await;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        Beating(beating)
    }

    /// A connection to the registry's tables.
    pub async fn tables(&self) -> sqlx::PgConnection {
        let options: sqlx::postgres::PgConnectOptions = self.database.database_url.reveal().parse().unwrap();
        options.options([("search_path", "registry")]).connect().await.unwrap()
    }

    /// A host that is seen, beats, and is announced.
    pub async fn beating_host(&self, tenant: &str) -> (ResourceSeen, Beating, Changes) {
        let mut changes = self.changes().await;
        let seen = host(tenant, "web-1");
        let beating = self.beat(tenant, &seen.id).await;
        self.publish(&seen).await;
        assert_eq!(changes.next_step().await, step("registered", "", "online"));
        (seen, beating, changes)
    }

    /// When `id` left its last heartbeat, by Redis's clock.
    pub async fn last_beat(&self, tenant: &str, id: &str) -> Duration {
        let key = self.heartbeats_key(tenant);
        let millis: u64 = redis::cmd("ZSCORE").arg(key).arg(id).query_async(&mut direct().await).await.unwrap();
        Duration::from_millis(millis)
    }

    /// Checks that nothing was announced: what happens now to another host is the next change.
    pub async fn announces_nothing(&self, tenant: &str, changes: &mut Changes) {
        self.publish(&host(tenant, "web-2")).await;
        let next = changes.next().await.resource.unwrap();
        assert_eq!(next.name, "web-2", "{next:?}");
    }

    pub async fn stop(self) {
        self.bus.delete_all_streams().await.unwrap();
        self.flush().await;
        self.process.stop().await;
    }
}

/// `ResourceChanged` as others read it.
pub struct Changes(Follow);

impl Changes {
    /// The next change.
    pub async fn next(&mut self) -> ResourceChanged {
        let next = async {
            loop {
                let delivery = self.0.next().await;
                if delivery.subject().ends_with(".resources.changed") {
                    break ResourceChanged::decode(delivery.payload().clone()).unwrap();
                }
            }
        };
        tokio::time::timeout(SOON, next).await.expect("a change is published")
    }

    /// The next change, as its name and the statuses that it goes between.
    pub async fn next_step(&mut self) -> (String, String, String) {
        let change = self.next().await;
        (change.change, change.previous_status, change.resource.unwrap().status)
    }
}

impl Registry {
    pub async fn list(&self, tenant: &str, selector: &str) -> Result<Vec<Resource>, Fault> {
        Ok(self.page(tenant, selector, 0, "").await?.items)
    }

    pub async fn page(
        &self,
        tenant: &str,
        selector: &str,
        limit: u32,
        cursor: &str,
    ) -> Result<ListResourcesResponse, Fault> {
        let request = ListResourcesRequest { r#match: selector.to_owned(), limit, cursor: cursor.to_owned() };
        let token = testkit::tokens().user(tenant, &[Permission::ResourcesRead]);
        Ok(self.client.clone().list_resources(rpc::forward(request, &token)).await?.into_inner())
    }

    pub async fn get(&self, tenant: &str, id: &str) -> Result<Resource, Fault> {
        let token = testkit::tokens().user(tenant, &[Permission::ResourcesRead]);
        self.get_with(&token, id).await
    }

    pub async fn get_with(&self, token: &str, id: &str) -> Result<Resource, Fault> {
        let request = rpc::forward(GetResourceRequest { id: id.to_owned() }, token);
        Ok(self.client.clone().get_resource(request).await?.into_inner())
    }

    pub async fn until_listed(&self, tenant: &str, count: usize) -> Vec<Resource> {
        eventually("the resources are listed", SOON, async || {
            let items = self.list(tenant, "").await.map_err(|fault| fault.to_string())?;
            if items.len() == count { Ok(items) } else { Err(format!("{items:?}")) }
        })
        .await
    }

    pub async fn until_status(&self, tenant: &str, id: &str, status: &str) -> Resource {
        eventually("the status", SOON, async || {
            let resource = self.get(tenant, id).await.map_err(|fault| fault.to_string())?;
            if resource.status == status { Ok(resource) } else { Err(format!("{resource:?}")) }
        })
        .await
    }

    /// Waits until `id` is known to have been seen after `time`, Unix nanoseconds.
    pub async fn until_seen_after(&self, tenant: &str, id: &str, time: u64) {
        eventually("a later sign of life", SOON, async || {
            let resource = self.get(tenant, id).await.map_err(|fault| fault.to_string())?;
            if resource.last_seen_unix_nano > time { Ok(()) } else { Err(format!("{resource:?}")) }
        })
        .await;
    }

    /// The value of a metric, with its labels.
    pub fn metric(&self, name: &str) -> Option<u64> {
        testkit::metric(&self.process, name)
    }

    pub async fn until_metric(&self, name: &str, value: u64) {
        eventually(name, SOON, async || {
            let now = self.metric(name);
            if now == Some(value) { Ok(()) } else { Err(format!("{now:?}")) }
        })
        .await;
    }

    pub async fn stop(self) {
        drop(self.client);
        self.process.stop().await;
    }
}

/// A change, as [`Changes::next_step`] tells it.
pub fn step(change: &str, before: &str, after: &str) -> (String, String, String) {
    (change.to_owned(), before.to_owned(), after.to_owned())
}

/// Waits until Redis's clock shows `time`.
pub async fn until(time: Duration) {
    let mut redis = direct().await;
    eventually("that time", SOON, async || {
        let (seconds, micros): (u64, u64) = redis::cmd("TIME").query_async(&mut redis).await.unwrap();
        let now = Duration::from_secs(seconds) + Duration::from_micros(micros);
        if now >= time { Ok(()) } else { Err(format!("{:?} too early", time - now)) }
    })
    .await;
}

/// To Redis past any gate.
async fn direct() -> redis::aio::MultiplexedConnection {
    redis::Client::open(testkit::redis_url()).unwrap().get_multiplexed_async_connection().await.unwrap()
}

pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap()
}

/// A host that was seen just now.
pub fn host(tenant: &str, name: &str) -> ResourceSeen {
    let labels = [("host.name", name), ("os.type", "linux")];
    let labels: HashMap<String, String> = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    ResourceSeen {
        tenant: tenant.to_owned(),
        id: model::identify(tenant, [("host.name", name)]).id.to_string(),
        kind: "host".to_owned(),
        labels,
        agent_id: format!("agent-of-{name}"),
        seen_unix_nano: now(),
        parent_id: String::new(),
    }
}
