//! What a caller may see, for those who ask a store on their behalf.

use selector::Selector;

use crate::Principal;

/// A tenant, and what of it. Every question to a store carries one, so that no query can forget either.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    tenant: String,
    selector: Selector,
}

impl Scope {
    /// Everything of `tenant`, for work that no user asked for.
    #[must_use]
    pub fn tenant_wide(tenant: impl Into<String>) -> Self {
        Self { tenant: tenant.into(), selector: Selector::default() }
    }

    /// The tenant; everything else does not exist for the caller.
    #[must_use]
    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    /// What of the tenant's things, by their labels.
    #[must_use]
    pub fn selector(&self) -> &Selector {
        &self.selector
    }

    /// What of `asked` the caller may see.
    #[must_use]
    pub fn narrow(&self, asked: &Selector) -> Selector {
        self.selector.and(asked)
    }
}

impl From<&Principal> for Scope {
    /// Today everybody may see the whole of their tenant.
    fn from(principal: &Principal) -> Self {
        Self::tenant_wide(principal.tenant.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_narrows_what_was_asked_and_never_widens_it() {
        let asked: Selector = r#"{kind="host"}"#.parse().unwrap();
        assert_eq!(Scope::tenant_wide("acme").narrow(&asked), asked);
        let narrow = Scope { tenant: "acme".into(), selector: r#"{env="prod"}"#.parse().unwrap() };
        assert_eq!(narrow.narrow(&asked).to_string(), r#"{env="prod",kind="host"}"#);
        assert_eq!(narrow.narrow(&Selector::default()), *narrow.selector());
    }
}
