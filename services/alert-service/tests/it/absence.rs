//! Postgres goes away and comes back.

use std::net::SocketAddr;
use std::sync::Arc;

use settings::Secret;
use testkit::eventually;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::support::{PATIENCE, Service};

/// Stands between the service and Postgres, and can be cut.
struct Wire {
    address: SocketAddr,
    up: Arc<watch::Sender<bool>>,
    _tasks: JoinSet<()>,
}

impl Wire {
    async fn to(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let up = Arc::new(watch::Sender::new(true));
        let state = Arc::clone(&up);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let mut state = state.subscribe();
                let server = server.clone();
                connections.spawn(async move {
                    if !*state.borrow() {
                        return;
                    }
                    let mut server = TcpStream::connect(server).await.unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                        _ = state.wait_for(|up| !*up) => {}
                    }
                });
            }
        });
        Self { address, up, _tasks: tasks }
    }

    fn set(&self, up: bool) {
        self.up.send_replace(up);
    }
}

#[tokio::test]
async fn transitions_wait_while_postgres_is_away_and_the_process_says_so() {
    let mut database = testkit::database().await;
    let url = url_parts(database.database_url.reveal());
    let wire = Wire::to(url.server).await;
    database.database_url = Secret::from(format!("{}{}{}", url.before, wire.address, url.after));
    let mut service = Service::start_on(&database, &testkit::namespace()).await;
    let first = service.transition("firing", "a", 10);
    service.publish(&first).await;
    service.notification().await;

    wire.set(false);
    let second = service.transition("resolved", "a", 20);
    service.publish(&second).await;
    let process = service.process.clone();
    eventually("not ready", PATIENCE, async || process.missing().get("postgres").cloned().ok_or("ready")).await;

    wire.set(true);
    assert_eq!(service.notification().await.alert.unwrap().state, "resolved");
    eventually("ready again", PATIENCE, async || {
        process.missing().get("postgres").map_or(Ok(()), |reason| Err(reason.clone()))
    })
    .await;
    service.process.stop().await;
}

struct Parts {
    before: String,
    server: String,
    after: String,
}

/// `postgres://user[:password]@host:port/database` around `host:port`.
fn url_parts(url: &str) -> Parts {
    let (before, rest) = url.rsplit_once('@').unwrap();
    let (server, database) = rest.split_once('/').unwrap();
    Parts { before: format!("{before}@"), server: server.to_owned(), after: format!("/{database}") }
}
