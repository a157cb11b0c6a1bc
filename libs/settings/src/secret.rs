//! Values that must not be shown, and the files that may hold them.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::OsString;
use std::fmt;
use std::str::FromStr;

/// A value that neither `Debug` nor an error message shows.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    /// The value itself: for the call that needs it, not to keep.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// An argument is secret by its type alone, so that none is forgotten.
pub(crate) fn is_secret(argument: &clap::Arg) -> bool {
    argument.get_value_parser().type_id() == std::any::TypeId::of::<Secret>()
}

/// `--flag=value` for each `<NAME>_FILE` in the environment; they stay inside the process.
pub(crate) fn from_files(
    command: &clap::Command,
    environment: &BTreeMap<String, OsString>,
) -> Result<Vec<OsString>, String> {
    let mut arguments = Vec::new();
    for argument in command.get_arguments().filter(|argument| is_secret(argument)) {
        let (Some(name), Some(flag)) = (argument.get_env().and_then(|n| n.to_str()), argument.get_long()) else {
            continue;
        };
        let Some(path) = environment.get(&format!("{name}_FILE")) else {
            continue;
        };
        if environment.contains_key(name) {
            return Err(format!("{name} and {name}_FILE are both set; keep one"));
        }
        let value = std::fs::read_to_string(path)
            .map_err(|error| format!("cannot read {} (from {name}_FILE): {error}", path.to_string_lossy()))?;
        arguments.push(OsString::from(format!("--{flag}={}", value.trim_end())));
    }
    Ok(arguments)
}
