//! Maps whose keys are hashes already, which need not be hashed again.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map by something's 64-bit hash.
pub type HashedMap<T> = HashMap<u64, T, BuildHasherDefault<Identity>>;

/// Takes a `u64` for its own hash.
#[derive(Debug, Default)]
pub struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Only for the trait's sake: all keys are u64.
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}
