//! Flags of `/readyz`: each names one thing that the service needs, and says why it is missing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::{info, warn};

/// All flags of a process.
#[derive(Clone, Default)]
pub(crate) struct Flags(Arc<Mutex<BTreeMap<&'static str, Option<String>>>>);

impl Flags {
    pub(crate) fn add(&self, what: &'static str) -> Ready {
        self.set(what, Some("starting".to_owned()));
        Ready { what, flags: self.clone() }
    }

    /// What is missing and why, by name; empty when the process is ready.
    pub(crate) fn missing(&self) -> BTreeMap<&'static str, String> {
        let flags = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        flags.iter().filter_map(|(what, reason)| Some((*what, reason.clone()?))).collect()
    }

    /// Sets a flag and gives what it was before.
    fn set(&self, what: &'static str, reason: Option<String>) -> Option<Option<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(what, reason)
    }
}

/// One thing that the service needs. Clones share the flag.
#[derive(Clone)]
pub struct Ready {
    what: &'static str,
    flags: Flags,
}

impl Ready {
    /// A flag that no `/readyz` shows, for what a process can do without.
    #[must_use]
    pub fn unnoticed() -> Self {
        Flags::default().add("unnoticed")
    }

    /// The thing is there.
    pub fn up(&self) {
        if let Some(Some(_)) = self.flags.set(self.what, None) {
            info!(what = self.what, "is there");
        }
    }

    /// The thing is missing; `reason` is shown to whoever asks `/readyz` and logged when it changes from ready.
    pub fn down(&self, reason: impl Into<String>) {
        let reason = reason.into();
        let before = self.flags.set(self.what, Some(reason.clone()));
        if before.flatten().as_deref().is_none_or(|before| before == "starting") {
            warn!(what = self.what, reason, "is missing");
        }
    }

    /// Whether the thing is there.
    #[must_use]
    pub fn is_up(&self) -> bool {
        !self.flags.missing().contains_key(self.what)
    }
}

#[cfg(test)]
mod tests {
    use super::Flags;

    #[test]
    fn a_flag_begins_missing_and_says_why_it_is_missing_again() {
        let flags = Flags::default();
        let postgres = flags.add("postgres");
        assert_eq!(flags.missing()["postgres"], "starting");
        postgres.up();
        assert!(flags.missing().is_empty() && postgres.is_up());
        postgres.down("connection refused");
        assert_eq!(flags.missing()["postgres"], "connection refused");
    }
}
