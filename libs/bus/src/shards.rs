//! The number of shards is a fact of the installation: the first service writes it down, and whoever is told another one is
//! refused. A resource's shard is its hash modulo that number, so with another one its data would go where nobody looks.

use anyhow::Context as _;
use async_nats::HeaderMap;
use async_nats::jetstream;
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::stream::LastRawMessageErrorKind;

use crate::settings::Settings;
use crate::stream::{Stream, shards_subject};

/// The settings speak of another number than the installation.
#[derive(Debug, thiserror::Error)]
#[error(
    "SIGHTLINE_SHARDS is {wanted}, but this installation ({namespace}) was made with {found}; the number cannot be changed \
     while streams hold data (docs/contracts/nats.md, \"Shards\")"
)]
pub(crate) struct OtherNumber {
    wanted: u16,
    found: u16,
    namespace: String,
}

/// Writes the number down, or checks it against the one that is.
pub(crate) async fn agree(context: &jetstream::Context, settings: &Settings) -> anyhow::Result<()> {
    let subject = shards_subject(&settings.namespace);
    loop {
        if let Some(found) = written(context, settings, &subject).await? {
            if found == settings.shards {
                return Ok(());
            }
            let namespace = settings.namespace.clone();
            return Err(OtherNumber { wanted: settings.shards, found, namespace }.into());
        }
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Expected-Last-Subject-Sequence", "0");
        let writing = context.publish_with_headers(subject.clone(), headers, settings.shards.to_string().into());
        match writing.await.context("write down the number of shards")?.await {
            Ok(_) => return Ok(()),
            // Another service was faster; what it wrote counts.
            Err(error) => tracing::debug!(%error, "cannot write down the number of shards"),
        }
        anyhow::ensure!(
            written(context, settings, &subject).await?.is_some(),
            "the number of shards cannot be written down"
        );
    }
}

async fn written(context: &jetstream::Context, settings: &Settings, subject: &str) -> anyhow::Result<Option<u16>> {
    let name = Stream::State.name(&settings.namespace);
    let state = context.get_stream_no_info(name).await.context("name SL_STATE")?;
    match state.get_last_raw_message_by_subject(subject).await {
        Ok(message) => {
            let text = std::str::from_utf8(&message.payload).unwrap_or_default();
            Ok(Some(text.parse().with_context(|| format!("read the number of shards, `{text}`"))?))
        }
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(error).context("look for the number of shards"),
    }
}

/// Streams of more shards than there are, as an installation without a number may have left them, which hold messages that
/// nobody has handled.
pub(crate) async fn stranded(context: &jetstream::Context, settings: &Settings) -> anyhow::Result<Vec<Stream>> {
    let mut stranded = Vec::new();
    for shard in settings.shards..=MOST_SHARDS {
        let mut any = false;
        for stream in [Stream::Metrics(shard), Stream::Logs(shard), Stream::Processes(shard)] {
            let name = stream.name(&settings.namespace);
            let handle = match context.get_stream(&name).await {
                Ok(handle) => handle,
                Err(error) if matches!(error.kind(), GetStreamErrorKind::JetStream(_)) => continue,
                Err(error) => return Err(error).with_context(|| format!("look for stream {name}")),
            };
            any = true;
            let last = handle.cached_info().state.last_sequence;
            let durable = stream.writer().map_or("", |writer| writer.durable);
            let floor = handle.consumer_info(durable).await.map_or(0, |consumer| consumer.ack_floor.stream_sequence);
            if floor < last {
                stranded.push(stream);
            }
        }
        if !any {
            break;
        }
    }
    Ok(stranded)
}

/// As the settings allow.
const MOST_SHARDS: u16 = 64;
