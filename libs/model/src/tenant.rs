//! Names of tenants.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A tenant's name: 1 to 63 of `a-z`, `0-9`, `-`, `_`, not beginning with a sign. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(Arc<str>);

/// Says which form is wanted.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a tenant's name is 1 to 63 lower-case letters, digits, `-` or `_`, and begins with a letter or digit")]
pub struct InvalidTenantId;

impl TenantId {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for TenantId {
    /// The tenant of installations that have only one.
    fn default() -> Self {
        Self("default".into())
    }
}

impl FromStr for TenantId {
    type Err = InvalidTenantId;

    fn from_str(text: &str) -> Result<Self, InvalidTenantId> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let bytes = text.as_bytes();
        let valid = bytes.len() <= 63
            && bytes.first().copied().is_some_and(plain)
            && bytes.iter().all(|&b| plain(b) || b == b'-' || b == b'_');
        if valid { Ok(Self(text.into())) } else { Err(InvalidTenantId) }
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for TenantId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_break_out_of_a_subject_or_key_are_refused() {
        for bad in ["", "A", "a.b", "a b", "-a", "a:b", "ä", &"a".repeat(64)] {
            assert_eq!(bad.parse::<TenantId>(), Err(InvalidTenantId), "{bad}");
        }
        assert_eq!("team-7_x".parse::<TenantId>().unwrap().as_str(), "team-7_x");
    }
}
