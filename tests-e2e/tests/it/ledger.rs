//! Everything that was acknowledged is stored exactly once, whatever is killed meanwhile.
//!
//! The test judges itself: a run in which less than 90% of the plan was accepted, or in which a kill did not happen,
//! proves nothing and fails; with the batch check off the same senders must produce duplicates that the same books
//! show, and with the log-writer stopped a loss.

use devstack::services::SERVICES;
use tests_e2e::Sightline;

use crate::books::{REPEATED, SENDERS, Senders, balance, judge_lines, judge_table, settle};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_is_stored_once_while_every_service_is_killed() {
    let mut sightline = Sightline::start(&[]).await;
    let senders = Senders::start(&sightline);
    for service in &SERVICES {
        let before = senders.sent();
        let pid = sightline.pid(service.name);
        let end = sightline.kill(service.name);
        assert_eq!(end, "killed by signal 9", "{} was not killed", service.name);
        sightline.spawn(service.name);
        sightline.wait_ready(service.name).await;
        assert_ne!(sightline.pid(service.name), pid);
        senders.flow(before, 2 * SENDERS).await;
    }
    let admin = sightline.admin().await;
    balance(&sightline, &admin, senders).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_sees_duplicates_when_the_batch_check_is_off() {
    let mut sightline = Sightline::start(&[("SIGHTLINE_LOG_WRITER_BATCH_CHECK", "false")]).await;
    let senders = Senders::start(&sightline);
    sightline.kill("log-writer");
    sightline.spawn("log-writer");
    sightline.wait_ready("log-writer").await;
    senders.flow(0, 2 * SENDERS * REPEATED).await;
    let promised = senders.finish().await;
    let admin = sightline.admin().await;
    settle(&admin).await;
    let lines = judge_lines(&admin, &promised).await;
    assert_eq!(lines.lost, 0);
    assert!(lines.duplicated > 0, "the ledger would not notice a duplicate");
    assert!(judge_table(&sightline, &promised).await.duplicated > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_sees_a_loss_when_the_log_writer_is_stopped() {
    let mut sightline = Sightline::start(&[]).await;
    let senders = Senders::start(&sightline);
    senders.flow(0, 2 * SENDERS).await;
    let stopped = sightline.stop("log-writer");
    assert!(stopped.is_clean(), "{stopped:?}");
    senders.flow(senders.sent(), 2 * SENDERS).await;
    let lines = judge_table(&sightline, &senders.finish().await).await;
    assert!(lines.lost > 0, "the ledger would not notice a loss");
}
