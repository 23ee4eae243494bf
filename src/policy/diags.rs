//! What a person reads when a file of `policy.d` is wrong.

use std::fmt::Display;
use std::path::PathBuf;

use toml::Spanned;

use super::pattern::InvalidPattern;
use super::{Rule, SignerPattern, Table as Evidence, Tuning};
use crate::attest::{self, Family};
use crate::diagnostic::strict::{Reader, Table};
use crate::diagnostic::{Code, Diagnostic, Place};
use crate::trust::{Key, Status};
use crate::verify::notation::InvalidName;

pub(super) fn empty_table(reader: &mut Reader<'_>, table: &Table<'_>, what: &str, help: &str) {
    reader.fault(
        Code::Empty,
        table.span(),
        format!("{what} is empty"),
        "nothing in it",
        help,
    );
}

pub(super) fn invalid_name(reader: &mut Reader<'_>, name: &Spanned<String>) {
    reader.fault(
        Code::InvalidName,
        name.span(),
        "a rule cannot have this name".to_owned(),
        "",
        "up to 128 characters, none of them invisible",
    );
}

pub(super) fn no_match(reader: &mut Reader<'_>, table: &Table<'_>) {
    reader.fault(
        Code::MissingKey,
        table.span(),
        "[[rule]] has no `match`".to_owned(),
        "`match` is missing",
        "write match = { image = [\"**\"] } for every container",
    );
}

pub(super) fn labels(reader: &mut Reader<'_>, span: std::ops::Range<usize>, key: &str) {
    reader.fault(
        Code::UnknownKey,
        span,
        format!("`{key}` never select a rule"),
        "",
        "image and pod authors write them; match by image, namespace, containerd_namespace, kind or digest",
    );
}

pub(super) fn invalid_pattern(reader: &mut Reader<'_>, text: &Spanned<String>, fault: InvalidPattern) {
    reader.fault(
        Code::InvalidPattern,
        text.span(),
        format!("`{}` cannot be a pattern: {fault}", text.get_ref()),
        "",
        fault.help(),
    );
}

pub(super) fn invalid_path(reader: &mut Reader<'_>, text: &Spanned<String>, fault: &str) {
    reader.fault(
        Code::InvalidValue,
        text.span(),
        format!("`{}` cannot be a path in an image: {fault}", text.get_ref()),
        "",
        "an absolute path as the container sees it, /usr/bin/env for example",
    );
}

pub(super) fn unknown_call(reader: &mut Reader<'_>, text: &Spanned<String>) {
    reader.fault(
        Code::InvalidValue,
        text.span(),
        format!("no machine has a system call `{}`", text.get_ref()),
        "",
        "a name of the kernel's own table, openat for example: see syscalls(2)",
    );
}

pub(super) fn call_twice(reader: &mut Reader<'_>, text: &Spanned<String>) {
    reader.fault(
        Code::InvalidValue,
        text.span(),
        format!("`{}` is allowed and denied", text.get_ref()),
        "allowed above",
        "keep it in one of the two lists",
    );
}

pub(super) fn tunes_nothing(reader: &mut Reader<'_>, table: &Table<'_>, what: &str) {
    reader.fault(
        Code::MissingKey,
        table.span(),
        format!("this tuning has no {what}"),
        "",
        &format!("write {what}, or remove its header"),
    );
}

pub(super) fn invalid_words(reader: &mut Reader<'_>, key: &str, text: &Spanned<String>, most: usize) {
    reader.fault(
        Code::InvalidValue,
        text.span(),
        format!("`{key}` is too long or has control characters"),
        "",
        &format!("write it as one line of at most {most} characters"),
    );
}

pub(super) fn tuning_expired(tuning: &Tuning, at: Place) -> Diagnostic {
    Diagnostic::warning(
        Code::TuningExpired,
        at,
        format!(
            "this tuning of {} expired at {} and does not count",
            tuning.owner, tuning.expires
        ),
        "",
        "remove it, or have its owner set a later time",
    )
}

pub(super) fn invalid_digest(reader: &mut Reader<'_>, text: &Spanned<String>, fault: &impl Display) {
    reader.fault(
        Code::InvalidDigest,
        text.span(),
        fault.to_string(),
        "",
        "the digest of a manifest, an index or an image configuration",
    );
}

pub(super) fn threshold(reader: &mut Reader<'_>, threshold: &Spanned<usize>, table: &Evidence) {
    let signers = table.any.len();
    reader.fault(
        Code::Threshold,
        threshold.span(),
        format!(
            "{} signers are asked for and `any` lists {signers}",
            threshold.get_ref()
        ),
        "can never be met",
        "list more signers or lower the threshold",
    );
}

pub(super) fn repeated_signer(reader: &mut Reader<'_>, table: &Table<'_>, signer: &SignerPattern) {
    reader.fault(
        Code::Repeated,
        table.span(),
        format!("{signer} appears twice in `any`"),
        "already listed",
        "remove one of the two; a signer counts once",
    );
}

pub(super) fn invalid_signer(reader: &mut Reader<'_>, table: &Table<'_>, ways: &[&str]) {
    let (message, label) = if ways.is_empty() {
        ("a signer says nobody who could sign".to_owned(), "nobody")
    } else {
        (
            format!("a signer has {}, and can be only one of them", ways.join(" and ")),
            "",
        )
    };
    reader.fault(
        Code::InvalidSigner,
        table.span(),
        message,
        label,
        "one of { key }, { identity, issuer, root }, { email, issuer, root } and { x509_subject, store }",
    );
}

pub(super) fn notation_signs_images(reader: &mut Reader<'_>, table: &Table<'_>) {
    reader.fault(
        Code::InvalidSigner,
        table.span(),
        "a signer by `x509_subject` signs images only".to_owned(),
        "",
        "move it to a [[rule.signature]]",
    );
}

pub(super) fn invalid_subject(reader: &mut Reader<'_>, text: &Spanned<String>, fault: InvalidName) {
    reader.fault(
        Code::InvalidPattern,
        text.span(),
        format!("`{}` cannot be an `x509_subject`: {fault}", text.get_ref()),
        "",
        "as notation writes it, \"C=US, ST=WA, O=acme\" for example; further attributes narrow it",
    );
}

pub(super) fn level_without_builder(reader: &mut Reader<'_>, level: &Spanned<usize>) {
    reader.fault(
        Code::MissingKey,
        level.span(),
        "a `level` needs a `builder`: what provenance says about its own level counts for nothing".to_owned(),
        "",
        "name the builders of trust.d that count",
    );
}

pub(super) fn invalid_mirror(reader: &mut Reader<'_>, from: &Spanned<String>) {
    reader.fault(
        Code::InvalidPattern,
        from.span(),
        format!("`{}` cannot be a mirror", from.get_ref()),
        "",
        "write both sides as in \"registry.example/mirror/**\" = \"docker.io/**\"",
    );
}

pub(super) fn mirror_and_resource(reader: &mut Reader<'_>, place: Place) {
    reader.push(Diagnostic::error(
        Code::InvalidValue,
        place,
        "`mirror` says what the image's own name stands for, and `resource` that the name does not matter".to_owned(),
        "",
        "keep one of the two",
    ));
}

pub(super) fn logs_optional(reader: &mut Reader<'_>, number: &Spanned<usize>, word: Option<Place>) {
    reader.fault(
        Code::InvalidValue,
        number.span(),
        "`logs` asks for entries, and `log` says that none is needed".to_owned(),
        &word.map_or_else(String::new, |place| format!("`log` is at {place}")),
        "keep one of the two",
    );
}

pub(super) fn invalid_entry(reader: &mut Reader<'_>, text: &Spanned<String>) {
    reader.fault(
        Code::InvalidValue,
        text.span(),
        format!("`{}` is no entry of a log", text.get_ref()),
        "",
        "the log's identifier, 64 hexadecimal digits, a colon and the entry's number, as decisions show them",
    );
}

pub(super) fn check_condition(reader: &mut Reader<'_>, condition: &Spanned<String>) {
    let Err(fault) = attest::check_condition(condition.get_ref()) else {
        return;
    };
    let whole = condition.span();
    // Bytes of the expression are bytes of the file only where nothing is escaped.
    let span = reader
        .text_of(&whole)
        .and_then(|text| text.find(condition.get_ref().as_str()))
        .map_or(whole.clone(), |at| {
            let start = whole.start + at + fault.at.start;
            start..(whole.start + at + fault.at.end).max(start)
        });
    reader.fault(
        Code::InvalidCondition,
        span,
        format!("`where` cannot be used: {}", fault.message),
        "",
        "CEL over `predicate` and `predicate_type`, predicate.builder.id == \"…\" for example",
    );
}

/// What a rule names that trust does not hold.
pub(super) fn trust_unknown(what: &str, id: &str, place: Place, known: &[&str]) -> Diagnostic {
    let help = if known.is_empty() {
        format!("trust holds no {what} yet: add one to trust.d")
    } else {
        format!("trust holds {}", known.join(", "))
    };
    Diagnostic::error(
        Code::TrustUnknown,
        place,
        format!("trust holds no {what} `{id}`"),
        "",
        &help,
    )
}

/// `described`: it asks what is in the image, which is not enough.
pub(super) fn requires_nothing(reader: &mut Reader<'_>, table: &Table<'_>, rule: &Rule, described: bool) {
    let message = if described {
        format!(
            "rule `{}` allows nothing: an SBOM or a VEX document alone does not say that an image may run",
            rule.name
        )
    } else {
        format!(
            "rule `{}` enforces nothing: it would allow every image that it matches",
            rule.name
        )
    };
    reader.fault(
        Code::RuleRequiresNothing,
        table.span(),
        message,
        "neither signature, provenance, vsa nor digest",
        "add [[rule.signature]], [[rule.provenance]], [[rule.vsa]] or digest = [\"sha256:…\"]; to run unchecked write \
         mode = \"off\"",
    );
}

pub(super) fn audit_requires_nothing(reader: &mut Reader<'_>, table: &Table<'_>, rule: &Rule, described: bool) {
    let message = if described {
        format!(
            "audit rule `{}` judges nothing: an SBOM or a VEX document alone does not say that an image may run",
            rule.name
        )
    } else {
        format!(
            "audit rule `{}` has nothing to check, so that it cannot say what enforce would do",
            rule.name
        )
    };
    reader.push(Diagnostic::warning(
        Code::AuditRequiresNothing,
        reader.at(table.span()),
        message,
        "neither signature, provenance, vsa nor digest",
        "add what it shall check",
    ));
}

pub(super) fn closure_without_view(reader: &mut Reader<'_>, table: &Table<'_>) {
    reader.fault(
        Code::ClosureWithoutView,
        table.span(),
        "[rule.exec] has mode = \"closure\", and the rule has no view that shows only the closure".to_owned(),
        "without [rule.filesystem] every program of the image is one of its own",
        "add [rule.filesystem] with mode = \"enforce\" to the rule, or write mode = \"deny\" here",
    );
}

pub(super) fn no_rules(place: Option<&PathBuf>) -> Diagnostic {
    Diagnostic::without_place(
        Code::NoRules,
        format!(
            "{} holds no rule, and without a rule every container is refused",
            place.map(|place| place.display().to_string()).unwrap_or_default()
        ),
        "write a [[rule]] in a .toml file there",
    )
}

pub(super) fn duplicate_rule(rule: &Rule, place: Place, first: &Place) -> Diagnostic {
    Diagnostic::error(
        Code::RuleDuplicate,
        place,
        format!("`{}` is already the name of another rule", rule.name),
        &format!("first used at {first}"),
        "give each rule a name of its own; decisions are logged by it",
    )
}

pub(super) fn unreachable(rule: &Rule, place: Place, first: &Rule, first_place: &Place) -> Diagnostic {
    Diagnostic::error(
        Code::RuleUnreachable,
        place,
        format!("rule `{}` can never be reached", rule.name),
        &format!("rule `{}` at {first_place} decides all that it matches", first.name),
        "move it up, narrow the earlier rule, or remove it",
    )
}

pub(super) fn unknown_key(id: &str, place: Place, keys: &[Key]) -> Diagnostic {
    let known: Vec<_> = keys.iter().map(|key| key.id.as_str()).collect();
    let help = if known.is_empty() {
        "trust holds no key yet: add a [[key]] to trust.d".to_owned()
    } else {
        format!("trust holds {}", known.join(", "))
    };
    Diagnostic::error(Code::KeyUnknown, place, format!("trust holds no key `{id}`"), "", &help)
}

pub(super) fn key_use(id: &str, place: Place, family: Family) -> Diagnostic {
    let (what, needed) = match family {
        Family::Signature => ("image signatures", "image"),
        Family::Provenance => ("provenance", "provenance"),
        Family::Vsa => ("verification summaries, which stand for provenance", "provenance"),
        Family::Sbom => ("SBOMs", "sbom"),
        Family::Vex => ("VEX documents", "vex"),
        Family::Profile => ("seccomp profiles", "profile"),
    };
    Diagnostic::error(
        Code::KeyUse,
        place,
        format!("trust does not allow key `{id}` for {what}"),
        "",
        &format!("add \"{needed}\" to its `use` in trust.d, if that is what it signs"),
    )
}

/// Why no signature by a key counts, whatever vouches for it. `timed`: there is a root by which a time is trusted.
fn inactive(key: &Key, timed: bool) -> Option<&'static str> {
    match key.status {
        Status::Retired if key.until.is_none() && key.digests.is_empty() => {
            Some("is retired, and neither `until` nor `digests` says what it signed before")
        }
        Status::Distrusted => Some("is distrusted"),
        Status::Active if !timed && (key.from.is_some() || key.until.is_some()) => {
            Some("has a window, and trust.d has no [[root]] by which a time could be trusted")
        }
        Status::Retired if !timed && key.digests.is_empty() => {
            Some("is retired without `digests`, and trust.d has no [[root]] by which a time could be trusted")
        }
        Status::Retired | Status::Active => None,
    }
}

/// Why the deny list does not see all that a key signed.
fn half_seen(key: &Key) -> Option<&'static str> {
    match key.status {
        Status::Retired => Some("is retired, and only what counted before is seen"),
        Status::Distrusted => Some("is distrusted, and nothing by it is looked at"),
        Status::Active if key.from.is_some() || key.until.is_some() => {
            Some("has a validity window, and only what a trusted time puts into it is seen")
        }
        Status::Active => None,
    }
}

pub(super) fn key_inactive(key: &Key, place: &Place, timed: bool) -> Option<Diagnostic> {
    let why = inactive(key, timed)?;
    Some(Diagnostic::warning(
        Code::KeyInactive,
        place.clone(),
        format!("no signature by key `{}` counts: it {why}", key.id),
        "",
        "remove it from the rule, or change the key in trust.d",
    ))
}

/// A table asks for what no root vouches for: `what` in the words of its key.
pub(super) fn root_needed(what: &str, place: Place) -> Diagnostic {
    Diagnostic::warning(
        Code::RootNeeded,
        place,
        format!(
            "no evidence meets `{what}`: trust.d has no root by which a log entry or a timestamp could be verified"
        ),
        "",
        "add a [[root]] to trust.d, or remove the key from the rule",
    )
}

pub(super) fn denied_key_inactive(key: &Key, place: &Place) -> Option<Diagnostic> {
    let why = half_seen(key)?;
    Some(Diagnostic::warning(
        Code::KeyInactive,
        place.clone(),
        format!("[[deny]] does not see all that key `{}` signed: it {why}", key.id),
        "",
        "to refuse what it signed, keep it active in trust.d; it cannot allow anything while it is denied",
    ))
}
