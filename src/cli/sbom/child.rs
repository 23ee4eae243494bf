//! The processes that read what attackers may have written: an attestation, and an image's files. Each is this program
//! again, shut in with the one directory that it reads.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use super::report::Report;
use crate::admission::child::{self, ChildFault};
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
/// Longest message about something that cannot be used, in characters.
const MAX_TEXT: usize = 512;
/// Longest time that it may take: its processor time is limited as well, but a slow disk costs none.
const TIME_LIMIT: Duration = Duration::from_secs(120);
/// First byte of a question or an answer that has content, so that empty content is not none.
const SOME: u8 = b'+';
/// First byte of a question without content, and of an answer that says why there is none.
const NONE: u8 = b'-';

/// Why a process gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ChildError {
    #[error("the parser could not be started: {0}")]
    Start(#[from] io::Error),
    #[error("the parser could not be shut in: {0}; use Linux 5.12 or newer, as root")]
    Sandbox(String),
    #[error("{0}")]
    Unusable(String),
    #[error("the parser {0}; something in the image is more than it may take: report it")]
    Died(ChildFault),
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
    let mut question = vec![if document.is_some() { SOME } else { NONE }];
    question.extend_from_slice(document.unwrap_or_default());
    let answer = ask(INSPECT, root, &question)?;
    serde_json::from_slice(&answer)
        .map_err(|error| ChildError::Garbage(format!("no report at column {}", error.column())))
}

fn ask(what: &str, directory: BorrowedFd<'_>, question: &[u8]) -> Result<Vec<u8>, ChildError> {
    // Inherited by the child, so this one copy must not be closed on exec. Nothing else is started meanwhile.
    let inherited = rustix::io::dup(directory).map_err(io::Error::from)?;
    let mut command = Command::new("/proc/self/exe");
    command.args([what, &inherited.as_raw_fd().to_string()]);
    let mut answer =
        child::run(command, question, MAX_ANSWER, Instant::now() + TIME_LIMIT).map_err(|fault| match fault {
            ChildFault::Start(error) => ChildError::Start(error),
            ChildFault::Sandbox(why) => ChildError::Sandbox(why),
            fault => ChildError::Died(fault),
        })?;
    match answer.first() {
        Some(&SOME) => Ok(answer.split_off(1)),
        Some(&NONE) => {
            let said = printable(&String::from_utf8_lossy(&answer[1..]))
                .chars()
                .take(MAX_TEXT)
                .collect();
            Err(ChildError::Unusable(said))
        }
        _ => Err(ChildError::Garbage("it does not say whether it is one".to_owned())),
    }
}

/// The `main` of both processes; `argument` is the number of the descriptor of the directory, which it has inherited.
#[must_use]
pub fn main(what: &str, argument: &str) -> ExitCode {
    let entered = child::enter(argument, |directory| {
        if what == INSPECT {
            sandbox::enter_image(sandbox::Root::Directory(directory), &[])
        } else {
            sandbox::enter(directory)
        }
    });
    let directory = match entered {
        Ok(directory) => directory,
        Err(status) => return status,
    };
    let answer = if what == INSPECT {
        look(directory)
    } else {
        find(&directory)
    };
    let (first, rest) = match answer {
        Ok(bytes) => (SOME, bytes),
        Err(text) => (NONE, text.into_bytes()),
    };
    let mut out = io::stdout();
    match out.write_all(&[first]).and_then(|()| out.write_all(&rest)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(child::NO_PIPE),
    }
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
        .filter(|(first, _)| **first == SOME)
        .map(|(_, rest)| rest);
    let tree = Tree::scan(root).map_err(|error| error.to_string())?;
    serde_json::to_vec(&Report::of(&tree, document)).map_err(|error| error.to_string())
}
