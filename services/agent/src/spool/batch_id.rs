//! The name that a request keeps through every retry: its batch id.

use std::fmt;

/// `<boot>-<sequence>`: what ran, and the how-manieth request of it. Ordered by the time when it was made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct BatchId {
    created_unix_millis: u64,
    sequence: u64,
    boot: String,
}

impl BatchId {
    pub(super) fn new(created_unix_millis: u64, sequence: u64, boot: &str) -> Self {
        Self { created_unix_millis, sequence, boot: boot.to_owned() }
    }

    pub(super) fn file_stem(&self) -> String {
        format!("{:013}-{:010}-{}", self.created_unix_millis, self.sequence, self.boot)
    }

    pub(super) fn from_file_stem(stem: &str) -> Option<Self> {
        let mut parts = stem.split('-');
        let id = Self {
            created_unix_millis: parts.next()?.parse().ok()?,
            sequence: parts.next()?.parse().ok()?,
            boot: parts.next()?.to_owned(),
        };
        let whole = id.boot.len() == 16 && id.boot.bytes().all(|byte| byte.is_ascii_hexdigit());
        (whole && parts.next().is_none()).then_some(id)
    }

    pub fn created_unix_millis(&self) -> u64 {
        self.created_unix_millis
    }
}

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.boot, self.sequence)
    }
}

/// 16 hexadecimal digits that tell this run of the agent from all others.
pub(super) fn random_boot() -> anyhow::Result<String> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("draw a boot id: {error}"))?;
    Ok(hex::encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_file_name() {
        let id = BatchId::new(1_795_232_378_123, 7, "0123456789abcdef");
        assert_eq!(BatchId::from_file_stem(&id.file_stem()), Some(id.clone()));
        assert_eq!(id.to_string(), "0123456789abcdef-7");
        assert_eq!(BatchId::from_file_stem("1-2-xyz"), None);
    }

    #[test]
    fn boots_differ() {
        let boot = random_boot().unwrap();
        assert_eq!(boot.len(), 16);
        assert_ne!(boot, random_boot().unwrap());
    }
}
