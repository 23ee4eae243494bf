//! Everything that a ruling needs beside the case that it is about: state, policy, evidence, and what a container is shown.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Instant, SystemTime};

use super::analysis::Analysis;
use super::broker::{MAX_LISTED, Obstacle, Stopwatch, kind, shown};
use super::filter::{self, Syscalls};
use super::log;
use super::memo::Inputs;
use super::minimize::{self, Shown};
use super::parser::{self, ParserFault};
use super::ruling::{self, Case, Ruling};
use super::{Basis, Decision, Files, Request, Verdict, Volume};
use crate::config::Config;
use crate::diagnostic::printable;
use crate::digest::Digest;
use crate::grant::Grants;
use crate::identity::{Identity, Image, Upper, Workload};
use crate::oci::Layout;
use crate::policy::activate::load_active;
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

/// Everything that a ruling needs beside the case.
pub(super) struct Desk {
    pub(super) state: StateDir,
    /// Without one, nothing is remembered.
    pub(super) run: Option<StateDir>,
    /// Path of that, also where it cannot be used.
    pub(super) run_directory: PathBuf,
    pub(super) evidence: StateDir,
    pub(super) active: Active,
    pub(super) policy: Digest,
    pub(super) clock: Clock,
    pub(super) grants: Grants,
    pub(super) deadline: Instant,
}

impl Desk {
    pub(super) fn open(config: &Config, deadline: Instant) -> Result<Self, Obstacle> {
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
    pub(super) fn root<'a>(&'a self, request: &'a Request, identity: &'a Identity) -> Case<'a> {
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
    pub(super) fn rule_on(&self, request: &Request, identity: &Identity, used: &mut Used) -> Ruling {
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
    pub(super) fn rule(&self, case: &Case<'_>, used: &mut Used) -> Ruling {
        self.ruled(used, |ask| ruling::rule(&self.active, case, ask))
    }

    /// Has something ruled on with what the evidence says.
    pub(super) fn ruled(
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
    pub(super) fn minimizing(&self) -> Result<minimize::Desk<'_>, (String, String)> {
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
    pub(super) fn show(
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
    pub(super) fn filter(
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
    pub(super) fn show_calls(
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
    pub(super) fn compose(
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

    pub(super) fn ask(&self, subjects: &[Digest]) -> Result<parser::Judged, ParserFault> {
        use std::os::fd::AsFd as _;
        let question = self.active.question(subjects, self.clock.now);
        parser::ask(self.evidence.as_fd(), &question, self.deadline)
    }

    /// The blobs that cannot be read any more, or are not what they were.
    pub(super) fn lost(&self, blobs: &[Digest]) -> Vec<(Digest, String)> {
        use std::os::fd::AsFd as _;
        let layout = Layout::new(self.evidence.as_fd());
        let read = |blob: &Digest| layout.blob_by_digest(*blob, MAX_BLOB).err();
        blobs
            .iter()
            .filter_map(|blob| read(blob).map(|error| (*blob, printable(&error.to_string()).into_owned())))
            .collect()
    }

    pub(super) fn record(&self, decision: &Decision) -> Result<(), store::Error> {
        log::record(&self.state, decision)
    }

    /// What an allow rests on was vouched for at times that have passed.
    pub(super) fn advance_clock(&self, decision: &Decision) {
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
    pub(super) fn case<'a>(&'a self, name: &'a str, namespace: &'a str, image: &'a Image) -> Case<'a> {
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

    pub(super) fn blank_basis(&self, kind: Kind, kubernetes_namespace: Option<&str>) -> Basis {
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

    pub(super) fn basis(&self, request: &Request, identity: &Identity) -> Basis {
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
pub(super) struct Filter {
    pub(super) own: Option<Profile>,
    pub(super) capabilities: Vec<String>,
    pub(super) no_new_privileges: bool,
    pub(super) runtime: String,
    pub(super) measured: Vec<Base>,
    pub(super) tunings: Vec<Tuning>,
    pub(super) attested: Option<BTreeSet<String>>,
    pub(super) is_left_alone: bool,
}

impl Filter {
    pub(super) fn subject(&self) -> filter::Subject<'_> {
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
pub(super) struct Used {
    /// Whether all answers were remembered ones; `None` when nothing was asked.
    pub(super) repeated: Option<bool>,
    pub(super) blobs: BTreeSet<Digest>,
}

/// The ruling on a container with one more image volume.
pub(super) fn with_volume(mut ruling: Ruling, destination: &str, name: &str, mut of_volume: Ruling) -> Ruling {
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
