//! The life of a container, call by call.

use std::thread;

use containerd_client::tonic::Code;
use containerd_client::types::v1::Status as State;

use crate::harness::container::KILL;
use crate::harness::{Case, assert_code, assert_refused, eventually, leftovers, on_each_containerd};

on_each_containerd! {
    output_and_status_of_a_run,
    events_come_in_order,
    exit_codes_are_kept,
    a_created_container_can_be_deleted,
    a_running_container_cannot_be_deleted,
    a_container_starts_once,
    an_unknown_container_is_not_found,
    a_program_that_is_missing_fails_create,
    many_clients_wait_for_one_end,
    an_id_can_be_used_again_at_once,
    wait_answers_after_the_end,
    absolute_path_as_runtime_name,
}

fn output_and_status_of_a_run(case: &Case) {
    let outcome = case.shell("run", "echo out; echo err >&2; exit 7").run();
    assert_eq!(outcome.status, 7);
    assert_eq!(outcome.stdout, "out\n");
    assert_eq!(outcome.stderr, "err\n");
}

fn events_come_in_order(case: &Case) {
    let container = case.container("order", &["/bin/sleep", "1000"]).create().unwrap();
    assert_eq!(container.status(), State::Created);
    assert_eq!(container.start().unwrap(), container.pid);
    assert_eq!(container.status(), State::Running);
    let outcome = container.run("exec-1", "exit 7");
    assert_eq!(outcome.status, 7);
    assert_code(container.client.state(&container.id, "exec-1"), Code::NotFound);
    container.kill(KILL).unwrap();
    assert_eq!(container.wait(), 137);
    assert_eq!(container.status(), State::Stopped);
    let deleted = container.delete().unwrap();
    assert_eq!((deleted.exit_status, deleted.pid), (137, container.pid));
    assert_code(container.state(), Code::NotFound);
    case.daemon.events.expect(
        &container.id,
        &[
            "create",
            "start",
            "exec-added:exec-1",
            "exec-started:exec-1",
            "exit:exec-1=7",
            "exit=137",
            "delete=137",
        ],
    );
    for event in case.daemon.events.of(&container.id) {
        let starts_or_ends = event.exec.is_empty() && event.topic != "/tasks/exec-added";
        assert!(!starts_or_ends || event.pid == container.pid, "{event:?}");
    }
}

fn exit_codes_are_kept(case: &Case) {
    for (name, script, status) in [
        ("zero", "true", 0),
        ("seven", "exit 7", 7),
        ("highest", "exit 255", 255),
        ("missing", "exec /no/such/program", 127),
    ] {
        assert_eq!(case.shell(name, script).run().status, status, "{name}");
    }
}

fn a_created_container_can_be_deleted(case: &Case) {
    let container = case.container("created", &["/bin/true"]).create().unwrap();
    assert!(leftovers::alive(container.pid));
    container.delete().unwrap();
    assert!(!leftovers::alive(container.pid));
    assert_code(container.state(), Code::NotFound);
}

fn a_running_container_cannot_be_deleted(case: &Case) {
    let container = case.container("running", &["/bin/sleep", "1000"]).start();
    assert_refused(container.delete(), Code::FailedPrecondition);
    assert_eq!(container.status(), State::Running);
}

fn a_container_starts_once(case: &Case) {
    let container = case.container("twice", &["/bin/sleep", "1000"]).start();
    container.start().unwrap_err();
    assert_eq!(container.status(), State::Running);
}

fn an_unknown_container_is_not_found(case: &Case) {
    let id = case.id("unknown");
    assert_code(case.client.state(&id, ""), Code::NotFound);
    assert_code(case.client.kill(&id, "", KILL, false), Code::NotFound);
    assert_code(case.client.wait(&id, ""), Code::NotFound);
    assert_code(case.client.delete_task(&id), Code::NotFound);
    assert_code(case.client.pids(&id), Code::NotFound);
}

fn a_program_that_is_missing_fails_create(case: &Case) {
    let status = case.container("missing", &["/no/such/program"]).create().unwrap_err();
    assert!(status.message().contains("/no/such/program"), "{status}");
    assert_code(case.client.state(&case.id("missing"), ""), Code::NotFound);
}

fn many_clients_wait_for_one_end(case: &Case) {
    let container = case.shell("waited", "read line; exit 9").start();
    let waits: Vec<_> = (0..5)
        .map(|_| {
            let client = container.another_client();
            let id = container.id.clone();
            thread::spawn(move || client.wait(&id, "").unwrap())
        })
        .collect();
    let mut container = container;
    container.stdio().write(b"go\n");
    for wait in waits {
        assert_eq!(wait.join().unwrap(), 9);
    }
}

/// The shim that ends must not take the socket of its successor along.
fn an_id_can_be_used_again_at_once(case: &Case) {
    let mut container = case.shell("again", "exit 3").without_streams().start();
    for _ in 0..20 {
        assert_eq!(container.wait(), 3);
        container.delete().unwrap();
        container.create_again().unwrap();
        container.start().unwrap();
    }
    assert_eq!(container.wait(), 3);
}

fn wait_answers_after_the_end(case: &Case) {
    let container = case.shell("late", "exit 4").start();
    eventually("the end", || match container.status() {
        State::Stopped => Ok(()),
        state => Err(format!("it is {state:?}")),
    });
    assert_eq!(container.wait(), 4);
    let state = container.state().unwrap();
    assert_eq!(state.exit_status, 4);
    assert!(state.exited_at.is_some_and(|time| time.seconds > 0));
}

fn absolute_path_as_runtime_name(case: &Case) {
    let shim = case.daemon.shim_program();
    let outcome = case.shell("absolute", "echo ran").runtime(shim.to_str().unwrap()).run();
    assert_eq!((outcome.status, outcome.stdout.as_str()), (0, "ran\n"));
}
