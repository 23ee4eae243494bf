//! `[[builder]]`.

use toml::Spanned;

use super::super::{Builder, BuilderSigner, Key, MAX_LEVEL, RefPattern, Root, TextFault, TextPattern, Use, diags};
use super::is_valid_id;
use crate::diagnostic::strict::{Reader, Table};
use crate::diagnostic::{Diagnostic, Place};

pub(super) const KEYS: &[&str] = &[
    "name",
    "id",
    "ref",
    "issuer",
    "root",
    "key",
    "id_equals_signer",
    "identity",
    "level",
    "build_types",
];

/// A builder with the places that later checks point at.
pub(super) struct Entry {
    pub builder: Builder,
    name_at: Place,
    key_at: Option<Place>,
    root_at: Option<Place>,
}

pub(super) fn parse<'s>(reader: &mut Reader<'s>, table: &mut Table<'s>) -> Option<Entry> {
    let header = reader.at(table.span());
    let name = reader.required_text(table, "name").filter(|name| {
        let valid = is_valid_id(name.get_ref());
        if !valid {
            diags::builder_name(reader, name);
        }
        valid
    });
    reader.require(table, "id");
    let id = exact(reader, table, "id").filter(|id| {
        let apart = !id.get_ref().contains('@');
        if !apart {
            diags::builder_id(reader, id);
        }
        apart
    });
    let reference = reader.text(table, "ref").map(|text| {
        let pattern = RefPattern::try_from(text.get_ref().clone());
        if pattern.is_err() {
            diags::builder_ref(reader, &text);
        }
        pattern.ok()
    });
    let key_at = reader.place_of(table, "key");
    let root_at = reader.place_of(table, "root");
    let signer = parse_signer(reader, table);
    reader.require(table, "level");
    let level = reader.count(table, "level", usize::from(MAX_LEVEL));
    let build_types = reader.texts(table, "build_types");
    let level = level.and_then(|level| u8::try_from(*level.get_ref()).ok());
    let reference = match reference {
        Some(None) => return None,
        Some(pattern) => pattern,
        None => None,
    };
    let name_at = name.as_ref().map_or(header, |name| reader.at(name.span()));
    Some(Entry {
        builder: Builder {
            name: name?.into_inner(),
            id: id?.into_inner(),
            reference,
            signer: signer?,
            level: level?,
            build_types: build_types.into_iter().map(Spanned::into_inner).collect(),
        },
        name_at,
        key_at,
        root_at,
    })
}

fn parse_signer<'s>(reader: &mut Reader<'s>, table: &mut Table<'s>) -> Option<BuilderSigner> {
    if table.has("key") {
        for key in ["issuer", "root", "id_equals_signer", "identity"] {
            if let Some(span) = table.discard(key) {
                diags::builder_signer_twice(reader, span, key);
            }
        }
        return reader
            .text(table, "key")
            .map(|key| BuilderSigner::Key(key.into_inner()));
    }
    if !table.has("issuer") && !table.has("root") {
        diags::builder_signer_missing(reader, table);
        for key in ["id_equals_signer", "identity"] {
            table.discard(key);
        }
        return None;
    }
    reader.require(table, "issuer");
    let issuer = exact(reader, table, "issuer");
    let root = reader.required_text(table, "root");
    let equals = reader.flag(table, "id_equals_signer");
    let identity = reader.text(table, "identity").map(|text| {
        TextPattern::owned(text.get_ref())
            .map_err(|fault| diags::invalid_text(reader, &text, fault))
            .ok()
    });
    let identity = match (equals.as_ref().map(|flag| *flag.get_ref()), identity) {
        (Some(false), None) => {
            diags::builder_identity_missing(reader, equals.map_or_else(|| table.span(), |flag| flag.span()));
            return None;
        }
        (Some(true), Some(_)) => {
            diags::builder_identity_twice(reader, equals.map_or_else(|| table.span(), |flag| flag.span()));
            return None;
        }
        (_, Some(None)) => return None,
        (_, Some(pattern)) => pattern,
        (_, None) => None,
    };
    Some(BuilderSigner::Certificate {
        issuer: issuer?.into_inner(),
        root: root?.into_inner(),
        identity,
    })
}

/// A text without wildcards.
fn exact(reader: &mut Reader<'_>, table: &mut Table<'_>, key: &str) -> Option<Spanned<String>> {
    let text = reader.text(table, key)?;
    match TextPattern::exact(text.get_ref()) {
        Ok(_) => Some(text),
        Err(fault @ (TextFault::NotExact | TextFault::Length | TextFault::Characters))
        | Err(fault @ (TextFault::DoubleStar | TextFault::Owner)) => {
            diags::invalid_text(reader, &text, fault);
            None
        }
    }
}

/// What needs all of trust: names that are unique, and keys that exist and may sign provenance.
pub(super) fn check(entries: &[Entry], keys: &[Key], roots: &[Root], faults: &mut Vec<Diagnostic>) {
    for (i, entry) in entries.iter().enumerate() {
        let before = entries.get(..i).unwrap_or_default();
        if let Some(first) = before.iter().find(|first| first.builder.name == entry.builder.name) {
            faults.push(diags::duplicate_builder(
                &entry.builder.name,
                entry.name_at.clone(),
                &first.name_at,
            ));
        }
        if let (BuilderSigner::Key(id), Some(place)) = (&entry.builder.signer, &entry.key_at) {
            match keys.iter().find(|key| key.id == *id) {
                None => faults.push(diags::builder_key_unknown(id, place.clone())),
                Some(key) if !key.r#use.contains(&Use::Provenance) => {
                    faults.push(diags::builder_key_use(id, place.clone()));
                }
                Some(_) => {}
            }
        }
        if let (BuilderSigner::Certificate { root, .. }, Some(place)) = (&entry.builder.signer, &entry.root_at)
            && !roots.iter().any(|known| known.id == *root)
        {
            faults.push(diags::builder_root_unknown(root, place.clone(), roots));
        }
    }
}
