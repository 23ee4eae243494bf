//! What another policy would decide differently, about the images that this node knows and the containers that exist.
//!
//! Both policies are asked about the same images with the same evidence at the same time, by the way of a container: the
//! evidence is judged by a parser in its cage, and nothing that was remembered counts. Nothing is recorded.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;

use super::broker::block_on;
use super::desk::EVIDENCE;
use super::images::rule_again;
use super::parser::{self, ParserFault};
use super::ruling::{self, Case, Ruling};
use super::{Audit, Basis, Decision, Verdict, log};
use crate::config::Config;
use crate::diagnostic::printable;
use crate::digest::Digest;
use crate::evidence;
use crate::grant::{self, Grants};
use crate::identity::{self, Census, Image, Inhabitant, Upper};
use crate::oci::{self, Index, Layout, LayoutError, Manifest};
use crate::policy::{Active, Kind, Mode, Reevaluate};
use crate::store::{self, StateDir};
use crate::trust::clock::Clock;
use crate::verify::{Answer, Problem, Span};

/// containerd namespace that images of the evidence cache are judged in.
const KUBERNETES: &str = "k8s.io";

/// What was compared, and what came out differently.
#[derive(Debug, Default, Serialize)]
pub struct Comparison {
    /// How many images were compared.
    pub images: usize,
    /// How many containers were compared.
    pub containers: usize,
    /// What the policies say different things about: containers first.
    pub changes: Vec<Change>,
    /// What could not be compared, and why; one sentence each.
    pub not_compared: Vec<String>,
}

/// An image or a container about which two policies say different things.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Container id; `None` for an image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// containerd namespace.
    pub namespace: String,
    /// Kubernetes namespace; `None` outside of Kubernetes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubernetes_namespace: Option<String>,
    /// Image name; may be empty.
    pub image: String,
    /// Digest of the manifest.
    pub digest: Digest,
    /// What the old policy says.
    pub old: Word,
    /// What the new policy says.
    pub new: Word,
}

/// What a policy says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Word {
    /// Whether it may run.
    pub verdict: Verdict,
    /// Stable code of the reason.
    pub code: String,
    /// Name of the rule that decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The reason in a sentence.
    pub reason: String,
    /// What to do about a refusal.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub fix: String,
    /// What audit rules would say under `enforce`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub audit: Vec<Audit>,
    /// Whether a refusal is the policy's word, and no trouble with judging.
    #[serde(skip)]
    pub policy: bool,
    /// When an allow holds.
    #[serde(skip)]
    pub span: Span,
    /// What the rule wants done with a running container that it refuses.
    #[serde(skip)]
    pub reevaluate: Reevaluate,
}

/// Why nothing was compared.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// The state directory cannot be used.
    #[error("{0}")]
    State(#[from] store::Error),
    /// The evidence cache cannot be read.
    #[error("the evidence cache cannot be read: {0}; an import (assay evidence import PATH) rebuilds it")]
    Evidence(#[from] LayoutError),
}

impl Change {
    /// Whether it may run now and may not under the new policy.
    #[must_use]
    pub fn is_refused_anew(&self) -> bool {
        (self.old.verdict, self.new.verdict) == (Verdict::Allow, Verdict::Refuse)
    }
}

impl From<Ruling> for Word {
    fn from(ruling: Ruling) -> Self {
        Self {
            verdict: ruling.verdict,
            code: ruling.code,
            rule: ruling.rule,
            reason: ruling.reason,
            fix: ruling.fix,
            audit: ruling.audit,
            policy: ruling.policy,
            span: ruling.span,
            reevaluate: ruling.reevaluate,
        }
    }
}

impl Word {
    /// Whether both decide alike: verdict, code and rule, those of audit rules too. Sentences may differ.
    fn is_like(&self, other: &Self) -> bool {
        let audits = |word: &Self| -> Vec<(String, Verdict, String)> {
            let audit = word.audit.iter();
            audit
                .map(|said| (said.rule.clone(), said.verdict, said.code.clone()))
                .collect()
        };
        (self.verdict, &self.code, &self.rule) == (other.verdict, &other.code, &other.rule)
            && audits(self) == audits(other)
    }
}

/// Compares what `old` and `new` say about every image of the evidence cache and of the containerd at `address`, and
/// about every container of that containerd.
///
/// An image is judged as a container outside of Kubernetes, and as one in each Kubernetes namespace that containers of
/// this node are in. A container is judged as it was when it was decided on, or, where that is not on record, by the
/// image that its record names. What containerd does not answer is among [`Comparison::not_compared`].
///
/// # Errors
/// See [`CompareError`].
pub fn compare(config: &Config, old: &Active, new: &Active, address: &str) -> Result<Comparison, CompareError> {
    let differs = |change: &Change| !change.old.is_like(&change.new);
    let mut bench = Bench::open(config, [old, new], differs)?;
    let (mut comparison, census, namespaces) = bench.node(address)?;
    let (cached, nameless) = cached(bench.evidence.as_ref(), &census)?;
    for image in cached {
        comparison.images += 1;
        comparison.changes.extend(bench.image(KUBERNETES, &image, &namespaces));
    }
    if nameless > 0 {
        comparison.not_compared.push(format!(
            "{nameless} of the images in the evidence cache: they have no name there, by which a rule could be found"
        ));
    }
    Ok(comparison)
}

/// What `active` would refuse on this node if all its audit rules were enforced: every image and container of the
/// containerd at `address`. The new word of each change is what enforcing would say.
///
/// # Errors
/// See [`CompareError`].
pub fn enforced(config: &Config, active: &Active, address: &str) -> Result<Comparison, CompareError> {
    let enforced = enforcing(active);
    let refused = |change: &Change| change.new.verdict == Verdict::Refuse;
    let mut bench = Bench::open(config, [active, &enforced], refused)?;
    Ok(bench.node(address)?.0)
}

/// A policy whose audit rules decide.
fn enforcing(active: &Active) -> Active {
    let mut enforced = active.clone();
    for rule in &mut enforced.rules {
        if rule.mode == Mode::Audit {
            rule.mode = Mode::Enforce;
        }
    }
    enforced
}

/// What `active` says about sandboxes of the image `name`.
///
/// # Errors
/// Why that is not known, in a sentence.
pub fn sandbox(config: &Config, active: &Active, address: &str, name: &str) -> Result<Word, String> {
    let mut bench = Bench::open(config, [active, active], |_| true).map_err(|error| error.to_string())?;
    let image = bench.look_up(address, KUBERNETES, name)?;
    Ok(bench.about(Kind::Sandbox, KUBERNETES, None, &image).0.new)
}

/// What containerd has, and the Kubernetes namespaces that containers are in.
type Known = (Comparison, Census, BTreeSet<Option<String>>);

impl Bench<'_> {
    /// Judges everything that containerd has.
    fn node(&mut self, address: &str) -> Result<Known, CompareError> {
        let mut comparison = Comparison::default();
        let census = match identity::census(address) {
            Ok(census) => census,
            Err(fault) => {
                let missing = format!("{fault}: its images and containers were not compared");
                comparison.not_compared.push(printable(&missing).into_owned());
                Census::default()
            }
        };
        let mut namespaces = BTreeSet::from([None]);
        let mut recorded = self.recorded(&census)?;
        for container in &census.containers {
            let key = (container.namespace.clone(), container.id.clone());
            let judged = match recorded.remove(&key) {
                Some(decision) => self.recorded_container(&decision),
                None => self.container(address, container),
            };
            match judged {
                Ok((change, namespace)) => {
                    namespaces.insert(namespace);
                    comparison.containers += 1;
                    comparison.changes.extend(self.kept(change));
                }
                Err(why) => comparison.not_compared.push(format!(
                    "the container {} (namespace {}) was not compared: {}",
                    printable(&container.id),
                    printable(&container.namespace),
                    printable(&why)
                )),
            }
        }
        for (namespace, name, _) in &census.named {
            // CRI's own records of images, under the digest of their configuration; no pod names an image so.
            if name.parse::<Digest>().is_ok() {
                continue;
            }
            match self.look_up(address, namespace, name) {
                Ok(image) => {
                    comparison.images += 1;
                    comparison.changes.extend(self.image(namespace, &image, &namespaces));
                }
                Err(why) => comparison.not_compared.push(format!(
                    "the image {} (namespace {}) was not compared: {}",
                    printable(name),
                    printable(namespace),
                    printable(&why)
                )),
            }
        }
        Ok((comparison, census, namespaces))
    }
}

/// Two policies and what they judge by.
struct Bench<'a> {
    policies: [&'a Active; 2],
    state: Option<StateDir>,
    evidence: Option<StateDir>,
    clock: Clock,
    patience: Duration,
    /// What the evidence says about some digests, to each policy: the same in every namespace.
    answers: [Answers; 2],
    /// What is worth telling.
    keep: fn(&Change) -> bool,
}

/// What policies are asked about.
#[derive(Debug)]
pub(super) enum About<'a> {
    Case(Case<'a>),
    /// A container as it was decided on.
    Decision(&'a Decision, &'a Basis, &'a Image),
}

/// What is said about one image or container by both policies.
struct Both(Change);

impl<'a> Bench<'a> {
    fn open(config: &Config, policies: [&'a Active; 2], keep: fn(&Change) -> bool) -> Result<Self, CompareError> {
        let now = Timestamp::now();
        // On a machine that is no node yet there is nothing to read, and nothing is made.
        let state = config
            .state
            .exists()
            .then(|| StateDir::open(&config.state))
            .transpose()?;
        let evidence = state.as_ref().map(|state| state.subdir(EVIDENCE)).transpose()?;
        Ok(Self {
            policies,
            clock: state.as_ref().map_or(Clock { now, mark: Some(now) }, Clock::read),
            state,
            evidence,
            patience: config.admit_timeout,
            answers: Default::default(),
            keep,
        })
    }

    fn kept(&self, both: Both) -> Option<Change> {
        Some(both.0).filter(self.keep)
    }

    /// Asks both policies about a case.
    fn words(&mut self, about: &About<'_>) -> [Word; 2] {
        let evidence = self.evidence.as_ref();
        let [old, new] = &mut self.answers;
        let word = |active, answers| {
            let mut judge = Judge {
                active,
                evidence,
                clock: self.clock,
                patience: self.patience,
                // What is opened for hours says nothing about a policy.
                grants: &grant::NONE,
                answers,
            };
            judge.word(about)
        };
        [word(self.policies[0], old), word(self.policies[1], new)]
    }

    /// The latest decision about each container that exists, where it says what was decided about.
    fn recorded(&self, census: &Census) -> Result<BTreeMap<(String, String), Decision>, CompareError> {
        let mut recorded = BTreeMap::new();
        let Some(state) = &self.state else {
            return Ok(recorded);
        };
        let existing: BTreeSet<(&str, &str)> = census
            .containers
            .iter()
            .map(|container| (container.namespace.as_str(), container.id.as_str()))
            .collect();
        log::read(state, |entry| {
            let decision = entry.decision;
            if !existing.contains(&(decision.namespace.as_str(), decision.container.as_str())) {
                return;
            }
            let key = (decision.namespace.clone(), decision.container.clone());
            if decision.image.is_some() && decision.basis.is_some() {
                recorded.insert(key, decision);
            } else {
                recorded.remove(&key);
            }
        })?;
        Ok(recorded)
    }

    /// What both say about a container that was decided on.
    fn recorded_container(&mut self, decision: &Decision) -> Result<(Both, Option<String>), String> {
        let (Some(image), Some(basis)) = (&decision.image, &decision.basis) else {
            return Err("its decision does not say what it was about".to_owned());
        };
        let [old, new] = self.words(&About::Decision(decision, basis, image));
        let change = Change {
            container: Some(decision.container.clone()),
            namespace: decision.namespace.clone(),
            kubernetes_namespace: basis.kubernetes_namespace.clone(),
            image: decision.name.clone(),
            digest: shown(image),
            old,
            new,
        };
        Ok((Both(change), basis.kubernetes_namespace.clone()))
    }

    /// What both say about a container that was never decided on, or so long ago that it is not known.
    fn container(&mut self, address: &str, container: &Inhabitant) -> Result<(Both, Option<String>), String> {
        let image = self
            .look_up(address, &container.namespace, &container.name)
            .map_err(|why| format!("no decision about it is on record, and its image is not known: {why}"))?;
        let kind = if container.is_sandbox {
            Kind::Sandbox
        } else {
            Kind::Container
        };
        let namespace = container.kubernetes_namespace.clone();
        let mut change = self.about(kind, &container.namespace, namespace.clone(), &image);
        change.0.container = Some(container.id.clone());
        Ok((change, namespace))
    }

    /// What both say about an image, wherever they do not agree. What is said in a Kubernetes namespace is not listed
    /// where the same is said outside of Kubernetes.
    fn image(&mut self, namespace: &str, image: &Image, namespaces: &BTreeSet<Option<String>>) -> Vec<Change> {
        let mut changes: Vec<Change> = Vec::new();
        // The first of them is none.
        for kubernetes in namespaces {
            let both = self.about(Kind::Container, namespace, kubernetes.clone(), image);
            if let Some(change) = self.kept(both)
                && !changes.first().is_some_and(|first| {
                    first.kubernetes_namespace.is_none()
                        && first.old.is_like(&change.old)
                        && first.new.is_like(&change.new)
                })
            {
                changes.push(change);
            }
        }
        changes
    }

    fn about(&mut self, kind: Kind, namespace: &str, kubernetes_namespace: Option<String>, image: &Image) -> Both {
        let case = Case {
            name: &image.name,
            kubernetes_namespace: kubernetes_namespace.as_deref(),
            namespace,
            container: "",
            kind,
            image: Some(image),
            fault: None,
            upper: Upper::Empty,
            workload: None,
            seen: &[],
            clock: self.clock,
            grants: &grant::NONE,
        };
        let [old, new] = self.words(&About::Case(case));
        Both(Change {
            container: None,
            namespace: namespace.to_owned(),
            image: printable(&image.name).into_owned(),
            digest: shown(image),
            old,
            new,
            kubernetes_namespace,
        })
    }

    /// The image that a name stands for in containerd.
    fn look_up(&self, address: &str, namespace: &str, name: &str) -> Result<Image, String> {
        let started = Instant::now();
        block_on(
            started + self.patience,
            started,
            identity::image(address, namespace, name),
        )
        .map_err(|obstacle| obstacle.to_string())
    }
}

/// One policy and what it judges by.
#[derive(Debug)]
pub(super) struct Judge<'a> {
    pub(super) active: &'a Active,
    /// None where there is no cache.
    pub(super) evidence: Option<&'a StateDir>,
    pub(super) clock: Clock,
    pub(super) patience: Duration,
    /// What an administrator opened.
    pub(super) grants: &'a Grants,
    /// What the evidence says about some digests, as far as it was asked.
    pub(super) answers: &'a mut Answers,
}

/// What the evidence says about some digests.
pub(super) type Answers = BTreeMap<Vec<Digest>, Answer>;

impl Judge<'_> {
    pub(super) fn word(&mut self, about: &About<'_>) -> Word {
        let Self {
            active,
            evidence,
            clock,
            patience,
            grants,
            answers,
        } = self;
        let mut rule = |case: &Case<'_>| {
            ruling::rule(active, case, &mut |subjects| {
                ask(active, *evidence, subjects, *clock, *patience, answers)
            })
        };
        Word::from(match about {
            About::Case(case) => rule(case),
            About::Decision(decision, basis, image) => rule_again(decision, basis, image, (*clock, *grants), &mut rule),
        })
    }
}

/// What the evidence says to `active` about `subjects`; asked once.
fn ask(
    active: &Active,
    evidence: Option<&StateDir>,
    subjects: &[Digest],
    clock: Clock,
    patience: Duration,
    known: &mut Answers,
) -> Result<Answer, ParserFault> {
    let mut key = subjects.to_vec();
    key.sort();
    if let Some(answer) = known.get(&key) {
        return Ok(answer.clone());
    }
    let answer = match evidence {
        Some(evidence) => {
            let question = active.question(subjects, clock.now);
            parser::ask(evidence.as_fd(), &question, Instant::now() + patience)?.answer
        }
        None => Answer {
            findings: vec![Problem::CacheEmpty.finding(None)],
            ..Answer::default()
        },
    };
    known.insert(key, answer.clone());
    Ok(answer)
}

/// Images of the evidence cache under each name by which containerd does not have them, for this node's platform;
/// and how many there are that have no name.
fn cached(cache: Option<&StateDir>, census: &Census) -> Result<(Vec<Image>, usize), CompareError> {
    let Some(cache) = cache else {
        return Ok((Vec::new(), 0));
    };
    let layout = Layout::new(cache.as_fd());
    let document = |digest: Digest| layout.blob_by_digest(digest, oci::MAX_DOCUMENT).ok();
    let known = evidence::inventory(cache)?.images;
    let parts: BTreeSet<Digest> = known.iter().flat_map(|image| &image.manifests).copied().collect();
    let (mut images, mut nameless) = (Vec::new(), 0);
    for image in known {
        // What stands for something only as a part of an index is judged as that.
        if image.names.is_empty() {
            let is_known = parts.contains(&image.digest) || census.images.contains(&image.digest);
            nameless += usize::from(!is_known);
            continue;
        }
        // Rules go by names: what containerd has under one of them says nothing about the others.
        let in_containerd = |name: &str| {
            let mut named = census.named.iter();
            named.any(|(_, known, digest)| known == name && *digest == image.digest)
        };
        let names: Vec<&String> = image.names.iter().filter(|name| !in_containerd(name)).collect();
        let listed = document(image.digest)
            .filter(|_| !image.manifests.is_empty())
            .and_then(|bytes| listed(&bytes));
        let (manifests, indexes) = match listed {
            Some(manifests) => (manifests, vec![image.digest]),
            None => (vec![image.digest], Vec::new()),
        };
        for manifest in manifests {
            // Where the cache does not hold the manifest, it stands for its configuration.
            let config = document(manifest)
                .and_then(|bytes| Manifest::parse(&bytes, oci::MANIFEST).ok())
                .map_or(manifest, |manifest| manifest.config.digest);
            images.extend(names.iter().map(|name| Image {
                name: (*name).clone(),
                config,
                manifests: vec![manifest],
                indexes: indexes.clone(),
                chain_id: manifest,
            }));
        }
    }
    Ok((images, nameless))
}

/// Manifests of this node's platform that an index lists; `None` where the document is no index.
pub(super) fn listed(document: &[u8]) -> Option<Vec<Digest>> {
    let kinds = [oci::INDEX, oci::DOCKER_INDEX];
    let index = kinds.iter().find_map(|kind| Index::parse(document, kind).ok())?;
    let here = index.manifests.into_iter().filter(|child| {
        let platform = child.platform.as_ref();
        oci::is_manifest(&child.media_type) && platform.is_none_or(identity::is_this_platform)
    });
    Some(here.map(|child| child.digest).collect())
}

fn shown(image: &Image) -> Digest {
    image.manifests.first().copied().unwrap_or(image.config)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_cached_image_is_left_out_only_under_the_name_that_containerd_has_it_by() {
        let folder = tempfile::tempdir().unwrap();
        let cache = StateDir::open(&folder.path().canonicalize().unwrap().join("evidence")).unwrap();
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/evidence");
        evidence::import(&cache, &[fixtures.join("oras")]).unwrap();
        let digest = std::fs::read_to_string(fixtures.join("manifest.digest")).unwrap();
        let digest: Digest = digest.trim().parse().unwrap();
        let index = cache.path().join("index.json");
        let mut listed: serde_json::Value = serde_json::from_slice(&std::fs::read(&index).unwrap()).unwrap();
        let entries = listed["manifests"].as_array_mut().unwrap();
        let image = entries
            .iter_mut()
            .find(|entry| entry["digest"] == digest.to_string())
            .unwrap();
        image["annotations"]["dev.assay.evidence.image"] = "r.example/app:1,r.example/app:2".into();
        std::fs::write(&index, listed.to_string()).unwrap();
        let names = |census: &Census| -> Vec<String> {
            let (images, _) = cached(Some(&cache), census).unwrap();
            images.into_iter().map(|image| image.name).collect()
        };
        assert_eq!(names(&Census::default()), ["r.example/app:1", "r.example/app:2"]);
        let held = |digest: Digest| Census {
            images: BTreeSet::from([digest]),
            named: BTreeSet::from([(KUBERNETES.to_owned(), "r.example/app:1".to_owned(), digest)]),
            containers: Vec::new(),
        };
        assert_eq!(names(&held(digest)), ["r.example/app:2"]);
        // The name stands for something else there: what was pulled is yet to come.
        assert_eq!(
            names(&held(Digest::of(b"before"))),
            ["r.example/app:1", "r.example/app:2"]
        );
    }
}
