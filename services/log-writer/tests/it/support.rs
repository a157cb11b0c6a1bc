//! A running log-writer with a database and a namespace of its own.

use std::str::FromStr as _;
use std::time::Duration;

use authn::Permission;
use bus::{Account, Bus, Encoding, Envelope, Outgoing, Schema, Subject};
use clap::Parser as _;
use lifecycle::Process;
use log_writer::config::Config;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;
use proto::logs::log_search_client::LogSearchClient;
use proto::logs::{GetProcessesRequest, GetProcessesResponse, LogRecord as Found, SearchLogsRequest};
use rpc::Channel;
use sqlx::Connection as _;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use testkit::now;

pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Running {
    pub bus: Bus,
    pub database: store::Settings,
    pub settings: bus::Settings,
    pub process: Process,
    observer: Process,
    client: LogSearchClient<Channel>,
}

/// What a test sets otherwise than the defaults.
type Tune = fn(&mut Config);

impl Running {
    pub async fn start() -> Self {
        Self::tuned(|_| {}).await
    }

    pub async fn tuned(tune: Tune) -> Self {
        Self::with(testkit::database().await, testkit::namespace(), tune).await
    }

    /// Another replica on the same streams, with Postgres at `database`.
    pub async fn beside(&self, database: &store::Settings, settings: &bus::Settings) -> Self {
        Self::with(database.clone(), settings.clone(), |_| {}).await
    }

    pub async fn with(database: store::Settings, settings: bus::Settings, tune: Tune) -> Self {
        let process = Process::for_test();
        let observer = Process::for_test();
        let bus = Bus::connect(&settings, observer.ready("nats")).await.unwrap();
        let mut config = config(&database, &settings);
        tune(&mut config);
        let identity = testkit::identity("log-writer");
        let verifier = testkit::tokens().verifier();
        let address = log_writer::app::serve(config, process.clone(), &identity, verifier).await.unwrap();
        let client = LogSearchClient::new(testkit::channel(address));
        Self { bus, database, settings, process, observer, client }
    }

    /// Stops the service and starts another one on the same data.
    pub async fn restart(self) -> Self {
        self.process.stop().await;
        self.observer.stop().await;
        Self::with(self.database, self.settings, |_| {}).await
    }

    /// Stops the service alone.
    pub async fn leave(self) {
        self.process.stop().await;
        self.observer.stop().await;
    }

    /// A connection to the service's tables.
    pub async fn tables(&self) -> PgConnection {
        tables(&self.database).await
    }

    pub async fn stop(self) {
        self.process.stop().await;
        self.bus.delete_all_streams().await.unwrap();
        self.observer.stop().await;
    }

    pub async fn publish(&self, id: &str, batch: u8, lines: &[&str]) {
        let message = envelope("default", batch, "web-1", lines).encode(id).unwrap();
        self.publish_raw(message).await;
    }

    pub async fn publish_raw(&self, message: Outgoing) {
        self.bus.publish(Subject::Logs(0), message).await.unwrap();
    }

    pub async fn search(
        &self,
        tenant: &str,
        request: SearchLogsRequest,
    ) -> Result<(Vec<Found>, String), tonic::Status> {
        let token = testkit::tokens().user(tenant, &[Permission::LogsRead]);
        let request = SearchLogsRequest { to_unix_nano: now() + 3_600_000_000_000, ..request };
        let answer = self.client.clone().search_logs(rpc::forward(request, &token)).await?.into_inner();
        Ok((answer.items, answer.next))
    }

    /// Waits until exactly these lines are found, oldest first.
    pub async fn finds(&self, wanted: &[&str]) {
        testkit::eventually("the lines are found", PATIENCE, async || {
            let request = SearchLogsRequest { order: 2, ..SearchLogsRequest::default() };
            let (items, _) = self.search("default", request).await.map_err(|status| status.to_string())?;
            let bodies: Vec<&str> = items.iter().map(|item| item.body.as_str()).collect();
            if bodies == wanted { Ok(()) } else { Err(format!("{bodies:?}")) }
        })
        .await;
    }

    /// The account of the first shard's logs.
    pub async fn account(&self) -> Account {
        let accounts = self.bus.account().await.unwrap();
        accounts.into_iter().find(|account| account.stream.ends_with("LOGS_00")).unwrap()
    }

    /// Waits until the broker holds nothing that is not answered.
    pub async fn settles(&self) -> Account {
        testkit::eventually("everything is answered", PATIENCE, async || {
            let logs = self.account().await;
            if (logs.in_flight, logs.ack_pending) == (0, 0) { Ok(logs) } else { Err(format!("{logs:?}")) }
        })
        .await
    }

    /// The newest processes of a host.
    pub async fn processes(&self, resource_id: &str) -> Result<GetProcessesResponse, tonic::Status> {
        let token = testkit::tokens().user("default", &[Permission::ProcessesRead]);
        let request = GetProcessesRequest { resource_id: resource_id.to_owned() };
        Ok(self.client.clone().get_processes(rpc::forward(request, &token)).await?.into_inner())
    }
}

/// A connection to the tables in `database`.
pub async fn tables(database: &store::Settings) -> PgConnection {
    let options = PgConnectOptions::from_str(database.database_url.reveal()).unwrap();
    PgConnection::connect_with(&options.options([("search_path", "log_writer")])).await.unwrap()
}

const STORED: &str = "select body, count(*) from logs group by body order by body collate \"C\"";

/// How often each line is in the table, by line.
pub async fn stored(tables: &mut PgConnection) -> Vec<(String, i64)> {
    sqlx::query_as(STORED).fetch_all(tables).await.unwrap()
}

/// Waits until each of these lines is in the table, and says so when one is there twice.
pub async fn each_once(database: &store::Settings, wanted: &[String], patience: Duration) {
    let mut tables = tables(database).await;
    let mut wanted = wanted.to_vec();
    wanted.sort();
    testkit::eventually("each line is stored", patience, async || {
        // The table may not be there yet.
        let rows = sqlx::query_as::<_, (String, i64)>(STORED).fetch_all(&mut tables).await;
        let stored = rows.map_err(|error| error.to_string())?;
        assert!(stored.iter().all(|(_, times)| *times == 1), "{stored:?}");
        let lines: Vec<&String> = stored.iter().map(|(line, _)| line).collect();
        if lines == wanted.iter().collect::<Vec<_>>() {
            Ok(())
        } else {
            Err(format!("{} of {}", lines.len(), wanted.len()))
        }
    })
    .await;
}

fn config(database: &store::Settings, bus: &bus::Settings) -> Config {
    let mut config = Config::try_parse_from([
        "log-writer",
        "--database-url=replaced",
        "--grpc-listen=127.0.0.1:0",
        "--auth-url=https://localhost:1",
        "--tls-ca-file=unused",
        "--tls-cert-file=unused",
        "--tls-key-file=unused",
    ])
    .unwrap();
    config.database = database.clone();
    config.bus = bus.clone();
    config
}

pub fn envelope(tenant: &str, batch: u8, host: &str, lines: &[&str]) -> Envelope {
    let text = |key: &str, value: String| KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(Value::StringValue(value)) }),
        ..KeyValue::default()
    };
    let begun = now();
    let records = lines.iter().enumerate().map(|(index, line)| LogRecord {
        time_unix_nano: begun + index as u64,
        severity_text: if line.contains("error") { "ERROR" } else { "INFO" }.to_owned(),
        body: Some(AnyValue { value: Some(Value::StringValue((*line).to_owned())) }),
        ..LogRecord::default()
    });
    let logs = ResourceLogs {
        resource: Some(Resource {
            attributes: vec![
                text("host.name", host.to_owned()),
                text("sightline.resource.id", format!("host-{host}")),
                text("sightline.resource.kind", "host".to_owned()),
                text("sightline.batch.id", hex::encode([batch; 16])),
            ],
            ..Resource::default()
        }),
        scope_logs: vec![ScopeLogs {
            scope: Some(InstrumentationScope { name: "sshd".to_owned(), ..InstrumentationScope::default() }),
            log_records: records.collect(),
            ..ScopeLogs::default()
        }],
        ..ResourceLogs::default()
    };
    Envelope {
        schema: Schema::OtlpLogs,
        tenant: tenant.to_owned(),
        items: lines.len() as u64,
        received_unix_nano: begun,
        encoding: Encoding::Lz4,
        body: ExportLogsServiceRequest { resource_logs: vec![logs] }.encode_to_vec().into(),
    }
}
