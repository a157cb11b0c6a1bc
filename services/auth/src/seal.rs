//! Encrypts what would let its reader be anybody, with a key that Postgres never sees.

use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use sha2::{Digest as _, Sha256};

/// As many bytes as the key that is made of them.
const SHORTEST: usize = 32;

/// A secret as it lies in a table.
#[derive(Clone)]
pub struct Kept {
    pub bytes: Vec<u8>,
    /// Encrypted, rather than in clear.
    pub sealed: bool,
}

/// Seals and opens secrets; without a key it leaves them in clear, and refuses sealed ones.
pub struct Seal(Option<RandomizedNonceKey>);

impl Seal {
    /// With the key in the file at `path`, whose whole content counts.
    ///
    /// # Errors
    /// A file that cannot be read or is too short to be a key.
    pub fn from_file(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path else { return Ok(Self(None)) };
        let secret = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
        let secret = secret.trim_ascii();
        ensure!(
            secret.len() >= SHORTEST,
            "{} holds under {SHORTEST} bytes; write a random key there, for example with `openssl rand -base64 48`",
            path.display()
        );
        Ok(Self(Some(RandomizedNonceKey::new(&AES_256_GCM, &Sha256::digest(secret)).context("use the key")?)))
    }

    /// Whether it can encrypt.
    #[must_use]
    pub fn has_key(&self) -> bool {
        self.0.is_some()
    }

    /// `secret`, to be kept under `name`: what is sealed under one name opens under no other.
    ///
    /// # Errors
    /// No randomness from the operating system.
    pub fn close(&self, name: &str, secret: &[u8]) -> anyhow::Result<Kept> {
        let Some(key) = &self.0 else { return Ok(Kept { bytes: secret.to_vec(), sealed: false }) };
        let mut bytes = secret.to_vec();
        let nonce = key.seal_in_place_append_tag(Aad::from(name), &mut bytes).context("encrypt a secret")?;
        let bytes = [nonce.as_ref().as_slice(), &bytes].concat();
        Ok(Kept { bytes, sealed: true })
    }

    /// The secret that was kept under `name`.
    ///
    /// # Errors
    /// Sealed with another key, or with one that this process was not given.
    pub fn open(&self, name: &str, kept: &Kept) -> anyhow::Result<Vec<u8>> {
        if !kept.sealed {
            return Ok(kept.bytes.clone());
        }
        let Some(key) = &self.0 else {
            bail!(
                "`{name}` is encrypted: set SIGHTLINE_AUTH_ENCRYPTION_KEY_FILE to the file with the key that was used"
            );
        };
        let (nonce, sealed) = kept.bytes.split_at_checked(NONCE_LEN).context("read a sealed secret")?;
        let mut bytes = sealed.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(nonce).context("read a sealed secret")?;
        let opened = key.open_in_place(nonce, Aad::from(name), &mut bytes).map_err(|_| {
            anyhow::anyhow!(
                "`{name}` was encrypted with another key than the one in SIGHTLINE_AUTH_ENCRYPTION_KEY_FILE"
            )
        })?;
        Ok(opened.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn seal(secret: &str) -> Seal {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(secret.as_bytes()).unwrap();
        Seal::from_file(Some(file.path())).unwrap()
    }

    #[test]
    fn what_is_sealed_opens_with_its_key_under_its_name_alone() {
        let (seal_a, seal_b) = (seal(&"a".repeat(32)), seal(&"b".repeat(32)));
        let kept = seal_a.close("k-1", b"secret").unwrap();
        assert!(kept.sealed && !kept.bytes.windows(6).any(|bytes| bytes == b"secret"));
        assert_eq!(seal_a.open("k-1", &kept).unwrap(), b"secret");
        assert!(seal_a.open("k-2", &kept).is_err());
        assert!(seal_b.open("k-1", &kept).is_err());
        let error = Seal(None).open("k-1", &kept).unwrap_err().to_string();
        assert!(error.contains("SIGHTLINE_AUTH_ENCRYPTION_KEY_FILE"), "{error}");
    }

    #[test]
    fn a_key_that_is_too_short_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(Seal::from_file(Some(file.path())).is_err());
    }
}
