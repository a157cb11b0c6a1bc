//! Where the broker is, and how big and how safe the streams on it are.

use std::time::Duration;

use settings::Secret;

/// How long the broker is told that messages are in work. Whoever hangs for longer keeps them from other replicas no more.
pub(crate) const IN_WORK_AT_MOST: Duration = Duration::from_secs(300);

/// The broker and the streams; every service of one installation must be told the same.
#[derive(clap::Args, Debug, Clone)]
#[group(skip)]
pub struct Settings {
    /// NATS servers, comma separated, for example `nats://user:password@10.0.0.1:4222,nats://10.0.0.2:4222`
    #[arg(long, env = "SIGHTLINE_NATS_URL", default_value = "nats://127.0.0.1:4222")]
    pub nats_url: Secret,
    /// Prefix of every stream, subject, consumer and Redis key, so that installations can share servers
    #[arg(long, env = "SIGHTLINE_NAMESPACE", default_value = "sl", value_parser = namespace)]
    pub namespace: String,
    /// Number of streams for each of metrics, logs and processes; fixed when the installation is made, because a
    /// resource's shard is its hash modulo this
    #[arg(long, env = "SIGHTLINE_SHARDS", default_value = "2", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub shards: u16,
    /// Bytes that each stream may keep on disk; new data is refused when 70% of it is not yet stored. A stream that is there
    /// is only made larger
    #[arg(long, env = "SIGHTLINE_STREAM_MAX_BYTES", default_value = "1GiB", value_parser = room)]
    pub stream_max_bytes: u64,
    /// Bytes of dead letters that are kept; when there is no room for more, their originals stay where they are
    #[arg(long, env = "SIGHTLINE_DEAD_MAX_BYTES", default_value = "256MiB", value_parser = room)]
    pub dead_max_bytes: u64,
    /// How long messages are held while their store is away, before other replicas may try them
    #[arg(long, env = "SIGHTLINE_HOLD_LIMIT", default_value = "2m", value_parser = hold)]
    pub hold_limit: Duration,
    /// Servers that hold a copy of each stream: 1, 3 or 5
    #[arg(long, env = "SIGHTLINE_STREAM_REPLICAS", default_value = "1", value_parser = replicas)]
    pub stream_replicas: usize,
}

/// What may be part of a stream's name and of a subject: lower case letters, digits and `-`.
fn namespace(text: &str) -> Result<String, String> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if text.is_empty() || text.len() > 32 || !text.chars().all(good) {
        return Err("write 1 to 32 lower case letters, digits or `-`".to_owned());
    }
    Ok(text.to_owned())
}

/// With less, a stream would be full of a few messages; and to NATS, 0 is without limit.
const LEAST_ROOM: u64 = 16 << 20;

fn room(text: &str) -> Result<u64, String> {
    let bytes = settings::bytes(text)?;
    if bytes < LEAST_ROOM || i64::try_from(bytes).is_err() {
        return Err("write 16MiB or more".to_owned());
    }
    Ok(bytes)
}

fn hold(text: &str) -> Result<Duration, String> {
    let time = settings::duration(text)?;
    if time > IN_WORK_AT_MOST {
        return Err("write 5m at most: the broker hears for so long that messages are in work".to_owned());
    }
    Ok(time)
}

fn replicas(text: &str) -> Result<usize, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        "5" => Ok(5),
        _ => Err("write 1, 3 or 5".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::{hold, namespace, room};

    #[test]
    fn a_stream_has_room_and_a_hold_has_an_end() {
        assert_eq!((room("16MiB"), hold("5m")), (Ok(16 << 20), Ok(std::time::Duration::from_secs(300))));
        for (bad, time) in [("0", "301s"), ("15MiB", "1h"), ("18446744073709551615", "x")] {
            assert!(room(bad).is_err() && hold(time).is_err(), "{bad} {time}");
        }
    }

    #[test]
    fn a_namespace_cannot_break_out_of_a_subject() {
        assert!(namespace("sl").is_ok() && namespace("t-4f2a").is_ok());
        for bad in ["", "a.b", "a>", "A", "a b", "*"] {
            assert!(namespace(bad).is_err(), "{bad}");
        }
    }
}
