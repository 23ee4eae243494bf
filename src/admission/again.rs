//! Judging a running container again: by the policy, the trust, the evidence and the time of now, as it was when it was
//! decided on; and the record of what came of it.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::comparison::{About, Answers, Judge, Word};
use super::ruling::digests;
use super::{Decision, VERSION, Verdict};
use crate::digest::Digest;
use crate::grant::Grants;
use crate::policy::{Action, Active};
use crate::store::StateDir;
use crate::trust::clock::Clock;

/// Codes of refusals that say more about the state of this node's evidence cache than about an image. A new container
/// is refused for them; a running one is not touched.
const UNREADABLE: &[&str] = &[
    "evidence-cache-unusable",
    "evidence-cache-empty",
    "evidence-missing",
    "evidence-corrupt",
    "evidence-unreadable",
];

/// What made the difference between two verdicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The rules or the deny list.
    Policy,
    /// Keys, roots, builders or trust stores.
    Trust,
    /// What lies in the evidence cache.
    Evidence,
    /// An age that was passed, or a window that ended.
    Time,
    /// A grant that was added, or ended, or was revoked.
    Grant,
}

/// What a record of a container that was judged again is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Another verdict than before.
    Changed,
    /// An action that will be done, where the verdict was recorded earlier.
    Announced,
    /// An action that was done.
    Done,
    /// An action that could not be done.
    Failed,
    /// An action that is not done after all.
    Dropped,
    /// It could not be judged; nothing is done.
    NotJudged,
}

/// Marks the record among those of decisions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The only one.
    #[default]
    Reevaluation,
}

/// A verdict, in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Said {
    /// Whether the container may run.
    pub verdict: Verdict,
    /// Stable code of the reason.
    pub code: String,
    /// Name of the rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The reason in a sentence.
    pub reason: String,
    /// What to do about a refusal.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub fix: String,
}

/// A line of the decision log about a container that was judged again while it ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reevaluation {
    /// Version of the document, that of decisions.
    pub version: u32,
    /// What tells it from a decision.
    pub kind: Kind,
    /// When it was written, RFC 3339, UTC.
    pub time: String,
    /// containerd namespace.
    pub namespace: String,
    /// Container id.
    pub container: String,
    /// Image name that the container was created with.
    pub name: String,
    /// Digest of the image's manifest.
    pub digest: Option<Digest>,
    /// What it is about.
    pub step: Step,
    /// What was said before.
    pub old: Said,
    /// What is said now; before as well where it could not be judged.
    pub new: Said,
    /// What made the difference; empty where there is none, or where it is not what this is about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cause: Vec<Cause>,
    /// What the rule wants done.
    pub action: Action,
    /// When it will be done, RFC 3339, UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// What was done, or why nothing is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

impl From<&Decision> for Said {
    fn from(decision: &Decision) -> Self {
        Self {
            verdict: decision.verdict,
            code: decision.code.clone(),
            rule: decision.rule.clone(),
            reason: decision.reason.clone(),
            fix: decision.fix.clone(),
        }
    }
}

impl From<&Word> for Said {
    fn from(word: &Word) -> Self {
        Self {
            verdict: word.verdict,
            code: word.code.clone(),
            rule: word.rule.clone(),
            reason: word.reason.clone(),
            fix: word.fix.clone(),
        }
    }
}

impl Reevaluation {
    /// A record about the container of `decision`, of this moment.
    #[must_use]
    pub fn new(decision: &Decision, step: Step, old: Said, new: Said, action: Action) -> Self {
        let image = decision.image.as_ref();
        Self {
            version: VERSION,
            kind: Kind::Reevaluation,
            time: Timestamp::now().to_string(),
            namespace: decision.namespace.clone(),
            container: decision.container.clone(),
            name: decision.name.clone(),
            digest: image.map(|image| image.manifests.first().copied().unwrap_or(image.config)),
            step,
            old,
            new,
            cause: Vec::new(),
            action,
            at: None,
            note: String::new(),
        }
    }
}

/// A verdict as people read it.
#[must_use]
pub fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Allow => "allowed",
        Verdict::Refuse => "refused",
    }
}

impl Cause {
    /// As it is written in records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Trust => "trust",
            Self::Evidence => "evidence",
            Self::Time => "time",
            Self::Grant => "grant",
        }
    }
}

impl Step {
    /// As it is written in records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Announced => "announced",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Dropped => "dropped",
            Self::NotJudged => "not-judged",
        }
    }
}

impl std::fmt::Display for Reevaluation {
    /// What happened, without the container.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (new, action) = (&self.new, self.action.as_str());
        match self.step {
            Step::Changed => {
                let (old, now) = (word(self.old.verdict), word(new.verdict));
                write!(f, "{now} while it runs (was {old}): {}: {}", new.code, new.reason)?;
                let cause: Vec<&str> = self.cause.iter().map(|cause| cause.as_str()).collect();
                write!(f, "; what changed: {}", cause.join(", "))?;
            }
            Step::Announced => write!(f, "still refused: {}: {}", new.code, new.reason)?,
            Step::Done => write!(f, "{action}: done")?,
            Step::Failed => write!(f, "{action}: failed")?,
            Step::Dropped => write!(f, "{action}: not done")?,
            Step::NotJudged => write!(f, "not judged, nothing is done")?,
        }
        if !self.note.is_empty() {
            write!(f, ": {}", self.note)?;
        }
        if let Some(at) = &self.at {
            write!(f, "; {action} at {at}")?;
        }
        if matches!(self.step, Step::Changed | Step::Announced) && !new.fix.is_empty() {
            write!(f, "; to fix: {}", new.fix)?;
        }
        Ok(())
    }
}

/// Whether a refusal is the policy's word about an image, and not trouble with judging it.
#[must_use]
pub fn is_sure(word: &Word) -> bool {
    word.verdict == Verdict::Allow || (word.policy && !UNREADABLE.contains(&word.code.as_str()))
}

/// One policy, the evidence, and one time, by which containers are judged again. What was found out about an image
/// counts for all of its containers.
#[derive(Debug)]
pub struct Review<'a> {
    active: &'a Active,
    evidence: &'a StateDir,
    clock: Clock,
    patience: Duration,
    grants: &'a Grants,
    answers: Answers,
}

impl<'a> Review<'a> {
    /// `patience` is how long the evidence of one image may take.
    #[must_use]
    pub fn new(
        active: &'a Active,
        evidence: &'a StateDir,
        clock: Clock,
        patience: Duration,
        grants: &'a Grants,
    ) -> Self {
        Self {
            active,
            evidence,
            clock,
            patience,
            grants,
            answers: Answers::new(),
        }
    }

    /// The word about what was decided on; `None` where the decision does not say what that was.
    pub fn word(&mut self, decision: &Decision) -> Option<Word> {
        let about = About::Decision(decision, decision.basis.as_ref()?, decision.image.as_ref()?);
        let mut judge = Judge {
            active: self.active,
            evidence: Some(self.evidence),
            clock: self.clock,
            patience: self.patience,
            grants: self.grants,
            answers: &mut self.answers,
        };
        Some(judge.word(&about))
    }

    /// Whether a grant opens what was decided on, or an image volume of it.
    #[must_use]
    pub fn is_opened(&self, decision: &Decision) -> bool {
        let volumes = decision.basis.iter().flat_map(|basis| &basis.volumes);
        let images = decision
            .image
            .iter()
            .chain(volumes.filter_map(|volume| volume.image.as_ref()));
        let digests: Vec<Digest> = images.flat_map(digests).collect();
        self.grants
            .opening(&digests, &decision.namespace, &decision.container, false)
            .is_ok()
    }
}

/// The rules and the deny list of one policy with the trust of another.
#[must_use]
pub fn crossed(rules: &Active, trust: &Active) -> Active {
    Active {
        deny: rules.deny.clone(),
        rules: rules.rules.clone(),
        tunings: rules.tunings.clone(),
        ..trust.clone()
    }
}

/// What is said with one thing put back to what it was when the old verdict was found, and all else as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PutBack {
    /// With the time.
    pub time: Option<Verdict>,
    /// With the rules; `None` where they are the same, or not known any more.
    pub policy: Option<Verdict>,
    /// With the trust; `None` where it is the same, or not known any more.
    pub trust: Option<Verdict>,
    /// Whether policy and trust are another document now.
    pub other_document: bool,
}

/// What made a verdict another than `old`: whatever brings the old one back when it is put back. Where nothing does, it
/// is the evidence, which cannot be put back, or what is not known any more, or more than one thing together.
#[must_use]
pub fn causes(old: Verdict, put_back: PutBack) -> Vec<Cause> {
    let restores = |verdict: Option<Verdict>| verdict == Some(old);
    let found: Vec<Cause> = [
        (Cause::Policy, put_back.policy),
        (Cause::Trust, put_back.trust),
        (Cause::Time, put_back.time),
    ]
    .into_iter()
    .filter_map(|(cause, verdict)| restores(verdict).then_some(cause))
    .collect();
    match (found.is_empty(), put_back.other_document) {
        (false, _) => found,
        (true, false) => vec![Cause::Evidence],
        (true, true) if put_back.policy.is_none() && put_back.trust.is_none() => vec![Cause::Policy, Cause::Trust],
        (true, true) => {
            let mut all = vec![Cause::Evidence];
            all.extend(put_back.policy.map(|_| Cause::Policy));
            all.extend(put_back.trust.map(|_| Cause::Trust));
            all.sort();
            all
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_brings_the_old_verdict_back_is_the_cause() {
        const OLD: Option<Verdict> = Some(Verdict::Allow);
        const NEW: Option<Verdict> = Some(Verdict::Refuse);
        let causes = |time, policy, trust, other_document| {
            let put_back = PutBack {
                time,
                policy,
                trust,
                other_document,
            };
            causes(Verdict::Allow, put_back)
        };
        // The document is the same: what is left is the time or the evidence.
        assert_eq!(causes(OLD, None, None, false), [Cause::Time]);
        assert_eq!(causes(NEW, None, None, false), [Cause::Evidence]);
        // One of both parts of it made the difference, or either would have been enough to keep it.
        assert_eq!(causes(NEW, NEW, OLD, true), [Cause::Trust]);
        assert_eq!(causes(NEW, OLD, None, true), [Cause::Policy]);
        assert_eq!(causes(NEW, OLD, OLD, true), [Cause::Policy, Cause::Trust]);
        // It changed, and that was not it.
        assert_eq!(causes(OLD, NEW, NEW, true), [Cause::Time]);
        assert_eq!(causes(NEW, NEW, None, true), [Cause::Policy, Cause::Evidence]);
        // What it was is not known any more.
        assert_eq!(causes(NEW, None, None, true), [Cause::Policy, Cause::Trust]);
        assert_eq!(causes(OLD, None, None, true), [Cause::Time]);
    }

    #[test]
    fn a_record_is_no_decision_and_comes_back_as_it_was() {
        let decision = super::super::reject(&super::super::Request::parse(b"{").unwrap_err());
        let said = Said::from(&decision);
        let record = Reevaluation {
            cause: vec![Cause::Trust],
            at: Some("2026-01-01T00:00:00Z".to_owned()),
            ..Reevaluation::new(&decision, Step::Changed, said.clone(), said, Action::Stop)
        };
        let json = serde_json::to_string(&record).unwrap();
        assert!(json.starts_with(r#"{"version":1,"kind":"reevaluation","#), "{json}");
        assert_eq!(serde_json::from_str::<Reevaluation>(&json).unwrap(), record);
        assert!(serde_json::from_str::<Decision>(&json).is_err());
        assert!(serde_json::from_str::<Reevaluation>(&decision.json()).is_err());
    }
}
