//! Writes again what a store may have lost.

use std::time::Duration;

use anyhow::Context as _;
use bus::{Buried, Bus, From, Stream};
use model::Times;
use series::Reader;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use crate::SERVICE;
use crate::metrics::Metrics;
use crate::samples::Samples;
use crate::sending::Sending;
use crate::store::WriteError;
use crate::taken::Taken;

/// How long a stream may be silent before its end is looked up again.
const SILENCE: Duration = Duration::from_secs(5);
const MOST_SILENCES: u32 = 6;
/// Less than a writer uses, since it runs beside one.
const ENOUGH_SAMPLES: usize = 25_000;
const ENOUGH_BYTES: usize = 8 << 20;

/// What it takes to read streams again.
pub(crate) struct Replay {
    pub(crate) bus: Bus,
    pub(crate) sending: Sending,
    pub(crate) metrics: Metrics,
    pub(crate) times: Times,
    /// Bytes of series that are remembered meanwhile.
    pub(crate) cache_bytes: usize,
}

/// Envelopes that are written again together.
#[derive(Default)]
struct Chunk {
    taken: Vec<Taken>,
    samples: Samples,
    bytes: usize,
}

impl Replay {
    /// Writes of each shard the messages behind `after` and up to `ends`; says how many samples that were.
    pub(crate) async fn run(&self, after: &[u64], ends: &[u64]) -> anyhow::Result<u64> {
        let buried = self.bus.buried(SERVICE).await.context("look for dead letters")?;
        let mut samples = 0;
        for shard in 0..self.bus.settings().shards {
            let of = |sequences: &[u64]| sequences.get(usize::from(shard)).copied().unwrap_or(0);
            samples += self.shard(shard, of(after), of(ends), &buried).await?;
        }
        Ok(samples)
    }

    async fn shard(&self, shard: u16, after: u64, end: u64, buried: &Buried) -> anyhow::Result<u64> {
        if after >= end {
            return Ok(0);
        }
        let stream = Stream::Metrics(shard);
        info!(%stream, after, end, "writing again what the store may have lost");
        let mut follow = self.bus.follow(stream, From::Sequence(after + 1)).await;
        let (mut reader, mut chunk, mut written) = (self.reader(), Chunk::default(), 0);
        let (mut at, mut expected, mut silences) = (after, after + 1, 0);
        while at < end {
            let Ok(delivery) = timeout(SILENCE, follow.next()).await else {
                silences += 1;
                // The stream may have lost its end meanwhile, or somebody purged it.
                if self.bus.progress(stream).await?.last <= at || silences == MOST_SILENCES {
                    warn!(%stream, at, end, "the stream ends before what the store may have lost");
                    break;
                }
                continue;
            };
            silences = 0;
            at = delivery.stream_sequence();
            if at > expected {
                warn!(%stream, messages = at - expected, "the stream no longer keeps all of what the store may have lost");
            }
            expected = at + 1;
            if at <= end && delivery.tick().is_none() && !buried.has(&delivery) {
                match Taken::read(&mut reader, &delivery, &mut chunk.samples) {
                    Ok(taken) => chunk.push(taken),
                    Err(_) => {
                        debug!(%stream, at, "what cannot be read will be a dead letter, or waits for a newer version")
                    }
                }
            }
            if chunk.samples.len() >= ENOUGH_SAMPLES || chunk.bytes >= ENOUGH_BYTES {
                written += self.rewrite(std::mem::take(&mut chunk)).await?;
            }
        }
        written += self.rewrite(chunk).await?;
        Ok(written)
    }

    /// Writes a chunk whole or, where the store refuses it, envelope by envelope: those that it refused the first time were
    /// never stored, their neighbours were.
    async fn rewrite(&self, chunk: Chunk) -> anyhow::Result<u64> {
        if let Some(written) = self.write(&chunk.samples).await? {
            return Ok(written);
        }
        let mut written = 0;
        for taken in &chunk.taken {
            written += self.write(&taken.alone(self.times)).await?.unwrap_or_default();
        }
        Ok(written)
    }

    /// None when the store refuses them.
    async fn write(&self, samples: &Samples) -> Result<Option<u64>, WriteError> {
        match self.sending.write(samples).await {
            Ok(written) => {
                self.metrics.samples_replayed.inc_by(written.samples);
                Ok(Some(written.samples))
            }
            Err(error @ WriteError::Refused { .. }) => {
                warn!(%error, "the store refuses samples that are written again");
                Ok(None)
            }
            Err(error @ WriteError::Away(_)) => Err(error),
        }
    }

    fn reader(&self) -> Reader {
        Reader::new(self.cache_bytes).believing(self.times)
    }
}

impl Chunk {
    fn push(&mut self, taken: Taken) {
        self.bytes += taken.bytes;
        self.taken.push(taken);
    }
}
