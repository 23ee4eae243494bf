//! `[rule.runtime]`, `[rule.filesystem]`, `[rule.seccomp]`, `[rule.exec]` and `[rule.reevaluate]`.

use toml::Spanned;

use super::super::{
    Action, Exec, ExecMode, Filesystem, Incomplete, Level, Mode, Privileged, Reevaluate, Restart, Runtime, Seccomp,
    SeccompMode, Unattested, Unavailable, diags,
};
use super::MODES;
use crate::diagnostic::printable;
use crate::diagnostic::strict::{Reader, Table};
use crate::syscalls::{Machine, number};

const RUNTIME_KEYS: &[&str] = &[
    "restart",
    "user",
    "read_only_root",
    "noexec_mounts",
    "no_new_privileges",
];
const FILESYSTEM_KEYS: &[&str] = &[
    "mode",
    "level",
    "keep",
    "exec",
    "exec_annotation",
    "unattested",
    "unavailable",
];

const SECCOMP_KEYS: &[&str] = &["mode", "incomplete", "privileged", "allow", "deny"];

const EXEC_KEYS: &[&str] = &["mode"];

const REEVALUATE_KEYS: &[&str] = &["action", "grace"];

const RESTARTS: &[(&str, Restart)] = &[("refuse", Restart::Refuse), ("allow", Restart::Allow)];
const USERS: &[(&str, bool)] = &[("non-root", true), ("any", false)];
const LEVELS: &[(&str, Level)] = &[
    ("packages", Level::Packages),
    ("balanced", Level::Balanced),
    ("files", Level::Files),
];
const UNATTESTED: &[(&str, Unattested)] = &[("report", Unattested::Report), ("deny", Unattested::Deny)];
const UNAVAILABLE: &[(&str, Unavailable)] = &[("refuse", Unavailable::Refuse), ("full", Unavailable::Full)];
const SECCOMP_MODES: &[(&str, SeccompMode)] = &[
    ("enforce", SeccompMode::Enforce),
    ("complain", SeccompMode::Complain),
    ("off", SeccompMode::Off),
];
const INCOMPLETE: &[(&str, Incomplete)] = &[("fallback", Incomplete::Fallback), ("refuse", Incomplete::Refuse)];
const PRIVILEGED: &[(&str, Privileged)] = &[("derived", Privileged::Derived), ("unconfined", Privileged::Unconfined)];

const EXEC_MODES: &[(&str, ExecMode)] = &[
    ("allow", ExecMode::Allow),
    ("closure", ExecMode::Closure),
    ("deny", ExecMode::Deny),
];

const ACTIONS: &[(&str, Action)] = &[
    (Action::Report.as_str(), Action::Report),
    (Action::DenyExec.as_str(), Action::DenyExec),
    (Action::Freeze.as_str(), Action::Freeze),
    (Action::Stop.as_str(), Action::Stop),
];

/// Longest path or pattern of a path, in bytes, as in Linux.
const MAX_PATH: usize = 4096;

pub(super) fn runtime<'s>(reader: &mut Reader<'s>, rule: &mut Table<'s>) -> Runtime {
    let Some(mut table) = reader.table(rule, "runtime", "[rule.runtime]") else {
        return Runtime::default();
    };
    if table.is_empty() {
        diags::empty_table(reader, &table, "[rule.runtime]", "write restart, or remove its header");
    }
    let mut flag = |reader: &mut Reader<'s>, key| reader.flag(&mut table, key).is_some_and(Spanned::into_inner);
    let read_only_root = flag(reader, "read_only_root");
    let noexec_mounts = flag(reader, "noexec_mounts");
    let no_new_privileges = flag(reader, "no_new_privileges");
    let runtime = Runtime {
        restart: reader.choice(&mut table, "restart", RESTARTS).unwrap_or_default(),
        // What cannot be read is an error already; until it is mended the stricter word stands.
        non_root: table.has("user") && reader.choice(&mut table, "user", USERS).unwrap_or(true),
        read_only_root,
        noexec_mounts,
        no_new_privileges,
    };
    reader.finish(&table, RUNTIME_KEYS, &[]);
    runtime
}

pub(super) fn filesystem<'s>(reader: &mut Reader<'s>, rule: &mut Table<'s>) -> Filesystem {
    let Some(mut table) = reader.table(rule, "filesystem", "[rule.filesystem]") else {
        return Filesystem::default();
    };
    if table.is_empty() {
        let help = "write mode = \"enforce\", or remove its header";
        diags::empty_table(reader, &table, "[rule.filesystem]", help);
    }
    let mode = if table.has("mode") {
        reader.choice(&mut table, "mode", MODES).unwrap_or(Mode::Enforce)
    } else {
        Mode::Enforce
    };
    let filesystem = Filesystem {
        mode,
        level: reader.choice(&mut table, "level", LEVELS).unwrap_or_default(),
        keep: paths(reader, &mut table, "keep"),
        exec: paths(reader, &mut table, "exec"),
        exec_annotation: reader
            .flag(&mut table, "exec_annotation")
            .is_some_and(Spanned::into_inner),
        unattested: reader.choice(&mut table, "unattested", UNATTESTED).unwrap_or_default(),
        unavailable: reader
            .choice(&mut table, "unavailable", UNAVAILABLE)
            .unwrap_or_default(),
    };
    reader.finish(&table, FILESYSTEM_KEYS, &[]);
    filesystem
}

pub(super) fn seccomp<'s>(reader: &mut Reader<'s>, rule: &mut Table<'s>) -> Seccomp {
    let Some(mut table) = reader.table(rule, "seccomp", "[rule.seccomp]") else {
        return Seccomp::default();
    };
    if table.is_empty() {
        let help = "write mode = \"enforce\", or remove its header";
        diags::empty_table(reader, &table, "[rule.seccomp]", help);
    }
    let mode = if table.has("mode") {
        reader
            .choice(&mut table, "mode", SECCOMP_MODES)
            .unwrap_or(SeccompMode::Enforce)
    } else {
        SeccompMode::Enforce
    };
    let incomplete = reader.choice(&mut table, "incomplete", INCOMPLETE).unwrap_or_default();
    let privileged = reader.choice(&mut table, "privileged", PRIVILEGED).unwrap_or_default();
    let allow = calls(reader, &mut table, "allow", &[]);
    let deny = calls(reader, &mut table, "deny", &allow);
    reader.finish(&table, SECCOMP_KEYS, &[]);
    Seccomp {
        mode,
        incomplete,
        privileged,
        allow,
        deny,
    }
}

/// `files` is the mode of the same rule's `[rule.filesystem]`.
pub(super) fn exec<'s>(reader: &mut Reader<'s>, rule: &mut Table<'s>, files: Mode) -> Exec {
    let Some(mut table) = reader.table(rule, "exec", "[rule.exec]") else {
        return Exec::default();
    };
    if table.is_empty() {
        let help = "write mode = \"deny\", or remove its header";
        diags::empty_table(reader, &table, "[rule.exec]", help);
    }
    let place = reader.at(table.span());
    let (line, _) = place.line_column();
    let exec = Exec {
        // What cannot be read is an error already; until it is mended the stricter word stands.
        mode: reader.choice(&mut table, "mode", EXEC_MODES).unwrap_or(ExecMode::Deny),
        at: format!("{}:{line}", printable(&place.source.path.display().to_string())),
    };
    if exec.mode == ExecMode::Closure && files != Mode::Enforce {
        diags::closure_without_view(reader, &table);
    }
    reader.finish(&table, EXEC_KEYS, &[]);
    exec
}

pub(super) fn reevaluate<'s>(reader: &mut Reader<'s>, rule: &mut Table<'s>) -> Reevaluate {
    let default = Reevaluate::default();
    let Some(mut table) = reader.table(rule, "reevaluate", "[rule.reevaluate]") else {
        return default;
    };
    if table.is_empty() {
        let help = "write action = \"report\", or remove its header";
        diags::empty_table(reader, &table, "[rule.reevaluate]", help);
    }
    let reevaluate = Reevaluate {
        action: reader.choice(&mut table, "action", ACTIONS).unwrap_or_default(),
        grace: reader.age(&mut table, "grace").unwrap_or(default.grace),
    };
    reader.finish(&table, REEVALUATE_KEYS, &[]);
    reevaluate
}

/// Names of system calls of some machine, none of which is among `other`.
pub(super) fn calls(reader: &mut Reader<'_>, table: &mut Table<'_>, key: &str, other: &[String]) -> Vec<String> {
    let mut calls = Vec::new();
    for text in reader.texts(table, key) {
        let name = text.get_ref();
        let machines = [Machine::X86_64, Machine::Aarch64];
        if !machines.iter().any(|machine| number(*machine, name).is_some()) {
            diags::unknown_call(reader, &text);
        } else if other.contains(name) {
            diags::call_twice(reader, &text);
        } else if !calls.contains(name) {
            calls.push(text.into_inner());
        }
    }
    calls.sort();
    calls
}

/// Absolute paths without `.`, `..`, doubled slashes and control characters; in `keep` also patterns.
fn paths(reader: &mut Reader<'_>, table: &mut Table<'_>, key: &'static str) -> Vec<String> {
    let texts = reader.texts(table, key);
    let check = |text: Spanned<String>| {
        let fault = path_fault(text.get_ref(), key == "keep");
        match fault {
            None => Some(text.into_inner()),
            Some(fault) => {
                diags::invalid_path(reader, &text, fault);
                None
            }
        }
    };
    texts.into_iter().filter_map(check).collect()
}

fn path_fault(path: &str, pattern: bool) -> Option<&'static str> {
    let Some(below) = path.strip_prefix('/') else {
        return Some("it does not begin with /");
    };
    if path.len() > MAX_PATH {
        return Some("it is longer than a path can be");
    }
    if path.chars().any(char::is_control) {
        return Some("it has control characters");
    }
    if below.split('/').any(|name| matches!(name, "" | "." | "..")) {
        return Some("it has an empty component, . or ..");
    }
    if !pattern {
        return None;
    }
    (!crate::policy::glob::is_sound(path)).then_some("a bracket in it opens no set of characters")
}
