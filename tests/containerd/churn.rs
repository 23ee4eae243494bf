//! Many containers, one after the other and all at once.

use std::thread;

use crate::harness::{Case, eventually, leftovers, on_each_containerd};

on_each_containerd! {
    a_hundred_containers_leave_nothing_in_their_shim,
    a_hundred_shims_leave_nothing,
    containers_start_at_once,
}

/// What one shim holds: its descriptors by what they refer to, its threads' children, its mounts.
#[derive(Debug)]
struct Holdings {
    descriptors: usize,
    children: usize,
    mounts: usize,
    sockets: usize,
}

impl Holdings {
    fn of(case: &Case, shim: u32) -> Self {
        let children = leftovers::processes()
            .into_iter()
            .filter(|pid| leftovers::parent_of(*pid) == Some(shim))
            .count();
        let folder = case.daemon.folder.to_str().unwrap();
        let marker = case.id("");
        Self {
            descriptors: leftovers::descriptors(shim).len(),
            children,
            mounts: leftovers::mounts()
                .iter()
                .filter(|mount| mount.starts_with(folder) && mount.contains(&marker))
                .count(),
            sockets: leftovers::sockets_of(shim),
        }
    }
}

fn a_hundred_containers_leave_nothing_in_their_shim(case: &Case) {
    let pod = case.id("pod");
    let sandbox = case
        .container("pod", &["/bin/sleep", "1000"])
        .annotation("io.kubernetes.cri.sandbox-id", &pod)
        .start();
    let cycle = |round: usize| {
        let name = format!("round-{round}");
        let builder = case
            .shell(&name, "exit 3")
            .annotation("io.kubernetes.cri.sandbox-id", &pod);
        assert_eq!(builder.run().status, 3);
    };
    // What is made once and kept is there after the first rounds.
    for round in 0..5 {
        cycle(round);
    }
    let before = Holdings::of(case, sandbox.shim());
    for round in 5..100 {
        cycle(round);
    }
    eventually("the shim to hold no more than before", || {
        let after = Holdings::of(case, sandbox.shim());
        if after.descriptors <= before.descriptors
            && after.children <= before.children
            && after.mounts <= before.mounts
            && after.sockets <= before.sockets
        {
            return Ok(());
        }
        Err(format!(
            "{before:?}, now {after:?}: {:#?}",
            leftovers::descriptors(sandbox.shim())
        ))
    });
    assert_eq!(sandbox.run("still-there", "exit 4").status, 4);
}

/// Half of them end by themselves, half are killed; the check after the test looks for what they left.
fn a_hundred_shims_leave_nothing(case: &Case) {
    for round in 0..100 {
        let name = format!("round-{round}");
        if round % 2 == 0 {
            assert_eq!(case.shell(&name, "exit 3").run().status, 3);
        } else {
            drop(case.container(&name, &["/bin/sleep", "1000"]).start());
        }
    }
}

fn containers_start_at_once(case: &Case) {
    thread::scope(|scope| {
        let runs: Vec<_> = (0..20)
            .map(|number| {
                scope.spawn(move || {
                    let name = format!("container-{number}");
                    let outcome = case.shell(&name, &format!("echo {number}; exit {number}")).run();
                    assert_eq!((outcome.status, outcome.stdout), (number, format!("{number}\n")));
                })
            })
            .collect();
        for run in runs {
            run.join().unwrap();
        }
    });
}
