//! Asking a parser: a child process that reads untrusted evidence in a cage and answers with facts.
//!
//! The child is this same program, started with [`ARGUMENT`]. It gets the question on standard input, the evidence
//! layout as the one directory it can see, and answers on standard output. What it says is checked here field by field:
//! it can claim that something verified that did not only by breaking into the verification itself, and then only with
//! keys, roots, issuers, subjects and evidence that this side named.

use std::collections::{BTreeSet, HashSet};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::MemfdFlags;
use rustix::process::{Pid, PidfdFlags};
use serde::{Deserialize, Serialize};

use super::sandbox;
use crate::diagnostic::printable;
use crate::digest::Digest;
use crate::evidence::{self, Question};
use crate::oci::{self, Layout, Manifest};
use crate::verify::{Answer, Certificate, Claim, Fact, Identity, Signer, bundle, certificate};

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
/// Exit status of a parser whose cage could not be closed.
const NO_SANDBOX: u8 = 71;
/// Exit status of a parser that could not read its question or write its answer.
const NO_PIPE: u8 = 74;

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
    /// It could not be started.
    #[error("the evidence parser could not be started: {0}")]
    Start(#[source] io::Error),
    /// Its cage could not be closed, so it read nothing.
    #[error("the evidence parser could not be shut in: {0}")]
    Sandbox(String),
    /// It did not finish in time.
    #[error("the evidence was not judged within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// It died.
    #[error("the evidence parser died: {0}")]
    Crashed(String),
    /// It said more than an answer may have.
    #[error("the evidence parser answered with more than {MAX_ANSWER} bytes")]
    TooLarge,
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
            Self::Start(_) => "parser-start",
            Self::Sandbox(_) => "parser-sandbox",
            Self::Timeout(_) => "parser-timeout",
            Self::Crashed(_) => "parser-crashed",
            Self::TooLarge => "parser-oversize",
            Self::Garbage(_) => "parser-garbage",
            Self::QuestionTooLarge => "parser-question",
        }
    }

    /// What to do next.
    #[must_use]
    pub fn fix(&self) -> &'static str {
        match self {
            Self::Start(_) => "free memory or processes on this node and start the container again",
            Self::Sandbox(_) => "use Linux 5.12 or newer, and let assay admit create mount, network and IPC namespaces",
            Self::Timeout(_) => {
                "raise admit_timeout in /etc/assay/config.toml, or find the slow evidence: assay verify IMAGE"
            }
            Self::Crashed(_) | Self::TooLarge | Self::Garbage(_) => {
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
    let json = serde_json::to_vec(question).map_err(|error| ParserFault::Start(error.into()))?;
    if json.len() as u64 > MAX_QUESTION {
        return Err(ParserFault::QuestionTooLarge);
    }
    // Inherited by the child, so this one copy must not be closed on exec. Nothing else is started meanwhile.
    let inherited = rustix::io::dup(layout).map_err(|error| ParserFault::Start(error.into()))?;
    let mut command = Command::new("/proc/self/exe");
    command.args([ARGUMENT, &inherited.as_raw_fd().to_string()]);
    let answer = run(command, &json, deadline)?;
    accept(&answer, question)
}

/// Starts a parser, gives it its question and collects what it says until it ends, or kills it at the deadline.
fn run(mut command: Command, question: &[u8], deadline: Instant) -> Result<Vec<u8>, ParserFault> {
    let started = Instant::now();
    let io_fault = |error: rustix::io::Errno| ParserFault::Start(error.into());
    // A file in memory instead of a pipe: the question is there as a whole, however slowly it is read.
    let file = rustix::fs::memfd_create("question", MemfdFlags::CLOEXEC).map_err(io_fault)?;
    let mut file = std::fs::File::from(file);
    file.write_all(question).map_err(ParserFault::Start)?;
    rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0)).map_err(io_fault)?;
    let mut child = command
        .env_clear()
        .current_dir("/")
        .stdin(file)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(ParserFault::Start)?;
    let collected = collect(&mut child, deadline, started);
    // Dead already, or not to live longer; either way its entry in the process table goes.
    let _ = child.kill();
    let status = child.wait().map_err(ParserFault::Start)?;
    let answer = collected?;
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(answer),
        // It had not read anything untrusted yet, so what it said is its own.
        (Some(code), _) if code == i32::from(NO_SANDBOX) => {
            let text = String::from_utf8_lossy(&answer);
            Err(ParserFault::Sandbox(
                printable(&text).chars().take(MAX_TEXT / 4).collect(),
            ))
        }
        (Some(code), _) => Err(ParserFault::Crashed(format!("exit status {code}"))),
        (None, Some(signal)) => Err(ParserFault::Crashed(format!("signal {signal}"))),
        (None, None) => Err(ParserFault::Crashed(status.to_string())),
    }
}

/// Reads standard output until it ends and then waits until the process has.
fn collect(child: &mut Child, deadline: Instant, started: Instant) -> Result<Vec<u8>, ParserFault> {
    let io_fault = |error: rustix::io::Errno| ParserFault::Start(error.into());
    let mut stdout = child
        .stdout
        .take()
        .ok_or(ParserFault::Start(io::ErrorKind::BrokenPipe.into()))?;
    let pid = Pid::from_child(child);
    let process = rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(io_fault)?;
    let mut answer = Vec::new();
    let mut part = vec![0; 64 << 10];
    loop {
        wait_for(stdout.as_fd(), deadline, started)?;
        let count = match stdout.read(&mut part) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(ParserFault::Start(error)),
        };
        if count == 0 {
            break;
        }
        answer.extend_from_slice(part.get(..count).unwrap_or_default());
        if answer.len() as u64 > MAX_ANSWER {
            return Err(ParserFault::TooLarge);
        }
    }
    wait_for(process.as_fd(), deadline, started)?;
    Ok(answer)
}

/// Waits until `fd` can be read.
fn wait_for(fd: BorrowedFd<'_>, deadline: Instant, started: Instant) -> Result<(), ParserFault> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ParserFault::Timeout(started.elapsed()));
        }
        let timeout = Timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        match rustix::event::poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(ParserFault::Start(error.into())),
        }
    }
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
            if !question.keys.iter().any(|key| key.id == *id) {
                return Err("it names a key that it was not given");
            }
        }
        Signer::Certificate(certificate) => accept_certificate(certificate, question)?,
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
    let is_log = |log: &str| log.len() == 64 && log.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let logs = &fact.proof.logs;
    let distinct: HashSet<&str> = logs.iter().map(|entry| entry.log.as_str()).collect();
    if distinct.len() < logs.len() || logs.len() > bundle::MAX_ENTRIES || !distinct.into_iter().all(is_log) {
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

fn accept_certificate(certificate: &Certificate, question: &Question) -> Result<(), &'static str> {
    let is_text = |text: &String| text.len() <= certificate::MAX_TEXT && printable(text) == *text;
    let (Identity::Uri(identity) | Identity::Email(identity)) = &certificate.identity;
    if !question.roots.iter().any(|root| root.id == certificate.root) {
        return Err("it names a root that it was not given");
    }
    if !question.wants(&certificate.root, &certificate.issuer, &certificate.identity) {
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
    let no_sandbox = |why: &dyn std::fmt::Display| {
        // When not even this can be said, the exit status still says the most important part.
        let _ = write!(io::stdout(), "{why}");
        ExitCode::from(NO_SANDBOX)
    };
    let Some(layout) = inherited(argument) else {
        return no_sandbox(&"its argument is not an inherited descriptor");
    };
    let layout = match sandbox::enter(layout) {
        Ok(layout) => layout,
        Err(error) => return no_sandbox(&error),
    };
    match answer(layout.as_fd()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(NO_PIPE),
    }
}

fn inherited(argument: &str) -> Option<OwnedFd> {
    let number: RawFd = argument.parse().ok().filter(|number| *number > 2)?;
    // SAFETY: only asks whether the number stands for an open file.
    let open = unsafe { libc::fcntl(number, libc::F_GETFD) } != -1;
    // SAFETY: the process has just started, nothing in it owns the descriptor that its parent left open for it.
    open.then(|| unsafe { OwnedFd::from_raw_fd(number) })
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
            subject,
            claim,
            proof,
            details,
            held,
        } = fact;
        said.insert(format!("{:?}", (carrier, subject, claim, proof, details, held)))
    });
    answer.findings.truncate(MAX_ENTRIES);
    for finding in &mut answer.findings {
        finding.text = printable(&finding.text).chars().take(MAX_TEXT / 4).collect();
    }
    let blobs = blobs(layout, &answer);
    serde_json::to_writer(io::stdout(), &Reply { answer, blobs })?;
    Ok(())
}

/// The manifests that carry the facts, and what they hold.
fn blobs(layout: BorrowedFd<'_>, answer: &Answer) -> Vec<Digest> {
    let layout = Layout::new(layout);
    let mut blobs = BTreeSet::new();
    for fact in &answer.facts {
        if !blobs.insert(fact.evidence) {
            continue;
        }
        let manifest = layout
            .blob_by_digest(fact.evidence, oci::MAX_DOCUMENT)
            .ok()
            .and_then(|bytes| Manifest::parse(&bytes, oci::MANIFEST).ok());
        blobs.extend(
            manifest
                .iter()
                .flat_map(|manifest| manifest.layers.iter().map(|layer| layer.digest)),
        );
    }
    blobs.into_iter().take(MAX_ENTRIES).collect()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::evidence::{Certifier, Denied};
    use crate::trust::{Builtin, HashAlgorithm, Key, Root, Status, Use};
    use crate::verify::{Carrier, Finding, LogEntry, Proof, TimeSource, TrustedTime};

    fn shell(script: &str, patience: Duration) -> Result<Vec<u8>, ParserFault> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        run(command, b"question", Instant::now() + patience)
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
        let fault = run(Command::new("/no/such/program"), b"", Instant::now() + LONG).unwrap_err();
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
            subjects: vec![Digest::of(b"image")],
            keys: vec![key()],
            roots: vec![Root::builtin("public-good", Builtin::Sigstore)],
            notation: Vec::new(),
            denied: Denied::default(),
            conditions: Vec::new(),
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
