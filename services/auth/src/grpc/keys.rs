//! The keys that sign tokens. They are the whole installation's, so only its own tenant's administrators reach them.

use authn::{Permission, Principal, Signer};
use fault::{Fault, Kind};
use proto::auth::{ListKeysRequest, ListKeysResponse, RetireKeyRequest, RotateKeysRequest, SigningKey};
use tonic::Request;

use super::Api;
use crate::keyring::unix_nano;
use crate::keyset::{self, State};
use crate::login::DEFAULT_TENANT;

impl Api {
    async fn key_keeper<T>(&self, request: &Request<T>) -> fault::Result<Principal> {
        let caller = self.caller(request, Permission::KeysWrite).await?;
        if caller.scope().tenant() != DEFAULT_TENANT {
            let detail = format!("keys belong to the whole installation; ask an administrator of `{DEFAULT_TENANT}`");
            return Err(Fault::new(Kind::Forbidden, "tenant_not_allowed", detail));
        }
        Ok(caller)
    }

    pub(super) async fn key_list(&self, request: &Request<ListKeysRequest>) -> fault::Result<ListKeysResponse> {
        self.key_keeper(request).await?;
        Ok(ListKeysResponse { items: self.signing_keys().await? })
    }

    /// A second rotation while the first one's key is still announced changes nothing and gives that key.
    pub(super) async fn rotate(&self, request: &Request<RotateKeysRequest>) -> fault::Result<SigningKey> {
        let caller = self.key_keeper(request).await?;
        let signer = Signer::generate().map_err(Fault::internal)?;
        let kept = self.keyring.seal().close(signer.key_id(), signer.pkcs8()).map_err(Fault::internal)?;
        if self.store.announce_key(signer.key_id(), &kept, self.key_announcement).await? {
            tracing::info!(key = signer.key_id(), by = caller.subject, "announced a signing key");
        }
        let keys = self.signing_keys().await?;
        let made = keys.iter().find(|key| key.id == signer.key_id());
        let announced = made.or_else(|| keys.iter().find(|key| key.state == State::Announced.as_str()));
        announced.cloned().ok_or_else(|| Fault::internal(anyhow::anyhow!("the key that was announced is not there")))
    }

    pub(super) async fn retire(&self, request: &Request<RetireKeyRequest>) -> fault::Result<SigningKey> {
        let caller = self.key_keeper(request).await?;
        let id = &request.get_ref().id;
        let find = |keys: Vec<SigningKey>| keys.into_iter().find(|key| key.id == *id);
        let key = find(self.signing_keys().await?).ok_or_else(|| Fault::not_found("key", id))?;
        if key.state == State::Active.as_str() {
            let detail = "this key signs; rotate first, and retire it when the next one is active";
            return Err(Fault::new(Kind::Conflict, "key_active", detail));
        }
        self.store.retire_key(id).await?;
        tracing::warn!(key = id, agent_tokens = key.agent_tokens, by = caller.subject, "retired a signing key");
        find(self.signing_keys().await?).ok_or_else(|| Fault::not_found("key", id))
    }

    /// As Postgres has them now, not as this replica read them last.
    async fn signing_keys(&self) -> fault::Result<Vec<SigningKey>> {
        let away = |error| Fault::unavailable("keys_unavailable", "keys cannot be read; try again shortly", error);
        self.keyring.reload().await.map_err(away)?;
        let rows = self.store.keys().await.map_err(store::fault)?;
        let held = self.keyring.keys();
        let states = keyset::states(&held);
        let tokens = self.store.tokens_by_key().await?;
        let signing_key = |row: crate::store::KeyRow| {
            let position = held.iter().position(|key| key.signer.key_id() == row.id);
            let state = if row.retired { State::Retired } else { position.map_or(State::Announced, |at| states[at]) };
            let agent_tokens = tokens.iter().find(|(id, _)| *id == row.id).map_or(0, |(_, count)| *count);
            SigningKey {
                id: row.id,
                state: state.as_str().to_owned(),
                announced_unix_nano: unix_nano(row.announced_at.into()),
                active_unix_nano: unix_nano(row.active_at.into()),
                retired_unix_nano: row.retired_at.map_or(0, |at| unix_nano(at.into())),
                agent_tokens: u64::try_from(agent_tokens).unwrap_or_default(),
            }
        };
        Ok(rows.into_iter().map(signing_key).collect())
    }
}
