//! Which files of its image an allowed container sees, and which system calls they make: what it needs, found out once
//! for equal roots, as a view that is built once for equal needs.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::MemfdFlags;
use serde::{Deserialize, Serialize};

use super::analysis::{self, Analysis};
use super::child::ChildFault;
use super::needs::{self, MAX_STATEMENT, Needs, NeedsFault, Question};
use super::survey::NameKind;
use super::{Files, FilesAudit, memo, roots};
use crate::digest::Digest;
use crate::identity::{Image, Mount, Workload};
use crate::oci::Layout;
use crate::policy::{Filesystem, Unattested};
use crate::store::StateDir;
use crate::view::{self, Cache, Snapshot, View, watch};

/// Folder below the state for what is known of needs.
const DIRECTORY: &str = "needs";
/// Largest memo of needs in bytes.
const MAX_MEMO: u64 = 256 << 10;
/// Most lists of hidden names that are kept.
const MAX_LISTS: usize = 64;
/// Most hidden executables that a decision names.
const MAX_FIRST: usize = 16;
/// Most programs of a pod's annotation, and its longest value in bytes.
const MAX_ANNOTATED: usize = 32;
const MAX_ANNOTATION: usize = 4096;

/// Where and by when.
pub(super) struct Desk<'a> {
    pub(super) state: &'a StateDir,
    pub(super) run: &'a StateDir,
    pub(super) evidence: &'a StateDir,
    pub(super) deadline: Instant,
    /// Rules for the closure beside the built-in ones.
    pub(super) rules: &'a [(String, String)],
}

/// What is to be shown.
#[derive(Clone, Copy)]
pub(super) struct Case<'a> {
    pub(super) image: &'a Image,
    pub(super) rootfs: &'a [Mount],
    pub(super) workload: &'a Workload,
    pub(super) filesystem: &'a Filesystem,
    /// Whether all of the image is to be seen, and no view is made.
    pub(super) everything: bool,
    /// Whether it is asked for the system calls.
    pub(super) calls: bool,
    /// Whether the container's root file system is read-only at last.
    pub(super) read_only: bool,
    /// Whether its rule asks for an SBOM.
    pub(super) needs_sbom: bool,
    /// Predicate of the SBOM that the verdict rests on.
    pub(super) sbom: Option<Digest>,
    /// Blobs that carry it.
    pub(super) blobs: &'a [Digest],
}

/// What came of it.
pub(super) enum Shown {
    /// The container may run so.
    Found(Box<Found>),
    /// It must not run.
    Refused {
        code: &'static str,
        reason: String,
        fix: String,
    },
}

/// What a container sees and can call.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Nothing where it sees everything.
    pub(super) view: Option<(View, Files)>,
    /// Nothing where that was not asked for.
    pub(super) calls: Option<Analysis>,
    /// How long it took to find them out; no time where they were known.
    pub(super) analysis: Duration,
}

/// Why there is no view.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unseen {
    #[error("what the container needs of its image is not known: {0}")]
    Needs(#[from] NeedsFault),
    #[error("no view of its image can be made: {0}")]
    View(#[from] view::Error),
    #[error("the layers of its image cannot be read: {0}")]
    Layers(#[source] std::io::Error),
    #[error(
        "what it uses cannot be told from what others use: its root file system is of type '{}', not an overlay of its own",
        .0.escape_debug()
    )]
    Unwatchable(String),
}

impl Unseen {
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Needs(fault) => fault.code(),
            Self::View(error) => error.code(),
            Self::Layers(_) => "layers-unreadable",
            Self::Unwatchable(_) => "view-unsuitable",
        }
    }

    pub(super) fn fix(&self) -> &'static str {
        match self {
            Self::Needs(fault) => fault.fix(),
            Self::View(error) => error.fix(),
            Self::Layers(_) => "pull the image again and create the container again",
            Self::Unwatchable(_) => "use the overlayfs snapshotter",
        }
    }
}

impl From<ChildFault> for Unseen {
    fn from(fault: ChildFault) -> Self {
        Self::Needs(fault.into())
    }
}

/// What equal questions about equal layers led to.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Memo {
    /// Key of the view, over the layers and everything that is kept; none where everything is seen. Under audit, digest
    /// of the list of what would be hidden.
    view: Option<Digest>,
    files: Files,
    calls: Option<Analysis>,
}

/// Everything that needs follow from.
#[derive(Serialize)]
struct Inputs<'a> {
    /// This program: another build may know other rules.
    program: &'a [String],
    chain_id: Digest,
    question: &'a Question,
    needs_sbom: bool,
    unattested: Unattested,
    calls: bool,
}

/// Finds out what a container needs, gives it a view, and tells its system calls.
///
/// # Errors
/// See [`Unseen`]: the policy says what becomes of the container then.
pub(super) fn show(desk: &Desk<'_>, case: &Case<'_>) -> Result<Shown, Unseen> {
    let snapshot = Snapshot::of(case.rootfs, case.read_only).map_err(view::Error::from)?;
    let views = if case.everything {
        None
    } else {
        let cache = Cache::open(desk.state, desk.run, &snapshot)?;
        let way = cache.way()?;
        Some((cache, way))
    };
    let prepared = roots::prepare(case.workload);
    let question = question(desk, case, prepared.roots.clone());
    let memos = Memos::open(desk, case, &question)?;
    if let Some(memo) = memos.recall() {
        let view = match (&views, &memo.view) {
            (Some((cache, way)), Some(key)) => cache.find(key, *way)?,
            _ => None,
        };
        if view.is_some() || case.everything {
            return Ok(found(view, memo, Duration::ZERO));
        }
    }
    let (needs, root) = ask(desk, case, &snapshot, question, &prepared.contents)?;
    if let Some(refused) = refusal(case, &needs) {
        return Ok(refused);
    }
    let since = Instant::now();
    let (calls, lasting) = if case.calls {
        let (calls, lasting) = calls(desk, &root, &prepared, &needs, false);
        (Some(calls), lasting)
    } else {
        (None, true)
    };
    let analysis = since.elapsed();
    let memo = Memo {
        view: views.as_ref().map(|_| key(case.image, &needs)),
        files: files(case, &needs),
        calls,
    };
    let view = match (&views, &memo.view) {
        (Some((cache, way)), Some(key)) => Some(cache.build(key, *way, &snapshot, &needs.keep)?),
        _ => None,
    };
    if lasting {
        memos.keep(&memo);
    }
    Ok(found(view, memo, analysis))
}

fn found(view: Option<View>, memo: Memo, analysis: Duration) -> Shown {
    Shown::Found(Box::new(Found {
        view: view.map(|view| (view, memo.files)),
        calls: memo.calls,
        analysis,
    }))
}

/// The system calls of what a container needs, and whether the same question would have the same answer again. What
/// keeps them from being known is part of the answer.
fn calls(desk: &Desk<'_>, root: &OwnedFd, prepared: &roots::Prepared, needs: &Needs, routes: bool) -> (Analysis, bool) {
    use std::os::fd::AsFd as _;
    let mut contents = prepared.contents.iter();
    let mounts: Vec<Option<BorrowedFd<'_>>> = prepared
        .roots
        .mounts
        .iter()
        .map(|mount| mount.content.as_ref().and_then(|_| contents.next().map(OwnedFd::as_fd)))
        .collect();
    let found = desk
        .run
        .subdir("empty")
        .map_err(analysis::AnalysisFault::from)
        .and_then(|empty| {
            let desk = analysis::Desk {
                state: desk.state,
                empty: empty.as_fd(),
                deadline: desk.deadline,
            };
            let files = analysis::Files {
                root: root.as_fd(),
                mounts: &mounts,
            };
            analysis::analyse(&desk, &files, needs, routes)
        });
    let (mut analysis, lasting) = found.unwrap_or_else(|fault| (Analysis::incomplete(&fault.to_string()), false));
    let unfollowed = needs.unfollowed.iter().map(|what| format!("not followed: {what}"));
    analysis
        .unknown
        .splice(0..0, unfollowed.chain(needs.foreign.iter().cloned()));
    (analysis, lasting)
}

/// Finds out what `enforce` would hide from a container that sees everything, and lists it for the process that watches
/// what is used of it.
///
/// # Errors
/// See [`Unseen`].
pub(super) fn watch(desk: &Desk<'_>, case: &Case<'_>) -> Result<Files, Unseen> {
    // Of any other type it would be a part of the node's own file system, which everybody uses.
    if let Some(mount) = case.rootfs.iter().find(|mount| mount.r#type != "overlay") {
        return Err(Unseen::Unwatchable(mount.r#type.chars().take(80).collect()));
    }
    let snapshot = Snapshot::of(case.rootfs, case.read_only).map_err(view::Error::from)?;
    let prepared = roots::prepare(case.workload);
    let question = Question {
        survey: true,
        everything: false,
        ..question(desk, case, prepared.roots)
    };
    let memos = Memos::open(desk, case, &question)?;
    let lists = desk.state.subdir(watch::LISTS).map_err(view::Error::from)?;
    if let Some(Memo {
        view: Some(list),
        files,
        ..
    }) = memos.recall()
        && lists.size(&list.hex()).is_ok_and(|size| size > 0)
    {
        return Ok(files);
    }
    let (mut needs, _) = ask(desk, case, &snapshot, question, &prepared.contents)?;
    let survey = needs.survey.take().unwrap_or_default();
    let hidden = || survey.names.iter().filter(|name| !name.visible);
    let list: Vec<&str> = hidden().map(|name| name.path.as_str()).collect();
    let names = list.len() as u64;
    let list = list.join("\0");
    let digest = Digest::of(list.as_bytes());
    // Links to them follow: most are of the same programs.
    let of_kind =
        |is_link: bool| hidden().filter(move |name| name.executable && (name.kind == NameKind::Link) == is_link);
    let executables = of_kind(false).chain(of_kind(true));
    let audit = FilesAudit {
        rule: String::new(),
        list: digest,
        names,
        first: executables
            .map(|name| needs::text(&name.path))
            .take(MAX_FIRST)
            .collect(),
        refuse: match refusal(case, &needs) {
            Some(Shown::Refused { code, reason, .. }) => format!("{code}: {reason}"),
            _ => String::new(),
        },
    };
    let memo = Memo {
        view: Some(digest),
        files: Files {
            audit: Some(audit),
            ..files(case, &needs)
        },
        calls: None,
    };
    memo::make_room(&lists, MAX_LISTS)
        .and_then(|()| lists.write_volatile(&digest.hex(), list.as_bytes()))
        .map_err(view::Error::from)?;
    memos.keep(&memo);
    Ok(memo.files)
}

/// What is remembered of one question.
struct Memos {
    directory: StateDir,
    /// None where this program is not known, so that nothing can be remembered.
    name: Option<String>,
}

impl Memos {
    fn open(desk: &Desk<'_>, case: &Case<'_>, question: &Question) -> Result<Self, Unseen> {
        let name = memo::program().map(|program| {
            let inputs = Inputs {
                program: &program,
                chain_id: case.image.chain_id,
                question,
                needs_sbom: case.needs_sbom,
                unattested: case.filesystem.unattested,
                calls: case.calls,
            };
            format!(
                "{}.json",
                Digest::of(&serde_json::to_vec(&inputs).unwrap_or_default()).hex()
            )
        });
        Ok(Self {
            directory: desk.state.subdir(DIRECTORY).map_err(view::Error::from)?,
            name,
        })
    }

    fn recall(&self) -> Option<Memo> {
        let bytes = self.directory.read(self.name.as_ref()?, MAX_MEMO).ok()??;
        serde_json::from_slice(&bytes).ok()
    }

    fn keep(&self, memo: &Memo) {
        if let (Some(name), Ok(json)) = (&self.name, serde_json::to_vec(memo)) {
            // What cannot be kept is found out again; nothing else depends on it.
            let _ = memo::make_room(&self.directory, memo::MAX_MEMOS)
                .and_then(|()| self.directory.write_volatile(name, &json));
        }
    }
}

/// What a container needs, told to a person, and its system calls with how they come about, if they are asked for:
/// nothing is remembered.
///
/// # Errors
/// See [`Unseen`].
pub(super) fn look(
    desk: &Desk<'_>,
    case: &Case<'_>,
    explain: Option<&str>,
    survey: bool,
) -> Result<(Needs, Option<Analysis>), Unseen> {
    let snapshot = Snapshot::of(case.rootfs, case.read_only).map_err(view::Error::from)?;
    let prepared = roots::prepare(case.workload);
    let question = Question {
        explain: explain.map(str::to_owned),
        survey,
        ..question(desk, case, prepared.roots.clone())
    };
    let (needs, root) = ask(desk, case, &snapshot, question, &prepared.contents)?;
    let calls = case.calls.then(|| calls(desk, &root, &prepared, &needs, true).0);
    Ok((needs, calls))
}

/// The view that a container with these needs gets, built if nobody has had it yet, and what it shows.
///
/// # Errors
/// See [`Unseen`].
pub(super) fn view(desk: &Desk<'_>, case: &Case<'_>, needs: &Needs) -> Result<(View, Files), Unseen> {
    let snapshot = Snapshot::of(case.rootfs, case.read_only).map_err(view::Error::from)?;
    let cache = Cache::open(desk.state, desk.run, &snapshot)?;
    let way = cache.way()?;
    let key = key(case.image, needs);
    let view = match cache.find(&key, way)? {
        Some(view) => view,
        None => cache.build(&key, way, &snapshot, &needs.keep)?,
    };
    Ok((view, files(case, needs)))
}

fn question(desk: &Desk<'_>, case: &Case<'_>, roots: roots::Roots) -> Question {
    let Filesystem {
        level,
        keep,
        exec,
        exec_annotation,
        ..
    } = case.filesystem;
    let annotated = case
        .workload
        .exec_annotation
        .as_deref()
        .filter(|text| *exec_annotation && text.len() <= MAX_ANNOTATION);
    let annotated = annotated.into_iter().flat_map(|text| text.split([',', ' ', '\n']));
    Question {
        roots,
        level: *level,
        exec: exec
            .iter()
            .map(String::as_str)
            .chain(annotated.filter(|program| program.starts_with('/')).take(MAX_ANNOTATED))
            .map(str::to_owned)
            .collect(),
        keep: keep.clone(),
        volumes: Vec::new(),
        sbom: case.sbom.filter(|_| case.needs_sbom),
        rules: desk.rules.to_vec(),
        everything: case.everything,
        explain: None,
        survey: false,
    }
}

fn ask(
    desk: &Desk<'_>,
    case: &Case<'_>,
    snapshot: &Snapshot,
    question: Question,
    contents: &[OwnedFd],
) -> Result<(Needs, OwnedFd), Unseen> {
    use std::os::fd::AsFd as _;
    let stage = desk.run.subdir("stage").map_err(view::Error::from)?;
    let root = super::layers::merged(&snapshot.layers, stage.path()).map_err(Unseen::Layers)?;
    let statements = if question.sbom.is_some() {
        statements(desk, case.blobs)?
    } else {
        Vec::new()
    };
    let needs = needs::ask(root.as_fd(), question, &statements, contents, desk.deadline)?;
    Ok((needs, root))
}

/// The blobs that carry the evidence, each read once, by its digest, into a file that only this process knows.
fn statements(desk: &Desk<'_>, blobs: &[Digest]) -> Result<Vec<File>, Unseen> {
    use std::os::fd::AsFd as _;
    let layout = Layout::new(desk.evidence.as_fd());
    let mut files = Vec::new();
    for blob in blobs {
        // One that is not there any more holds nothing; if it was the SBOM, the parser says so.
        let Ok(bytes) = layout.blob_by_digest(*blob, MAX_STATEMENT) else {
            continue;
        };
        let file = rustix::fs::memfd_create("statement", MemfdFlags::CLOEXEC)
            .map_err(|error| ChildFault::Start(error.into()))?;
        let mut file = File::from(file);
        file.write_all(&bytes)
            .and_then(|()| file.rewind())
            .map_err(ChildFault::Start)?;
        files.push(file);
    }
    Ok(files)
}

/// What the policy does not accept among what the container needs.
fn refusal(case: &Case<'_>, needs: &Needs) -> Option<Shown> {
    if let (true, Some(first)) = (case.needs_sbom, needs.unlisted.first()) {
        let more = match needs.unlisted.len() - 1 {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        let (code, listed) = if first.instead.is_empty() {
            ("sbom-package-missing", "which its SBOM does not list".to_owned())
        } else {
            (
                "sbom-package-drift",
                format!("which its SBOM lists as {}", first.instead.join(", ")),
            )
        };
        return Some(Shown::Refused {
            code,
            reason: format!("it needs {} of package {}, {listed}{more}", first.path, first.package),
            fix: "attest an SBOM that was made of this very image; assay sbom IMAGE shows what differs".to_owned(),
        });
    }
    if let (Unattested::Deny, Some(first)) = (case.filesystem.unattested, needs.unattested.first()) {
        return Some(Shown::Refused {
            code: "executable-unattested",
            reason: format!(
                "it needs {first}{}, which no package and no SBOM accounts for",
                match needs.unattested.len() - 1 {
                    0 => String::new(),
                    more => format!(" and {more} more executables"),
                }
            ),
            fix: "list the file with its digest in the SBOM, or set filesystem.unattested = \"report\" in the rule"
                .to_owned(),
        });
    }
    None
}

fn key(image: &Image, needs: &Needs) -> Digest {
    let mut text = image.chain_id.to_string();
    for path in &needs.keep {
        text.push('\n');
        text.push_str(path);
    }
    Digest::of(text.as_bytes())
}

fn files(case: &Case<'_>, needs: &Needs) -> Files {
    Files {
        sbom: case.sbom.filter(|_| case.needs_sbom),
        counts: needs.counts,
        unattested: needs.unattested.clone(),
        unfollowed: needs.unfollowed.clone(),
        findings: needs.findings.clone(),
        unavailable: String::new(),
        audit: None,
    }
}
