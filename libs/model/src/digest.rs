//! One hash for ids that are made of several texts.

use sha2::{Digest as _, Sha256};

/// 128 bits of SHA-256 over length-prefixed parts, as 32 hex digits: where one part ends and the next begins counts too.
#[must_use]
pub fn digest(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hex::encode(&hash.finalize()[..16])
}

#[cfg(test)]
mod tests {
    use super::digest;

    #[test]
    fn it_depends_on_where_the_parts_begin_and_never_changes() {
        assert_ne!(digest(&["a", "bc", "d"]), digest(&["ab", "c", "d"]));
        assert_ne!(digest(&["a", ""]), digest(&["a"]));
        assert_eq!(digest(&["default", "rule", "00ff"]), "61eba2143d2610d44c07dcd1f58a67c5");
    }
}
