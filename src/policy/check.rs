//! Policy and trust read together, with the checks that need more than one file.

use std::path::Path;

use super::schema::{self, SourcePolicy, SourceRule};
use super::{Deny, Mode, Rule, diags};
use crate::diagnostic::{self, Diagnostic, Place, Severity, Source};
use crate::trust::{self, Key, SourceFile, Status, Trust, Use};

/// Policy and trust that hold together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The files they were made from.
    pub sources: Vec<SourceFile>,
    /// Keys of trust.
    pub keys: Vec<Key>,
    /// The revocation list.
    pub deny: Deny,
    /// Rules in the order in which they are searched.
    pub rules: Vec<Rule>,
    /// What is probably not what was meant.
    pub warnings: Vec<Diagnostic>,
}

/// Reads folders or files of policy and of trust and checks everything that can be wrong with them.
///
/// # Errors
/// Everything that is wrong, warnings included.
pub fn check(policy: &Path, trust: &Path) -> Result<Checked, Vec<Diagnostic>> {
    let mut found = Vec::new();
    let trust = match trust::load(trust) {
        Ok(trust) => Some(trust),
        Err(faults) => {
            found.extend(faults);
            None
        }
    };
    let (read, mut sources) = read(policy, &mut found);
    let readable = found.iter().all(|diagnostic| diagnostic.severity == Severity::Warning);
    if readable && read.rules.is_empty() {
        found.push(diags::no_rules(policy));
    }
    check_names(&read.rules, &mut found);
    check_reach(&read.rules, &mut found);
    // Without trust every key would be unknown.
    if let Some(trust) = &trust {
        check_keys(&read, trust, &mut found);
    }
    let errors = found.iter().any(|diagnostic| diagnostic.severity == Severity::Error);
    match trust {
        Some(trust) if !errors => {
            sources.extend(trust.files);
            Ok(Checked {
                sources,
                keys: trust.keys,
                deny: read.deny,
                rules: read.rules.into_iter().map(|read| read.rule).collect(),
                warnings: found,
            })
        }
        _ => Err(found),
    }
}

fn read(path: &Path, found: &mut Vec<Diagnostic>) -> (SourcePolicy, Vec<SourceFile>) {
    let mut policy = SourcePolicy::default();
    let mut sources = Vec::new();
    let files = diagnostic::toml_files(path).unwrap_or_else(|fault| {
        found.push(fault);
        Vec::new()
    });
    for file in files {
        let source = match Source::read(&file) {
            Ok(source) => source,
            Err(fault) => {
                found.push(fault);
                continue;
            }
        };
        sources.push(SourceFile::new(&file, source.text.as_bytes()));
        let (read, faults) = schema::parse(&source);
        found.extend(faults);
        policy.rules.extend(read.rules);
        policy.deny.digest.extend(read.deny.digest);
        policy.deny.key.extend(read.deny.key);
        policy.denied_keys.extend(read.denied_keys);
    }
    (policy, sources)
}

fn check_names(rules: &[SourceRule], found: &mut Vec<Diagnostic>) {
    for (i, read) in rules.iter().enumerate() {
        let mut before = rules.iter().take(i);
        if let Some(first) = before.find(|first| first.rule.name == read.rule.name) {
            found.push(diags::duplicate_rule(&read.rule, read.name_at.clone(), &first.name_at));
        }
    }
}

fn check_reach(rules: &[SourceRule], found: &mut Vec<Diagnostic>) {
    for (i, read) in rules.iter().enumerate() {
        let mut before = rules.iter().take(i).filter(|first| first.rule.mode != Mode::Audit);
        if let Some(first) = before.find(|first| first.rule.r#match.covers(&read.rule.r#match)) {
            found.push(diags::unreachable(&read.rule, read.at.clone(), &first.rule, &first.at));
        }
    }
}

fn check_keys(policy: &SourcePolicy, trust: &Trust, found: &mut Vec<Diagnostic>) {
    let find = |id: &str| trust.keys.iter().find(|key| key.id == id);
    let unknown = |(id, place): &(String, Place)| diags::unknown_key(id, place.clone(), &trust.keys);
    for read in &policy.rules {
        for named in &read.keys {
            let (id, place) = named;
            match find(id) {
                None => found.push(unknown(named)),
                Some(key) if !key.r#use.contains(&Use::Image) => found.push(diags::key_use(id, place.clone())),
                Some(key) if key.status != Status::Active => found.push(diags::key_inactive(key, place.clone())),
                Some(_) => {}
            }
        }
    }
    found.extend(
        policy
            .denied_keys
            .iter()
            .filter(|(id, _)| find(id).is_none())
            .map(unknown),
    );
}
