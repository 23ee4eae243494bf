//! What holds for any two profiles: their intersection, compiled by libseccomp, never lets through what one refuses.

use std::collections::BTreeSet;

use assay::seccomp::{Action, Argument, Entry, Operator, Profile, complain, intersect, is_within, narrow, without};
use assay::syscalls::Machine;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::bpf::{self, Filter};
use crate::library;

const NAMES: [&str; 4] = ["read", "lseek", "fcntl", "socket"];
const ACTIONS: [Action; 6] = [
    Action::KillProcess,
    Action::KillThread,
    Action::Trap,
    Action::Errno,
    Action::Log,
    Action::Allow,
];
const OPERATORS: [Operator; 7] = [
    Operator::NotEqual,
    Operator::Less,
    Operator::LessOrEqual,
    Operator::Equal,
    Operator::GreaterOrEqual,
    Operator::Greater,
    Operator::MaskedEqual,
];
/// Of which two agree in their lower halves.
const VALUES: [u64; 7] = [0, 1, 2, 3, 8, 0x1_0000_0001, u64::MAX];

fn argument() -> impl Strategy<Value = Argument> {
    let value = || prop::sample::select(&VALUES[..]);
    (0..2_u32, value(), value(), prop::sample::select(&OPERATORS[..])).prop_map(|(index, value, value_two, op)| {
        Argument {
            index,
            value,
            value_two,
            op,
        }
    })
}

fn result() -> impl Strategy<Value = (Action, Option<u32>)> {
    (
        prop::sample::select(&ACTIONS[..]),
        prop::option::of(prop::sample::select(&[1_u32, 22, 38][..])),
    )
}

fn entry() -> impl Strategy<Value = Entry> {
    (
        prop::sample::subsequence(&NAMES[..], 1..=2),
        result(),
        prop_oneof![2 => vec(argument(), 0..=1), 1 => vec(argument(), 2)],
    )
        .prop_map(|(names, (action, errno_ret), args)| Entry {
            names: names.into_iter().map(str::to_owned).collect(),
            action,
            errno_ret,
            args,
        })
}

fn profile() -> impl Strategy<Value = Profile> {
    (result(), vec(entry(), 0..5)).prop_map(|((default_action, default_errno_ret), syscalls)| {
        let mut profile = Profile::allow(Machine::X86_64, [""; 0]);
        profile.default_action = default_action;
        profile.default_errno_ret = default_errno_ret;
        profile.syscalls = syscalls;
        profile
    })
}

/// Arguments around every value that a condition names.
fn calls() -> impl Iterator<Item = [u64; 6]> {
    let values: BTreeSet<u64> = VALUES
        .iter()
        .flat_map(|value| [value.wrapping_sub(1), *value, value.wrapping_add(1)])
        .collect();
    let seconds = values.clone();
    values.into_iter().flat_map(move |first| {
        seconds
            .clone()
            .into_iter()
            .map(move |second| [first, second, 0, 0, 0, 0])
    })
}

fn compiled(filter: &Filter, name: &str, arguments: &[u64; 6]) -> assay::seccomp::Outcome {
    filter.outcome(bpf::X86_64, library::number(name).unwrap(), arguments)
}

/// What libseccomp makes of a profile is what we say about it.
fn agrees(profile: &Profile, filter: &Filter) -> Result<(), TestCaseError> {
    let rules = profile.rules();
    for name in NAMES {
        for arguments in calls() {
            prop_assert_eq!(compiled(filter, name, &arguments), rules.verdict(name, &arguments));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_profile_without_unclear_calls_does_what_we_say(profile in profile()) {
        // Of some sets of rules libseccomp never returns, so those that are unclear are not given to it.
        let unclear: BTreeSet<String> = profile.rules().unclear().map(str::to_owned).collect();
        let mut clear = profile.clone();
        for entry in &mut clear.syscalls {
            entry.names.retain(|name| !unclear.contains(name));
        }
        clear.syscalls.retain(|entry| !entry.names.is_empty());
        // It refuses rules that contradict each other, and then no container starts.
        if let Some(filter) = library::compile(&clear) {
            agrees(&clear, &filter)?;
        }
    }

    #[test]
    fn an_intersection_never_lets_through_what_one_refuses(first in profile(), second in profile()) {
        let both = intersect(&first, &second, Machine::X86_64);
        let (first, second) = (first.rules(), second.rules());
        let rules = both.rules();
        prop_assert_eq!(rules.unclear().next(), None);
        for name in NAMES.into_iter().chain(["another"]) {
            for arguments in calls() {
                let result = rules.verdict(name, &arguments).action;
                prop_assert!(result <= first.verdict(name, &arguments).action, "{} {:?}", name, arguments);
                prop_assert!(result <= second.verdict(name, &arguments).action, "{} {:?}", name, arguments);
            }
        }
        let filter = library::compile(&both);
        prop_assert!(filter.is_some(), "libseccomp refuses {:?}", both);
        agrees(&both, &filter.unwrap())?;
        // Once more changes no action; an error number may give way to that of the default.
        let again = intersect(&both, &both, Machine::X86_64).rules();
        for name in NAMES {
            for arguments in calls() {
                prop_assert_eq!(again.verdict(name, &arguments).action, rules.verdict(name, &arguments).action);
            }
        }
    }

    #[test]
    fn what_is_made_of_a_profile_is_within_it(own in profile(), named in 0..4u8) {
        let allowed = NAMES.iter().take(usize::from(named)).map(ToString::to_string);
        let denied = BTreeSet::from(["another".to_owned(), NAMES[0].to_owned()]);
        let narrowed = narrow(Some(&own), allowed, &denied, Machine::X86_64);
        prop_assert!(is_within(&narrowed, &own), "{:?}", narrowed);
        let lessened = without(&own, &denied);
        prop_assert!(is_within(&lessened, &own), "{:?}", lessened);
        if let Some(complaining) = complain(Some(&own), &narrowed, Machine::X86_64, "/run/l") {
            prop_assert!(is_within(&complaining, &own), "{:?}", complaining);
        }
    }

    #[test]
    fn what_is_within_lets_no_more_through(one in profile(), other in profile()) {
        if is_within(&one, &other) {
            let (one, other) = (one.rules(), other.rules());
            let unclear: Vec<&str> = one.unclear().chain(other.unclear()).collect();
            for name in NAMES.into_iter().chain(["another"]).filter(|name| !unclear.contains(name)) {
                for arguments in calls() {
                    let (one, other) = (one.verdict(name, &arguments), other.verdict(name, &arguments));
                    prop_assert!(one.action <= other.action, "{} {:?}", name, arguments);
                }
            }
        }
    }

    #[test]
    fn an_intersection_with_itself_changes_nothing_that_is_clear(profile in profile()) {
        let (before, after) = (profile.rules(), intersect(&profile, &profile, Machine::X86_64).rules());
        let unclear: Vec<&str> = before.unclear().collect();
        for name in NAMES.into_iter().filter(|name| !unclear.contains(name)) {
            for arguments in calls() {
                prop_assert_eq!(after.verdict(name, &arguments).action, before.verdict(name, &arguments).action);
            }
        }
    }

    #[test]
    fn a_denied_call_is_refused_and_no_other_changes(profile in profile()) {
        let denied = BTreeSet::from(["read".to_owned()]);
        let (before, after) = (profile.rules(), without(&profile, &denied).rules());
        for name in NAMES {
            for arguments in calls() {
                let (before, after) = (before.verdict(name, &arguments), after.verdict(name, &arguments));
                if name == "read" {
                    prop_assert!(after.action <= before.action && after.action <= Action::Errno);
                } else {
                    prop_assert_eq!(before, after);
                }
            }
        }
    }
}
