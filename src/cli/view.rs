//! `assay view`: which files of an image a container sees, and why; and what a policy lacks for one that was audited.

mod suggest;

use clap::builder::NonEmptyStringValueParser;
use serde_json::json;

use super::{Exit, Output, complain, print};
use crate::admission::{self, Decision, Looked, Needs, Subject};
use crate::config::Config;

/// Arguments of `assay view`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Say what a container sees of an image, and what that follows from
    Show {
        #[command(flatten)]
        of: Of,
        /// List every path that stays visible
        #[arg(long)]
        paths: bool,
        /// What the result is written as
        #[arg(long, short, value_enum, default_value_t)]
        output: Output,
    },
    /// Say why a path is visible, from what the container starts to the path, or why it is hidden
    Explain {
        #[command(flatten)]
        of: Of,
        /// A path as the container sees it
        #[arg(value_name = "PATH", value_parser = absolute)]
        path: String,
        /// What the result is written as
        #[arg(long, short, value_enum, default_value_t)]
        output: Output,
    },
    /// Turn what an audited container used of its hidden files into a policy fragment, with the evidence
    Suggest(suggest::Args),
}

/// What is looked at.
#[derive(Debug, clap::Args)]
pub(super) struct Of {
    /// An image in containerd's store, by the name that a pod would use, or a container by its id
    #[arg(value_name = "IMAGE|CONTAINER", value_parser = NonEmptyStringValueParser::new())]
    pub(super) name: String,
    #[command(flatten)]
    pub(super) at: At,
}

/// Where it is.
#[derive(Debug, clap::Args)]
pub(super) struct At {
    /// containerd namespace that holds it
    #[arg(long, default_value = "k8s.io", value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    namespace: String,
    /// containerd's socket
    #[arg(long, default_value = "/run/containerd/containerd.sock", value_name = "PATH", value_parser = super::verify::socket)]
    address: String,
    /// Kubernetes namespace of the pod whose rules apply to an image
    #[arg(long, value_name = "NAME")]
    kubernetes_namespace: Option<String>,
}

impl Of {
    /// The question about it.
    pub(super) fn subject(&self) -> Subject<'_> {
        self.at.subject(&self.name)
    }
}

impl At {
    /// containerd's namespace.
    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The question about an image or a container.
    pub(super) fn subject<'a>(&'a self, name: &'a str) -> Subject<'a> {
        Subject {
            containerd: &self.address,
            namespace: &self.namespace,
            name,
            kubernetes_namespace: self.kubernetes_namespace.as_deref(),
            explain: None,
            survey: false,
            calls: false,
        }
    }
}

fn absolute(path: &str) -> Result<String, &'static str> {
    path.starts_with('/')
        .then(|| path.to_owned())
        .ok_or("expected an absolute path, as the container sees it")
}

/// Looks and says what there is.
#[must_use]
pub fn run(args: &Args, config: &Config) -> Exit {
    let (of, explain) = match &args.command {
        Command::Show { of, .. } => (of, None),
        Command::Explain { of, path, .. } => (of, Some(path.as_str())),
        Command::Suggest(args) => return suggest::run(args, config),
    };
    let subject = Subject {
        explain,
        ..of.subject()
    };
    let Looked { decision, needs, .. } = match admission::look(config, subject) {
        Ok(found) => found,
        Err((reason, fix)) => {
            complain(format!("{reason}; to fix: {fix}"));
            return Exit::Failed;
        }
    };
    print(match &args.command {
        Command::Explain {
            output: Output::Text, ..
        } => needs.explanation.join("\n  "),
        Command::Explain { path, .. } => {
            json!({ "path": path, "visible": needs.keep.contains(path), "reasons": needs.explanation }).to_string()
        }
        Command::Show {
            paths,
            output: Output::Text,
            ..
        } => text(&decision, &needs, *paths),
        Command::Show { .. } | Command::Suggest(_) => crate::diagnostic::json(&needs).unwrap_or_default(),
    });
    Exit::Done
}

fn text(decision: &Decision, needs: &Needs, paths: bool) -> String {
    let share = |what: &str, (all, visible): (u64, u64)| {
        let hidden = all.saturating_sub(visible);
        let percent = (hidden * 100).checked_div(all).unwrap_or_default();
        format!("  {what:<22} {all:>12} {visible:>12} {percent:>8} %")
    };
    let counts = &needs.counts;
    let mut lines = vec![
        format!("{}: what its container starts needs", decision.name),
        format!("  {:<22} {:>12} {:>12} {:>10}", "", "image", "visible", "hidden"),
        share("files", counts.files),
        share("bytes", counts.bytes),
        share("packages", counts.packages),
        share("executables", counts.executables),
        share("set-uid and set-gid", counts.set_id),
    ];
    for one in &needs.unlisted {
        lines.push(format!("  not in the SBOM        {} of {}", one.path, one.package));
    }
    let lists = [
        ("unattested", &needs.unattested),
        ("not followed", &needs.unfollowed),
        ("finding", &needs.findings),
    ];
    for (what, list) in lists {
        lines.extend(list.iter().map(|text| format!("  {what:<22} {text}")));
    }
    if paths {
        lines.extend(needs.keep.iter().cloned());
    }
    lines.join("\n")
}
