//! What may be written in `policy.d`, and how it becomes [`Rule`]s.

use std::sync::Arc;

use toml::Spanned;

use super::{Deny, ImagePattern, InvalidPattern, Kind, Match, Mode, Restart, Rule, Signature, Subject, diags};
use crate::diagnostic::strict::{Reader, Table};
use crate::diagnostic::{Diagnostic, Place, Source};
use crate::digest::Digest;

const TOP_KEYS: &[&str] = &["rule", "deny"];
const RULE_KEYS: &[&str] = &["name", "match", "mode", "signature", "digest", "runtime"];
const RULE_LATER: &[&str] = &["provenance", "vsa", "sbom", "vex", "filesystem", "seccomp"];
const MATCH_KEYS: &[&str] = &["image", "namespace", "containerd_namespace", "kind", "digest"];
const SIGNATURE_KEYS: &[&str] = &["any", "threshold", "subject"];
const SIGNATURE_LATER: &[&str] = &["log", "max_age", "where"];
const SIGNER_KEYS: &[&str] = &["key"];
const SIGNER_LATER: &[&str] = &["identity", "email", "issuer", "root"];
const RUNTIME_KEYS: &[&str] = &["restart"];
const RUNTIME_LATER: &[&str] = &["user", "read_only_root", "noexec_mounts", "no_new_privileges"];
const DENY_KEYS: &[&str] = &["digest", "key"];
const DENY_LATER: &[&str] = &["identity", "email", "issuer", "root", "log"];

const KINDS: &[(&str, Kind)] = &[
    ("sandbox", Kind::Sandbox),
    ("container", Kind::Container),
    ("volume", Kind::Volume),
];
const MODES: &[(&str, Mode)] = &[("enforce", Mode::Enforce), ("audit", Mode::Audit), ("off", Mode::Off)];
const SUBJECTS: &[(&str, Subject)] = &[
    ("platform", Subject::Platform),
    ("index", Subject::Index),
    ("either", Subject::Either),
];
const RESTARTS: &[(&str, Restart)] = &[("refuse", Restart::Refuse), ("allow", Restart::Allow)];

/// Longest name of a rule, in characters.
const MAX_NAME: usize = 128;

/// Most signers that a table may ask for.
const MAX_THRESHOLD: usize = 64;

/// A rule with the places that later checks point at.
#[derive(Debug)]
pub(super) struct SourceRule {
    pub rule: Rule,
    /// Its header.
    pub at: Place,
    pub name_at: Place,
    /// Every mention of a key.
    pub keys: Vec<(String, Place)>,
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
        reader.finish(&table, RULE_KEYS, RULE_LATER);
    }
    for mut table in reader.tables(&mut top, "deny", "[[deny]]") {
        parse_deny(&mut reader, &mut table, &mut policy);
        reader.finish(&table, DENY_KEYS, DENY_LATER);
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
    // Tables of a later version are reported as such; without them the rule would seem to ask for nothing.
    let asks = ["signature", "digest"]
        .iter()
        .chain(RULE_LATER)
        .any(|key| table.has(key));
    let r#match = parse_match(reader, table);
    let mode = if table.has("mode") {
        reader.choice(table, "mode", MODES)
    } else {
        Some(Mode::Enforce)
    };
    let mut keys = Vec::new();
    let mut signature = Vec::new();
    for mut inner in reader.tables(table, "signature", "[[rule.signature]]") {
        signature.extend(parse_signature(reader, &mut inner, &mut keys));
        reader.finish(&inner, SIGNATURE_KEYS, SIGNATURE_LATER);
    }
    let digest = parse_digests(reader, table, "digest");
    let mut restart = Restart::default();
    if let Some(mut runtime) = reader.table(table, "runtime", "[rule.runtime]") {
        if runtime.is_empty() {
            diags::empty_table(
                reader,
                &runtime,
                "[rule.runtime]",
                "write restart, or remove its header",
            );
        }
        restart = reader.choice(&mut runtime, "restart", RESTARTS).unwrap_or_default();
        reader.finish(&runtime, RUNTIME_KEYS, RUNTIME_LATER);
    }
    let (name, r#match, mode) = (name?, r#match?, mode?);
    let name_at = reader.at(name.span());
    let rule = Rule {
        name: name.into_inner(),
        r#match,
        mode,
        signature,
        digest,
        restart,
    };
    match rule.mode {
        Mode::Enforce if !asks => diags::requires_nothing(reader, table, &rule),
        Mode::Audit if !asks => diags::audit_requires_nothing(reader, table, &rule),
        _ => {}
    }
    Some(SourceRule {
        rule,
        at: reader.at(table.span()),
        name_at,
        keys,
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

fn parse_signature<'s>(
    reader: &mut Reader<'s>,
    table: &mut Table<'s>,
    keys: &mut Vec<(String, Place)>,
) -> Option<Signature> {
    reader.require(table, "any");
    let mut any: Vec<String> = Vec::new();
    let mut complete = true;
    for mut signer in reader.tables(table, "any", "a signer") {
        // An identity is a signer that a later version knows; complaining about its missing key would mislead.
        let later = SIGNER_LATER.iter().any(|key| signer.has(key));
        let key = if later {
            reader.text(&mut signer, "key")
        } else {
            reader.required_text(&mut signer, "key")
        };
        reader.finish(&signer, SIGNER_KEYS, SIGNER_LATER);
        match key {
            Some(key) if any.contains(key.get_ref()) => diags::repeated_signer(reader, &key),
            Some(key) => {
                keys.push((key.get_ref().clone(), reader.at(key.span())));
                any.push(key.into_inner());
            }
            None => complete = false,
        }
    }
    let threshold = reader.count(table, "threshold", MAX_THRESHOLD);
    let signature = Signature {
        any,
        threshold: threshold.as_ref().map_or(1, |threshold| *threshold.get_ref()),
        subject: reader.choice(table, "subject", SUBJECTS).unwrap_or_default(),
    };
    if let Some(threshold) = threshold
        && complete
        && !signature.any.is_empty()
        && *threshold.get_ref() > signature.any.len()
    {
        diags::threshold(reader, &threshold, &signature);
    }
    Some(signature)
}

fn parse_deny(reader: &mut Reader<'_>, table: &mut Table<'_>, policy: &mut SourcePolicy) {
    if table.is_empty() {
        diags::empty_table(reader, table, "[[deny]]", "list digest or key, or remove its header");
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
}
