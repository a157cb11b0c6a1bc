//! The binary: its id command, its configuration check, its reaction to signals.

use std::process::Command;

use crate::support::{Gateway, Home, eventually};

fn agent() -> Command {
    Command::new(env!("CARGO_BIN_EXE_agent"))
}

#[test]
fn the_id_command_prints_the_same_id_each_time() {
    let home = Home::new();
    let print = || {
        let output = agent().args(["id", "--state-dir"]).arg(home.path("state")).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let id = print();
    assert_eq!(id.trim().len(), 36);
    assert_eq!(print(), id);
}

#[test]
fn a_configuration_that_cannot_work_is_refused_with_a_reason() {
    let output =
        agent().args(["--check-config", "--endpoint", "http://gateway:4317", "--ca-file", "/ca.pem"]).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8(output.stderr).unwrap().contains("SIGHTLINE_AGENT_CA_FILE"));
}

#[tokio::test]
async fn sigterm_flushes_what_was_just_written_and_ends_soon() {
    let (gateway, home) = (Gateway::start().await, Home::new());
    let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_agent"))
        .args(home.arguments(&format!("http://{}", gateway.address)))
        .stdout(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    gateway.until(2, |record| record.streams_open).await;
    home.append(["last words"]);
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let ended = tokio::time::timeout(std::time::Duration::from_secs(20), child.wait()).await;
    assert!(ended.expect("the agent did not end").unwrap().success());
    assert_eq!(gateway.record.lock().unwrap().stored(), ["last words"]);
}

#[tokio::test]
async fn a_gateway_that_takes_connections_and_never_answers_holds_no_stop_up() {
    let home = Home::new();
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_agent"))
        .args(home.arguments(&format!("http://{}", silent.local_addr().unwrap())))
        // Whoever does not end by himself would have this long.
        .args(["--shutdown-deadline", "10m", "--flush-time", "100ms"])
        .stdout(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let _connection = silent.accept().await.unwrap();
    home.append(["kept"]);
    eventually(|| home.spooled() == 1).await;
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let ended = tokio::time::timeout(std::time::Duration::from_secs(30), child.wait()).await;
    assert!(ended.expect("the agent did not end").unwrap().success());
    assert_eq!(home.spooled(), 1);
}
