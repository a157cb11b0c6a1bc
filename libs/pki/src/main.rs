//! `devcerts`: keeps a folder of development certificates up to date.

use std::path::PathBuf;

use anyhow::{Context, Result};
use pki::Request;

fn main() -> Result<()> {
    let (folder, requests) = arguments()?;
    pki::ensure(&folder, &requests)?;
    Ok(())
}

/// `devcerts --out FOLDER NAME=HOST,HOST...`
fn arguments() -> Result<(PathBuf, Vec<Request>)> {
    let (mut folder, mut requests) = (None, Vec::new());
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            lexopt::Arg::Long("out") => folder = Some(PathBuf::from(parser.value()?)),
            lexopt::Arg::Value(value) => {
                requests.push(value.into_string().ok().context("read a name: it is not UTF-8")?.parse()?)
            }
            other => return Err(other.unexpected().into()),
        }
    }
    Ok((folder.context("say where: devcerts --out FOLDER NAME=HOST,HOST...")?, requests))
}
