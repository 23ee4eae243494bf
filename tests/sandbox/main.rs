//! What a parser can do inside its cage: this program shuts itself in the way a parser does and then tries to get out.
//!
//! It has a `main` of its own, because the cage closes descriptors and changes users, which no test thread of a shared
//! process would survive. Without root there is no cage to look at.

#![allow(
    clippy::exit,
    reason = "an exit status is how a test program without a harness fails"
)]
#![allow(clippy::unwrap_used, reason = "all of this program is a test")]

use std::ffi::CStr;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use assay::admission::sandbox;
use rustix::fs::{Mode, OFlags};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("probe") => probe(arguments[2].parse().unwrap(), arguments[3].parse().unwrap()),
        // What `cargo test` asks of every test program.
        Some("--list") => println!("sandbox: test"),
        _ if !rustix::process::geteuid().is_root() => println!("skipped: only root can shut a parser in"),
        Some("watch") => watch(),
        _ => {
            // As mounts are where systemd runs, and as they are in containers.
            for propagation in ["shared", "private"] {
                let status = Command::new("unshare")
                    .args(["--mount", "--propagation", propagation])
                    .arg(std::env::current_exe().unwrap())
                    .arg("watch")
                    .status();
                assert!(status.unwrap().success(), "with mounts that are {propagation}");
            }
        }
    }
}

/// Starts the probe and looks at it from outside and through its report.
fn watch() {
    let folder = tempfile::tempdir().unwrap();
    let layout = folder.path().join("evidence");
    fs::create_dir(&layout).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(&layout, fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(layout.join("index.json"), "evidence").unwrap();
    fs::set_permissions(layout.join("index.json"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::copy("/bin/busybox", layout.join("busybox")).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", layout.join("link")).unwrap();
    let outside = folder.path().join("outside");
    fs::write(&outside, "secret").unwrap();
    // Descriptors that a careless parent leaves open.
    let leaked = [&outside, &layout].map(|path| rustix::fs::open(path, OFlags::RDONLY, Mode::empty()).unwrap());
    let directory = rustix::io::dup(&leaked[1]).unwrap();

    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "probe",
            &directory.as_raw_fd().to_string(),
            &leaked[0].as_raw_fd().to_string(),
        ])
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = child.stdout.take().unwrap();
    let mut report = Vec::new();
    let mut part = [0; 4096];
    while !report.ends_with(b"shut in\n") {
        let count = output.read(&mut part).unwrap();
        assert!(count > 0, "the probe died: {}", String::from_utf8_lossy(&report));
        report.extend_from_slice(&part[..count]);
    }
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let field = |name: &str| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {name}")).trim().to_owned()
    };
    for capabilities in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(capabilities), "0000000000000000", "{capabilities}");
    }
    assert_eq!(field("NoNewPrivs"), "1");
    assert_eq!(field("Seccomp"), "2");
    assert_eq!(field("Groups"), "");
    let uids: Vec<u32> = field("Uid").split_whitespace().map(|id| id.parse().unwrap()).collect();
    assert!(uids[..3].iter().all(|id| *id == 1_900_000_000 + child.id()), "{uids:?}");
    assert_eq!(uids[3], 0, "opening root's own files of the layout needs this one");
    let gids: Vec<u32> = field("Gid").split_whitespace().map(|id| id.parse().unwrap()).collect();
    assert!(gids.iter().all(|id| *id == 1_900_000_000 + child.id()), "{gids:?}");
    for namespace in ["net", "mnt", "ipc"] {
        let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{namespace}")).unwrap();
        assert_ne!(of(&child.id().to_string()), of("self"), "{namespace}");
    }
    let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", child.id())).unwrap();
    assert_eq!(mounts.lines().count(), 1, "{mounts}");
    let options = mounts.split(' ').nth(5).unwrap();
    for option in ["ro", "nosuid", "nodev", "noexec"] {
        assert!(
            options.split(',').any(|found| found == option),
            "{option} is not in {options}"
        );
    }
    drop(child.stdin.take());
    output.read_to_end(&mut report).unwrap();
    let report = String::from_utf8(report).unwrap();
    let ended = child.wait().unwrap();
    assert!(ended.success(), "{ended:?}: {report}");
    assert!(report.ends_with("nothing was possible\n"), "{report}");
    assert_eq!(fs::read_to_string(layout.join("index.json")).unwrap(), "evidence");
    println!("sandbox: the parser's cage holds");
}

/// Shuts itself in and tries everything; ends with 1 at the first thing that works.
fn probe(directory: i32, leaked: i32) {
    // SAFETY: the parent left this descriptor open for this process, which has just started.
    let directory = unsafe { OwnedFd::from_raw_fd(directory) };
    let parent = rustix::process::getppid().unwrap().as_raw_pid();
    let root = sandbox::enter(directory).unwrap();
    say("shut in");
    // Until the parent has looked.
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();

    // What it is there for: root's own file, through the directory or from the root.
    let read = |name: &str| {
        let file = rustix::fs::openat(root.as_fd(), name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let mut text = String::new();
        std::fs::File::from(file).read_to_string(&mut text).unwrap();
        Ok::<_, rustix::io::Errno>(text)
    };
    assert_eq!(read("index.json").unwrap(), "evidence");
    assert_eq!(read("/index.json").unwrap(), "evidence");

    for path in [
        "/etc/passwd",
        "../../../../etc/passwd",
        "../outside",
        "link",
        "/proc/self/environ",
        "/sys/kernel",
        "/dev/null",
        "/run/containerd/containerd.sock",
    ] {
        refused(&format!("open {path}"), read(path).map(drop));
    }
    let writing = OFlags::WRONLY | OFlags::CLOEXEC;
    for (what, flags) in [
        ("open for writing", writing),
        ("create", writing | OFlags::CREATE),
        ("truncate", OFlags::RDONLY | OFlags::TRUNC),
        ("append", writing | OFlags::APPEND),
    ] {
        let result = rustix::fs::openat(root.as_fd(), "index.json", flags, Mode::from_raw_mode(0o600));
        refused(what, result.map(drop));
    }
    let flags = writing | OFlags::CREATE;
    let resolve = rustix::fs::ResolveFlags::empty();
    let created = rustix::fs::openat2(root.as_fd(), "new", flags, Mode::from_raw_mode(0o600), resolve);
    refused("create with openat2", created.map(drop));

    for descriptor in 3..1024 {
        if descriptor == root.as_raw_fd() {
            continue;
        }
        // SAFETY: asks about a number, touches no memory.
        let open = unsafe { libc::fcntl(descriptor, libc::F_GETFD) } != -1;
        assert!(
            !open,
            "descriptor {descriptor} was left open (the parent's secret was {leaked})"
        );
    }

    const SHELL: &CStr = c"/busybox";
    let shell = SHELL.as_ptr() as libc::c_long;
    let slash = c"/".as_ptr() as libc::c_long;
    let [tcp, unix, netlink] = [libc::AF_INET, libc::AF_UNIX, libc::AF_NETLINK].map(libc::c_long::from);
    let stream = libc::c_long::from(libc::SOCK_STREAM);
    let executable = libc::c_long::from(libc::PROT_READ | libc::PROT_EXEC);
    let anonymous = libc::c_long::from(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    let calls: &[(&str, libc::c_long, [libc::c_long; 6])] = &[
        ("an internet socket", libc::SYS_socket, [tcp, stream, 0, 0, 0, 0]),
        ("a path socket", libc::SYS_socket, [unix, stream, 0, 0, 0, 0]),
        ("a netlink socket", libc::SYS_socket, [netlink, stream, 0, 0, 0, 0]),
        ("a socket pair", libc::SYS_socketpair, [unix, stream, 0, 0, 0, 0]),
        ("connect", libc::SYS_connect, [0, 0, 0, 0, 0, 0]),
        ("mount", libc::SYS_mount, [slash, slash, 0, 4096, 0, 0]),
        ("umount", libc::SYS_umount2, [slash, 2, 0, 0, 0, 0]),
        ("open_tree", libc::SYS_open_tree, [-100, slash, 1, 0, 0, 0]),
        ("fsopen", libc::SYS_fsopen, [shell, 0, 0, 0, 0, 0]),
        ("pivot_root", libc::SYS_pivot_root, [slash, slash, 0, 0, 0, 0]),
        ("chroot", libc::SYS_chroot, [slash, 0, 0, 0, 0, 0]),
        ("unshare", libc::SYS_unshare, [0x1000_0000, 0, 0, 0, 0, 0]),
        ("setns", libc::SYS_setns, [3, 0, 0, 0, 0, 0]),
        ("execve", libc::SYS_execve, [shell, 0, 0, 0, 0, 0]),
        ("execveat", libc::SYS_execveat, [-100, shell, 0, 0, 0, 0]),
        ("clone", libc::SYS_clone, [17, 0, 0, 0, 0, 0]),
        ("clone3", libc::SYS_clone3, [0, 0, 0, 0, 0, 0]),
        ("ptrace", libc::SYS_ptrace, [16, parent.into(), 0, 0, 0, 0]),
        (
            "process_vm_readv",
            libc::SYS_process_vm_readv,
            [parent.into(), 0, 0, 0, 0, 0],
        ),
        ("kill", libc::SYS_kill, [parent.into(), 0, 0, 0, 0, 0]),
        ("setuid", libc::SYS_setuid, [0, 0, 0, 0, 0, 0]),
        ("setfsuid", libc::SYS_setfsuid, [0, 0, 0, 0, 0, 0]),
        ("capset", libc::SYS_capset, [0, 0, 0, 0, 0, 0]),
        ("prctl", libc::SYS_prctl, [4, 1, 0, 0, 0, 0]),
        ("seccomp", libc::SYS_seccomp, [0, 0, 0, 0, 0, 0]),
        ("bpf", libc::SYS_bpf, [0, 0, 0, 0, 0, 0]),
        ("io_uring_setup", libc::SYS_io_uring_setup, [1, 0, 0, 0, 0, 0]),
        ("keyctl", libc::SYS_keyctl, [0, 0, 0, 0, 0, 0]),
        ("memfd_create", libc::SYS_memfd_create, [shell, 0, 0, 0, 0, 0]),
        ("unlinkat", libc::SYS_unlinkat, [-100, shell, 0, 0, 0, 0]),
        ("fchmodat", libc::SYS_fchmodat, [-100, shell, 0o777, 0, 0, 0]),
        ("prlimit64", libc::SYS_prlimit64, [0, 7, 0, 0, 0, 0]),
        (
            "executable memory",
            libc::SYS_mmap,
            [0, 4096, executable, anonymous, -1, 0],
        ),
    ];
    for (what, number, [a, b, c, d, e, f]) in calls {
        // SAFETY: pointers are terminated strings that outlive the call, or null; the filter is to refuse all of them.
        let result = unsafe { libc::syscall(*number, *a, *b, *c, *d, *e, *f) };
        let error = std::io::Error::last_os_error();
        if result != -1 || error.raw_os_error() != Some(libc::EPERM) {
            say(&format!("{what} answered {result} ({error})"));
            std::process::exit(1);
        }
    }
    // More memory than a parser may have.
    // SAFETY: asks for fresh memory, which is never touched.
    let memory = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            1 << 30,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    assert_eq!(memory, libc::MAP_FAILED, "a parser got a gigabyte");
    say("nothing was possible");
}

fn refused(what: &str, result: Result<(), rustix::io::Errno>) {
    if result.is_ok() {
        say(&format!("{what} worked"));
        std::process::exit(1);
    }
}

fn say(text: &str) {
    let mut output = std::io::stdout();
    output.write_all(format!("{text}\n").as_bytes()).unwrap();
    output.flush().unwrap();
}
