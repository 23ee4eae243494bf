//! The life of a container, call by call.

use containerd_client::tonic::Code;
use containerd_client::types::v1::Status as State;

use crate::harness::container::KILL;
use crate::harness::{Case, assert_code, on_each_containerd};

on_each_containerd! {
    output_and_status_of_a_run,
    events_come_in_order,
    exit_codes_are_kept,
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
}

fn exit_codes_are_kept(case: &Case) {
    for (name, script, status) in [
        ("zero", "true", 0),
        ("seven", "exit 7", 7),
        ("missing", "exec /no/such/program", 127),
    ] {
        assert_eq!(case.shell(name, script).run().status, status, "{name}");
    }
}
