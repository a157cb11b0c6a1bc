//! A bus with a namespace of its own, and a broker of its own for tests that stop it.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bus::{Bus, Delivery, Outgoing, Settings, Stream, Subject};
use lifecycle::Process;
use settings::Secret;
use tempfile::TempDir;

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Longer than a message waits, and than it takes to look at all streams again.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// Connects to the shared broker in a fresh namespace.
pub(crate) async fn connect() -> (Bus, Process) {
    connect_to(&testkit::namespace()).await
}

pub(crate) async fn connect_to(settings: &Settings) -> (Bus, Process) {
    let process = Process::for_test();
    let bus = Bus::connect(settings, process.ready("nats")).await.unwrap();
    (bus, process)
}

/// A client beside the bus, to do to the server what the bus would not.
pub(crate) async fn operator(settings: &Settings) -> async_nats::jetstream::Context {
    async_nats::jetstream::new(async_nats::connect(settings.nats_url.reveal()).await.unwrap())
}

pub(crate) async fn send(bus: &Bus, subject: Subject, texts: impl IntoIterator<Item = impl Into<String>>) {
    for text in texts {
        let text: String = text.into();
        bus.publish(subject, Outgoing::new(text.clone(), text).within(PATIENCE)).await.unwrap();
    }
}

pub(crate) fn text(delivery: &Delivery) -> String {
    String::from_utf8(delivery.payload().to_vec()).unwrap()
}

/// The next one, in time.
pub(crate) async fn next(deliveries: &mut bus::Deliveries) -> Delivery {
    tokio::time::timeout(PATIENCE, deliveries.next()).await.expect("no message came")
}

pub(crate) async fn next_followed(follow: &mut bus::Follow) -> Delivery {
    tokio::time::timeout(PATIENCE, follow.next()).await.expect("no message came")
}

pub(crate) fn name(bus: &Bus, stream: Stream) -> String {
    stream.name(&bus.settings().namespace)
}

/// A broker that the test may kill.
pub(crate) struct Broker {
    child: Option<Child>,
    port: u16,
    directory: TempDir,
}

impl Broker {
    pub(crate) fn reserve() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        Self { child: None, port, directory: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn started() -> Self {
        let mut broker = Self::reserve();
        broker.start();
        broker
    }

    pub(crate) fn start(&mut self) {
        self.child = Some(self.command().spawn().unwrap());
    }

    /// With the users of this configuration.
    pub(crate) fn with_users(users: &str) -> Self {
        let mut broker = Self::reserve();
        let file = broker.directory.path().join("users.conf");
        std::fs::write(&file, users).unwrap();
        let mut command = broker.command();
        broker.child = Some(command.arg("-c").arg(file).spawn().unwrap());
        broker
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&testkit::servers().nats_server);
        command.args(["-js", "-a", "127.0.0.1", "-p"]).arg(self.port.to_string()).arg("-sd").arg(self.directory.path());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// As `kill -9`.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub(crate) fn settings(&self) -> Settings {
        self.settings_of("")
    }

    /// As the user `name`, whose password is the same.
    pub(crate) fn settings_of(&self, name: &str) -> Settings {
        let user = if name.is_empty() { String::new() } else { format!("{name}:{name}@") };
        Settings { nats_url: Secret::from(format!("nats://{user}127.0.0.1:{}", self.port)), ..testkit::namespace() }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}
