//! The intersection of two profiles: what the result lets through, both let through.
//!
//! The semantics are those of KEP-6061 (security profiles as OCI artifacts): the more restrictive action wins, for each
//! call and each set of arguments; where the exact result cannot be written as rules that libseccomp compiles
//! exactly, the more restrictive action around it counts. Two profiles that answer with the same action keep the
//! error number of the first. One difference: the result is for the native architecture alone, so calls of any other
//! are fatal.

use std::collections::{BTreeMap, BTreeSet};

use super::profile::{Action, Architecture, Argument, ENOSYS, Flag, Operator, Profile};
use super::rules::{Call, Outcome, Rule, Rules, exact};
use crate::syscalls::Machine;

/// Most comparisons of rules that one call may take. Beyond it the most restrictive result of all its rules counts, and
/// rules that others make unnecessary stay.
pub(super) const MAX_COMPARISONS: usize = 4096;

/// Calls of 32-bit x86 (and of other architectures) that are reached through `socketcall` too.
const SOCKETCALL: &[&str] = &[
    "accept",
    "accept4",
    "bind",
    "connect",
    "getpeername",
    "getsockname",
    "getsockopt",
    "listen",
    "recv",
    "recvfrom",
    "recvmmsg",
    "recvmsg",
    "send",
    "sendmmsg",
    "sendmsg",
    "sendto",
    "setsockopt",
    "shutdown",
    "socket",
    "socketpair",
];
/// The same of `ipc`.
const IPC: &[&str] = &[
    "msgctl",
    "msgget",
    "msgrcv",
    "msgsnd",
    "semctl",
    "semget",
    "semop",
    "semtimedop",
    "shmat",
    "shmctl",
    "shmdt",
    "shmget",
];

/// The profile that lets a call through only if both do.
///
/// `machine` is that of the node. Listener and its settings are those of the first that has one.
#[must_use]
pub fn intersect(first: &Profile, second: &Profile, machine: Machine) -> Profile {
    let (left, right) = (first.rules(), second.rules());
    let default = left.default.stricter(right.default);
    let names: BTreeSet<&String> = left.calls.keys().chain(right.calls.keys()).collect();
    let calls = names
        .into_iter()
        .filter_map(|name| {
            let rules = both(&side(&left, name), &side(&right, name), default);
            (!rules.is_empty()).then(|| (name.clone(), Call { rules, exact: true }))
        })
        .collect();
    let rules = Rules { default, calls };
    let listener = if first.listener_path.is_empty() { second } else { first };
    Profile {
        default_action: default.action,
        default_errno_ret: default.errno_ret(),
        architectures: vec![Architecture::from(machine)],
        flags: flags(first, second, listener),
        listener_path: listener.listener_path.clone(),
        listener_metadata: listener.listener_metadata.clone(),
        syscalls: rules.entries(),
    }
}

/// `profile` without some calls: each of them returns `ENOSYS` unless it is answered more severely already.
///
/// Nothing else changes, architectures included. On one where sockets and System V IPC are also reached through one
/// call for all, that call is denied as well.
#[must_use]
pub fn without(profile: &Profile, names: &BTreeSet<String>) -> Profile {
    let mut names = names.clone();
    if profile
        .architectures
        .iter()
        .any(|architecture| multiplexes(*architecture))
    {
        for (multiplexer, calls) in [("socketcall", SOCKETCALL), ("ipc", IPC)] {
            if calls.iter().any(|call| names.contains(*call)) {
                names.insert(multiplexer.to_owned());
            }
        }
    }
    let rules = profile.rules();
    let refused = Outcome::new(Action::Errno, Some(ENOSYS));
    let mut syscalls = profile.syscalls.clone();
    for entry in &mut syscalls {
        entry.names.retain(|name| !names.contains(name));
    }
    syscalls.retain(|entry| !entry.names.is_empty());
    let calls = names.into_iter().filter_map(|name| {
        let Side {
            rules: conditional,
            otherwise,
        } = side(&rules, &name);
        let answer = strictest(otherwise.stricter(refused), &conditional);
        let call = Call {
            rules: vec![Rule::always(answer)],
            exact: true,
        };
        (answer != rules.default).then_some((name, call))
    });
    let answers = Rules {
        default: rules.default,
        calls: calls.collect(),
    };
    syscalls.extend(answers.entries());
    Profile {
        syscalls,
        ..profile.clone()
    }
}

fn multiplexes(architecture: Architecture) -> bool {
    !matches!(
        architecture,
        Architecture::X86_64
            | Architecture::X32
            | Architecture::Arm
            | Architecture::Aarch64
            | Architecture::Mips64
            | Architecture::Mips64N32
            | Architecture::Mipsel64
            | Architecture::Mipsel64N32
            | Architecture::Riscv64
            | Architecture::Loongarch64
    )
}

/// The profile of a container: its own, narrowed to the calls that are `allowed` and not `denied`.
///
/// `own` is what the specification already has; without one there is nothing to narrow but the calls themselves. The
/// filter is loaded with the flags of `own`.
#[must_use]
pub fn narrow(
    own: Option<&Profile>,
    allowed: impl IntoIterator<Item = String>,
    denied: &BTreeSet<String>,
    machine: Machine,
) -> Profile {
    let allowed = allowed.into_iter().filter(|name| !denied.contains(name));
    let mut derived = Profile::allow(machine, allowed);
    let Some(own) = own else { return derived };
    derived.flags.clone_from(&own.flags);
    intersect(&derived, own, machine)
}

/// What one of the two profiles does with a call: rules with conditions, and what the rest gets.
pub(super) struct Side {
    pub rules: Vec<Rule>,
    pub otherwise: Outcome,
}

/// The side of one call; where it is not known which rule decides, it gets the most restrictive result of all.
pub(super) fn side(rules: &Rules, name: &str) -> Side {
    let nothing = |otherwise| Side {
        rules: Vec::new(),
        otherwise,
    };
    let Some(call) = rules.calls.get(name) else {
        return nothing(rules.default);
    };
    if !call.exact {
        return nothing(strictest(rules.default, &call.rules));
    }
    match call.always() {
        Some(outcome) => nothing(outcome),
        None => Side {
            rules: call.rules.clone(),
            otherwise: rules.default,
        },
    }
}

fn strictest(start: Outcome, rules: &[Rule]) -> Outcome {
    rules.iter().fold(start, |all, rule| all.stricter(rule.outcome))
}

/// The rules of a call in the result, none where the default is right.
fn both(left: &Side, right: &Side, default: Outcome) -> Vec<Rule> {
    let otherwise = left.otherwise.stricter(right.otherwise);
    let always = |outcome: Outcome| {
        if outcome == default {
            Vec::new()
        } else {
            vec![Rule::always(outcome)]
        }
    };
    if left.rules.len().saturating_mul(right.rules.len()) > MAX_COMPARISONS {
        return always(strictest(strictest(otherwise, &left.rules), &right.rules));
    }
    let mut found: BTreeMap<Vec<Argument>, Outcome> = BTreeMap::new();
    // A call that matches a rule of one side gets at least this, whatever the other side says about it.
    for (one, other) in [(left, right), (right, left)] {
        for rule in &one.rules {
            let covered = other
                .rules
                .iter()
                .any(|other| implies(&rule.conditions, &other.conditions));
            let start = if covered {
                rule.outcome
            } else {
                rule.outcome.stricter(other.otherwise)
            };
            let overlapping = other
                .rules
                .iter()
                .filter(|other| !disjoint(&rule.conditions, &other.conditions));
            let outcome = overlapping.fold(start, |all, other| all.stricter(other.outcome));
            add(&mut found, rule.conditions.clone(), outcome);
        }
    }
    for one in &left.rules {
        for other in &right.rules {
            if let Some(conditions) = conjunction(&one.conditions, &other.conditions) {
                let outcome = one.outcome.stricter(other.outcome);
                add(&mut found, conditions, outcome);
            }
        }
    }
    // Where only the error number differs, the rest decides about it.
    let rules: Vec<Rule> = found
        .into_iter()
        .filter(|(_, outcome)| outcome.action != otherwise.action)
        .map(|(conditions, outcome)| Rule { conditions, outcome })
        .collect();
    if rules.is_empty() {
        return always(otherwise);
    }
    let all = strictest(otherwise, &rules);
    if otherwise.action == default.action {
        let kept = without_covered(rules);
        return if exact(&kept) { kept } else { always(all) };
    }
    // A rule without conditions would decide every call, so the rest needs a condition of its own.
    let kept = without_covered(rules);
    if let [rule] = kept.as_slice()
        && let [condition] = rule.conditions.as_slice()
        && let Some(complement) = condition.complement()
    {
        let rest = Rule {
            conditions: vec![complement],
            outcome: otherwise,
        };
        return [rule.clone(), rest]
            .into_iter()
            .filter(|rule| rule.outcome.action != default.action)
            .collect();
    }
    always(all)
}

/// Adds a rule. Of two with the same conditions the less restrictive counts, since each of them is restrictive enough.
fn add(rules: &mut BTreeMap<Vec<Argument>, Outcome>, conditions: Vec<Argument>, outcome: Outcome) {
    rules
        .entry(conditions)
        .and_modify(|known| *known = known.looser(outcome))
        .or_insert(outcome);
}

/// Leaves out rules that another with the same result makes unnecessary.
fn without_covered(rules: Vec<Rule>) -> Vec<Rule> {
    if rules.len().saturating_mul(rules.len()) > MAX_COMPARISONS {
        return rules;
    }
    let covered = |rule: &Rule| {
        rules.iter().any(|other| {
            other.conditions != rule.conditions
                && other.outcome == rule.outcome
                && implies(&rule.conditions, &other.conditions)
        })
    };
    rules.iter().filter(|rule| !covered(rule)).cloned().collect()
}

/// Whether all calls that meet `narrow` certainly meet `wide`.
pub(super) fn implies(narrow: &[Argument], wide: &[Argument]) -> bool {
    wide.iter()
        .all(|wide| narrow.iter().any(|narrow| condition_implies(narrow, wide)))
}

fn condition_implies(narrow: &Argument, wide: &Argument) -> bool {
    narrow == wide
        || (narrow.index == wide.index
            && match narrow.op {
                Operator::Equal => wide.holds(narrow.value),
                Operator::MaskedEqual if wide.op == Operator::MaskedEqual => {
                    narrow.value & wide.value == wide.value && narrow.value_two & wide.value == wide.value_two
                }
                _ => false,
            })
}

/// Whether certainly no call meets both.
pub(super) fn disjoint(one: &[Argument], other: &[Argument]) -> bool {
    one.iter()
        .any(|one| other.iter().any(|other| conditions_disjoint(one, other)))
}

fn conditions_disjoint(one: &Argument, other: &Argument) -> bool {
    one.index == other.index
        && (one.complement() == Some(*other)
            || match (one.op, other.op) {
                (Operator::Equal, _) => !other.holds(one.value),
                (_, Operator::Equal) => !one.holds(other.value),
                (Operator::MaskedEqual, Operator::MaskedEqual) => {
                    (one.value_two ^ other.value_two) & one.value & other.value != 0
                }
                _ => false,
            })
}

/// The conditions that hold exactly where both do. None where no call meets both, or where it takes two conditions on
/// one argument, which runc would read as one or the other.
fn conjunction(one: &[Argument], other: &[Argument]) -> Option<Vec<Argument>> {
    if disjoint(one, other) {
        return None;
    }
    let mut conditions = one.to_vec();
    for added in other {
        match conditions.iter_mut().find(|condition| condition.index == added.index) {
            None => conditions.push(*added),
            Some(condition) if condition_implies(condition, added) => {}
            Some(condition) if condition_implies(added, condition) => *condition = *added,
            Some(_) => return None,
        }
    }
    conditions.sort_unstable();
    Some(conditions)
}

fn flags(first: &Profile, second: &Profile, listener: &Profile) -> Vec<Flag> {
    let has = |profile: &Profile, flag| profile.flags.contains(&flag);
    let either = |flag| has(first, flag) || has(second, flag);
    [
        (Flag::Tsync, either(Flag::Tsync)),
        (Flag::Log, either(Flag::Log)),
        // It weakens a mitigation.
        (
            Flag::SpecAllow,
            has(first, Flag::SpecAllow) && has(second, Flag::SpecAllow),
        ),
        (Flag::WaitKillableRecv, has(listener, Flag::WaitKillableRecv)),
    ]
    .into_iter()
    .filter_map(|(flag, present)| present.then_some(flag))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::super::profile::Permission;
    use super::*;

    const MACHINE: Machine = Machine::X86_64;

    fn profile(text: &str) -> Profile {
        Profile::parse(text.as_bytes()).unwrap()
    }

    /// A profile that refuses everything but what its entries say.
    fn list(entries: &str) -> Profile {
        profile(&format!(
            r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{entries}]}}"#
        ))
    }

    fn entry(names: &str, action: &str, args: &str) -> String {
        format!(
            r#"{{"names":["{}"],"action":"SCMP_ACT_{action}","args":[{args}]}}"#,
            names.replace(' ', "\",\"")
        )
    }

    fn when(index: u32, op: &str, value: u64) -> String {
        format!(r#"{{"index":{index},"value":{value},"op":"SCMP_CMP_{op}"}}"#)
    }

    fn written(profile: &Profile) -> String {
        serde_json::to_string(&profile.syscalls).unwrap()
    }

    #[test]
    fn what_one_of_both_refuses_is_refused_with_its_error() {
        let derived = Profile::allow(MACHINE, ["read", "mount", "clone3"]);
        let own = list(
            &[
                entry("read write", "ALLOW", ""),
                r#"{"names":["clone3"],"action":"SCMP_ACT_KILL"}"#.to_owned(),
            ]
            .join(","),
        );
        let both = intersect(&derived, &own, MACHINE);
        let verdict = |name| both.verdict(name, &[0; 6]);
        assert_eq!(verdict("read").action, Action::Allow);
        assert_eq!(
            verdict("mount"),
            Outcome::new(Action::Errno, Some(1)),
            "as the pod's own profile answers"
        );
        assert_eq!(verdict("write"), Outcome::new(Action::Errno, Some(38)));
        assert_eq!(verdict("clone3").action, Action::KillThread);
        assert_eq!(verdict("unknown"), Outcome::new(Action::Errno, Some(38)));
    }

    #[test]
    fn conditions_of_either_side_stay() {
        let free = list(&entry("clone personality socket", "ALLOW", ""));
        let families = [2, 10]
            .map(|family| entry("socket", "ALLOW", &when(0, "EQ", family)))
            .join(",");
        let own = list(
            &[
                entry(
                    "clone",
                    "ALLOW",
                    r#"{"index":0,"value":2114060288,"op":"SCMP_CMP_MASKED_EQ"}"#,
                ),
                families,
            ]
            .join(","),
        );
        let both = intersect(&free, &own, MACHINE);
        assert_eq!(both.syscalls, own.syscalls);
        assert_eq!(intersect(&own, &own, MACHINE).syscalls, own.syscalls);
        // A condition that another one implies goes.
        let no_vsock = list(&entry("socket", "ALLOW", &when(0, "NE", 40)));
        let both = intersect(&no_vsock, &own, MACHINE);
        assert_eq!(both.rules().permission("clone"), Permission::Never);
        assert_eq!(both.verdict("socket", &[10, 0, 0, 0, 0, 0]).action, Action::Allow);
        assert_eq!(both.verdict("socket", &[40, 0, 0, 0, 0, 0]).action, Action::Errno);
        assert_eq!(both.verdict("socket", &[1, 0, 0, 0, 0, 0]).action, Action::Errno);
        assert_eq!(both.syscalls.len(), 2);
    }

    #[test]
    fn conditions_on_different_arguments_are_joined() {
        let one = list(&entry("fcntl", "ALLOW", &when(1, "EQ", 3)));
        let other = list(&entry("fcntl", "ALLOW", &when(0, "LT", 3)));
        let both = intersect(&one, &other, MACHINE);
        assert_eq!(
            written(&both),
            r#"[{"names":["fcntl"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":3,"op":"SCMP_CMP_LT"},{"index":1,"value":3,"op":"SCMP_CMP_EQ"}]}]"#
        );
    }

    #[test]
    fn what_cannot_be_written_is_refused() {
        // Two conditions on one argument are read as either.
        let one = list(&entry("lseek", "ALLOW", &when(1, "GT", 3)));
        let other = list(&entry("lseek", "ALLOW", &when(1, "LT", 9)));
        assert_eq!(intersect(&one, &other, MACHINE).syscalls, []);
        // libseccomp's order decides between these, so the strictest counts.
        let unclear = list(
            &[
                entry("lseek", "ALLOW", &when(1, "GT", 3)),
                entry("lseek", "KILL", &when(0, "EQ", 1)),
            ]
            .join(","),
        );
        let both = intersect(&list(&entry("lseek", "ALLOW", "")), &unclear, MACHINE);
        assert_eq!(both.verdict("lseek", &[0, 9, 0, 0, 0, 0]).action, Action::KillThread);
    }

    #[test]
    fn a_list_of_what_is_forbidden_narrows_a_list_of_what_is_allowed() {
        let forbids = profile(&format!(
            r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{}]}}"#,
            [
                entry("ptrace", "ERRNO", ""),
                entry("socket", "ERRNO", &when(0, "EQ", 16))
            ]
            .join(",")
        ));
        let allows = Profile::allow(MACHINE, ["ptrace", "read", "socket"]);
        let both = intersect(&allows, &forbids, MACHINE);
        assert_eq!(both.default_action, Action::Errno);
        assert_eq!(both.verdict("read", &[0; 6]).action, Action::Allow);
        assert_eq!(both.verdict("ptrace", &[0; 6]).action, Action::Errno);
        assert_eq!(both.verdict("socket", &[16, 0, 0, 0, 0, 0]).action, Action::Errno);
        assert_eq!(both.verdict("socket", &[2, 0, 0, 0, 0, 0]).action, Action::Allow);
    }

    #[test]
    fn many_rules_of_one_call_stay_as_they_are() {
        let rules: Vec<String> = (0..5000)
            .map(|value| entry("ioctl", "ALLOW", &when(1, "EQ", value)))
            .collect();
        let own = list(&rules.join(","));
        let both = intersect(&Profile::allow(MACHINE, ["ioctl"]), &own, MACHINE);
        assert_eq!(both.rules().calls["ioctl"].rules.len(), 5000);
        assert_eq!(both.verdict("ioctl", &[0, 4999, 0, 0, 0, 0]).action, Action::Allow);
        assert_eq!(both.verdict("ioctl", &[0, 5000, 0, 0, 0, 0]).action, Action::Errno);
    }

    #[test]
    fn flags_and_listener_never_loosen() {
        let text = |flags: &str, listener: &str| {
            profile(&format!(
                r#"{{"defaultAction":"SCMP_ACT_ERRNO","flags":[{flags}],"listenerPath":"{listener}"}}"#
            ))
        };
        let (log, spec) = (r#""SECCOMP_FILTER_FLAG_LOG""#, r#""SECCOMP_FILTER_FLAG_SPEC_ALLOW""#);
        let both = intersect(&text(log, ""), &text(&format!("{log},{spec}"), "/a"), MACHINE);
        assert_eq!(
            (both.flags.as_slice(), both.listener_path.as_str()),
            (&[Flag::Log][..], "/a")
        );
        let both = intersect(&text(spec, ""), &text(spec, ""), MACHINE);
        assert_eq!(both.flags, [Flag::SpecAllow]);
        assert_eq!(
            narrow(Some(&text(spec, "")), [], &BTreeSet::new(), MACHINE).flags,
            [Flag::SpecAllow]
        );
    }

    #[test]
    fn a_denied_call_is_refused_in_any_kind_of_profile() {
        let denied = BTreeSet::from(["ptrace".to_owned(), "socket".to_owned()]);
        let open =
            profile(r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86"]}"#);
        let open = without(&open, &denied);
        for (name, expected) in [
            ("ptrace", Action::Errno),
            ("socket", Action::Errno),
            ("socketcall", Action::Errno),
            ("ipc", Action::Allow),
            ("read", Action::Allow),
        ] {
            assert_eq!(open.verdict(name, &[0; 6]).action, expected, "{name}");
        }
        assert_eq!(open.architectures, [Architecture::X86_64, Architecture::X86]);
        let kills = list(
            &[
                entry("ptrace", "KILL", &when(0, "EQ", 1)),
                entry("ptrace read", "ALLOW", ""),
            ]
            .join(","),
        );
        assert_eq!(
            without(&kills, &denied).verdict("ptrace", &[1, 0, 0, 0, 0, 0]).action,
            Action::Errno
        );
        let allowed = ["read", "ptrace"].map(str::to_owned);
        let narrowed = narrow(None, allowed, &denied, MACHINE);
        assert_eq!(narrowed, Profile::allow(MACHINE, ["read"]));
    }
}
