//! The release before and this one on one database, one broker and one configuration: forwards, and back again.

use std::path::{Path, PathBuf};

use devstack::services::SERVICES;
use tests_e2e::Sightline;

use crate::books::{SENDERS, Senders, balance};
use crate::crossings::Crossings;

#[tokio::test(flavor = "multi_thread")]
async fn the_release_before_runs_beside_this_one_in_both_orders() {
    let Some(previous) = &testkit::servers().previous_bin_dir else {
        println!("NOT TESTED: tests-e2e/previous-release names no commit that this clone has");
        return;
    };
    let (previous, present) = (PathBuf::from(previous), PathBuf::from(&testkit::servers().bin_dir));
    let mut sightline = Sightline::prepare(&[]).await;
    for service in &SERVICES {
        sightline.add_service(service.name);
        sightline.install(service.name, &previous);
        sightline.spawn(service.name);
    }
    sightline.wait_all_ready().await;
    let admin = sightline.admin().await;
    let gateways = [sightline.http("ingest-gateway")];
    let senders = Senders::through(&sightline, &gateways);
    let crossings = Crossings::start(&sightline, &admin, "upgrade", &gateways).await;
    for release in [&present, &previous] {
        for service in &SERVICES {
            let before = senders.sent();
            replace(&mut sightline, service.name, release, &crossings).await;
            senders.flow(before, SENDERS).await;
        }
    }
    crossings.judge(&sightline).await;
    balance(&sightline, &admin, senders).await;
}

/// As a rolling update does it: one of the new release beside the old one, which then goes.
async fn replace(sightline: &mut Sightline, service: &'static str, release: &Path, crossings: &Crossings) {
    let second = sightline.add_second(service);
    sightline.install(&second, release);
    sightline.spawn(&second);
    sightline.wait_ready(&second).await;
    crossings.go_on(2).await;
    let stopped = sightline.stop(service);
    assert!(stopped.is_clean(), "{service}: {stopped:?}\n{}", sightline.tail(service));
    sightline.install(service, release);
    sightline.spawn(service);
    sightline.wait_ready(service).await;
    let stopped = sightline.stop(&second);
    assert!(stopped.is_clean(), "{second}: {stopped:?}\n{}", sightline.tail(&second));
}
