//! How connections end: too many, too slow, too old, refused, and with the process.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{PATIENCE, Port};

/// Far more than the operating system holds for one connection.
const LARGE: usize = 24 << 20;

#[tokio::test]
async fn a_client_that_is_still_sending_learns_why_it_was_refused() {
    let port = Port::open(&[]).await;
    for _ in 0..5 {
        let mut client = port.connect().await;
        client.write(format!("POST /refuse HTTP/1.1\r\nhost: x\r\ncontent-length: {LARGE}\r\n\r\n").as_bytes()).await;
        // All of it is taken, though nobody wants it.
        client.write(&vec![b'x'; LARGE]).await;
        let answer = client.rest().await;
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    }
}

#[tokio::test]
async fn a_client_that_never_stops_sending_is_cut_off() {
    let port = Port::open(&["--linger-bytes", "64KiB"]).await;
    let mut client = port.connect().await;
    client.write(b"POST /refuse HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\n\r\n").await;
    let endless = async { while client.0.write_all(&[b'x'; 64 << 10]).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, endless).await.expect("the server resets the connection");
}

#[tokio::test]
async fn headers_that_trickle_and_bodies_that_pause_are_not_waited_for() {
    let port = Port::open(&["--headers-within", "1s", "--body-pause", "1s"]).await;
    let (mut slow, mut pausing) = (port.connect().await, port.connect().await);
    slow.write(b"GET /who HTTP/1.1\r\nho").await;
    pausing.write(b"POST /read HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nabc").await;
    assert!(pausing.until("stalled").await.starts_with("HTTP/1.1 200"));
    slow.rest().await;
    let mut good = port.connect().await;
    good.write(b"POST /read HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc").await;
    good.until("\r\n\r\n3").await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_of_its_answer_is_not_waited_for() {
    let port = Port::open(&["--answer-pause", "1s"]).await;
    let (mut deaf, mut slow) = (port.connect().await, port.connect().await);
    for client in [&mut deaf, &mut slow] {
        client.write(b"GET /large HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    }
    // Who reads some now and then gets all of it.
    let mut some = vec![0; 4 << 20];
    for _ in 0..6 {
        slow.0.read_exact(&mut some).await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert!(slow.rest().await.len() > 30 << 20);
    port.until_metric("sightline_edge_ended_total{port=\"http\",why=\"error\"}", 1).await;
    drop(deaf);
}

#[tokio::test]
async fn one_connection_too_many_is_closed_and_leaves_room_when_another_ends() {
    let port = Port::open(&["--connections", "1"]).await;
    let mut first = port.connect().await;
    first.write(b"GET /who HTTP/1.1\r\nhost: x\r\n\r\n").await;
    first.until("127.0.0.1").await;
    assert_eq!(port.connect().await.rest().await, "");
    assert_eq!(port.metric("sightline_edge_opened_total{port=\"http\",how=\"too_many\"}"), 1);
    drop(first);
    port.until_metric("sightline_edge_connections{port=\"http\"}", 0).await;
    let mut next = port.connect().await;
    next.write(b"GET /who HTTP/1.1\r\nhost: x\r\n\r\n").await;
    next.until("127.0.0.1").await;
}

#[tokio::test]
async fn an_old_connection_is_told_to_end_unless_something_on_it_has_to_last() {
    let port = Port::open(&["--connection-max-age", "1s"]).await;
    let (mut lasting, mut idle) = (port.connect().await, port.connect().await);
    lasting.write(b"GET /lasting HTTP/1.1\r\nhost: x\r\n\r\n").await;
    lasting.until("begin").await;
    idle.write(b"GET /who HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(idle.rest().await.contains("127.0.0.1"));
    port.until_metric("sightline_edge_ended_total{port=\"http\",why=\"aged\"}", 1).await;
    // Several lives of the other one later.
    for _ in 0..3 {
        let mut next = port.connect().await;
        next.write(b"GET /who HTTP/1.1\r\nhost: x\r\n\r\n").await;
        next.rest().await;
    }
    assert_eq!(port.metric("sightline_edge_connections{port=\"http\"}"), 1, "the lasting one is open");
    drop(lasting);
    port.until_metric("sightline_edge_connections{port=\"http\"}", 0).await;
}

#[tokio::test]
async fn a_stop_ends_what_is_idle_at_once_and_what_hangs_in_time() {
    let port = Port::open(&[]).await;
    let (mut idle, mut hanging) = (port.connect().await, port.connect().await);
    idle.write(b"GET /who HTTP/1.1\r\nhost: x\r\n\r\n").await;
    idle.until("127.0.0.1").await;
    hanging.write(b"GET /ageing HTTP/1.1\r\nhost: x\r\n\r\n").await;
    hanging.until("begin").await;
    tokio::time::timeout(Duration::from_secs(20), port.process.clone().stop()).await.expect("a stop ends");
    assert_eq!(port.metric("sightline_edge_ended_total{port=\"http\",why=\"stopped\"}"), 1);
    assert_eq!(port.metric("sightline_edge_ended_total{port=\"http\",why=\"cut_off\"}"), 1);
    idle.rest().await;
}
