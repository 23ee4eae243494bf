//! `assay admit` and `assay admit-exec`: the shim's question on standard input, the answer on standard output.

use std::io::{Read as _, Write as _};

use super::{Exit, complain};
use crate::admission::exec::Plea;
use crate::admission::{self, InvalidRequest, MAX_REQUEST, Request, VERSION};
use crate::config::Config;
use crate::diagnostic::printable;

/// Reads a request, writes a decision. Succeeds whenever a decision was written, refusals included.
#[must_use]
pub fn run() -> Exit {
    let config = Config::load();
    let decision = match request() {
        Ok(request) => admission::admit(config.as_ref(), &request),
        Err(invalid) => admission::reject(&invalid),
    };
    answer(decision.json())
}

/// Reads a [`Plea`], writes an [`Opened`](admission::exec::Opened). Succeeds whenever an answer was written.
#[must_use]
pub fn exec() -> Exit {
    let config = Config::load();
    let plea = input().and_then(|bytes| Ok(serde_json::from_slice::<Plea>(&bytes)?));
    let opened = match plea {
        Ok(plea) if plea.version == VERSION => admission::open_exec(config.as_ref(), &plea),
        Ok(plea) => return complain_of(&InvalidRequest::Version(plea.version)),
        Err(invalid) => return complain_of(&invalid),
    };
    match serde_json::to_string(&opened) {
        Ok(line) => answer(line),
        Err(_) => Exit::Internal,
    }
}

fn complain_of(invalid: &InvalidRequest) -> Exit {
    complain(printable(&invalid.to_string()));
    Exit::Failed
}

fn answer(mut line: String) -> Exit {
    line.push('\n');
    let mut output = std::io::stdout();
    match output.write_all(line.as_bytes()).and_then(|()| output.flush()) {
        Ok(()) => Exit::Done,
        Err(_) => Exit::Internal,
    }
}

fn request() -> Result<Request, InvalidRequest> {
    Request::parse(&input()?)
}

fn input() -> Result<Vec<u8>, InvalidRequest> {
    let mut bytes = Vec::new();
    std::io::stdin()
        .take(MAX_REQUEST + 1)
        .read_to_end(&mut bytes)
        .map_err(InvalidRequest::Read)?;
    if bytes.len() as u64 > MAX_REQUEST {
        return Err(InvalidRequest::TooLarge);
    }
    Ok(bytes)
}
