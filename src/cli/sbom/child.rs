//! The processes that read what attackers may have written: an attestation, and an image's files. Each is this program
//! again, shut in with the one directory that it reads.

use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::process::{Command, ExitCode, Stdio};

use rustix::fs::MemfdFlags;

use super::report::Report;
use crate::admission::sandbox;
use crate::diagnostic::printable;
use crate::evidence;
use crate::sbom;
use crate::tree::Tree;
use crate::verify::Fact;

/// First argument of the process that finds an SBOM in the evidence cache.
pub const EXTRACT: &str = "parse-sbom";
/// First argument of the process that looks at an image's files.
pub const INSPECT: &str = "parse-image";

/// Largest answer in bytes: the paths of a million files.
const MAX_ANSWER: u64 = 256 << 20;
/// Longest message of a process that failed.
const MAX_TEXT: usize = 512;
/// Exit status of a process whose cage could not be closed.
const NO_SANDBOX: u8 = 71;
/// Exit status of a process that read something that it cannot use; it said what.
const UNUSABLE: u8 = 65;

/// Why a process gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ChildError {
    #[error("the parser could not be started: {0}")]
    Start(#[from] io::Error),
    #[error("the parser could not be shut in: {0}; use Linux 5.12 or newer, as root")]
    Sandbox(String),
    #[error("{0}")]
    Unusable(String),
    #[error("the parser died ({0}): something in the image is more than it may take; report it")]
    Died(String),
    #[error("the parser's answer is unusable: {0}")]
    Garbage(String),
}

/// Finds the SBOM that a fact is about in the evidence cache.
pub(super) fn extract(evidence: BorrowedFd<'_>, fact: &Fact) -> Result<Vec<u8>, ChildError> {
    let question = serde_json::to_vec(fact).map_err(io::Error::from)?;
    ask(EXTRACT, evidence, &question)
}

/// Looks at the files in `root` and compares them with the SBOM in `document`.
pub(super) fn inspect(root: BorrowedFd<'_>, document: Option<&[u8]>) -> Result<Report, ChildError> {
    // A letter says whether there is one, so that an empty SBOM is not none.
    let mut question = vec![if document.is_some() { b'+' } else { b'-' }];
    question.extend_from_slice(document.unwrap_or_default());
    let answer = ask(INSPECT, root, &question)?;
    serde_json::from_slice(&answer)
        .map_err(|error| ChildError::Garbage(format!("no report at column {}", error.column())))
}

fn ask(what: &str, directory: BorrowedFd<'_>, question: &[u8]) -> Result<Vec<u8>, ChildError> {
    let mut file =
        std::fs::File::from(rustix::fs::memfd_create("question", MemfdFlags::CLOEXEC).map_err(io::Error::from)?);
    file.write_all(question)?;
    file.rewind()?;
    // Inherited by the child, so this one copy must not be closed on exec. Nothing else is started meanwhile.
    let inherited = rustix::io::dup(directory).map_err(io::Error::from)?;
    let mut child = Command::new("/proc/self/exe")
        .args([what, &inherited.as_raw_fd().to_string()])
        .env_clear()
        .current_dir("/")
        .stdin(file)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    drop(inherited);
    let mut answer = Vec::new();
    // It ends by itself: its processor time is limited, and it has nothing to wait for.
    let read = match child.stdout.take() {
        Some(stdout) => stdout.take(MAX_ANSWER + 1).read_to_end(&mut answer),
        None => Ok(0),
    };
    if answer.len() as u64 > MAX_ANSWER {
        let _ = child.kill();
    }
    let status = child.wait()?;
    read?;
    let said = || {
        printable(&String::from_utf8_lossy(&answer))
            .chars()
            .take(MAX_TEXT)
            .collect()
    };
    match status.code() {
        Some(0) if answer.len() as u64 > MAX_ANSWER => Err(ChildError::Garbage("it is too long".to_owned())),
        Some(0) => Ok(answer),
        Some(code) if code == i32::from(NO_SANDBOX) => Err(ChildError::Sandbox(said())),
        Some(code) if code == i32::from(UNUSABLE) => Err(ChildError::Unusable(said())),
        _ => Err(ChildError::Died(status.to_string())),
    }
}

/// The `main` of both processes; `argument` is the number of the descriptor of the directory, which it has inherited.
#[must_use]
pub fn main(what: &str, argument: &str) -> ExitCode {
    let say = |code: u8, text: &dyn std::fmt::Display| {
        // When not even this can be said, the exit status still says the most important part.
        let _ = write!(io::stdout(), "{text}");
        ExitCode::from(code)
    };
    let Some(directory) = inherited(argument) else {
        return say(NO_SANDBOX, &"its argument is not an inherited descriptor");
    };
    let shut_in = if what == INSPECT {
        sandbox::enter_image(sandbox::Root::Directory(directory), &[])
    } else {
        sandbox::enter(directory)
    };
    let directory = match shut_in {
        Ok(directory) => directory,
        Err(error) => return say(NO_SANDBOX, &error),
    };
    let answer = if what == INSPECT {
        look(directory)
    } else {
        find(&directory)
    };
    match answer {
        Ok(bytes) => match io::stdout().write_all(&bytes) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(text) => say(UNUSABLE, &text),
    }
}

fn inherited(argument: &str) -> Option<OwnedFd> {
    let number: RawFd = argument.parse().ok().filter(|number| *number > 2)?;
    // SAFETY: only asks whether the number stands for an open file.
    let open = unsafe { libc::fcntl(number, libc::F_GETFD) } != -1;
    // SAFETY: the process has just started, nothing in it owns the descriptor that its parent left open for it.
    open.then(|| unsafe { OwnedFd::from_raw_fd(number) })
}

fn question() -> Result<Vec<u8>, String> {
    let mut question = Vec::new();
    let limit = sbom::MAX_BYTES as u64 + 2;
    let read = io::stdin().take(limit).read_to_end(&mut question);
    read.map(|_| question).map_err(|error| error.to_string())
}

fn find(evidence: &OwnedFd) -> Result<Vec<u8>, String> {
    let fact: Fact = serde_json::from_slice(&question()?).map_err(|error| error.to_string())?;
    evidence::predicate(evidence.as_fd(), &fact).map_err(|error| error.to_string())
}

fn look(root: OwnedFd) -> Result<Vec<u8>, String> {
    let question = question()?;
    let document = question
        .split_first()
        .filter(|(first, _)| **first == b'+')
        .map(|(_, rest)| rest);
    let tree = Tree::scan(root).map_err(|error| error.to_string())?;
    serde_json::to_vec(&Report::of(&tree, document)).map_err(|error| error.to_string())
}
