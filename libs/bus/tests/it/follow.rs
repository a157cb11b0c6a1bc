//! Reading along.

use bus::{From, Stream, Subject};

use crate::support::{connect, name, next_followed, operator, send, text};

#[tokio::test]
async fn from_now_on_means_from_the_call_on() {
    let (bus, _process) = connect().await;
    send(&bus, Subject::Metrics(0), ["before"]).await;
    let mut follow = bus.follow(Stream::Metrics(0), From::New).await;
    send(&bus, Subject::Metrics(0), ["after"]).await;
    let first = next_followed(&mut follow).await;
    assert_eq!((text(&first).as_str(), first.stream_sequence(), first.missed()), ("after", 2, 0));
}

#[tokio::test]
async fn it_begins_where_it_is_told() {
    let (bus, _process) = connect().await;
    send(&bus, Subject::Logs(0), ["a", "b", "c"]).await;
    let mut follow = bus.follow(Stream::Logs(0), From::Sequence(2)).await;
    let b = next_followed(&mut follow).await;
    assert_eq!(text(&b), "b");
    let place = From::After { sequence: b.stream_sequence(), published: b.published() };
    assert_eq!(text(&next_followed(&mut bus.follow(Stream::Logs(0), place).await).await), "c");
    let time = From::Time(b.published());
    assert_eq!(text(&next_followed(&mut bus.follow(Stream::Logs(0), time).await).await), "b");
}

#[tokio::test]
async fn what_was_evicted_before_it_was_read_is_counted() {
    let (bus, _process) = connect().await;
    send(&bus, Subject::Logs(0), ["a", "b", "c", "d"]).await;
    let first = next_followed(&mut bus.follow(Stream::Logs(0), From::Sequence(1)).await).await;
    let stream = operator(bus.settings()).await.get_stream(name(&bus, Stream::Logs(0))).await.unwrap();
    stream.purge().sequence(4).await.unwrap();
    let place = From::After { sequence: first.stream_sequence(), published: first.published() };
    let d = next_followed(&mut bus.follow(Stream::Logs(0), place).await).await;
    assert_eq!((text(&d).as_str(), d.missed()), ("d", 2));
}

#[tokio::test]
async fn a_stream_that_begins_anew_is_read_from_its_beginning() {
    let (bus, _process) = connect().await;
    send(&bus, Subject::Events, ["a", "b"]).await;
    let mut follow = bus.follow(Stream::Events, From::Sequence(1)).await;
    next_followed(&mut follow).await;
    let b = next_followed(&mut follow).await;
    let place = From::After { sequence: b.stream_sequence(), published: b.published() };
    drop(follow);
    // As after a power cut that cost the end of the stream, and with it the numbers.
    let stream = operator(bus.settings()).await;
    let config = stream.get_stream(name(&bus, Stream::Events)).await.unwrap().cached_info().config.clone();
    stream.delete_stream(&config.name).await.unwrap();
    stream.create_stream(config).await.unwrap();
    send(&bus, Subject::Events, ["c", "d", "e"]).await;
    let mut follow = bus.follow(Stream::Events, place).await;
    let texts = [next_followed(&mut follow).await, next_followed(&mut follow).await].map(|d| text(&d));
    assert_eq!(texts, ["c", "d"]);
}

#[tokio::test]
async fn a_place_whose_message_was_deleted_by_hand_is_followed_by_the_next() {
    let (bus, _process) = connect().await;
    send(&bus, Subject::Logs(0), ["a", "b", "c"]).await;
    let mut follow = bus.follow(Stream::Logs(0), From::Sequence(2)).await;
    let b = next_followed(&mut follow).await;
    operator(bus.settings())
        .await
        .get_stream(name(&bus, Stream::Logs(0)))
        .await
        .unwrap()
        .delete_message(2)
        .await
        .unwrap();
    let place = From::After { sequence: 2, published: b.published() };
    assert_eq!(text(&next_followed(&mut bus.follow(Stream::Logs(0), place).await).await), "c");
}
