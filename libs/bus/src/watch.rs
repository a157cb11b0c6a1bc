//! What a process says about the broker while it runs: what is full, what is lost, what waits for an operator.

use std::collections::BTreeMap;
use std::time::Duration;

use lifecycle::CancellationToken;

use crate::stream::Stream;
use crate::{Bus, account, counts, look, room, shards};

const EVERY: Duration = Duration::from_secs(15);
/// Share of the room for dead letters, in percent, above which somebody should look at them.
const DEAD_ALARM_PERCENT: u64 = 70;

telemetry::metrics! {
    /// What every service that uses the broker says about it.
    pub(crate) struct Metrics in "sightline_bus" {
        /// Whether a stream has no room: its publishers wait until its reader has handled some of it
        pub(crate) full: Gauge by [stream],
        /// Messages that only a newer version knows, each time that they were put off
        pub(crate) put_off: Counter,
        /// Whether such messages were seen in the last minute and a half
        pub(crate) unknown: Gauge,
        /// Messages that had to wait and went to the end of their stream meanwhile
        pub(crate) deferred: Counter,
        /// Messages that are gone and that nobody answered for, of the streams that this process reads
        pub(crate) lost: Gauge by [stream],
        /// Messages that were acknowledged and not counted, of the streams that this process reads
        pub(crate) unexplained: Gauge by [stream],
        /// Dead letters that are kept
        pub(crate) dead_letters: Gauge,
        /// Their share of the room for them, in percent
        pub(crate) dead_letters_used_percent: Gauge,
    }
}

/// Looks at the streams that this process reads, and at the dead letters, until the process stops.
pub(crate) async fn run(bus: Bus, stopping: CancellationToken) -> anyhow::Result<()> {
    let mut seen = Seen::default();
    loop {
        bus.forget_unknown();
        look(&bus, &mut seen).await;
        if stopping.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_none() {
            return Ok(());
        }
    }
}

/// What was said before, so that it is said once.
#[derive(Default)]
struct Seen {
    lost: BTreeMap<Stream, u64>,
    dead_alarm: bool,
}

/// Looks at everything; what cannot be looked at is no reason to leave the rest.
async fn look(bus: &Bus, seen: &mut Seen) {
    bus.check_payload();
    accounts(bus, seen).await;
    for stream in bus.full() {
        note(stream, full(bus, stream).await);
    }
    for stream in bus.uncounted() {
        note(stream, uncounted(bus, stream).await);
    }
    note(Stream::Dead, dead(bus, seen).await);
    match shards::stranded(&bus.publishing().jetstream, bus.settings()).await {
        Ok(stranded) => bus.links().set("shards", (!stranded.is_empty()).then(|| describe(&stranded))),
        Err(error) => note("shards", Err(error)),
    }
}

fn note(what: impl std::fmt::Display, looked: anyhow::Result<()>) {
    if let Err(error) = looked {
        tracing::debug!(error = format!("{error:#}"), %what, "cannot look");
    }
}

/// A stream that had no room, and to which this process may never publish again.
async fn full(bus: &Bus, stream: Stream) -> anyhow::Result<()> {
    if !room::backlog(bus, stream).await?.is_full() {
        bus.has_room(stream);
    }
    Ok(())
}

/// A stream whose counts could not be written, and of which this process may never get a message again.
async fn uncounted(bus: &Bus, stream: Stream) -> anyhow::Result<()> {
    counts::read(bus, stream).await?;
    bus.counted(stream, None);
    Ok(())
}

async fn accounts(bus: &Bus, seen: &mut Seen) {
    let mut sums: BTreeMap<&'static str, (u64, u64)> = BTreeMap::new();
    for stream in bus.read_here() {
        let account = match account::one(bus, stream).await {
            Ok(account) => account,
            Err(error) => {
                note(stream, Err(error));
                continue;
            }
        };
        let sum = sums.entry(stream.kind()).or_default();
        *sum = (sum.0 + account.lost, sum.1 + account.unexplained);
        if account.unexplained > 0 {
            note(stream, account::note(bus, stream).await);
        }
        let before = seen.lost.insert(stream, account.lost).unwrap_or_default();
        if account.lost > before {
            tracing::error!(%stream, lost = account.lost, "messages are gone that nobody has answered for");
        }
    }
    for (kind, (lost, unexplained)) in sums {
        bus.metrics().lost.of([kind]).set(i64::try_from(lost).unwrap_or(i64::MAX));
        bus.metrics().unexplained.of([kind]).set(i64::try_from(unexplained).unwrap_or(i64::MAX));
    }
}

async fn dead(bus: &Bus, seen: &mut Seen) -> anyhow::Result<()> {
    let info = look::info(bus, Stream::Dead).await?;
    let room = u64::try_from(info.config.max_bytes).unwrap_or_default().max(1);
    let percent = info.state.bytes.saturating_mul(100) / room;
    bus.metrics().dead_letters.set(i64::try_from(info.state.messages).unwrap_or(i64::MAX));
    bus.metrics().dead_letters_used_percent.set(i64::try_from(percent).unwrap_or(i64::MAX));
    let alarm = percent >= DEAD_ALARM_PERCENT;
    if alarm && !seen.dead_alarm {
        let messages = info.state.messages;
        tracing::error!(messages, percent, "there is little room left for dead letters: look at them, and delete them");
    }
    seen.dead_alarm = alarm;
    Ok(())
}

fn describe(stranded: &[Stream]) -> String {
    let names: Vec<String> = stranded.iter().map(ToString::to_string).collect();
    format!("streams of more shards than SIGHTLINE_SHARDS hold data that nobody reads: {}", names.join(", "))
}
