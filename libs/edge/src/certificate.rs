//! Who a client certificate names. That its authority signed it was verified before.

use rustls_pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use webpki::EndEntityCert;

/// The object identifier 2.5.4.3, with tag and length.
const COMMON_NAME: [u8; 5] = [0x06, 0x03, 0x55, 0x04, 0x03];

/// What a verified certificate says about its holder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The subject's common name.
    pub common_name: Option<String>,
    /// Alternative names: URIs, then host names.
    pub names: Vec<String>,
    /// SHA-256 of the whole certificate, in hexadecimal.
    pub fingerprint: String,
}

impl Certificate {
    /// Reads what is needed; nothing where it is no certificate.
    pub(crate) fn read(der: &CertificateDer<'_>) -> Option<Self> {
        let certificate = EndEntityCert::try_from(der).ok()?;
        let names = certificate.valid_uri_names().chain(certificate.valid_dns_names()).map(str::to_owned).collect();
        let common_name = common_name(certificate.subject());
        Some(Self { common_name, names, fingerprint: hex::encode(Sha256::digest(der)) })
    }
}

/// The first common name of a subject, which is `SET OF SEQUENCE { type, value }` in DER; values are short texts.
fn common_name(subject: &[u8]) -> Option<String> {
    let at = subject.windows(COMMON_NAME.len()).position(|window| window == COMMON_NAME)?;
    let (tag, rest) = subject.get(at + COMMON_NAME.len()..)?.split_first()?;
    let (length, rest) = rest.split_first()?;
    // UTF8String, PrintableString, IA5String; a length with the high bit is not a short one.
    let is_text = matches!(tag, 0x0c | 0x13 | 0x16) && length & 0x80 == 0;
    let text = is_text.then(|| rest.get(..usize::from(*length))).flatten()?;
    std::str::from_utf8(text).ok().filter(|name| !name.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::pem::PemObject as _;

    use super::*;

    #[test]
    fn a_certificate_names_its_holder() {
        lifecycle::install_crypto();
        let issued = pki::Authority::new().unwrap().issue("agent-7", &["web-1.example", "127.0.0.1"]).unwrap();
        let der = CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap();
        let read = Certificate::read(&der).unwrap();
        assert_eq!(read.common_name.as_deref(), Some("agent-7"));
        assert_eq!(read.names, ["web-1.example"]);
        assert_eq!(read.fingerprint.len(), 64);
        assert_eq!(Certificate::read(&CertificateDer::from(&b"nonsense"[..])), None);
    }

    #[test]
    fn what_is_no_short_text_is_no_name() {
        let subject = |value: &[u8]| [&COMMON_NAME, value].concat();
        assert_eq!(common_name(&subject(b"\x0c\x03abc")).as_deref(), Some("abc"));
        for wrong in
            [&b"\x0c\x04abc"[..], b"\x0c\x81\x03abc", b"\x04\x03abc", b"\x0c\x01\xff", b"\x0c\x00", b"\x0c", b""]
        {
            assert_eq!(common_name(&subject(wrong)), None, "{wrong:?}");
        }
    }
}
