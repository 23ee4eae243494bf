//! Reading the decision log, and writing to it.
//!
//! Beside decisions it holds what became of containers that were judged again while they ran, and of further processes
//! in them, and of grants.
//!
//! A line is found by its own digest, so that an identifier that someone noted down stands for exactly what was written
//! then.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

use super::again::Reevaluation;
use super::exec::ExecRecord;
use super::journal::Told;
use super::{Decision, MAX_DECISION, Verdict};
use crate::digest::Digest;
use crate::grant::Record;
use crate::store::{self, Bookmark, StateDir};

/// Name of the decision log below `state`.
pub const LOG: &str = "decisions.jsonl";
/// Size at which the decision log is rotated, in bytes. One older log is kept.
const MAX_LOG: u64 = 64 << 20;
/// Name of the older decision log below `state`.
const OLDER_LOG: &str = "decisions.jsonl.1";
/// Longest identifier of a decision that is shown, in hexadecimal digits.
const SHOWN_ID: usize = 12;
/// Shortest start of an identifier or of a container id that is looked for.
pub const MIN_PREFIX: usize = 8;

/// A line of the decision log.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// SHA-256 of the line, hexadecimal.
    id: String,
    /// What it says.
    pub decision: Decision,
}

/// What of the log could not be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unread {
    /// Lines that are no decision of this version.
    pub lines: usize,
}

impl Entry {
    /// The start of the line's digest, which is enough to find it again.
    #[must_use]
    pub fn id(&self) -> &str {
        self.id.get(..SHOWN_ID).unwrap_or(&self.id)
    }
}

/// What a line of the log is about.
#[derive(Debug, Clone, PartialEq)]
pub enum Line {
    /// A container that was to be started.
    Decision(Box<Entry>),
    /// A container that was judged again while it ran, and the start of the line's digest.
    Reevaluation(String, Box<Reevaluation>),
    /// A further process in a container, and the start of the line's digest.
    Exec(String, Box<ExecRecord>),
    /// A grant that was added or revoked, and the start of the line's digest.
    Grant(String, Box<Record>),
}

impl Line {
    /// The start of the line's digest, which is enough to find it again.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::Decision(entry) => entry.id(),
            Self::Reevaluation(id, _) | Self::Exec(id, _) | Self::Grant(id, _) => id,
        }
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let id = || Digest::of(bytes).hex();
        if let Ok(decision) = serde_json::from_slice(bytes) {
            return Some(Self::Decision(Box::new(Entry { id: id(), decision })));
        }
        let shown = short_id(bytes);
        if let Ok(exec) = serde_json::from_slice(bytes) {
            return Some(Self::Exec(shown, Box::new(exec)));
        }
        if let Ok(grant) = serde_json::from_slice(bytes) {
            return Some(Self::Grant(shown, Box::new(grant)));
        }
        let again = serde_json::from_slice(bytes).ok()?;
        Some(Self::Reevaluation(shown, Box::new(again)))
    }
}

/// Hands every line that was appended since `at` to `line`, and moves `at` behind them; with a new bookmark, every line.
///
/// # Errors
/// A log that cannot be read.
pub fn follow(state: &StateDir, at: &mut Bookmark, mut line: impl FnMut(Line)) -> Result<Unread, store::Error> {
    let mut others = 0;
    let limit = usize::try_from(MAX_DECISION).unwrap_or(usize::MAX);
    let skipped = state.lines_after(LOG, at, limit, |bytes| match Line::parse(bytes) {
        Some(read) => line(read),
        None => others += 1,
    })?;
    Ok(Unread {
        lines: others + skipped,
    })
}

/// The start of a line's digest, which is enough to find it again.
pub(super) fn short_id(line: &[u8]) -> String {
    let mut id = Digest::of(line).hex();
    id.truncate(SHOWN_ID);
    id
}

/// Writes a line, and tells the journal: a [`Decision`], a [`Reevaluation`], an [`ExecRecord`], a [`Record`] of a grant.
///
/// # Errors
/// A log that cannot be written. The journal hears nothing then.
pub fn record(state: &StateDir, what: &(impl Serialize + Told)) -> Result<(), store::Error> {
    // Strings, numbers and lists only: there is always a JSON form.
    let line = serde_json::to_string(what).unwrap_or_default();
    state.append(LOG, &line, MAX_LOG)?;
    what.entry().send(line.as_bytes());
    Ok(())
}

/// Hands every line that is a `T` to `line`, with its bytes, the oldest first.
fn lines<T: DeserializeOwned>(state: &StateDir, mut line: impl FnMut(&[u8], T)) -> Result<Unread, store::Error> {
    let mut unread = Unread::default();
    let limit = usize::try_from(MAX_DECISION).unwrap_or(usize::MAX);
    for name in [OLDER_LOG, LOG] {
        let mut others = 0;
        let skipped = state.lines(name, limit, |bytes| match serde_json::from_slice(bytes) {
            Ok(read) => line(bytes, read),
            Err(_) => others += 1,
        })?;
        unread.lines += others + skipped;
    }
    Ok(unread)
}

/// Hands every decision that was recorded to `entry`, the oldest first.
///
/// # Errors
/// A log that cannot be read.
pub fn read(state: &StateDir, mut entry: impl FnMut(Entry)) -> Result<Unread, store::Error> {
    follow(state, &mut Bookmark::default(), |line| {
        if let Line::Decision(decision) = line {
            entry(*decision);
        }
    })
}

/// Namespace and id of a container.
pub type Container = (String, String);

/// The manifests in the evidence cache that the last allow of each container rests on. A container without an entry
/// was never allowed, or so long ago that the log does not know.
///
/// # Errors
/// A log that cannot be read.
pub fn evidence_by_container(state: &StateDir) -> Result<BTreeMap<Container, BTreeSet<Digest>>, store::Error> {
    /// The few fields that matter: what other versions decided on stays needed as well.
    #[derive(Deserialize)]
    struct Line {
        namespace: String,
        container: String,
        verdict: Verdict,
        #[serde(default)]
        evidence: Vec<Piece>,
        /// What no decision has.
        kind: Option<IgnoredAny>,
    }
    #[derive(Deserialize)]
    struct Piece {
        #[serde(alias = "manifest")]
        evidence: Digest,
        chain: Option<Chain>,
    }
    #[derive(Deserialize)]
    struct Chain {
        signature: Digest,
    }
    let mut found = BTreeMap::new();
    // Half a line is what a crash leaves; its container is one that the log does not know.
    lines(state, |_, line: Line| {
        let manifests = |piece: Piece| [Some(piece.evidence), piece.chain.map(|chain| chain.signature)];
        if line.kind.is_none() && line.verdict == Verdict::Allow {
            let evidence = line.evidence.into_iter().flat_map(manifests).flatten().collect();
            found.insert((line.namespace, line.container), evidence);
        }
    })?;
    Ok(found)
}

/// The latest line whose identifier starts with `wanted`, or the latest decision about a container of that id (or an id
/// that starts so, of which at least [`MIN_PREFIX`] characters are given).
///
/// # Errors
/// A log that cannot be read.
pub fn find(state: &StateDir, wanted: &str) -> Result<(Option<Line>, Unread), store::Error> {
    let starts = |text: &str| wanted.len() >= MIN_PREFIX && text.starts_with(wanted);
    // An identifier may be given in full, of which a line other than a decision keeps the start.
    let is_id = |id: &str| starts(id) || (wanted.len() > id.len() && id.len() >= SHOWN_ID && wanted.starts_with(id));
    let mut found = None;
    let unread = follow(state, &mut Bookmark::default(), |line| {
        let is_it = match &line {
            Line::Decision(entry) => {
                let container = &entry.decision.container;
                starts(&entry.id) || starts(container) || (!wanted.is_empty() && container == wanted)
            }
            other => is_id(other.id()),
        };
        if is_it {
            found = Some(line);
        }
    })?;
    Ok((found, unread))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::VERSION;

    fn decision(container: &str, code: &str) -> Decision {
        let refused = super::super::reject(&super::super::Request::parse(b"{").unwrap_err());
        Decision {
            version: VERSION,
            verdict: Verdict::Refuse,
            container: container.to_owned(),
            code: code.to_owned(),
            ..refused
        }
    }

    #[test]
    fn a_decision_is_found_by_its_digest_or_by_its_container() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(&folder.path().canonicalize().unwrap().join("state")).unwrap();
        assert_eq!(find(&state, "web").unwrap(), (None, Unread::default()));
        let long = "f00dfeed".repeat(8);
        for (name, container, code) in [
            (OLDER_LOG, "web", "first"),
            (LOG, "web", "second"),
            (LOG, "other", "third"),
            (LOG, &long, "fourth"),
        ] {
            state.append(name, &decision(container, code).json(), 1 << 20).unwrap();
        }
        state.append(LOG, "{\"version\":1}", 1 << 20).unwrap();
        let code = |wanted: &str| match find(&state, wanted).unwrap().0 {
            Some(Line::Decision(entry)) => Some(entry.decision.code),
            _ => None,
        };
        assert_eq!(code("web").as_deref(), Some("second"));
        assert_eq!(code("we"), None);
        assert_eq!(code(""), None);
        assert_eq!(code(&long[..13]).as_deref(), Some("fourth"));
        assert_eq!(code(&long[..7]), None);
        let mut ids = Vec::new();
        let unread = read(&state, |entry| ids.push((entry.id().to_owned(), entry.decision.code))).unwrap();
        assert_eq!((ids.len(), unread.lines), (4, 1));
        let asked = crate::admission::exec::Asked {
            id: "probe",
            arguments: &["sh".to_owned()],
            terminal: false,
            user: 0,
        };
        let exec = serde_json::to_string(&ExecRecord::new(asked)).unwrap();
        state.append(LOG, &exec, 1 << 20).unwrap();
        let whole = Digest::of(exec.as_bytes()).hex();
        for id in [&whole, &whole[..SHOWN_ID], &whole[..MIN_PREFIX]] {
            let (found, _) = find(&state, id).unwrap();
            assert!(matches!(found, Some(Line::Exec(..))), "{id}: {found:?}");
        }
        for (id, said) in ids {
            assert_eq!(id.len(), SHOWN_ID);
            assert_eq!(code(&id), Some(said));
        }
    }

    #[test]
    fn the_last_allow_of_a_container_counts_whatever_else_the_log_holds() {
        let keep = tempfile::tempdir().unwrap();
        let state = StateDir::open(&keep.path().canonicalize().unwrap().join("state")).unwrap();
        assert_eq!(evidence_by_container(&state).unwrap(), BTreeMap::new());
        let digest = |what: &str| Digest::of(what.as_bytes());
        let line = |container: &str, verdict: &str, field: &str, what: &str| {
            format!(
                r#"{{"namespace":"k8s.io","container":"{container}","verdict":"{verdict}","evidence":[{{"{field}":"{}"}}]}}"#,
                digest(what)
            )
        };
        for (name, line) in [
            ("decisions.jsonl.1", line("a", "allow", "manifest", "old")),
            ("decisions.jsonl.1", line("b", "allow", "manifest", "rotated")),
            ("decisions.jsonl", line("a", "allow", "evidence", "new")),
            ("decisions.jsonl", line("a", "refuse", "evidence", "refused")),
            ("decisions.jsonl", "{\"namespace\":".to_owned()),
            // A process in a container rests on nothing of its own.
            (
                "decisions.jsonl",
                r#"{"namespace":"k8s.io","container":"b","verdict":"allow","kind":"exec"}"#.to_owned(),
            ),
            (
                "decisions.jsonl",
                format!(
                    r#"{{"namespace":"k8s.io","container":"c","verdict":"allow","evidence":[{{"evidence":"{}","chain":{{"signature":"{}","statement":"x"}}}}]}}"#,
                    digest("attestation"),
                    digest("signature")
                ),
            ),
        ] {
            state.append(name, &line, 1 << 20).unwrap();
        }
        let key = |id: &str| ("k8s.io".to_owned(), id.to_owned());
        assert_eq!(
            evidence_by_container(&state).unwrap(),
            BTreeMap::from([
                (key("a"), BTreeSet::from([digest("new")])),
                (key("b"), BTreeSet::from([digest("rotated")])),
                (key("c"), BTreeSet::from([digest("attestation"), digest("signature")])),
            ])
        );
    }
}
