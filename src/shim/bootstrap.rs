//! What containerd writes on the standard input of `start` and `-info`.
//!
//! Up to 2.2 that is the options of the handler as a `google.protobuf.Any`, or nothing; from 2.3 on it is always
//! a `BootstrapParams`. The two decode as each other, so a message counts as the second only if it repeats the id and
//! namespace of the command line.

use std::io::{self, Read};

use containerd_shim_protos::bootstrap_api::BootstrapParams;
use protobuf::Message;
use protobuf::well_known_types::any::Any;

use super::options::{Options, OptionsError};

/// Most bytes that are read.
const LIMIT: u64 = 1 << 20;

/// What the caller wants of the new shim.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bootstrap {
    /// Options of the handler.
    pub options: Options,
    /// Where containerd wants the socket, from 2.3 on.
    pub socket_dir: Option<String>,
}

/// Why the input cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// It could not be read.
    #[error("standard input: {0}")]
    Read(#[from] io::Error),
    /// It is larger than any caller writes.
    #[error("standard input is larger than {LIMIT} bytes")]
    TooLarge,
    /// It is not a protobuf message.
    #[error("standard input is neither BootstrapParams nor Any: {0}")]
    Decode(#[from] protobuf::Error),
    /// Its options are wrong.
    #[error(transparent)]
    Options(#[from] OptionsError),
}

impl Bootstrap {
    /// Reads standard input.
    ///
    /// # Errors
    /// When it cannot be read or does not decode.
    pub fn read(input: impl Read, id: &str, namespace: &str) -> Result<Self, BootstrapError> {
        let mut bytes = Vec::new();
        input.take(LIMIT + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > LIMIT {
            return Err(BootstrapError::TooLarge);
        }
        Self::decode(&bytes, id, namespace)
    }

    fn decode(bytes: &[u8], id: &str, namespace: &str) -> Result<Self, BootstrapError> {
        if let Ok(params) = BootstrapParams::parse_from_bytes(bytes)
            && !bytes.is_empty()
            && params.instance_id == id
            && params.namespace == namespace
        {
            // Other extensions are for other shims.
            let options = params
                .extensions
                .iter()
                .filter_map(|extension| extension.value.as_ref());
            let options = options
                .map(|any| Options::decode(Some(any)))
                .find(|o| !matches!(o, Err(OptionsError::Type(_))));
            return Ok(Self {
                options: options.transpose()?.unwrap_or_default(),
                socket_dir: params.socket_dir,
            });
        }
        let any = Any::parse_from_bytes(bytes)?;
        Ok(Self {
            options: Options::decode(Some(&any))?,
            socket_dir: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The message that containerd 2.3 writes for `ctr run --runc-binary crun` (container `web`, namespace `default`):
    /// fields 1, 2, 4 to 7, and an extension whose `Any` holds `containerd.runc.v1.Options{binary_name: "crun"}`.
    const PARAMS: &[u8] = b"\x0a\x03web\x12\x07default\x22\x06v2.3.4\x2a\x25/run/containerd/containerd.sock.ttrpc\
\x32\x1f/run/containerd/containerd.sock\x3a\x13/usr/bin/containerd\x42\x26\x0a\x24\x0a\x1acontainerd.runc.v1.Options\
\x12\x06\x32\x04crun";

    #[test]
    fn the_form_of_containerd_2_3_is_told_apart_by_id_and_namespace() {
        let params = Bootstrap::decode(PARAMS, "web", "default").unwrap();
        assert_eq!(params.options.binary_name, "crun");
        // For another container the same bytes are an Any whose type nobody knows.
        assert!(matches!(
            Bootstrap::decode(PARAMS, "other", "default"),
            Err(BootstrapError::Options(OptionsError::Type(name))) if name == "web"
        ));
    }

    #[test]
    fn the_older_form_and_nothing_at_all() {
        let any = b"\x0a\x1acontainerd.runc.v1.Options\x12\x06\x32\x04crun";
        assert_eq!(
            Bootstrap::decode(any, "web", "default").unwrap().options.binary_name,
            "crun"
        );
        assert_eq!(Bootstrap::decode(b"", "web", "default").unwrap(), Bootstrap::default());
    }

    #[test]
    fn garbage_is_an_error() {
        assert!(Bootstrap::decode(b"\xff\xff\xff", "web", "default").is_err());
        assert!(matches!(
            Bootstrap::read(io::repeat(0), "web", "default"),
            Err(BootstrapError::TooLarge)
        ));
    }
}
