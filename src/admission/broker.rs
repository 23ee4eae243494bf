//! The way of one request: policy, identity, evidence, ruling, log.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use serde::Serialize;
use tokio::runtime::Runtime;

use super::analysis::Analysis;
use super::comparison;
use super::exec::{Opened, Plea};
use super::filter::{self, Syscalls};
use super::journal::Told as _;
use super::log;
use super::memo::Inputs;
use super::minimize::{self, Shown};
use super::needs::Needs;
use super::parser::{self, ParserFault};
use super::roots;
use super::ruling::{self, Case, Ruling};
use super::trail;
use super::{Basis, Decision, Edits, Files, InvalidRequest, Request, VERSION, Verdict, Volume};
use crate::config::Config;
use crate::diagnostic::{Diagnostics, printable};
use crate::digest::Digest;
use crate::grant::Grants;
use crate::identity::{self, Fault, Identity, Image, Question, Trail, Upper, Workload};
use crate::oci::{self, Layout, Manifest};
use crate::policy::activate::{LoadError, load_active};
use crate::policy::{Active, Kind, Mode, Seccomp, SeccompMode, Tuning, Unavailable};
use crate::runtime::{self, Base};
use crate::seccomp::{self, Profile};
use crate::store::{self, StateDir};
use crate::trust::clock::Clock;
use crate::verify::{Answer, TimeSource};

/// Folder of the evidence cache below `state`.
pub(super) const EVIDENCE: &str = "evidence";
/// Largest blob of evidence that is read again, in bytes.
const MAX_BLOB: u64 = 64 << 20;
/// How long a person waits for the needs of an image.
const LOOK_TIME: Duration = Duration::from_secs(60);
/// Most hooks, and most devices, that a decision lists.
const MAX_LISTED: usize = 64;

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

    fn fix(&self) -> String {
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
fn guard(decide: impl FnOnce() -> Result<(), Obstacle>) -> Result<(), Obstacle> {
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

/// What is looked at without being started.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Path of containerd's socket.
    pub containerd: &'a str,
    /// containerd namespace.
    pub namespace: &'a str,
    /// An image by the name that a pod would use, or a container by its id.
    pub name: &'a str,
    /// Kubernetes namespace of the pod whose rules apply to an image.
    pub kubernetes_namespace: Option<&'a str>,
    /// A path in the image whose reason is asked for.
    pub explain: Option<&'a str>,
    /// Whether every name of the image is to be listed, and the digest of the view to be found out.
    pub survey: bool,
    /// Whether it is asked for the system calls: then all that its rule lets it see counts.
    pub calls: bool,
}

/// What was found out about a [`Subject`].
#[derive(Debug)]
pub struct Looked {
    /// How it would be judged.
    pub decision: Decision,
    /// What it needs of its image.
    pub needs: Needs,
    /// Whether a rule would show it only that, and by which word.
    pub mode: Mode,
    /// Its system calls, where they were asked for.
    pub calls: Option<filter::Shown>,
}

/// The image that a name stands for in containerd.
///
/// # Errors
/// In words, with what to do next.
pub fn image(containerd: &str, namespace: &str, name: &str) -> Result<Image, (String, String)> {
    let started = Instant::now();
    block_on(
        started + LOOK_TIME,
        started,
        identity::image(containerd, namespace, name),
    )
    .map_err(|obstacle| (printable(&obstacle.to_string()).into_owned(), obstacle.fix()))
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

/// The processes of a container that runs, as the node numbers them; `None` where no such container runs.
///
/// # Errors
/// In words, with what to do next.
pub fn processes(containerd: &str, namespace: &str, container: &str) -> Result<Option<Vec<u32>>, (String, String)> {
    let started = Instant::now();
    let asked = identity::processes(containerd, namespace, container);
    block_on(started + LOOK_TIME, started, asked)
        .map_err(|obstacle| (printable(&obstacle.to_string()).into_owned(), obstacle.fix()))
}

/// Finds out what a container, or one of an image that nobody changes anything about, needs of its image: by the SBOM on
/// which its verdict rests, else by the package databases in the image. The decision says how it was judged; a refusal
/// does not keep anybody from looking.
///
/// # Errors
/// In words, with what to do next.
pub fn look(config: &Config, subject: Subject<'_>) -> Result<Looked, (String, String)> {
    let started = Instant::now();
    let deadline = started + LOOK_TIME;
    let obstacle = |obstacle: Obstacle| (printable(&obstacle.to_string()).into_owned(), obstacle.fix());
    let Subject {
        containerd,
        namespace,
        name,
        ..
    } = subject;
    let recorded = block_on(deadline, started, async {
        match identity::recorded(containerd, namespace, name).await {
            Err(Fault::ContainerUnknown(_)) => Ok(None),
            other => other.map(Some),
        }
    })
    .map_err(obstacle)?;
    let (image_name, kubernetes_namespace) = match &recorded {
        Some((record, _)) => (record.image.as_str(), record.kubernetes_namespace.as_deref()),
        None => (name, subject.kubernetes_namespace),
    };
    let desk = Desk::open(config, deadline).map_err(obstacle)?;
    let image = block_on(deadline, started, identity::image(containerd, namespace, image_name)).map_err(obstacle)?;
    let workload = match &recorded {
        Some((_, workload)) => workload.clone(),
        None => block_on(deadline, started, identity::defaults(containerd, namespace, &image)).map_err(obstacle)?,
    };
    let case = Case {
        kubernetes_namespace,
        container: if recorded.is_some() { name } else { "" },
        workload: Some(&workload),
        ..desk.case(image_name, namespace, &image)
    };
    let mut used = Used::default();
    let ruling = desk.rule(&case, &mut used);
    let runtime = event_loop().map_err(obstacle)?;
    let unpacking = identity::unpacked(containerd, namespace, &image);
    let unpacked = block_on_in(&runtime, deadline, started, unpacking).map_err(obstacle)?;
    let blobs: Vec<Digest> = used.blobs.iter().copied().collect();
    let needs = desk.minimizing().and_then(|minimizing| {
        let case = minimize::Case {
            image: &image,
            rootfs: &unpacked.mounts,
            workload: &workload,
            filesystem: &ruling.filesystem,
            everything: subject.calls && ruling.filesystem.mode != Mode::Enforce,
            calls: subject.calls,
            read_only: true,
            needs_sbom: ruling.needs_sbom,
            sbom: ruling.sbom,
            blobs: &blobs,
        };
        let words = |unseen: minimize::Unseen| (printable(&unseen.to_string()).into_owned(), unseen.fix().to_owned());
        let needs = minimize::look(&minimizing, &case, subject.explain, subject.survey).map_err(words)?;
        let shown = if subject.survey {
            Some(minimize::view(&minimizing, &case, &needs.0).map_err(words)?)
        } else {
            None
        };
        Ok((needs, shown))
    });
    // If this fails, the snapshot goes with its lease.
    let _ = block_on_in(&runtime, deadline, started, async {
        unpacked.release().await;
        Ok(())
    });
    let ((needs, analysis), seen) = needs?;
    let calls = match analysis {
        Some(analysis) => Some(desk.show_calls(&ruling, &workload, &config.oci_runtime, analysis)?),
        None => None,
    };
    let mut decision = blank(namespace, "");
    decision.name = printable(image_name).into_owned();
    decision.image = Some(shown(&image));
    let mode = ruling.filesystem.mode;
    apply(&mut decision, ruling, used);
    (decision.view, decision.files) = seen.unzip();
    Ok(Looked {
        decision,
        needs,
        mode,
        calls,
    })
}

/// An image that will be started.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// Path of containerd's socket.
    pub containerd: &'a str,
    /// containerd namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Kubernetes namespaces that its containers may be in; `None` outside of Kubernetes.
    pub kubernetes: &'a [Option<String>],
    /// Id of a container that has what every container of this namespace has mounted.
    pub like: Option<&'a str>,
}

/// Why an image was not prepared.
#[derive(Debug, thiserror::Error)]
pub enum Unprepared {
    /// Its layers are not there yet.
    #[error("{0}")]
    Early(String),
    /// A container of it would be refused.
    #[error("{0}")]
    Refused(String),
    /// Something stands in the way.
    #[error("{0}")]
    Obstacle(String),
}

/// Does what the first container of an image would have to wait for, so that it is decided on as quickly as the next
/// one: judges the image, builds the view and derives the system calls of a container that starts what the image says.
/// Nothing is recorded, and nothing that is made here is believed unseen: it is found by the same keys.
///
/// # Errors
/// See [`Unprepared`].
pub fn prepare(config: &Config, expected: &Expected<'_>) -> Result<(), Unprepared> {
    let started = Instant::now();
    let deadline = started + LOOK_TIME;
    let Expected {
        containerd,
        namespace,
        name,
        kubernetes,
        like,
    } = *expected;
    let obstacle = |obstacle: Obstacle| {
        let text = printable(&obstacle.to_string()).into_owned();
        match obstacle {
            Obstacle::Identity(Fault::NotUnpacked(_) | Fault::ContentMissing { .. }) => Unprepared::Early(text),
            _ => Unprepared::Obstacle(text),
        }
    };
    let desk = Desk::open(config, deadline).map_err(obstacle)?;
    let image = block_on(deadline, started, identity::image(containerd, namespace, name)).map_err(obstacle)?;
    let mut workload =
        block_on(deadline, started, identity::defaults(containerd, namespace, &image)).map_err(obstacle)?;
    if let Some(like) = like {
        // It may be gone; then only the kernel's own file systems are missing among the roots.
        if let Ok((_, other)) = block_on(deadline, started, identity::recorded(containerd, namespace, like)) {
            workload.mounts = other.mounts.into_iter().filter(roots::is_of_every_container).collect();
        }
    }
    let mut refused = None;
    let mut narrowed: Vec<(Ruling, Used)> = Vec::new();
    for kubernetes_namespace in kubernetes {
        // What it is allowed to be is for its own pod to say.
        let case = Case {
            kubernetes_namespace: kubernetes_namespace.as_deref(),
            ..desk.case(name, namespace, &image)
        };
        let mut used = Used::default();
        let ruling = desk.rule(&case, &mut used);
        let narrows = ruling.filesystem.mode != Mode::Off || ruling.seccomp.mode != SeccompMode::Off;
        let is_new = || {
            let alike = |known: &Ruling| {
                let key = |ruling: &Ruling| {
                    (
                        ruling.seccomp.mode,
                        ruling.needs_sbom,
                        ruling.sbom,
                        ruling.attested.is_some(),
                    )
                };
                known.filesystem == ruling.filesystem && key(known) == key(&ruling)
            };
            !narrowed.iter().any(|(known, _)| alike(known))
        };
        if ruling.verdict == Verdict::Refuse {
            refused = Some(format!("{}: {}", ruling.code, ruling.reason));
        } else if narrows && is_new() {
            narrowed.push((ruling, used));
        }
    }
    if narrowed.is_empty() {
        return refused.map_or(Ok(()), |why| Err(Unprepared::Refused(why)));
    }
    let runtime = event_loop().map_err(obstacle)?;
    let unpacking = identity::unpacked(containerd, namespace, &image);
    let unpacked = block_on_in(&runtime, deadline, started, unpacking).map_err(obstacle)?;
    let done = desk
        .minimizing()
        .map_err(|(reason, _)| Unprepared::Obstacle(reason))
        .and_then(|minimizing| {
            narrowed
                .iter()
                .try_for_each(|(ruling, used)| ready(&minimizing, &image, &workload, &unpacked.mounts, ruling, used))
        });
    // If this fails, the snapshot goes with its lease.
    let _ = block_on_in(&runtime, deadline, started, async {
        unpacked.release().await;
        Ok(())
    });
    done
}

/// Makes what a container under this ruling sees and calls.
fn ready(
    desk: &minimize::Desk<'_>,
    image: &Image,
    workload: &Workload,
    rootfs: &[identity::Mount],
    ruling: &Ruling,
    used: &Used,
) -> Result<(), Unprepared> {
    let blobs: Vec<Digest> = used.blobs.iter().copied().collect();
    let case = minimize::Case {
        image,
        rootfs,
        workload,
        filesystem: &ruling.filesystem,
        everything: ruling.filesystem.mode != Mode::Enforce,
        calls: ruling.seccomp.mode != SeccompMode::Off && ruling.attested.is_none(),
        read_only: true,
        needs_sbom: ruling.needs_sbom,
        sbom: ruling.sbom,
        blobs: &blobs,
    };
    let unseen = |unseen: minimize::Unseen| Unprepared::Obstacle(printable(&unseen.to_string()).into_owned());
    if ruling.filesystem.mode == Mode::Audit {
        minimize::watch(desk, &case).map_err(unseen)?;
    }
    if case.everything && !case.calls {
        return Ok(());
    }
    match minimize::show(desk, &case).map_err(unseen)? {
        Shown::Found(_) => Ok(()),
        Shown::Refused { code, reason, .. } => Err(Unprepared::Refused(format!("{code}: {reason}"))),
    }
}

/// What became of a recorded allow: whether its evidence is still there, and what would be decided now.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Recheck {
    /// Blobs of the evidence cache that are not what they were, and why.
    pub lost: Vec<(Digest, String)>,
    /// Whether the active policy is the one of the decision.
    pub same_policy: bool,
    /// What would be decided now about the same image.
    pub decision: Decision,
}

/// Judges what `recorded` was about again: its evidence is read anew, by a parser, under the policy that is active now.
/// containerd is not asked, nothing is recorded, and nothing that was remembered counts. `None` where the record does
/// not say what was decided about.
#[must_use]
pub fn recheck(config: &Config, recorded: &Decision) -> Option<Recheck> {
    let (basis, image) = (recorded.basis.as_ref()?, recorded.image.as_ref()?);
    let started = Instant::now();
    let mut decision = blank(&recorded.namespace, &recorded.container);
    decision.name.clone_from(&recorded.name);
    decision.image = Some(image.clone());
    let mut lost = Vec::new();
    let mut same_policy = false;
    let decided = guard(|| {
        let mut desk = Desk::open(config, started + config.admit_timeout)?;
        desk.run = None;
        same_policy = desk.policy == basis.policy;
        lost = desk.lost(&basis.blobs);
        decision.basis = Some(Basis {
            upper: basis.upper.clone(),
            volumes: basis.volumes.clone(),
            ..desk.blank_basis(basis.kind, basis.kubernetes_namespace.as_deref())
        });
        let mut used = Used::default();
        let ruling = rule_again(recorded, basis, image, (desk.clock, &desk.grants), &mut |case| {
            desk.rule(case, &mut used)
        });
        apply(&mut decision, ruling, used);
        Ok(())
    });
    if let Err(obstacle) = decided {
        refuse(&mut decision, &obstacle);
    }
    Some(Recheck {
        lost,
        same_policy,
        decision,
    })
}

/// Rules on what was decided about before: the image of the container first, then each image volume, as `rule` does.
pub(super) fn rule_again(
    recorded: &Decision,
    basis: &Basis,
    image: &Image,
    (clock, grants): (Clock, &Grants),
    rule: &mut dyn FnMut(&Case<'_>) -> Ruling,
) -> Ruling {
    let root = Case {
        name: &recorded.name,
        kubernetes_namespace: basis.kubernetes_namespace.as_deref(),
        namespace: &recorded.namespace,
        container: &recorded.container,
        kind: basis.kind,
        image: Some(image),
        fault: None,
        upper: Upper::Empty,
        workload: None,
        seen: &[],
        clock,
        grants,
    };
    let mut ruling = rule(&root);
    for volume in &basis.volumes {
        if ruling.verdict == Verdict::Refuse {
            break;
        }
        let name = volume.image.as_ref().map_or("", |image| image.name.as_str());
        let case = Case {
            name,
            kind: Kind::Volume,
            image: volume.image.as_ref(),
            ..root
        };
        ruling = with_volume(ruling, &volume.destination, name, rule(&case));
    }
    ruling
}

/// Everything that a ruling needs beside the case.
struct Desk {
    state: StateDir,
    /// Without one, nothing is remembered.
    run: Option<StateDir>,
    /// Path of that, also where it cannot be used.
    run_directory: PathBuf,
    evidence: StateDir,
    active: Active,
    policy: Digest,
    clock: Clock,
    grants: Grants,
    deadline: Instant,
}

impl Desk {
    fn open(config: &Config, deadline: Instant) -> Result<Self, Obstacle> {
        let state = StateDir::open(&config.state).map_err(Obstacle::State)?;
        let (active, policy) = load_active(&state)?;
        let clock = Clock::read(&state);
        Ok(Self {
            evidence: state.subdir(EVIDENCE).map_err(Obstacle::State)?,
            run: StateDir::open(&config.run).ok(),
            run_directory: config.run.clone(),
            grants: Grants::load(&state, &active, clock),
            clock,
            state,
            active,
            policy,
            deadline,
        })
    }

    /// The root file system of a container.
    fn root<'a>(&'a self, request: &'a Request, identity: &'a Identity) -> Case<'a> {
        Case {
            name: &identity.record.image,
            kubernetes_namespace: identity.record.kubernetes_namespace.as_deref(),
            namespace: &request.namespace,
            container: &request.container,
            kind: kind(identity),
            image: identity.root.as_ref().ok(),
            fault: identity.root.as_ref().err().or(identity.volumes.as_ref().err()),
            upper: identity.upper,
            workload: Some(&identity.workload),
            seen: &identity.seen,
            clock: self.clock,
            grants: &self.grants,
        }
    }

    /// The root file system first, then each image volume; one refusal is enough.
    fn rule_on(&self, request: &Request, identity: &Identity, used: &mut Used) -> Ruling {
        let root = self.root(request, identity);
        let mut ruling = self.rule(&root, used);
        for volume in identity.volumes.iter().flatten() {
            if ruling.verdict == Verdict::Refuse {
                break;
            }
            let case = Case {
                name: &volume.name,
                kind: Kind::Volume,
                image: volume.image.as_ref().ok(),
                fault: volume.image.as_ref().err(),
                upper: Upper::Empty,
                workload: None,
                seen: &[],
                ..root
            };
            let of_volume = self.rule(&case, used);
            ruling = with_volume(ruling, &volume.destination, &volume.name, of_volume);
        }
        ruling
    }

    /// Rules on one case.
    fn rule(&self, case: &Case<'_>, used: &mut Used) -> Ruling {
        self.ruled(used, |ask| ruling::rule(&self.active, case, ask))
    }

    /// Has something ruled on with what the evidence says.
    fn ruled(
        &self,
        used: &mut Used,
        rule: impl FnOnce(&mut dyn FnMut(&[Digest]) -> Result<Answer, ParserFault>) -> Ruling,
    ) -> Ruling {
        let mut fresh = None;
        let ruling = rule(&mut |subjects| {
            let inputs = Inputs::new(self.policy, &self.evidence, subjects);
            let recalled = self
                .run
                .as_ref()
                .zip(inputs.as_ref())
                .and_then(|(run, inputs)| inputs.recall(run, &self.evidence, self.clock.now));
            used.repeated = Some(recalled.is_some() && used.repeated.unwrap_or(true));
            if let Some(judged) = recalled {
                used.blobs.extend(judged.blobs);
                return Ok(judged.answer);
            }
            let asked = SystemTime::now();
            let judged = self.ask(subjects)?;
            used.blobs.extend(&judged.blobs);
            let answer = judged.answer.clone();
            fresh = inputs.map(|inputs| (inputs, judged, asked));
            Ok(answer)
        });
        // A refusal is decided anew each time, so that evidence that arrives is seen at once.
        if let (Verdict::Allow, Some((inputs, judged, asked)), Some(run)) = (ruling.verdict, fresh, &self.run) {
            // An answer that cannot be kept is asked for again; nothing else depends on it.
            let _ = inputs.keep(run, &self.evidence, &judged, asked);
        }
        ruling
    }

    /// The desk for views.
    fn minimizing(&self) -> Result<minimize::Desk<'_>, (String, String)> {
        let run = self.run.as_ref().ok_or_else(|| {
            let why = StateDir::open(&self.run_directory).err();
            (
                why.map_or_else(
                    || "the directory for what dies with the boot could not be used".to_owned(),
                    |why| format!("the directory for what dies with the boot cannot be used: {why}"),
                ),
                "make the directory `run` of config.toml root's own, mode 0700, and writable".to_owned(),
            )
        })?;
        Ok(minimize::Desk {
            state: &self.state,
            run,
            evidence: &self.evidence,
            deadline: self.deadline,
            rules: &self.active.closure,
        })
    }

    /// Gives an allowed container its view and its profile, or makes a refusal of it; where its rule only audits files,
    /// says what is to be watched.
    fn show(
        &self,
        request: &Request,
        identity: &Identity,
        ruling: &mut Ruling,
        used: &Used,
        decision: &mut Decision,
        watch: &mut Stopwatch,
    ) {
        // What was not proved to be an image is not allowed by a rule that has a view.
        let Ok(image) = &identity.root else { return };
        let desk = match self.minimizing() {
            Ok(desk) => desk,
            Err((reason, _)) if ruling.filesystem.mode == Mode::Audit => {
                decision.files = Some(Files {
                    unavailable: reason,
                    ..Files::default()
                });
                return;
            }
            Err((reason, fix)) => {
                *ruling = ruling.instead("state-unusable", reason, &fix, false);
                return;
            }
        };
        let wanted = ruling.seccomp.mode != SeccompMode::Off;
        let complains = ruling.seccomp.mode == SeccompMode::Complain;
        let filter = wanted
            .then(|| self.filter(&request.runtime, &identity.workload, ruling))
            .transpose();
        let filter = match filter {
            Ok(filter) => filter,
            Err((_, reason, _)) if complains => {
                decision.syscalls = Some(Syscalls::unheard(reason));
                None
            }
            Err((code, reason, fix)) => {
                *ruling = ruling.instead(code, reason, fix, false);
                return;
            }
        };
        let blobs: Vec<Digest> = used.blobs.iter().copied().collect();
        let case = minimize::Case {
            image,
            rootfs: &request.rootfs,
            workload: &identity.workload,
            filesystem: &ruling.filesystem,
            everything: ruling.filesystem.mode != Mode::Enforce,
            calls: filter
                .as_ref()
                .is_some_and(|filter| !filter.is_left_alone && filter.attested.is_none()),
            read_only: identity.workload.read_only_root || ruling.edits.read_only_root,
            needs_sbom: ruling.needs_sbom,
            sbom: ruling.sbom,
            blobs: &blobs,
        };
        if ruling.filesystem.mode == Mode::Audit {
            decision.files = Some(match minimize::watch(&desk, &case) {
                Ok(mut files) => {
                    if let Some(audit) = &mut files.audit {
                        audit.rule.clone_from(&ruling.files_rule);
                    }
                    files
                }
                Err(unseen) => Files {
                    unavailable: printable(&unseen.to_string()).into_owned(),
                    ..Files::default()
                },
            });
        }
        let shown = if case.everything && !case.calls {
            Ok(Shown::Found(Box::default()))
        } else {
            minimize::show(&desk, &case)
        };
        let calls = match shown {
            Ok(Shown::Found(found)) => {
                if let Some((view, files)) = found.view {
                    decision.view = Some(view);
                    decision.files = Some(files);
                }
                if case.calls {
                    watch.note_part(decision, "calls", found.analysis);
                }
                found.calls
            }
            Ok(Shown::Refused { reason, .. }) if case.everything && complains => Some(Analysis::incomplete(&reason)),
            Ok(Shown::Refused { code, reason, fix }) => {
                *ruling = ruling.instead(code, reason, fix.as_str(), true);
                return;
            }
            // Without a view nothing is lost but the knowledge of the calls.
            Err(unseen) if case.everything => Some(Analysis::incomplete(&unseen.to_string())),
            Err(unseen) if ruling.filesystem.unavailable == Unavailable::Full => {
                decision.files = Some(Files {
                    unavailable: printable(&unseen.to_string()).into_owned(),
                    ..Files::default()
                });
                let all = minimize::Case {
                    everything: true,
                    ..case
                };
                case.calls.then(|| match minimize::show(&desk, &all) {
                    Ok(Shown::Found(found)) => found.calls.unwrap_or_default(),
                    Ok(Shown::Refused { reason, .. }) => Analysis::incomplete(&reason),
                    Err(unseen) => Analysis::incomplete(&unseen.to_string()),
                })
            }
            Err(unseen) => {
                *ruling = ruling.instead(
                    unseen.code(),
                    printable(&unseen.to_string()).into_owned(),
                    unseen.fix(),
                    false,
                );
                return;
            }
        };
        if let Some(filter) = filter
            && let Err((code, reason, fix, is_policy)) =
                self.compose(request, &filter, calls.unwrap_or_default(), ruling, decision)
        {
            *ruling = ruling.instead(code, reason, fix, is_policy);
        }
    }

    /// What a profile is made for.
    fn filter(
        &self,
        runtime: &str,
        workload: &Workload,
        ruling: &Ruling,
    ) -> Result<Filter, (&'static str, String, &'static str)> {
        let own = workload.seccomp.as_deref();
        let own = own
            .map(|own| Profile::parse(own.as_bytes()))
            .transpose()
            .map_err(|error| {
                (
                    "seccomp-unreadable",
                    format!("the seccomp profile of its specification cannot be narrowed: {error}"),
                    "correct the profile that the pod's securityContext names",
                )
            })?;
        let mut filter = Filter {
            own,
            capabilities: workload.process.capabilities.bounding.clone(),
            no_new_privileges: workload.process.no_new_privileges || ruling.edits.no_new_privileges,
            runtime: runtime.to_owned(),
            // A measurement that cannot be read is one that was never made.
            measured: runtime::measured(&self.state).unwrap_or_default(),
            tunings: ruling.tunings.clone(),
            attested: ruling.attested.clone(),
            is_left_alone: false,
        };
        filter.is_left_alone = filter.subject().is_left_alone(&ruling.seccomp);
        Ok(filter)
    }

    /// The calls of a container for a person; by a rule without a word about them, as one with nothing but the mode.
    fn show_calls(
        &self,
        ruling: &Ruling,
        workload: &Workload,
        runtime: &str,
        analysis: Analysis,
    ) -> Result<filter::Shown, (String, String)> {
        let filter = self
            .filter(runtime, workload, ruling)
            .map_err(|(_, reason, fix)| (reason, fix.to_owned()))?;
        let rule = match ruling.seccomp.mode {
            SeccompMode::Off => Seccomp {
                mode: SeccompMode::Enforce,
                ..Seccomp::default()
            },
            SeccompMode::Enforce | SeccompMode::Complain => ruling.seccomp.clone(),
        };
        filter::show(&rule, &filter.subject(), analysis).map_err(|reason| (reason, String::new()))
    }

    /// Makes the profile of a container part of its edits.
    fn compose(
        &self,
        request: &Request,
        filter: &Filter,
        calls: Analysis,
        ruling: &mut Ruling,
        decision: &mut Decision,
    ) -> Result<(), (&'static str, String, &'static str, bool)> {
        let (mut profile, mut syscalls) =
            filter::compose(&ruling.seccomp, &filter.subject(), calls).map_err(|reason| {
                (
                    "syscalls-incomplete",
                    reason,
                    "set incomplete = \"fallback\" in the rule's [rule.seccomp], or see: assay seccomp show IMAGE",
                    true,
                )
            })?;
        let complains = ruling.seccomp.mode == SeccompMode::Complain;
        if complains {
            let socket = seccomp::listener(&self.run_directory, &request.namespace, &request.container);
            let listener = socket.to_str().filter(|_| !request.checkpoint);
            let complaining = filter::complain(profile.as_ref(), &filter.subject(), listener);
            profile = complaining.map_err(|why| why.clone_into(&mut syscalls.unheard)).ok();
        }
        match profile.as_ref().map(|profile| filter::keep(&self.state, profile)) {
            Some(Ok(digest)) => ruling.edits.seccomp = Some(digest),
            Some(Err(error)) if complains => syscalls.unheard = format!("its profile cannot be kept: {error}"),
            Some(Err(error)) => {
                return Err((
                    "state-unwritable",
                    format!("its seccomp profile cannot be kept: {error}"),
                    "an administrator makes the state directory root's own, mode 0700, and writable",
                    false,
                ));
            }
            None => {}
        }
        syscalls.profile = ruling.edits.seccomp;
        decision.syscalls = Some(syscalls);
        Ok(())
    }

    fn ask(&self, subjects: &[Digest]) -> Result<parser::Judged, ParserFault> {
        use std::os::fd::AsFd as _;
        let question = self.active.question(subjects, self.clock.now);
        parser::ask(self.evidence.as_fd(), &question, self.deadline)
    }

    /// The blobs that cannot be read any more, or are not what they were.
    fn lost(&self, blobs: &[Digest]) -> Vec<(Digest, String)> {
        use std::os::fd::AsFd as _;
        let layout = Layout::new(self.evidence.as_fd());
        let read = |blob: &Digest| layout.blob_by_digest(*blob, MAX_BLOB).err();
        blobs
            .iter()
            .filter_map(|blob| read(blob).map(|error| (*blob, printable(&error.to_string()).into_owned())))
            .collect()
    }

    fn record(&self, decision: &Decision) -> Result<(), store::Error> {
        log::record(&self.state, decision)
    }

    /// What an allow rests on was vouched for at times that have passed.
    fn advance_clock(&self, decision: &Decision) {
        if decision.verdict != Verdict::Allow || decision.repeated {
            return;
        }
        let times = decision.evidence.iter().flat_map(|fact| &fact.proof.times);
        if let Some(latest) = times.max_by_key(|time| time.time) {
            let source = match latest.source {
                TimeSource::Log => "a transparency log",
                TimeSource::Timestamp => "a timestamp authority",
            };
            // The decision is made and recorded; the next one that learns a time tries again.
            let _ = self.clock.advance(&self.state, latest.time, source);
        }
    }

    /// An image by itself: no container, no pod, nothing written.
    fn case<'a>(&'a self, name: &'a str, namespace: &'a str, image: &'a Image) -> Case<'a> {
        Case {
            name,
            kubernetes_namespace: None,
            namespace,
            container: "",
            kind: Kind::Container,
            image: Some(image),
            fault: None,
            upper: Upper::Empty,
            workload: None,
            seen: &[],
            clock: self.clock,
            grants: &self.grants,
        }
    }

    fn blank_basis(&self, kind: Kind, kubernetes_namespace: Option<&str>) -> Basis {
        Basis {
            generation: self.active.generation,
            policy: self.policy,
            roots: self
                .active
                .roots
                .iter()
                .map(|root| (root.id.clone(), root.digest))
                .collect(),
            kind,
            kubernetes_namespace: kubernetes_namespace.map(|name| printable(name).into_owned()),
            upper: None,
            volumes: Vec::new(),
            blobs: Vec::new(),
        }
    }

    fn basis(&self, request: &Request, identity: &Identity) -> Basis {
        let upper = request.rootfs.iter().find_map(|mount| mount.option("upperdir"));
        let volumes = identity.volumes.iter().flatten().take(MAX_LISTED);
        Basis {
            upper: upper.map(|path| printable(path).into_owned()),
            volumes: volumes
                .map(|volume| Volume {
                    destination: printable(&volume.destination).into_owned(),
                    image: volume.image.as_ref().ok().map(|image| {
                        shown(&Image {
                            name: volume.name.clone(),
                            ..image.clone()
                        })
                    }),
                })
                .collect(),
            ..self.blank_basis(kind(identity), identity.record.kubernetes_namespace.as_deref())
        }
    }
}

/// What a profile is made for.
struct Filter {
    own: Option<Profile>,
    capabilities: Vec<String>,
    no_new_privileges: bool,
    runtime: String,
    measured: Vec<Base>,
    tunings: Vec<Tuning>,
    attested: Option<BTreeSet<String>>,
    is_left_alone: bool,
}

impl Filter {
    fn subject(&self) -> filter::Subject<'_> {
        filter::Subject {
            own: self.own.as_ref(),
            capabilities: &self.capabilities,
            no_new_privileges: self.no_new_privileges,
            runtime: &self.runtime,
            measured: &self.measured,
            tunings: &self.tunings,
            attested: self.attested.as_ref(),
        }
    }
}

/// What a decision used to come about.
#[derive(Default)]
struct Used {
    /// Whether all answers were remembered ones; `None` when nothing was asked.
    repeated: Option<bool>,
    blobs: BTreeSet<Digest>,
}

/// The ruling on a container with one more image volume.
fn with_volume(mut ruling: Ruling, destination: &str, name: &str, mut of_volume: Ruling) -> Ruling {
    ruling.audit.append(&mut of_volume.audit);
    ruling.evidence.append(&mut of_volume.evidence);
    ruling.span = ruling.span.and(of_volume.span);
    let name = if name.is_empty() {
        String::new()
    } else {
        format!(" ({})", printable(name))
    };
    of_volume.reason = format!(
        "its image volume at {}{name}: {}",
        printable(destination),
        of_volume.reason
    );
    if of_volume.verdict == Verdict::Allow {
        if let (None, Some(granted)) = (&ruling.grant, of_volume.grant) {
            (ruling.code, ruling.reason) = (of_volume.code, of_volume.reason);
            ruling.grant = Some(granted);
        }
        return ruling;
    }
    Ruling {
        audit: ruling.audit,
        evidence: ruling.evidence,
        ..of_volume
    }
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

fn event_loop() -> Result<Runtime, Obstacle> {
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(Obstacle::Runtime)
}

/// As [`block_on`], for calls over one connection: it is gone with the event loop that it was made in.
fn block_on_in<T>(
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
fn blank(namespace: &str, container: &str) -> Decision {
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

fn kind(identity: &Identity) -> Kind {
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

fn shown(image: &Image) -> Image {
    Image {
        name: printable(&image.name).into_owned(),
        ..image.clone()
    }
}

fn apply(decision: &mut Decision, ruling: Ruling, used: Used) {
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

fn refuse(decision: &mut Decision, obstacle: &Obstacle) {
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
struct Stopwatch(Instant);

impl Stopwatch {
    fn note(&mut self, decision: &mut Decision, phase: &str) {
        self.note_part(decision, phase, self.0.elapsed());
    }

    /// Notes a part of the phase that is under way as one of its own.
    fn note_part(&mut self, decision: &mut Decision, phase: &str, spent: Duration) {
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
