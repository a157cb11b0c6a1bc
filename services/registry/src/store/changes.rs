//! Changes on their way from the transaction that makes them to the broker.

use prost::Message as _;
use proto::registry::ResourceChanged;
use sqlx::PgConnection;
use store::outbox;
use uuid::Uuid;

/// Where changes go; the registry sends nothing else.
const TOPIC: &str = "changes";

/// Puts changes into the outbox, in order for each resource. Its row is locked by whoever announces something about it.
pub(super) async fn announce(connection: &mut PgConnection, changes: &[ResourceChanged]) -> sqlx::Result<()> {
    let message = |change: &ResourceChanged| {
        let id = change.resource.as_ref().map_or("", |resource| resource.id.as_str());
        outbox::Message {
            id: Uuid::new_v4().to_string(),
            topic: TOPIC.to_owned(),
            key: format!("{}/{id}", change.tenant),
            tenant: change.tenant.clone(),
            payload: change.encode_to_vec(),
            traceparent: None,
        }
    };
    let messages: Vec<outbox::Message> = changes.iter().map(message).collect();
    outbox::put(connection, &messages).await
}
