//! What a person reads when a file of `policy.d` is wrong.

use std::fmt::Display;
use std::path::Path;

use toml::Spanned;

use super::pattern::InvalidPattern;
use super::{Rule, Signature};
use crate::diagnostic::strict::{Reader, Table};
use crate::diagnostic::{Code, Diagnostic, Place};
use crate::trust::{Key, Status};

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

pub(super) fn invalid_digest(reader: &mut Reader<'_>, text: &Spanned<String>, fault: &impl Display) {
    reader.fault(
        Code::InvalidDigest,
        text.span(),
        fault.to_string(),
        "",
        "the digest of a manifest, an index or an image configuration",
    );
}

pub(super) fn threshold(reader: &mut Reader<'_>, threshold: &Spanned<usize>, signature: &Signature) {
    let keys = signature.any.len();
    reader.fault(
        Code::Threshold,
        threshold.span(),
        format!("{} signers are asked for and `any` lists {keys}", threshold.get_ref()),
        "can never be met",
        "list more keys or lower the threshold",
    );
}

pub(super) fn repeated_signer(reader: &mut Reader<'_>, key: &Spanned<String>) {
    reader.fault(
        Code::Repeated,
        key.span(),
        format!("key `{}` appears twice in `any`", key.get_ref()),
        "already listed",
        "remove one of the two; a key counts once",
    );
}

pub(super) fn requires_nothing(reader: &mut Reader<'_>, table: &Table<'_>, rule: &Rule) {
    reader.fault(
        Code::RuleRequiresNothing,
        table.span(),
        format!(
            "rule `{}` enforces nothing: it would allow every image that it matches",
            rule.name
        ),
        "neither signature nor digest",
        "add [[rule.signature]] or digest = [\"sha256:…\"]; to run unchecked write mode = \"off\"",
    );
}

pub(super) fn audit_requires_nothing(reader: &mut Reader<'_>, table: &Table<'_>, rule: &Rule) {
    reader.push(Diagnostic::warning(
        Code::AuditRequiresNothing,
        reader.at(table.span()),
        format!(
            "audit rule `{}` has nothing to check, so that it cannot say what enforce would do",
            rule.name
        ),
        "neither signature nor digest",
        "add what it shall check",
    ));
}

pub(super) fn no_rules(path: &Path) -> Diagnostic {
    Diagnostic::without_place(
        Code::NoRules,
        format!(
            "{} holds no rule, and without a rule every container is refused",
            path.display()
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

pub(super) fn key_use(id: &str, place: Place) -> Diagnostic {
    Diagnostic::error(
        Code::KeyUse,
        place,
        format!("trust does not allow key `{id}` for image signatures"),
        "",
        "add \"image\" to its `use` in trust.d, if it signs images",
    )
}

/// Why no signature by a key counts in this version, whatever it says.
fn inactive(key: &Key) -> Option<&'static str> {
    match key.status {
        Status::Retired => Some("is retired, and no trusted time can say that it signed before"),
        Status::Distrusted => Some("is distrusted"),
        Status::Active if key.from.is_some() || key.until.is_some() => {
            Some("has a validity window, and no trusted time can say when it signed")
        }
        Status::Active => None,
    }
}

pub(super) fn key_inactive(key: &Key, place: &Place) -> Option<Diagnostic> {
    let why = inactive(key)?;
    Some(Diagnostic::warning(
        Code::KeyInactive,
        place.clone(),
        format!("no signature by key `{}` counts: it {why}", key.id),
        "",
        "remove it from the rule, or change the key in trust.d",
    ))
}

pub(super) fn denied_key_inactive(key: &Key, place: &Place) -> Option<Diagnostic> {
    let why = inactive(key)?;
    Some(Diagnostic::warning(
        Code::KeyInactive,
        place.clone(),
        format!("[[deny]] does not see what key `{}` signed: it {why}", key.id),
        "",
        "to refuse what it signed, keep it active in trust.d; it cannot allow anything while it is denied",
    ))
}
