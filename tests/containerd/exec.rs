//! Processes that are added to a running container.

use containerd_client::tonic::Code;
use containerd_client::types::v1::Status as State;

use crate::harness::container::{KILL, TERM};
use crate::harness::{Case, Container, assert_code, assert_refused, eventually, on_each_containerd};

on_each_containerd! {
    exit_codes_and_output_of_an_exec,
    an_exec_id_is_taken_once,
    an_exec_id_can_be_used_again,
    an_exec_into_a_container_that_ended,
    an_exec_that_starts_after_the_end,
    an_exec_into_a_created_container,
    an_exec_of_a_missing_program,
    a_running_exec_cannot_be_deleted,
    the_state_of_an_exec,
    an_unknown_exec_is_not_found,
    many_execs_at_once,
    execs_end_before_their_container,
}

fn sleeper(case: &Case) -> Container {
    case.container("sleeper", &["/bin/sleep", "1000"]).start()
}

fn exit_codes_and_output_of_an_exec(case: &Case) {
    let container = sleeper(case);
    for status in [0, 7, 255] {
        let outcome = container.run(
            &format!("exit-{status}"),
            &format!("echo out; echo err >&2; exit {status}"),
        );
        assert_eq!(outcome.status, status);
        assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("out\n", "err\n"));
    }
    for (signal, status) in [(KILL, 137), (TERM, 143)] {
        let exec = container
            .exec(&format!("signal-{signal}"), &["/bin/sleep", "1000"])
            .unwrap();
        exec.start().unwrap();
        exec.kill(signal).unwrap();
        assert_eq!(exec.finish().status, status);
    }
    assert_eq!(container.status(), State::Running);
}

fn an_exec_id_is_taken_once(case: &Case) {
    let container = sleeper(case);
    let first = container.exec("same", &["/bin/sleep", "1000"]).unwrap();
    assert_code(container.exec("same", &["/bin/true"]), Code::AlreadyExists);
    first.start().unwrap();
    assert_code(container.exec("same", &["/bin/true"]), Code::AlreadyExists);
    first.kill(KILL).unwrap();
    assert_eq!(first.finish().status, 137);
}

fn an_exec_id_can_be_used_again(case: &Case) {
    let container = sleeper(case);
    for status in 1..4 {
        assert_eq!(container.run("again", &format!("exit {status}")).status, status);
    }
}

fn an_exec_into_a_container_that_ended(case: &Case) {
    let container = case.shell("ended", "exit 0").start();
    container.wait();
    assert_refused(container.exec("late", &["/bin/true"]), Code::FailedPrecondition);
    assert_code(container.client.state(&container.id, "late"), Code::NotFound);
}

fn an_exec_that_starts_after_the_end(case: &Case) {
    let container = sleeper(case);
    let exec = container.exec("late", &["/bin/true"]).unwrap();
    container.kill(KILL).unwrap();
    container.wait();
    assert_refused(exec.start(), Code::FailedPrecondition);
}

fn an_exec_into_a_created_container(case: &Case) {
    let container = case.container("created", &["/bin/sleep", "1000"]).create().unwrap();
    assert_eq!(container.run("early", "exit 3").status, 3);
    assert_eq!(container.status(), State::Created);
    container.start().unwrap();
    assert_eq!(container.run("later", "exit 4").status, 4);
}

fn an_exec_of_a_missing_program(case: &Case) {
    let container = sleeper(case);
    let exec = container.exec("missing", &["/no/such/program"]).unwrap();
    let status = exec.start().unwrap_err();
    assert!(status.message().contains("/no/such/program"), "{status}");
    exec.delete().unwrap();
    assert_code(exec.state(), Code::NotFound);
    assert_eq!(container.run("next", "exit 5").status, 5);
}

fn a_running_exec_cannot_be_deleted(case: &Case) {
    let container = sleeper(case);
    let exec = container.exec("running", &["/bin/sleep", "1000"]).unwrap();
    exec.start().unwrap();
    assert_refused(exec.delete(), Code::FailedPrecondition);
    exec.kill(KILL).unwrap();
    assert_eq!(exec.finish().status, 137);
}

fn the_state_of_an_exec(case: &Case) {
    let container = sleeper(case);
    let exec = container.exec("state", &["/bin/sleep", "1000"]).unwrap();
    let state = exec.state().unwrap();
    assert_eq!((state.status(), state.pid), (State::Created, 0));
    let pid = exec.start().unwrap();
    let state = exec.state().unwrap();
    assert_eq!((state.status(), state.pid), (State::Running, pid));
    assert_eq!(state.stdout, exec.stdio.stdout_path());
    exec.kill(KILL).unwrap();
    exec.wait();
    let state = exec.state().unwrap();
    assert_eq!((state.status(), state.exit_status), (State::Stopped, 137));
    assert!(state.exited_at.is_some_and(|time| time.seconds > 0));
    exec.delete().unwrap();
}

fn an_unknown_exec_is_not_found(case: &Case) {
    let container = sleeper(case);
    assert_code(container.client.state(&container.id, "unknown"), Code::NotFound);
    assert_code(container.client.start(&container.id, "unknown"), Code::NotFound);
    assert_code(container.client.wait(&container.id, "unknown"), Code::NotFound);
    assert_code(
        container.client.kill(&container.id, "unknown", KILL, false),
        Code::NotFound,
    );
    assert_code(container.client.delete_exec(&container.id, "unknown"), Code::NotFound);
}

fn many_execs_at_once(case: &Case) {
    let container = sleeper(case);
    let execs: Vec<_> = (0..10)
        .map(|number| {
            let script = format!("echo {number}; exit {number}");
            container
                .exec(&format!("exec-{number}"), &["/bin/sh", "-c", &script])
                .unwrap()
        })
        .collect();
    for exec in &execs {
        exec.start().unwrap();
    }
    for (number, exec) in (0..).zip(execs) {
        let outcome = exec.finish();
        assert_eq!((outcome.status, outcome.stdout), (number, format!("{number}\n")));
    }
}

/// The first process's end takes the others along, and its exit is the last one that anyone hears of.
fn execs_end_before_their_container(case: &Case) {
    for round in 0..5 {
        let name = format!("round-{round}");
        let container = case.container(&name, &["/bin/sleep", "1000"]).start();
        let exec = container.exec("exec-1", &["/bin/sleep", "1000"]).unwrap();
        exec.start().unwrap();
        container.kill(KILL).unwrap();
        assert_eq!(container.wait(), 137);
        assert_eq!(exec.wait(), 137);
        eventually("both exits", || {
            let events = case.daemon.events.of(&container.id);
            let exits: Vec<_> = events
                .iter()
                .map(ToString::to_string)
                .filter(|event| event.starts_with("exit"))
                .collect();
            if exits == ["exit:exec-1=137", "exit=137"] {
                Ok(())
            } else {
                Err(format!("{exits:?}"))
            }
        });
    }
}
