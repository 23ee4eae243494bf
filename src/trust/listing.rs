//! What a trusted root lists, for whoever wants to see it.

use std::fmt;

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use sigstore_trust_root::trusted_root::CertificateSubject;
use sigstore_verify::types::TimeRange;

use super::root::{Builtin, EntryKind, RootSource, Usable};

/// An entry of a trusted root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// What it is.
    #[serde(serialize_with = "displayed")]
    pub kind: EntryKind,
    /// Its address, or whom its certificate names.
    pub name: String,
    /// Identifier of a log.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// First instant at which it can have signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Timestamp>,
    /// Last instant at which it can have signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

fn displayed<S: Serializer>(kind: &EntryKind, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(kind)
}

impl Usable {
    /// What can be verified with.
    #[must_use]
    pub fn list(&self) -> Vec<Listed> {
        let listed = |kind, name: &str, id: String, window: Option<TimeRange>| Listed {
            kind,
            name: name.to_owned(),
            id,
            from: window.map(|window| window.start),
            until: window.and_then(|window| window.end),
        };
        let logs = self.root.tlogs.iter().map(|log| {
            let id = hex::encode(log.log_id.key_id.as_bytes());
            listed(EntryKind::Log, &log.base_url, id, log.public_key.valid_for)
        });
        let certificate_logs = self.root.ctlogs.iter().map(|log| {
            let id = hex::encode(log.log_id.key_id.as_bytes());
            listed(EntryKind::CertificateLog, &log.base_url, id, log.public_key.valid_for)
        });
        let authorities = self.root.certificate_authorities.iter().map(|authority| {
            let name = name(&authority.uri, &authority.subject);
            listed(
                EntryKind::CertificateAuthority,
                &name,
                String::new(),
                authority.valid_for,
            )
        });
        let timestamps = self.root.timestamp_authorities.iter().map(|authority| {
            let name = name(authority.uri.as_deref().unwrap_or_default(), &authority.subject);
            listed(EntryKind::TimestampAuthority, &name, String::new(), authority.valid_for)
        });
        logs.chain(authorities)
            .chain(certificate_logs)
            .chain(timestamps)
            .collect()
    }
}

fn name(uri: &str, subject: &CertificateSubject) -> String {
    if !uri.is_empty() {
        return uri.to_owned();
    }
    let parts = [&subject.common_name, &subject.organization];
    parts.into_iter().flatten().cloned().collect::<Vec<_>>().join(", ")
}

impl fmt::Display for RootSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Builtin(Builtin::Sigstore) => formatter.write_str("builtin sigstore"),
            Self::Builtin(Builtin::Github) => formatter.write_str("builtin github"),
            Self::Builtin(Builtin::Staging) => formatter.write_str("builtin staging"),
            Self::File(path) => formatter.write_str(path),
        }
    }
}
