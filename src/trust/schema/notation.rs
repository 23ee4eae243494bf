//! `[[notation]]`.

use std::sync::Arc;

use super::super::notation::{self, Content, Der, TrustStore};
use super::super::{SourceFile, diags};
use super::is_valid_id;
use crate::diagnostic::strict::{Reader, Table};
use crate::diagnostic::{Diagnostic, Place, Source};

pub(super) const KEYS: &[&str] = &["id", "ca", "signing_authority", "tsa", "crl"];

/// A trust store with the place of its name.
pub(super) struct Entry {
    pub store: TrustStore,
    id_at: Place,
}

pub(super) fn parse<'s>(
    reader: &mut Reader<'s>,
    table: &mut Table<'s>,
    source: &Arc<Source>,
    files: &mut Vec<SourceFile>,
) -> Option<Entry> {
    let id = reader.required_text(table, "id").filter(|id| {
        let valid = is_valid_id(id.get_ref());
        if !valid {
            diags::invalid_id(reader, id, "trust store");
        }
        valid
    });
    if !table.has("ca") && !table.has("signing_authority") {
        diags::store_without_roots(reader, table);
    }
    let mut documents = |key: &str, content| read(reader, table, key, content, source, files);
    let store = TrustStore {
        id: String::new(),
        ca: documents("ca", Content::Certificates),
        signing_authority: documents("signing_authority", Content::Certificates),
        tsa: documents("tsa", Content::Certificates),
        crls: documents("crl", Content::Revocations),
    };
    let id = id?;
    Some(Entry {
        id_at: reader.at(id.span()),
        store: TrustStore {
            id: id.into_inner(),
            ..store
        },
    })
}

fn read(
    reader: &mut Reader<'_>,
    table: &mut Table<'_>,
    key: &str,
    content: Content,
    source: &Arc<Source>,
    files: &mut Vec<SourceFile>,
) -> Vec<Der> {
    let mut documents = Vec::new();
    for name in reader.texts(table, key) {
        let place = reader.at(name.span());
        let Some((_, bytes)) = super::read_beside(reader, &name, source, notation::MAX_FILE, files) else {
            continue;
        };
        match notation::read(&bytes, content) {
            Ok(read) => documents.extend(read),
            Err(fault) => reader.push(diags::store_file(&fault, name.get_ref(), place)),
        }
    }
    documents
}

/// Names are unique.
pub(super) fn check(entries: &[Entry], faults: &mut Vec<Diagnostic>) {
    for (i, entry) in entries.iter().enumerate() {
        let before = entries.get(..i).unwrap_or_default();
        if let Some(first) = before.iter().find(|first| first.store.id == entry.store.id) {
            faults.push(diags::duplicate_store(
                &entry.store.id,
                entry.id_at.clone(),
                &first.id_at,
            ));
        }
    }
}
