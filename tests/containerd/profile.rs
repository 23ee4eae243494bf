//! The profile that containerd gives containers which ask for none of their own.

use std::collections::BTreeMap;

use assay::seccomp::{Profile, runtime_default};
use assay::syscalls::{self, Machine};
use serde_json::Value;

use crate::harness::{Case, on_each_containerd};

on_each_containerd! {
    the_default_profile_is_the_one_we_know,
}

/// Every capability, since containerd's profile depends on some of them.
const CAPABILITIES: [&str; 41] = [
    "CAP_AUDIT_CONTROL",
    "CAP_AUDIT_READ",
    "CAP_AUDIT_WRITE",
    "CAP_BLOCK_SUSPEND",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_KILL",
    "CAP_LEASE",
    "CAP_LINUX_IMMUTABLE",
    "CAP_MAC_ADMIN",
    "CAP_MAC_OVERRIDE",
    "CAP_MKNOD",
    "CAP_NET_ADMIN",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_RAW",
    "CAP_PERFMON",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYSLOG",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_CHROOT",
    "CAP_SYS_MODULE",
    "CAP_SYS_NICE",
    "CAP_SYS_PACCT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_WAKE_ALARM",
];

/// containerd writes the specification of a container with each capability and with none, and what we say about its
/// profile is what stands there: the same answer for every call, on all its architectures.
fn the_default_profile_is_the_one_we_know(case: &Case) {
    let version = String::from_utf8(case.daemon.ctr(&case.daemon.scope, &["version"]).stdout).unwrap();
    let server = version.split_once("Server:").unwrap().1;
    let version = server
        .split_once("Version:")
        .unwrap()
        .1
        .split_whitespace()
        .next()
        .unwrap();
    let mut sets = vec![vec![]];
    sets.extend(CAPABILITIES.map(|capability| vec![capability]));
    sets.push(CAPABILITIES.to_vec());
    for (number, capabilities) in sets.into_iter().enumerate() {
        let written = written(case, &case.id(&format!("default-{number}")), &capabilities);
        let known = runtime_default(Some(version), Machine::X86_64, capabilities.iter().copied());
        assert_eq!(known.default_action, written.default_action);
        assert_eq!(
            (&known.architectures, &known.flags),
            (&written.architectures, &written.flags)
        );
        assert_eq!(
            answers(&known),
            answers(&written),
            "containerd {version} with {capabilities:?}"
        );
    }
}

/// What a profile answers to every call of either, with arguments on both sides of each condition that is there.
fn answers(profile: &Profile) -> BTreeMap<(String, u64), String> {
    let rules = profile.rules();
    let names = profile.syscalls.iter().flat_map(|entry| entry.names.clone());
    let all = syscalls::all(Machine::X86_64).map(|(_, name)| name.to_owned());
    let names: Vec<String> = names.chain(all).collect();
    let values = [0, 8, 9, 40, 41, 0x2_0000, 0x2_0008, 0x1000_0000, u64::from(u32::MAX)];
    let answer = |name: &str, value| format!("{:?}", rules.verdict(name, &[value, 0, 0, 0, 0, 0]));
    names
        .iter()
        .flat_map(|name| values.map(|value| ((name.clone(), value), answer(name, value))))
        .collect()
}

fn written(case: &Case, id: &str, capabilities: &[&str]) -> Profile {
    let ctr = |arguments: &[&str]| {
        let output = case.daemon.ctr(&case.daemon.scope, arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let mut arguments = vec!["containers", "create", "--seccomp", "--rootfs"];
    let default = [
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FSETID",
        "CAP_FOWNER",
        "CAP_MKNOD",
        "CAP_NET_RAW",
        "CAP_SETGID",
        "CAP_SETUID",
        "CAP_SETFCAP",
        "CAP_SETPCAP",
        "CAP_NET_BIND_SERVICE",
        "CAP_SYS_CHROOT",
        "CAP_KILL",
        "CAP_AUDIT_WRITE",
    ];
    for capability in default.iter().filter(|capability| !capabilities.contains(capability)) {
        arguments.extend(["--cap-drop", capability]);
    }
    for capability in capabilities.iter().filter(|capability| !default.contains(capability)) {
        arguments.extend(["--cap-add", capability]);
    }
    arguments.extend(["/", id, "/bin/true"]);
    ctr(&arguments);
    let record: Value = serde_json::from_slice(&ctr(&["containers", "info", id])).unwrap();
    ctr(&["containers", "delete", id]);
    Profile::parse(record["Spec"]["linux"]["seccomp"].to_string().as_bytes()).unwrap()
}
