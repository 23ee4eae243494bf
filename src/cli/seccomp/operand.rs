//! What the commands that compare profiles take: a file, an image or a container.

use std::io::Read as _;
use std::path::Path;

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
        return file(Path::new(operand)).map_err(|(why, exit)| {
            complain(printable(&format!("{operand}: {why}")));
            exit
        });
    }
    profile_of(operand, at, config)
}

/// The profile of an image or a container under enforce.
///
/// # Errors
/// Said already.
pub(super) fn profile_of(operand: &str, at: &At, config: &Config) -> Result<Profile, Exit> {
    look(at, operand, config)?.calls.profile.ok_or_else(|| {
        complain(format!("{} keeps the profile that it has", printable(operand)));
        Exit::Failed
    })
}

/// The profile in a file.
///
/// # Errors
/// What is wrong with it, for people.
pub(super) fn file(path: &Path) -> Result<Profile, (String, Exit)> {
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
