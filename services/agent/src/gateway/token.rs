//! The agent's bearer token in its file, which may be replaced at any time.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};

use super::stamp::{Stamp, stamp};

const LOOK_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
#[error("cannot read the agent's token")]
pub struct TokenUnreadable(#[from] io::Error);

pub struct Token {
    path: PathBuf,
    read: Mutex<Option<(Stamp, MetadataValue<Ascii>)>>,
}

impl Token {
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), read: Mutex::new(None) }
    }

    /// The `authorization` header; reads the file when it changed.
    pub fn header(&self) -> Result<MetadataValue<Ascii>, TokenUnreadable> {
        let stamp = stamp(&self.path)?;
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, header)) = &*read
            && *known == stamp
        {
            return Ok(header.clone());
        }
        let text = fs::read_to_string(&self.path)?;
        let invalid = || io::Error::new(io::ErrorKind::InvalidData, "the file does not hold a token");
        if text.trim().is_empty() {
            return Err(invalid().into());
        }
        let mut header: MetadataValue<Ascii> = format!("Bearer {}", text.trim()).parse().map_err(|_| invalid())?;
        header.set_sensitive(true);
        *read = Some((stamp, header.clone()));
        Ok(header)
    }

    /// Returns when the file is another than the one that was read last.
    pub async fn changed(&self) {
        let known = self.read.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(stamp, _)| *stamp);
        while stamp(&self.path).ok() == known {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_replaced_token_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let token = Token::new(&path);
        assert!(token.header().is_err());
        fs::write(&path, "first\n").unwrap();
        token.changed().await;
        assert_eq!(token.header().unwrap(), "Bearer first");
        fs::write(&path, "second one\n").unwrap();
        token.changed().await;
        assert_eq!(token.header().unwrap(), "Bearer second one");
        fs::write(&path, "\n").unwrap();
        assert!(token.header().is_err());
    }
}
