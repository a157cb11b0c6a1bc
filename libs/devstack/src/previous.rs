//! The programs of the release before this one, for the test that runs both side by side.
//!
//! `tests-e2e/previous-release` names its commit. It is built once, from that commit's files, in a folder of its own below
//! the target folder.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::build;
use crate::console::{Step, note};
use crate::interrupt::Interrupt;
use crate::process::{describe_exit, spawn_from_lasting_thread};

const NAMED_IN: &str = "tests-e2e/previous-release";
/// Stands for the commit before there is a release.
const NONE: &str = "none";

/// Where its programs lie; nothing where this clone does not have the commit, which is said aloud.
pub fn programs(root: &Path, target: &Path, interrupt: &Interrupt) -> Result<Option<PathBuf>> {
    let text = std::fs::read_to_string(root.join(NAMED_IN)).with_context(|| format!("read {NAMED_IN}"))?;
    if word_in(&text) == Some(NONE) {
        note(&format!("{:>8}  NO RELEASE COMES BEFORE THIS ONE ({NAMED_IN}): nothing is tested beside it", "SKIPPED"));
        return Ok(None);
    }
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
    let (source, built) = (folder.join("source"), folder.join("target"));
    let programs = built.join("debug");
    if folder.join("complete").exists() {
        return Ok(Some(programs));
    }
    let step = Step::begin("build", &format!("the release before, {commit}, once"));
    if !source.join("Cargo.toml").exists() {
        unpack(root, commit, &source)?;
    }
    let mut command = build::cargo(&source);
    command.args(["build", "--quiet", "--locked", "--workspace", "--bins"]).env("CARGO_TARGET_DIR", &built);
    let mut child = spawn_from_lasting_thread(command).context("start cargo")?;
    let status = build::wait(&mut child, interrupt)?;
    if !status.success() {
        bail!("cargo build of {commit} {}", describe_exit(status));
    }
    std::fs::write(folder.join("complete"), "").context("mark the build as complete")?;
    step.done("its programs are built");
    Ok(Some(programs))
}

fn commit_in(text: &str) -> Option<&str> {
    word_in(text).filter(|word| word.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// The first word of the first line that is no comment.
fn word_in(text: &str) -> Option<&str> {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'))?;
    line.split_whitespace().next()
}

fn has_commit(root: &Path, commit: &str) -> bool {
    let mut git = Command::new("git");
    git.current_dir(root).args(["cat-file", "-e", &format!("{commit}^{{commit}}")]);
    git.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn unpack(root: &Path, commit: &str, source: &Path) -> Result<()> {
    std::fs::create_dir_all(source).context("make a folder for the release before")?;
    let mut git = Command::new("git");
    let mut archive =
        git.current_dir(root).args(["archive", commit]).stdout(Stdio::piped()).spawn().context("start git archive")?;
    let files = archive.stdout.take().context("read git's archive")?;
    let unpacked = Command::new("tar").arg("-x").arg("-C").arg(source).stdin(files).status().context("start tar")?;
    let archived = archive.wait().context("wait for git archive")?;
    if !(unpacked.success() && archived.success()) {
        bail!("cannot unpack commit {commit}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::commit_in;

    #[test]
    fn the_commit_stands_on_the_first_line_that_is_no_comment() {
        assert_eq!(commit_in("# moved with each release\n\n24ce241 first public\n"), Some("24ce241"));
        assert_eq!(commit_in("# nothing\n"), None);
        assert_eq!(commit_in("--upload-pack=x\n"), None);
    }
}
