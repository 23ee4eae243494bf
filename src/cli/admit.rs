//! `assay admit`: the shim's question on standard input, the decision on standard output.

use std::io::{Read as _, Write as _};

use super::Exit;
use crate::admission::{self, InvalidRequest, MAX_REQUEST, Request};
use crate::config::Config;

/// Reads a request, writes a decision. Succeeds whenever a decision was written, refusals included.
#[must_use]
pub fn run() -> Exit {
    let config = Config::load();
    let decision = match request() {
        Ok(request) => admission::admit(config.as_ref(), &request),
        Err(invalid) => admission::reject(&invalid),
    };
    let mut line = decision.json();
    line.push('\n');
    let mut output = std::io::stdout();
    match output.write_all(line.as_bytes()).and_then(|()| output.flush()) {
        Ok(()) => Exit::Done,
        Err(_) => Exit::Internal,
    }
}

fn request() -> Result<Request, InvalidRequest> {
    let mut bytes = Vec::new();
    std::io::stdin()
        .take(MAX_REQUEST + 1)
        .read_to_end(&mut bytes)
        .map_err(InvalidRequest::Read)?;
    if bytes.len() as u64 > MAX_REQUEST {
        return Err(InvalidRequest::TooLarge);
    }
    Request::parse(&bytes)
}
