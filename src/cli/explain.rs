//! `assay explain`: a line of the decision log, the latest decision about a container, or a code.

use serde::Serialize;

use super::decisions::{decided, written};
use super::{Exit, Output, complain, print};
use crate::admission::again::word;
use crate::admission::log::{self, Entry, Line, MIN_PREFIX};
use crate::admission::{self, Basis, Decision, Granted, Recheck, Verdict};
use crate::config::Config;
use crate::diagnostic::printable;
use crate::store::StateDir;
use crate::verify::{Claim, Fact, Signer, TimeSource};

/// The pages that list codes, in the order in which they are searched.
const PAGES: [&str; 6] = [
    include_str!("../../docs/refusals.md"),
    include_str!("../../docs/break-glass.md"),
    include_str!("../../docs/policy.md"),
    include_str!("../../docs/decisions.md"),
    include_str!("../../docs/doctor.md"),
    include_str!("../../docs/sbom.md"),
];

/// Most decisions that are listed.
const LISTED: usize = 20;

/// Arguments of `assay explain`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A line of the decision log by its identifier, a container by its id, or a code; without it, the latest decisions
    /// are listed
    #[arg(value_name = "ID|CONTAINER|CODE")]
    what: Option<String>,
    /// What the explanation is written as
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

/// A decision with what became of it, for programs.
#[derive(Debug, Serialize)]
struct Explained<'a> {
    id: &'a str,
    decision: &'a Decision,
    /// Of an allow: whether it would be allowed today.
    #[serde(skip_serializing_if = "Option::is_none")]
    recheck: Option<&'a Recheck>,
}

/// A line of the list of decisions, for programs.
#[derive(Debug, Serialize)]
struct Listed<'a> {
    id: &'a str,
    time: &'a str,
    verdict: Verdict,
    code: &'a str,
    namespace: &'a str,
    container: &'a str,
    name: &'a str,
}

/// What a code means.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Meaning {
    code: String,
    /// Heading of the part of the documentation that lists it.
    about: String,
    meaning: String,
    /// What to do; empty where it goes without saying.
    fix: String,
}

/// Explains.
#[must_use]
pub fn run(args: &Args, config: &Config) -> Exit {
    let what = args.what.as_deref();
    if let Some(meaning) = what.and_then(meaning) {
        return write(args.output, &meaning, || meaning.text());
    }
    let state = match StateDir::open(&config.state) {
        Ok(state) => state,
        Err(error) => return unreadable(&error),
    };
    match what {
        Some(what) => explain(what, args.output, &state, config),
        None => list(args.output, &state),
    }
}

pub(super) fn unreadable(error: &crate::store::Error) -> Exit {
    complain(printable(&format!("error: {error}")));
    if !rustix::process::geteuid().is_root() {
        complain("the decision log belongs to root: run this as root");
    }
    Exit::Failed
}

fn explain(what: &str, output: Output, state: &StateDir, config: &Config) -> Exit {
    let (found, unread) = match log::find(state, what) {
        Ok(found) => found,
        Err(error) => return unreadable(&error),
    };
    note(unread);
    let Some(line) = found else {
        complain(format_args!(
            "'{}' is neither a code nor a line or container of the decision log; of an identifier, give at least \
             {MIN_PREFIX} characters; assay decisions lists all lines",
            printable(&what.chars().take(80).collect::<String>())
        ));
        return Exit::NotFound;
    };
    let Line::Decision(entry) = line else {
        print(record(&line, output));
        return Exit::Done;
    };
    let decision = &entry.decision;
    let recheck = (decision.verdict == Verdict::Allow)
        .then(|| admission::recheck(config, decision))
        .flatten();
    let explained = Explained {
        id: entry.id(),
        decision,
        recheck: recheck.as_ref(),
    };
    write(output, &explained, || text(&entry, recheck.as_ref()))
}

/// What became of something that is no decision on a container: as the log's list has it, with its reason.
fn record(line: &Line, output: Output) -> String {
    let first = written(line, output);
    if output == Output::Json {
        return first;
    }
    let mut sheet = Sheet(vec![first]);
    match line {
        Line::Exec(_, record) => {
            sheet.field("reason", &record.reason);
            sheet.field("to fix", &record.fix);
            sheet.field("rule", record.rule.as_deref().unwrap_or_default());
            granted(&mut sheet, record.grant.as_ref());
        }
        Line::Reevaluation(_, record) => {
            sheet.field("reason", &record.new.reason);
            sheet.field("to fix", &record.new.fix);
            sheet.field("before", format_args!("{}: {}", record.old.code, record.old.reason));
        }
        Line::Grant(..) | Line::Decision(_) => {}
    }
    sheet.0.join("\n")
}

/// The grant that something rests on.
fn granted(sheet: &mut Sheet, grant: Option<&Granted>) {
    let Some(grant) = grant else { return };
    sheet.field("grant", format_args!("{} until {:.0}", grant.id, grant.until));
    sheet.field(
        "granted by",
        format_args!("{}, signed by key {}", grant.owner, grant.key),
    );
    sheet.field("granted for", &grant.reason);
    sheet.field("without it", format_args!("refused: {}: {}", grant.refused, grant.why));
}

pub(super) fn note(unread: log::Unread) {
    if unread.lines > 0 {
        complain(format_args!(
            "note: {} of the decision log are no decisions of this version and were skipped",
            super::count(unread.lines, "line")
        ));
    }
}

fn list(output: Output, state: &StateDir) -> Exit {
    let mut latest = std::collections::VecDeque::new();
    let read = log::read(state, |entry| {
        if latest.len() == LISTED {
            latest.pop_front();
        }
        latest.push_back(entry);
    });
    match read {
        Ok(unread) => note(unread),
        Err(error) => return unreadable(&error),
    }
    let lines: Vec<Listed<'_>> = latest
        .iter()
        .map(|entry| Listed {
            id: entry.id(),
            time: &entry.decision.time,
            verdict: entry.decision.verdict,
            code: &entry.decision.code,
            namespace: &entry.decision.namespace,
            container: &entry.decision.container,
            name: &entry.decision.name,
        })
        .collect();
    write(output, &lines, || {
        let rows: Vec<String> = latest
            .iter()
            .map(|entry| decided(entry.id(), &entry.decision))
            .collect();
        match rows.as_slice() {
            [] => "nothing was decided on this node yet".to_owned(),
            rows => rows.join("\n"),
        }
    })
}

fn write(output: Output, value: &impl Serialize, text: impl FnOnce() -> String) -> Exit {
    match output {
        Output::Text => print(text()),
        Output::Json => match crate::diagnostic::json(value) {
            Ok(json) => print(json),
            Err(error) => {
                complain(format_args!("error: the result cannot be written as JSON: {error}"));
                return Exit::Internal;
            }
        },
    }
    Exit::Done
}

/// Lines of a name and what it is, without anything in them that could command a terminal.
#[derive(Default)]
struct Sheet(Vec<String>);

impl Sheet {
    fn line(&mut self, text: &str) {
        self.0.push(printable(text).into_owned());
    }

    fn field(&mut self, name: &str, value: impl std::fmt::Display) {
        let value = value.to_string();
        if !value.is_empty() {
            self.line(&format!("  {name:<15} {value}"));
        }
    }
}

fn text(entry: &Entry, recheck: Option<&Recheck>) -> String {
    let decision = &entry.decision;
    let mut sheet = Sheet::default();
    sheet.line(&format!("decision {} of {}", entry.id(), decision.time));
    sheet.line(&format!(
        "{}: {}: {}",
        word(decision.verdict),
        decision.code,
        decision.reason
    ));
    sheet.field("to fix", &decision.fix);
    sheet.field(
        "container",
        format_args!("{}/{}", decision.namespace, decision.container),
    );
    sheet.field("asked for", &decision.name);
    let basis = decision.basis.as_ref();
    let generation = basis.map_or_else(String::new, |basis| {
        format!("generation {} ({})", basis.generation, basis.policy)
    });
    if let Some(rule) = &decision.rule {
        sheet.field("rule", format_args!("\"{rule}\""));
    }
    granted(&mut sheet, decision.grant.as_ref());
    sheet.field("policy", generation);
    for (id, digest) in basis.iter().flat_map(|basis| &basis.roots) {
        sheet.field("trusted root", format_args!("{id} ({digest})"));
    }
    for fact in &decision.evidence {
        chain(&mut sheet, fact);
    }
    image(&mut sheet, decision, basis);
    for audit in &decision.audit {
        let would = match audit.verdict {
            Verdict::Allow => "would allow",
            Verdict::Refuse => "would refuse",
        };
        sheet.field(
            "audit rule",
            format_args!("\"{}\" {would}: {}: {}", audit.rule, audit.code, audit.reason),
        );
    }
    files(&mut sheet, decision);
    if let Some(recheck) = recheck {
        checked_again(&mut sheet, decision, recheck);
    } else if decision.verdict == Verdict::Allow {
        sheet.line("it was recorded without what is needed to check it again");
    }
    sheet.0.join("\n")
}

/// What the container sees of its image, or would see.
fn files(sheet: &mut Sheet, decision: &Decision) {
    let hidden = |(all, visible): (u64, u64)| format!("{} of {all}", all.saturating_sub(visible));
    if let Some(view) = &decision.view {
        sheet.field("view", view.digest);
    }
    let Some(files) = &decision.files else { return };
    if !files.unavailable.is_empty() {
        sheet.field("sees everything", &files.unavailable);
        return;
    }
    let executables = hidden(files.counts.executables);
    sheet.field(
        if files.audit.is_some() { "would hide" } else { "hides" },
        format_args!("{} files, {executables} executables", hidden(files.counts.files)),
    );
    if let Some(audit) = &files.audit {
        sheet.field("among them", audit.first.join(" "));
        sheet.field("would refuse", &audit.refuse);
        sheet.field("by rule", format_args!("\"{}\"", audit.rule));
    }
}

/// From what lies in the cache to whom the signature is about.
fn chain(sheet: &mut Sheet, fact: &Fact) {
    let claim = match &fact.claim {
        Claim::ImageSignature => "image signature".to_owned(),
        Claim::Attestation(predicate) => format!("attestation {predicate}"),
    };
    sheet.line(&format!("  {claim}"));
    let mut field = |name: &str, value: String| sheet.field(&format!("  {name}"), value);
    field("carried by", format!("{} {}", fact.carrier, fact.evidence));
    if let Some(chain) = &fact.chain {
        let of = chain.index.map_or_else(
            || format!("attestation manifest {}", fact.evidence),
            |index| format!("index {index}, which lists it"),
        );
        field(
            "signature",
            format!("{} {} of the {of}", chain.carrier, chain.signature),
        );
    }
    match &fact.proof.signer {
        Signer::Key(id) => field("signed by", format!("key {id}")),
        Signer::Certificate(certificate) => {
            field("signed by", certificate.identity.to_string());
            field("issuer", certificate.issuer.clone());
            field(
                "certificate",
                format!("{} of root {}", certificate.fingerprint, certificate.root),
            );
            for (name, value) in &certificate.claims {
                field(name, value.clone());
            }
        }
        Signer::Notation(signer) => {
            field("signed by", signer.subject.clone());
            field(
                "certificate",
                format!("{} of trust store {}", signer.fingerprint, signer.store),
            );
            field("revocation", signer.revocation_unknown.clone());
        }
    }
    for entry in &fact.proof.logs {
        let how = if entry.included { "included" } else { "promised" };
        field("log entry", format!("{} in log {}, {how}", entry.index, entry.log));
    }
    for time in &fact.proof.times {
        let source = match time.source {
            TimeSource::Log => "log",
            TimeSource::Timestamp => "timestamp authority",
        };
        field("signed at", format!("{} says {source} {}", time.time, time.authority));
    }
    let span = &fact.proof.span;
    if let Some(from) = span.from {
        field("holds from", from.to_string());
    }
    if let Some(until) = span.until {
        field("holds until", until.to_string());
    }
    if let Some(chain) = &fact.chain {
        field("statement", chain.statement.to_string());
    }
    field("subject", fact.subject.to_string());
}

fn image(sheet: &mut Sheet, decision: &Decision, basis: Option<&Basis>) {
    if let Some(image) = &decision.image {
        for index in &image.indexes {
            sheet.field("index", index);
        }
        for manifest in &image.manifests {
            sheet.field("manifest", manifest);
        }
        sheet.field("configuration", image.config);
        sheet.field("layers", format_args!("chain {}", image.chain_id));
    }
    let Some(basis) = basis else { return };
    if let Some(upper) = &basis.upper {
        sheet.field("writes go to", upper);
    }
    for volume in &basis.volumes {
        let what = volume.image.as_ref().map_or_else(
            || "unproved".to_owned(),
            |image| format!("{} ({})", image.name, image.manifests.first().unwrap_or(&image.config)),
        );
        sheet.field("image volume", format_args!("{} is {what}", volume.destination));
    }
}

fn checked_again(sheet: &mut Sheet, decision: &Decision, recheck: &Recheck) {
    sheet.line("checked again now, without containerd:");
    let blobs = decision.basis.as_ref().map_or(0, |basis| basis.blobs.len());
    let there = blobs.saturating_sub(recheck.lost.len());
    sheet.field(
        "evidence",
        format_args!("{there} of {blobs} blobs are there, unchanged"),
    );
    for (digest, why) in &recheck.lost {
        sheet.field("", format_args!("{digest}: {why}"));
    }
    let policy = if recheck.same_policy {
        "the same as then"
    } else {
        "another one was activated since"
    };
    sheet.field("policy", policy);
    let today = &recheck.decision;
    let verdict = match today.verdict {
        Verdict::Allow => format!("it holds today: {}: {}", today.code, today.reason),
        Verdict::Refuse => format!("it would be refused today: {}: {}", today.code, today.reason),
    };
    sheet.field("verdict", verdict);
    sheet.field("to fix", &today.fix);
}

/// Looks a code up in the documentation: in the tables that list codes, then in the paragraphs that do.
fn meaning(code: &str) -> Option<Meaning> {
    if !code
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    {
        return None;
    }
    let quoted = format!("`{code}`");
    let told = |about: &str, meaning: &str, fix: &str| Meaning {
        code: code.to_owned(),
        about: about.to_owned(),
        meaning: meaning.to_owned(),
        fix: fix.to_owned(),
    };
    let blocks = PAGES.iter().flat_map(|page| {
        page.split("\n\n").scan("", |about, block| {
            if let Some(heading) = block.strip_prefix("## ") {
                *about = heading.lines().next().unwrap_or_default();
            }
            Some((*about, block))
        })
    });
    let in_table = blocks
        .clone()
        .filter(|(_, block)| block.starts_with("| code |"))
        .flat_map(|(about, block)| block.lines().map(move |row| (about, row)))
        .find_map(|(about, row)| {
            let mut cells = row.trim_matches('|').split(" | ").map(str::trim);
            cells.next().filter(|cell| cell.contains(&quoted))?;
            Some(told(
                about,
                cells.next().unwrap_or_default(),
                cells.next().unwrap_or_default(),
            ))
        });
    in_table.or_else(|| {
        // Other words stand in paragraphs between such marks too; codes of one word are all in tables.
        let (about, block) = blocks
            .filter(|(_, block)| !block.starts_with('|') && code.contains('-'))
            .find(|(_, block)| block.contains(&quoted))?;
        Some(told(about, &block.split_whitespace().collect::<Vec<_>>().join(" "), ""))
    })
}

impl Meaning {
    fn text(&self) -> String {
        let fix = if self.fix.is_empty() {
            String::new()
        } else {
            format!("\n  to fix: {}", self.fix)
        };
        format!("{} ({}): {}{fix}", self.code, self.about, self.meaning)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::exec::{Asked, ExecRecord};
    use crate::digest::Digest;
    use crate::verify::{Carrier, Chain, Proof};

    #[test]
    fn a_refused_exec_says_why_and_what_to_do() {
        let arguments = ["sh".to_owned(), "-c".to_owned(), "id".to_owned()];
        let mut exec = ExecRecord::new(Asked {
            id: "shell",
            arguments: &arguments,
            terminal: true,
            user: 0,
        });
        exec.time = "2026-11-22T05:16:20Z".to_owned();
        exec.rule = Some("production".to_owned());
        let reason = "/bin/sh is none of the programs of the image's closure";
        exec.refuse("exec-denied", reason.to_owned(), "ask for a grant");
        let line = Line::Exec("0123456789ab".to_owned(), Box::new(exec));
        insta::assert_snapshot!(record(&line, Output::Text), @r"
        0123456789ab  2026-11-22T05:16:20Z  refused  exec-denied           /  exec by user 0 with a terminal: sh -c id
          reason          /bin/sh is none of the programs of the image's closure
          to fix          ask for a grant
          rule            production
        ");
        let json: serde_json::Value = serde_json::from_str(&record(&line, Output::Json)).unwrap();
        assert_eq!(
            (&json["id"], &json["code"]),
            (&"0123456789ab".into(), &"exec-denied".into())
        );
    }

    #[test]
    fn a_chain_is_shown_from_the_signature_to_the_image() {
        let digest = |name: &str| Digest::of(name.as_bytes());
        let shown = |index: Option<Digest>| {
            let mut sheet = Sheet::default();
            let fact = Fact {
                evidence: digest("attestation"),
                carrier: Carrier::AttestationManifest,
                chain: Some(Box::new(Chain {
                    signature: digest("signature"),
                    carrier: Carrier::SimpleSigning,
                    index,
                    statement: digest("statement"),
                })),
                subject: digest("image"),
                claim: Claim::Attestation("https://spdx.dev/Document".to_owned()),
                proof: Proof::by_key("dhi"),
                details: None,
                held: Vec::new(),
            };
            chain(&mut sheet, &fact);
            let mut text = sheet.0.join("\n");
            for name in ["attestation", "signature", "statement", "image", "index"] {
                text = text.replace(&digest(name).to_string(), &format!("<{name}>"));
            }
            text
        };
        insta::assert_snapshot!(shown(None), @"
          attestation https://spdx.dev/Document
            carried by    attestation-manifest <attestation>
            signature     simple-signing <signature> of the attestation manifest <attestation>
            signed by     key dhi
            statement     <statement>
            subject       <image>
        ");
        let through_index = shown(Some(digest("index")));
        assert!(
            through_index.contains("simple-signing <signature> of the index <index>, which lists it"),
            "{through_index}"
        );
    }
}
