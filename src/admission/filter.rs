//! The seccomp profile of a container: what its files, its OCI runtime and its rule need, within what it already had.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::analysis::Analysis;
use super::memo;
use crate::digest::Digest;
use crate::policy::{Incomplete, Privileged, Seccomp, SeccompMode, Tuning};
use crate::runtime::{self, Base};
use crate::seccomp::{self, Profile};
use crate::store::{self, StateDir};
use crate::syscalls::Machine;

/// Folder of the profiles below the state, each under the digest of its bytes.
pub const DIRECTORY: &str = "profiles";
/// Most profiles that are kept.
const MAX_KEPT: usize = 4096;
/// Capabilities that only a privileged container has all of.
const OF_PRIVILEGED: &[&str] = &["CAP_SYS_ADMIN", "CAP_SYS_MODULE", "CAP_SYS_RAWIO"];

/// Which system calls a container can make, and what that follows from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Syscalls {
    /// What the rule asked for.
    pub mode: SeccompMode,
    /// What the profile is made from.
    pub from: Origin,
    /// How many calls come from where.
    pub counts: Counts,
    /// Why the calls of its files are not all known; the first reasons.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
    /// Digest of the profile; none where the container keeps what it had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<Digest>,
    /// Tunings that apply to its image, by file and line.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tunings: Vec<String>,
    /// Why nothing is listened to although the rule says complain: the container keeps what it had.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub unheard: String,
}

impl Syscalls {
    /// What there is to say where complain mode takes nothing away and hears nothing either.
    pub(super) fn unheard(why: String) -> Self {
        Self {
            mode: SeccompMode::Complain,
            from: Origin::Nothing,
            counts: Counts::default(),
            unknown: Vec::new(),
            profile: None,
            tunings: Vec::new(),
            unheard: why,
        }
    }
}

/// What a profile is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// The ELF files of the container.
    Files,
    /// A signed profile of its image, in place of these.
    Attestation,
    /// Its own profile: the calls of its files are not all known.
    Own,
    /// The default profile of containerd: it had none, and the calls of its files are not all known.
    Default,
    /// Nothing: it is privileged, and its rule leaves it so.
    Nothing,
}

/// How many calls come from where. A call that several have is counted at the first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// From its ELF files, or from the signed profile that stands in for them.
    pub derived: usize,
    /// From the OCI runtime.
    pub base: usize,
    /// From the rule.
    pub policy: usize,
    /// From tunings.
    #[serde(default)]
    pub tuning: usize,
    /// Because they belong to one of those.
    pub siblings: usize,
    /// What the profile allows at last, with some arguments at least.
    pub result: usize,
}

/// What a profile is made for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'a> {
    /// The profile that its specification has.
    pub(super) own: Option<&'a Profile>,
    /// Its bounding set of capabilities, such as `CAP_SYS_ADMIN`.
    pub(super) capabilities: &'a [String],
    /// Whether it can gain no privileges at last.
    pub(super) no_new_privileges: bool,
    /// The OCI runtime's program.
    pub(super) runtime: &'a str,
    /// What was measured on this node.
    pub(super) measured: &'a [Base],
    /// What is added for its image, and taken away.
    pub(super) tunings: &'a [Tuning],
    /// The calls that a signed profile of its image lists, in place of those of its files.
    pub(super) attested: Option<&'a BTreeSet<String>>,
}

impl Subject<'_> {
    /// Whether a rule leaves it without a profile of its files.
    pub(super) fn is_left_alone(&self, rule: &Seccomp) -> bool {
        let has = |wanted: &&str| self.capabilities.iter().any(|has| has == wanted);
        self.own.is_none() && rule.privileged == Privileged::Unconfined && OF_PRIVILEGED.iter().all(has)
    }

    /// The calls that tunings allow.
    fn tuned(&self) -> BTreeSet<String> {
        let allowed = self.tunings.iter().flat_map(|tuning| &tuning.allow);
        allowed.cloned().collect()
    }

    /// The calls that the OCI runtime makes itself.
    pub(super) fn base(&self) -> BTreeSet<String> {
        runtime::base(self.runtime, self.no_new_privileges, self.measured)
    }
}

/// The profile under which enforcing puts a container, none where it keeps what it has; and what to say about it.
///
/// # Errors
/// Why it must not run: its calls are not all known, and its rule refuses that. Complain mode refuses nothing.
pub(super) fn compose(
    rule: &Seccomp,
    subject: &Subject<'_>,
    analysis: Analysis,
) -> Result<(Option<Profile>, Syscalls), String> {
    let machine = Machine::native();
    let tuned = subject.tunings.iter().flat_map(|tuning| &tuning.deny);
    let denied: BTreeSet<String> = rule.deny.iter().chain(tuned).cloned().collect();
    let (from, mut names, unknown) = match subject.attested {
        Some(calls) => (Origin::Attestation, calls.clone(), Vec::new()),
        None => (Origin::Files, analysis.calls, analysis.unknown),
    };
    let mut syscalls = Syscalls {
        mode: rule.mode,
        from,
        counts: Counts::default(),
        unknown,
        profile: None,
        tunings: subject.tunings.iter().map(|tuning| tuning.source.clone()).collect(),
        unheard: String::new(),
    };
    let profile = if subject.is_left_alone(rule) {
        syscalls.from = Origin::Nothing;
        syscalls.unknown.clear();
        let everything = crate::syscalls::all(machine).map(|(_, name)| name);
        (!denied.is_empty()).then(|| seccomp::without(&Profile::allow(machine, everything), &denied))
    } else if let Some(first) = syscalls.unknown.first() {
        if rule.incomplete == Incomplete::Refuse && rule.mode != SeccompMode::Complain {
            let more = match syscalls.unknown.len() - 1 {
                0 => String::new(),
                more => format!(", and {more} more"),
            };
            return Err(format!("its system calls are not all known: {first}{more}"));
        }
        match subject.own {
            Some(own) => {
                syscalls.from = Origin::Own;
                (!denied.is_empty()).then(|| seccomp::without(own, &denied))
            }
            None => {
                syscalls.from = Origin::Default;
                let capabilities = subject.capabilities.iter().map(String::as_str);
                let default = seccomp::runtime_default(None, machine, capabilities);
                Some(seccomp::without(&default, &denied))
            }
        }
    } else {
        syscalls.counts.derived = names.len();
        let mut add = |more: BTreeSet<String>| {
            let before = names.len();
            names.extend(more);
            names.len() - before
        };
        syscalls.counts.base = add(subject.base());
        syscalls.counts.policy = add(rule.allow.iter().cloned().collect());
        syscalls.counts.tuning = add(subject.tuned());
        let siblings: BTreeSet<String> = seccomp::siblings(&names, machine)
            .into_keys()
            .map(str::to_owned)
            .collect();
        syscalls.counts.siblings = siblings.len();
        names.extend(siblings);
        Some(seccomp::narrow(subject.own, names, &denied, machine))
    };
    if let Some(profile) = profile.as_ref().or(subject.own) {
        syscalls.counts.result = profile.effective(machine).len();
    }
    syscalls.profile = profile.as_ref().map(|profile| Digest::of(&profile.to_json()));
    Ok((profile, syscalls))
}

/// The profile of complain mode: `enforced` is what enforcing would load, `listener` the socket of its shim, none where
/// nobody can listen.
///
/// # Errors
/// Why nothing is listened to.
pub(super) fn complain(
    enforced: Option<&Profile>,
    subject: &Subject<'_>,
    listener: Option<&str>,
) -> Result<Profile, &'static str> {
    let enforced = enforced.ok_or("enforcing would take nothing away")?;
    let listener = listener.ok_or("a container from a checkpoint keeps the filter that it had then")?;
    let profile = seccomp::complain(subject.own, enforced, Machine::native(), listener)
        .ok_or("its own profile has a listener already, and a container cannot have two")?;
    if profile.listener_path.is_empty() {
        return Err("enforcing would take nothing away");
    }
    Ok(profile)
}

/// Whose tuning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct By {
    /// Its file and line.
    pub source: String,
    /// Why it is there.
    pub why: String,
    /// Who answers for it.
    pub owner: String,
    /// Until when it counts.
    pub expires: jiff::Timestamp,
}

impl By {
    fn new(tuning: &Tuning) -> Self {
        Self {
            source: tuning.source.clone(),
            why: tuning.reason.clone(),
            owner: tuning.owner.clone(),
            expires: tuning.expires,
        }
    }
}

/// Why a profile allows a call, or does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "because")]
pub enum Reason {
    /// The container's files make it.
    Files,
    /// The signed profile of its image lists it.
    Attestation,
    /// The OCI runtime makes it.
    Runtime,
    /// The rule allows it.
    Policy,
    /// A tuning allows it.
    Tuning(By),
    /// It belongs to another one.
    Sibling {
        /// That one.
        of: String,
        /// Why they belong together.
        reason: String,
    },
    /// The profile that stands in for that of the files has it.
    Fallback,
    /// The rule denies it.
    Denied,
    /// A tuning denies it.
    TunedOut(By),
    /// The container's own profile does not allow it.
    Own,
    /// Nothing makes it.
    Unneeded,
}

impl Reason {
    /// Whether the call is allowed.
    #[must_use]
    pub fn allows(&self) -> bool {
        !matches!(self, Self::Denied | Self::TunedOut(_) | Self::Own | Self::Unneeded)
    }
}

/// What a person is told about a container's calls.
#[derive(Debug)]
pub struct Shown {
    /// The profile; none where it keeps what it has, or nothing.
    pub profile: Option<Profile>,
    /// As a decision says it.
    pub syscalls: Syscalls,
    /// What its files make.
    pub analysis: Analysis,
    /// What a signed profile of its image lists in place of that.
    pub attested: Option<BTreeSet<String>>,
    /// Each call of this machine, with its reason.
    pub reasons: BTreeMap<String, Reason>,
}

/// Works out a container's profile with the reason for each call. A rule that refuses what is not known does not keep
/// anybody from looking.
pub(super) fn show(rule: &Seccomp, subject: &Subject<'_>, analysis: Analysis) -> Result<Shown, String> {
    let rule = Seccomp {
        incomplete: Incomplete::Fallback,
        ..rule.clone()
    };
    let machine = Machine::native();
    let (profile, syscalls) = compose(&rule, subject, analysis.clone())?;
    let effective = profile
        .as_ref()
        .or(subject.own)
        .map(|profile| profile.effective(machine));
    let base = subject.base();
    let made = subject.attested.unwrap_or(&analysis.calls);
    let mut known: BTreeSet<String> = made.union(&base).cloned().collect();
    known.extend(rule.allow.iter().cloned());
    known.extend(subject.tuned());
    let tuned = |name: &str, list: fn(&Tuning) -> &Vec<String>| {
        let tuning = subject
            .tunings
            .iter()
            .find(|tuning| list(tuning).iter().any(|call| call == name));
        tuning.map(By::new)
    };
    let siblings = seccomp::siblings(&known, machine);
    let reason = |name: &str| {
        let allowed = effective.as_ref().is_none_or(|effective| effective.contains_key(name));
        if rule.deny.iter().any(|denied| denied == name) {
            Reason::Denied
        } else if let Some(by) = tuned(name, |tuning| &tuning.deny) {
            Reason::TunedOut(by)
        } else if !matches!(syscalls.from, Origin::Files | Origin::Attestation) {
            if allowed { Reason::Fallback } else { Reason::Own }
        } else {
            let found = if made.contains(name) {
                match syscalls.from {
                    Origin::Attestation => Reason::Attestation,
                    _ => Reason::Files,
                }
            } else if base.contains(name) {
                Reason::Runtime
            } else if rule.allow.iter().any(|allowed| allowed == name) {
                Reason::Policy
            } else if let Some(by) = tuned(name, |tuning| &tuning.allow) {
                Reason::Tuning(by)
            } else if let Some(sibling) = siblings.get(name) {
                Reason::Sibling {
                    of: sibling.of.to_owned(),
                    reason: sibling.group.reason.clone(),
                }
            } else {
                Reason::Unneeded
            };
            if allowed || !found.allows() { found } else { Reason::Own }
        }
    };
    let reasons = crate::syscalls::all(machine)
        .map(|(_, name)| (name.to_owned(), reason(name)))
        .collect();
    Ok(Shown {
        profile,
        syscalls,
        attested: subject.attested.cloned(),
        analysis,
        reasons,
    })
}

/// Puts a profile where the shim finds it.
///
/// # Errors
/// When the state cannot be written.
pub(super) fn keep(state: &StateDir, profile: &Profile) -> Result<Digest, store::Error> {
    let json = profile.to_json();
    let digest = Digest::of(&json);
    let directory = state.subdir(DIRECTORY)?;
    let name = format!("{}.json", digest.hex());
    if directory.read(&name, seccomp::MAX_BYTES as u64)?.as_deref() != Some(json.as_slice()) {
        memo::forget_oldest(&directory, MAX_KEPT, u64::MAX, &|_| true)?;
        directory.write_volatile(&name, &json)?;
    }
    Ok(digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp::Permission;

    fn analysis(calls: &[&str], unknown: &[&str]) -> Analysis {
        Analysis {
            calls: calls.iter().map(ToString::to_string).collect(),
            unknown: unknown.iter().map(ToString::to_string).collect(),
            ..Analysis::default()
        }
    }

    fn subject(own: Option<&Profile>) -> Subject<'_> {
        Subject {
            own,
            capabilities: &[],
            no_new_privileges: true,
            runtime: "runc",
            measured: &[],
            tunings: &[],
            attested: None,
        }
    }

    fn allows(profile: &Profile, name: &str) -> bool {
        profile
            .effective(Machine::native())
            .get(name)
            .is_some_and(|permission| *permission != Permission::Never)
    }

    #[test]
    fn a_profile_is_what_files_runtime_and_rule_need_within_what_there_was() {
        let rule = Seccomp {
            mode: SeccompMode::Enforce,
            allow: vec!["ptrace".to_owned()],
            deny: vec!["openat2".to_owned()],
            ..Seccomp::default()
        };
        let own = Profile::allow(Machine::native(), ["openat", "openat2", "read", "execve", "write"]);
        let (profile, said) = compose(&rule, &subject(Some(&own)), analysis(&["read", "getrandom"], &[])).unwrap();
        let profile = profile.unwrap();
        for (name, allowed) in [
            ("read", true),
            ("execve", true),
            ("openat", true),
            ("openat2", false),
            ("getrandom", false),
            ("ptrace", false),
        ] {
            assert_eq!(allows(&profile, name), allowed, "{name}");
        }
        assert_eq!(said.counts.derived, 2);
        assert_eq!(said.counts.policy, 1);
        assert_eq!(said.counts.result, 4, "{profile:?}");
        let (unconfined, said) = compose(&rule, &subject(None), analysis(&["read", "getrandom"], &[])).unwrap();
        let unconfined = unconfined.unwrap();
        assert!(allows(&unconfined, "getrandom") && allows(&unconfined, "ptrace") && !allows(&unconfined, "mount"));
        assert_eq!(said.from, Origin::Files);
        assert_eq!(said.profile, Some(Digest::of(&unconfined.to_json())));
    }

    #[test]
    fn tunings_are_counted_and_named_and_what_is_denied_stays_so() {
        let rule = Seccomp {
            mode: SeccompMode::Enforce,
            deny: vec!["bpf".to_owned()],
            ..Seccomp::default()
        };
        let tuning = Tuning {
            source: "50.toml:3".to_owned(),
            image: Vec::new(),
            digest: Vec::new(),
            allow: vec!["bpf".to_owned(), "ptrace".to_owned(), "read".to_owned()],
            deny: vec!["getrandom".to_owned()],
            reason: "gdb".to_owned(),
            owner: "team".to_owned(),
            expires: jiff::Timestamp::MAX,
        };
        let tunings = [tuning];
        let subject = Subject {
            tunings: &tunings,
            ..subject(None)
        };
        let shown = show(&rule, &subject, analysis(&["read", "getrandom"], &[])).unwrap();
        let profile = shown.profile.unwrap();
        assert!(allows(&profile, "ptrace") && !allows(&profile, "bpf") && !allows(&profile, "getrandom"));
        assert_eq!((shown.syscalls.counts.tuning, shown.syscalls.counts.derived), (2, 2));
        assert_eq!(shown.syscalls.tunings, ["50.toml:3"]);
        let by = By::new(&tunings[0]);
        let reason = |name: &str| shown.reasons[name].clone();
        assert_eq!(
            [reason("read"), reason("ptrace"), reason("bpf"), reason("getrandom")],
            [
                Reason::Files,
                Reason::Tuning(by.clone()),
                Reason::Denied,
                Reason::TunedOut(by)
            ]
        );
    }

    #[test]
    fn a_signed_profile_stands_in_for_the_files_and_widens_nothing() {
        let rule = Seccomp {
            mode: SeccompMode::Enforce,
            deny: vec!["getrandom".to_owned()],
            ..Seccomp::default()
        };
        let signed: BTreeSet<String> = ["read", "getrandom", "mount"].map(str::to_owned).into();
        let own = Profile::allow(Machine::native(), ["read", "getrandom", "execve"]);
        let subject = Subject {
            attested: Some(&signed),
            ..subject(Some(&own))
        };
        // What the files make, and that it is not known, does not matter.
        let shown = show(&rule, &subject, analysis(&["ptrace"], &["libx.so makes a call"])).unwrap();
        let profile = shown.profile.unwrap();
        let allowed: Vec<&str> = profile.effective(Machine::native()).into_keys().collect();
        assert_eq!(
            allowed,
            ["execve", "read"],
            "within its own profile, less what the rule denies"
        );
        assert_eq!(
            (shown.syscalls.from, shown.syscalls.counts.derived),
            (Origin::Attestation, 3)
        );
        assert_eq!(shown.reasons["read"], Reason::Attestation);
        assert_eq!(
            (&shown.reasons["mount"], &shown.reasons["ptrace"]),
            (&Reason::Own, &Reason::Unneeded)
        );
    }

    #[test]
    fn calls_that_are_not_all_known_leave_what_there_was_or_refuse() {
        let mut rule = Seccomp {
            mode: SeccompMode::Enforce,
            deny: vec!["ptrace".to_owned()],
            ..Seccomp::default()
        };
        let own = Profile::allow(Machine::native(), ["read", "ptrace"]);
        let unknown = || analysis(&["getpid"], &["libx.so makes a call", "another"]);
        let (profile, said) = compose(&rule, &subject(Some(&own)), unknown()).unwrap();
        let profile = profile.unwrap();
        assert!(allows(&profile, "read") && !allows(&profile, "ptrace") && !allows(&profile, "getpid"));
        assert_eq!((said.from, said.unknown.len()), (Origin::Own, 2));
        let (profile, said) = compose(&rule, &subject(None), unknown()).unwrap();
        let profile = profile.unwrap();
        assert!(allows(&profile, "openat") && !allows(&profile, "ptrace") && !allows(&profile, "mount"));
        assert_eq!(said.from, Origin::Default);
        rule.deny.clear();
        let (profile, _) = compose(&rule, &subject(Some(&own)), unknown()).unwrap();
        assert_eq!(profile, None, "nothing to take away");
        rule.incomplete = Incomplete::Refuse;
        let refused = compose(&rule, &subject(Some(&own)), unknown()).unwrap_err();
        insta::assert_snapshot!(refused, @"its system calls are not all known: libx.so makes a call, and 1 more");
    }

    #[test]
    fn a_privileged_container_stays_so_only_where_its_rule_says_it() {
        let capabilities: Vec<String> = OF_PRIVILEGED.iter().map(ToString::to_string).collect();
        let privileged = Subject {
            capabilities: &capabilities,
            ..subject(None)
        };
        let mut rule = Seccomp {
            mode: SeccompMode::Enforce,
            ..Seccomp::default()
        };
        let (profile, _) = compose(&rule, &privileged, analysis(&["read"], &[])).unwrap();
        assert!(!allows(&profile.unwrap(), "init_module"));
        rule.privileged = Privileged::Unconfined;
        let (profile, said) = compose(&rule, &privileged, analysis(&["read"], &[])).unwrap();
        assert_eq!((profile, said.from), (None, Origin::Nothing));
        rule.deny = vec!["init_module".to_owned()];
        let (profile, _) = compose(&rule, &privileged, analysis(&["read"], &[])).unwrap();
        let profile = profile.unwrap();
        assert!(allows(&profile, "mount") && !allows(&profile, "init_module"));
        let (profile, _) = compose(&rule, &subject(None), analysis(&["read"], &[])).unwrap();
        assert!(
            !allows(&profile.unwrap(), "mount"),
            "without those capabilities it is not privileged"
        );
    }
}
