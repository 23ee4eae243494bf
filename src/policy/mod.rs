//! The administrator's rules: which rule applies to a container, and whether the evidence is what it asks for.
//!
//! `schema` is what may be written in `policy.d`, `diags` what is said when it is wrong, [`activate`] puts both
//! policy and trust in force as one document. Selection and evaluation are pure functions of that document.
//! `docs/policy.md` is the same for those who write it.

pub mod activate;
mod check;
mod confine;
mod diags;
mod evaluate;
pub(crate) mod glob;
mod mirror;
mod pattern;
mod schema;
mod shortfall;
mod sources;
mod table;
mod tuning;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::attest::Condition;
use crate::digest::Digest;
use crate::evidence::{Certifier, Denied, DeniedEntry, Question};
use crate::trust::{Builder, BuilderSigner, Key, Root, SourceFile, TextPattern, TrustStore};

pub use check::{Checked, check};
pub use confine::{
    Action, Exec, ExecMode, Filesystem, Incomplete, Level, Privileged, Reevaluate, Runtime, Seccomp, SeccompMode,
    Unattested, Unavailable,
};
pub use evaluate::{Image, Outcome};
pub use mirror::Mirror;
pub use pattern::{ImageName, ImagePattern, InvalidPattern, NamespacePattern};
pub use sources::{FLEET, FOLDERS, Kept, Sources};
pub use table::{
    Asks, CertificatePattern, IdentityPattern, NotationPattern, Parameter, Provenance, Revocation, SbomFormat, Signed,
    SignerPattern, Table, Vsa,
};
pub use tuning::Tuning;

/// What is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The sandbox (pause) container of a pod.
    Sandbox,
    /// Any other container.
    Container,
    /// An image mounted as a volume.
    Volume,
}

/// What a rule's word is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// It decides.
    Enforce,
    /// It is noted, and the search goes on.
    Audit,
    /// The container runs unchecked.
    Off,
}

/// Of what a signature must be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// The manifest of the platform that runs.
    Platform,
    /// An index that lists this manifest.
    Index,
    /// One of them.
    #[default]
    Either,
}

/// What happens to a container that comes back with a changed upper layer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// It is refused.
    #[default]
    Refuse,
    /// It runs.
    Allow,
}

/// To which containers a rule applies. Every selector that is given must hold; a list holds when one element does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Match {
    /// Image names as the user wrote them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub image: Vec<ImagePattern>,
    /// Kubernetes namespaces. A container outside Kubernetes has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespace: Vec<NamespacePattern>,
    /// containerd namespaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub containerd_namespace: Vec<NamespacePattern>,
    /// Without one, sandboxes and containers; image volumes need a rule that names them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// Digests of the configuration, of a manifest or of an index.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub digest: Vec<Digest>,
}

/// A `[[rule]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Its name.
    pub name: String,
    /// To what it applies.
    pub r#match: Match,
    /// What its word is worth.
    pub mode: Mode,
    /// Evidence that it asks for; each table must be met.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<Table>,
    /// Digests of which one must be the image's; empty asks for nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub digest: Vec<Digest>,
    /// Conditions on the specification, and what is taken out of it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub runtime: Runtime,
    /// Which files the container sees.
    #[serde(default, skip_serializing_if = "is_default")]
    pub filesystem: Filesystem,
    /// Which system calls it can make.
    #[serde(default, skip_serializing_if = "is_default")]
    pub seccomp: Seccomp,
    /// Which further processes may be started in the container.
    #[serde(default, skip_serializing_if = "is_default")]
    pub exec: Exec,
    /// What becomes of a running container that it would not start any more.
    #[serde(default, skip_serializing_if = "is_default")]
    pub reevaluate: Reevaluate,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// What `[[deny]]` lists: the revocation list, before every rule and in every mode.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deny {
    /// Digests of configurations, manifests or indexes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub digest: Vec<Digest>,
    /// Identifiers of keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key: Vec<String>,
    /// Identities, whoever vouches for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub identity: Vec<TextPattern>,
    /// Email addresses, whoever vouches for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub email: Vec<String>,
    /// Entries of transparency logs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<DeniedEntry>,
}

/// The policy in force: policy and trust as they were when they were activated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Active {
    /// Version of this document, [`activate::VERSION`].
    pub version: u32,
    /// Counts activations that changed something.
    pub generation: u64,
    /// When it was activated.
    pub time: Timestamp,
    /// The files it was made from.
    pub sources: Vec<SourceFile>,
    /// Keys of trust.
    pub keys: Vec<Key>,
    /// Builders of trust.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub builders: Vec<Builder>,
    /// Trust stores of the Notary Project.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notation: Vec<TrustStore>,
    /// Trusted roots of trust.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roots: Vec<Root>,
    /// Rules of `closure.d`, file by file: its path and its text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub closure: Vec<(String, String)>,
    /// The revocation list.
    pub deny: Deny,
    /// Rules in the order in which they are searched.
    pub rules: Vec<Rule>,
    /// What is added to the seccomp profiles of images, or taken from them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tunings: Vec<Tuning>,
}

/// What selects a rule. Labels and annotations do not: image and pod authors write them.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a> {
    /// Image name as the user wrote it. It proves nothing.
    pub image: Option<&'a str>,
    /// Kubernetes namespace.
    pub kubernetes_namespace: Option<&'a str>,
    /// containerd namespace.
    pub containerd_namespace: &'a str,
    /// What is mounted.
    pub kind: Kind,
    /// Digests of the configuration, its manifests and their indexes.
    pub digests: &'a [Digest],
}

/// The rules that apply to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection<'a> {
    /// Audit rules that come before the decisive rule, in order.
    pub audits: Vec<&'a Rule>,
    /// The first rule that enforces or is off. Without one the container runs if there were audits, and is refused
    /// if there were none.
    pub decisive: Option<&'a Rule>,
}

impl Active {
    /// Whether every manifest and index of an image has to be known before anything is said about it: where a digest
    /// selects a rule or something is denied, one more may turn an allow into a refusal. Nothing else can.
    #[must_use]
    pub fn needs_every_digest(&self) -> bool {
        !is_default(&self.deny) || self.rules.iter().any(|rule| !rule.r#match.digest.is_empty())
    }

    /// Searches the rules in the order in which they were written.
    #[must_use]
    pub fn select(&self, attributes: &Attributes<'_>) -> Selection<'_> {
        let image = attributes.image.and_then(ImageName::parse);
        let mut audits = Vec::new();
        for rule in &self.rules {
            if !rule.r#match.applies(attributes, image.as_ref()) {
                continue;
            }
            match rule.mode {
                Mode::Audit => audits.push(rule),
                Mode::Enforce | Mode::Off => {
                    let decisive = Some(rule);
                    return Selection { audits, decisive };
                }
            }
        }
        Selection { audits, decisive: None }
    }

    /// Every selection that lets an image run or refuses it, before it is known where and as what it will: in whatever
    /// namespace, as whatever kind. Where not all of its digests are known, those that `digests` lacks may be among them.
    #[must_use]
    pub fn possible(&self, image: Option<&str>, digests: &[Digest], are_all_known: bool) -> Vec<Selection<'_>> {
        let image = image.and_then(ImageName::parse);
        let (mut audits, mut selections) = (Vec::new(), Vec::new());
        // Whether a rule was found that decides about everything but image volumes, which need one that names them.
        let mut is_settled = false;
        for rule in &self.rules {
            let wanted = &rule.r#match;
            let is_digest = wanted.digest.is_empty() || wanted.digest.iter().any(|digest| digests.contains(digest));
            let is_image =
                wanted.image.is_empty() || wanted.image.iter().any(|pattern| pattern.matches(image.as_ref()));
            let is_volume = wanted.kind == Some(Kind::Volume);
            if !is_image || (are_all_known && !is_digest) || (is_settled && !is_volume) {
                continue;
            }
            if rule.mode == Mode::Audit {
                audits.push(rule);
                continue;
            }
            selections.push(Selection {
                audits: audits.clone(),
                decisive: Some(rule),
            });
            let is_anywhere = wanted.namespace.is_empty() && wanted.containerd_namespace.is_empty();
            if is_anywhere && is_digest && wanted.kind.is_none() {
                is_settled = true;
                audits.clear();
            }
        }
        if !is_settled || !audits.is_empty() {
            selections.push(Selection { audits, decisive: None });
        }
        selections
    }
}

impl Match {
    fn applies(&self, attributes: &Attributes<'_>, image: Option<&ImageName>) -> bool {
        fn holds<T>(list: &[T], test: impl FnMut(&T) -> bool) -> bool {
            list.is_empty() || list.iter().any(test)
        }
        let kind = match self.kind {
            Some(kind) => kind == attributes.kind,
            None => attributes.kind != Kind::Volume,
        };
        kind && holds(&self.image, |pattern| pattern.matches(image))
            && holds(&self.namespace, |pattern| {
                attributes
                    .kubernetes_namespace
                    .is_some_and(|name| pattern.matches(name))
            })
            && holds(&self.containerd_namespace, |pattern| {
                pattern.matches(attributes.containerd_namespace)
            })
            && holds(&self.digest, |digest| attributes.digests.contains(digest))
    }

    /// Whether this certainly applies to all that `other` applies to.
    ///
    /// A sound approximation: selector by selector, pattern by pattern. It does not see that two patterns together
    /// cover a third, nor that two rules together cover another.
    fn covers(&self, other: &Self) -> bool {
        fn all<T>(wide: &[T], narrow: &[T], covers: impl Fn(&T, &T) -> bool) -> bool {
            wide.is_empty() || (!narrow.is_empty() && narrow.iter().all(|n| wide.iter().any(|w| covers(w, n))))
        }
        let kind = match (self.kind, other.kind) {
            (None, kind) => kind != Some(Kind::Volume),
            (wide, narrow) => wide == narrow,
        };
        // `**` is no restriction at all, even against a rule that has no `image`.
        let everything = self.image.iter().any(|pattern| pattern.is_everything());
        kind && (everything || all(&self.image, &other.image, ImagePattern::covers))
            && all(&self.namespace, &other.namespace, NamespacePattern::covers)
            && all(
                &self.containerd_namespace,
                &other.containerd_namespace,
                NamespacePattern::covers,
            )
            && all(&self.digest, &other.digest, |wide, narrow| wide == narrow)
    }
}

impl Rule {
    /// Whether it asks for nothing that could prove an image: an SBOM or a VEX document alone does not.
    fn requires_nothing(&self) -> bool {
        let proves = |table: &Table| matches!(table.asks, Asks::Signature | Asks::Provenance(_) | Asks::Vsa(_));
        self.digest.is_empty() && !self.tables.iter().any(proves)
    }
}

impl Deny {
    /// Whether it lists signers or their signatures, so that evidence must be looked at to know what it is about.
    #[must_use]
    pub fn needs_evidence(&self) -> bool {
        !self.key.is_empty() || !self.identity.is_empty() || !self.email.is_empty() || !self.log.is_empty()
    }
}

impl Active {
    /// What has to be known about the evidence of an image with these digests, at the time `now`.
    #[must_use]
    pub fn question(&self, subjects: &[Digest], now: Timestamp) -> Question {
        Question {
            subjects: subjects.to_vec(),
            keys: self.keys.clone(),
            roots: self.roots.clone(),
            notation: self.notation.clone(),
            certifiers: self.certifiers(),
            denied: Denied {
                uris: self.deny.identity.clone(),
                emails: self.deny.email.clone(),
                log: self.deny.log.clone(),
            },
            conditions: self.conditions(),
            purpose: None,
            through_index: self.tables().any(|table| table.signed == Signed::Index),
            now,
        }
    }

    fn tables(&self) -> impl Iterator<Item = &Table> {
        self.rules.iter().flat_map(|rule| &rule.tables)
    }

    /// Who certifies the signers that the rules and the builders name, each once.
    fn certifiers(&self) -> Vec<Certifier> {
        let signers = self
            .tables()
            .flat_map(|table| &table.any)
            .filter_map(|signer| match signer {
                SignerPattern::Certificate(pattern) => Some((&pattern.root, &pattern.issuer)),
                SignerPattern::Key(_) | SignerPattern::Notation(_) => None,
            });
        let builders = self.builders.iter().filter_map(|builder| match &builder.signer {
            BuilderSigner::Certificate { issuer, root, .. } => Some((root, issuer)),
            BuilderSigner::Key(_) => None,
        });
        let mut certifiers: Vec<Certifier> = Vec::new();
        for (root, issuer) in signers.chain(builders) {
            let certifier = Certifier {
                root: root.clone(),
                issuer: issuer.clone(),
            };
            if !certifiers.contains(&certifier) {
                certifiers.push(certifier);
            }
        }
        certifiers
    }

    /// The conditions of all rules, each once. A fact names those that hold for it by their number here.
    #[must_use]
    pub fn conditions(&self) -> Vec<Condition> {
        let mut conditions = Vec::new();
        for table in self.tables() {
            if let Some(condition) = table.condition()
                && !conditions.contains(&condition)
            {
                conditions.push(condition);
            }
        }
        conditions
    }
}
