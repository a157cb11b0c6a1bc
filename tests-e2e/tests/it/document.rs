//! The API does what its document says: Schemathesis makes requests from `/openapi.json`, good and bad ones, and compares
//! every answer with it.

use std::path::{Path, PathBuf};
use std::process::Command;

use tests_e2e::Sightline;

/// Requests that are made for each operation and phase.
const EXAMPLES: &str = "40";

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_one_that_the_document_describes() {
    let Some(program) = schemathesis() else {
        println!(
            "NOT TESTED: target/schemathesis is missing; \
             `python3 -m venv target/schemathesis && target/schemathesis/bin/pip install schemathesis==4.32.5` makes it"
        );
        return;
    };
    let sightline = Sightline::start(&[]).await;
    let admin = sightline.admin().await;
    let authorization = format!("Authorization: Bearer {}", admin.token());
    let document = format!("{}/openapi.json", sightline.http("api-gateway"));
    let folder = tempfile::tempdir().unwrap();
    let run = tokio::task::spawn_blocking(move || {
        let mut command = Command::new(program);
        let settings = concat!(env!("CARGO_MANIFEST_DIR"), "/schemathesis.toml");
        command.current_dir(folder.path()).args(["--no-color", "--config-file", settings]);
        command.args(["run", &document, "--header", &authorization]);
        command.args(["--checks", "all", "--max-examples", EXAMPLES, "--seed", "1", "--continue-on-failure"]);
        command.args(["--request-timeout", "20", "--suppress-health-check", "all", "--no-shrink"]);
        command.output().unwrap()
    });
    let output = run.await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "the API and its document differ: see above");
}

/// In the target folder, where `.ci/run` puts it.
fn schemathesis() -> Option<PathBuf> {
    let programs = Path::new(&testkit::servers().bin_dir);
    let program = programs.parent()?.join("schemathesis/bin/schemathesis");
    program.exists().then_some(program)
}
