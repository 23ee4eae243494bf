//! What an OCI runtime makes of a profile, call by call.
//!
//! runc and crun add a rule for each name of each entry and leave out entries that do what the default does; runc
//! makes of an entry that names an argument twice one rule for each condition. libseccomp compiles the rules of a call
//! into a tree of its own order, which for some sets of conditions does not do what they say. Here a set counts as
//! exact only in the shapes in which it is known to be (those of KEP-6061's reference library, which compares them
//! with libseccomp's programs as our tests do); of any other set nothing is known but that the call gets the default
//! or the result of one of its rules.

use std::collections::{BTreeMap, BTreeSet};

use super::profile::{Action, Argument, Entry, Operator, Permission, Profile};

/// The error of an entry that gives none.
const EPERM: u32 = 1;
/// The action of a filter holds this much of an error number.
const RETURNED: u32 = 0xffff;

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Outcome {
    /// The action.
    pub action: Action,
    /// The number that comes with `SCMP_ACT_ERRNO` and `SCMP_ACT_TRACE`; otherwise 0.
    pub number: u32,
}

impl Outcome {
    pub(super) fn new(action: Action, number: Option<u32>) -> Self {
        let number = if action.returns_a_number() {
            number.unwrap_or(EPERM) & RETURNED
        } else {
            0
        };
        Self { action, number }
    }

    /// As it is written in a profile.
    pub(super) fn errno_ret(self) -> Option<u32> {
        (self.action.returns_a_number() && self.number != EPERM).then_some(self.number)
    }

    /// The more restrictive of two; of two with the same action this one.
    #[must_use]
    pub fn stricter(self, other: Self) -> Self {
        if other.action < self.action { other } else { self }
    }

    /// The less restrictive of two; of two with the same action this one.
    #[must_use]
    pub fn looser(self, other: Self) -> Self {
        if other.action > self.action { other } else { self }
    }
}

/// A rule of one call: conditions that must all hold, each on an argument of its own, sorted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rule {
    pub conditions: Vec<Argument>,
    pub outcome: Outcome,
}

impl Rule {
    pub fn always(outcome: Outcome) -> Self {
        Self {
            conditions: Vec::new(),
            outcome,
        }
    }

    fn matches(&self, arguments: &[u64; 6]) -> bool {
        self.conditions.iter().all(|condition| {
            usize::try_from(condition.index)
                .ok()
                .and_then(|index| arguments.get(index))
                .is_some_and(|value| condition.holds(*value))
        })
    }
}

impl Argument {
    pub(super) fn holds(&self, value: u64) -> bool {
        match self.op {
            Operator::NotEqual => value != self.value,
            Operator::Less => value < self.value,
            Operator::LessOrEqual => value <= self.value,
            Operator::Equal => value == self.value,
            Operator::GreaterOrEqual => value >= self.value,
            Operator::Greater => value > self.value,
            Operator::MaskedEqual => value & self.value == self.value_two & self.value,
        }
    }

    /// As libseccomp compares it: only a masked comparison has a second value, and only the bits of the mask count.
    fn loaded(self) -> Self {
        let value_two = if self.op == Operator::MaskedEqual {
            self.value_two & self.value
        } else {
            0
        };
        Self { value_two, ..self }
    }

    /// A masked comparison of no bits holds always, and libseccomp leaves it out.
    fn holds_always(&self) -> bool {
        self.op == Operator::MaskedEqual && self.value == 0
    }

    /// The condition that holds exactly where this one does not.
    pub(super) fn complement(self) -> Option<Self> {
        let op = match self.op {
            Operator::Equal => Operator::NotEqual,
            Operator::NotEqual => Operator::Equal,
            Operator::Less => Operator::GreaterOrEqual,
            Operator::GreaterOrEqual => Operator::Less,
            Operator::LessOrEqual => Operator::Greater,
            Operator::Greater => Operator::LessOrEqual,
            Operator::MaskedEqual => return None,
        };
        Some(Self { op, ..self })
    }

    fn is_range(&self) -> bool {
        matches!(
            self.op,
            Operator::Less | Operator::LessOrEqual | Operator::Greater | Operator::GreaterOrEqual
        )
    }
}

/// The rules of one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Call {
    /// Either one without conditions, or some that all have conditions.
    pub rules: Vec<Rule>,
    /// Whether a call gets the result of the rule that matches it, and the default when none does.
    pub exact: bool,
}

impl Call {
    fn new(mut rules: Vec<Rule>) -> Self {
        // libseccomp keeps the first rule without conditions and drops all others.
        if let Some(first) = rules.iter().position(|rule| rule.conditions.is_empty()) {
            return Self {
                rules: vec![rules.swap_remove(first)],
                exact: true,
            };
        }
        let mut seen = BTreeSet::new();
        rules.retain(|rule| seen.insert(rule.clone()));
        Self {
            exact: exact(&rules),
            rules,
        }
    }

    /// The result with any arguments, if there is one.
    pub fn always(&self) -> Option<Outcome> {
        match self.rules.as_slice() {
            [Rule { conditions, outcome }] if conditions.is_empty() => Some(*outcome),
            _ => None,
        }
    }
}

/// Whether libseccomp does what a set of rules with conditions says.
pub(super) fn exact(rules: &[Rule]) -> bool {
    let [first, rest @ ..] = rules else { return true };
    if rest.is_empty() {
        return true;
    }
    let mut single: Vec<Argument> = Vec::with_capacity(rules.len());
    for rule in rules {
        match rule.conditions.as_slice() {
            [condition] => single.push(*condition),
            _ => return false,
        }
    }
    let one_result = rest.iter().all(|rule| rule.outcome == first.outcome);
    distinct_equalities(&single) || complementary(&single) || (one_result && !wide_ranges(&single))
}

/// Values of one argument that differ even where libseccomp looks at their lower half only.
fn distinct_equalities(conditions: &[Argument]) -> bool {
    let mut lower = BTreeSet::new();
    let index = conditions.first().map(|condition| condition.index);
    conditions.iter().all(|condition| {
        condition.op == Operator::Equal
            && Some(condition.index) == index
            && lower.insert(condition.value & u64::from(u32::MAX))
    })
}

fn complementary(conditions: &[Argument]) -> bool {
    matches!(conditions, [one, other] if one.complement() == Some(*other))
}

/// Whether an argument that several rules look at is compared by size with a value above 32 bits, which libseccomp
/// gets wrong.
fn wide_ranges(conditions: &[Argument]) -> bool {
    let mut looked_at: BTreeMap<u32, usize> = BTreeMap::new();
    for condition in conditions {
        *looked_at.entry(condition.index).or_default() += 1;
    }
    conditions.iter().any(|condition| {
        let is_shared = looked_at.get(&condition.index).is_some_and(|count| *count > 1);
        is_shared && condition.is_range() && condition.value > u64::from(u32::MAX)
    })
}

/// A profile as an OCI runtime loads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    pub(super) default: Outcome,
    pub(super) calls: BTreeMap<String, Call>,
}

impl Rules {
    pub(super) fn load(profile: &Profile) -> Self {
        let default = Outcome::new(profile.default_action, profile.default_errno_ret);
        let mut rules: BTreeMap<String, Vec<Rule>> = BTreeMap::new();
        for entry in &profile.syscalls {
            let outcome = Outcome::new(entry.action, entry.errno_ret);
            if outcome == default {
                continue;
            }
            let loaded = loaded(entry, outcome);
            for name in &entry.names {
                rules.entry(name.clone()).or_default().extend(loaded.iter().cloned());
            }
        }
        Self {
            default,
            calls: rules
                .into_iter()
                .map(|(name, rules)| (name, Call::new(rules)))
                .collect(),
        }
    }

    /// As [`Profile::verdict`].
    #[must_use]
    pub fn verdict(&self, name: &str, arguments: &[u64; 6]) -> Outcome {
        let Some(call) = self.calls.get(name) else {
            return self.default;
        };
        if !call.exact {
            return call
                .rules
                .iter()
                .fold(self.default, |all, rule| all.stricter(rule.outcome));
        }
        call.rules
            .iter()
            .find(|rule| rule.matches(arguments))
            .map_or(self.default, |rule| rule.outcome)
    }

    /// Whether calls of a name are let through.
    #[must_use]
    pub fn permission(&self, name: &str) -> Permission {
        let through = |outcome: Outcome| outcome.action.lets_through();
        let Some(call) = self.calls.get(name) else {
            return if through(self.default) {
                Permission::Always
            } else {
                Permission::Never
            };
        };
        if let Some(outcome) = call.always() {
            return if through(outcome) {
                Permission::Always
            } else {
                Permission::Never
            };
        }
        let mut results = call
            .rules
            .iter()
            .map(|rule| through(rule.outcome))
            .chain([through(self.default)]);
        match (results.clone().all(|through| through), results.any(|through| through)) {
            (true, _) => Permission::Always,
            (false, true) => Permission::Sometimes,
            (false, false) => Permission::Never,
        }
    }

    /// Names for which it is not known which of several conditions decides.
    pub fn unclear(&self) -> impl Iterator<Item = &str> {
        self.calls
            .iter()
            .filter(|(_, call)| !call.exact)
            .map(|(name, _)| name.as_str())
    }

    /// Writes the calls as entries: those with the same conditions and result in one, sorted.
    pub(super) fn entries(&self) -> Vec<Entry> {
        let mut entries: BTreeMap<Rule, BTreeSet<&str>> = BTreeMap::new();
        for (name, call) in &self.calls {
            for rule in &call.rules {
                entries.entry(rule.clone()).or_default().insert(name);
            }
        }
        let mut entries: Vec<Entry> = entries
            .into_iter()
            .map(|(rule, names)| Entry {
                names: names.into_iter().map(str::to_owned).collect(),
                action: rule.outcome.action,
                errno_ret: rule.outcome.errno_ret(),
                args: rule.conditions,
            })
            .collect();
        entries.sort_by(|one, other| (&one.names, &one.args).cmp(&(&other.names, &other.args)));
        entries
    }
}

/// The rules that an entry adds for each of its names.
fn loaded(entry: &Entry, outcome: Outcome) -> Vec<Rule> {
    let mut indices = BTreeSet::new();
    let repeated = !entry.args.iter().all(|argument| indices.insert(argument.index));
    let sets: Vec<Vec<Argument>> = if repeated {
        entry.args.iter().map(|argument| vec![*argument]).collect()
    } else {
        vec![entry.args.clone()]
    };
    sets.into_iter()
        .map(|set| {
            let mut conditions: Vec<Argument> = set
                .into_iter()
                .map(Argument::loaded)
                .filter(|condition| !condition.holds_always())
                .collect();
            conditions.sort_unstable();
            Rule { conditions, outcome }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(default: &str, entries: &str) -> Rules {
        let text = format!(r#"{{"defaultAction":"SCMP_ACT_{default}","syscalls":[{entries}]}}"#);
        Profile::parse(text.as_bytes()).unwrap().rules()
    }

    fn entry(action: &str, args: &str) -> String {
        format!(r#"{{"names":["f"],"action":"SCMP_ACT_{action}","args":[{args}]}}"#)
    }

    const ONE: &str = r#"{"index":0,"value":1,"op":"SCMP_CMP_EQ"}"#;
    const TWO: &str = r#"{"index":0,"value":2,"op":"SCMP_CMP_EQ"}"#;
    const OTHER: &str = r#"{"index":1,"value":2,"op":"SCMP_CMP_GT"}"#;

    #[test]
    fn an_entry_that_names_an_argument_twice_means_either() {
        let rules = rules("ERRNO", &entry("ALLOW", &format!("{ONE},{TWO}")));
        for (value, action) in [(1, Action::Allow), (2, Action::Allow), (3, Action::Errno)] {
            assert_eq!(rules.verdict("f", &[value, 0, 0, 0, 0, 0]).action, action);
        }
        assert_eq!(rules.permission("f"), Permission::Sometimes);
    }

    #[test]
    fn the_first_rule_without_conditions_decides_all() {
        let text = [entry("ALLOW", ONE), entry("TRAP", ""), entry("ALLOW", "")].join(",");
        let rules = rules("ERRNO", &text);
        assert_eq!(rules.verdict("f", &[1, 0, 0, 0, 0, 0]).action, Action::Trap);
        assert_eq!(rules.permission("f"), Permission::Never);
    }

    #[test]
    fn an_entry_that_does_what_the_default_does_is_no_rule() {
        let text = [
            r#"{"names":["f"],"action":"SCMP_ACT_ERRNO","errnoRet":1}"#.to_owned(),
            entry("ALLOW", ONE),
        ]
        .join(",");
        let rules = rules("ERRNO", &text);
        assert_eq!(rules.verdict("f", &[1, 0, 0, 0, 0, 0]).action, Action::Allow);
    }

    #[test]
    fn of_what_is_not_exact_the_strictest_counts() {
        let text = [entry("ALLOW", ONE), entry("LOG", OTHER)].join(",");
        let rules = rules("ERRNO", &text);
        assert_eq!(rules.unclear().collect::<Vec<_>>(), ["f"]);
        assert_eq!(rules.verdict("f", &[1, 0, 0, 0, 0, 0]).action, Action::Errno);
        assert_eq!(rules.permission("f"), Permission::Sometimes);
    }

    #[test]
    fn a_masked_comparison_of_no_bits_is_no_condition() {
        let rules = rules(
            "ERRNO",
            &entry(
                "ALLOW",
                r#"{"index":0,"value":0,"valueTwo":7,"op":"SCMP_CMP_MASKED_EQ"}"#,
            ),
        );
        assert_eq!(rules.permission("f"), Permission::Always);
    }
}
