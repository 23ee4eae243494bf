//! The way of one request: policy, identity, evidence, ruling, log.

use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::runtime::Runtime;

use super::comparison;
use super::desk::{Desk, Used};
use super::exec::{Opened, Plea};
use super::journal::Told as _;
use super::log;
use super::ruling::{self, Case, Ruling};
use super::trail;
use super::{Decision, Edits, InvalidRequest, Request, VERSION, Verdict};
use crate::config::Config;
use crate::diagnostic::{Diagnostics, printable};
use crate::digest::Digest;
use crate::identity::{self, Fault, Identity, Image, Question, Trail};
use crate::oci::{self, Layout, Manifest};
use crate::policy::activate::LoadError;
use crate::policy::{Kind, Mode, SeccompMode};
use crate::store::{self, StateDir};

/// Most hooks, and most devices, that a decision lists.
pub(super) const MAX_LISTED: usize = 64;

/// Why nothing could be ruled on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Obstacle {
    #[error("the configuration of Assay is not usable: {0}")]
    Config(String),
    #[error("Assay's state cannot be used: {0}")]
    State(#[source] store::Error),
    #[error("{0}")]
    Policy(#[from] LoadError),
    #[error("{0}")]
    Identity(#[from] Fault),
    #[error("containerd did not say within {} ms what the container is", .0.as_millis())]
    IdentityTimeout(Duration),
    #[error("the event loop cannot be started: {0}")]
    Runtime(#[source] std::io::Error),
    #[error("the decision cannot be recorded: {0}")]
    Log(#[source] store::Error),
    #[error("assay admit has a fault: {0}")]
    Panic(String),
}

impl Obstacle {
    fn code(&self) -> &'static str {
        match self {
            Self::Config(_) => "config-invalid",
            Self::State(store::Error::Full { .. }) | Self::Log(store::Error::Full { .. }) => "state-full",
            Self::State(_) => "state-unusable",
            Self::Log(_) => "state-unwritable",
            Self::Policy(error) => error.code(),
            Self::Identity(fault) => fault.code(),
            Self::IdentityTimeout(_) => "identity-timeout",
            Self::Runtime(_) => "runtime-start",
            Self::Panic(_) => "internal-panic",
        }
    }

    pub(super) fn fix(&self) -> String {
        match self {
            Self::Config(_) => "an administrator corrects the file and runs: assay policy check".to_owned(),
            Self::State(store::Error::Full { .. }) | Self::Log(store::Error::Full { .. }) => {
                "free space on the file system of Assay's state directory".to_owned()
            }
            Self::State(_) | Self::Log(_) => {
                "an administrator makes the state directory root's own, mode 0700, and writable".to_owned()
            }
            Self::Policy(error) => error.fix().to_owned(),
            Self::Identity(fault) => fault.fix().to_owned(),
            Self::IdentityTimeout(_) => {
                "find out why containerd is slow, or raise admit_timeout in the configuration".to_owned()
            }
            Self::Runtime(_) => "free file descriptors or memory on this node".to_owned(),
            Self::Panic(_) => "report it with the decision log; the container was not started".to_owned(),
        }
    }
}

/// Decides about a container and records the decision. Whatever goes wrong on the way is a refusal.
#[must_use]
pub fn admit(config: Result<&Config, &Diagnostics>, request: &Request) -> Decision {
    let started = Instant::now();
    let mut decision = blank(&request.namespace, &request.container);
    let decided = guard(|| {
        let config = config.map_err(|faults| Obstacle::Config(first(faults)))?;
        decide(config, request, started, &mut decision)
    });
    if let Err(obstacle) = decided {
        refuse(&mut decision, &obstacle);
        if let (Ok(config), false) = (config, matches!(obstacle, Obstacle::Log(_) | Obstacle::State(_))) {
            // It is a refusal already; a record that fails cannot make it more of one.
            let _ = StateDir::open(&config.state).and_then(|state| log::record(&state, &decision));
        } else {
            decision.entry().send(decision.json().as_bytes());
        }
    }
    decision
}

/// A panic is a fault of Assay, and a refusal like any other.
pub(super) fn guard(decide: impl FnOnce() -> Result<(), Obstacle>) -> Result<(), Obstacle> {
    std::panic::catch_unwind(AssertUnwindSafe(decide)).unwrap_or_else(|panic| Err(Obstacle::Panic(message(&*panic))))
}

/// The refusal of a request that cannot be read. Nothing is known that could be recorded.
#[must_use]
pub fn reject(invalid: &InvalidRequest) -> Decision {
    let mut decision = blank("", "");
    decision.code = "request-invalid".to_owned();
    decision.reason = printable(&invalid.to_string()).into_owned();
    decision.fix = "install containerd-shim-assay-v1 and assay of the same version".to_owned();
    decision
}

fn decide(config: &Config, request: &Request, started: Instant, decision: &mut Decision) -> Result<(), Obstacle> {
    // The shim's own patience is `admit_timeout`; a refusal from here says more than its.
    let deadline = started + config.admit_timeout / 10 * 9;
    let mut watch = Stopwatch(started);
    let desk = Desk::open(config, deadline)?;
    watch.note(decision, "policy");
    let name = trail::name(request);
    let run = desk.run.as_ref().zip(name.as_deref());
    let known = run.map(|(run, name)| trail::recall(run, name)).unwrap_or_default();
    let mut thorough = desk.active.needs_every_digest();
    let (identity, mut ruling, used) = loop {
        let question = question(request, &known, thorough);
        let identity = block_on(deadline, started, identity::identify(question))?;
        if let (Ok(_), Some((run, name)), true) = (&identity.root, run, identity.trail != known) {
            // Without it the next container takes the way step by step.
            let _ = trail::keep(run, name, &identity.trail);
        }
        describe(decision, &identity);
        decision.basis = Some(desk.basis(request, &identity));
        watch.note(decision, "identity");
        let mut used = Used::default();
        let ruling = desk.rule_on(request, &identity, &mut used);
        watch.note(decision, "evidence");
        // What is allowed already stays so, whatever else there is about the image.
        if thorough || ruling.is_met() {
            break (identity, ruling, used);
        }
        thorough = true;
    };
    let narrows = ruling.filesystem.mode != Mode::Off || ruling.seccomp.mode != SeccompMode::Off;
    if ruling.verdict == Verdict::Allow && narrows {
        let opening = desk.root(request, &identity).opening().ok();
        let met = opening
            .filter(|_| ruling.grant.is_none())
            .map(|opening| (opening, ruling.clone()));
        desk.show(request, &identity, &mut ruling, &used, decision, &mut watch);
        if let (Some(((held, until), met)), Verdict::Refuse, true) = (met, ruling.verdict, ruling.policy) {
            // What its files say is the rule's refusal too.
            ruling = met.resting_on(held.granted(until, &ruling.code, &ruling.reason));
            (decision.view, decision.files, decision.syscalls) = (None, None, None);
            desk.show(request, &identity, &mut ruling, &used, decision, &mut watch);
        }
        watch.note(decision, "files");
    }
    apply(decision, ruling, used);
    desk.record(decision).map_err(Obstacle::Log)?;
    desk.advance_clock(decision);
    Ok(())
}

/// Judges an image in containerd's store as a container in `kubernetes_namespace` would be, without one: nothing is
/// mounted, so nothing is bound to a snapshot, and nothing is recorded.
#[must_use]
pub fn verify(
    config: Result<&Config, &Diagnostics>,
    containerd: &str,
    namespace: &str,
    name: &str,
    kubernetes_namespace: Option<&str>,
) -> Decision {
    let started = Instant::now();
    let mut decision = blank(namespace, "");
    decision.name = printable(name).into_owned();
    let mut watch = Stopwatch(started);
    let mut decide = || {
        let config = config.map_err(|faults| Obstacle::Config(first(faults)))?;
        let deadline = started + config.admit_timeout;
        let desk = Desk::open(config, deadline)?;
        watch.note(&mut decision, "policy");
        let image = block_on(deadline, started, identity::image(containerd, namespace, name))?;
        decision.image = Some(shown(&image));
        watch.note(&mut decision, "identity");
        let case = Case {
            kubernetes_namespace,
            ..desk.case(name, namespace, &image)
        };
        decision.basis = Some(desk.blank_basis(Kind::Container, kubernetes_namespace));
        let mut used = Used::default();
        let ruling = desk.rule(&case, &mut used);
        apply(&mut decision, ruling, used);
        watch.note(&mut decision, "evidence");
        Ok(())
    };
    if let Err(obstacle) = decide() {
        refuse(&mut decision, &obstacle);
    }
    decision
}

/// Judges an image that is about to be pulled: by its name and the digest that this stands for, and by what the evidence
/// cache holds of it. Where it will run is not known, so it is refused only where it would be in every namespace and as
/// every kind of container. Nothing is recorded.
#[must_use]
pub fn pull(config: Result<&Config, &Diagnostics>, name: &str, digest: Digest) -> Decision {
    let started = Instant::now();
    let mut decision = blank("", "");
    decision.name = printable(name).into_owned();
    let decided = guard(|| {
        let config = config.map_err(|faults| Obstacle::Config(first(faults)))?;
        let desk = Desk::open(config, started + config.admit_timeout / 10 * 9)?;
        let (image, is_known) = offered(&desk.evidence, name, digest);
        decision.image = Some(shown(&image));
        let case = desk.case(name, "", &image);
        let mut refused = None;
        let selections = desk.active.possible(Some(name), &ruling::digests(&image), is_known);
        for selection in &selections {
            let mut used = Used::default();
            let ruling = desk.ruled(&mut used, |ask| ruling::rule_by(&desk.active, &case, selection, ask));
            if ruling.verdict == Verdict::Allow {
                apply(&mut decision, ruling, used);
                return Ok(());
            }
            // The last rule is the one for whatever no other is for.
            if refused.is_none() || ruling.rule.is_some() {
                refused = Some((ruling, used));
            }
        }
        if let Some((ruling, used)) = refused {
            apply(&mut decision, ruling, used);
        }
        Ok(())
    });
    if let Err(obstacle) = decided {
        refuse(&mut decision, &obstacle);
    }
    decision
}

/// What is known of an image that is not there yet: its manifests for this node and its configuration, where the evidence
/// cache holds index and manifest, and whether it does. What is not known, the digest stands for.
fn offered(cache: &StateDir, name: &str, digest: Digest) -> (Image, bool) {
    use std::os::fd::AsFd as _;
    let layout = Layout::new(cache.as_fd());
    let document = |digest: Digest| layout.blob_by_digest(digest, oci::MAX_DOCUMENT).ok();
    let listed = document(digest).and_then(|document| comparison::listed(&document));
    let manifests = listed.clone().unwrap_or_else(|| vec![digest]);
    let config = manifests.first().and_then(|manifest| {
        let bytes = document(*manifest)?;
        let kinds = [oci::MANIFEST, oci::DOCKER_MANIFEST];
        let manifest = kinds.iter().find_map(|kind| Manifest::parse(&bytes, kind).ok())?;
        Some(manifest.config.digest)
    });
    let image = Image {
        name: name.to_owned(),
        config: config.unwrap_or(digest),
        indexes: if config.is_none() || listed.is_some() {
            vec![digest]
        } else {
            Vec::new()
        },
        manifests,
        chain_id: digest,
    };
    (image, config.is_some())
}

/// Says whether a grant opens a further process that the rule of a container refuses: one that is about it, says so, and
/// opens the container itself too where it would be refused now.
#[must_use]
pub fn open_exec(config: Result<&Config, &Diagnostics>, plea: &Plea) -> Opened {
    let started = Instant::now();
    let mut opened = Opened::new(plea);
    let decided = guard(|| {
        let config = config.map_err(|faults| Obstacle::Config(first(faults)))?;
        let Some(image) = &plea.image else { return Ok(()) };
        let desk = Desk::open(config, started + config.admit_timeout / 10 * 9)?;
        let digests = ruling::digests(image);
        let (held, until) = match desk.grants.opening(&digests, &plea.namespace, &plea.container, true) {
            Ok(found) => found,
            Err(notes) => {
                opened.notes = notes;
                return Ok(());
            }
        };
        // Whatever a rule refuses it opens; what is denied is so in every Kubernetes namespace.
        let case = Case {
            container: &plea.container,
            ..desk.case(&plea.name, &plea.namespace, image)
        };
        let ruling = desk.rule(&case, &mut Used::default());
        match ruling.verdict {
            Verdict::Allow => opened.grant = Some(held.granted(until, &plea.code, &plea.reason)),
            Verdict::Refuse => opened.notes.push(format!(
                "grant {} does not open it: {}: {}",
                held.grant.id, ruling.code, ruling.reason
            )),
        }
        Ok(())
    });
    if let Err(obstacle) = decided {
        opened.grant = None;
        opened.notes.push(printable(&obstacle.to_string()).into_owned());
    }
    opened
}

fn question<'a>(request: &'a Request, trail: &'a Trail, thorough: bool) -> Question<'a> {
    Question {
        containerd: &request.containerd,
        namespace: &request.namespace,
        container: &request.container,
        bundle: Path::new(&request.bundle),
        rootfs: &request.rootfs,
        checkpoint: request.checkpoint,
        thorough,
        trail,
    }
}

/// Runs the calls to containerd, until the deadline.
pub(super) fn block_on<T>(
    deadline: Instant,
    started: Instant,
    calls: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Obstacle> {
    block_on_in(&event_loop()?, deadline, started, calls)
}

pub(super) fn event_loop() -> Result<Runtime, Obstacle> {
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(Obstacle::Runtime)
}

/// As [`block_on`], for calls over one connection: it is gone with the event loop that it was made in.
pub(super) fn block_on_in<T>(
    runtime: &Runtime,
    deadline: Instant,
    started: Instant,
    calls: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Obstacle> {
    runtime
        .block_on(async { tokio::time::timeout_at(deadline.into(), calls).await })
        .map_err(|_| Obstacle::IdentityTimeout(started.elapsed()))?
        .map_err(Obstacle::Identity)
}

/// A decision that refuses until something says otherwise.
pub(super) fn blank(namespace: &str, container: &str) -> Decision {
    Decision {
        version: VERSION,
        time: Timestamp::now().to_string(),
        namespace: namespace.to_owned(),
        container: container.to_owned(),
        verdict: Verdict::Refuse,
        code: String::new(),
        reason: String::new(),
        fix: String::new(),
        policy: false,
        name: String::new(),
        pod: None,
        image: None,
        rule: None,
        audit: Vec::new(),
        evidence: Vec::new(),
        hooks: Vec::new(),
        devices: Vec::new(),
        repeated: false,
        phases: Vec::new(),
        edits: Edits::default(),
        view: None,
        files: None,
        syscalls: None,
        exec: None,
        grant: None,
        basis: None,
    }
}

pub(super) fn kind(identity: &Identity) -> Kind {
    if identity.record.sandbox {
        Kind::Sandbox
    } else {
        Kind::Container
    }
}

fn describe(decision: &mut Decision, identity: &Identity) {
    let listed = |list: &[String]| {
        list.iter()
            .take(MAX_LISTED)
            .map(|item| printable(item).into_owned())
            .collect()
    };
    decision.name = printable(&identity.record.image).into_owned();
    decision.pod.clone_from(&identity.record.pod);
    decision.image = identity.root.as_ref().ok().map(shown);
    decision.hooks = listed(&identity.hooks);
    decision.devices = listed(&identity.devices);
}

pub(super) fn shown(image: &Image) -> Image {
    Image {
        name: printable(&image.name).into_owned(),
        ..image.clone()
    }
}

pub(super) fn apply(decision: &mut Decision, ruling: Ruling, used: Used) {
    decision.repeated = used.repeated == Some(true);
    if let (Some(basis), Verdict::Allow) = (&mut decision.basis, ruling.verdict) {
        basis.blobs = used.blobs.into_iter().collect();
    }
    decision.verdict = ruling.verdict;
    decision.code = ruling.code;
    decision.reason = ruling.reason;
    decision.fix = ruling.fix;
    decision.policy = ruling.policy;
    decision.rule = ruling.rule;
    decision.audit = ruling.audit;
    decision.evidence = ruling.evidence;
    decision.edits = ruling.edits;
    decision.exec = ruling.exec;
    decision.grant = ruling.grant;
}

pub(super) fn refuse(decision: &mut Decision, obstacle: &Obstacle) {
    decision.verdict = Verdict::Refuse;
    obstacle.code().clone_into(&mut decision.code);
    decision.reason = printable(&obstacle.to_string()).into_owned();
    decision.fix = obstacle.fix();
    decision.policy = false;
    decision.rule = None;
    decision.grant = None;
    decision.repeated = false;
}

fn first(faults: &Diagnostics) -> String {
    faults.0.first().map(|fault| fault.line()).unwrap_or_default()
}

/// What a panic said.
fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "it panicked".to_owned())
}

/// Notes how long each phase took.
pub(super) struct Stopwatch(Instant);

impl Stopwatch {
    pub(super) fn note(&mut self, decision: &mut Decision, phase: &str) {
        self.note_part(decision, phase, self.0.elapsed());
    }

    /// Notes a part of the phase that is under way as one of its own.
    pub(super) fn note_part(&mut self, decision: &mut Decision, phase: &str, spent: Duration) {
        let micros = u64::try_from(spent.as_micros()).unwrap_or(u64::MAX);
        match decision.phases.iter_mut().find(|(name, _)| name == phase) {
            Some((_, spent)) => *spent = spent.saturating_add(micros),
            None => decision.phases.push((phase.to_owned(), micros)),
        }
        self.0 += spent;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(obstacle: &Obstacle) -> Decision {
        let mut decision = blank("k8s.io", "c");
        decision.verdict = Verdict::Allow;
        refuse(&mut decision, obstacle);
        decision
    }

    #[test]
    fn a_panic_is_a_refusal() {
        let obstacle = guard(|| panic!("index out of bounds\u{1b}")).unwrap_err();
        let decision = refusal(&obstacle);
        assert_eq!(
            (decision.verdict, decision.code.as_str()),
            (Verdict::Refuse, "internal-panic")
        );
        insta::assert_snapshot!(decision.line(), @r"assay refused: internal-panic: assay admit has a fault: index out of bounds\u{1b}; to fix: report it with the decision log; the container was not started");
        assert!(guard(|| Ok(())).is_ok());
    }

    #[test]
    fn a_full_disk_has_a_code_of_its_own() {
        let full = || store::Error::Full {
            path: "/var/lib/assay/decisions.jsonl".into(),
        };
        insta::assert_snapshot!(refusal(&Obstacle::Log(full())).line(), @"assay refused: state-full: the decision cannot be recorded: cannot write /var/lib/assay/decisions.jsonl: no space left; free some on this file system and try again; to fix: free space on the file system of Assay's state directory");
        assert_eq!(refusal(&Obstacle::State(full())).code, "state-full");
        let other = store::Error::Name { name: String::new() };
        assert_eq!(refusal(&Obstacle::Log(other)).code, "state-unwritable");
    }

    #[test]
    fn nothing_is_allowed_before_something_says_so() {
        assert_eq!(blank("", "").verdict, Verdict::Refuse);
    }
}
