//! `assay-image-verifier`, another name of `assay`: containerd's image verifier plugin calls it before it pulls an image.
//!
//! Contract: <https://github.com/containerd/containerd/blob/main/docs/image-verification.md>. Name and digest come as
//! arguments; what else comes, on standard input too, is not needed. The reason is written to standard output, and any
//! exit code but 0 keeps containerd from pulling.

use std::collections::HashMap;
use std::path::Path;

use super::{Exit, complain, print};
use crate::admission::{self, Verdict};
use crate::config::Config;
use crate::diagnostic::printable;
use crate::digest::Digest;

/// The name that it is called by.
const NAME: &str = "assay-image-verifier";

/// Whether the program was called by this name.
#[must_use]
pub fn is_called(program: &str) -> bool {
    Path::new(program).file_name().is_some_and(|name| name == NAME)
}

/// Judges the image that is about to be pulled.
#[must_use]
pub fn run(arguments: &[String]) -> Exit {
    let arguments = flags(arguments);
    let (Some(name), Some(digest)) = (arguments.get("name"), arguments.get("digest")) else {
        complain(format_args!(
            "usage: {NAME} -name IMAGE -digest DIGEST; containerd's image verifier plugin calls it, see docs/image-verifier.md"
        ));
        return Exit::Usage;
    };
    let digest = match digest.parse::<Digest>() {
        Ok(digest) => digest,
        Err(error) => {
            print(printable(&format!("assay refused image {name}: {error}")));
            return Exit::Denied;
        }
    };
    let decision = admission::pull(Config::load().as_ref(), name, digest);
    print(decision.line());
    match decision.verdict {
        Verdict::Allow => Exit::Done,
        Verdict::Refuse => Exit::Denied,
    }
}

/// Flags as Go's programs write them: `-name VALUE`, `--name=VALUE`.
fn flags(arguments: &[String]) -> HashMap<&str, &str> {
    let mut flags = HashMap::new();
    let mut words = arguments.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let word = word.trim_start_matches('-');
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, words.next()),
        };
        flags.insert(name, value.unwrap_or_default());
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_come_in_every_spelling_of_go() {
        let words = [
            "-name",
            "example.com/app:1",
            "--digest=sha256:aa",
            "-later",
            "x",
            "-last",
        ]
        .map(str::to_owned);
        let flags = flags(&words);
        assert_eq!(flags.get("name"), Some(&"example.com/app:1"));
        assert_eq!(flags.get("digest"), Some(&"sha256:aa"));
        assert_eq!(flags.get("last"), Some(&""));
        assert!(is_called("/opt/containerd/image-verifier/bin/assay-image-verifier") && is_called(NAME));
        assert!(!is_called("/usr/bin/assay") && !is_called(""));
    }
}
