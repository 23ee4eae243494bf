//! What earlier decisions rest on, by the decision log.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::{LOG, Verdict};
use crate::digest::Digest;
use crate::store::{self, StateDir};

/// Largest log that is read: more than one is ever let grow to.
const MAX_LOG: u64 = 1 << 30;

/// Namespace and id of a container.
pub type Container = (String, String);

/// The manifests in the evidence cache that the last allow of each container rests on. A container without an entry
/// was never allowed, or so long ago that the log does not know.
///
/// # Errors
/// A log that cannot be read.
pub fn evidence_by_container(state: &StateDir) -> Result<BTreeMap<Container, BTreeSet<Digest>>, store::Error> {
    /// The few fields that matter: lines of other versions count as well.
    #[derive(Deserialize)]
    struct Line {
        namespace: String,
        container: String,
        verdict: Verdict,
        #[serde(default)]
        evidence: Vec<Piece>,
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
    for name in [format!("{LOG}.1"), LOG.to_owned()] {
        let log = state.read(&name, MAX_LOG)?.unwrap_or_default();
        for line in log.split(|byte| *byte == b'\n') {
            // Half a line is what a crash leaves; its container is one that the log does not know.
            if let Ok(Line {
                namespace,
                container,
                verdict: Verdict::Allow,
                evidence,
            }) = serde_json::from_slice(line)
            {
                let signature = |piece: &Piece| piece.chain.as_ref().map(|chain| chain.signature);
                let manifests = |piece: Piece| [Some(piece.evidence), signature(&piece)];
                let evidence = evidence.into_iter().flat_map(manifests).flatten().collect();
                found.insert((namespace, container), evidence);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

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
