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
use crate::diagnostic::Diagnostics;
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

/// The OCI runtime to use: the handler's option, else the configured one.
#[must_use]
pub fn program(options: &Options, config: &Config) -> String {
    if options.binary_name.is_empty() {
        config.oci_runtime.clone()
    } else {
        options.binary_name.clone()
    }
}
