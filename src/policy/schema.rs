//! What may be written in `policy.d`, and how it becomes [`Rule`]s.

mod confine;
mod table;
pub(super) mod tuning;

use std::sync::Arc;

use toml::Spanned;

use super::{DeniedEntry, Deny, ImagePattern, InvalidPattern, Kind, Match, Mode, Rule, diags};
use crate::attest::Family;
use crate::diagnostic::strict::{Reader, Table};
use crate::diagnostic::{Diagnostic, Place, Source};
use crate::digest::Digest;
use crate::trust::TextPattern;
use crate::trust::diags::invalid_text;

const TOP_KEYS: &[&str] = &["rule", "deny"];
const RULE_KEYS: &[&str] = &[
    "name",
    "match",
    "mode",
    "signature",
    "provenance",
    "vsa",
    "sbom",
    "vex",
    "profile",
    "digest",
    "runtime",
    "filesystem",
    "seccomp",
    "exec",
    "reevaluate",
];
const MATCH_KEYS: &[&str] = &["image", "namespace", "containerd_namespace", "kind", "digest"];
const DENY_KEYS: &[&str] = &["digest", "key", "identity", "email", "log"];

const KINDS: &[(&str, Kind)] = &[
    ("sandbox", Kind::Sandbox),
    ("container", Kind::Container),
    ("volume", Kind::Volume),
];
const MODES: &[(&str, Mode)] = &[("enforce", Mode::Enforce), ("audit", Mode::Audit), ("off", Mode::Off)];

/// Longest name of a rule, in characters.
const MAX_NAME: usize = 128;

/// A rule with the places that later checks point at.
#[derive(Debug)]
pub(super) struct SourceRule {
    pub rule: Rule,
    /// Its header.
    pub at: Place,
    pub name_at: Place,
    /// Every mention of something in trust.
    pub mentions: Vec<Mention>,
    /// Whether a part of its `match` could not be read, so that it matches something else than was meant.
    pub is_partial: bool,
}

/// What a rule names of trust.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Named {
    /// A key, for evidence of this kind.
    Key(Family),
    Root,
    Builder,
    Store,
    /// Transparency logs of any root.
    Logs,
    /// Logs or timestamp authorities of any root or trust store.
    Times,
}

/// A place where a rule names something of trust.
#[derive(Debug)]
pub(super) struct Mention {
    pub what: Named,
    pub id: String,
    pub place: Place,
}

impl Mention {
    fn new(what: Named, id: &Spanned<String>, reader: &Reader<'_>) -> Self {
        Self {
            what,
            id: id.get_ref().clone(),
            place: reader.at(id.span()),
        }
    }
}

/// What one file of policy says.
#[derive(Debug, Default)]
pub(super) struct SourcePolicy {
    pub rules: Vec<SourceRule>,
    pub deny: Deny,
    /// Keys that `[[deny]]` mentions.
    pub denied_keys: Vec<(String, Place)>,
}

/// Reads a file. What it says is incomplete where a diagnostic is an error.
pub(super) fn parse(source: &Arc<Source>) -> (SourcePolicy, Vec<Diagnostic>) {
    let (mut reader, mut top) = match Reader::new(source, "a file of policy") {
        Ok(read) => read,
        Err(faults) => return (SourcePolicy::default(), faults),
    };
    let mut policy = SourcePolicy::default();
    for mut table in reader.tables(&mut top, "rule", "[[rule]]") {
        if table.is_empty() {
            diags::empty_table(&mut reader, &table, "[[rule]]", "write the rule, or remove its header");
            continue;
        }
        policy.rules.extend(parse_rule(&mut reader, &mut table));
        reader.finish(&table, RULE_KEYS, &[]);
    }
    for mut table in reader.tables(&mut top, "deny", "[[deny]]") {
        parse_deny(&mut reader, &mut table, &mut policy);
        reader.finish(&table, DENY_KEYS, &[]);
    }
    reader.finish(&top, TOP_KEYS, &[]);
    (policy, reader.into_faults())
}

fn parse_rule<'s>(reader: &mut Reader<'s>, table: &mut Table<'s>) -> Option<SourceRule> {
    let name = reader.required_text(table, "name").filter(|name| {
        let text = name.get_ref();
        let sound = text.chars().count() <= MAX_NAME
            && text.trim() == text
            && crate::diagnostic::printable(text) == text.as_str();
        if !sound {
            diags::invalid_name(reader, name);
        }
        sound
    });
    // What could not be read was asked for all the same, and a key that is none may have been meant for one of these.
    let asks = ["signature", "provenance", "vsa", "digest"]
        .iter()
        .any(|key| table.has(key));
    let described = ["sbom", "vex"].iter().any(|key| table.has(key));
    let faults = reader.count_faults();
    let r#match = parse_match(reader, table);
    let is_partial = reader.count_faults() > faults;
    let mode = if table.has("mode") {
        reader.choice(table, "mode", MODES)
    } else {
        Some(Mode::Enforce)
    };
    let mut mentions = Vec::new();
    let mut tables = Vec::new();
    for (family, key, name) in table::TABLES {
        for mut inner in reader.tables(table, key, name) {
            tables.extend(table::parse(reader, &mut inner, *family, &mut mentions));
            table::finish(reader, &inner, *family);
        }
    }
    let digest = parse_digests(reader, table, "digest");
    let runtime = confine::runtime(reader, table);
    let filesystem = confine::filesystem(reader, table);
    let seccomp = confine::seccomp(reader, table);
    let exec = confine::exec(reader, table, filesystem.mode);
    let reevaluate = confine::reevaluate(reader, table);
    let (name, r#match, mode) = (name?, r#match?, mode?);
    let name_at = reader.at(name.span());
    let rule = Rule {
        name: name.into_inner(),
        r#match,
        mode,
        tables,
        digest,
        runtime,
        filesystem,
        seccomp,
        exec,
        reevaluate,
    };
    match rule.mode {
        _ if asks || !table.is_empty() => {}
        Mode::Enforce => diags::requires_nothing(reader, table, &rule, described),
        Mode::Audit => diags::audit_requires_nothing(reader, table, &rule, described),
        Mode::Off => {}
    }
    Some(SourceRule {
        rule,
        at: reader.at(table.span()),
        name_at,
        mentions,
        is_partial,
    })
}

fn parse_match<'s>(reader: &mut Reader<'s>, table: &mut Table<'s>) -> Option<Match> {
    if !table.has("match") {
        diags::no_match(reader, table);
    }
    let mut inner = reader.table(table, "match", "`match`")?;
    if inner.is_empty() {
        diags::empty_table(
            reader,
            &inner,
            "`match`",
            "write match = { image = [\"**\"] } for every container",
        );
        return None;
    }
    for key in ["labels", "label", "annotations", "annotation"] {
        if let Some(span) = inner.discard(key) {
            diags::labels(reader, span, key);
        }
    }
    let r#match = Match {
        image: parse_patterns::<ImagePattern>(reader, &mut inner, "image"),
        namespace: parse_patterns(reader, &mut inner, "namespace"),
        containerd_namespace: parse_patterns(reader, &mut inner, "containerd_namespace"),
        kind: reader.choice(&mut inner, "kind", KINDS),
        digest: parse_digests(reader, &mut inner, "digest"),
    };
    reader.finish(&inner, MATCH_KEYS, &[]);
    Some(r#match)
}

fn parse_patterns<T: TryFrom<String, Error = InvalidPattern>>(
    reader: &mut Reader<'_>,
    table: &mut Table<'_>,
    key: &str,
) -> Vec<T> {
    let texts = reader.texts(table, key);
    let parse = |text: Spanned<String>| match T::try_from(text.get_ref().clone()) {
        Ok(pattern) => Some(pattern),
        Err(fault) => {
            diags::invalid_pattern(reader, &text, fault);
            None
        }
    };
    texts.into_iter().filter_map(parse).collect()
}

fn parse_digests(reader: &mut Reader<'_>, table: &mut Table<'_>, key: &str) -> Vec<Digest> {
    let texts = reader.texts(table, key);
    let parse = |text: Spanned<String>| match text.get_ref().parse() {
        Ok(digest) => Some(digest),
        Err(fault) => {
            diags::invalid_digest(reader, &text, &fault);
            None
        }
    };
    texts.into_iter().filter_map(parse).collect()
}

fn parse_deny(reader: &mut Reader<'_>, table: &mut Table<'_>, policy: &mut SourcePolicy) {
    if table.is_empty() {
        diags::empty_table(reader, table, "[[deny]]", "list what is revoked, or remove its header");
    }
    for digest in parse_digests(reader, table, "digest") {
        if !policy.deny.digest.contains(&digest) {
            policy.deny.digest.push(digest);
        }
    }
    for key in reader.texts(table, "key") {
        policy.denied_keys.push((key.get_ref().clone(), reader.at(key.span())));
        if !policy.deny.key.contains(key.get_ref()) {
            policy.deny.key.push(key.into_inner());
        }
    }
    for text in reader.texts(table, "identity") {
        // The more a denial reaches the safer it is, so host and owner need not be given.
        match TextPattern::try_from(text.get_ref().clone()) {
            Ok(pattern) => policy.deny.identity.push(pattern),
            Err(fault) => invalid_text(reader, &text, fault),
        }
    }
    for text in reader.texts(table, "email") {
        match TextPattern::exact(text.get_ref()) {
            Ok(_) => policy.deny.email.push(text.into_inner()),
            Err(fault) => invalid_text(reader, &text, fault),
        }
    }
    for text in reader.texts(table, "log") {
        match parse_entry(text.get_ref()) {
            Some(entry) => policy.deny.log.push(entry),
            None => diags::invalid_entry(reader, &text),
        }
    }
}

/// `<log>:<index>`, as decisions show an entry: the hash of the log's key in hexadecimal, and the entry's number.
fn parse_entry(text: &str) -> Option<DeniedEntry> {
    let (log, index) = text.split_once(':')?;
    let is_hex = log.len() == 64 && log.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let is_number = index.bytes().all(|byte| byte.is_ascii_digit());
    (is_hex && is_number).then_some(DeniedEntry {
        log: log.to_owned(),
        index: index.parse().ok()?,
    })
}
