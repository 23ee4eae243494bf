//! The containerd shim: wiring of its actions.

use std::process::ExitCode;

use assay::shim::invocation::{Action, Invocation};
use assay::shim::{delete, info, serve, start};

fn main() -> ExitCode {
    let result = Invocation::from_env()
        .map_err(Into::into)
        .and_then(|invocation| act(&invocation));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // containerd shows what a failed shim printed.
            eprintln!("assay: {error}");
            ExitCode::FAILURE
        }
    }
}

fn act(invocation: &Invocation) -> Result<(), Box<dyn std::error::Error>> {
    match invocation.action {
        Action::Start => start::start(invocation)?,
        Action::Delete => delete::delete(invocation)?,
        Action::Info => info::info(invocation)?,
        Action::Version => info::version()?,
        Action::Serve => serve::serve(invocation)?,
    }
    Ok(())
}
