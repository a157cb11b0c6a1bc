//! Makes keys and signs certificates; knows nothing of files.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use time::{Duration, OffsetDateTime};

const COMMON_NAME: &str = "Sightline development";
const AUTHORITY_LIFE: Duration = Duration::days(3650);
pub(crate) const LIFE: Duration = Duration::days(365);
/// A clock that runs behind ours, on a phone or in a container, must not refuse what was just made.
const CLOCK_SKEW: Duration = Duration::hours(1);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error("{0} is neither a host name nor an address")]
    Name(String),
}

/// A certificate and its key, as PEM.
pub struct Issued {
    pub certificate: String,
    pub key: String,
    pub expires: OffsetDateTime,
}

/// Signs certificates. Cheap to make: each test can have its own.
pub struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Result<Self, Error> {
        let key = KeyPair::generate()?;
        let parameters = authority_parameters();
        let certificate = parameters.self_signed(&key)?.pem();
        Ok(Self { certificate, issuer: Issuer::new(parameters, key) })
    }

    /// `certificate` and `key` as [`Authority::certificate`] and [`Authority::key`] gave them. What is signed depends on
    /// the key and on constants only, so the certificate is not parsed.
    pub fn load(certificate: &str, key: &str) -> Result<Self, Error> {
        let key = KeyPair::from_pem(key)?;
        Ok(Self { certificate: certificate.to_owned(), issuer: Issuer::new(authority_parameters(), key) })
    }

    /// What others have to trust, as PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    pub fn key(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// A certificate for `name` that is valid for the host names and addresses in `hosts`, to serve and to call.
    pub fn issue(&self, name: &str, hosts: &[&str]) -> Result<Issued, Error> {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut parameters = CertificateParams::new(hosts.clone()).map_err(|_| Error::Name(hosts.join(",")))?;
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        parameters.use_authority_key_identifier_extension = true;
        let now = OffsetDateTime::now_utc();
        parameters.not_before = now - CLOCK_SKEW;
        parameters.not_after = now + LIFE;
        let key = KeyPair::generate()?;
        let certificate = parameters.signed_by(&key, &self.issuer)?.pem();
        Ok(Issued { certificate, key: key.serialize_pem(), expires: parameters.not_after })
    }
}

fn authority_parameters() -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, COMMON_NAME);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let now = OffsetDateTime::now_utc();
    parameters.not_before = now - CLOCK_SKEW;
    parameters.not_after = now + AUTHORITY_LIFE;
    parameters
}
