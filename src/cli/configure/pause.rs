//! The rule for this node's own sandbox image. Every pod starts with a container of it, and nobody signs it for Assay:
//! without a rule no pod would start.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use toml::{Table, Value};

use super::node::{Node, read_text};
use super::plan::{Change, HEADER};
use crate::digest::Digest;
use crate::identity;

/// File name below `policy`. Rules are read in the order of file names, and this one must come before a rule for all
/// images.
pub const FILE: &str = "10-pause.toml";

/// containerd namespace of Kubernetes.
const KUBERNETES: &str = "k8s.io";

/// Longest time that containerd may take to say what an image is.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Digests of the manifests of the sandbox image `name` in containerd's store.
///
/// # Errors
/// Why they are not known, in a sentence.
pub fn digests(node: &Node, name: &str) -> Result<Vec<Digest>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let asked = runtime
        .block_on(async { tokio::time::timeout(TIMEOUT, identity::image(&node.socket, KUBERNETES, name)).await });
    match asked {
        Ok(Ok(image)) => Ok(image.manifests),
        Ok(Err(fault)) => Err(format!("the sandbox image {name}: {fault}")),
        Err(_) => Err(format!("the sandbox image {name}: containerd took too long")),
    }
}

/// The rule that allows these digests, and those that an earlier rule of this file did: a containerd that is taken back
/// to its older release must find its own.
///
/// # Errors
/// Why it cannot be written, in a sentence.
pub fn change(policy: &Path, name: &str, digests: &[Digest]) -> Result<Change, String> {
    if policy.is_file() {
        let listed: Vec<String> = digests.iter().map(|digest| format!("\"{digest}\"")).collect();
        return Err(format!(
            "{} is one file: add a rule with match = {{ kind = \"sandbox\" }} and digest = [{}] to it, before the rules \
             for all images",
            policy.display(),
            listed.join(", ")
        ));
    }
    let path = policy.join(FILE);
    let now = read_text(&path).map_err(|error| error.to_string())?;
    if now.as_ref().is_some_and(|text| !text.starts_with(HEADER)) {
        return Err(format!(
            "{} is an administrator's own and was left as it is",
            path.display()
        ));
    }
    let mut all: BTreeSet<Digest> = digests.iter().copied().collect();
    all.extend(now.as_deref().map(listed).unwrap_or_default());
    let list: String = all.iter().map(|digest| format!("    \"{digest}\",\n")).collect();
    Ok(Change {
        path,
        before: None,
        after: format!(
            "{HEADER}# The sandbox image of this node's containerd, {name}: every pod starts with a container of it.\n\
             # After an upgrade of containerd, `assay doctor` says whether it is still the same.\n\n[[rule]]\nname = \
             \"pause\"\nmatch = {{ kind = \"sandbox\" }}\nmode = \"enforce\"\ndigest = [\n{list}]\n"
        ),
        what: format!("the rule for the sandbox image {name}"),
    })
}

fn listed(text: &str) -> Vec<Digest> {
    let rules = text.parse::<Table>().ok().and_then(|table| table.get("rule").cloned());
    let digests = rules.and_then(|rules| rules.get(0)?.get("digest").cloned());
    let texts = digests.as_ref().and_then(Value::as_array).into_iter().flatten();
    texts.filter_map(|text| text.as_str()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_rule_is_policy_and_remembers_what_it_allowed() {
        let folder = tempfile::tempdir().unwrap();
        let policy = folder.path().join("policy.d");
        fs::create_dir(&policy).unwrap();
        let trust = folder.path().join("trust.d");
        fs::create_dir(&trust).unwrap();
        let (old, new) = (Digest::of(b"old"), Digest::of(b"new"));
        let first = change(&policy, "registry.k8s.io/pause:3.9", &[old]).unwrap();
        fs::write(&first.path, &first.after).unwrap();
        assert_eq!(change(&policy, "registry.k8s.io/pause:3.9", &[old]).unwrap(), first);
        let second = change(&policy, "registry.k8s.io/pause:3.10", &[new]).unwrap();
        fs::write(&second.path, &second.after).unwrap();
        let checked = crate::policy::check(&crate::policy::Sources::default().and(folder.path())).unwrap();
        let digests: BTreeSet<Digest> = checked.rules[0].digest.iter().copied().collect();
        assert_eq!(digests, BTreeSet::from([old, new]));
    }

    #[test]
    fn what_an_administrator_wrote_is_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), "# mine\n").unwrap();
        let said = change(folder.path(), "pause", &[Digest::of(b"")]).unwrap_err();
        assert!(said.contains("left as it is"), "{said}");
        let file = folder.path().join(FILE);
        let said = change(&file, "pause", &[Digest::of(b"")]).unwrap_err();
        assert!(said.contains("is one file"), "{said}");
    }
}
