//! `assay rollout`: what would happen on this node if enforcing were on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde::Serialize;

use super::policy::{ACTIVE, policy};
use super::verify::socket;
use super::{Exit, Output, complain, count, print};
use crate::admission::comparison::{self, Change, Comparison};
use crate::config::Config;
use crate::diagnostic::{inert, printable};

/// Most images or containers of one reason that a person is shown; programs get all.
const MAX_SHOWN: usize = 20;

/// Arguments of `assay rollout`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// containerd's socket
    #[arg(long, default_value = "/run/containerd/containerd.sock", value_name = "PATH", value_parser = socket)]
    address: String,
    /// What the result is written as
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

/// What would be refused, by reason.
#[derive(Debug, Serialize)]
struct Rollout<'a> {
    images: usize,
    containers: usize,
    refused: Vec<Reason<'a>>,
    not_judged: &'a [String],
}

/// Everything that one rule would refuse for one reason.
#[derive(Debug, Serialize)]
struct Reason<'a> {
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
    reason: &'a str,
    fixes: BTreeSet<&'a str>,
    refused: Vec<&'a Change>,
}

/// Judges everything on this node as if every rule were enforced.
#[must_use]
pub fn run(args: &Args, config: &Config) -> Exit {
    let active = match policy(config, ACTIVE, args.output) {
        Ok(active) => active,
        Err(exit) => return exit,
    };
    let comparison = match comparison::enforced(config, &active, &args.address) {
        Ok(comparison) => comparison,
        Err(error) => {
            complain(printable(&format!("error: {error}")));
            return Exit::Failed;
        }
    };
    let rollout = grouped(&comparison);
    match args.output {
        Output::Text => {
            print(inert(&text(&rollout)));
            for missing in rollout.not_judged {
                complain(format_args!("note: {missing}"));
            }
        }
        Output::Json => match serde_json::to_string_pretty(&rollout) {
            Ok(json) => print(json),
            Err(error) => {
                complain(format_args!("error: the result cannot be written as JSON: {error}"));
                return Exit::Internal;
            }
        },
    }
    if !rollout.refused.is_empty() {
        Exit::Denied
    } else if rollout.not_judged.is_empty() {
        Exit::Done
    } else {
        Exit::Failed
    }
}

/// What would be refused, by code and rule; what concerns most comes first.
fn grouped(comparison: &Comparison) -> Rollout<'_> {
    let mut reasons: BTreeMap<(&str, Option<&str>), Reason<'_>> = BTreeMap::new();
    for change in &comparison.changes {
        let word = &change.new;
        let reason = reasons.entry((&word.code, word.rule.as_deref())).or_insert(Reason {
            code: &word.code,
            rule: word.rule.as_deref(),
            reason: &word.reason,
            fixes: BTreeSet::new(),
            refused: Vec::new(),
        });
        if !word.fix.is_empty() {
            reason.fixes.insert(&word.fix);
        }
        reason.refused.push(change);
    }
    let mut refused: Vec<Reason<'_>> = reasons.into_values().collect();
    refused.sort_by_key(|reason| std::cmp::Reverse(reason.refused.len()));
    Rollout {
        images: comparison.images,
        containers: comparison.containers,
        refused,
        not_judged: &comparison.not_compared,
    }
}

fn text(rollout: &Rollout<'_>) -> String {
    let all = || rollout.refused.iter().flat_map(|reason| &reason.refused);
    let images: BTreeSet<_> = all()
        .filter(|change| change.container.is_none())
        .map(|change| (&change.namespace, &change.image, change.digest))
        .collect();
    let containers = all().filter(|change| change.container.is_some()).count();
    let mut text = format!(
        "{} of {} and {} of {} would be refused if every rule were enforced",
        containers,
        count(rollout.containers, "container"),
        images.len(),
        count(rollout.images, "image"),
    );
    for reason in &rollout.refused {
        // Writing to a text cannot fail.
        let _ = write!(text, "\n\n{}", reason.code);
        if let Some(rule) = reason.rule {
            let _ = write!(text, " by rule \"{rule}\"");
        }
        let _ = write!(text, ": {}", reason.reason);
        for fix in reason.fixes.iter().take(MAX_SHOWN) {
            let _ = write!(text, "\n  to fix: {fix}");
        }
        for change in reason.refused.iter().take(MAX_SHOWN) {
            let _ = write!(text, "\n  {}", what(change));
        }
        if let Some(more) = reason.refused.len().checked_sub(MAX_SHOWN).filter(|more| *more > 0) {
            let _ = write!(text, "\n  and {more} more: assay rollout -o json");
        }
    }
    text
}

fn what(change: &Change) -> String {
    let namespace = match &change.kubernetes_namespace {
        Some(kubernetes) => format!("{}, {kubernetes}", change.namespace),
        None => change.namespace.clone(),
    };
    match &change.container {
        Some(id) => format!("container {id} ({namespace}) of {}", change.image),
        None => format!("image {} ({namespace})", change.image),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::Verdict;
    use crate::admission::comparison::Word;
    use crate::digest::Digest;
    use crate::policy::Reevaluate;
    use crate::verify::Span;

    fn change(container: Option<&str>, image: &str, code: &str) -> Change {
        let word = |verdict, code: &str| Word {
            verdict,
            code: code.to_owned(),
            rule: Some("release images".to_owned()),
            reason: "nobody signed it".to_owned(),
            fix: format!("run: assay evidence pull {image}"),
            audit: Vec::new(),
            policy: true,
            span: Span::default(),
            reevaluate: Reevaluate::default(),
        };
        Change {
            container: container.map(str::to_owned),
            namespace: "k8s.io".to_owned(),
            kubernetes_namespace: container.map(|_| "prod".to_owned()),
            image: image.to_owned(),
            digest: Digest::of(image.as_bytes()),
            old: word(Verdict::Allow, "audit-only"),
            new: word(Verdict::Refuse, code),
        }
    }

    #[test]
    fn what_would_be_refused_is_listed_by_reason_with_what_to_do() {
        let comparison = Comparison {
            images: 7,
            containers: 3,
            changes: vec![
                change(Some("3f2a"), "example.com/app:1", "signature-missing"),
                change(None, "example.com/old:1", "key-retired"),
                change(None, "example.com/app:1", "signature-missing"),
            ],
            not_compared: Vec::new(),
        };
        insta::assert_snapshot!(text(&grouped(&comparison)), @r#"
        1 of 3 containers and 2 of 7 images would be refused if every rule were enforced

        signature-missing by rule "release images": nobody signed it
          to fix: run: assay evidence pull example.com/app:1
          container 3f2a (k8s.io, prod) of example.com/app:1
          image example.com/app:1 (k8s.io)

        key-retired by rule "release images": nobody signed it
          to fix: run: assay evidence pull example.com/old:1
          image example.com/old:1 (k8s.io)
        "#);
    }
}
