//! The system calls that a rule leaves a container.

use std::fs;
use std::path::Path;
use std::process::Command;

use assay::admission::filter::Origin;
use assay::admission::{Decision, Syscalls};
use assay::seccomp::{Profile, runtime_default};
use assay::syscalls::{Machine, number};
use serde_json::{Value, json};

use crate::harness::container::{Container, ContainerBuilder};
use crate::harness::daemon::{COMPLAINING, FILTERED, KNOWN, REHEARSED};
use crate::harness::{Case, eventually, needs_assay, on_each_containerd};
use crate::refusals::{assert_refusal, signed};

on_each_containerd! {
    only_the_calls_of_its_files,
    a_profile_that_there_is_gets_narrower,
    calls_that_are_not_all_known,
    a_privileged_container_is_what_policy_says,
    equal_containers_get_equal_profiles,
    a_profile_is_explained_call_by_call,
    a_tuning_adds_and_takes_away,
    complaints_are_heard_and_nothing_is_refused,
    an_audited_rule_only_complains,
    nobody_listens_beside_a_listener,
    a_complaining_container_does_not_wait_for_a_shim_that_was_killed,
}

/// Ends with the error number of the system call whose number is its argument.
const PROBE: &str = r#"
void _start(void);
__asm__(".globl _start\n_start: mov %rsp, %rdi\nand $-16, %rsp\ncall begin\n");
void begin(long *stack) {
    long number = 0, result;
    for (const char *digit = (const char *)stack[2]; *digit; digit++) number = number * 10 + (*digit - '0');
    register long r10 __asm__("r10") = -1;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(-1L), "S"(-1L), "d"(-1L), "r"(r10) : "rcx", "r11", "memory");
    result = result < 0 ? -result : 0;
    __asm__ volatile("syscall" : : "a"(60), "D"(result) : "memory");
    for (;;);
}
"#;

/// A volume with the probe.
fn volume() -> tempfile::TempDir {
    let volume = tempfile::tempdir().unwrap();
    let source = volume.path().join("probe.c");
    fs::write(&source, PROBE).unwrap();
    let status = Command::new("gcc")
        .args(["-O2", "-nostdlib", "-static", "-fno-stack-protector", "-o"])
        .arg(volume.path().join("probe"))
        .arg(&source)
        .status()
        .unwrap();
    assert!(status.success());
    volume
}

fn filtered(case: &Case, name: &str, image: &str, volume: &Path, script: &str) -> ContainerBuilder<'static> {
    let source = volume.to_str().unwrap().to_owned();
    let script = script.to_owned();
    signed(case, name).image_name(image).edit(move |spec| {
        spec["process"]["args"] = json!(["/bin/sh", "-c", script]);
        spec["mounts"].as_array_mut().unwrap().push(json!({
            "destination": "/probe", "type": "bind", "source": source, "options": ["rbind", "ro"],
        }));
    })
}

/// The error number that a further process of the container gets for a call.
fn error_of(container: &Container, call: &str) -> u32 {
    let number = number(Machine::X86_64, call).unwrap().to_string();
    let probe = container.exec(call, &["/probe/probe", &number]).unwrap();
    probe.start().unwrap();
    probe.finish().status
}

fn decided(case: &Case, name: &str) -> (Decision, Syscalls) {
    let decision = case.daemon.decisions(&case.id(name)).pop().unwrap();
    let syscalls = decision.syscalls.clone().expect("what it says about system calls");
    (decision, syscalls)
}

/// The profile in the bundle.
fn loaded(case: &Case, name: &str) -> Profile {
    let config = case
        .daemon
        .bundle(&case.daemon.scope, &case.id(name))
        .join("config.json");
    let spec: Value = serde_json::from_slice(&fs::read(config).unwrap()).unwrap();
    Profile::parse(spec["linux"]["seccomp"].to_string().as_bytes()).unwrap()
}

const ENOSYS: u32 = 38;

fn only_the_calls_of_its_files(case: &Case) {
    if !needs_assay("a profile") {
        return;
    }
    let volume = volume();
    let container = filtered(case, "filtered", FILTERED, volume.path(), "sleep 60").start();
    let (decision, syscalls) = decided(case, "filtered");
    assert_eq!((syscalls.from, &syscalls.unknown), (Origin::Files, &Vec::new()));
    assert_eq!(decision.edits.seccomp, syscalls.profile);
    let counts = syscalls.counts;
    assert!(
        counts.derived > 40 && counts.base > 0 && counts.policy == 1 && counts.siblings > 0,
        "{counts:?}"
    );
    assert!(counts.result < 260, "{counts:?}");
    for (call, allowed) in [
        ("getpid", true),
        ("read", true),
        ("keyctl", true),
        ("sethostname", false),
        ("setpriority", false),
        ("ptrace", false),
        ("bpf", false),
        ("perf_event_open", false),
        ("io_uring_setup", false),
    ] {
        let error = error_of(&container, call);
        assert_eq!(error != ENOSYS, allowed, "{call}: {error}");
    }
    let status = fs::read_to_string(format!("/proc/{}/status", container.pid)).unwrap();
    assert!(status.contains("\nSeccomp:\t2\n"), "{status}");
    let profile = loaded(case, "filtered");
    assert_eq!(profile.effective(Machine::native()).len(), counts.result);
    assert_eq!(profile.syscalls.len(), 1, "one entry of many names");
}

fn a_profile_that_there_is_gets_narrower(case: &Case) {
    if !needs_assay("a profile") {
        return;
    }
    let volume = volume();
    let default = runtime_default(None, Machine::native(), []);
    let own = serde_json::to_value(&default).unwrap();
    let container = filtered(case, "confined", FILTERED, volume.path(), "sleep 60")
        .edit(move |spec| spec["linux"]["seccomp"] = own)
        .start();
    // busybox mounts, containerd's profile does not let it; nothing in busybox traces, which that profile would let it.
    assert_eq!(error_of(&container, "mount"), 1, "its own profile says EPERM");
    assert_eq!(error_of(&container, "ptrace"), ENOSYS);
    assert_ne!(error_of(&container, "getpid"), ENOSYS);
    let (_, syscalls) = decided(case, "confined");
    assert_eq!(syscalls.from, Origin::Files);
    let allowed = loaded(case, "confined").effective(Machine::native());
    let before = default.effective(Machine::native());
    assert!(allowed.len() < before.len());
    assert!(
        allowed
            .iter()
            .all(|(name, permission)| before.get(name) >= Some(permission))
    );
}

fn calls_that_are_not_all_known(case: &Case) {
    if !needs_assay("a profile") {
        return;
    }
    let volume = volume();
    let script = "echo sleep 60 | sh";
    let container = filtered(case, "unknown", FILTERED, volume.path(), script).start();
    let (_, syscalls) = decided(case, "unknown");
    assert_eq!(syscalls.from, Origin::Default);
    assert!(
        syscalls.unknown[0].contains("reads its commands from its input"),
        "{:?}",
        syscalls.unknown
    );
    assert_ne!(error_of(&container, "ptrace"), ENOSYS, "containerd's profile has it");
    assert_eq!(
        error_of(&container, "sethostname"),
        1,
        "containerd's profile has no such call"
    );
    assert_eq!(error_of(&container, "setpriority"), ENOSYS, "the rule denies it");
    drop(container);

    let own =
        json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{ "names": ["ptrace"], "action": "SCMP_ACT_ERRNO" }] });
    let container = filtered(case, "unknown-own", FILTERED, volume.path(), script)
        .edit(move |spec| spec["linux"]["seccomp"] = own)
        .start();
    assert_eq!(decided(case, "unknown-own").1.from, Origin::Own);
    assert_eq!(error_of(&container, "ptrace"), 1, "its own profile says EPERM");
    assert_eq!(error_of(&container, "sethostname"), ENOSYS);
    drop(container);

    let result = filtered(case, "refused", KNOWN, volume.path(), script).create();
    let status = assert_refusal(case, "refused", result, "syscalls-incomplete");
    assert!(
        status.message().contains("reads its commands from its input"),
        "{status}"
    );
    let container = filtered(case, "known", KNOWN, volume.path(), "sleep 60").start();
    assert_eq!(error_of(&container, "ptrace"), ENOSYS);
}

fn a_privileged_container_is_what_policy_says(case: &Case) {
    if !needs_assay("a profile") {
        return;
    }
    let volume = volume();
    let privileged = |name: &str, image: &str| {
        filtered(case, name, image, volume.path(), "sleep 60")
            .edit(|spec| {
                let all = json!(["CAP_SYS_ADMIN", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_CHOWN"]);
                for set in ["bounding", "effective", "permitted"] {
                    spec["process"]["capabilities"][set] = all.clone();
                }
            })
            .start()
    };
    let container = privileged("privileged", FILTERED);
    assert_eq!(decided(case, "privileged").1.from, Origin::Nothing);
    assert_ne!(error_of(&container, "ptrace"), ENOSYS);
    assert_eq!(error_of(&container, "sethostname"), ENOSYS);
    drop(container);
    let container = privileged("derived", KNOWN);
    assert_eq!(decided(case, "derived").1.from, Origin::Files);
    assert_eq!(error_of(&container, "ptrace"), ENOSYS);
}

fn equal_containers_get_equal_profiles(case: &Case) {
    if !needs_assay("a profile") {
        return;
    }
    let volume = volume();
    let run = |name: &str| {
        drop(filtered(case, name, FILTERED, volume.path(), "sleep 60").start());
        let (decision, syscalls) = decided(case, name);
        (decision.edits.seccomp.expect("a profile"), syscalls)
    };
    let (first, second) = (run("first"), run("second"));
    assert_eq!(first, second);
    let kept = case.daemon.state().join("analysis");
    let before = names(&kept);
    assert!(!before.is_empty());
    run("third");
    assert_eq!(names(&kept), before);
}

fn names(folder: &Path) -> Vec<(std::ffi::OsString, std::time::SystemTime)> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name(), entry.metadata().unwrap().modified().unwrap()))
        .collect();
    names.sort();
    names
}

fn a_profile_is_explained_call_by_call(case: &Case) {
    if !needs_assay("a profile") {
        return;
    }
    let volume = volume();
    let container = filtered(case, "explained", FILTERED, volume.path(), "sleep 60").start();
    let socket = case.daemon.socket();
    let id = case.id("explained");
    let of = |verb: &str, more: &[&str]| -> Value {
        let mut arguments = vec!["seccomp", verb, id.as_str()];
        arguments.extend(more);
        arguments.extend([
            "--namespace",
            &case.daemon.scope,
            "--address",
            socket.to_str().unwrap(),
            "-o",
            "json",
        ]);
        let output = case.daemon.assay(&arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let shown = of("show", &[]);
    assert_eq!(shown["unknown"], json!([]), "{shown}");
    let profile = Profile::parse(shown["profile"].to_string().as_bytes()).unwrap();
    assert_eq!(profile, loaded(case, "explained"), "what is shown is what is loaded");
    let explained = of("explain", &[]);
    let explained = explained["calls"].as_array().unwrap();
    assert_eq!(explained.len(), profile.effective(Machine::native()).len());
    for call in explained {
        let because = call["reason"]["because"].as_str().unwrap();
        let path = call["path"].as_array().unwrap();
        let answers = match because {
            "files" => {
                path.iter().all(|step| step["file"] == "/bin/busybox") && !path.is_empty() || call["fact"].is_string()
            }
            "runtime" | "policy" => true,
            "sibling" => call["reason"]["of"].is_string(),
            _ => false,
        };
        assert!(answers, "{call}");
    }
    let not = of("explain", &["ptrace", "sethostname"]);
    let because = |index: usize| not["calls"][index]["reason"]["because"].clone();
    assert_eq!((because(0), because(1)), (json!("unneeded"), json!("denied")));
    drop(container);
}

/// What `assay seccomp suggest` says once `what` is in it.
fn suggested(case: &Case, name: &str, what: &str) -> String {
    let mut said = String::new();
    eventually("the record", || {
        let output = case
            .daemon
            .assay(&["seccomp", "suggest", &case.id(name), "--namespace", &case.daemon.scope]);
        said = String::from_utf8(output.stdout).unwrap();
        if said.contains(what) {
            Ok(())
        } else {
            Err(format!("{said}{}", String::from_utf8_lossy(&output.stderr)))
        }
    });
    said
}

fn complaints_are_heard_and_nothing_is_refused(case: &Case) {
    if !needs_assay("complain mode") {
        return;
    }
    let volume = volume();
    let container = filtered(case, "complaining", COMPLAINING, volume.path(), "sleep 60").start();
    let (_, syscalls) = decided(case, "complaining");
    assert_eq!((syscalls.from, syscalls.unheard.as_str()), (Origin::Files, ""));
    let before = loaded(case, "complaining");
    assert!(!before.listener_path.is_empty());
    for call in ["ptrace", "ptrace", "sethostname", "getpid", "io_uring_setup"] {
        assert_ne!(error_of(&container, call), ENOSYS, "{call}");
    }
    let said = suggested(case, "complaining", "io_uring_setup");
    let line = |call: &str| {
        said.lines()
            .find(|line| line.contains(&format!("\"{call}\",")))
            .map(str::to_owned)
    };
    let ptrace = line("ptrace").expect("what was called");
    assert!(
        ptrace.contains("2 times by /probe/probe, first as 'probe' (process "),
        "{ptrace}"
    );
    assert!(
        line("io_uring_setup").unwrap().contains("once by /probe/probe"),
        "{said}"
    );
    assert!(line("getpid").is_none(), "{said}");
    let socket = std::path::PathBuf::from(before.listener_path);
    assert!(socket.exists());
    drop(container);
    assert!(!socket.exists());
    // What was seen outlives the container.
    assert!(suggested(case, "complaining", "sethostname").contains("ptrace"));
    // A policy may hold what was suggested.
    toml::from_str::<toml::Table>(&said).unwrap();

    // Calls that are not all known refuse nothing in complain mode.
    let script = "echo sleep 60 | sh";
    let container = filtered(case, "complaining-unknown", COMPLAINING, volume.path(), script).start();
    assert_ne!(error_of(&container, "sethostname"), ENOSYS);
    let (_, syscalls) = decided(case, "complaining-unknown");
    assert_eq!((syscalls.from, syscalls.unknown.is_empty()), (Origin::Default, false));
    suggested(case, "complaining-unknown", "sethostname");
}

fn an_audited_rule_only_complains(case: &Case) {
    if !needs_assay("complain mode") {
        return;
    }
    let volume = volume();
    let container = filtered(case, "rehearsed-calls", REHEARSED, volume.path(), "sleep 60").start();
    assert_ne!(error_of(&container, "bpf"), ENOSYS);
    suggested(case, "rehearsed-calls", "bpf");
}

fn nobody_listens_beside_a_listener(case: &Case) {
    if !needs_assay("complain mode") {
        return;
    }
    let volume = volume();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("l");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let own = json!({
        "defaultAction": "SCMP_ACT_ALLOW", "listenerPath": socket,
        "syscalls": [{ "names": ["swapon"], "action": "SCMP_ACT_NOTIFY" }],
    });
    let written = own.clone();
    let container = filtered(case, "heard", COMPLAINING, volume.path(), "sleep 60")
        .edit(move |spec| spec["linux"]["seccomp"] = own)
        .start();
    let (decision, syscalls) = decided(case, "heard");
    assert_eq!(decision.edits.seccomp, None);
    assert!(
        syscalls.unheard.contains("has a listener already"),
        "{}",
        syscalls.unheard
    );
    assert_eq!(serde_json::to_value(loaded(case, "heard")).unwrap(), written);
    assert_ne!(error_of(&container, "ptrace"), ENOSYS);
    drop((container, listener));
}

fn a_complaining_container_does_not_wait_for_a_shim_that_was_killed(case: &Case) {
    if !needs_assay("complain mode") {
        return;
    }
    let volume = volume();
    let number = number(Machine::X86_64, "bpf").unwrap();
    let script = format!("while :; do /probe/probe {number}; done");
    let container = filtered(case, "orphan", COMPLAINING, volume.path(), &script).start();
    suggested(case, "orphan", "\"bpf\"");
    let shim = rustix::process::Pid::from_raw(container.shim().cast_signed()).unwrap();
    rustix::process::kill_process(shim, rustix::process::Signal::KILL).unwrap();
    // containerd takes the container away, whatever its processes were asking.
    eventually("the end of the container", || {
        if Path::new(&format!("/proc/{}", container.pid)).exists() {
            Err("it lives".to_owned())
        } else {
            Ok(())
        }
    });
    suggested(case, "orphan", "\"bpf\"");
}

fn a_tuning_adds_and_takes_away(case: &Case) {
    if !needs_assay("a profile") {
        return;
    }
    let volume = volume();
    let container = filtered(case, "tuned", KNOWN, volume.path(), "sleep 60").start();
    assert_ne!(error_of(&container, "keyctl"), ENOSYS);
    assert_eq!(error_of(&container, "sync"), ENOSYS);
    let (_, syscalls) = decided(case, "tuned");
    assert_eq!(
        (syscalls.counts.tuning, syscalls.tunings),
        (1, vec!["50.toml:1".to_owned()])
    );
    let (socket, id) = (case.daemon.socket(), case.id("tuned"));
    let socket = socket.to_str().unwrap();
    let seccomp = |arguments: &[&str]| {
        let mut all = vec!["seccomp"];
        all.extend(arguments);
        all.extend(["--namespace", &case.daemon.scope, "--address", socket]);
        let output = case.daemon.assay(&all);
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (_, said) = seccomp(&["explain", &id, "keyctl", "sync"]);
    for part in [
        "keyctl: allowed by the tuning 50.toml:1 of platform until 2099-01-01T00:00:00Z: keys are tested",
        "sync: not allowed: denied by the tuning 50.toml:1 of platform",
    ] {
        assert!(said.contains(part), "{said}");
    }
    // Every form of it is the profile that is loaded.
    let native = Machine::native();
    let loaded = loaded(case, "tuned");
    for form in ["oci", "kubernetes", "kep-6061"] {
        let (status, text) = seccomp(&["show", &id, "-o", form]);
        assert_eq!(
            (status, Profile::parse(text.as_bytes()).unwrap()),
            (Some(0), loaded.clone()),
            "{form}"
        );
    }
    let (_, spo) = seccomp(&["show", &id, "-o", "spo"]);
    let spo: Value = serde_json::from_str(&spo).unwrap();
    let spo = Profile::parse(spo["spec"].to_string().as_bytes()).unwrap();
    assert_eq!(spo.effective(native), loaded.effective(native));
    // A file, an image and a container stand for their profiles alike.
    let file = volume.path().join("profile.json");
    fs::write(&file, loaded.to_json()).unwrap();
    let file = file.to_str().unwrap();
    assert_eq!(
        seccomp(&["diff", file, &id]),
        (Some(0), "both let the same calls through\n".to_owned())
    );
    let open = volume.path().join("open.json");
    fs::write(&open, Profile::allow(native, ["ptrace"]).to_json()).unwrap();
    let (status, merged) = seccomp(&["merge", open.to_str().unwrap(), &id]);
    let merged = Profile::parse(merged.as_bytes()).unwrap().effective(native);
    assert_eq!((status, merged.len()), (Some(0), loaded.effective(native).len() + 1));
    let (status, said) = seccomp(&["lint", open.to_str().unwrap()]);
    assert!(
        status == Some(1) && said.contains("before the program starts"),
        "{said}"
    );
    let (status, said) = seccomp(&["lint"]);
    assert_eq!(
        (status, said.as_str()),
        (
            Some(1),
            "50.toml:9: the tuning of nobody was used by no container of the decision log\n"
        )
    );
    drop(container);
}
