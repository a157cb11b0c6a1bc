//! Buckets in Redis: `<namespace>:auth:limit:<hash>`, a hash with `tokens`, `at` (microseconds of Redis's clock) and `refused`,
//! which is gone when the bucket is full again. Names are hashed: they hold what people typed.

use std::time::Duration;

use anyhow::Context as _;
use data_encoding::HEXLOWER;
use redis::Script;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use settings::Secret;
use sha2::{Digest as _, Sha256};

use super::{Bucket, Refused};

/// A login waits for a hash anyway; beyond this Redis counts as away.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);

/// Looks at every bucket before it takes from any. Answers 0, or how long to wait in microseconds, and whether this is the
/// first refusal.
const TAKE: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local wait, first, levels = 0, 0, {}
for i, key in ipairs(KEYS) do
    local burst, every = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
    local row = redis.call('HMGET', key, 'tokens', 'at', 'refused')
    local tokens = tonumber(row[1]) or burst
    tokens = math.min(burst, tokens + math.max(0, now - (tonumber(row[2]) or now)) / every)
    levels[i] = tokens
    if tokens < 1 then
        wait = math.max(wait, math.ceil((1 - tokens) * every))
        if not row[3] then first = 1 end
        redis.call('HSET', key, 'tokens', tokens, 'at', now, 'refused', 1)
        redis.call('PEXPIRE', key, math.ceil(burst * every / 1000) + 1000)
    end
end
if wait > 0 then return {wait, first} end
for i, key in ipairs(KEYS) do
    local burst, every = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
    redis.call('HSET', key, 'tokens', levels[i] - 1, 'at', now)
    redis.call('HDEL', key, 'refused')
    redis.call('PEXPIRE', key, math.ceil(burst * every / 1000) + 1000)
end
return {0, 0}";

const GIVE_BACK: &str = r"
for i, key in ipairs(KEYS) do
    local tokens = tonumber(redis.call('HGET', key, 'tokens'))
    if tokens then redis.call('HSET', key, 'tokens', math.min(tonumber(ARGV[2 * i - 1]), tokens + 1)) end
end
return {0, 0}";

pub(super) struct Buckets {
    connection: ConnectionManager,
    namespace: String,
    take: Script,
    give_back: Script,
}

impl Buckets {
    pub(super) fn new(url: &Secret, namespace: &str) -> anyhow::Result<Self> {
        // The library's error would show the URL, and with it the password.
        let client = redis::Client::open(url.reveal())
            .map_err(|_| anyhow::anyhow!("the Redis URL cannot be read; write redis://host:port"))?;
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(ANSWER_WITHIN))
            .set_response_timeout(Some(ANSWER_WITHIN))
            .set_number_of_retries(0);
        let connection = ConnectionManager::new_lazy_with_config(client, config).context("prepare Redis")?;
        let (take, give_back) = (Script::new(TAKE), Script::new(GIVE_BACK));
        Ok(Self { connection, namespace: namespace.to_owned(), take, give_back })
    }

    pub(super) async fn take(&self, buckets: &[Bucket]) -> anyhow::Result<Result<(), Refused>> {
        let (wait, first) = self.run(&self.take, buckets).await?;
        Ok(match wait {
            0 => Ok(()),
            wait => Err(Refused { retry_after: Duration::from_micros(wait), first: first == 1 }),
        })
    }

    pub(super) async fn give_back(&self, buckets: &[Bucket]) -> anyhow::Result<()> {
        self.run(&self.give_back, buckets).await.map(|_| ())
    }

    async fn run(&self, script: &Script, buckets: &[Bucket]) -> anyhow::Result<(u64, u64)> {
        let mut call = script.prepare_invoke();
        for bucket in buckets {
            let hash = HEXLOWER.encode(&Sha256::digest(bucket.name.as_bytes())[..16]);
            call.key(format!("{}:auth:limit:{hash}", self.namespace));
            call.arg(bucket.rate.burst).arg(u64::try_from(bucket.rate.every.as_micros()).unwrap_or(u64::MAX));
        }
        let mut connection = self.connection.clone();
        let answer = tokio::time::timeout(2 * ANSWER_WITHIN, call.invoke_async(&mut connection)).await;
        answer.context("wait for Redis")?.context("count in Redis")
    }
}
