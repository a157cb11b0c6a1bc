//! The list of settings that some program knows is the list that programs know, and what no program knows is said.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use devstack::services;
use tests_e2e::Sightline;

#[test]
fn every_known_setting_is_some_program_s_and_the_other_way_round() {
    let programs = Path::new(&testkit::servers().bin_dir);
    let mut known = BTreeSet::new();
    for service in services::all() {
        let output = Command::new(programs.join(service.name)).arg("--print-variables").env_clear().output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let names: Vec<&str> = text.lines().filter(|line| line.starts_with("SIGHTLINE_")).collect();
        assert!(!names.is_empty(), "{} prints no variables: {}", service.name, String::from_utf8_lossy(&output.stderr));
        known.extend(names.into_iter().map(str::to_owned));
    }
    let listed: BTreeSet<String> =
        include_str!("../../../libs/settings/src/names.txt").lines().map(str::to_owned).collect();
    let missing: Vec<_> = known.difference(&listed).collect();
    let stale: Vec<_> = listed.difference(&known).collect();
    assert!(missing.is_empty() && stale.is_empty(), "libs/settings/src/names.txt lacks {missing:?} and has {stale:?}");
}

#[test]
fn every_program_explains_itself_and_its_check_refuses_a_misspelt_setting() {
    let programs = Path::new(&testkit::servers().bin_dir);
    for service in services::all() {
        let help = Command::new(programs.join(service.name)).arg("--help").env_clear().output().unwrap();
        assert!(help.status.success(), "{} --help fails", service.name);
        let misspelt = Command::new(programs.join(service.name))
            .arg("--check-config")
            .env_clear()
            .env("SIGHTLINE_NATS_URI", "x")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&misspelt.stderr).into_owned();
        assert!(!misspelt.status.success() && said.contains("SIGHTLINE_NATS_URL"), "{}: {said}", service.name);
    }
}

#[tokio::test]
async fn a_program_with_a_setting_that_it_does_not_know_runs_and_says_so() {
    let mut sightline = Sightline::prepare(&[("SIGHTLINE_NATS_URI", "nats://127.0.0.1:4222")]).await;
    sightline.spawn("auth");
    sightline.wait_ready("auth").await;
    assert_eq!(sightline.metric("auth", "sightline_settings_unknown").await, Some(1.0));
    let said = sightline.tail("auth");
    assert!(said.contains("SIGHTLINE_NATS_URI") && said.contains("it has no effect"), "{said}");
}
