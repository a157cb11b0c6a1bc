//! Creates the streams and the writers' consumers, from any service and in any order, and checks what the server made.

use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::context::{ConsumerInfoErrorKind, CreateStreamErrorKind, GetStreamErrorKind};
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use async_nats::jetstream::{self, ErrorCode};
use async_nats::{HeaderMap, Request, RequestErrorKind};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::settings::Settings;
use crate::shards;
use crate::stream::Stream;

/// The server's own limit for one message (`max_payload`) unless it is told otherwise.
pub(crate) const MAX_MESSAGE_BYTES: i32 = 1 << 20;
/// As long as a publisher may go on repeating one message with the same id.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);
/// What is not telemetry is small; its streams need not reserve as much.
const CONTROL_STREAM_BYTES: u64 = 256 << 20;
/// The server's default of 1,000 stalls a writer that holds acknowledgements back until its store has answered.
const MAX_ACK_PENDING: i64 = 20_000;
/// With another name in this header, no stream keeps a message.
const EXPECTED_STREAM: &str = "Nats-Expected-Stream";
/// A stream that is no older, by our clock, may not be whole.
const BEING_MADE: Duration = Duration::from_secs(60);
/// How long a stream that is being made may be silent, and how often it is asked.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(20);

/// Makes every stream and every writer's consumer as `settings` want them. What another number of shards would make is not
/// made.
pub(crate) async fn ensure(context: &jetstream::Context, settings: &Settings) -> anyhow::Result<()> {
    if ensure_stream(context, settings, Stream::State).await? == Age::New
        && let Err(error) = whole(context, settings, Stream::State).await
    {
        debug!(error = format!("{error:#}"), "cannot ask whether SL_STATE is made");
    }
    shards::agree(context, settings).await?;
    for stream in Stream::all(settings.shards) {
        ensure_stream(context, settings, stream).await?;
        if let Some(writer) = stream.writer() {
            durable(context, settings, stream, writer.durable, writer.ack_wait).await?;
        }
    }
    Ok(())
}

/// Whether somebody may still be making a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Age {
    New,
    Old,
}

/// Makes one stream, if it is not there.
pub(crate) async fn ensure_stream(
    context: &jetstream::Context,
    settings: &Settings,
    stream: Stream,
) -> anyhow::Result<Age> {
    let wanted = config(settings, stream)?;
    let found = match context.get_stream(&wanted.name).await {
        Ok(found) => Some(found.cached_info().clone()),
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(api) if api.error_code() == ErrorCode::STREAM_NOT_FOUND => None,
            _ => return Err(error).with_context(|| format!("look for stream {}", wanted.name)),
        },
    };
    let Some(found) = found else {
        create(context, wanted).await?;
        return Ok(Age::New);
    };
    let changed = reconciled(&found.config, &wanted, &elsewhere(settings, stream));
    if changed != found.config {
        // Another service with the same settings may do this at the same moment: the update says the same.
        match context.update_stream(&changed).await {
            Ok(_) => info!(stream = wanted.name, "changed a stream to the settings"),
            Err(error) => {
                warn!(stream = wanted.name, %error, "cannot change a stream to the settings; using it as it is")
            }
        }
    }
    let is_old = found.created < time::OffsetDateTime::now_utc() - BEING_MADE;
    Ok(if is_old { Age::Old } else { Age::New })
}

async fn create(context: &jetstream::Context, wanted: Config) -> anyhow::Result<()> {
    match context.create_stream(wanted.clone()).await {
        Ok(created) => {
            let ignored = ignored(&created.cached_info().config, &wanted);
            if !ignored.is_empty() {
                warn!(stream = wanted.name, ?ignored, "this server ignored options of a stream");
            }
            Ok(())
        }
        // Somebody else was faster, with other settings: whoever comes next reconciles them.
        Err(error)
            if matches!(error.kind(), CreateStreamErrorKind::JetStream(api)
            if api.error_code() == ErrorCode::STREAM_NAME_EXIST) =>
        {
            Ok(())
        }
        Err(error) => Err(error).with_context(|| format!("create stream {}", wanted.name)),
    }
}

fn config(settings: &Settings, stream: Stream) -> anyhow::Result<Config> {
    let bytes = match stream {
        Stream::Dead => settings.dead_max_bytes,
        stream if stream.is_signal() => settings.stream_max_bytes,
        _ => settings.stream_max_bytes.min(CONTROL_STREAM_BYTES),
    };
    Ok(Config {
        name: stream.name(&settings.namespace),
        subjects: stream.subjects(&settings.namespace),
        max_bytes: i64::try_from(bytes).context("read SIGHTLINE_STREAM_MAX_BYTES")?,
        max_messages: -1,
        max_messages_per_subject: if stream == Stream::State { 1 } else { -1 },
        max_consumers: -1,
        // Only what nobody has to handle may make room by itself. Handled messages stay for replay until they are removed
        // (`room::trim`); where none is handled, publishing fails. A dead letter is the only record of what it holds.
        discard: if evicts(stream) { DiscardPolicy::Old } else { DiscardPolicy::New },
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        num_replicas: settings.stream_replicas,
        max_message_size: MAX_MESSAGE_BYTES,
        duplicate_window: DUPLICATE_WINDOW,
        ..Config::default()
    })
}

/// Whether its oldest messages may go when there is no room for new ones.
fn evicts(stream: Stream) -> bool {
    stream.writer().is_none() && !matches!(stream, Stream::Dead | Stream::State)
}

/// What the other streams of this version take in.
fn elsewhere(settings: &Settings, stream: Stream) -> Vec<String> {
    let others = Stream::all(settings.shards).filter(|other| *other != stream);
    others.flat_map(|other| other.subjects(&settings.namespace)).collect()
}

/// What is there, and what our settings add to it. Versions and settings run side by side for a while: whatever is larger
/// stays, and a subject that only the other version knows stays, but for one that has a stream of its own now.
fn reconciled(found: &Config, wanted: &Config, elsewhere: &[String]) -> Config {
    let added = wanted.subjects.iter().filter(|subject| !found.subjects.contains(subject));
    let subjects = found.subjects.iter().filter(|subject| !elsewhere.contains(subject)).chain(added);
    Config {
        subjects: subjects.cloned().collect(),
        max_bytes: found.max_bytes.max(wanted.max_bytes),
        // Never back to evicting.
        discard: if wanted.discard == DiscardPolicy::New { DiscardPolicy::New } else { found.discard },
        num_replicas: found.num_replicas.max(wanted.num_replicas),
        max_message_size: found.max_message_size.max(wanted.max_message_size),
        duplicate_window: found.duplicate_window.max(wanted.duplicate_window),
        ..found.clone()
    }
}

/// Options that the server did not take over: 2.9 says nothing about those that it does not know.
fn ignored(made: &Config, wanted: &Config) -> Vec<&'static str> {
    let checks = [
        ("subjects", made.subjects == wanted.subjects),
        ("max_bytes", made.max_bytes == wanted.max_bytes),
        ("discard", made.discard == wanted.discard),
        ("retention", made.retention == wanted.retention),
        ("storage", made.storage == wanted.storage),
        ("num_replicas", made.num_replicas == wanted.num_replicas),
        ("max_msg_size", made.max_message_size == wanted.max_message_size),
        ("duplicate_window", made.duplicate_window == wanted.duplicate_window),
    ];
    checks.iter().filter(|(_, same)| !same).map(|(name, _)| *name).collect()
}

/// Finds or makes a durable consumer that begins with the oldest message.
pub(crate) async fn durable(
    context: &jetstream::Context,
    settings: &Settings,
    stream: Stream,
    name: &str,
    ack_wait: Duration,
) -> anyhow::Result<jetstream::consumer::PullConsumer> {
    let wanted = pull::Config {
        durable_name: Some(name.to_owned()),
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::Explicit,
        ack_wait,
        // A store that is away must not use up a message's deliveries.
        max_deliver: -1,
        max_ack_pending: MAX_ACK_PENDING,
        ..pull::Config::default()
    };
    let of = stream.name(&settings.namespace);
    let handle = context.get_stream_no_info(&of).await.with_context(|| format!("name stream {of}"))?;
    let known = handle.consumer_info(name).await;
    if known.is_err_and(|error| error.kind() == ConsumerInfoErrorKind::NotFound) {
        whole(context, settings, stream).await.with_context(|| format!("wait until stream {of} is made"))?;
    }
    let found = handle
        .get_or_create_consumer(name, wanted.clone())
        .await
        .with_context(|| format!("find consumer {name} of {of}"))?;
    let is = &found.cached_info().config;
    if is.ack_wait == wanted.ack_wait && is.max_ack_pending == wanted.max_ack_pending {
        return Ok(found);
    }
    // Creating a durable again with other settings is how servers before 2.10 update it.
    match handle.create_consumer(wanted).await {
        Ok(updated) => Ok(updated),
        Err(error) => {
            warn!(stream = of, consumer = name, %error, "cannot change a consumer to the settings; using it as it is");
            Ok(found)
        }
    }
}

/// Waits until `stream` answers, with a message that it refuses.
///
/// Servers before 2.10 show a stream that somebody is making before it is whole. A consumer that is made then never sends
/// anything, no message, no heartbeat, no error; and who asks for a message then ends the server.
async fn whole(context: &jetstream::Context, settings: &Settings, stream: Stream) -> anyhow::Result<()> {
    let mut subjects = stream.subjects(&settings.namespace);
    let subject = subjects.swap_remove(0).replace(['*', '>'], "none");
    let until = Instant::now() + ANSWERS_WITHIN;
    loop {
        let mut headers = HeaderMap::new();
        headers.insert(EXPECTED_STREAM, "NONE");
        let request = Request::new().headers(headers).timeout(Some(ANSWERS_WITHIN));
        match context.client().send_request(subject.clone(), request).await {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == RequestErrorKind::NoResponders && Instant::now() < until => {
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(bytes: u64) -> Settings {
        Settings {
            nats_url: String::new().into(),
            namespace: "sl".to_owned(),
            shards: 1,
            stream_max_bytes: bytes,
            dead_max_bytes: bytes,
            hold_limit: Duration::from_secs(120),
            stream_replicas: 1,
        }
    }

    #[test]
    fn what_another_version_or_an_operator_added_stays() {
        let wanted = config(&settings(1 << 20), Stream::Transitions).unwrap();
        let mut found = Config { max_bytes: 1 << 30, num_replicas: 3, ..wanted.clone() };
        found.subjects.push("sl.alerts.of_a_newer_version".to_owned());
        assert_eq!(reconciled(&found, &wanted, &elsewhere(&settings(1), Stream::Transitions)), found);
    }

    #[test]
    fn a_subject_that_has_a_stream_of_its_own_now_is_given_up() {
        let wanted = config(&settings(1 << 20), Stream::Resources).unwrap();
        let found =
            Config { subjects: vec!["sl.resources.seen".into(), "sl.resources.changed".into()], ..wanted.clone() };
        assert_eq!(reconciled(&found, &wanted, &elsewhere(&settings(1), Stream::Resources)), wanted);
    }

    #[test]
    fn only_what_nobody_has_to_handle_is_ever_evicted() {
        for stream in Stream::all(2) {
            let is_needed = stream.writer().is_some() || matches!(stream, Stream::Dead | Stream::State);
            let discard = config(&settings(1 << 30), stream).unwrap().discard;
            assert_eq!(discard == DiscardPolicy::New, is_needed, "{stream}");
        }
    }
}
