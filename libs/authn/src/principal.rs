//! A caller whose token was verified.

use std::fmt;
use std::time::SystemTime;

use fault::{Fault, Kind};

use crate::{Credential, Permission, Scope};

/// A user.
#[derive(Clone, PartialEq, Eq)]
pub struct Principal {
    /// The tenant whose things this caller may see; everything else does not exist for them.
    pub tenant: String,
    /// The user's id.
    pub subject: String,
    /// What they may do.
    pub permissions: Vec<Permission>,
    /// The token itself, to be passed on to the service that owns the thing asked for.
    pub token: String,
    /// By what the token can be taken back; see [`crate::Verifier::until_revoked`].
    pub credential: Credential,
    /// When the token ends. A stream that was opened with it must not outlive it.
    pub expires: SystemTime,
}

impl Principal {
    /// What they may see.
    #[must_use]
    pub fn scope(&self) -> Scope {
        Scope::from(self)
    }

    /// Passes when the caller holds `permission`.
    ///
    /// # Errors
    /// Forbidden, with the name of what is missing.
    pub fn require(&self, permission: Permission) -> fault::Result<()> {
        if self.permissions.contains(&permission) {
            return Ok(());
        }
        let detail = format!("this needs the permission `{permission}`; ask an administrator for a role that has it");
        Err(Fault::new(Kind::Forbidden, "permission_missing", detail))
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the token: whoever reads a log could use it.
        f.debug_struct("Principal")
            .field("tenant", &self.tenant)
            .field("subject", &self.subject)
            .field("permissions", &self.permissions)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// An agent. The credential alone decides who it is, whatever its messages say.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AgentIdentity {
    /// The tenant that everything it sends belongs to.
    pub tenant: String,
    /// Its id, stable across restarts.
    pub agent_id: String,
    /// By what the token can be taken back; see [`crate::Verifier::until_revoked`].
    pub credential: Credential,
    /// When the token ends.
    pub expires: SystemTime,
}
