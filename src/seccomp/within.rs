//! Whether a profile lets nothing through that another one does not.
//!
//! Asked before a container gets a profile in place of its own. It errs on one side only: where it cannot tell, the
//! answer is no. For whatever `narrow`, `without` and `complain` make of a profile it can tell.

use std::collections::{BTreeMap, BTreeSet};

use super::intersect::{MAX_COMPARISONS, Side, disjoint, implies, side};
use super::profile::{Argument, Profile};
use super::rules::{Call, Outcome, Rules};

/// Whether no call gets a less restrictive action from `profile` than from `own`. Architectures, flags and error
/// numbers are not looked at.
#[must_use]
pub fn is_within(profile: &Profile, own: &Profile) -> bool {
    let (rules, own) = (profile.rules(), own.rules());
    let names: BTreeSet<&String> = rules.calls.keys().chain(own.calls.keys()).collect();
    no_looser(rules.default, own.default) && names.into_iter().all(|name| is_call_within(&rules, &own, name))
}

fn is_call_within(rules: &Rules, own: &Rules, name: &str) -> bool {
    let (call, of_own) = (rules.calls.get(name), own.calls.get(name));
    if rules.default == own.default && call.zip(of_own).is_some_and(|(call, own)| is_restated(call, own)) {
        return true;
    }
    let own = side(own, name);
    match call {
        // Any of its results is possible.
        Some(call) if !call.exact => {
            let results = call.rules.iter().map(|rule| rule.outcome);
            let otherwise = results.fold(rules.default, Outcome::looser);
            let rules = Vec::new();
            is_side_within(&Side { rules, otherwise }, &own)
        }
        _ => is_side_within(&side(rules, name), &own),
    }
}

/// Whether two calls have the same conditions in the same order, and each result of the one is a certain result of the
/// other: libseccomp makes one tree of them then, whether or not it does what they say.
fn is_restated(call: &Call, own: &Call) -> bool {
    let mut to: BTreeMap<Outcome, Outcome> = BTreeMap::new();
    let mut from = BTreeMap::new();
    call.rules.len() == own.rules.len()
        && call.rules.iter().zip(&own.rules).all(|(rule, own)| {
            rule.conditions == own.conditions
                && no_looser(rule.outcome, own.outcome)
                && *to.entry(own.outcome).or_insert(rule.outcome) == rule.outcome
                && *from.entry(rule.outcome).or_insert(own.outcome) == own.outcome
        })
}

fn is_side_within(ours: &Side, own: &Side) -> bool {
    fn known(side: &Side) -> BTreeMap<&[Argument], Outcome> {
        let rules = side.rules.iter();
        rules.map(|rule| (rule.conditions.as_slice(), rule.outcome)).collect()
    }
    let (in_ours, in_own) = (known(ours), known(own));
    let mut left = MAX_COMPARISONS;
    // Whether `count` more rules may be looked through.
    let mut may_compare = |count: usize| {
        let rest = left.checked_sub(count);
        left = rest.unwrap_or_default();
        rest.is_some()
    };
    let rules_are = ours.rules.iter().all(|rule| {
        if let Some(outcome) = in_own.get(rule.conditions.as_slice()) {
            return no_looser(rule.outcome, *outcome);
        }
        let is_covered = |own: &super::rules::Rule| implies(&rule.conditions, &own.conditions);
        let meets = |own: &super::rules::Rule| !disjoint(&rule.conditions, &own.conditions);
        may_compare(own.rules.len())
            && (no_looser(rule.outcome, own.otherwise) || own.rules.iter().any(is_covered))
            && own
                .rules
                .iter()
                .all(|own| no_looser(rule.outcome, own.outcome) || !meets(own))
    });
    rules_are
        && no_looser(ours.otherwise, own.otherwise)
        && own.rules.iter().all(|own| {
            no_looser(ours.otherwise, own.outcome)
                || in_ours.contains_key(own.conditions.as_slice())
                || (may_compare(ours.rules.len())
                    && ours.rules.iter().any(|rule| implies(&own.conditions, &rule.conditions)))
        })
}

fn no_looser(one: Outcome, other: Outcome) -> bool {
    one.action <= other.action
}

#[cfg(test)]
mod tests {
    use super::super::{complain, narrow, without};
    use super::*;
    use crate::syscalls::Machine;

    fn profile(entries: &[String]) -> Profile {
        let text = format!(
            r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{}]}}"#,
            entries.join(",")
        );
        Profile::parse(text.as_bytes()).unwrap()
    }

    fn entry(action: &str, conditions: &[(u32, &str, u64)]) -> String {
        let args: Vec<String> = conditions
            .iter()
            .map(|(index, op, value)| format!(r#"{{"index":{index},"value":{value},"op":"SCMP_CMP_{op}"}}"#))
            .collect();
        format!(
            r#"{{"names":["ioctl"],"action":"SCMP_ACT_{action}","args":[{}]}}"#,
            args.join(",")
        )
    }

    /// Everything that is made of a profile.
    fn made_of(own: &Profile) -> Vec<Profile> {
        let machine = Machine::X86_64;
        let denied = BTreeSet::from(["ptrace".to_owned()]);
        let narrowed = narrow(Some(own), ["ioctl", "read"].map(str::to_owned), &denied, machine);
        let refusing = narrow(Some(own), ["read".to_owned()], &denied, machine);
        let complaining = complain(Some(own), &refusing, machine, "/run/l").unwrap();
        vec![narrowed, refusing, without(own, &denied), complaining]
    }

    #[test]
    fn what_is_made_of_a_profile_with_many_rules_is_within_it() {
        let equal = |count: u64| (0..count).map(|value| entry("ALLOW", &[(1, "EQ", value)])).collect();
        let mut refusing: Vec<String> = equal(70);
        refusing.extend((100..170).map(|value| entry("TRACE", &[(1, "EQ", value)])));
        let mut covered: Vec<String> = equal(40);
        covered.push(entry("ALLOW", &[(1, "LT", 30)]));
        // libseccomp's order decides between these.
        let unclear = vec![
            entry("ALLOW", &[(0, "EQ", 1), (1, "GT", 3)]),
            entry("ALLOW", &[(0, "GT", 2), (2, "EQ", 1)]),
        ];
        for entries in [equal(64), equal(65), equal(5000), refusing, covered, unclear] {
            let own = profile(&entries);
            for made in made_of(&own) {
                assert!(is_within(&made, &own), "{} rules: {made:?}", entries.len());
            }
        }
    }

    #[test]
    fn what_lets_through_more_is_not_within() {
        let own = profile(&[entry("ALLOW", &[(1, "EQ", 3)]), entry("ALLOW", &[(1, "EQ", 4)])]);
        for wider in [
            vec![entry("ALLOW", &[])],
            vec![entry("ALLOW", &[(1, "EQ", 5)])],
            vec![entry("ALLOW", &[(1, "LT", 5)])],
            vec![entry("ALLOW", &[(1, "GT", 3)]), entry("ALLOW", &[(0, "EQ", 3)])],
        ] {
            assert!(!is_within(&profile(&wider), &own), "{wider:?}");
        }
        let narrower = profile(&[entry("ALLOW", &[(0, "EQ", 9), (1, "EQ", 3)])]);
        assert!(is_within(&narrower, &own));
        assert!(!is_within(&own, &narrower));
        let killing = profile(&[entry("KILL", &[(1, "EQ", 3)])]);
        assert!(is_within(&killing, &own));
        assert!(!is_within(&own, &killing));
    }
}
