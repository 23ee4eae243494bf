//! What a person reads when a file of `trust.d` is wrong.

use std::path::Path;

use toml::Spanned;

use super::TextFault;
use super::notation;
use super::public_key::Fault;
use super::root::{LeftOut, MAX_ROOTS, Root, RootError};
use crate::diagnostic::strict::{Reader, Table};
use crate::diagnostic::{Code, Diagnostic, Place, Severity, printable};

pub(super) fn missing(path: &Path) -> Diagnostic {
    Diagnostic {
        severity: Severity::Warning,
        ..Diagnostic::without_place(
            Code::Unreadable,
            format!("{} does not exist, so that nobody is trusted", path.display()),
            "create it, or correct `trust` in config.toml",
        )
    }
}

pub(super) fn invalid_id(reader: &mut Reader<'_>, id: &Spanned<String>, of: &str) {
    reader.fault(
        Code::InvalidName,
        id.span(),
        format!("`{}` cannot be the `id` of a {of}", id.get_ref()),
        "",
        "up to 64 of the characters a-z A-Z 0-9 . _ -",
    );
}

pub(crate) fn invalid_time(reader: &mut Reader<'_>, key: &str, text: &Spanned<String>) {
    reader.fault(
        Code::InvalidTime,
        text.span(),
        format!("`{}` is no time for `{key}`", text.get_ref()),
        "",
        "RFC 3339 with a time zone, \"2027-01-01T00:00:00Z\" for example",
    );
}

pub(super) fn invalid_digest(reader: &mut Reader<'_>, text: &Spanned<String>) {
    reader.fault(
        Code::InvalidDigest,
        text.span(),
        format!("`{}` is not a digest", text.get_ref()),
        "",
        "sha256: and 64 lower-case hexadecimal digits",
    );
}

pub(super) fn digests_without_retirement(reader: &mut Reader<'_>, first: &Spanned<String>) {
    reader.fault(
        Code::InvalidValue,
        first.span(),
        "`digests` says for what a retired key still counts, and this key is not retired".to_owned(),
        "",
        "write status = \"retired\", or remove `digests`",
    );
}

pub(super) fn empty_window(reader: &mut Reader<'_>, until: &Spanned<String>) {
    reader.fault(
        Code::EmptyWindow,
        until.span(),
        "the key's window ends before it starts".to_owned(),
        "not after `from`",
        "set `until` after `from`",
    );
}

pub(super) fn file_name(reader: &mut Reader<'_>, file: &Spanned<String>) {
    reader.fault(
        Code::KeyFileName,
        file.span(),
        format!("`{}` is not the name of a file beside this one", file.get_ref()),
        "",
        "put the file in this folder and write its name, without a path",
    );
}

/// A fault of reading the file that a key names, told at the place that names it.
pub(super) fn file(mut fault: Diagnostic, place: Place) -> Diagnostic {
    fault.place = Some(place);
    fault
}

pub(super) fn key(fault: &Fault, name: &str, place: Place) -> Diagnostic {
    let (code, help) = match fault {
        Fault::NotPem(_) => (
            Code::KeyNotPem,
            "a file that starts with -----BEGIN PUBLIC KEY-----, as cosign and openssl write it".to_owned(),
        ),
        Fault::Private => (
            Code::KeyPrivate,
            "take the file off this node; the public half: cosign public-key --key …, or openssl pkey -pubout"
                .to_owned(),
        ),
        Fault::Label(label) if label == "CERTIFICATE" => (
            Code::KeyInvalid,
            format!("openssl x509 -pubkey -noout -in {name} prints the key of a certificate"),
        ),
        Fault::Label(label) if label == "RSA PUBLIC KEY" => (
            Code::KeyInvalid,
            format!("convert it: openssl rsa -RSAPublicKey_in -pubout -in {name}"),
        ),
        Fault::Label(_) => (Code::KeyInvalid, "export it as a PUBLIC KEY".to_owned()),
        Fault::Malformed(_) => (
            Code::KeyInvalid,
            "export it again, and check that it was copied whole".to_owned(),
        ),
        Fault::Algorithm(_) => (
            Code::KeyAlgorithm,
            "P-256, P-384, P-521, Ed25519, RSA and RSASSA-PSS keys are verified".to_owned(),
        ),
        Fault::PssParameters => (
            Code::KeyAlgorithm,
            "make a key without parameters: openssl genpkey -algorithm RSA-PSS".to_owned(),
        ),
        Fault::PssHash(hash) => (
            Code::KeyAlgorithm,
            format!("write hash = \"{}\" in its entry", hash.name()),
        ),
        Fault::RsaSize(_) => (Code::KeySize, "sign with a key of an accepted size".to_owned()),
    };
    Diagnostic::error(code, place, format!("{} {fault}", printable(name)), "", &help)
}

pub(super) fn duplicate_id(id: &str, place: Place, first: &Place) -> Diagnostic {
    Diagnostic::error(
        Code::KeyIdDuplicate,
        place,
        format!("`{id}` is already the `id` of another key"),
        &format!("first used at {first}"),
        "give each key an id of its own",
    )
}

pub(super) fn duplicate_key(id: &str, other: &str, place: Place, first: &Place) -> Diagnostic {
    Diagnostic::error(
        Code::KeyDuplicate,
        place,
        format!("`{id}` and `{other}` are the same key, which could count twice"),
        &format!("`{other}` is at {first}"),
        "keep one entry and give it every `use`",
    )
}

/// A text of a certificate or attestation that cannot be meant.
pub(crate) fn invalid_text(reader: &mut Reader<'_>, text: &Spanned<String>, fault: TextFault) {
    reader.fault(
        Code::InvalidPattern,
        text.span(),
        format!("`{}` cannot be used here: {fault}", text.get_ref()),
        "",
        fault.help(),
    );
}

pub(super) fn builder_name(reader: &mut Reader<'_>, name: &Spanned<String>) {
    reader.fault(
        Code::InvalidName,
        name.span(),
        format!("`{}` cannot be the `name` of a builder", name.get_ref()),
        "",
        "up to 64 of the characters a-z A-Z 0-9 . _ -",
    );
}

pub(super) fn builder_id(reader: &mut Reader<'_>, id: &Spanned<String>) {
    reader.fault(
        Code::InvalidValue,
        id.span(),
        "the `id` of a builder has a reference in it".to_owned(),
        "what stands behind `@` is its reference",
        "write the part before the `@` as `id`, and the rest as `ref`, refs/tags/v<semver> for example",
    );
}

pub(super) fn builder_ref(reader: &mut Reader<'_>, text: &Spanned<String>) {
    reader.fault(
        Code::InvalidPattern,
        text.span(),
        format!("`{}` cannot be the `ref` of a builder", text.get_ref()),
        "",
        "a whole reference, refs/heads/main for example, or refs/tags/v<semver> for every released version",
    );
}

pub(super) fn builder_signer_twice(reader: &mut Reader<'_>, span: std::ops::Range<usize>, key: &str) {
    reader.fault(
        Code::BuilderSigner,
        span,
        format!("a builder that signs with a `key` has no `{key}`"),
        "",
        "keep `key`, or remove it and name issuer and root",
    );
}

pub(super) fn builder_signer_missing(reader: &mut Reader<'_>, table: &Table<'_>) {
    reader.fault(
        Code::BuilderSigner,
        table.span(),
        "[[builder]] does not say who signs what it builds".to_owned(),
        "neither `key` nor `issuer` and `root`",
        "name the issuer and the root of its certificates, or the key that it signs with",
    );
}

pub(super) fn builder_identity_missing(reader: &mut Reader<'_>, span: std::ops::Range<usize>) {
    reader.fault(
        Code::BuilderSigner,
        span,
        "a builder whose id is not the signer's identity needs an `identity`".to_owned(),
        "then who signs?",
        "write the identities that sign for it, identity = \"https://github.com/acme/app/.github/workflows/*@refs/heads/main\" for example",
    );
}

pub(super) fn builder_identity_twice(reader: &mut Reader<'_>, span: std::ops::Range<usize>) {
    reader.fault(
        Code::BuilderSigner,
        span,
        "a builder has either an `identity` or an id that equals the signer's".to_owned(),
        "",
        "remove `identity`, or write id_equals_signer = false",
    );
}

pub(super) fn duplicate_builder(name: &str, place: Place, first: &Place) -> Diagnostic {
    Diagnostic::error(
        Code::BuilderDuplicate,
        place,
        format!("`{name}` is already the `name` of another builder"),
        &format!("first used at {first}"),
        "give each builder a name of its own; they may have one id",
    )
}

pub(super) fn builder_key_unknown(id: &str, place: Place) -> Diagnostic {
    Diagnostic::error(
        Code::KeyUnknown,
        place,
        format!("trust holds no key `{id}`"),
        "",
        "add a [[key]] with this id to trust.d",
    )
}

pub(super) fn builder_root_unknown(id: &str, place: Place, roots: &[Root]) -> Diagnostic {
    let known: Vec<&str> = roots.iter().map(|root| root.id.as_str()).collect();
    let help = if known.is_empty() {
        "add a [[root]] to trust.d, id = \"public-good\" and builtin = \"sigstore\" for example".to_owned()
    } else {
        format!("trust holds {}", known.join(", "))
    };
    Diagnostic::error(
        Code::TrustUnknown,
        place,
        format!("trust holds no [[root]] `{id}`"),
        "",
        &help,
    )
}

pub(super) fn builder_key_use(id: &str, place: Place) -> Diagnostic {
    Diagnostic::error(
        Code::KeyUse,
        place,
        format!("trust does not allow key `{id}` for provenance"),
        "",
        "add \"provenance\" to its `use`, if it signs provenance",
    )
}

pub(super) fn store_without_roots(reader: &mut Reader<'_>, table: &Table<'_>) {
    reader.fault(
        Code::MissingKey,
        table.span(),
        "[[notation]] has neither `ca` nor `signing_authority`".to_owned(),
        "nothing would chain to it",
        "name the files of its root certificates: ca = [\"root.pem\"]",
    );
}

pub(super) fn store_file(fault: &notation::Fault, name: &str, place: Place) -> Diagnostic {
    Diagnostic::error(
        Code::CertificateFile,
        place,
        format!("{} {fault}", printable(name)),
        "",
        "PEM with one or more documents, or one in DER, as openssl writes them",
    )
}

pub(super) fn duplicate_store(id: &str, place: Place, first: &Place) -> Diagnostic {
    Diagnostic::error(
        Code::StoreDuplicate,
        place,
        format!("`{id}` is already the `id` of another trust store"),
        &format!("first used at {first}"),
        "give each trust store an id of its own",
    )
}

pub(super) fn root_source(reader: &mut Reader<'_>, table: &Table<'_>, sources: usize) {
    let message = if sources == 0 {
        "[[root]] has neither `builtin` nor `file`"
    } else {
        "[[root]] has both `builtin` and `file`"
    };
    reader.fault(
        Code::RootSource,
        table.span(),
        message.to_owned(),
        "one of the two is needed",
        "builtin = \"sigstore\", builtin = \"github\" or file = \"trusted_root.json\"",
    );
}

pub(super) fn root(error: &RootError, name: &str, place: Place) -> Diagnostic {
    let help = match error {
        RootError::Json(_) | RootError::MediaType(_) => {
            "the trusted_root.json of a Sigstore instance, as its TUF repository or cosign trusted-root create gives it"
        }
        RootError::TooMany { .. } => "leave out what nothing was signed with",
        RootError::Empty => "check that it is the right file and that it was copied whole",
    };
    Diagnostic::error(
        Code::RootInvalid,
        place,
        format!("{} is no trusted root that can be used: {error}", printable(name)),
        "",
        help,
    )
}

pub(super) fn root_entry(left_out: &LeftOut, name: &str, place: Place) -> Diagnostic {
    Diagnostic::warning(
        Code::RootEntry,
        place,
        printable(&format!("{name}: {left_out}")).into_owned(),
        "",
        "signatures that need it do not count; the rest of the root does",
    )
}

pub(super) fn duplicate_root(id: &str, place: Place, first: &Place) -> Diagnostic {
    Diagnostic::error(
        Code::RootIdDuplicate,
        place,
        format!("`{id}` is already the `id` of another root"),
        &format!("first used at {first}"),
        "give each root an id of its own",
    )
}

pub(super) fn too_many_roots(place: Place) -> Diagnostic {
    Diagnostic::error(
        Code::RootLimit,
        place,
        format!("there are more than {MAX_ROOTS} roots"),
        "one too many",
        "each costs time when an image is judged: keep those that policy names",
    )
}
