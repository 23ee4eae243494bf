//! Signals, and what a container's end does to its processes.

use std::thread;

use containerd_client::tonic::Code;
use containerd_client::types::v1::Status as State;
use containerd_shim_protos::shim::oci::Options;

use crate::harness::container::{ContainerBuilder, KILL, TERM};
use crate::harness::{Case, STOCK, Version, assert_code, eventually, leftovers, on_each_containerd, runtime};
use crate::streams::script;

on_each_containerd! {
    a_signal_reaches_the_first_process,
    a_signal_to_a_process_that_ended,
    a_signal_to_all_processes,
    a_signal_to_an_exec,
    kill_of_a_created_container,
    a_kill_is_answered_whoever_deletes_the_container,
    a_shared_pid_namespace_ends_with_its_first_process,
    execs_in_a_shared_pid_namespace_end_first,
}

fn a_signal_reaches_the_first_process(case: &Case) {
    let mut container = case
        .shell(
            "trap",
            "trap 'echo got it; exit 3' TERM; echo ready; while :; do sleep 0.05; done",
        )
        .start();
    container.stdio().expect("ready");
    container.kill(TERM).unwrap();
    let outcome = container.finish();
    assert_eq!((outcome.status, outcome.stdout.as_str()), (3, "ready\ngot it\n"));
}

fn a_signal_to_a_process_that_ended(case: &Case) {
    let container = case.shell("ended", "exit 0").start();
    container.wait();
    eventually("the end", || match container.status() {
        State::Stopped => Ok(()),
        state => Err(format!("it is {state:?}")),
    });
    assert_code(container.kill(KILL), Code::NotFound);
}

fn a_signal_to_all_processes(case: &Case) {
    // runc 1.2 and newer signal the first process alone where that takes all others along.
    let (wait, told) = match case.daemon.version {
        Version::V1_6 | Version::V1_7 => ("wait; ", "child\n"),
        Version::V2_1 => ("", ""),
    };
    let script = format!(
        "(trap 'echo child; exit' TERM; echo ready; while :; do sleep 0.05; done) &
        trap '{wait}echo parent; exit 4' TERM; echo ready; while :; do sleep 0.05; done"
    );
    let mut container = case.shell("all", &script).start();
    container.stdio().expect("ready\nready\n");
    container.client.kill(&container.id, "", TERM, true).unwrap();
    let outcome = container.finish();
    let (status, output) = (outcome.status, outcome.stdout);
    assert_eq!((status, output), (4, format!("ready\nready\n{told}parent\n")));
}

fn a_signal_to_an_exec(case: &Case) {
    let container = case.container("sleeper", &["/bin/sleep", "1000"]).start();
    let exec = container
        .exec(
            "trap",
            &[
                "/bin/sh",
                "-c",
                "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done",
            ],
        )
        .unwrap();
    exec.start().unwrap();
    exec.stdio.expect("ready");
    exec.kill(TERM).unwrap();
    assert_eq!(exec.wait(), 9);
    assert_code(exec.kill(TERM), Code::NotFound);
    exec.delete().unwrap();
    assert_eq!(container.status(), State::Running);
}

fn kill_of_a_created_container(case: &Case) {
    let container = case.container("created", &["/bin/sleep", "1000"]).create().unwrap();
    container.kill(KILL).unwrap();
    assert_eq!(container.wait(), 137);
    container.delete().unwrap();
}

/// containerd's CRI plugin deletes a task as soon as it hears of its end, while the Kill that ended it is on its way.
fn a_kill_is_answered_whoever_deletes_the_container(case: &Case) {
    let body = "case \" $* \" in *' kill '*) runc \"$@\"; status=$?; sleep 0.5; exit $status ;; esac\nexec runc \"$@\"";
    let options = Options {
        binary_name: script(case, "slow-answer", body),
        ..Options::default()
    };
    let container = case
        .container("killed", &["/bin/sleep", "1000"])
        .options(&options)
        .start();
    let deleter = container.another_client();
    thread::scope(|scope| {
        scope.spawn(|| {
            deleter.wait(&container.id, "").unwrap();
            deleter.delete_task(&container.id).unwrap();
        });
        container.kill(KILL).unwrap();
    });
}

/// As with `hostPID` in a pod: no PID namespace ends the children together with the first process.
fn in_host_pid_namespace(builder: ContainerBuilder<'static>) -> ContainerBuilder<'static> {
    builder.edit(|spec| {
        let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "pid");
    })
}

fn a_shared_pid_namespace_ends_with_its_first_process(case: &Case) {
    let script = "sleep 4711 & echo $!; read line; exit 5";
    let mut container = in_host_pid_namespace(case.shell("shared", script)).start();
    container.stdio().expect("\n");
    let child: u32 = container.stdio().stdout().trim().parse().unwrap();
    assert!(leftovers::alive(child));
    container.stdio().write(b"\n");
    assert_eq!(container.wait(), 5);
    eventually("the child to be killed", || {
        if leftovers::alive(child) {
            Err("it runs".to_owned())
        } else {
            Ok(())
        }
    });
    container.delete().unwrap();
}

fn execs_in_a_shared_pid_namespace_end_first(case: &Case) {
    let mut container = in_host_pid_namespace(case.shell("shared", "read line; exit 6")).start();
    let client = container.another_client();
    let id = container.id.clone();
    let exec = container.exec("exec-1", &["/bin/sleep", "1000"]).unwrap();
    exec.start().unwrap();
    drop(exec);
    container.stdio().write(b"\n");
    assert_eq!(container.wait(), 6);
    assert_eq!(client.wait(&id, "exec-1").unwrap(), 137);
    if runtime() == STOCK && case.daemon.version == Version::V1_6 {
        println!("skipped: the stock shim of 1.6 does not order these exits");
        return;
    }
    eventually("both exits", || {
        let events = case.daemon.events.of(&id);
        let exits: Vec<_> = events
            .iter()
            .map(ToString::to_string)
            .filter(|event| event.starts_with("exit"))
            .collect();
        if exits == ["exit:exec-1=137", "exit=6"] {
            Ok(())
        } else {
            Err(format!("{exits:?}"))
        }
    });
}
