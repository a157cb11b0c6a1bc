//! Our own programs as they are deployed, for tests that kill them.

use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// A program of ours with all that it needs to be started, as often as a test kills it.
pub struct Program {
    path: &'static str,
    variables: Vec<(&'static str, String)>,
    _certificates: TempDir,
}

impl Program {
    /// The service `name`, built at `path`, on these servers.
    ///
    /// # Panics
    /// Its certificates cannot be written.
    #[must_use]
    pub fn new(name: &str, path: &'static str, database: &store::Settings, broker: &bus::Settings) -> Self {
        let certificates = tempfile::tempdir().unwrap();
        let authority = pki::Authority::new().unwrap();
        let issued = authority.issue(name, &[name]).unwrap();
        let file = |name: &str, text: &str| {
            let path = certificates.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let variables = vec![
            ("SIGHTLINE_ADMIN_LISTEN", "127.0.0.1:0".to_owned()),
            ("SIGHTLINE_GRPC_LISTEN", "127.0.0.1:0".to_owned()),
            ("SIGHTLINE_AUTH_URL", "https://127.0.0.1:1".to_owned()),
            ("SIGHTLINE_DATABASE_URL", database.database_url.reveal().to_owned()),
            ("SIGHTLINE_NATS_URL", broker.nats_url.reveal().to_owned()),
            ("SIGHTLINE_NAMESPACE", broker.namespace.clone()),
            ("SIGHTLINE_STREAM_MAX_BYTES", broker.stream_max_bytes.to_string()),
            ("SIGHTLINE_TLS_CA_FILE", file("ca.pem", authority.certificate())),
            ("SIGHTLINE_TLS_CERT_FILE", file("cert.pem", &issued.certificate)),
            ("SIGHTLINE_TLS_KEY_FILE", file("key.pem", &issued.key)),
        ];
        Self { path, variables, _certificates: certificates }
    }

    /// With one more variable.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.variables.push((name, value.to_owned()));
        self
    }

    /// Starts it.
    ///
    /// # Panics
    /// It is not there.
    #[must_use]
    pub fn start(&self) -> Running {
        let mut command = Command::new(self.path);
        command.env_remove("SIGHTLINE_TEST_SERVERS").envs(self.variables.iter().cloned()).stdout(Stdio::null());
        Running(command.spawn().unwrap())
    }
}

/// A running program; killed when dropped.
pub struct Running(Child);

impl Running {
    /// The most memory that it has had, in bytes.
    ///
    /// # Panics
    /// It ended before.
    #[must_use]
    pub fn most_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// As `kill -9`; returns when it is dead.
    ///
    /// # Panics
    /// It ended before.
    pub fn kill(mut self) {
        assert_eq!(self.0.try_wait().unwrap(), None, "the program ended by itself");
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may be dead already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
