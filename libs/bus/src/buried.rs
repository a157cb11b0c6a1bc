//! Which messages of a stream a service has made dead letters of: whoever reads a stream again must pass over them, since one
//! of them may be what ended its readers.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use futures::StreamExt as _;

use crate::Bus;
use crate::delivery::Delivery;
use crate::stream::{Stream, Subject};

const AT_A_TIME: usize = 1_000;
/// How long the next letter is waited for.
const WITHIN: Duration = Duration::from_secs(5);

/// The dead letters of a service.
#[derive(Debug, Default)]
pub struct Buried {
    service: &'static str,
    letters: HashSet<String>,
}

impl Buried {
    /// Whether this message is among them, or is kept from it by want of room alone.
    #[must_use]
    pub fn has(&self, delivery: &Delivery) -> bool {
        delivery.condemned().is_some() || self.letters.contains(&delivery.letter_id(self.service))
    }

    /// Reads their headers, oldest first.
    pub(crate) async fn read(bus: &Bus, service: &'static str) -> anyhow::Result<Self> {
        let namespace = &bus.settings().namespace;
        let stream =
            bus.publishing().jetstream.get_stream(Stream::Dead.name(namespace)).await.context("look at DEAD")?;
        let consumer = stream
            .create_consumer(pull::Config {
                deliver_policy: DeliverPolicy::All,
                ack_policy: AckPolicy::None,
                filter_subject: Subject::Dead(service).name(namespace),
                headers_only: true,
                inactive_threshold: WITHIN,
                memory_storage: true,
                num_replicas: 1,
                ..pull::Config::default()
            })
            .await
            .context("read DEAD")?;
        let mut buried = Self { service, letters: HashSet::new() };
        let mut left = consumer.cached_info().num_pending;
        while left > 0 {
            let mut letters = consumer.fetch().max_messages(AT_A_TIME).messages().await.context("read DEAD")?;
            let before = left;
            while let Some(letter) = tokio::time::timeout(WITHIN, letters.next()).await.context("read DEAD")? {
                let letter = letter.map_err(anyhow::Error::from_boxed).context("read a dead letter")?;
                let id = letter.headers.as_ref().and_then(|headers| headers.get("Nats-Msg-Id"));
                buried.letters.extend(id.map(|id| id.as_str().to_owned()));
                left = left.saturating_sub(1);
            }
            if left == before {
                // The rest was deleted by hand.
                break;
            }
        }
        Ok(buried)
    }
}
