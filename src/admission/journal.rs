//! Lines of the decision log as entries of systemd's journal, with a field for each thing that is searched for:
//! <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>.
//!
//! They are copies: the log counts, and an entry that the journal does not take at once is lost.

use std::os::unix::net::UnixDatagram;
use std::path::Path;

use super::again::{Reevaluation, word};
use super::exec::ExecRecord;
use super::{Decision, Verdict};
use crate::diagnostic::printable;
use crate::digest::Digest;
use crate::grant::{self, Subject};

/// Where the journal listens.
const SOCKET: &str = "/run/systemd/journal/socket";
/// Longest value of a field, in bytes: all of them together fit into one datagram.
const MAX_VALUE: usize = 8 << 10;
/// `MESSAGE_ID` of each kind of entry.
const DECISION: &str = "15bbd137d66a42248a667d64a52bbbd3";
const REEVALUATION: &str = "142aebc808f94331bb646e2d7813a3a1";
const EXEC: &str = "6075fc461af74bbbbadda3c4c18e7960";
const GRANT: &str = "0ce6d2fd5a1c4c8cb9f2f7c6a1b3e94d";
/// Priorities of syslog.
const WARNING: &str = "4";
const INFORMATION: &str = "6";

/// An entry of the journal.
#[derive(Debug)]
pub struct Entry(Vec<u8>);

impl Entry {
    fn new(id: &str, priority: &str, message: &str) -> Self {
        let mut entry = Self(Vec::new());
        entry.set("MESSAGE", &printable(message));
        entry.set("MESSAGE_ID", id);
        entry.set("PRIORITY", priority);
        entry.set("SYSLOG_IDENTIFIER", "assay");
        entry
    }

    /// Says what an entry is about: a container, and what was said about it.
    fn about(mut self, (namespace, container): (&str, &str), image: &str, digest: Option<Digest>) -> Self {
        self.set("ASSAY_NAMESPACE", namespace);
        self.set("ASSAY_CONTAINER", container);
        self.set("ASSAY_IMAGE", image);
        self.set(
            "ASSAY_DIGEST",
            &digest.map(|digest| digest.to_string()).unwrap_or_default(),
        );
        self
    }

    fn says(mut self, verdict: Verdict, code: &str, rule: Option<&str>) -> Self {
        self.set(
            "ASSAY_VERDICT",
            match verdict {
                Verdict::Allow => "allow",
                Verdict::Refuse => "refuse",
            },
        );
        self.set("ASSAY_CODE", code);
        self.set("ASSAY_RULE", rule.unwrap_or_default());
        self
    }

    /// Adds a field; an empty one is left out.
    fn set(&mut self, name: &str, value: &str) {
        let value = value.get(..value.floor_char_boundary(MAX_VALUE)).unwrap_or_default();
        if value.is_empty() {
            return;
        }
        self.0.extend(name.as_bytes());
        if value.contains('\n') {
            self.0.push(b'\n');
            self.0.extend((value.len() as u64).to_le_bytes());
        } else {
            self.0.push(b'=');
        }
        self.0.extend(value.as_bytes());
        self.0.push(b'\n');
    }

    /// Sends it, where there is a journal that takes it at once. `line` is its line of the decision log.
    pub(super) fn send(mut self, line: &[u8]) {
        self.set("ASSAY_DECISION", &super::log::short_id(line));
        // Without systemd there is no journal.
        let _ = self.send_to(Path::new(SOCKET));
    }

    fn send_to(&self, socket: &Path) -> std::io::Result<()> {
        let sender = UnixDatagram::unbound()?;
        // A container that starts does not wait for whoever reads about it.
        sender.set_nonblocking(true)?;
        sender.send_to(&self.0, socket).map(drop)
    }
}

/// What can be told to the journal.
pub trait Told {
    /// The entry about it.
    fn entry(&self) -> Entry;
}

impl Told for Decision {
    fn entry(&self) -> Entry {
        let priority = match self.verdict {
            Verdict::Allow => INFORMATION,
            Verdict::Refuse => WARNING,
        };
        let message = format!("container {}/{}: {}", self.namespace, self.container, self.line());
        let image = self.image.as_ref();
        let digest = image.map(|image| image.manifests.first().copied().unwrap_or(image.config));
        let mut entry = Entry::new(DECISION, priority, &message)
            .about((&self.namespace, &self.container), &self.name, digest)
            .says(self.verdict, &self.code, self.rule.as_deref());
        if let Some(pod) = &self.pod {
            entry.set("ASSAY_POD", &pod.name);
            entry.set("ASSAY_POD_NAMESPACE", &pod.namespace);
        }
        entry
    }
}

impl Told for Reevaluation {
    fn entry(&self) -> Entry {
        let Self {
            namespace,
            container,
            name,
            new,
            ..
        } = self;
        let message = format!("container {namespace}/{container} of {name}: {self}");
        let mut entry = Entry::new(REEVALUATION, WARNING, &message)
            .about((namespace, container), name, self.digest)
            .says(new.verdict, &new.code, new.rule.as_deref());
        let causes: Vec<&str> = self.cause.iter().map(|cause| cause.as_str()).collect();
        entry.set("ASSAY_STEP", self.step.as_str());
        entry.set("ASSAY_CAUSE", &causes.join(","));
        entry.set("ASSAY_ACTION", self.action.as_str());
        entry
    }
}

impl Told for ExecRecord {
    /// Without the arguments: they can hold secrets, and more people may read the journal than the log.
    fn entry(&self) -> Entry {
        let priority = match self.verdict {
            Verdict::Allow => INFORMATION,
            Verdict::Refuse => WARNING,
        };
        let message = format!(
            "container {}/{} of {}: exec of {} {}: {}: {}",
            self.namespace,
            self.container,
            self.name,
            self.program,
            word(self.verdict),
            self.code,
            self.reason
        );
        let mut entry = Entry::new(EXEC, priority, &message)
            .about((&self.namespace, &self.container), &self.name, self.digest)
            .says(self.verdict, &self.code, self.rule.as_deref());
        entry.set("ASSAY_PROGRAM", &self.program);
        entry
    }
}

impl Told for grant::Record {
    fn entry(&self) -> Entry {
        let mut entry = Entry::new(GRANT, WARNING, &self.to_string());
        match &self.grant.subject {
            Subject::Image(digest) => entry.set("ASSAY_DIGEST", &digest.to_string()),
            Subject::Container(container) => {
                entry.set("ASSAY_NAMESPACE", &container.namespace);
                entry.set("ASSAY_CONTAINER", &container.id);
            }
        }
        entry.set("ASSAY_GRANT", &self.grant.id);
        entry
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::{Request, reject};

    #[test]
    fn an_entry_is_what_the_journal_reads() {
        let decision = Decision {
            name: "registry.example/two\nlines".to_owned(),
            ..reject(&Request::parse(b"{").unwrap_err())
        };
        let bytes = decision.entry().0;
        let expected: &[&[u8]] = &[
            b"MESSAGE=container /: assay refused image registry.example/two\\u{a}lines: request-invalid: ",
            b"\nMESSAGE_ID=15bbd137d66a42248a667d64a52bbbd3\nPRIORITY=4\nSYSLOG_IDENTIFIER=assay\n",
            b"\nASSAY_IMAGE\n\x1a\0\0\0\0\0\0\0registry.example/two\nlines\n",
            b"\nASSAY_VERDICT=refuse\nASSAY_CODE=request-invalid\n",
        ];
        for part in expected {
            assert!(
                bytes.windows(part.len()).any(|window| window == *part),
                "{}\n{}",
                String::from_utf8_lossy(part),
                String::from_utf8_lossy(&bytes)
            );
        }
        assert!(!String::from_utf8_lossy(&bytes).contains("ASSAY_RULE"));
    }

    #[test]
    fn a_journal_that_does_not_read_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let mut entry = Entry(Vec::new());
        for _ in 0..20 {
            entry.set("LONG", &"x".repeat(100_000));
        }
        assert!(entry.send_to(&path).is_err());
        let journal = UnixDatagram::bind(&path).unwrap();
        // As large as they come.
        entry.send_to(&path).unwrap();
        let mut read = vec![0; 1 << 20];
        assert_eq!(journal.recv(&mut read).unwrap(), entry.0.len());
        while entry.send_to(&path).is_ok() {}
    }
}
