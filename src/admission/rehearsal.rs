//! What a policy would say about images, for a pipeline: no containerd, no active policy, no parser in a cage. The
//! evidence is judged in this process, which is meant for a machine that has nothing to lose but the verdict.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use toml::Spanned;

use super::Verdict;
use super::ruling::{self, Case};
use crate::diagnostic::strict::{Reader, Table};
use crate::diagnostic::{Code, Diagnostic, Source};
use crate::digest::Digest;
use crate::evidence;
use crate::grant;
use crate::identity::{Image, Upper};
use crate::oci::{self, Layout, Manifest};
use crate::policy::{Active, Kind};
use crate::trust::clock::Clock;

const KEYS: &[&str] = &[
    "name",
    "image",
    "namespace",
    "containerd_namespace",
    "kind",
    "digest",
    "config",
    "indexes",
    "evidence",
    "expect",
    "code",
];
const KINDS: &[(&str, Kind)] = &[
    ("sandbox", Kind::Sandbox),
    ("container", Kind::Container),
    ("volume", Kind::Volume),
];
const VERDICTS: &[(&str, Verdict)] = &[("allow", Verdict::Allow), ("refuse", Verdict::Refuse)];

/// A `[[test]]`: an image and what the policy should say about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Test {
    /// Its name.
    pub name: String,
    image: String,
    namespace: Option<String>,
    containerd_namespace: String,
    kind: Kind,
    digest: Digest,
    config: Option<Digest>,
    indexes: Vec<Digest>,
    evidence: PathBuf,
    expect: Verdict,
    code: Option<String>,
}

/// What the policy said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Whether that is what the test expects.
    pub is_expected: bool,
    /// `allow` or `refuse`.
    pub verdict: &'static str,
    /// The code of the decision.
    pub code: String,
    /// Its reason.
    pub reason: String,
}

/// Why a test could not be run.
#[derive(Debug, thiserror::Error)]
pub enum RehearsalError {
    /// The evidence is not there.
    #[error("the evidence in {path} cannot be opened: {source}", path = path.display())]
    Evidence {
        /// Where it should be.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The evidence is no layout, or an empty one.
    #[error(
        "{path} holds no OCI image layout with evidence: {why}; make one with: oras copy --recursive --to-oci-layout",
        path = path.display()
    )]
    Layout {
        /// Where it should be.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// Reads a table of tests. Paths in it are relative to its folder.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load(path: &Path) -> Result<Vec<Test>, Vec<Diagnostic>> {
    let source = Source::read(path).map_err(|fault| vec![fault])?;
    let (mut reader, mut top) = Reader::new(&source, "a table of tests")?;
    let mut tests = Vec::new();
    reader.require(&top, "test");
    for mut table in reader.tables(&mut top, "test", "[[test]]") {
        tests.extend(parse(&mut reader, &mut table, &source));
        reader.finish(&table, KEYS, &[]);
    }
    reader.finish(&top, &["test"], &[]);
    let faults = reader.into_faults();
    if faults.is_empty() { Ok(tests) } else { Err(faults) }
}

fn parse<'s>(reader: &mut Reader<'s>, table: &mut Table<'s>, source: &Arc<Source>) -> Option<Test> {
    let name = reader.required_text(table, "name");
    let image = reader.required_text(table, "image");
    let namespace = reader.text(table, "namespace").map(Spanned::into_inner);
    let containerd_namespace = reader.text(table, "containerd_namespace");
    let kind = reader.choice(table, "kind", KINDS).unwrap_or(Kind::Container);
    let evidence = reader.required_text(table, "evidence");
    reader.require(table, "digest");
    let digest = digest_of(reader, table, "digest");
    let config = digest_of(reader, table, "config");
    let mut indexes = Vec::new();
    for text in reader.texts(table, "indexes") {
        indexes.extend(parse_digest(reader, &text));
    }
    reader.require(table, "expect");
    let expect = reader.choice(table, "expect", VERDICTS);
    let code = reader.text(table, "code").map(Spanned::into_inner);
    let folder = source.path.parent().unwrap_or(Path::new("."));
    Some(Test {
        name: name?.into_inner(),
        image: image?.into_inner(),
        namespace,
        containerd_namespace: containerd_namespace.map_or_else(|| "k8s.io".to_owned(), Spanned::into_inner),
        kind,
        digest: digest?,
        config,
        indexes,
        evidence: folder.join(evidence?.get_ref()),
        expect: expect?,
        code,
    })
}

fn digest_of(reader: &mut Reader<'_>, table: &mut Table<'_>, key: &str) -> Option<Digest> {
    let text = reader.text(table, key)?;
    parse_digest(reader, &text)
}

fn parse_digest(reader: &mut Reader<'_>, text: &Spanned<String>) -> Option<Digest> {
    text.get_ref()
        .parse()
        .map_err(|fault: crate::digest::InvalidDigest| {
            reader.fault(
                Code::InvalidDigest,
                text.span(),
                fault.to_string(),
                "",
                "the digest of a manifest",
            );
        })
        .ok()
}

impl Test {
    /// What it expects, in words.
    #[must_use]
    pub fn expected(&self) -> String {
        let verdict = word(self.expect);
        self.code
            .as_ref()
            .map_or_else(|| verdict.to_owned(), |code| format!("{verdict} {code}"))
    }

    /// Asks the policy.
    ///
    /// # Errors
    /// Evidence that cannot be opened, or that is no layout with evidence: a refusal for that says nothing about a policy.
    pub fn run(&self, active: &Active, now: Timestamp) -> Result<Said, RehearsalError> {
        let folder = File::open(&self.evidence).map_err(|source| RehearsalError::Evidence {
            path: self.evidence.clone(),
            source,
        })?;
        let layout = Layout::new(folder.as_fd());
        let unusable = |why: String| RehearsalError::Layout {
            path: self.evidence.clone(),
            why,
        };
        if folder.metadata().is_ok_and(|metadata| !metadata.is_dir()) {
            return Err(unusable("it is no folder".to_owned()));
        }
        if layout.index().map_err(|error| unusable(error.to_string()))?.is_empty() {
            return Err(unusable("its index.json lists nothing".to_owned()));
        }
        let manifest = layout
            .blob_by_digest(self.digest, oci::MAX_DOCUMENT)
            .ok()
            .and_then(|bytes| Manifest::parse(&bytes, oci::MANIFEST).ok());
        let image = Image {
            name: self.image.clone(),
            // Where the layout does not hold the image and the test does not say, the manifest stands for it.
            config: self
                .config
                .or(manifest.map(|manifest| manifest.config.digest))
                .unwrap_or(self.digest),
            manifests: vec![self.digest],
            indexes: self.indexes.clone(),
            chain_id: self.digest,
        };
        let case = Case {
            name: &self.image,
            kubernetes_namespace: self.namespace.as_deref(),
            namespace: &self.containerd_namespace,
            container: "",
            kind: self.kind,
            image: Some(&image),
            fault: None,
            upper: Upper::Empty,
            workload: None,
            // A pipeline has no mark of its own: its clock is taken as it is.
            clock: Clock { now, mark: Some(now) },
            grants: &grant::NONE,
            seen: &[],
        };
        let ruling = ruling::rule(active, &case, &mut |subjects| {
            Ok(evidence::judge(folder.as_fd(), &active.question(subjects, now)))
        });
        Ok(Said {
            is_expected: ruling.verdict == self.expect && self.code.as_ref().is_none_or(|code| *code == ruling.code),
            verdict: word(ruling.verdict),
            code: ruling.code,
            reason: ruling.reason,
        })
    }
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Allow => "allow",
        Verdict::Refuse => "refuse",
    }
}
