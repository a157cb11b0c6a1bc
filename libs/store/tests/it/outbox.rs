//! Messages on their way out: in order by key, and nobody held up by somebody else's.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lifecycle::Process;
use settings::Secret;
use store::outbox::{self, Event, Failure, Message, Outbox};
use store::{Migrations, Pools};
use testkit::{Gate, eventually};
use tokio::sync::Notify;

const PATIENCE: Duration = Duration::from_secs(20);

/// What was published, by key, and what was counted.
#[derive(Clone, Default)]
struct Heard {
    messages: Arc<Mutex<BTreeMap<String, Vec<String>>>>,
    events: Arc<Mutex<Vec<Event>>>,
}

impl Heard {
    fn of(&self, key: &str) -> Vec<String> {
        self.messages.lock().unwrap().get(key).cloned().unwrap_or_default()
    }

    fn count(&self) -> usize {
        self.messages.lock().unwrap().values().map(Vec::len).sum()
    }

    async fn until(&self, least: usize) {
        eventually("messages", PATIENCE, async || match self.count() {
            heard if heard >= least => Ok(()),
            heard => Err(format!("{heard} of {least}")),
        })
        .await;
    }
}

async fn pools(process: &Process, database: &store::Settings) -> Pools {
    store::open(process, database, "kept", Migrations(&[])).await.unwrap()
}

/// A replica; `publish` says what becomes of a message, which takes `time`.
fn replica(
    process: &Process,
    pools: &Pools,
    heard: &Heard,
    time: Duration,
    publish: fn(&Message) -> Result<(), Failure>,
) -> Arc<Notify> {
    let wake = Arc::new(Notify::new());
    let (said, counted) = (heard.clone(), heard.clone());
    let publish = move |message: Message| {
        let said = said.clone();
        async move {
            tokio::time::sleep(time).await;
            publish(&message)?;
            said.messages.lock().unwrap().entry(message.key).or_default().push(message.id);
            Ok(())
        }
    };
    let count = move |event| counted.events.lock().unwrap().push(event);
    let outbox = Outbox { pools: pools.clone(), wake: Arc::clone(&wake) };
    process.spawn("outbox", outbox.run(process.stopping(), publish, count));
    wake
}

fn message(key: &str, number: usize) -> Message {
    Message { id: format!("{key}-{number:04}"), topic: "t".into(), key: key.into(), ..Message::default() }
}

async fn put(pools: &Pools, messages: &[Message]) {
    let mut transaction = pools.work.begin().await.unwrap();
    outbox::put(&mut transaction, messages).await.unwrap();
    transaction.commit().await.unwrap();
}

#[tokio::test]
async fn two_replicas_of_which_one_is_slow_publish_each_key_in_order() {
    let (process, database, heard) = (Process::for_test(), testkit::database().await, Heard::default());
    let (one, other) = (pools(&process, &database).await, pools(&process, &database).await);
    let quick = replica(&process, &one, &heard, Duration::ZERO, |_| Ok(()));
    let slow = replica(&process, &other, &heard, Duration::from_millis(15), |_| Ok(()));
    for number in 0..40 {
        let messages: Vec<Message> = ["a", "b", "c", "d", "e"].iter().map(|key| message(key, number)).collect();
        put(&one, &messages).await;
        if number % 2 == 0 { quick.notify_one() } else { slow.notify_one() }
    }
    heard.until(200).await;
    for key in ["a", "b", "c", "d", "e"] {
        let ids = heard.of(key);
        assert!(ids.is_sorted() && ids.len() == 40, "{ids:?}");
    }
    process.stop().await;
}

#[tokio::test]
async fn a_burst_goes_as_fast_as_ever_though_postgres_knew_the_outbox_as_empty() {
    let (process, database, heard) = (Process::for_test(), testkit::database().await, Heard::default());
    let pools = pools(&process, &database).await;
    put(&pools, &[message("known", 0)]).await;
    sqlx::query("analyze outgoing").execute(&pools.work).await.unwrap();
    let wake = replica(&process, &pools, &heard, Duration::ZERO, |_| Ok(()));
    // After some executions Postgres keeps a plan, on each connection.
    for number in 1..=60 {
        put(&pools, &[message("known", number)]).await;
        wake.notify_one();
        heard.until(number + 1).await;
    }
    let burst: Vec<Message> = (0..10_000).map(|number| message(&format!("burst-{number}"), 0)).collect();
    put(&pools, &burst).await;
    wake.notify_one();
    heard.until(61 + burst.len()).await;
    process.stop().await;
}

#[tokio::test]
async fn what_is_refused_is_set_aside_with_its_reason_and_what_fails_holds_up_its_own_key_alone() {
    let (process, database, heard) = (Process::for_test(), testkit::database().await, Heard::default());
    let pools = pools(&process, &database).await;
    // More of both than a round has places.
    let mut messages: Vec<Message> = (0..100).map(|n| message(&format!("refused{n}"), 0)).collect();
    messages.extend((0..100).map(|n| message(&format!("stuck{n}"), 0)));
    messages.extend([message("refused0", 1), message("stuck0", 1), message("good", 0)]);
    put(&pools, &messages).await;
    let wake = replica(&process, &pools, &heard, Duration::ZERO, |message| match message.id.as_str() {
        id if id.starts_with("refused") && id.ends_with("0000") => Err(Failure::Never("too large".into())),
        id if id.starts_with("stuck") => Err(Failure::Later("no room".into())),
        _ => Ok(()),
    });
    wake.notify_one();
    heard.until(2).await;
    assert_eq!((heard.of("good"), heard.of("refused0")), (vec!["good-0000".into()], vec!["refused0-0001".into()]));
    let dead = "select count(*) from outgoing where dead_at is not null and reason = 'too large'";
    assert_eq!(sqlx::query_scalar::<_, i64>(dead).fetch_one(&pools.work).await.unwrap(), 100);
    let waiting = "select count(*) from outgoing where dead_at is null";
    assert_eq!(sqlx::query_scalar::<_, i64>(waiting).fetch_one(&pools.work).await.unwrap(), 101);
    assert_eq!(heard.events.lock().unwrap().iter().filter(|event| **event == Event::Dead("t".into())).count(), 100);
    assert_eq!(outbox::prune(&pools.work, Duration::ZERO).await.unwrap(), 100);
    process.stop().await;
}

#[tokio::test]
async fn a_message_that_was_put_there_twice_is_published_once_and_what_was_rolled_back_never() {
    let (process, database, heard) = (Process::for_test(), testkit::database().await, Heard::default());
    let pools = pools(&process, &database).await;
    let mut undone = pools.work.begin().await.unwrap();
    outbox::put(&mut undone, &[message("undone", 0)]).await.unwrap();
    undone.rollback().await.unwrap();
    put(&pools, &[message("a", 0), message("b", 0)]).await;
    put(&pools, &[message("a", 0), message("a", 1)]).await;
    replica(&process, &pools, &heard, Duration::ZERO, |_| Ok(()));
    heard.until(3).await;
    assert_eq!((heard.of("a"), heard.count()), (vec!["a-0000".into(), "a-0001".into()], 3));
    process.stop().await;
}

#[tokio::test]
async fn a_topic_that_nobody_takes_holds_up_no_other_however_much_of_it_waits() {
    let (process, database, heard) = (Process::for_test(), testkit::database().await, Heard::default());
    let pools = pools(&process, &database).await;
    let of_tomorrow = |number| Message { topic: "tomorrow".into(), ..message(&format!("stuck{number}"), 0) };
    put(&pools, &(0..300).map(of_tomorrow).collect::<Vec<_>>()).await;
    // As when a stream has no room: each try takes its time.
    let wake = replica(&process, &pools, &heard, Duration::from_millis(500), |message| match &*message.topic {
        "tomorrow" => Err(Failure::Later("no room".into())),
        _ => Ok(()),
    });
    for number in 0..3 {
        put(&pools, &[message("page", number)]).await;
        wake.notify_one();
        heard.until(number + 1).await;
    }
    process.stop().await;
}

#[tokio::test]
async fn a_round_goes_on_while_postgres_leaves_the_search_for_more_unanswered() {
    let (process, mut database, heard) = (Process::for_test(), testkit::database().await, Heard::default());
    let gate = Gate::before(database.database_url.reveal()).await;
    database.database_url = Secret::from(gate.url().to_owned());
    let pools = pools(&process, &database).await;
    // Together they take longer than it takes until is looked for more.
    let messages: Vec<Message> = (0..20).map(|number| message("k", number)).collect();
    put(&pools, &messages).await;
    replica(&process, &pools, &heard, outbox::SWEEP / 10, |_| Ok(()));
    heard.until(1).await;
    gate.freeze();
    heard.until(messages.len()).await;
    gate.open();
    process.stop().await;
}
