//! Tokens without an auth service: a key of this process signs, and its verifier needs nobody.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use authn::{Keys, Permission, Signer, Verifier};

/// A signer and the verifier that believes it.
pub struct Tokens {
    signer: Signer,
    verifier: Verifier,
}

impl Tokens {
    /// A verifier for the service under test.
    #[must_use]
    pub fn verifier(&self) -> Verifier {
        self.verifier.clone()
    }

    /// A user's token, good for an hour.
    #[must_use]
    pub fn user(&self, tenant: &str, permissions: &[Permission]) -> String {
        let hour = Duration::from_secs(3_600);
        self.signer.user(tenant, "user", permissions, SystemTime::now(), hour).unwrap().token
    }

    /// An agent's token, good for an hour.
    #[must_use]
    pub fn agent(&self, tenant: &str, agent_id: &str) -> String {
        self.signer.agent(tenant, agent_id, SystemTime::now(), Duration::from_secs(3_600)).unwrap().token
    }
}

/// The tokens of this process.
#[must_use]
pub fn tokens() -> &'static Tokens {
    static TOKENS: LazyLock<Tokens> = LazyLock::new(|| {
        lifecycle::install_crypto();
        let signer = Signer::generate().unwrap();
        let verifier = Verifier::fixed(Keys::parse(&signer.jwks()).unwrap());
        Tokens { signer, verifier }
    });
    &TOKENS
}

/// A token for everything in `tenant`.
#[must_use]
pub fn admin_token(tenant: &str) -> String {
    tokens().user(tenant, &Permission::ALL)
}
