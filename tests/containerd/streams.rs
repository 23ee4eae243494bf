//! Input, output, terminals and loggers.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use assay::digest::Digest;

use crate::harness::{Case, eventually, needs_assay, on_each_containerd};

on_each_containerd! {
    input_until_its_end,
    input_of_an_exec_until_its_end,
    input_of_an_exec_that_ends_before_it_starts,
    a_terminal_and_its_size,
    a_terminal_of_an_exec_and_its_size,
    fifty_megabytes_arrive_complete,
    a_terminal_loses_no_output,
    no_streams_at_all,
    a_file_as_log,
    a_program_as_log,
    a_program_that_cannot_log_fails_create,
    readers_may_come_and_go,
    output_of_leftover_children_does_not_block_the_end,
}

fn input_until_its_end(case: &Case) {
    let mut container = case.container("cat", &["/bin/cat"]).start();
    container.stdio().write(b"one\n");
    container.stdio().expect("one\n");
    container.stdio().write(b"two\n");
    container.client.close_stdin(&container.id, "").unwrap();
    container.stdio().close_stdin();
    let outcome = container.finish();
    assert_eq!((outcome.status, outcome.stdout.as_str()), (0, "one\ntwo\n"));
}

fn input_of_an_exec_until_its_end(case: &Case) {
    let container = case.container("sleeper", &["/bin/sleep", "1000"]).start();
    let mut exec = container.exec("cat", &["/bin/cat"]).unwrap();
    exec.start().unwrap();
    exec.stdio.write(b"one\n");
    exec.stdio.expect("one\n");
    exec.end_stdin();
    let outcome = exec.finish();
    assert_eq!((outcome.status, outcome.stdout.as_str()), (0, "one\n"));
}

/// A client whose input has ended already says so before the exec is there.
fn input_of_an_exec_that_ends_before_it_starts(case: &Case) {
    if !needs_assay("that the end of the input is remembered") {
        return;
    }
    let container = case.container("sleeper", &["/bin/sleep", "1000"]).start();
    let mut exec = container.exec("cat", &["/bin/cat"]).unwrap();
    exec.end_stdin();
    exec.start().unwrap();
    assert_eq!(exec.finish().status, 0);
}

fn a_terminal_and_its_size(case: &Case) {
    let mut container = case.container("tty", &["/bin/sh"]).terminal().create().unwrap();
    container.client.resize(&container.id, "", 120, 40).unwrap();
    container.start().unwrap();
    assert!(container.state().unwrap().terminal);
    container
        .stdio()
        .write(b"test -t 0 && test -t 1 && test -t 2 && stty size\n");
    container.stdio().expect("40 120\r\n");
    container.client.resize(&container.id, "", 81, 25).unwrap();
    container.stdio().write(b"stty size\n");
    container.stdio().expect("25 81\r\n");
    container.stdio().write(b"exit 6\n");
    assert_eq!(container.finish().status, 6);
}

fn a_terminal_of_an_exec_and_its_size(case: &Case) {
    let container = case.container("sleeper", &["/bin/sleep", "1000"]).start();
    let mut exec = container.exec_terminal("tty", &["/bin/sh"]).unwrap();
    exec.start().unwrap();
    exec.resize(99, 33);
    exec.stdio.write(b"stty size\n");
    exec.stdio.expect("33 99\r\n");
    exec.stdio.write(b"exit 8\n");
    assert_eq!(exec.finish().status, 8);
}

const MEGABYTES: usize = 50;

fn fifty_megabytes_arrive_complete(case: &Case) {
    let script = format!("yes 0123456789abcde | head -c {}", MEGABYTES << 20);
    let mut container = case.shell("large", &script).start();
    assert_eq!(container.wait(), 0);
    container.delete().unwrap();
    let (stdout, _) = container.stdio().finish_bytes();
    let expected = b"0123456789abcde\n".repeat((MEGABYTES << 20) / 16);
    assert_eq!(stdout.len(), expected.len());
    assert_eq!(Digest::of(&stdout), Digest::of(&expected));
}

fn a_terminal_loses_no_output(case: &Case) {
    let mut container = case.shell("tty", "seq 1 50000").terminal().start();
    assert_eq!(container.wait(), 0);
    container.delete().unwrap();
    let (stdout, _) = container.stdio().finish();
    let expected: String = (1..=50_000).map(|number| format!("{number}\r\n")).collect();
    assert_eq!(
        Digest::of(stdout.as_bytes()),
        Digest::of(expected.as_bytes()),
        "{} bytes",
        stdout.len()
    );
}

fn no_streams_at_all(case: &Case) {
    let outcome = case.shell("silent", "echo lost; cat; exit 5").without_streams().run();
    assert_eq!(outcome.status, 5);
}

fn a_file_as_log(case: &Case) {
    let log = case.daemon.folder.join(case.id("file.log"));
    let uri = format!("file://{}", log.display());
    let outcome = case.shell("file", "echo out; echo err >&2").log_to(&uri).run();
    assert_eq!(outcome.status, 0);
    let text = fs::read_to_string(&log).unwrap();
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["err", "out"]);
}

fn a_program_as_log(case: &Case) {
    let log = case.daemon.folder.join(case.id("binary.log"));
    // Descriptors 3 and 4 are the output, the end of 5 says that it may begin. The stock shim sends SIGTERM when the
    // container is deleted, even where not everything has been read yet.
    let logger = script(
        case,
        "logger",
        "trap '' TERM\nexec 5>&-\n{ echo \"$1=$2 $CONTAINER_NAMESPACE/$CONTAINER_ID\"; cat <&3; cat <&4; } >\"$2\"",
    );
    let uri = format!("binary://{logger}?log={}", log.display());
    let outcome = case.shell("binary", "echo out; echo err >&2").log_to(&uri).run();
    assert_eq!(outcome.status, 0);
    let (scope, id) = (&case.daemon.scope, case.id("binary"));
    let expected = format!("log={} {scope}/{id}\nout\nerr\n", log.display());
    eventually("the log", || match fs::read_to_string(&log) {
        Ok(text) if text == expected => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

fn a_program_that_cannot_log_fails_create(case: &Case) {
    let uri = format!("binary://{}", case.daemon.folder.join("no-such-logger").display());
    let status = case.shell("broken", "echo lost").log_to(&uri).create().unwrap_err();
    assert!(status.message().contains("no-such-logger"), "{status}");
}

/// Whoever reads the output, containerd itself in a pod, may end and come back without hurting the process.
fn readers_may_come_and_go(case: &Case) {
    let mut container = case
        .shell(
            "patient",
            "trap 'exit 13' PIPE; while read -r line; do echo \"$line\" || exit 14; done; exit 15",
        )
        .start();
    container.stdio().write(b"before\n");
    container.stdio().expect("before\n");
    container.stdio().detach();
    container.stdio().write(b"meanwhile\n");
    container.stdio().attach();
    container.stdio().write(b"after\n");
    container.stdio().expect("after\n");
    container.client.close_stdin(&container.id, "").unwrap();
    container.stdio().close_stdin();
    assert_eq!(container.wait(), 15);
}

/// A child that holds the output open must not keep Delete waiting for good.
fn output_of_leftover_children_does_not_block_the_end(case: &Case) {
    let container = case.shell("parent", "sleep 1000 & echo started; exit 2").start();
    assert_eq!(container.wait(), 2);
    container.delete().unwrap();
}

/// Writes an executable shell script; its path.
pub fn script(case: &Case, name: &str, body: &str) -> String {
    let path = case.daemon.folder.join(case.id(name));
    fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}
