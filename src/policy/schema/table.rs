//! Tables of evidence and their signers.

use std::collections::BTreeMap;

use toml::Spanned;

use super::super::{
    Asks, CertificatePattern, IdentityPattern, Mirror, NotationPattern, Parameter, Provenance, Revocation, SbomFormat,
    Signed, SignerPattern, Subject, Table as Evidence, Vsa, diags,
};
use super::{Mention, Named};
use crate::attest::Family;
use crate::diagnostic::strict::{Reader, Table};
use crate::trust::diags::invalid_text;
use crate::trust::{MAX_LEVEL, TextPattern};
use crate::verify::notation::DistinguishedName;

/// The tables of a rule by their keys, with what messages call them.
pub(super) const TABLES: &[(Family, &str, &str)] = &[
    (Family::Signature, "signature", "[[rule.signature]]"),
    (Family::Provenance, "provenance", "[[rule.provenance]]"),
    (Family::Vsa, "vsa", "[[rule.vsa]]"),
    (Family::Sbom, "sbom", "[[rule.sbom]]"),
    (Family::Vex, "vex", "[[rule.vex]]"),
    (Family::Profile, "profile", "[[rule.profile]]"),
];

const COMMON_KEYS: &[&str] = &["any", "threshold", "subject", "log", "logs", "max_age", "where"];
const PROVENANCE_KEYS: &[&str] = &["builder", "level", "source", "build_type", "parameters"];
const VSA_KEYS: &[&str] = &["verifier", "levels", "resource", "mirror", "policy"];
const SBOM_KEYS: &[&str] = &["format"];
/// What all but signatures have.
const ATTESTATION_KEYS: &[&str] = &["signed"];

const KEY_SIGNER: &[&str] = &["key"];
const IDENTITY_SIGNER: &[&str] = &[
    "identity",
    "issuer",
    "root",
    "source_repository",
    "source_repository_id",
    "source_repository_owner_id",
    "source_ref",
    "workflow",
    "trigger",
    "runner",
];
const EMAIL_SIGNER: &[&str] = &["email", "issuer", "root"];
const NOTATION_SIGNER: &[&str] = &["x509_subject", "store", "revocation"];

/// Claims of a certificate by the keys of a signer, with the form that their value has.
const CLAIMS: &[(&str, &str, Form)] = &[
    ("source_repository", "source-repository-uri", Form::Owned),
    ("source_repository_id", "source-repository-identifier", Form::Exact),
    (
        "source_repository_owner_id",
        "source-repository-owner-identifier",
        Form::Exact,
    ),
    ("source_ref", "source-repository-ref", Form::Free),
    ("workflow", "build-config-uri", Form::Owned),
    ("trigger", "build-trigger", Form::Exact),
    ("runner", "runner-environment", Form::Exact),
];

#[derive(Clone, Copy)]
enum Form {
    /// A pattern that spells out host and owner.
    Owned,
    /// A pattern.
    Free,
    /// No pattern.
    Exact,
}

const SUBJECTS: &[(&str, Subject)] = &[
    ("platform", Subject::Platform),
    ("index", Subject::Index),
    ("either", Subject::Either),
];
const SIGNED: &[(&str, Signed)] = &[("itself", Signed::Itself), ("index", Signed::Index)];
const LOGS: &[(&str, usize)] = &[("required", 1), ("optional", 0)];
const REVOCATIONS: &[(&str, Revocation)] = &[("required", Revocation::Required), ("optional", Revocation::Optional)];
const FORMATS: &[(&str, SbomFormat)] = &[("spdx", SbomFormat::Spdx), ("cyclonedx", SbomFormat::CycloneDx)];

/// Most signers that a table may ask for.
const MAX_THRESHOLD: usize = 64;
/// Most logs that a table may ask for.
const MAX_LOGS: usize = 16;

pub(super) fn parse<'s>(
    reader: &mut Reader<'s>,
    table: &mut Table<'s>,
    family: Family,
    mentions: &mut Vec<Mention>,
) -> Option<Evidence> {
    let builders_sign = family == Family::Provenance && table.has("builder");
    if !builders_sign {
        reader.require(table, "any");
    }
    let mut any: Vec<SignerPattern> = Vec::new();
    let mut complete = true;
    for mut signer in reader.tables(table, "any", "a signer") {
        match parse_signer(reader, &mut signer, family, mentions) {
            Some(read) if any.contains(&read) => diags::repeated_signer(reader, &signer, &read),
            Some(read) => any.push(read),
            None => complete = false,
        }
    }
    let threshold = reader.count(table, "threshold", MAX_THRESHOLD);
    let asks = parse_asks(reader, table, family, mentions);
    let logs_at = reader.place_of(table, "logs").or_else(|| reader.place_of(table, "log"));
    let logs = parse_logs(reader, table);
    if let (Some(place), 1..) = (logs_at, logs) {
        mentions.push(Mention {
            what: Named::Logs,
            id: "log".to_owned(),
            place,
        });
    }
    let age_at = reader.place_of(table, "max_age");
    let max_age = reader.age(table, "max_age");
    if let Some(place) = age_at {
        mentions.push(Mention {
            what: Named::Times,
            id: "max_age".to_owned(),
            place,
        });
    }
    let condition = reader.text(table, "where");
    if let Some(condition) = &condition {
        diags::check_condition(reader, condition);
    }
    let evidence = Evidence {
        threshold: threshold.as_ref().map_or(1, |threshold| *threshold.get_ref()),
        subject: reader.choice(table, "subject", SUBJECTS).unwrap_or_default(),
        signed: reader.choice(table, "signed", SIGNED).unwrap_or_default(),
        logs,
        max_age,
        condition: condition.map(Spanned::into_inner),
        asks: asks?,
        any,
    };
    if let Some(threshold) = threshold
        && complete
        && !evidence.any.is_empty()
        && evidence.any.iter().all(SignerPattern::is_one)
        && *threshold.get_ref() > evidence.any.len()
    {
        diags::threshold(reader, &threshold, &evidence);
    }
    Some(evidence)
}

/// Complains about the keys that no table of this kind has.
pub(super) fn finish(reader: &mut Reader<'_>, table: &Table<'_>, family: Family) {
    let (shared, own): (&[&str], &[&str]) = match family {
        Family::Signature => (&[], &[]),
        Family::Vex | Family::Profile => (ATTESTATION_KEYS, &[]),
        Family::Provenance => (ATTESTATION_KEYS, PROVENANCE_KEYS),
        Family::Vsa => (ATTESTATION_KEYS, VSA_KEYS),
        Family::Sbom => (ATTESTATION_KEYS, SBOM_KEYS),
    };
    reader.finish(table, &[COMMON_KEYS, shared, own].concat(), &[]);
}

fn parse_asks<'s>(
    reader: &mut Reader<'s>,
    table: &mut Table<'s>,
    family: Family,
    mentions: &mut Vec<Mention>,
) -> Option<Asks> {
    Some(match family {
        Family::Signature => Asks::Signature,
        Family::Vex => Asks::Vex,
        Family::Profile => Asks::Profile,
        Family::Sbom => Asks::Sbom(reader.choice(table, "format", FORMATS)),
        Family::Provenance => Asks::Provenance(Box::new(parse_provenance(reader, table, mentions))),
        Family::Vsa => Asks::Vsa(Box::new(parse_vsa(reader, table))),
    })
}

fn parse_provenance<'s>(reader: &mut Reader<'s>, table: &mut Table<'s>, mentions: &mut Vec<Mention>) -> Provenance {
    let builder = reader.texts(table, "builder");
    for name in &builder {
        mentions.push(Mention::new(Named::Builder, name, reader));
    }
    let level = reader.count(table, "level", usize::from(MAX_LEVEL));
    if let Some(level) = &level
        && builder.is_empty()
    {
        diags::level_without_builder(reader, level);
    }
    Provenance {
        builder: builder.into_iter().map(Spanned::into_inner).collect(),
        level: level.and_then(|level| u8::try_from(*level.get_ref()).ok()),
        // One form for what build services spell differently, as in `attest::Provenance`.
        source: patterns(reader, table, "source", |text| {
            TextPattern::owned(text.strip_prefix("git+").unwrap_or(text))
        }),
        build_type: texts(reader, table, "build_type"),
        parameters: table.has("parameters").then(|| {
            texts(reader, table, "parameters")
                .iter()
                .map(|text| parameter(text))
                .collect()
        }),
    }
}

/// `name` or `name=value`.
fn parameter(text: &str) -> Parameter {
    match text.split_once('=') {
        Some((name, value)) => Parameter {
            name: name.to_owned(),
            value: Some(value.to_owned()),
        },
        None => Parameter {
            name: text.to_owned(),
            value: None,
        },
    }
}

fn parse_vsa<'s>(reader: &mut Reader<'s>, table: &mut Table<'s>) -> Vsa {
    reader.require(table, "verifier");
    reader.require(table, "levels");
    let vsa = Vsa {
        verifier: texts(reader, table, "verifier"),
        levels: texts(reader, table, "levels"),
        resource: patterns(reader, table, "resource", TextPattern::owned),
        policy: texts(reader, table, "policy"),
        mirror: Vec::new(),
    };
    let mut mirror = Vec::new();
    let mirror_at = reader.place_of(table, "mirror");
    for (from, to) in reader.text_table(table, "mirror", "`mirror`") {
        match Mirror::new(from.get_ref(), to.get_ref()) {
            Some(read) => mirror.push(read),
            None => diags::invalid_mirror(reader, &from),
        }
    }
    if let (Some(place), false) = (mirror_at, vsa.resource.is_empty()) {
        diags::mirror_and_resource(reader, place);
    }
    Vsa { mirror, ..vsa }
}

fn texts(reader: &mut Reader<'_>, table: &mut Table<'_>, key: &str) -> Vec<String> {
    reader.texts(table, key).into_iter().map(Spanned::into_inner).collect()
}

fn patterns(
    reader: &mut Reader<'_>,
    table: &mut Table<'_>,
    key: &str,
    read: fn(&str) -> Result<TextPattern, crate::trust::TextFault>,
) -> Vec<TextPattern> {
    let mut patterns = Vec::new();
    for text in reader.texts(table, key) {
        match read(text.get_ref()) {
            Ok(pattern) => patterns.push(pattern),
            Err(fault) => invalid_text(reader, &text, fault),
        }
    }
    patterns
}

fn parse_logs(reader: &mut Reader<'_>, table: &mut Table<'_>) -> usize {
    let word_at = reader.place_of(table, "log");
    let word = reader.choice(table, "log", LOGS);
    let number = reader.count(table, "logs", MAX_LOGS);
    if let (Some(0), Some(number)) = (word, &number) {
        diags::logs_optional(reader, number, word_at);
    }
    number.map(|number| *number.get_ref()).or(word).unwrap_or(0)
}

fn parse_signer<'s>(
    reader: &mut Reader<'s>,
    signer: &mut Table<'s>,
    family: Family,
    mentions: &mut Vec<Mention>,
) -> Option<SignerPattern> {
    let ways: Vec<&str> = ["key", "identity", "email", "x509_subject"]
        .into_iter()
        .filter(|key| signer.has(key))
        .collect();
    match ways.as_slice() {
        ["key"] => {
            let key = reader.text(signer, "key");
            reader.finish(signer, KEY_SIGNER, &[]);
            let key = key?;
            mentions.push(Mention::new(Named::Key(family), &key, reader));
            Some(SignerPattern::Key(key.into_inner()))
        }
        ["identity"] => {
            let identity = pattern(reader, signer, "identity", Form::Owned);
            let certificate = parse_certificate(reader, signer, mentions);
            let mut claims = BTreeMap::new();
            let mut sound = true;
            for (key, claim, form) in CLAIMS {
                if signer.has(key) {
                    match pattern(reader, signer, key, *form) {
                        Some(pattern) => {
                            claims.insert((*claim).to_owned(), pattern);
                        }
                        None => sound = false,
                    }
                }
            }
            reader.finish(signer, IDENTITY_SIGNER, &[]);
            let ((issuer, root), identity) = (certificate?, identity?);
            sound.then(|| {
                SignerPattern::Certificate(Box::new(CertificatePattern {
                    identity: IdentityPattern::Uri(identity),
                    issuer,
                    root,
                    claims,
                }))
            })
        }
        ["email"] => {
            let email = pattern(reader, signer, "email", Form::Exact);
            let certificate = parse_certificate(reader, signer, mentions);
            reader.finish(signer, EMAIL_SIGNER, &[]);
            let ((issuer, root), email) = (certificate?, email?);
            Some(SignerPattern::Certificate(Box::new(CertificatePattern {
                identity: IdentityPattern::Email(email.into()),
                issuer,
                root,
                claims: BTreeMap::new(),
            })))
        }
        ["x509_subject"] => {
            let subject = reader.text(signer, "x509_subject").and_then(|text| {
                DistinguishedName::try_from(text.get_ref().clone())
                    .map_err(|fault| diags::invalid_subject(reader, &text, fault))
                    .ok()
            });
            let store = reader.required_text(signer, "store");
            let revocation = reader.choice(signer, "revocation", REVOCATIONS).unwrap_or_default();
            reader.finish(signer, NOTATION_SIGNER, &[]);
            let (subject, store) = (subject?, store?);
            mentions.push(Mention::new(Named::Store, &store, reader));
            if family != Family::Signature {
                diags::notation_signs_images(reader, signer);
                return None;
            }
            Some(SignerPattern::Notation(Box::new(NotationPattern {
                subject,
                store: store.into_inner(),
                revocation,
            })))
        }
        ways => {
            diags::invalid_signer(reader, signer, ways);
            None
        }
    }
}

/// Issuer and root, which every identity is worth nothing without.
fn parse_certificate<'s>(
    reader: &mut Reader<'s>,
    signer: &mut Table<'s>,
    mentions: &mut Vec<Mention>,
) -> Option<(String, String)> {
    reader.require(signer, "issuer");
    let issuer = pattern(reader, signer, "issuer", Form::Exact);
    let root = reader.required_text(signer, "root");
    if let Some(root) = &root {
        mentions.push(Mention::new(Named::Root, root, reader));
    }
    Some((issuer?.into(), root?.into_inner()))
}

fn pattern(reader: &mut Reader<'_>, table: &mut Table<'_>, key: &str, form: Form) -> Option<TextPattern> {
    let text = reader.text(table, key)?;
    let read = match form {
        Form::Owned => TextPattern::owned(text.get_ref()),
        Form::Free => TextPattern::try_from(text.get_ref().clone()),
        Form::Exact => TextPattern::exact(text.get_ref()),
    };
    read.map_err(|fault| invalid_text(reader, &text, fault)).ok()
}
