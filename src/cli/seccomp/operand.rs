//! What the commands that compare profiles take: a file, an image or a container.

use std::io::Read as _;

use super::super::view::At;
use super::super::{Exit, complain};
use super::look;
use crate::config::Config;
use crate::diagnostic::printable;
use crate::seccomp::{MAX_BYTES, Profile};

/// Help of such an argument.
pub(super) const NAME: &str = "IMAGE|CONTAINER|FILE";

/// The profile of an operand. What begins with `/` or `.` is a file; anything else is an image or a container, whose
/// profile under enforce it is.
///
/// # Errors
/// Said already.
pub(super) fn profile(operand: &str, at: &At, config: &Config) -> Result<Profile, Exit> {
    if operand.starts_with(['/', '.']) {
        return file(operand).map_err(|(why, exit)| {
            complain(printable(&format!("{operand}: {why}")));
            exit
        });
    }
    look(at, operand, config)?.calls.profile.ok_or_else(|| {
        complain(format!("{} keeps the profile that it has", printable(operand)));
        Exit::Failed
    })
}

fn file(path: &str) -> Result<Profile, (String, Exit)> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => ("there is no such file".to_owned(), Exit::NotFound),
        _ => (error.to_string(), Exit::Failed),
    };
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes))
        .map_err(failed)?;
    Profile::parse(&bytes).map_err(|error| (error.to_string(), Exit::Failed))
}
