//! Hashing and checking passwords, a few at a time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};
use data_encoding::BASE32_NOPAD;
use fault::{Fault, Kind};
use tokio::sync::Semaphore;

use crate::metrics::Metrics;

/// OWASP's floor for argon2id: 19 MiB, two passes, one lane.
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// How long a login may wait for its turn. At 20 ms a hash that is a queue of a few hundred.
const QUEUE: Duration = Duration::from_secs(5);
/// 160 bits in 32 characters that survive being read aloud.
const GENERATED_BYTES: usize = 20;

/// Hashes passwords on a bounded number of threads, so that a flood of logins takes neither memory nor every core.
#[derive(Clone)]
pub struct Hasher {
    argon2: Argon2<'static>,
    slots: Arc<Semaphore>,
    /// Checked against when there is no such user, so that the answer takes as long.
    nobody: Arc<str>,
    metrics: Metrics,
}

impl Hasher {
    /// As many slots as half the cores, at least one.
    ///
    /// # Errors
    /// No randomness from the operating system.
    pub fn new(metrics: Metrics) -> anyhow::Result<Self> {
        let params = Params::new(MEMORY_KIB, PASSES, LANES, None).context("set the cost of hashing")?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let nobody = hash(&argon2, &generate()?)?.into();
        Ok(Self { argon2, slots: Arc::new(Semaphore::new(cores.div_ceil(2))), nobody, metrics })
    }

    /// The PHC string of `password`.
    ///
    /// # Errors
    /// As [`Hasher::verify`].
    pub async fn hash(&self, password: &str) -> fault::Result<String> {
        let (argon2, password) = (self.argon2.clone(), password.to_owned());
        self.run(move || hash(&argon2, &password)).await?.map_err(Fault::internal)
    }

    /// Whether `password` is the one of `known`; against nobody's hash when there is none, with the same work.
    ///
    /// # Errors
    /// Limited, when too many others are waiting.
    pub async fn verify(&self, password: &str, known: Option<&str>) -> fault::Result<bool> {
        let exists = known.is_some();
        let phc = known.unwrap_or(&self.nobody).to_owned();
        let (argon2, password) = (self.argon2.clone(), password.to_owned());
        let matches = self
            .run(move || {
                let hash = PasswordHash::new(&phc).context("read the stored hash")?;
                anyhow::Ok(argon2.verify_password(password.as_bytes(), &hash).is_ok())
            })
            .await?
            .map_err(Fault::internal)?;
        Ok(exists && matches)
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> fault::Result<T> {
        let began = Instant::now();
        let slot = match tokio::time::timeout(QUEUE, Arc::clone(&self.slots).acquire_owned()).await {
            Ok(slot) => slot.map_err(Fault::internal)?,
            Err(_) => {
                let detail = "too many logins at the same time; try again in a few seconds";
                return Err(Fault::new(Kind::Limited, "logins_limited", detail).retry_after(QUEUE));
            }
        };
        let outcome = tokio::task::spawn_blocking(move || {
            // Held by the thread, not by the caller: a caller who hangs up must not free a slot that still hashes.
            let _slot = slot;
            work()
        });
        let outcome = outcome.await.map_err(Fault::internal);
        self.metrics.password.observe(began.elapsed().as_secs_f64());
        outcome
    }
}

fn hash(argon2: &Argon2<'_>, password: &str) -> anyhow::Result<String> {
    let hash =
        argon2.hash_password(password.as_bytes()).map_err(|error| anyhow::anyhow!("hash a password: {error}"))?;
    Ok(hash.to_string())
}

/// A new random password.
///
/// # Errors
/// No randomness from the operating system.
pub fn generate() -> anyhow::Result<String> {
    let mut bytes = [0; GENERATED_BYTES];
    getrandom::fill(&mut bytes).context("get random bytes")?;
    Ok(BASE32_NOPAD.encode(&bytes).to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_matches_its_own_hash_alone() {
        let hasher = Hasher::new(Metrics::for_test()).unwrap();
        let hash = hasher.hash("correct horse").await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(hasher.verify("correct horse", Some(&hash)).await.unwrap());
        assert!(!hasher.verify("wrong horse", Some(&hash)).await.unwrap());
    }

    #[tokio::test]
    async fn nobody_has_no_password() {
        let hasher = Hasher::new(Metrics::for_test()).unwrap();
        assert!(!hasher.verify("", None).await.unwrap());
    }

    #[test]
    fn generated_passwords_are_long_and_differ() {
        let (one, other) = (generate().unwrap(), generate().unwrap());
        assert!(one.len() >= 24 && one != other);
    }
}
