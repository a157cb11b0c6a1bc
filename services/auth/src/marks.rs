//! Marks that only auth can make: on devices that logged in before, and in place of names that nobody has.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign, verify};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use uuid::Uuid;

/// How long a device is remembered after its last login.
pub const DEVICE_LIFETIME: Duration = Duration::from_secs(90 * 24 * 60 * 60);
const PREFIX: &str = "sld_";
const TAG_BYTES: usize = 32;

/// Makes and reads marks. Replicas share the secret.
#[derive(Clone)]
pub struct Marks {
    key: Key,
}

impl Marks {
    /// Marks by this secret.
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        Self { key: Key::new(HMAC_SHA256, secret) }
    }

    /// The mark of a device on which `user` has just logged in.
    #[must_use]
    pub fn device(&self, user: Uuid, now: SystemTime) -> String {
        let mut bytes = user.as_bytes().to_vec();
        bytes.extend(seconds(now).to_be_bytes());
        let tag = sign(&self.key, &labelled("device", &bytes));
        bytes.extend(tag.as_ref());
        format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&bytes))
    }

    /// Whether `mark` says that `user` logged in on this device not too long ago.
    #[must_use]
    pub fn is_device_of(&self, mark: &str, user: Uuid, now: SystemTime) -> bool {
        let Some(bytes) = mark.strip_prefix(PREFIX).and_then(|text| BASE64URL_NOPAD.decode(text.as_bytes()).ok())
        else {
            return false;
        };
        let Some((said, tag)) = bytes.len().checked_sub(TAG_BYTES).map(|at| bytes.split_at(at)) else { return false };
        let (Some(id), Some(Ok(made))) = (said.get(..16), said.get(16..).map(<[u8; 8]>::try_from)) else {
            return false;
        };
        let fresh = seconds(now).saturating_sub(u64::from_be_bytes(made)) < DEVICE_LIFETIME.as_secs();
        fresh && id == user.as_bytes() && verify(&self.key, &labelled("device", said), tag).is_ok()
    }

    /// What stands in the record for a name that no user has: it may be a password in the wrong field. The same name has
    /// the same mark, and without the secret nobody can try out names.
    #[must_use]
    pub fn unknown_name(&self, name: &str) -> String {
        let tag = sign(&self.key, &labelled("name", name.to_lowercase().as_bytes()));
        format!("unknown:{}", HEXLOWER.encode(&tag.as_ref()[..8]))
    }
}

/// Keeps the uses of one key apart.
fn labelled(label: &str, bytes: &[u8]) -> Vec<u8> {
    [label.as_bytes(), b"\0", bytes].concat()
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

pub(crate) fn hmac(secret: &[u8], bytes: &[u8]) -> Vec<u8> {
    sign(&Key::new(HMAC_SHA256, secret), bytes).as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_known_for_its_user_until_its_time_is_over() {
        let (marks, user, now) = (Marks::new(b"s"), Uuid::new_v4(), SystemTime::now());
        let mark = marks.device(user, now);
        assert!(marks.is_device_of(&mark, user, now));
        assert!(!marks.is_device_of(&mark, Uuid::new_v4(), now));
        assert!(!marks.is_device_of(&mark, user, now + DEVICE_LIFETIME));
        assert!(!Marks::new(b"t").is_device_of(&mark, user, now));
        for broken in ["", "sld_", "sld_AAAA", &mark[..mark.len() - 2], &mark[4..]] {
            assert!(!marks.is_device_of(broken, user, now), "{broken}");
        }
    }

    #[test]
    fn an_unknown_name_is_told_by_a_mark_that_says_nothing() {
        let marks = Marks::new(b"s");
        assert_eq!(marks.unknown_name("Hunter2"), marks.unknown_name("hunter2"));
        assert_ne!(marks.unknown_name("a"), marks.unknown_name("b"));
        assert!(!marks.unknown_name("hunter2").contains("hunter2"));
    }
}
