//! An auth service of one's own, spoken to as api-gateway does.

use std::path::{Path, PathBuf};
use std::time::Duration;

use auth::config::Settings;
use authn::Verifier;
use fault::Fault;
use lifecycle::Process;
use proto::auth::auth_client::AuthClient;
use proto::auth::{LoginRequest, LogoutRequest, RefreshRequest, Tokens};
use settings::Secret;
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

pub struct Auth {
    pub client: AuthClient<rpc::Channel>,
    pub channel: rpc::Channel,
    process: Process,
}

/// What outlives a service: its database and its secrets.
pub struct Site {
    pub database: store::Settings,
    pub settings: Settings,
    folder: tempfile::TempDir,
}

impl Site {
    pub async fn new() -> Self {
        let settings = Settings {
            grpc_listen: settings::loopback(0),
            initial_password_file: None,
            encryption_key_file: None,
            key_announcement: Duration::ZERO,
            refresh_leeway: Duration::ZERO,
            redis_url: Secret::from(testkit::redis_url()),
            namespace: testkit::tenant(),
            agent_token_lifetime: Duration::from_secs(3_600),
        };
        Self { database: testkit::database().await, settings, folder: tempfile::tempdir().unwrap() }
    }

    pub fn password_file(&self) -> PathBuf {
        self.folder.path().join("admin-password")
    }

    pub fn password(&self) -> String {
        std::fs::read_to_string(self.password_file()).unwrap().trim().to_owned()
    }

    pub async fn start(&self) -> Auth {
        self.try_start(Some(&self.password_file())).await.unwrap()
    }

    pub async fn try_start(&self, password_file: Option<&Path>) -> anyhow::Result<Auth> {
        let process = Process::for_test();
        let settings = Settings { initial_password_file: password_file.map(Path::to_owned), ..self.settings.clone() };
        let address = auth::app::serve(&settings, &self.database, &testkit::identity("auth"), &process).await?;
        let channel = testkit::channel(address);
        Ok(Auth { client: AuthClient::new(channel.clone()), channel, process })
    }

    /// Straight to auth's tables.
    pub async fn sql(&self) -> PgConnection {
        let mut connection = PgConnection::connect(self.database.database_url.reveal()).await.unwrap();
        sqlx::query("set search_path = auth").execute(&mut connection).await.unwrap();
        connection
    }

    /// A user beside the admin, with the admin's password.
    pub async fn add_user(&self, username: &str, role: &str) {
        sqlx::query(
            "with added as (
                 insert into users (id, tenant, username, password_hash)
                 select $1, tenant, $2, password_hash from users where username = 'admin' returning id)
             insert into user_roles select id, $3 from added",
        )
        .bind(Uuid::new_v4())
        .bind(username)
        .bind(role)
        .execute(&mut self.sql().await)
        .await
        .unwrap();
    }
}

impl Auth {
    pub async fn login_from(&self, source: &str, username: &str, password: &str) -> Result<Tokens, Fault> {
        let request = LoginRequest {
            tenant: String::new(),
            username: username.to_owned(),
            password: password.to_owned(),
            remote_address: source.to_owned(),
            device: String::new(),
        };
        self.login_with(request).await
    }

    pub async fn login_with(&self, request: LoginRequest) -> Result<Tokens, Fault> {
        Ok(self.client.clone().login(request).await?.into_inner())
    }

    pub async fn login(&self, username: &str, password: &str) -> Result<Tokens, Fault> {
        self.login_from("192.0.2.1", username, password).await
    }

    pub async fn refresh(&self, token: &str) -> Result<Tokens, Fault> {
        let request = RefreshRequest { refresh_token: token.to_owned(), remote_address: "192.0.2.1".to_owned() };
        Ok(self.client.clone().refresh(request).await?.into_inner())
    }

    pub async fn logout(&self, token: &str) -> Result<(), Fault> {
        self.client.clone().logout(LogoutRequest { refresh_token: token.to_owned() }).await?;
        Ok(())
    }

    /// A verifier that follows this replica, as every service has one.
    pub async fn verifier(&self) -> (Verifier, Process) {
        let process = Process::for_test();
        let verifier = Verifier::new(self.channel.clone(), &process);
        testkit::until_ready(&process, Duration::from_secs(10)).await;
        (verifier, process)
    }

    pub async fn stop(self) {
        drop((self.client, self.channel));
        self.process.stop().await;
    }
}
