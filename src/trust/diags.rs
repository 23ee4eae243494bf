//! What a person reads when a file of `trust.d` is wrong.

use toml::Spanned;

use super::public_key::Fault;
use super::root::{LeftOut, MAX_ROOTS, RootError};
use crate::diagnostic::strict::{Reader, Table};
use crate::diagnostic::{Code, Diagnostic, Place, printable};

pub(super) fn invalid_id(reader: &mut Reader<'_>, id: &Spanned<String>, of: &str) {
    reader.fault(
        Code::InvalidName,
        id.span(),
        format!("`{}` cannot be the `id` of a {of}", id.get_ref()),
        "",
        "up to 64 of the characters a-z A-Z 0-9 . _ -",
    );
}

pub(super) fn invalid_time(reader: &mut Reader<'_>, key: &str, text: &Spanned<String>) {
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
            "P-256, P-384, P-521, Ed25519 and RSA keys are verified".to_owned(),
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
