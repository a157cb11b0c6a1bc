//! Reading without acknowledgements, for one reader that keeps its own place.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use time::OffsetDateTime;

use crate::consume::{Options, Resume, endless};
use crate::delivery::Delivery;
use crate::{Bus, Stream};

/// How long the broker keeps a follower that does not ask for more.
const INACTIVE: Duration = Duration::from_secs(30);

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// With what is published from now on.
    New,
    /// With the message at this sequence, or the first after it that is still kept.
    Sequence(u64),
    /// With the first message that the broker took at this Unix time in nanoseconds or later.
    Time(u64),
}

impl Bus {
    /// Reads `stream` in order from `from`. Never ends; after a break it goes on behind the last message it gave.
    /// A jump in [`Delivery::stream_sequence`] means that the stream no longer kept what lay between.
    pub fn follow(
        &self,
        stream: Stream,
        from: From,
    ) -> impl futures::Stream<Item = Delivery> + Send + 'static {
        let name = self.layout.name(stream);
        let resume = Resume::new(move |last| (None, config(from, last)));
        endless(self.clone(), name, Options::default(), resume)
    }
}

fn config(from: From, last: Option<u64>) -> pull::Config {
    let deliver_policy = match (last, from) {
        (Some(last), _) => DeliverPolicy::ByStartSequence {
            start_sequence: last + 1,
        },
        (None, From::New) => DeliverPolicy::New,
        (None, From::Sequence(sequence)) => DeliverPolicy::ByStartSequence {
            start_sequence: sequence.max(1),
        },
        (None, From::Time(unix_nano)) => DeliverPolicy::ByStartTime {
            start_time: OffsetDateTime::from_unix_timestamp_nanos(unix_nano.into())
                .unwrap_or(OffsetDateTime::UNIX_EPOCH),
        },
    };
    pull::Config {
        ack_policy: AckPolicy::None,
        deliver_policy,
        inactive_threshold: INACTIVE,
        memory_storage: true,
        num_replicas: 1,
        ..pull::Config::default()
    }
}
