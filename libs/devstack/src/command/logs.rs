//! `cargo dev logs`: the log file of one child, and what is added to it.

use std::ffi::OsString;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::configuration::log_names;
use crate::workspace::Workspace;

const PAUSE: Duration = Duration::from_millis(200);

pub fn run(arguments: Vec<OsString>) -> Result<ExitCode> {
    let (mut name, mut follow) = (None, false);
    let mut parser = lexopt::Parser::from_args(arguments);
    while let Some(argument) = parser.next()? {
        match argument {
            lexopt::Arg::Short('f') | lexopt::Arg::Long("follow") => follow = true,
            lexopt::Arg::Value(value) if name.is_none() => name = Some(super::text(value)?),
            other => return Err(other.unexpected().into()),
        }
    }
    let known = log_names();
    let Some(name) = name.filter(|name| known.contains(&name.as_str())) else {
        bail!("say whose log: {}", known.join(", "));
    };
    let path = Workspace::find()?.state().join("logs").join(format!("{name}.log"));
    match show(&path, follow) {
        // The reader has seen enough.
        Err(error)
            if error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe) =>
        {
            Ok(ExitCode::SUCCESS)
        }
        outcome => outcome.map(|()| ExitCode::SUCCESS),
    }
}

fn show(path: &Path, follow: bool) -> Result<()> {
    let open = || File::open(path).with_context(|| format!("open {}: it has not run yet", path.display()));
    let mut file = open()?;
    loop {
        copy(&mut file)?;
        if !follow {
            return Ok(());
        }
        std::thread::sleep(PAUSE);
        // A new `up` begins a new file.
        let (ours, there) = (file.metadata()?, std::fs::metadata(path));
        if there.is_ok_and(|there| there.ino() != ours.ino()) {
            copy(&mut file)?;
            file = open()?;
        } else if ours.len() < file.stream_position()? {
            file.seek(SeekFrom::Start(0))?;
        }
    }
}

fn copy(file: &mut File) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let mut buffer = [0; 16 << 10];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(out.flush()?);
        }
        out.write_all(&buffer[..count])?;
    }
}
