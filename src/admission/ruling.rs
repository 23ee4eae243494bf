//! The word of the policy about one image: deny list, audit rules, the rule that decides.
//!
//! Where it refuses, a grant may open what it refuses; what `[[deny]]` lists, none does.
//!
//! The same for the root file system of a container, for an image volume, and for an image that is only looked at.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::parser::ParserFault;
use super::timely::Timely;
use super::{Audit, Edits, Exec, Verdict};
use crate::attest::{Details, Family};
use crate::diagnostic::printable;
use crate::digest::Digest;
use crate::grant::{GRANTED, Granted, Grants, Held};
use crate::identity::{Fault, Image, Upper, Workload};
use crate::policy::{
    self, Active, Attributes, Filesystem, ImageName, Incomplete, Kind, Mode, Outcome, Reevaluate, Restart, Rule,
    Runtime, Seccomp, SeccompMode, Selection, Tuning, Unattested, Unavailable,
};
use crate::trust::clock::Clock;
use crate::verify::{Answer, Fact, Span};

/// What is ruled on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Case<'a> {
    /// Image name as the user wrote it.
    pub(super) name: &'a str,
    pub(super) kubernetes_namespace: Option<&'a str>,
    pub(super) namespace: &'a str,
    /// Id of the container; empty where there is none.
    pub(super) container: &'a str,
    pub(super) kind: Kind,
    /// What it was proved to be.
    pub(super) image: Option<&'a Image>,
    /// Why something about it could not be proved. There is one wherever `image` is missing.
    pub(super) fault: Option<&'a Fault>,
    pub(super) upper: Upper,
    /// What it starts; nothing where there is no container.
    pub(super) workload: Option<&'a Workload>,
    /// Digests of what its records name, where `image` is missing.
    pub(super) seen: &'a [Digest],
    pub(super) clock: Clock,
    /// What an administrator opened on this node.
    pub(super) grants: &'a Grants,
}

/// What came of it.
#[derive(Debug, Clone)]
pub(super) struct Ruling {
    pub(super) verdict: Verdict,
    pub(super) code: String,
    pub(super) reason: String,
    pub(super) fix: String,
    /// Whether a refusal is the policy's word.
    pub(super) policy: bool,
    pub(super) rule: Option<String>,
    pub(super) audit: Vec<Audit>,
    pub(super) evidence: Vec<Fact>,
    /// What is taken out of the specification of a container that is allowed.
    pub(super) edits: Edits,
    /// Which files it sees.
    pub(super) filesystem: Filesystem,
    /// Which system calls it can make.
    pub(super) seccomp: Seccomp,
    /// What is added to these, or taken from them.
    pub(super) tunings: Vec<Tuning>,
    /// Whether the rule asks for an SBOM.
    pub(super) needs_sbom: bool,
    /// Predicate of the SBOM that met it.
    pub(super) sbom: Option<Digest>,
    /// The calls that a signed profile lists, which stand in for those of the files.
    pub(super) attested: Option<BTreeSet<String>>,
    /// Name of the rule whose `filesystem` that is.
    pub(super) files_rule: String,
    /// Which further processes may be started in it.
    pub(super) exec: Option<Exec>,
    /// The grant that an allow rests on.
    pub(super) grant: Option<Granted>,
    /// When an allow holds.
    pub(super) span: Span,
    /// What the rule that applies wants done with a running container that it refuses.
    pub(super) reevaluate: Reevaluate,
}

impl Ruling {
    /// Whether it asks for nothing that is missing, its audits included.
    pub(super) fn is_met(&self) -> bool {
        let allows = |verdict: &Verdict| *verdict == Verdict::Allow;
        allows(&self.verdict) && self.grant.is_none() && self.audit.iter().all(|audit| allows(&audit.verdict))
    }

    pub(super) fn refuse(code: &str, reason: String, fix: &str, policy: bool) -> Self {
        Self {
            verdict: Verdict::Refuse,
            code: code.to_owned(),
            reason,
            fix: fix.to_owned(),
            policy,
            rule: None,
            audit: Vec::new(),
            evidence: Vec::new(),
            edits: Edits::default(),
            filesystem: Filesystem::default(),
            seccomp: Seccomp::default(),
            tunings: Vec::new(),
            needs_sbom: false,
            sbom: None,
            attested: None,
            files_rule: String::new(),
            exec: None,
            grant: None,
            span: Span::default(),
            reevaluate: Reevaluate::default(),
        }
    }

    fn allow(code: &str, reason: String) -> Self {
        Self {
            verdict: Verdict::Allow,
            ..Self::refuse(code, reason, "", false)
        }
    }

    fn fault(fault: &Fault) -> Self {
        Self::refuse(
            fault.code(),
            printable(&fault.to_string()).into_owned(),
            fault.fix(),
            false,
        )
    }

    fn parser(fault: &ParserFault) -> Self {
        Self::refuse(fault.code(), fault.to_string(), fault.fix(), false)
    }

    /// A refusal in place of an allow, for a reason that came up afterwards.
    pub(super) fn instead(&mut self, code: &str, reason: String, fix: &str, policy: bool) -> Self {
        Self {
            rule: self.rule.take(),
            audit: std::mem::take(&mut self.audit),
            ..Self::refuse(code, reason, fix, policy)
        }
    }

    /// The allow of a grant in place of this refusal, `granted`, under which the container sees and calls what `rule` says
    /// as far as that can be found out.
    fn opened(self, granted: Granted, rule: Option<&Rule>) -> Self {
        let allow = Self::allow(GRANTED, granted.sentence());
        match rule {
            Some(rule) => allow.by(rule),
            None => allow,
        }
        .resting_on(granted)
    }

    /// An allow that rests on a grant, whatever else it rests on. What its files say does not refuse it.
    pub(super) fn resting_on(mut self, granted: Granted) -> Self {
        GRANTED.clone_into(&mut self.code);
        self.reason = granted.sentence();
        self.span = self.span.and(Span {
            from: None,
            until: Some(granted.until),
        });
        self.grant = Some(granted);
        self.needs_sbom = false;
        self.filesystem.unattested = Unattested::Report;
        self.filesystem.unavailable = Unavailable::Full;
        self.seccomp.incomplete = Incomplete::Fallback;
        self
    }

    fn by(self, rule: &Rule) -> Self {
        let (edits, exec) = match self.verdict {
            Verdict::Allow => (edits(&rule.runtime), Exec::of(rule, false)),
            Verdict::Refuse => (Edits::default(), None),
        };
        let evidence = self.evidence.clone();
        Self {
            rule: Some(rule.name.clone()),
            edits,
            exec,
            ..self
        }
        .seeing(rule, rule.filesystem.mode, rule.seccomp.mode, &evidence)
    }

    /// An allow under which a container sees and calls, or would see and call, what a rule says that `evidence` met.
    fn seeing(self, rule: &Rule, mode: Mode, calls: SeccompMode, evidence: &[Fact]) -> Self {
        if self.verdict == Verdict::Refuse {
            return self;
        }
        Self {
            filesystem: Filesystem {
                mode,
                ..rule.filesystem.clone()
            },
            seccomp: Seccomp {
                mode: calls,
                ..rule.seccomp.clone()
            },
            needs_sbom: rule.tables.iter().any(|table| table.asks.family() == Family::Sbom),
            sbom: evidence.iter().find_map(|fact| match fact.details.as_deref() {
                Some(Details::Sbom(predicate)) => Some(*predicate),
                _ => None,
            }),
            attested: evidence.iter().find_map(|fact| match fact.details.as_deref() {
                Some(Details::Profile(profile)) => Some(profile.calls.clone()),
                _ => None,
            }),
            files_rule: rule.name.clone(),
            ..self
        }
    }
}

impl From<Outcome> for Ruling {
    fn from(outcome: Outcome) -> Self {
        Self {
            verdict: if outcome.allow { Verdict::Allow } else { Verdict::Refuse },
            evidence: outcome.used,
            span: outcome.span,
            code: outcome.code,
            reason: outcome.reason,
            fix: outcome.fix,
            policy: true,
            rule: None,
            audit: Vec::new(),
            edits: Edits::default(),
            filesystem: Filesystem::default(),
            seccomp: Seccomp::default(),
            tunings: Vec::new(),
            needs_sbom: false,
            sbom: None,
            attested: None,
            files_rule: String::new(),
            exec: None,
            grant: None,
            reevaluate: Reevaluate::default(),
        }
    }
}

/// What a rule takes out of a specification.
fn edits(runtime: &Runtime) -> Edits {
    Edits {
        read_only_root: runtime.read_only_root,
        noexec_mounts: runtime.noexec_mounts,
        no_new_privileges: runtime.no_new_privileges,
        seccomp: None,
    }
}

impl<'a> Case<'a> {
    /// What opens a refusal of it. Nothing does where it was not proved which image that is.
    pub(super) fn opening(&self) -> Result<(&'a Held, Timestamp), Vec<String>> {
        match (self.image, self.fault) {
            (Some(image), None) => self
                .grants
                .opening(&digests(image), self.namespace, self.container, false),
            _ => Err(Vec::new()),
        }
    }

    /// A refusal, or what a grant makes of it.
    fn open(&self, refused: Ruling, rule: Option<&Rule>) -> Ruling {
        if refused.verdict == Verdict::Allow {
            return refused;
        }
        match self.opening() {
            Ok((held, until)) => {
                let granted = held.granted(until, &refused.code, &refused.reason);
                refused.opened(granted, rule)
            }
            Err(notes) => Ruling {
                reason: std::iter::once(refused.reason.clone())
                    .chain(notes)
                    .collect::<Vec<_>>()
                    .join("; "),
                ..refused
            },
        }
    }
}

/// Rules on `case`. `ask` finds the signatures about some digests; it is called at most once, and only when the
/// outcome depends on it.
pub(super) fn rule(
    active: &Active,
    case: &Case<'_>,
    ask: &mut dyn FnMut(&[Digest]) -> Result<Answer, ParserFault>,
) -> Ruling {
    let digests = case.image.map(digests).unwrap_or_default();
    let selection = active.select(&Attributes {
        image: (!case.name.is_empty()).then_some(case.name),
        kubernetes_namespace: case.kubernetes_namespace,
        containerd_namespace: case.namespace,
        kind: case.kind,
        digests: &digests,
    });
    rule_by(active, case, &selection, ask)
}

/// As [`rule`], by the rules of `selection`.
pub(super) fn rule_by(
    active: &Active,
    case: &Case<'_>,
    selection: &Selection<'_>,
    ask: &mut dyn FnMut(&[Digest]) -> Result<Answer, ParserFault>,
) -> Ruling {
    let digests = case.image.map(digests).unwrap_or_default();
    // What could not be proved may still be recognised: revocation needs no proof.
    let known = if case.image.is_some() {
        digests.clone()
    } else {
        case.seen.to_vec()
    };
    let reevaluate = selection.decisive.map(|rule| rule.reevaluate).unwrap_or_default();
    let denied = |outcome: Outcome| Ruling {
        reevaluate,
        ..outcome.into()
    };
    // What is revoked is revoked whatever else there is to say, and needs no evidence.
    if let Some(outcome) = active.denied(&known, &[]) {
        return denied(outcome);
    }
    let enforced = selection.decisive.filter(|rule| rule.mode == Mode::Enforce);
    let is_unmatched = selection.audits.is_empty() && selection.decisive.is_none();
    // Where a grant opens it, what is revoked is to be known all the same.
    if is_unmatched && case.opening().is_err() {
        return case.open(no_rule(case), None);
    }
    let needs_evidence = active.deny.needs_evidence()
        || selection
            .audits
            .iter()
            .copied()
            .chain(enforced)
            .any(|rule| !rule.tables.is_empty());
    let answer = if needs_evidence && !known.is_empty() {
        ask(&known)
    } else {
        Ok(Answer::default())
    };
    if active.deny.needs_evidence() {
        match &answer {
            Ok(answer) => {
                if let Some(outcome) = active.denied(&known, &answer.facts) {
                    return denied(outcome);
                }
                if answer.is_cut_short() {
                    return Ruling::refuse(
                        "key-deny-unknown",
                        "signers are on the deny list, and there is more evidence about the image than can be looked \
                         through for them"
                            .to_owned(),
                        "an administrator looks for hostile evidence in the cache and imports only the image's own",
                        true,
                    );
                }
            }
            // A revoked key may be behind what could not be read; no mode waives revocation.
            Err(fault) => return Ruling::parser(fault),
        }
    }
    // Only now: what is revoked stays revoked, whatever the clock says.
    let timely = answer.as_ref().ok().and_then(|answer| Timely::new(answer, case.clock));
    let word = |rule: &Rule| match &timely {
        Some(timely) => timely.word(|answer| word(active, rule, case, Ok(answer))),
        None => word(active, rule, case, answer.as_ref()),
    };
    let words: Vec<(&Rule, Ruling)> = selection.audits.iter().map(|rule| (*rule, word(rule))).collect();
    let audit: Vec<Audit> = words
        .iter()
        .map(|(rule, said)| Audit {
            rule: rule.name.clone(),
            verdict: said.verdict,
            code: said.code.clone(),
            reason: said.reason.clone(),
        })
        .collect();
    let ruling = match selection.decisive {
        Some(rule) if rule.mode == Mode::Enforce => case.open(word(rule).by(rule), Some(rule)),
        Some(rule) => Ruling {
            rule: Some(rule.name.clone()),
            ..Ruling::allow("rule-off", "the rule switches checking off".to_owned())
        },
        None if is_unmatched => case.open(no_rule(case), None),
        None => {
            let refusals = audit.iter().filter(|audit| audit.verdict == Verdict::Refuse).count();
            let would = match (audit.len(), refusals) {
                (_, 0) => "would allow it".to_owned(),
                (1, _) => "would refuse it".to_owned(),
                (all, some) => format!("would refuse it ({some} of {all})"),
            };
            let ruling = Ruling {
                exec: words.iter().find_map(|(rule, _)| Exec::of(rule, true)),
                ..Ruling::allow(
                    "audit-only",
                    format!("only audit rules apply; under enforce they {would}"),
                )
            };
            // Under enforce the first that allows would decide what is seen; audit never takes anything away.
            let narrows = |rule: &Rule| rule.filesystem.mode != Mode::Off || rule.seccomp.mode != SeccompMode::Off;
            let seen = words
                .iter()
                .find(|(rule, said)| said.verdict == Verdict::Allow && narrows(rule));
            match seen {
                Some((rule, said)) => {
                    let files = match rule.filesystem.mode {
                        Mode::Off => Mode::Off,
                        Mode::Enforce | Mode::Audit => Mode::Audit,
                    };
                    let calls = match rule.seccomp.mode {
                        SeccompMode::Off => SeccompMode::Off,
                        SeccompMode::Enforce | SeccompMode::Complain => SeccompMode::Complain,
                    };
                    ruling.seeing(rule, files, calls, &said.evidence)
                }
                None => ruling,
            }
        }
    };
    let tunings = active.tunings.iter();
    let tunings = tunings.filter(|tuning| tuning.applies(case.name, &digests) && tuning.counts(case.clock.now));
    Ruling {
        audit,
        tunings: tunings.cloned().collect(),
        reevaluate,
        ..ruling
    }
}

/// What a rule says under `enforce`.
fn word(active: &Active, rule: &Rule, case: &Case<'_>, answer: Result<&Answer, &ParserFault>) -> Ruling {
    if let Some(fault) = case.fault {
        return Ruling::fault(fault);
    }
    let Some(image) = case.image else {
        return Ruling::refuse(
            "image-unproved",
            "what is mounted was not proved to be an image".to_owned(),
            "delete the container and create it again",
            false,
        );
    };
    if rule.runtime.restart == Restart::Refuse {
        let fix = "delete the container and create it again, or set restart = \"allow\" in the rule's \
                   [rule.runtime] and run: assay policy apply";
        match case.upper {
            Upper::Empty => {}
            Upper::Used => {
                let reason = "its writable layer is not empty: it has run before, or someone wrote to it";
                return Ruling::refuse("upper-reused", reason.to_owned(), fix, true);
            }
            Upper::Unknowable => {
                let reason = "its snapshotter does not show whether its writable layer was changed before";
                return Ruling::refuse("upper-unknowable", reason.to_owned(), fix, true);
            }
        }
    }
    if rule.runtime.non_root && case.workload.is_some_and(|workload| workload.process.user.uid == 0) {
        return Ruling::refuse(
            "user-root",
            "it would run as user 0, and the rule wants another".to_owned(),
            "set runAsUser in the pod's securityContext, or USER in the image, to a number other than 0",
            true,
        );
    }
    let none = Answer::default();
    let answer = match answer {
        Ok(answer) => answer,
        Err(_) if rule.tables.is_empty() => &none,
        Err(fault) => return Ruling::parser(fault),
    };
    let asked = policy::Image {
        manifests: &image.manifests,
        indexes: &image.indexes,
        config: &image.config,
        name: (!case.name.is_empty()).then_some(case.name),
    };
    rule.evaluate(active, &asked, answer, case.clock.now).into()
}

fn no_rule(case: &Case<'_>) -> Ruling {
    let kind = match case.kind {
        Kind::Sandbox => "sandbox",
        Kind::Container => "container",
        Kind::Volume => "volume",
    };
    let place = case
        .kubernetes_namespace
        .map(|name| format!(" in Kubernetes namespace {}", printable(name)))
        .unwrap_or_default();
    // As narrow as what was refused: an administrator widens it knowingly.
    let image = ImageName::parse(case.name)
        .map(|name| format!(", image = [\"{}\"]", printable(&name.repository())))
        .unwrap_or_default();
    let namespace = case
        .kubernetes_namespace
        .map(|name| format!(", namespace = [\"{}\"]", printable(name)))
        .unwrap_or_default();
    Ruling::refuse(
        "no-rule",
        format!("no rule matches this {kind}{place}, and what no rule matches does not run"),
        &format!(
            "an administrator adds a rule with match = {{ kind = \"{kind}\"{image}{namespace} }} and what it asks for, and runs: assay policy apply"
        ),
        true,
    )
}

/// Every digest that an image is known by.
pub(super) fn digests(image: &Image) -> Vec<Digest> {
    let mut digests = vec![image.config];
    digests.extend(&image.manifests);
    digests.extend(&image.indexes);
    digests
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use super::*;
    use crate::admission::child::ChildFault;
    use crate::grant::{Grant, NONE, Subject as Subject_};
    use crate::policy::activate;
    use crate::policy::{Asks, Deny, Match, Signed, SignerPattern, Subject, Table};
    use crate::verify::{Carrier, Claim, Fact, Proof, Span, TimeSource, TrustedTime};

    fn image() -> Image {
        Image {
            name: "example.com/app:1".to_owned(),
            config: Digest::of(b"config"),
            manifests: vec![Digest::of(b"manifest")],
            indexes: Vec::new(),
            chain_id: Digest::of(b"layer"),
        }
    }

    const CLOCK: Clock = Clock {
        now: Timestamp::constant(1_700_000_000, 0),
        mark: Some(Timestamp::UNIX_EPOCH),
    };

    fn case(image: Option<&Image>) -> Case<'_> {
        Case {
            name: "example.com/app:1",
            kubernetes_namespace: None,
            namespace: "default",
            container: "",
            kind: Kind::Container,
            image,
            fault: None,
            upper: Upper::Empty,
            workload: None,
            seen: &[],
            clock: CLOCK,
            grants: &NONE,
        }
    }

    fn signed_by(mode: Mode, key: &str) -> Rule {
        Rule {
            name: format!("{mode:?}-{key}"),
            r#match: Match::default(),
            mode,
            tables: vec![Table {
                asks: Asks::Signature,
                any: vec![SignerPattern::Key(key.to_owned())],
                threshold: 1,
                subject: Subject::Either,
                signed: Signed::Itself,
                logs: 0,
                max_age: None,
                condition: None,
            }],
            digest: Vec::new(),
            runtime: policy::Runtime::default(),
            filesystem: policy::Filesystem::default(),
            seccomp: policy::Seccomp::default(),
            exec: policy::Exec::default(),
            reevaluate: policy::Reevaluate::default(),
        }
    }

    fn active(rules: Vec<Rule>) -> Active {
        Active {
            closure: Vec::new(),
            tunings: Vec::new(),
            version: activate::VERSION,
            generation: 1,
            time: jiff::Timestamp::UNIX_EPOCH,
            sources: Vec::new(),
            keys: Vec::new(),
            builders: Vec::new(),
            notation: Vec::new(),
            roots: Vec::new(),
            deny: Deny::default(),
            rules,
        }
    }

    fn answer() -> Answer {
        Answer {
            facts: vec![Fact {
                evidence: Digest::of(b"evidence"),
                carrier: Carrier::BundleKey,
                chain: None,
                subject: Digest::of(b"manifest"),
                claim: Claim::ImageSignature,
                proof: Proof::by_key("release"),
                details: None,
                held: Vec::new(),
            }],
            ..Answer::default()
        }
    }

    fn late() -> ParserFault {
        ParserFault::from(ChildFault::Timeout(Duration::from_secs(1)))
    }

    fn said(ruling: &Ruling) -> (bool, &str) {
        (ruling.verdict == Verdict::Allow, ruling.code.as_str())
    }

    #[test]
    fn the_first_rule_that_is_no_audit_decides() {
        let image = image();
        let rules = vec![
            signed_by(Mode::Audit, "other"),
            signed_by(Mode::Enforce, "release"),
            signed_by(Mode::Off, "release"),
        ];
        let ruling = rule(&active(rules), &case(Some(&image)), &mut |_| Ok(answer()));
        assert_eq!(said(&ruling), (true, "signature-verified"));
        assert_eq!(ruling.rule.as_deref(), Some("Enforce-release"));
        assert_eq!(ruling.audit.len(), 1);
        assert_eq!(ruling.audit[0].code, "signer-not-wanted");
        assert_eq!(ruling.evidence.len(), 1);
    }

    #[test]
    fn a_parser_that_fails_refuses_under_enforce_and_is_noted_under_audit() {
        let image = image();
        let mut ask = |_: &[Digest]| Err(late());
        let enforced = rule(
            &active(vec![signed_by(Mode::Enforce, "release")]),
            &case(Some(&image)),
            &mut ask,
        );
        assert_eq!(said(&enforced), (false, "parser-timeout"));
        assert!(!enforced.policy);
        let audited = rule(
            &active(vec![signed_by(Mode::Audit, "release")]),
            &case(Some(&image)),
            &mut ask,
        );
        assert_eq!(said(&audited), (true, "audit-only"));
        assert_eq!(audited.audit[0].code, "parser-timeout");
        let off = rule(
            &active(vec![signed_by(Mode::Off, "release")]),
            &case(Some(&image)),
            &mut |_| panic!("a rule that is off asks for nothing"),
        );
        assert_eq!(said(&off), (true, "rule-off"));
    }

    #[test]
    fn revocation_of_a_key_holds_in_every_mode_and_fails_closed() {
        let image = image();
        for mode in [Mode::Enforce, Mode::Audit, Mode::Off] {
            let mut active = active(vec![signed_by(mode, "release")]);
            active.deny.key = vec!["release".to_owned()];
            let ruling = rule(&active, &case(Some(&image)), &mut |_| Ok(answer()));
            assert_eq!(said(&ruling), (false, "key-denied"), "{mode:?}");
            let ruling = rule(&active, &case(Some(&image)), &mut |_| Err(late()));
            assert_eq!(said(&ruling), (false, "parser-timeout"), "{mode:?}");
        }
    }

    #[test]
    fn evidence_that_was_left_unread_may_hide_a_revoked_key() {
        let image = image();
        let cut_short = || Answer {
            findings: vec![crate::verify::Finding {
                evidence: None,
                code: "work-limit".to_owned(),
                text: String::new(),
            }],
            ..answer()
        };
        for mode in [Mode::Enforce, Mode::Audit, Mode::Off] {
            let mut active = active(vec![signed_by(mode, "release")]);
            let ruling = rule(&active, &case(Some(&image)), &mut |_| Ok(cut_short()));
            assert_eq!(ruling.verdict, Verdict::Allow, "{mode:?}");
            active.deny.key = vec!["stolen".to_owned()];
            let ruling = rule(&active, &case(Some(&image)), &mut |_| Ok(cut_short()));
            assert_eq!(said(&ruling), (false, "key-deny-unknown"), "{mode:?}");
        }
    }

    #[test]
    fn what_is_revoked_is_recognised_even_where_nothing_is_proved() {
        let fault = Fault::SnapshotNoParent("key".to_owned());
        let image = image();
        let seen = digests(&image);
        let unbound = Case {
            fault: Some(&fault),
            seen: &seen,
            ..case(None)
        };
        for mode in [Mode::Audit, Mode::Off] {
            let mut revoked = active(vec![signed_by(mode, "release")]);
            revoked.deny.digest = vec![image.manifests[0]];
            let ruling = rule(&revoked, &unbound, &mut |_| Ok(answer()));
            assert_eq!(said(&ruling), (false, "digest-denied"), "{mode:?}");
            let mut revoked = active(vec![signed_by(mode, "release")]);
            revoked.deny.key = vec!["release".to_owned()];
            let ruling = rule(&revoked, &unbound, &mut |_| Ok(answer()));
            assert_eq!(said(&ruling), (false, "key-denied"), "{mode:?}");
        }
    }

    #[test]
    fn under_audit_the_first_rule_that_would_allow_says_what_would_be_seen() {
        let image = image();
        let with_files = |mut rule: Rule, level: policy::Level| {
            rule.filesystem.mode = Mode::Enforce;
            rule.filesystem.level = level;
            rule
        };
        let other = with_files(signed_by(Mode::Audit, "other"), policy::Level::Packages);
        let release = with_files(signed_by(Mode::Audit, "release"), policy::Level::Files);
        let said = |rules: Vec<Rule>| rule(&active(rules), &case(Some(&image)), &mut |_| Ok(answer()));
        let ruling = said(vec![other.clone(), signed_by(Mode::Audit, "release"), release.clone()]);
        assert_eq!(ruling.filesystem.mode, Mode::Audit);
        assert_eq!(
            (ruling.filesystem.level, ruling.files_rule.as_str()),
            (policy::Level::Files, release.name.as_str())
        );
        assert!(ruling.edits.is_empty() && ruling.evidence.is_empty());
        // One that would refuse says nothing about files, and one that decides takes the word of audit rules away.
        assert_eq!(said(vec![other]).filesystem.mode, Mode::Off);
        let decided = said(vec![release, signed_by(Mode::Enforce, "release")]);
        assert_eq!(decided.filesystem.mode, Mode::Off);
    }

    #[test]
    fn a_revoked_digest_needs_no_evidence() {
        let image = image();
        for mode in [Mode::Enforce, Mode::Audit, Mode::Off] {
            for digest in [image.config, image.manifests[0]] {
                let mut active = active(vec![signed_by(mode, "release")]);
                active.deny.digest = vec![digest];
                let ruling = rule(&active, &case(Some(&image)), &mut |_| panic!("nothing is asked"));
                assert_eq!(said(&ruling), (false, "digest-denied"), "{mode:?}");
            }
        }
    }

    #[test]
    fn what_could_not_be_bound_is_refused_with_its_own_code() {
        let fault = Fault::SnapshotNoParent("key".to_owned());
        let unbound = Case {
            fault: Some(&fault),
            upper: Upper::Unknowable,
            ..case(None)
        };
        let mut ask = |_: &[Digest]| panic!("there is nothing to ask about");
        let ruling = rule(&active(vec![signed_by(Mode::Enforce, "release")]), &unbound, &mut ask);
        assert_eq!(said(&ruling), (false, "snapshot-no-parent"));
        let ruling = rule(&active(vec![signed_by(Mode::Audit, "release")]), &unbound, &mut ask);
        assert_eq!(said(&ruling), (true, "audit-only"));
        // Without even a fault there is still no image.
        let ruling = rule(
            &active(vec![signed_by(Mode::Enforce, "release")]),
            &case(None),
            &mut ask,
        );
        assert_eq!(said(&ruling), (false, "image-unproved"));
    }

    #[test]
    fn a_used_layer_needs_the_rule_s_leave() {
        let image = image();
        for (upper, restart, allow, code) in [
            (Upper::Used, Restart::Refuse, false, "upper-reused"),
            (Upper::Unknowable, Restart::Refuse, false, "upper-unknowable"),
            (Upper::Used, Restart::Allow, true, "signature-verified"),
            (Upper::Unknowable, Restart::Allow, true, "signature-verified"),
        ] {
            let mut enforced = signed_by(Mode::Enforce, "release");
            enforced.runtime.restart = restart;
            let case = Case {
                upper,
                ..case(Some(&image))
            };
            let ruling = rule(&active(vec![enforced]), &case, &mut |_| Ok(answer()));
            assert_eq!(said(&ruling), (allow, code));
        }
    }

    fn vouched(times: &[i64], from: Option<i64>, until: Option<i64>) -> Answer {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let mut answer = answer();
        answer.facts[0].proof.times = times
            .iter()
            .map(|second| TrustedTime {
                source: TimeSource::Log,
                authority: "log".to_owned(),
                time: at(*second),
            })
            .collect();
        answer.facts[0].proof.span = Span {
            from: from.map(at),
            until: until.map(at),
        };
        answer
    }

    fn at(now: i64, mark: Option<i64>) -> Clock {
        Clock {
            now: Timestamp::from_second(now).unwrap(),
            mark: mark.map(|mark| Timestamp::from_second(mark).unwrap()),
        }
    }

    #[test]
    fn what_depends_on_time_counts_only_by_a_clock_that_can_be_right() {
        let image = image();
        let tolerance = crate::trust::clock::TOLERANCE.as_secs();
        let key_only = answer();
        let logged = vouched(&[1000], None, None);
        let current = vouched(&[], Some(1000), Some(3000));
        for (given, clock, code) in [
            (&key_only, at(0, Some(1_000_000)), "signature-verified"),
            (&key_only, at(2000, None), "signature-verified"),
            (&logged, at(2000, Some(0)), "signature-verified"),
            (&logged, at(2000, Some(2000 + tolerance)), "signature-verified"),
            (&logged, at(2000, Some(2001 + tolerance)), "clock-behind"),
            (&logged, at(2000, None), "clock-unreadable"),
            (&logged, at(1000 - tolerance, Some(0)), "signature-verified"),
            (&logged, at(999 - tolerance, Some(0)), "time-in-future"),
            (&current, at(2000, Some(1_000_000)), "clock-behind"),
        ] {
            let case = Case {
                clock,
                ..case(Some(&image))
            };
            let ruling = rule(&active(vec![signed_by(Mode::Enforce, "release")]), &case, &mut |_| {
                Ok(given.clone())
            });
            assert_eq!(said(&ruling), (code == "signature-verified", code), "{clock:?}");
            // An audit rule says the same and lets it run.
            let ruling = rule(&active(vec![signed_by(Mode::Audit, "release")]), &case, &mut |_| {
                Ok(given.clone())
            });
            assert_eq!(
                (said(&ruling), ruling.audit[0].code.as_str()),
                ((true, "audit-only"), code)
            );
        }
    }

    #[test]
    fn a_wrong_clock_hides_no_revoked_key_and_no_other_reason() {
        let image = image();
        let case = Case {
            clock: at(0, Some(1_000_000)),
            ..case(Some(&image))
        };
        let logged = vouched(&[1000], None, None);
        let mut revoked = active(vec![signed_by(Mode::Off, "release")]);
        revoked.deny.key = vec!["release".to_owned()];
        let ruling = rule(&revoked, &case, &mut |_| Ok(logged.clone()));
        assert_eq!(said(&ruling), (false, "key-denied"));
        let other = active(vec![signed_by(Mode::Enforce, "other")]);
        let ruling = rule(&other, &case, &mut |_| Ok(logged.clone()));
        assert_eq!(said(&ruling), (false, "signature-missing"));
        // The same signature by a key that no time plays a part in still counts.
        let mut both = logged.clone();
        both.facts.extend(answer().facts);
        let ruling = rule(&active(vec![signed_by(Mode::Enforce, "release")]), &case, &mut |_| {
            Ok(both.clone())
        });
        assert_eq!(said(&ruling), (true, "signature-verified"));
        assert_eq!(ruling.evidence, answer().facts);
    }

    #[test]
    fn a_refusal_for_the_time_says_what_to_set() {
        let image = image();
        let active = active(vec![signed_by(Mode::Enforce, "release")]);
        let ruling = |answer: Answer, clock| {
            let case = Case {
                clock,
                ..case(Some(&image))
            };
            let ruling = rule(&active, &case, &mut |_| Ok(answer.clone()));
            assert!(!ruling.policy);
            format!("{}; to fix: {}", ruling.reason, ruling.fix)
        };
        insta::assert_snapshot!(ruling(vouched(&[1000], None, None), at(2000, Some(100_000))), @"this node's clock says 1970-01-01T00:33:20Z, and 1970-01-02T03:46:40Z has passed already; what is needed holds only for a time, which cannot be judged with such a clock; to fix: set this node's clock; if it is right and ran ahead before, an administrator runs: assay trust clock --reset");
        insta::assert_snapshot!(ruling(vouched(&[100_000], None, None), at(2000, Some(0))), @"what is needed is said to be of 1970-01-02T03:46:40Z, which has not come: this node's clock says 1970-01-01T00:33:20Z; to fix: set this node's clock");
        insta::assert_snapshot!(ruling(vouched(&[1000], None, None), at(2000, None)), @"what is needed holds only for a time, and Assay's record of the latest known time is damaged, so the clock of this node cannot be judged; to fix: an administrator runs: assay trust clock --reset");
    }

    /// Half an hour for the image, on a node where an administrator may give it.
    fn granted() -> (Grants, Timestamp) {
        let node = crate::grant::tests::Node::new();
        let grant = Grant {
            subject: Subject_::Image(Digest::of(b"manifest")),
            not_before: CLOCK.now,
            not_after: CLOCK.now + Duration::from_secs(1800),
            ..crate::grant::tests::grant()
        };
        node.add(&grant);
        (Grants::load(&node.state(), &node.active, CLOCK), grant.not_after)
    }

    #[test]
    fn a_grant_opens_what_a_rule_refuses_and_is_never_taken_for_evidence() {
        let image = image();
        let (grants, until) = granted();
        let opened = Case {
            grants: &grants,
            ..case(Some(&image))
        };
        let mut strict = signed_by(Mode::Enforce, "other");
        strict.runtime.no_new_privileges = true;
        strict.filesystem.mode = Mode::Enforce;
        strict.filesystem.unattested = Unattested::Deny;
        strict.seccomp.incomplete = Incomplete::Refuse;
        strict.exec.mode = policy::ExecMode::Deny;
        let policy = active(vec![signed_by(Mode::Audit, "other"), strict]);
        let ruling = rule(&policy, &opened, &mut |_| Ok(answer()));
        assert_eq!(said(&ruling), (true, "granted"));
        assert!(!ruling.is_met());
        let grant = ruling.grant.as_ref().unwrap();
        assert_eq!(
            (grant.key.as_str(), grant.refused.as_str()),
            ("ops", "signer-not-wanted")
        );
        assert!(
            ruling.reason.contains("without it: signer-not-wanted: "),
            "{}",
            ruling.reason
        );
        // No evidence is claimed, the audit rule says what it said, and the allow ends with the grant.
        assert_eq!(ruling.evidence, []);
        assert_eq!(
            (ruling.audit[0].verdict, ruling.span.until),
            (Verdict::Refuse, Some(until))
        );
        // What the rule takes away it takes away, as far as that can be found out.
        assert!(ruling.edits.no_new_privileges && ruling.exec.is_some());
        let files = &ruling.filesystem;
        assert_eq!(
            (
                files.mode,
                files.unattested,
                files.unavailable,
                ruling.seccomp.incomplete
            ),
            (
                Mode::Enforce,
                Unattested::Report,
                Unavailable::Full,
                Incomplete::Fallback
            )
        );
        // Where evidence is enough, it is what counts.
        let policy = active(vec![signed_by(Mode::Enforce, "release")]);
        let ruling = rule(&policy, &opened, &mut |_| Ok(answer()));
        assert_eq!((said(&ruling), &ruling.grant), ((true, "signature-verified"), &None));
        // Neither trouble with evidence nor a policy without a rule keeps it from opening.
        let ruling = rule(&policy, &opened, &mut |_| Err(late()));
        assert_eq!(said(&ruling), (true, "granted"));
        let ruling = rule(&active(Vec::new()), &opened, &mut |_| panic!("nothing is asked"));
        assert_eq!((said(&ruling), &ruling.rule), ((true, "granted"), &None));
    }

    #[test]
    fn no_grant_opens_what_is_denied_or_was_not_proved() {
        let image = image();
        let (grants, _) = granted();
        let opened = Case {
            grants: &grants,
            ..case(Some(&image))
        };
        let denied = |deny: Deny, rules: Vec<Rule>| {
            let policy = Active { deny, ..active(rules) };
            let ruling = rule(&policy, &opened, &mut |_| Ok(answer()));
            assert_eq!(ruling.grant, None);
            ruling.code
        };
        let by_digest = || Deny {
            digest: vec![Digest::of(b"manifest")],
            ..Deny::default()
        };
        let by_key = || Deny {
            key: vec!["release".to_owned()],
            ..Deny::default()
        };
        for rules in [Vec::new(), vec![signed_by(Mode::Enforce, "other")]] {
            assert_eq!(denied(by_digest(), rules.clone()), "digest-denied");
            assert_eq!(denied(by_key(), rules), "key-denied");
        }
        let policy = Active {
            deny: by_key(),
            ..active(Vec::new())
        };
        // Who may be behind what cannot be read is not known.
        let ruling = rule(&policy, &opened, &mut |_| Err(late()));
        assert_eq!(said(&ruling), (false, "parser-timeout"));
        let fault = Fault::SnapshotNoParent("key".to_owned());
        let unproved = Case {
            fault: Some(&fault),
            ..opened
        };
        let policy = active(vec![signed_by(Mode::Enforce, "other")]);
        assert_eq!(rule(&policy, &unproved, &mut |_| Ok(answer())).verdict, Verdict::Refuse);
        let nothing = Case {
            image: None,
            ..unproved
        };
        assert_eq!(rule(&policy, &nothing, &mut |_| Ok(answer())).verdict, Verdict::Refuse);
    }

    #[test]
    fn without_a_rule_nothing_runs() {
        let image = image();
        let ruling = rule(&active(Vec::new()), &case(Some(&image)), &mut |_| {
            panic!("nothing is asked")
        });
        assert_eq!(said(&ruling), (false, "no-rule"));
        // A rule that does not name volumes is none for a volume.
        let volume = Case {
            kind: Kind::Volume,
            ..case(Some(&image))
        };
        let rules = vec![signed_by(Mode::Enforce, "release")];
        let ruling = rule(&active(rules), &volume, &mut |_| panic!("nothing is asked"));
        assert_eq!(said(&ruling), (false, "no-rule"));
        insta::assert_snapshot!(ruling.fix, @r#"an administrator adds a rule with match = { kind = "volume", image = ["example.com/app"] } and what it asks for, and runs: assay policy apply"#);
    }
}
