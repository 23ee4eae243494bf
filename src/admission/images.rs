//! What people and the agent ask about an image of which no container is being created: what it would be shown, whether
//! a verdict still holds.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::broker::{Obstacle, apply, blank, block_on, block_on_in, event_loop, guard, refuse, shown};
use super::desk::{Desk, Used, with_volume};
use super::filter::{self};
use super::minimize::{self, Shown};
use super::needs::Needs;
use super::roots;
use super::ruling::{Case, Ruling};
use super::{Basis, Decision, Verdict};
use crate::config::Config;
use crate::diagnostic::printable;
use crate::digest::Digest;
use crate::grant::Grants;
use crate::identity::{self, Fault, Image, Upper, Workload};
use crate::policy::{Kind, Mode, SeccompMode};
use crate::trust::clock::Clock;

/// How long a person waits for the needs of an image.
const LOOK_TIME: Duration = Duration::from_secs(60);

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
