//! `-info`: what this runtime can do. containerd asks before it offers user namespaces or recursive read-only mounts.

use std::io::{self, Write};
use std::process::Stdio;

use containerd_shim_protos::types::introspection::{RuntimeInfo, RuntimeVersion};
use protobuf::Message;
use protobuf::well_known_types::any::Any;

use super::bootstrap::{Bootstrap, BootstrapError};
use super::invocation::Invocation;
use crate::runtime::Runtime;

const NAME: &str = "io.containerd.assay.v1";
const FEATURES: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum InfoError {
    /// containerd's input.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// The answer could not be written.
    #[error("standard output: {0}")]
    Write(#[from] io::Error),
    /// The answer could not be encoded.
    #[error("RuntimeInfo: {0}")]
    Encode(#[from] protobuf::Error),
}

/// Writes a `RuntimeInfo` to standard output, with the features of the OCI runtime that the options (standard input)
/// name. An OCI runtime that cannot tell its features gets an answer without them.
///
/// # Errors
/// When the input is not options or the answer cannot be written.
pub fn info(invocation: &Invocation) -> Result<(), InfoError> {
    let options = Bootstrap::read(io::stdin(), &invocation.id, &invocation.namespace)?.options;
    // A broken configuration is reported when a container is created; the node must not lose its features over it.
    let program = super::program(&options, &super::config(&options).unwrap_or_default());
    let info = RuntimeInfo {
        name: NAME.to_owned(),
        version: Some(RuntimeVersion {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..RuntimeVersion::default()
        })
        .into(),
        features: features(&program).into(),
        ..RuntimeInfo::default()
    };
    io::stdout().write_all(&info.write_to_bytes()?)?;
    Ok(())
}

fn features(program: &str) -> Option<Any> {
    let output = Runtime::features(program)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let json: Option<&serde_json::value::RawValue> = serde_json::from_slice(&output.stdout).ok();
    let value = json.filter(|_| output.status.success())?.get().as_bytes().to_vec();
    Some(Any {
        type_url: FEATURES.to_owned(),
        value,
        ..Any::default()
    })
}

/// The version of this shim, for people.
///
/// # Errors
/// When standard output is closed.
pub fn version() -> io::Result<()> {
    writeln!(io::stdout(), "containerd-shim-assay-v1 {}", env!("CARGO_PKG_VERSION"))
}
