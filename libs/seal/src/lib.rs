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
    /// The column's bytes.
    pub bytes: Vec<u8>,
    /// Encrypted, rather than in clear.
    pub sealed: bool,
}

/// Seals and opens secrets; without a key it leaves them in clear, and refuses sealed ones.
pub struct Seal {
    key: Option<RandomizedNonceKey>,
    setting: &'static str,
}

impl Seal {
    /// With the key in the file at `path`, whose whole content counts, and which `setting` names.
    ///
    /// # Errors
    /// A file that cannot be read or is too short to be a key.
    pub fn from_file(path: Option<&Path>, setting: &'static str) -> anyhow::Result<Self> {
        let Some(path) = path else { return Ok(Self { key: None, setting }) };
        let secret = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
        let secret = secret.trim_ascii();
        ensure!(
            secret.len() >= SHORTEST,
            "{} holds under {SHORTEST} bytes; write a random key there, for example with `openssl rand -base64 48`",
            path.display()
        );
        let key = RandomizedNonceKey::new(&AES_256_GCM, &Sha256::digest(secret)).context("use the key")?;
        Ok(Self { key: Some(key), setting })
    }

    /// Whether it can encrypt.
    #[must_use]
    pub fn has_key(&self) -> bool {
        self.key.is_some()
    }

    /// `secret`, to be kept under `name`: what is sealed under one name opens under no other.
    ///
    /// # Errors
    /// No randomness from the operating system.
    pub fn close(&self, name: &str, secret: &[u8]) -> anyhow::Result<Kept> {
        let Some(key) = &self.key else { return Ok(Kept { bytes: secret.to_vec(), sealed: false }) };
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
        let Some(key) = &self.key else {
            bail!("`{name}` is encrypted: set {} to the file with the key that was used", self.setting);
        };
        let (nonce, sealed) = kept.bytes.split_at_checked(NONCE_LEN).context("read a sealed secret")?;
        let mut bytes = sealed.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(nonce).context("read a sealed secret")?;
        let opened = key
            .open_in_place(nonce, Aad::from(name), &mut bytes)
            .map_err(|_| anyhow::anyhow!("`{name}` was encrypted with another key than the one in {}", self.setting))?;
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
        Seal::from_file(Some(file.path()), "SIGHTLINE_KEY_FILE").unwrap()
    }

    #[test]
    fn what_is_sealed_opens_with_its_key_under_its_name_alone() {
        let (seal_a, seal_b) = (seal(&"a".repeat(32)), seal(&"b".repeat(32)));
        let kept = seal_a.close("k-1", b"secret").unwrap();
        assert!(kept.sealed && !kept.bytes.windows(6).any(|bytes| bytes == b"secret"));
        assert_eq!(seal_a.open("k-1", &kept).unwrap(), b"secret");
        assert!(seal_a.open("k-2", &kept).is_err());
        assert!(seal_b.open("k-1", &kept).is_err());
        let without = Seal::from_file(None, "SIGHTLINE_KEY_FILE").unwrap();
        let error = without.open("k-1", &kept).unwrap_err().to_string();
        assert!(error.contains("SIGHTLINE_KEY_FILE"), "{error}");
        assert_eq!(without.open("k-1", &without.close("k-1", b"secret").unwrap()).unwrap(), b"secret");
    }

    #[test]
    fn a_key_that_is_too_short_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(Seal::from_file(Some(file.path()), "SIGHTLINE_KEY_FILE").is_err());
    }
}
