//! Which certificates a gateway may show: those of the CA in a file, which may be replaced at any time, or of the CAs that
//! this system trusts.

use std::path::PathBuf;

use anyhow::Context as _;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

use super::stamp::{Stamp, stamp};

pub struct Trust {
    /// Without TLS or CA.
    plain: Endpoint,
    ca_file: Option<PathBuf>,
    read: Option<Stamp>,
}

impl Trust {
    pub fn new(plain: Endpoint, ca_file: Option<PathBuf>) -> Self {
        Self { plain, ca_file, read: None }
    }

    /// The endpoint with what is trusted now.
    ///
    /// # Errors
    /// The CA file cannot be read or used, or TLS is asked for and the system trusts nobody.
    pub fn endpoint(&mut self) -> anyhow::Result<Endpoint> {
        if self.plain.uri().scheme_str() != Some("https") {
            return Ok(self.plain.clone());
        }
        let tls = match &self.ca_file {
            Some(path) => {
                // Looked at before it is read: a change in between is seen next time.
                self.read = stamp(path).ok();
                let pem = std::fs::read(path).with_context(|| format!("read the CA file {}", path.display()))?;
                ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem))
            }
            None => of_this_system()?,
        };
        self.plain.clone().tls_config(tls).context("use the CAs to trust")
    }

    /// Whether the CA file is another than the one that was read last.
    pub fn changed(&self) -> bool {
        self.ca_file
            .as_ref()
            .is_some_and(|path| self.read.is_some() && stamp(path).ok().is_some_and(|now| Some(now) != self.read))
    }
}

fn of_this_system() -> anyhow::Result<ClientTlsConfig> {
    let found = rustls_native_certs::load_native_certs();
    let mut store = rustls::RootCertStore::empty();
    let (trusted, unusable) = store.add_parsable_certificates(found.certs);
    if trusted == 0 {
        let errors: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
        anyhow::bail!(
            "this system trusts no CA; set SIGHTLINE_AGENT_CA_FILE, or install the ca-certificates package {errors:?}"
        );
    }
    tracing::info!(trusted, unusable, "the gateway's certificate is held against the CAs of this system");
    Ok(ClientTlsConfig::new().trust_anchors(store.roots))
}
