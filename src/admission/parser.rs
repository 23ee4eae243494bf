//! Asking a parser: a child process that reads untrusted evidence in a cage and answers with facts.
//!
//! The child is this same program, started with [`ARGUMENT`]. It gets the question on standard input, the evidence
//! layout as the one directory it can see, and answers on standard output. What it says is checked here field by field:
//! it can claim that something verified that did not only by breaking into the verification itself, and then only with
//! keys, roots, issuers, subjects and evidence that this side named.

use std::collections::{BTreeSet, HashSet};
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::process::{Command, ExitCode};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::child::{self, ChildFault};
use super::sandbox;
use crate::attest::Family;
use crate::diagnostic::printable;
use crate::digest::Digest;
use crate::evidence::{self, MAX_ATTESTATIONS, Question};
use crate::oci::{self, Layout, Manifest};
use crate::verify::{
    Answer, Carrier, Certificate, Chain, Claim, Fact, Identity, LogEntry, Signer, bundle, certificate,
};

/// First argument of a parser process; the second is the number of the descriptor of the evidence layout.
pub const ARGUMENT: &str = "parse-evidence";

/// Largest question in bytes: some thousands of keys, or as many roots as there may be.
const MAX_QUESTION: u64 = 16 << 20;
/// Largest answer in bytes that is read.
pub const MAX_ANSWER: u64 = 4 << 20;
/// Most facts, and most findings, of an answer.
const MAX_ENTRIES: usize = 1024;
/// Longest code and longest sentence of a finding, in bytes.
const MAX_TEXT: usize = 1024;

/// A checked answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Judged {
    /// What verified and what did not.
    pub answer: Answer,
    /// Blobs of the evidence layout that the facts rest on.
    pub blobs: Vec<Digest>,
}

/// Why a parser gave no usable answer. Each is a refusal.
#[derive(Debug, thiserror::Error)]
pub enum ParserFault {
    /// It gave none.
    #[error("the evidence parser {0}")]
    Child(#[from] ChildFault),
    /// It said something that is no answer.
    #[error("the evidence parser's answer is unusable: {0}")]
    Garbage(String),
    /// There are more keys, roots or subjects than a question holds.
    #[error("trust.d holds more keys and roots than fit into a question to the evidence parser")]
    QuestionTooLarge,
}

impl ParserFault {
    /// Stable code of the decision.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Child(ChildFault::Start(_)) => "parser-start",
            Self::Child(ChildFault::Sandbox(_)) => "parser-sandbox",
            Self::Child(ChildFault::Timeout(_)) => "parser-timeout",
            Self::Child(ChildFault::Crashed(_)) => "parser-crashed",
            Self::Child(ChildFault::TooLarge(_)) => "parser-oversize",
            Self::Garbage(_) => "parser-garbage",
            Self::QuestionTooLarge => "parser-question",
        }
    }

    /// What to do next.
    #[must_use]
    pub fn fix(&self) -> &'static str {
        match self {
            Self::Child(ChildFault::Start(_)) => "free memory or processes on this node and start the container again",
            Self::Child(ChildFault::Sandbox(_)) => {
                "use Linux 5.12 or newer, and let assay admit create mount, network and IPC namespaces"
            }
            Self::Child(ChildFault::Timeout(_)) => {
                "raise admit_timeout in /etc/assay/config.toml, or find the slow evidence: assay verify IMAGE"
            }
            Self::Child(ChildFault::Crashed(_) | ChildFault::TooLarge(_)) | Self::Garbage(_) => {
                "find the evidence that breaks the parser (assay verify IMAGE), remove it from the cache and report it"
            }
            Self::QuestionTooLarge => "remove unused keys and roots from trust.d and run assay policy apply",
        }
    }
}

/// Has a parser judge the evidence in `layout`, and checks its answer.
///
/// # Errors
///
/// See [`ParserFault`]; the parser is dead when this returns.
pub fn ask(layout: BorrowedFd<'_>, question: &Question, deadline: Instant) -> Result<Judged, ParserFault> {
    let json = serde_json::to_vec(question).map_err(|error| ChildFault::Start(error.into()))?;
    if json.len() as u64 > MAX_QUESTION {
        return Err(ParserFault::QuestionTooLarge);
    }
    // Inherited by the child, so this one copy must not be closed on exec. Nothing else is started meanwhile.
    let inherited = rustix::io::dup(layout).map_err(|error| ChildFault::Start(error.into()))?;
    let mut command = Command::new("/proc/self/exe");
    command.args([ARGUMENT, &inherited.as_raw_fd().to_string()]);
    let answer = child::run(command, &json, MAX_ANSWER, deadline)?;
    accept(&answer, question)
}

/// Reads what a parser said and accepts only what the question can lead to.
///
/// # Errors
/// [`ParserFault::Garbage`] for anything else.
pub fn accept(reply: &[u8], question: &Question) -> Result<Judged, ParserFault> {
    // What the parser said may say anything; only where it goes wrong is repeated.
    let Reply { answer, blobs } = serde_json::from_slice(reply)
        .map_err(|error| ParserFault::Garbage(format!("not a reply at column {}", error.column())))?;
    let garbage = |what: &str| Err(ParserFault::Garbage(what.to_owned()));
    if blobs.len() > MAX_ENTRIES || answer.facts.iter().any(|fact| !blobs.contains(&fact.evidence)) {
        return garbage("it does not list the evidence that it used");
    }
    let unlisted = |fact: &Fact| {
        fact.chain
            .as_deref()
            .is_some_and(|chain| !links(chain).all(|link| blobs.contains(&link)))
    };
    if answer.facts.iter().any(unlisted) {
        return garbage("it does not list what a chain leads over");
    }
    if answer.attestations.len() > MAX_ATTESTATIONS {
        return garbage("it has too many attestation manifests");
    }
    if answer.facts.len() > MAX_ENTRIES || answer.findings.len() > MAX_ENTRIES {
        return garbage("it has too many entries");
    }
    for fact in &answer.facts {
        if let Err(what) = accept_fact(fact, question) {
            return garbage(what);
        }
        let family = fact.claim.family();
        if fact
            .details
            .as_deref()
            .is_some_and(|details| Some(details.family()) != family || !details.is_bounded())
        {
            return garbage("it reads a predicate as something that it cannot be");
        }
        let about = |number: &usize| question.conditions.get(*number).map(|condition| condition.about);
        if fact
            .held
            .iter()
            .any(|number| about(number).is_none() || about(number) != family)
        {
            return garbage("it answers a condition that it was not asked about");
        }
    }
    for finding in &answer.findings {
        let is_code = |text: &str| {
            !text.is_empty()
                && text
                    .bytes()
                    .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        };
        if finding.code.len() > MAX_TEXT || !is_code(&finding.code) {
            return garbage("it has a finding whose code is not one");
        }
        if finding.text.len() > MAX_TEXT || finding.text.chars().any(char::is_control) {
            return garbage("it has a finding whose text is not one sentence");
        }
    }
    Ok(Judged { answer, blobs })
}

/// Whether a fact is one that the question can lead to; otherwise what is wrong with it.
fn accept_fact(fact: &Fact, question: &Question) -> Result<(), &'static str> {
    let is_text = |text: &str| text.len() <= MAX_TEXT && printable(text) == text;
    if !question.subjects.contains(&fact.subject) {
        return Err("it names a subject that it was not asked about");
    }
    if let Claim::Attestation(predicate_type) = &fact.claim
        && !is_text(predicate_type)
    {
        return Err("it has an attestation whose type is not one");
    }
    match &fact.proof.signer {
        Signer::Key(id) => {
            let mut keys = question.keys.iter().filter(|key| key.id == *id).peekable();
            if keys.peek().is_none() {
                return Err("it names a key that it was not given");
            }
            let needed = question.needs(&fact.claim).ok();
            if !keys.any(|key| needed.is_some_and(|needed| key.r#use.contains(&needed))) {
                return Err("it names a key that is not trusted for that");
            }
        }
        Signer::Certificate(certificate) => accept_certificate(certificate, &fact.proof.logs, question)?,
        Signer::Notation(signer) => {
            if !question.notation.iter().any(|store| store.id == signer.store) {
                return Err("it names a trust store that it was not given");
            }
            let texts = [&signer.subject, &signer.revocation_unknown];
            if signer.subject.is_empty()
                || fact.claim != Claim::ImageSignature
                || !texts.into_iter().all(|t| is_text(t))
            {
                return Err("it has a signer that cannot be");
            }
        }
    }
    match (fact.chain.as_deref(), fact.carrier) {
        (Some(chain), Carrier::AttestationManifest) => accept_chain(chain, fact, question)?,
        (None, Carrier::AttestationManifest) | (Some(_), _) => return Err("it has a carrier that cannot be"),
        (None, _) => {}
    }
    let is_log = |log: &str| log.len() == 64 && log.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let logs = &fact.proof.logs;
    let distinct: HashSet<(&str, u64)> = logs.iter().map(|entry| (entry.log.as_str(), entry.index)).collect();
    if distinct.len() < logs.len()
        || logs.len() > bundle::MAX_ENTRIES
        || !distinct.into_iter().all(|(log, _)| is_log(log))
    {
        return Err("it has log entries that cannot be");
    }
    let times = &fact.proof.times;
    if times.len() > bundle::MAX_ENTRIES + bundle::MAX_TIMESTAMPS
        || times
            .iter()
            .any(|time| time.time > question.now || !is_text(&time.authority))
    {
        return Err("it has times that cannot be");
    }
    if !fact.proof.span.contains(question.now) {
        return Err("it has a fact that does not hold now");
    }
    Ok(())
}

/// Whether a statement can count by what a chain says was signed.
fn accept_chain(chain: &Chain, fact: &Fact, question: &Question) -> Result<(), &'static str> {
    if matches!(fact.claim.family(), None | Some(Family::Signature)) {
        return Err("it has a chain to something that is no attestation");
    }
    if matches!(fact.proof.signer, Signer::Notation(_))
        || matches!(chain.carrier, Carrier::Notation | Carrier::AttestationManifest)
    {
        return Err("it has a chain that hangs on something that cannot be");
    }
    let is_asked =
        |index: Digest| question.through_index && question.subjects.contains(&index) && index != fact.subject;
    if chain.index.is_some_and(|index| !is_asked(index)) {
        return Err("it has a chain over an index that it was not asked about");
    }
    Ok(())
}

/// What a chain leads over, beside the attestation manifest itself.
fn links(chain: &Chain) -> impl Iterator<Item = Digest> {
    [chain.signature, chain.statement].into_iter().chain(chain.index)
}

fn accept_certificate(certificate: &Certificate, logs: &[LogEntry], question: &Question) -> Result<(), &'static str> {
    let is_text = |text: &String| text.len() <= certificate::MAX_TEXT && printable(text) == *text;
    let (Identity::Uri(identity) | Identity::Email(identity)) = &certificate.identity;
    if !question.roots.iter().any(|root| root.id == certificate.root) {
        return Err("it names a root that it was not given");
    }
    let is_denied = logs.iter().any(|entry| question.denied.lists(&entry.log, entry.index));
    if !is_denied && !question.wants(&certificate.root, &certificate.issuer, &certificate.identity) {
        return Err("it names a signer that it was not asked for");
    }
    let is_claim = |name: &String| certificate::claim_names().any(|known| known == name);
    if identity.is_empty()
        || !is_text(identity)
        || certificate.issuer.is_empty()
        || !is_text(&certificate.issuer)
        || !certificate.claims.keys().all(is_claim)
        || !certificate.claims.values().all(is_text)
    {
        return Err("it has a certificate that cannot be");
    }
    Ok(())
}

/// What a parser says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reply {
    answer: Answer,
    /// Blobs of the layout that the facts rest on.
    blobs: Vec<Digest>,
}

/// The parser's own `main`: shuts itself in, reads the question, judges, answers. `argument` is the number of the
/// layout's descriptor, which this process has inherited.
#[must_use]
pub fn main(argument: &str) -> ExitCode {
    let layout = match child::enter(argument, sandbox::enter) {
        Ok(layout) => layout,
        Err(status) => return status,
    };
    match answer(layout.as_fd()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(child::NO_PIPE),
    }
}

fn answer(layout: BorrowedFd<'_>) -> io::Result<()> {
    let mut question = Vec::new();
    io::stdin().take(MAX_QUESTION).read_to_end(&mut question)?;
    let question: Question = serde_json::from_slice(&question)?;
    let mut answer = evidence::judge(layout, &question);
    // One image can be signed by one key a thousand times; once is as good, where it says and proves the same.
    let mut said = HashSet::new();
    answer.facts.retain(|fact| {
        let Fact {
            evidence: _,
            carrier,
            chain,
            subject,
            claim,
            proof,
            details,
            held,
        } = fact;
        let index = chain.as_deref().map(|chain| chain.index);
        said.insert(format!("{:?}", (carrier, index, subject, claim, proof, details, held)))
    });
    answer.findings.truncate(MAX_ENTRIES);
    for finding in &mut answer.findings {
        finding.text = printable(&finding.text).chars().take(MAX_TEXT / 4).collect();
    }
    let blobs = blobs(layout, &answer);
    serde_json::to_writer(io::stdout(), &Reply { answer, blobs })?;
    Ok(())
}

/// The manifests that carry the facts, and what they hold. Of a manifest with more than there is room for, not all:
/// then its signature counts all the same, since a blob cannot change without another digest.
fn blobs(layout: BorrowedFd<'_>, answer: &Answer) -> Vec<Digest> {
    let layout = Layout::new(layout);
    let mut blobs = Vec::new();
    let mut carriers = Vec::new();
    let mut known = BTreeSet::new();
    let mut add = |list: &mut Vec<Digest>, digest: Digest| {
        if known.insert(digest) {
            list.push(digest);
        }
    };
    for fact in &answer.facts {
        add(
            &mut carriers,
            fact.chain.as_deref().map_or(fact.evidence, |chain| chain.signature),
        );
    }
    blobs.append(&mut carriers.clone());
    for fact in &answer.facts {
        let Some(chain) = fact.chain.as_deref() else {
            continue;
        };
        for link in links(chain).chain([fact.evidence]) {
            add(&mut blobs, link);
        }
        // Its size was compared where the chain says it; older attestation manifests do not.
        if layout.blob_by_digest(fact.subject, oci::MAX_DOCUMENT).is_ok() {
            add(&mut blobs, fact.subject);
        }
    }
    for carrier in carriers {
        let manifest = layout
            .blob_by_digest(carrier, oci::MAX_DOCUMENT)
            .ok()
            .and_then(|bytes| Manifest::parse(&bytes, oci::MANIFEST).ok());
        for layer in manifest.iter().flat_map(|manifest| &manifest.layers) {
            add(&mut blobs, layer.digest);
        }
    }
    blobs.truncate(MAX_ENTRIES);
    blobs
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use super::*;
    use crate::evidence::{Certifier, Denied};
    use crate::trust::{Builtin, HashAlgorithm, Key, Root, Status, Use};
    use crate::verify::{Finding, LogEntry, Proof, TimeSource, TrustedTime};

    fn shell(script: &str, patience: Duration) -> Result<Vec<u8>, ParserFault> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        Ok(child::run(command, b"question", MAX_ANSWER, Instant::now() + patience)?)
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn a_question_is_read_as_a_whole_and_an_answer_until_the_end() {
        assert_eq!(shell("read -r q; echo \"$q?\"", LONG).unwrap(), b"question?\n");
    }

    #[test]
    fn a_parser_is_killed_at_its_deadline() {
        let started = Instant::now();
        // One that says nothing, one that closes its output and works on, one that drips.
        for script in ["sleep 60", "exec >&-; sleep 60", "while :; do echo x; sleep 0.05; done"] {
            let fault = shell(script, Duration::from_millis(300)).unwrap_err();
            assert_eq!(fault.code(), "parser-timeout", "{script}");
        }
        assert!(started.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_parser_that_dies_says_nothing_that_counts() {
        for (script, code) in [
            ("echo '{}'; kill -SEGV $$", "parser-crashed"),
            ("echo '{}'; exit 1", "parser-crashed"),
            ("exit 101", "parser-crashed"),
            ("echo cannot mount; exit 71", "parser-sandbox"),
            ("exec cat /dev/zero", "parser-oversize"),
        ] {
            let fault = shell(script, LONG).unwrap_err();
            assert_eq!(fault.code(), code, "{script}: {fault}");
        }
        let fault = shell("printf 'cannot \\033[2J mount'; exit 71", LONG).unwrap_err();
        assert!(!fault.to_string().contains('\u{1b}'), "{fault}");
    }

    #[test]
    fn a_parser_that_cannot_be_started_is_a_fault() {
        let fault = child::run(Command::new("/no/such/program"), b"", MAX_ANSWER, Instant::now() + LONG).unwrap_err();
        let fault = ParserFault::from(fault);
        assert_eq!(fault.code(), "parser-start");
    }

    fn key() -> Key {
        Key {
            id: "release".to_owned(),
            spki: Vec::new(),
            hash: HashAlgorithm::Sha256,
            r#use: vec![Use::Image],
            from: None,
            until: None,
            status: Status::Active,
            digests: Vec::new(),
        }
    }

    fn fact() -> Fact {
        Fact {
            evidence: Digest::of(b"evidence"),
            carrier: Carrier::BundleKey,
            chain: None,
            subject: Digest::of(b"image"),
            claim: Claim::ImageSignature,
            proof: Proof::by_key("release"),
            details: None,
            held: Vec::new(),
        }
    }

    fn finding(code: &str, text: &str) -> Finding {
        Finding {
            evidence: None,
            code: code.to_owned(),
            text: text.to_owned(),
        }
    }

    fn question() -> Question {
        Question {
            subjects: vec![Digest::of(b"image"), Digest::of(b"index")],
            keys: vec![
                key(),
                Key {
                    id: "builder".to_owned(),
                    r#use: vec![Use::Provenance],
                    ..key()
                },
            ],
            roots: vec![Root::builtin("public-good", Builtin::Sigstore)],
            notation: Vec::new(),
            denied: Denied::default(),
            conditions: Vec::new(),
            purpose: None,
            through_index: true,
            certifiers: vec![Certifier {
                root: "public-good".to_owned(),
                issuer: "https://issuer.example".to_owned(),
            }],
            now: Timestamp::from_second(1_800_000_000).unwrap(),
        }
    }

    fn code(reply: &Reply) -> &'static str {
        let json = serde_json::to_vec(reply).unwrap();
        accept(&json, &question())
            .err()
            .map_or("accepted", |fault| fault.code())
    }

    fn reply(change: impl FnOnce(&mut Reply)) -> Reply {
        let mut reply = Reply {
            answer: Answer {
                facts: vec![fact()],
                findings: vec![finding("key-unknown", "no key in trust.d made it")],
                attestations: Vec::new(),
            },
            blobs: vec![Digest::of(b"evidence"), Digest::of(b"payload")],
        };
        change(&mut reply);
        reply
    }

    #[test]
    fn only_what_was_asked_can_be_answered() {
        assert_eq!(code(&reply(|_| {})), "accepted");
        let refused: [fn(&mut Reply); 9] = [
            |reply| reply.answer.facts[0].proof = Proof::by_key("stranger"),
            |reply| reply.answer.facts[0].subject = Digest::of(b"another image"),
            |reply| reply.answer.facts[0].evidence = Digest::of(b"unlisted"),
            |reply| reply.answer.facts = vec![fact(); MAX_ENTRIES + 1],
            |reply| reply.blobs = (0..=MAX_ENTRIES).map(|n| Digest::of(&n.to_le_bytes())).collect(),
            |reply| reply.answer.findings[0].code = "Not A Code".to_owned(),
            |reply| reply.answer.findings[0].code = String::new(),
            |reply| reply.answer.findings[0].text = "two\nlines".to_owned(),
            |reply| reply.answer.findings[0].text = "x".repeat(MAX_TEXT + 1),
        ];
        for change in refused {
            assert_eq!(code(&reply(change)), "parser-garbage");
        }
    }

    fn chained(change: impl FnOnce(&mut Chain, &mut Fact)) -> Reply {
        reply(|reply| {
            let mut chain = Chain {
                signature: Digest::of(b"payload"),
                carrier: Carrier::BundleKey,
                index: Some(Digest::of(b"index")),
                statement: Digest::of(b"statement"),
            };
            reply
                .blobs
                .extend([chain.statement, Digest::of(b"index"), Digest::of(b"image")]);
            let fact = &mut reply.answer.facts[0];
            fact.carrier = Carrier::AttestationManifest;
            fact.claim = Claim::Attestation("https://slsa.dev/provenance/v1".to_owned());
            fact.proof = Proof::by_key("builder");
            change(&mut chain, fact);
            fact.chain = Some(Box::new(chain));
        })
    }

    #[test]
    fn a_chain_is_believed_only_as_it_can_be() {
        assert_eq!(code(&chained(|_, _| {})), "accepted");
        assert_eq!(code(&chained(|chain, _| chain.index = None)), "accepted");
        let refused: [fn(&mut Chain, &mut Fact); 11] = [
            |chain, _| chain.signature = Digest::of(b"unlisted"),
            |chain, _| chain.statement = Digest::of(b"unlisted"),
            |chain, _| chain.index = Some(Digest::of(b"payload")),
            |chain, _| chain.index = Some(Digest::of(b"image")),
            |chain, _| chain.carrier = Carrier::AttestationManifest,
            |chain, _| chain.carrier = Carrier::Notation,
            |_, fact| fact.carrier = Carrier::BundleKey,
            |_, fact| fact.claim = Claim::ImageSignature,
            |_, fact| fact.claim = Claim::Attestation("https://example.com/other".to_owned()),
            |_, fact| fact.claim = Claim::Attestation("https://spdx.dev/Document".to_owned()),
            |_, fact| fact.proof = Proof::by_key("release"),
        ];
        for (number, change) in refused.into_iter().enumerate() {
            assert_eq!(code(&chained(change)), "parser-garbage", "{number}");
        }
        let loose = reply(|reply| reply.answer.facts[0].carrier = Carrier::AttestationManifest);
        assert_eq!(code(&loose), "parser-garbage");
        let many = reply(|reply| reply.answer.attestations = vec![Digest::of(b"one"); MAX_ATTESTATIONS + 1]);
        assert_eq!(code(&many), "parser-garbage");
    }

    #[test]
    fn a_signer_whom_no_rule_names_is_believed_with_a_denied_log_entry() {
        let mut asked = question();
        asked.certifiers.clear();
        asked.denied.log.push(crate::evidence::DeniedEntry {
            log: "0a".repeat(32),
            index: 1,
        });
        let judged = |reply: &Reply| accept(&serde_json::to_vec(reply).unwrap(), &asked).is_ok();
        assert!(judged(&certified(|_, _| {})));
        assert!(!judged(&certified(|_, fact| fact.proof.logs[0].index = 2)));
        assert!(!judged(&certified(|_, fact| fact.proof.logs.clear())));
    }

    fn certificate() -> Certificate {
        Certificate {
            root: "public-good".to_owned(),
            identity: Identity::Uri("https://example.com/release.yml".to_owned()),
            issuer: "https://issuer.example".to_owned(),
            claims: [("runner-environment".to_owned(), "github-hosted".to_owned())].into(),
            fingerprint: Digest::of(b"certificate"),
        }
    }

    fn certified(change: impl FnOnce(&mut Certificate, &mut Fact)) -> Reply {
        reply(|reply| {
            let mut certificate = certificate();
            let fact = &mut reply.answer.facts[0];
            fact.carrier = Carrier::BundleCertificate;
            fact.proof.logs.push(LogEntry {
                log: "0a".repeat(32),
                index: 1,
                included: true,
                unnumbered: false,
            });
            fact.proof.times.push(TrustedTime {
                source: TimeSource::Log,
                authority: "0a".repeat(32),
                time: Timestamp::from_second(1_700_000_000).unwrap(),
            });
            change(&mut certificate, fact);
            fact.proof.signer = Signer::Certificate(Box::new(certificate));
        })
    }

    #[test]
    fn a_certificate_is_believed_only_as_it_was_asked_for() {
        assert_eq!(code(&certified(|_, _| {})), "accepted");
        let refused: [fn(&mut Certificate, &mut Fact); 16] = [
            |certificate, _| certificate.root = "another".to_owned(),
            |certificate, _| certificate.issuer = "https://another.example".to_owned(),
            |certificate, _| certificate.identity = Identity::Uri(String::new()),
            |certificate, _| certificate.identity = Identity::Email("a\u{202e}b".to_owned()),
            |certificate, _| certificate.identity = Identity::Uri("x".repeat(certificate::MAX_TEXT + 1)),
            |certificate, _| drop(certificate.claims.insert("admin".to_owned(), "true".to_owned())),
            |certificate, _| drop(certificate.claims.insert("build-trigger".to_owned(), "\n".to_owned())),
            |_, fact| fact.proof.logs.push(fact.proof.logs[0].clone()),
            |_, fact| fact.proof.logs[0].log = "0A".repeat(32),
            |_, fact| fact.proof.logs[0].log.clear(),
            |_, fact| fact.proof.times = vec![fact.proof.times[0].clone(); 65],
            |_, fact| fact.proof.times[0].time = question().now + Duration::from_secs(1),
            |_, fact| fact.proof.times[0].authority = "\u{1b}[2J".to_owned(),
            |_, fact| fact.proof.span.from = Some(question().now + Duration::from_secs(1)),
            |_, fact| fact.proof.span.until = Some(question().now),
            |_, fact| fact.claim = Claim::Attestation("x".repeat(MAX_TEXT + 1)),
        ];
        for (number, change) in refused.into_iter().enumerate() {
            assert_eq!(code(&certified(change)), "parser-garbage", "{number}");
        }
    }

    #[test]
    fn garbage_is_no_answer() {
        let whole = serde_json::to_string(&reply(|_| {})).unwrap();
        for garbage in [
            "",
            "null",
            "{}",
            "[]",
            "\0\0\0",
            &whole[..whole.len() - 1],
            &format!("{whole}{whole}"),
            &whole.replacen('{', "{\"verdict\":\"allow\",", 1),
        ] {
            let fault = accept(garbage.as_bytes(), &question()).unwrap_err();
            assert_eq!(fault.code(), "parser-garbage", "{garbage}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_reply_breaks_the_broker(bytes: Vec<u8>) {
            let _ = accept(&bytes, &question());
        }
    }
}
