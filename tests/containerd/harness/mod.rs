//! What the tests stand on: a private containerd of each release, its API, and what must be left behind: nothing.

pub mod client;
pub mod container;
pub mod cri;
pub mod daemon;
pub mod events;
pub mod image;
pub mod leftovers;
pub mod policy;
pub mod stdio;

use std::env;
use std::time::{Duration, Instant};

pub use client::{Client, assert_code, assert_refused};
pub use container::Container;
pub use daemon::{BUSYBOX, Daemon, Version};
pub use stdio::GLANCE;

use container::ContainerBuilder;

/// The shim of this project.
pub const ASSAY: &str = "io.containerd.assay.v1";
/// The shim that containerd brings along: what every conformance test is checked against.
pub const STOCK: &str = "io.containerd.runc.v2";

/// The runtime under test: Assay, unless `ASSAY_TEST_RUNTIME` names another.
pub fn runtime() -> String {
    env::var("ASSAY_TEST_RUNTIME").unwrap_or_else(|_| ASSAY.to_owned())
}

/// True when the runtime under test is Assay. Otherwise says why a test that needs it does nothing.
pub fn needs_assay(what: &str) -> bool {
    let assay = runtime() == ASSAY;
    if !assay {
        println!(
            "skipped: {what} is Assay's own, and the runtime under test is {}",
            runtime()
        );
    }
    assay
}

/// One test on one containerd. Ids that it hands out are its own.
#[derive(Debug)]
pub struct Case {
    pub daemon: &'static Daemon,
    pub client: Client,
    prefix: String,
}

impl Case {
    pub fn on(daemon: &'static Daemon, name: &str) -> Self {
        Self {
            daemon,
            client: daemon.client(&daemon.scope),
            prefix: name.replace('_', "-"),
        }
    }

    /// An id that no other test has.
    pub fn id(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    /// A container that runs a shell script.
    pub fn shell(&self, name: &str, script: &str) -> ContainerBuilder<'static> {
        self.container(name, &["/bin/sh", "-c", script])
    }

    pub fn container(&self, name: &str, arguments: &[&str]) -> ContainerBuilder<'static> {
        ContainerBuilder::new(self.daemon, &self.id(name), arguments)
    }

    /// Fails when anything of this test is left on the machine.
    #[track_caller]
    pub fn leaves_nothing(&self) {
        leftovers::assert_none(self.daemon, &self.prefix);
    }
}

/// Makes one test per containerd release out of each of these functions, and checks after each that it left nothing.
macro_rules! on_each_containerd {
    ($($name:ident),* $(,)?) => {
        mod containerd_1_6 {
            $(#[test] fn $name() { crate::harness::run(crate::harness::Version::V1_6, stringify!($name), super::$name); })*
        }
        mod containerd_1_7 {
            $(#[test] fn $name() { crate::harness::run(crate::harness::Version::V1_7, stringify!($name), super::$name); })*
        }
        mod containerd_2_1 {
            $(#[test] fn $name() { crate::harness::run(crate::harness::Version::V2_1, stringify!($name), super::$name); })*
        }
    };
}
pub(crate) use on_each_containerd;

pub fn run(version: Version, name: &str, test: fn(&Case)) {
    let case = Case::on(Daemon::shared(version), name);
    test(&case);
    case.leaves_nothing();
}

/// Far beyond what anything takes here; only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `look` finds what it wants. What it says otherwise is the failure's text.
#[track_caller]
pub fn eventually(what: &str, look: impl FnMut() -> Result<(), String>) {
    eventually_within(PATIENCE, what, look);
}

#[track_caller]
pub fn eventually_within(limit: Duration, what: &str, mut look: impl FnMut() -> Result<(), String>) {
    let start = Instant::now();
    loop {
        match look() {
            Ok(()) => return,
            Err(state) if start.elapsed() > limit => panic!("waited {limit:?} for {what}: {state}"),
            Err(_) => std::thread::sleep(GLANCE),
        }
    }
}
