//! `assay agent`: what becomes of running containers when what they were started by changes.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use assay::admission::Verdict;
use assay::admission::again::{Cause, Reevaluation, Step};
use assay::policy::Action;
use containerd_client::tonic::Code;
use containerd_client::types::v1::Status as State;
use rustix::process::{Pid, Signal, kill_process};

use crate::grant::{administrator, only, succeeds};
use crate::harness::container::ContainerBuilder;
use crate::harness::cri::Pod;
use crate::harness::daemon::{NARROWED, SIGNED, UNSIGNED, WANTED_BY_ANOTHER, set_up};
use crate::harness::{Case, Container, Daemon, Version, assert_code, eventually, needs_assay};
use crate::refusals::signed;

/// Names of the signed image under rules that report, freeze and stop.
pub const REPORTED: &str = SIGNED;
pub const FROZEN: &str = "assay.test/minimized/signed:latest";
const STOPPED: &str = WANTED_BY_ANOTHER;
/// And one that lets nothing more be started in it.
const BARRED: &str = NARROWED;

pub fn rule(image: &str, reevaluate: &str) -> String {
    format!(
        "[[rule]]\nname = '{image}'\nmatch = {{ image = ['{image}'] }}\nmode = 'enforce'\n\
         [[rule.signature]]\nany = [{{ key = 'release' }}]\n{reevaluate}\n"
    )
}

/// A node of its own, with its agent.
pub struct Node {
    pub case: Case,
}

impl Node {
    /// `grace` is that of the rules that freeze and stop.
    pub fn new(name: &str, grace: &str) -> Self {
        // Leaked, as the shared ones are: what it leaves is swept when this process ends.
        let daemon: &'static Daemon = Box::leak(Box::new(Daemon::start(Version::V2_1)));
        let node = Self {
            case: Case::on(daemon, name),
        };
        let act = |action: &str| format!("[rule.reevaluate]\naction = '{action}'\ngrace = '{grace}'\n");
        let rules = [
            rule(REPORTED, ""),
            rule(FROZEN, &act("freeze")),
            rule(STOPPED, &act("stop")),
            rule(BARRED, &act("deny-exec")),
            "[[rule]]\nname = 'audited'\nmatch = { image = ['**'] }\nmode = 'audit'\n".to_owned(),
        ];
        node.write_policy(&rules.concat());
        node
    }

    pub fn home(&self) -> PathBuf {
        self.case.daemon.folder.join("assay")
    }

    /// What its agents said.
    pub fn said(&self) -> PathBuf {
        self.case.daemon.folder.join("agent.log")
    }

    pub fn write_policy(&self, text: &str) {
        fs::write(self.home().join("policy.d/50-tests.toml"), text).unwrap();
        self.assay(&["policy", "apply"]);
    }

    pub fn assay(&self, arguments: &[&str]) {
        let output = self.case.daemon.assay(arguments);
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    fn distrust(&self) {
        self.assay(&["trust", "distrust-key", "release"]);
        self.assay(&["policy", "apply"]);
    }

    pub fn start(&self, name: &str, image: &str) -> Container {
        self.container(name).image_name(image).start()
    }

    pub fn container(&self, name: &str) -> ContainerBuilder<'static> {
        signed(&self.case, name).edit(|spec| {
            let script = "trap 'exit 7' TERM; while true; do sleep 0.1; done";
            spec["process"]["args"] = serde_json::json!(["/bin/sh", "-c", script]);
        })
    }

    pub fn figures(&self) -> String {
        let socket = self.home().join("run/agent.sock");
        assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
        let mut stream = UnixStream::connect(socket).unwrap();
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        answer
    }

    fn records(&self, container: &Container) -> Vec<Reevaluation> {
        self.case.daemon.reevaluations(&container.id)
    }

    /// Waits until the agent has recorded these steps about a container, and no others.
    #[track_caller]
    pub fn wait_for(&self, container: &Container, steps: &[Step]) -> Vec<Reevaluation> {
        let said = || {
            self.records(container)
                .iter()
                .map(|record| record.step)
                .collect::<Vec<_>>()
        };
        eventually(&format!("{steps:?} about {}", container.id), || {
            let said = said();
            if said == steps {
                Ok(())
            } else {
                Err(format!("{said:?}"))
            }
        });
        self.records(container)
    }
}

/// An agent that says that it is ready.
pub struct Agent {
    child: Child,
    notified: mpsc::Receiver<String>,
}

impl Agent {
    pub fn start(node: &Node) -> Self {
        Self::start_with(node, |_| {})
    }

    /// An agent whose command is another one.
    pub fn start_with(node: &Node, change: impl FnOnce(&mut Command)) -> Self {
        let daemon = node.case.daemon;
        let socket = daemon.folder.join("notify.sock");
        let _ = fs::remove_file(&socket);
        let notified = UnixDatagram::bind(&socket).unwrap();
        let said = fs::File::options().create(true).append(true).open(node.said()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_assay"));
        command
            .args(["agent", "--address"])
            .arg(daemon.socket())
            .stderr(said)
            .env("ASSAY_CONFIG", daemon.folder.join("assay/config.toml"))
            .env("NOTIFY_SOCKET", &socket)
            .stdin(Stdio::null());
        change(&mut command);
        let child = command.spawn().unwrap();
        let (heard, received) = mpsc::channel();
        // As systemd does, whatever comes: an agent whose messages nobody takes waits until somebody does.
        thread::spawn(move || {
            let mut message = [0; 1024];
            while let Ok(length) = notified.recv(&mut message) {
                let text = String::from_utf8_lossy(&message[..length]).into_owned();
                if heard.send(text).is_err() {
                    return;
                }
            }
        });
        let agent = Self {
            child,
            notified: received,
        };
        agent.hear("READY=1");
        agent
    }

    fn hear(&self, what: &str) {
        loop {
            let message = self.notified.recv_timeout(Duration::from_secs(60)).expect(what);
            if message.lines().any(|line| line == what) {
                return;
            }
        }
    }

    pub fn send(&mut self, signal: Signal) -> Option<i32> {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Dead already where a test ended it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_distrusted_key_reaches_running_containers() {
    if !needs_assay("assay agent") {
        return;
    }
    let node = Node::new("distrusted", "1s");
    let reported = node.start("reported", REPORTED);
    let frozen = node.start("frozen", FROZEN);
    let barred = node.start("barred", BARRED);
    assert_eq!(barred.run("before", "exit 5").status, 5);
    let mut agent = Agent::start(&node);
    // One that the agent has not seen yet.
    let stopped = node.start("stopped", STOPPED);
    let bystander = node.case.shell("bystander", "sleep 1000").start();
    node.distrust();

    let records = node.wait_for(&reported, &[Step::Changed]);
    let record = &records[0];
    assert_eq!(
        (record.old.verdict, record.new.verdict),
        (Verdict::Allow, Verdict::Refuse)
    );
    assert_eq!(record.new.code, "key-distrusted", "{record:?}");
    assert_eq!(record.new.rule.as_deref(), Some(REPORTED));
    assert_eq!(record.cause, [Cause::Trust]);
    assert_eq!((record.action, record.at.as_ref()), (Action::Report, None));
    assert_eq!(reported.status(), State::Running);

    let records = node.wait_for(&frozen, &[Step::Changed, Step::Done]);
    assert_eq!(records[0].action, Action::Freeze);
    // Announced first, and done no earlier than that.
    assert!(records[0].at.as_ref().unwrap() <= &records[1].time, "{records:?}");
    assert_eq!(frozen.status(), State::Paused);
    assert!(records[1].note.contains("tasks resume"), "{records:?}");

    let records = node.wait_for(&stopped, &[Step::Changed, Step::Done]);
    assert_eq!(records[0].cause, [Cause::Trust]);
    assert_eq!(stopped.wait(), 7);

    node.wait_for(&barred, &[Step::Changed, Step::Done]);
    let refused = assert_code(barred.exec("during", &["/bin/true"]), Code::PermissionDenied);
    assert!(
        refused.contains("assay refused exec of /bin/true: exec-barred: key-distrusted"),
        "{refused}"
    );
    assert_eq!(barred.status(), State::Running);

    // A container that is not Assay's business any more than before.
    assert_eq!(node.records(&bystander), []);
    assert_eq!(bystander.status(), State::Running);

    // Programs and people are told.
    let figures = node.figures();
    for line in [
        "assay_reevaluations_total{trigger=\"trust\",action=\"report\"} 1",
        "assay_reevaluation_actions_total{action=\"freeze\",result=\"done\"} 1",
        "assay_reevaluation_actions_total{action=\"stop\",result=\"done\"} 1",
    ] {
        assert!(figures.lines().any(|figure| figure == line), "{line}\n{figures}");
    }
    let told = node.case.daemon.assay(&["decisions", "--denied"]);
    let told = String::from_utf8(told.stdout).unwrap();
    assert_eq!(told.matches("while it runs, by trust").count(), 4, "{told}");
    assert!(!told.contains("allowed"), "{told}");
    let told = node.case.daemon.assay(&["decisions", "-o", "json"]);
    let documents: Vec<serde_json::Value> = String::from_utf8(told.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let kinds = |kind: &str| documents.iter().filter(|document| document["kind"] == kind).count();
    let all = (kinds("reevaluation"), kinds("exec"), documents.len());
    assert_eq!(all, (7, 2, 14), "{documents:#?}");

    // It stays frozen without the agent, until somebody thaws it; another agent does not freeze it again.
    assert_eq!(agent.send(Signal::TERM), Some(0));
    agent.hear("STOPPING=1");
    assert_eq!(frozen.status(), State::Paused);
    frozen.client.resume(&frozen.id).unwrap();
    let _agent = Agent::start(&node);
    node.wait_for(&frozen, &[Step::Changed, Step::Done]);
    assert_eq!(frozen.status(), State::Running);

    // What is trusted again may run again.
    let keys = node.home().join("trust.d/keys.toml");
    let text = fs::read_to_string(&keys).unwrap();
    fs::write(&keys, text.replace("distrusted", "active")).unwrap();
    node.assay(&["policy", "apply"]);
    let records = node.wait_for(&reported, &[Step::Changed, Step::Changed]);
    eventually("processes to be started again", || {
        let exec = barred.exec("after", &["/bin/true"]);
        exec.map(|exec| drop(exec.delete()))
            .map_err(|status| status.to_string())
    });
    assert_eq!(
        (records[1].old.verdict, records[1].new.verdict),
        (Verdict::Refuse, Verdict::Allow)
    );
}

#[test]
fn what_runs_on_a_grant_ends_with_it() {
    if !needs_assay("assay agent") {
        return;
    }
    let node = Node::new("granted", "1s");
    let daemon = node.case.daemon;
    let policy = fs::read_to_string(node.home().join("policy.d/50-tests.toml")).unwrap();
    let stops = "[rule.reevaluate]\naction = 'stop'\ngrace = '1s'\n";
    node.write_policy(&format!("{}{policy}", rule(&UNSIGNED.name, stops)));
    let key = administrator(daemon, "ops", "grant");
    let grant = |lasting: &str| {
        let image = UNSIGNED.manifest.to_string();
        let key = key.to_str().unwrap();
        succeeds(
            daemon,
            &[
                "grant", "--image", &image, "--for", lasting, "--reason", "a test", "--key", key,
            ],
        );
    };
    let start = |name: &str| {
        let script = "trap 'exit 7' TERM; while true; do sleep 0.1; done";
        node.case.shell(name, script).image(&UNSIGNED).start()
    };
    grant("1h");
    let revoked = start("revoked");
    let _agent = Agent::start(&node);
    succeeds(daemon, &["grant", "revoke", &only(daemon, "active")]);
    let records = node.wait_for(&revoked, &[Step::Changed, Step::Done]);
    assert_eq!(
        (records[0].old.code.as_str(), records[0].new.code.as_str()),
        ("granted", "signature-missing")
    );
    assert_eq!(records[0].cause, [Cause::Grant]);
    assert_eq!(revoked.wait(), 7);
    // Nobody has to tell the agent when one ends.
    grant("5s");
    let ended = start("ended");
    let records = node.wait_for(&ended, &[Step::Changed, Step::Done]);
    assert_eq!(records[0].cause, [Cause::Grant]);
    assert!(records[0].new.reason.contains("grant-expired"), "{records:?}");
    assert_eq!(ended.wait(), 7);
}

#[test]
fn an_agent_that_is_killed_does_nothing_more() {
    if !needs_assay("assay agent") {
        return;
    }
    let node = Node::new("killed", "3s");
    let frozen = node.start("frozen", FROZEN);
    let stopped = node.start("stopped", STOPPED);
    let mut agent = Agent::start(&node);
    node.distrust();
    let records = node.wait_for(&stopped, &[Step::Changed]);
    agent.send(Signal::KILL);
    let due: jiff::Timestamp = records[0].at.as_ref().unwrap().parse().unwrap();
    eventually("the end of the grace", || {
        let left = due.duration_since(jiff::Timestamp::now());
        if left.is_negative() {
            Ok(())
        } else {
            Err(left.to_string())
        }
    });
    for container in [&frozen, &stopped] {
        assert_eq!(container.status(), State::Running);
        assert_eq!(node.records(container).len(), 1);
    }
    // The next one announces anew what was not done.
    let _agent = Agent::start(&node);
    node.wait_for(&frozen, &[Step::Changed, Step::Announced, Step::Done]);
    node.wait_for(&stopped, &[Step::Changed, Step::Announced, Step::Done]);
    assert_eq!(frozen.status(), State::Paused);
    assert_eq!(stopped.wait(), 7);
}

#[test]
fn trouble_of_the_agents_own_touches_no_container() {
    if !needs_assay("assay agent") {
        return;
    }
    let node = Node::new("trouble", "1s");
    let mut first = node.start("first", STOPPED);
    let _agent = Agent::start(&node);

    // A policy that cannot be read.
    let active = node.case.daemon.state().join("active/policy.json");
    let document = fs::read(&active).unwrap();
    fs::write(&active, "{").unwrap();
    let records = node.wait_for(&first, &[Step::NotJudged]);
    assert!(records[0].note.contains("corrupt"), "{records:?}");
    fs::write(&active, document).unwrap();

    // Evidence that is gone altogether.
    let mut container = node.start("second", STOPPED);
    let evidence = node.case.daemon.state().join("evidence");
    fs::rename(evidence.join("index.json"), evidence.join("elsewhere")).unwrap();
    let records = node.wait_for(&container, &[Step::NotJudged]);
    assert!(records[0].note.contains("evidence-cache-empty"), "{records:?}");
    fs::remove_file(evidence.join("elsewhere")).unwrap();
    node.assay(&["evidence", "import", set_up("images/signed/busybox").to_str().unwrap()]);

    // containerd away.
    node.case.daemon.restart(|| {});
    first.reconnect();
    container.reconnect();
    assert_eq!(container.status(), State::Running);
    assert_eq!(first.status(), State::Running);
    assert_eq!(node.records(&container).len(), 1);

    // It is judged again all the same: by another rule now.
    let policy = fs::read_to_string(node.home().join("policy.d/50-tests.toml")).unwrap();
    let config = node.case.daemon.decisions(&container.id)[0]
        .image
        .as_ref()
        .unwrap()
        .config;
    node.write_policy(&format!("[[deny]]\ndigest = ['{config}']\n\n{policy}"));
    let records = node.wait_for(&container, &[Step::NotJudged, Step::Changed, Step::Done]);
    assert_eq!(records[1].new.code, "digest-denied");
    assert_eq!(records[1].cause, [Cause::Policy]);
    assert_eq!(container.wait(), 7);
}

#[test]
fn the_first_container_of_an_image_that_the_agent_has_seen_is_decided_on_as_a_repeated_one() {
    if !needs_assay("assay agent") {
        return;
    }
    let node = Node::new("prepared", "30s");
    let daemon = node.case.daemon;
    const FRESH: &str = "assay.test/fresh/signed:1";
    let narrows = "[rule.filesystem]\nmode = 'enforce'\nexec = ['/bin/date']\n[rule.seccomp]\nmode = 'enforce'\n";
    let policy = fs::read_to_string(node.home().join("policy.d/50-tests.toml")).unwrap();
    node.write_policy(&format!("{}{policy}", rule(FRESH, narrows)));
    // What every container has mounted is known from one.
    let pod = Pod::run(daemon, "prepared", "").unwrap();
    let other = pod.create("other", SIGNED, &["/bin/sleep", "1000"]).unwrap();
    pod.start(&other).unwrap();
    let _agent = Agent::start(&node);

    daemon.tag("k8s.io", "assay.test/busybox:latest", FRESH);
    eventually("the image to be prepared", || {
        let said = fs::read_to_string(node.said()).unwrap();
        if said.contains(&format!("image k8s.io/{FRESH} is prepared")) {
            Ok(())
        } else {
            Err(said)
        }
    });
    let known = || {
        let names = |folder: PathBuf| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let mut known: Vec<_> = names(daemon.state().join("needs")).collect();
        known.extend(names(node.home().join("run/memo")));
        known.sort();
        known
    };
    let before = known();
    let first = pod.create("first", FRESH, &[]).unwrap();
    pod.start(&first).unwrap();
    let decision = daemon.decisions(&first).remove(0);
    assert!(
        decision.repeated && decision.view.is_some() && decision.edits.seccomp.is_some(),
        "{decision:?}"
    );
    assert_eq!(known(), before, "{decision:?}");
}
