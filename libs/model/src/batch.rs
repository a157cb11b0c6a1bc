//! What names a batch of items for ever, so that a repeat of it is known as one.

use std::fmt;
use std::str::FromStr;

use xxhash_rust::xxh3::Xxh3Default;

/// 128 bits that name one batch within its tenant; written as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchId([u8; 16]);

/// The text is not 32 hexadecimal digits.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a batch id is 32 hexadecimal digits")]
pub struct InvalidBatchId;

/// What our agent says about a batch: `<boot>-<sequence>`, where the boot is new whenever its spool begins anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientBatch<'a> {
    /// 1 to 64 letters or digits.
    pub boot: &'a str,
    /// Counts the batches of that boot.
    pub sequence: u64,
}

impl<'a> ClientBatch<'a> {
    /// Reads `<boot>-<sequence>`.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let (boot, sequence) = text.rsplit_once('-')?;
        let valid = (1..=64).contains(&boot.len())
            && boot.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && sequence.bytes().all(|b| b.is_ascii_digit());
        if !valid {
            return None;
        }
        Some(Self { boot, sequence: sequence.parse().ok()? })
    }
}

impl BatchId {
    /// The batch that an agent numbered itself. An agent sends the same bytes under a number; where two agents have one id and
    /// number alike, as copies of a machine do, theirs differ, and so do their batches.
    #[must_use]
    pub fn from_agent(agent_id: &str, batch: ClientBatch<'_>, request: &[u8]) -> Self {
        Self::hash(&[b"agent", agent_id.as_bytes(), batch.boot.as_bytes(), &batch.sequence.to_be_bytes(), request])
    }

    /// The batch of a client that numbers nothing: the same bytes from the same client are the same batch.
    #[must_use]
    pub fn from_bytes(client: &str, request: &[u8]) -> Self {
        Self::hash(&[b"bytes", client.as_bytes(), request])
    }

    /// A batch that nothing can repeat, for items without a time of their own.
    ///
    /// # Errors
    /// The operating system has no random bytes.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// The id as it stands in protobuf and in Postgres.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    fn hash(parts: &[&[u8]]) -> Self {
        let mut hash = Xxh3Default::new();
        for part in parts {
            hash.update(&(part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Self(hash.digest128().to_be_bytes())
    }
}

impl From<[u8; 16]> for BatchId {
    fn from(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl TryFrom<&[u8]> for BatchId {
    type Error = InvalidBatchId;

    fn try_from(bytes: &[u8]) -> Result<Self, InvalidBatchId> {
        bytes.try_into().map(Self).map_err(|_| InvalidBatchId)
    }
}

impl FromStr for BatchId {
    type Err = InvalidBatchId;

    fn from_str(text: &str) -> Result<Self, InvalidBatchId> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| InvalidBatchId)?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_never_change_between_versions() {
        let agent = BatchId::from_agent("agent-1", ClientBatch { boot: "b00t", sequence: 7 }, b"payload");
        assert_eq!(agent.to_string(), "181da9e3cd8f68bcd91770bafceaf815");
        assert_eq!(BatchId::from_bytes("10.0.0.1", b"payload").to_string(), "6fb4c9dc8c7cda68a427decb2c449f80");
    }

    #[test]
    fn the_client_and_the_bytes_do_not_run_into_each_other() {
        assert_ne!(BatchId::from_bytes("a", b"bc"), BatchId::from_bytes("ab", b"c"));
    }

    #[test]
    fn other_lines_under_the_same_number_are_another_batch() {
        let batch = |request| BatchId::from_agent("a", ClientBatch { boot: "b00t", sequence: 7 }, request);
        assert_eq!(batch(b"one"), batch(b"one"));
        assert_ne!(batch(b"one"), batch(b"other"));
    }

    #[test]
    fn text_and_bytes_lead_back_to_the_id() {
        let id = BatchId::random().unwrap();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(BatchId::try_from(&id.as_bytes()[..]), Ok(id));
        assert_eq!("xyz".parse::<BatchId>(), Err(InvalidBatchId));
    }

    #[test]
    fn a_clients_batch_is_boot_and_sequence() {
        let uuid = "7c1f0b6e-aaaa-4bbb-8ccc-123456789abc";
        assert_eq!(ClientBatch::parse(&format!("{uuid}-42")), Some(ClientBatch { boot: uuid, sequence: 42 }));
        for bad in ["", "-", "a-", "-1", "a-x", "a b-1", "a-99999999999999999999", "a-+1"] {
            assert_eq!(ClientBatch::parse(bad), None, "{bad}");
        }
    }
}
