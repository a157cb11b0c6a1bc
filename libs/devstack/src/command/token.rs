//! `cargo dev token`: logs in as the development administrator and prints the access token, nothing else.

use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::console::result;
use crate::session;
use crate::state::{Lock, Picture};
use crate::workspace::Workspace;

pub fn run() -> Result<ExitCode> {
    let state = Workspace::find()?.state();
    let picture = Lock::holder(&state).and_then(|_| Picture::load(&state));
    let api = picture.context("log in: nothing runs, start it with `cargo dev up`")?.api;
    result(&session::login(&api, &state.join("admin-password"))?);
    Ok(ExitCode::SUCCESS)
}
