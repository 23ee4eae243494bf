//! `assay seccomp diff`: which system calls one profile lets through and another does not.

use serde_json::json;

use super::super::view::At;
use super::super::{Exit, Output, print};
use super::operand;
use crate::config::Config;
use crate::seccomp::{Permission, Profile};
use crate::syscalls::{Machine, all};

/// Arguments of `assay seccomp diff`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A profile in a file (its path begins with / or .), an image in containerd's store, or a container by its id
    #[arg(value_name = operand::NAME)]
    old: String,
    /// The other one, likewise
    #[arg(value_name = operand::NAME)]
    new: String,
    #[command(flatten)]
    at: At,
    /// What the result is written as
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn run(args: &Args, config: &Config) -> Exit {
    let profile = |operand: &str| operand::profile(operand, &args.at, config);
    let (old, new) = match (profile(&args.old), profile(&args.new)) {
        (Ok(old), Ok(new)) => (old, new),
        (Err(exit), _) | (_, Err(exit)) => return exit,
    };
    let changes = changes(&old, &new, Machine::native());
    match args.output {
        Output::Text => print(text(&changes)),
        Output::Json => {
            let changes: Vec<_> = changes
                .iter()
                .map(|(name, old, new)| json!({ "call": name, "old": word(*old), "new": word(*new) }))
                .collect();
            print(json!({ "changes": changes }));
        }
    }
    if changes.is_empty() { Exit::Done } else { Exit::Failed }
}

type Change = (&'static str, Permission, Permission);

/// Where they differ, by name. Conditions are compared as far as whether there are any.
fn changes(old: &Profile, new: &Profile, machine: Machine) -> Vec<Change> {
    let (old, new) = (old.rules(), new.rules());
    let mut changes: Vec<Change> = all(machine)
        .map(|(_, name)| (name, old.permission(name), new.permission(name)))
        .filter(|(_, old, new)| old != new)
        .collect();
    changes.sort_unstable_by_key(|(name, ..)| *name);
    changes
}

fn text(changes: &[Change]) -> String {
    if changes.is_empty() {
        return "both let the same calls through".to_owned();
    }
    let lines: Vec<String> = changes
        .iter()
        .map(|(name, old, new)| match (old, new) {
            (Permission::Never, Permission::Always) => format!("+ {name}"),
            (Permission::Always, Permission::Never) => format!("- {name}"),
            (old, new) if new > old => format!("+ {name} ({}, was {})", word(*new), word(*old)),
            (old, new) => format!("- {name} ({}, was {})", word(*new), word(*old)),
        })
        .collect();
    lines.join("\n")
}

fn word(permission: Permission) -> &'static str {
    match permission {
        Permission::Never => "never",
        Permission::Sometimes => "with some arguments",
        Permission::Always => "always",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp::runtime_default;

    #[test]
    fn what_is_gained_and_lost_is_listed_by_name() {
        let machine = Machine::X86_64;
        let old = Profile::allow(machine, ["read", "socket", "ptrace"]);
        assert_eq!(text(&changes(&old, &old, machine)), "both let the same calls through");
        let new = Profile::allow(machine, ["read", "write", "socket"]);
        assert_eq!(text(&changes(&old, &new, machine)), "- ptrace\n+ write");
        let default = runtime_default(None, machine, []);
        assert!(text(&changes(&new, &default, machine)).contains("- socket (with some arguments, was always)\n"));
    }
}
