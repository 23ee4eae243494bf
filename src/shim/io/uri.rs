//! What containerd writes where a standard stream goes.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::{IoError, Stream};

/// Longest stream address that is read; a logging binary's has its whole configuration in it.
const MAX_URI: usize = 64 << 10;
/// Query parameters with this prefix are environment variables of a logging binary, not arguments.
const ENVIRONMENT: &str = "env.";

/// Where a stream goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Nowhere.
    Null,
    /// A FIFO, or a file that exists.
    Path(PathBuf),
    /// A file that is created, with its directories, and appended to.
    File(PathBuf),
    /// The standard input of a program.
    Binary(Binary),
}

/// A logging binary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Binary {
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<OsString>,
    pub(super) environment: Vec<(OsString, OsString)>,
    /// Whether it must say that it is ready (`binary-v2`); else it may also just close the descriptor.
    pub(super) must_confirm: bool,
}

impl Target {
    /// Reads an address: empty, a path, or a URI of one of the schemes `fifo`, `file`, `binary`, `binary-v2`.
    pub(super) fn parse(stream: Stream, uri: &str) -> Result<Self, IoError> {
        let refuse = |reason| IoError::Address {
            stream,
            uri: shortened(uri),
            reason,
        };
        if uri.len() > MAX_URI {
            return Err(refuse("too long"));
        }
        if uri.contains('\0') {
            return Err(refuse("contains a NUL"));
        }
        if uri.is_empty() {
            return Ok(Self::Null);
        }
        let Some((scheme, rest)) = uri.split_once("://") else {
            let path = PathBuf::from(uri);
            return if path.is_absolute() {
                Ok(Self::Path(path))
            } else {
                Err(refuse("not an absolute path"))
            };
        };
        let (location, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = decode(location, false)
            .map(PathBuf::from)
            .ok_or_else(|| refuse("malformed escape"))?;
        if !path.is_absolute() {
            return Err(refuse("not an absolute path"));
        }
        match scheme {
            "fifo" => Ok(Self::Path(path)),
            "file" => Ok(Self::File(path)),
            "binary" | "binary-v2" => {
                let mut binary = Binary {
                    program: path,
                    arguments: Vec::new(),
                    environment: Vec::new(),
                    must_confirm: scheme == "binary-v2",
                };
                binary.read_query(query).ok_or_else(|| refuse("malformed query"))?;
                Ok(Self::Binary(binary))
            }
            _ => Err(refuse(
                "unknown scheme; known are a path, fifo://, file://, binary:// and binary-v2://",
            )),
        }
    }
}

impl Binary {
    /// Each parameter is two arguments, its name and its first value, in the order in which they are written.
    fn read_query(&mut self, query: &str) -> Option<()> {
        let mut seen = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name, true)?, decode(value, true)?);
            if seen.contains(&name) {
                continue;
            }
            match name.to_str().and_then(|name| name.strip_prefix(ENVIRONMENT)) {
                Some(variable) => {
                    if variable.is_empty() || variable.contains('=') {
                        return None;
                    }
                    self.environment.push((variable.into(), value));
                }
                None => self.arguments.extend([name.clone(), value]),
            }
            seen.push(name);
        }
        Some(())
    }
}

/// Undoes percent-encoding; `None` for a malformed escape or an encoded NUL.
fn decode(text: &str, query: bool) -> Option<OsString> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                if !digits.iter().all(u8::is_ascii_hexdigit) {
                    return None;
                }
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16)
                    .ok()
                    .filter(|byte| *byte != 0)?
            }
            b'+' if query => b' ',
            other => other,
        });
    }
    Some(OsString::from_vec(decoded))
}

/// An error must not repeat a whole hostile document.
fn shortened(uri: &str) -> String {
    uri.chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(uri: &str) -> Result<Target, IoError> {
        Target::parse(Stream::Stdout, uri)
    }

    #[test]
    fn every_scheme_is_read() {
        assert_eq!(parse("").unwrap(), Target::Null);
        assert_eq!(parse("/run/c/a%20b").unwrap(), Target::Path("/run/c/a%20b".into()));
        assert_eq!(parse("fifo:///run/c/a%20b").unwrap(), Target::Path("/run/c/a b".into()));
        assert_eq!(parse("file:///var/log/x?y").unwrap(), Target::File("/var/log/x".into()));
        let binary = Binary {
            program: "/bin/logger".into(),
            arguments: ["--tag", "a b", "flag", "", "x", "1=2"].map(OsString::from).to_vec(),
            environment: vec![("LEVEL".into(), "2".into())],
            must_confirm: false,
        };
        let query = "--tag=a+b&flag&env.LEVEL=2&x=1%3D2&x=3";
        assert_eq!(
            parse(&format!("binary:///bin/logger?{query}")).unwrap(),
            Target::Binary(binary.clone())
        );
        let strict = Binary {
            must_confirm: true,
            ..binary
        };
        assert_eq!(
            parse(&format!("binary-v2:///bin/logger?{query}")).unwrap(),
            Target::Binary(strict)
        );
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_a_sentence() {
        let messages: Vec<_> = [
            "relative/path",
            "file://relative",
            "file:///a%zz",
            "file:///a%+1",
            "file:///a%00b",
            "file:///a%4",
            "/a\0b",
            "binary:///bin/logger?env.=1",
            "streaming+ttrpc:///run/x",
        ]
        .iter()
        .map(|uri| parse(uri).unwrap_err().to_string())
        .collect();
        insta::assert_snapshot!(messages.join("\n"), @r"
        stdout 'relative/path': not an absolute path
        stdout 'file://relative': not an absolute path
        stdout 'file:///a%zz': malformed escape
        stdout 'file:///a%+1': malformed escape
        stdout 'file:///a%00b': malformed escape
        stdout 'file:///a%4': malformed escape
        stdout '/a\0b': contains a NUL
        stdout 'binary:///bin/logger?env.=1': malformed query
        stdout 'streaming+ttrpc:///run/x': unknown scheme; known are a path, fifo://, file://, binary:// and binary-v2://
        ");
        assert!(
            parse(&format!("/{}", "x".repeat(MAX_URI)))
                .unwrap_err()
                .to_string()
                .len()
                < 400
        );
    }
}
