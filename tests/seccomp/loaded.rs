//! A profile loaded by the real runc: the filter is read back from the kernel and evaluated for every number.

use std::collections::BTreeSet;

use crate::bpf::{self, Filter};
use crate::container::Container;
use crate::library;
use assay::seccomp::{Action, Outcome, Profile, intersect, runtime_default};
use assay::syscalls::{self, Machine};

/// What runc 1.1 does between loading a filter and `execve`, and what a static program needs to sleep.
const NEEDED: [&str; 40] = [
    "arch_prctl",
    "brk",
    "capget",
    "capset",
    "chdir",
    "clock_nanosleep",
    "close",
    "epoll_ctl",
    "execve",
    "exit_group",
    "faccessat2",
    "fcntl",
    "fstat",
    "fstatfs",
    "futex",
    "getcwd",
    "getdents64",
    "getpid",
    "getppid",
    "getrandom",
    "getuid",
    "mmap",
    "mprotect",
    "nanosleep",
    "newfstatat",
    "openat",
    "openat2",
    "prctl",
    "prlimit64",
    "read",
    "readlink",
    "rseq",
    "rt_sigreturn",
    "set_robust_list",
    "set_tid_address",
    "setgid",
    "setgroups",
    "setuid",
    "shutdown",
    "write",
];

const REFUSED: Outcome = Outcome {
    action: Action::Errno,
    number: 38,
};
const ALLOWED: Outcome = Outcome {
    action: Action::Allow,
    number: 0,
};

/// Two of three calls that the machine has, and what is needed.
fn some_calls() -> BTreeSet<&'static str> {
    let some = syscalls::all(Machine::X86_64).filter(|(number, _)| number % 3 != 0);
    some.map(|(_, name)| name).chain(NEEDED).collect()
}

#[test]
fn every_number_gets_what_the_profile_says() {
    let intended = some_calls();
    let profile = Profile::allow(Machine::X86_64, intended.iter().copied());
    for no_new_privileges in [true, false] {
        let filter = load(&profile, no_new_privileges);
        for number in 0..512 {
            // A name that this libseccomp is too old to know is left out by runc, and refused.
            let name = syscalls::name(Machine::X86_64, number).filter(|name| library::number(name).is_some());
            let expected = if name.is_some_and(|name| intended.contains(name)) {
                ALLOWED
            } else {
                REFUSED
            };
            assert_eq!(
                filter.outcome(bpf::X86_64, number, &[0; 6]),
                expected,
                "{number} {name:?}"
            );
            for foreign in [
                filter.outcome(bpf::I386, number, &[0; 6]),
                filter.outcome(bpf::X86_64, number | bpf::X32, &[0; 6]),
            ] {
                assert!(!foreign.action.lets_through(), "{number}: {foreign:?}");
            }
        }
    }
}

#[test]
fn an_intersection_with_containerds_default_is_loaded_as_it_is_meant() {
    let derived = Profile::allow(
        Machine::X86_64,
        some_calls()
            .into_iter()
            .chain(["personality", "socket", "clone", "clone3"]),
    );
    let own = runtime_default(None, Machine::X86_64, ["CAP_SYS_CHROOT"]);
    let both = intersect(&derived, &own, Machine::X86_64);
    let (filter, rules) = (load(&both, true), both.rules());
    let arguments = [
        0,
        8,
        17,
        40,
        0x20000,
        0x0001_0000,
        0x1000_0000,
        u64::from(u32::MAX),
        u64::MAX,
    ];
    for number in 0..512 {
        let name = syscalls::name(Machine::X86_64, number).filter(|name| library::number(name).is_some());
        for argument in arguments {
            let arguments = [argument, 0, 0, 0, 0, 0];
            let expected = name.map_or(REFUSED, |name| rules.verdict(name, &arguments));
            assert_eq!(
                filter.outcome(bpf::X86_64, number, &arguments),
                expected,
                "{name:?} {argument:#x}"
            );
        }
    }
    let verdict = |name: &str, argument| rules.verdict(name, &[argument, 0, 0, 0, 0, 0]).action;
    assert_eq!(
        (verdict("socket", 2), verdict("socket", 40)),
        (Action::Allow, Action::Errno)
    );
    assert_eq!(
        (verdict("clone", 17), verdict("clone", 0x1000_0000)),
        (Action::Allow, Action::Errno)
    );
    assert_eq!(verdict("mount", 0), Action::Errno);
}

#[test]
fn names_of_calls_are_those_that_libseccomp_knows() {
    let mut unknown = Vec::new();
    for (number, name) in syscalls::all(Machine::X86_64) {
        match library::number(name) {
            Some(known) => assert_eq!(known, number, "{name}"),
            None => unknown.push(name),
        }
    }
    // A library knows the calls of the kernel it was made for: of older ones it knows all. The two probes are new, with
    // numbers from a gap.
    unknown.retain(|name| !matches!(*name, "uprobe" | "uretprobe"));
    let older = |name: &&&str| syscalls::number(Machine::X86_64, name).is_some_and(|number| number < 448);
    assert_eq!(unknown.iter().filter(older).count(), 0, "{unknown:?}");
}

/// Starts a container under a profile and returns the filter that the kernel then holds for it.
fn load(profile: &Profile, no_new_privileges: bool) -> Filter {
    let container = Container::run(profile, no_new_privileges, &["/busybox", "sleep", "1000"]);
    filter_of(container.pid())
}

/// The only filter of a process.
fn filter_of(pid: i32) -> Filter {
    const GET_FILTER: libc::c_uint = 0x420c;
    // SAFETY: none of these requests writes memory of this process but the last one, which fills as many instructions
    // as the one before it counted.
    let (bytes, further) = unsafe {
        assert_eq!(
            libc::ptrace(libc::PTRACE_ATTACH, pid, 0, 0),
            0,
            "{}",
            std::io::Error::last_os_error()
        );
        assert_eq!(libc::waitpid(pid, std::ptr::null_mut(), libc::__WALL), pid);
        let null = std::ptr::null_mut::<u8>();
        let count = libc::ptrace(GET_FILTER, pid, 0_usize, null);
        assert!(count > 0, "{}", std::io::Error::last_os_error());
        let mut bytes = vec![0_u8; usize::try_from(count).unwrap() * 8];
        assert_eq!(libc::ptrace(GET_FILTER, pid, 0_usize, bytes.as_mut_ptr()), count);
        let further = libc::ptrace(GET_FILTER, pid, 1_usize, null);
        libc::ptrace(libc::PTRACE_DETACH, pid, 0, 0);
        (bytes, further)
    };
    assert!(further < 0, "more than one filter");
    Filter::from_bytes(&bytes)
}
