//! The programs of the release before this one, for the test that runs both side by side.
//!
//! `tests-e2e/previous-release` names its commit. It is built once, from that commit's files, with the dependencies that this
//! release has built already, and its programs are kept in a folder of their own below the target folder.
//!
//! Cargo tells crates of two workspaces in one target folder apart by name, version and place below the workspace's root. Those
//! of the release before are therefore given a version of their own: with the same one, cargo takes either for the other.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::build;
use crate::console::{Step, note};
use crate::interrupt::Interrupt;
use crate::process::{describe_exit, spawn_from_lasting_thread};
use crate::services::SERVICES;

const NAMED_IN: &str = "tests-e2e/previous-release";

/// What the crates of the release before are built as.
const ITS_VERSION: &str = "0.0.0-previous";

/// Where its programs lie; nothing where this clone does not have the commit, which is said aloud.
pub fn programs(root: &Path, target: &Path, interrupt: &Interrupt) -> Result<Option<PathBuf>> {
    let text = std::fs::read_to_string(root.join(NAMED_IN)).with_context(|| format!("read {NAMED_IN}"))?;
    let Some(commit) = commit_in(&text) else { bail!("{NAMED_IN} names no commit") };
    if !has_commit(root, commit) {
        note(&format!(
            "{:>8}  THIS CLONE LACKS COMMIT {commit}, the release before: nothing is tested beside it. \
             Fetch the whole history to test upgrades",
            "SKIPPED"
        ));
        return Ok(None);
    }
    let folder = target.join("previous").join(commit);
    let (source, programs) = (folder.join("source"), folder.join("bin"));
    if programs.exists() {
        return Ok(Some(programs));
    }
    let step = Step::begin("build", &format!("the release before, {commit}, once"));
    if !source.exists() {
        unpack(root, commit, &source)?;
    }
    // Not `--locked`: the lock file still has its crates under the version that they had.
    let mut command = build::cargo(&source);
    command.args(["build", "--quiet", "--workspace", "--bins"]).env("CARGO_TARGET_DIR", target);
    let mut child = spawn_from_lasting_thread(command).context("start cargo")?;
    let status = build::wait(&mut child, interrupt)?;
    if !status.success() {
        bail!("cargo build of {commit} {}", describe_exit(status));
    }
    keep(&target.join("debug"), &programs)?;
    step.done("its programs are built");
    Ok(Some(programs))
}

/// Copies the services out of `built`, where those of this release will stand again after its next build.
fn keep(built: &Path, programs: &Path) -> Result<()> {
    let copying = programs.with_extension("incomplete");
    std::fs::create_dir_all(&copying).context("make a folder for the programs before")?;
    for service in &SERVICES {
        std::fs::copy(built.join(service.name), copying.join(service.name))
            .with_context(|| format!("keep {} of the release before", service.name))?;
    }
    std::fs::rename(&copying, programs).context("keep the programs of the release before")
}

/// The first word of the first line that is no comment.
fn commit_in(text: &str) -> Option<&str> {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'))?;
    line.split_whitespace().next().filter(|word| word.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn has_commit(root: &Path, commit: &str) -> bool {
    let mut git = Command::new("git");
    git.current_dir(root).args(["cat-file", "-e", &format!("{commit}^{{commit}}")]);
    git.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn unpack(root: &Path, commit: &str, source: &Path) -> Result<()> {
    let unpacking = source.with_extension("incomplete");
    std::fs::create_dir_all(&unpacking).context("make a folder for the release before")?;
    let mut git = Command::new("git");
    let mut archive =
        git.current_dir(root).args(["archive", commit]).stdout(Stdio::piped()).spawn().context("start git archive")?;
    let files = archive.stdout.take().context("read git's archive")?;
    let unpacked =
        Command::new("tar").arg("-x").arg("-C").arg(&unpacking).stdin(files).status().context("start tar")?;
    let archived = archive.wait().context("wait for git archive")?;
    if !(unpacked.success() && archived.success()) {
        bail!("cannot unpack commit {commit}");
    }
    let manifest = unpacking.join("Cargo.toml");
    let text = std::fs::read_to_string(&manifest).context("read the manifest of the release before")?;
    let Some(text) = with_its_version(&text) else { bail!("{}: no line gives a version", manifest.display()) };
    std::fs::write(&manifest, text).context("write the manifest of the release before")?;
    std::fs::rename(&unpacking, source).context("keep the files of the release before")
}

/// The manifest of a workspace with [`ITS_VERSION`] as the version of all its crates.
fn with_its_version(manifest: &str) -> Option<String> {
    let line = manifest.lines().find(|line| line.starts_with("version = "))?;
    Some(manifest.replacen(line, &format!("version = \"{ITS_VERSION}\""), 1))
}

#[cfg(test)]
mod tests {
    use super::{commit_in, with_its_version};

    #[test]
    fn the_crates_of_the_release_before_get_a_version_of_their_own() {
        let manifest = "[workspace.package]\nversion = \"0.1.0\"\n\n[workspace.dependencies]\ntar = \"0.1.0\"\n";
        let expected =
            "[workspace.package]\nversion = \"0.0.0-previous\"\n\n[workspace.dependencies]\ntar = \"0.1.0\"\n";
        assert_eq!(with_its_version(manifest).as_deref(), Some(expected));
        assert_eq!(with_its_version("[workspace]\n"), None);
    }

    #[test]
    fn the_commit_stands_on_the_first_line_that_is_no_comment() {
        assert_eq!(commit_in("# moved with each release\n\n24ce241 first public\n"), Some("24ce241"));
        assert_eq!(commit_in("# nothing\n"), None);
        assert_eq!(commit_in("--upload-pack=x\n"), None);
    }
}
