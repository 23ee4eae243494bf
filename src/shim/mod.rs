//! The containerd runtime v2 shim (task API version 2).
//!
//! `start`, `delete` and `info` are short-lived; `serve` is the resident process of a pod. RPC messages are read and
//! written in `task/` and `events` and go no further.

pub mod admit;
pub mod bar;
pub mod bootstrap;
pub mod bundle;
pub mod child;
pub mod clock;
pub mod complain;
pub mod container;
pub mod delete;
pub mod edit;
pub mod error;
pub mod events;
pub mod gate;
pub mod hidden;
pub mod info;
pub mod invocation;
pub mod io;
pub mod log;
pub mod memory;
pub mod mount;
pub mod oom;
pub mod options;
pub mod process;
pub mod serve;
pub mod socket;
pub mod start;
pub mod stats;
pub mod task;
pub mod watch;

use crate::config::Config;
use crate::diagnostic::{Diagnostic, Diagnostics};
use options::Options;

/// Assay's configuration for a handler with these options.
///
/// # Errors
/// When the file is wrong.
pub fn config(options: &Options) -> Result<Config, Diagnostics> {
    if options.config_path.is_empty() {
        Config::load()
    } else {
        Config::read(options.config_path.as_ref())
    }
}

/// The refusal of every container while the configuration cannot be used, in one line. It stands in no decision log: which
/// one that is says the configuration.
#[must_use]
pub fn unconfigured(Diagnostics(faults): &Diagnostics) -> String {
    let fault = faults.first().map(Diagnostic::line).unwrap_or_default();
    format!(
        "assay refused: config-invalid: the configuration of Assay is not usable: {fault}; to fix: an administrator \
         corrects the file, or what names it (ASSAY_CONFIG of containerd's service, ConfigPath of the handler)"
    )
}

/// The OCI runtime to use: the handler's option, else the configured one.
#[must_use]
pub fn program(options: &Options, config: &Config) -> String {
    if options.binary_name.is_empty() {
        config.oci_runtime.clone()
    } else {
        options.binary_name.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_that_cannot_be_used_is_a_refusal_in_one_line() {
        let missing = Config::read("/nonexistent/config.toml".as_ref()).unwrap_err();
        let line = unconfigured(&missing);
        assert!(
            line.starts_with("assay refused: config-invalid: ") && !line.contains('\n'),
            "{line}"
        );
        assert!(
            line.contains("/nonexistent/config.toml") && line.contains("; to fix: "),
            "{line}"
        );
    }
}
