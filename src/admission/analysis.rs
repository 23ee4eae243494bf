//! The system calls of the ELF files that a container can run: each file is read in a cage of its own, and in a further
//! one it is worked out what they make together.
//!
//! Both cages are this same program, started with [`SUMMARISE`] and [`CLOSE`], in an empty directory. What a cage says
//! of a file is kept below the state, under the digest of the very bytes that this side put into the cage, and used
//! for every image that has such a file. A file that breaks into its cage can therefore spoil what is kept of itself and
//! of nothing else: no image can change what is known of another image's C library. This side reads files and kept
//! summaries as bytes only. What the second cage says counts for the one image whose files were in it, whose container
//! it can at most leave with all the calls that it had.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use rustix::fs::{FileType, MemfdFlags, Mode, OFlags, ResolveFlags};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::child::{self, ChildFault};
use super::memo;
use super::needs::Needs;
use super::sandbox;
use crate::diagnostic::printable;
use crate::digest::Digest;
use crate::store::{self, StateDir};
use crate::syscalls::{self, Machine, Object, Order, Role, Summary};

/// First argument of a cage that reads one ELF file; the second is the number of the descriptor of its root.
pub const SUMMARISE: &str = "parse-elf";
/// First argument of the cage that joins what is known of several.
pub const CLOSE: &str = "join-calls";

/// Folder of the summaries below the state.
const DIRECTORY: &str = "analysis";
/// Largest ELF file in bytes.
const MAX_FILE: u64 = 160 << 20;
/// Largest summary in bytes.
const MAX_SUMMARY: u64 = 64 << 20;
/// Most bytes of all summaries of one image: the cage that joins them has four times as much memory.
const MAX_JOINED: u64 = 128 << 20;
/// Largest answer of the second cage in bytes.
const MAX_ANSWER: u64 = 16 << 20;
/// Most summaries that are kept, and most bytes of them.
const MAX_KEPT: usize = 8192;
const MAX_KEPT_BYTES: u64 = 2 << 30;
/// Most reasons for which calls are not all known, and longest one in characters.
const MAX_LISTED: usize = 64;
const MAX_TEXT: usize = 600;
/// Most functions of one path that are shown.
const MAX_STEPS: usize = 64;
/// Most cages at a time.
const MAX_WORKERS: usize = 8;
/// Bytes that are read at once.
const PIECE: usize = 256 << 10;

/// The system calls of a container's files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Analysis {
    /// Names of the calls that they can make, on this machine.
    pub calls: BTreeSet<String>,
    /// Why these are not all; empty when they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
    /// How many ELF files were read.
    pub objects: usize,
    /// How each call comes about, where that was asked for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub routes: BTreeMap<String, Route>,
}

impl Analysis {
    /// Nothing is known, for one reason.
    pub(super) fn incomplete(why: &str) -> Self {
        Self {
            unknown: vec![shown(why)],
            ..Self::default()
        }
    }
}

/// How a call comes about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Functions, the first one entered from outside; empty where only a fact says it.
    pub steps: Vec<Step>,
    /// Address of the instruction in the last function's file.
    pub site: u64,
    /// Why it counts although no code shows it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub fact: String,
}

/// A function on the way to a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Index of the ELF file among those of [`Needs`].
    pub object: usize,
    /// Its name, or its address.
    pub function: String,
}

/// Why nothing is known of the calls.
#[derive(Debug, thiserror::Error)]
pub(super) enum AnalysisFault {
    #[error("the analysis of system calls {0}")]
    Child(#[from] ChildFault),
    #[error("the answer of the analysis of system calls is unusable: {0}")]
    Garbage(&'static str),
    #[error("the summaries of ELF files cannot be kept: {0}")]
    State(#[from] store::Error),
}

/// Where and by when.
pub(super) struct Desk<'a> {
    pub(super) state: &'a StateDir,
    /// An empty directory.
    pub(super) empty: BorrowedFd<'a>,
    pub(super) deadline: Instant,
}

/// The files of a container.
pub(super) struct Files<'a> {
    /// The image.
    pub(super) root: BorrowedFd<'a>,
    /// What is mounted, by the number of the mount.
    pub(super) mounts: &'a [Option<BorrowedFd<'a>>],
}

/// What is known of one file, as its cage says it. Everybody but the cages has it as bytes.
#[derive(Debug, Serialize, Deserialize)]
enum Kept {
    Summary(Vec<u8>),
    /// It makes no call: data only, or nothing that runs.
    Nothing,
    /// It cannot be analysed.
    Unreadable(String),
}

/// Finds out which system calls the files of `needs` make. With `routes` also how.
///
/// The second value says whether the same question would have the same answer again: not when a cage was too slow, for
/// example.
///
/// # Errors
/// See [`AnalysisFault`]; all cages are gone when this returns.
pub(super) fn analyse(
    desk: &Desk<'_>,
    files: &Files<'_>,
    needs: &Needs,
    routes: bool,
) -> Result<(Analysis, bool), AnalysisFault> {
    let directory = desk.state.subdir(DIRECTORY)?;
    let mut lasting = true;
    let mut attempts = 0;
    loop {
        attempts += 1;
        let mut unknown: Vec<String> = Vec::new();
        let Some(found) = summaries(desk, &directory, files, needs) else {
            unknown.push(format!(
                "what is known of its ELF files has more than {MAX_JOINED} bytes"
            ));
            let analysis = Analysis {
                unknown,
                objects: needs.objects.len(),
                ..Analysis::default()
            };
            return Ok((analysis, true));
        };
        let mut joined = Joined {
            lengths: found.kept.iter().map(|(_, bytes)| bytes.len()).collect(),
            objects: Vec::new(),
            processes: needs.processes.clone(),
            plugins: needs.plugins.clone(),
            routes,
        };
        for (elf, file) in needs.objects.iter().zip(found.files) {
            let file = file.map_err(|(why, is_lasting)| {
                lasting &= is_lasting;
                unknown.push(shown(&format!("{} {why}", elf.path)));
            });
            joined.objects.push((file.ok(), elf.is_interpreter));
        }
        let answer = join(desk, &joined, &found.kept)?;
        if !answer.damaged.is_empty() && attempts == 1 {
            // What is kept was damaged on the disk; it is made again.
            for index in &answer.damaged {
                if let Some((digest, _)) = found.kept.get(*index) {
                    directory.remove(&name(digest))?;
                }
            }
            continue;
        }
        if !answer.damaged.is_empty() {
            return Err(AnalysisFault::Garbage("what it says of a file is no summary"));
        }
        return Ok((accept(answer, needs, unknown)?, lasting));
    }
}

/// Checks what the second cage says, field by field.
fn accept(answer: Answer, needs: &Needs, mut unknown: Vec<String>) -> Result<Analysis, AnalysisFault> {
    let path = |object: usize| needs.objects.get(object).map(|elf| elf.path.as_str());
    let is_text = |text: &str| text.chars().count() <= MAX_TEXT && printable(text) == text;
    let is_way = |steps: &[Step]| {
        steps.len() <= MAX_STEPS
            && steps
                .iter()
                .all(|step| path(step.object).is_some() && is_text(&step.function))
    };
    for (object, why) in &answer.unreadable {
        let path = path(*object).filter(|_| is_text(why));
        let path = path.ok_or(AnalysisFault::Garbage("it names a file that it was not given"))?;
        unknown.push(shown(&format!("{path} cannot be analysed: {why}")));
    }
    for site in &answer.unknown {
        let path = path(site.object).filter(|_| is_text(&site.why) && is_way(&site.path));
        let path = path.ok_or(AnalysisFault::Garbage("it has a place that cannot be"))?;
        let mut way: Vec<String> = Vec::new();
        let mut last = None;
        for step in &site.path {
            let file = needs.objects.get(step.object).filter(|_| last != Some(step.object));
            last = Some(step.object);
            way.push(match file {
                Some(elf) => format!(
                    "{} of {}",
                    step.function,
                    elf.path.rsplit('/').next().unwrap_or_default()
                ),
                None => step.function.clone(),
            });
        }
        unknown.push(shown(&format!(
            "{path} makes a call at {:#x} whose number is not known: {}; reached by {}",
            site.address,
            site.why,
            way.join(" → ")
        )));
    }
    if unknown.len() > MAX_LISTED {
        let more = unknown.len() - (MAX_LISTED - 1);
        unknown.truncate(MAX_LISTED - 1);
        unknown.push(format!("and {more} more"));
    }
    let call = |number: u32| {
        let name = syscalls::name(Machine::native(), number);
        name.map(str::to_owned)
            .ok_or(AnalysisFault::Garbage("it has a call that this machine does not have"))
    };
    let mut routes = BTreeMap::new();
    for (number, route) in answer.routes {
        if !is_way(&route.steps) || !is_text(&route.fact) {
            return Err(AnalysisFault::Garbage("it has a path that cannot be"));
        }
        routes.insert(call(number)?, route);
    }
    Ok(Analysis {
        calls: answer.calls.into_iter().map(call).collect::<Result<_, _>>()?,
        unknown,
        objects: needs.objects.len(),
        routes,
    })
}

fn shown(text: &str) -> String {
    printable(text).chars().take(MAX_TEXT).collect()
}

/// What is known of the files of a container.
struct Found {
    /// What is kept of each different file.
    kept: Vec<(Digest, Vec<u8>)>,
    /// The index in it for each file of [`Needs`], in their order; or why there is nothing.
    files: Vec<Result<usize, Failure>>,
}

/// What is known of each file; what is not is found out. None where that has more than [`MAX_JOINED`] bytes.
fn summaries(desk: &Desk<'_>, directory: &StateDir, files: &Files<'_>, needs: &Needs) -> Option<Found> {
    let count = needs.objects.len();
    let digests = in_parallel(count, |index| {
        let file = open(files, needs, index)?;
        Ok((digest(&file, None)?, file))
    });
    // Names of one file, and equal files, are looked at once.
    let mut first: BTreeMap<Digest, usize> = BTreeMap::new();
    for (index, found) in digests.iter().enumerate() {
        if let Ok((digest, _)) = found {
            first.entry(*digest).or_insert(index);
        }
    }
    let wanted: Vec<(Digest, usize)> = first.into_iter().collect();
    let unseen = || ("was not looked at".to_owned(), false);
    let total = AtomicU64::new(0);
    let looked_at = in_parallel(wanted.len(), |number| {
        let (digest, index) = wanted.get(number).ok_or_else(unseen)?;
        let found = digests.get(*index).and_then(|found| found.as_ref().ok());
        let (_, file) = found.ok_or_else(unseen)?;
        if total.load(Ordering::Relaxed) > MAX_JOINED {
            return Err(unseen());
        }
        let bytes = known(desk, directory, file, digest)?;
        let length = bytes.len() as u64;
        if total.fetch_add(length, Ordering::Relaxed).saturating_add(length) > MAX_JOINED {
            return Err(unseen());
        }
        Ok(bytes)
    });
    if total.into_inner() > MAX_JOINED {
        return None;
    }
    let mut kept = Vec::new();
    let mut by_digest: BTreeMap<Digest, Result<usize, Failure>> = BTreeMap::new();
    for ((digest, _), bytes) in wanted.into_iter().zip(looked_at) {
        let place = bytes.map(|bytes| {
            kept.push((digest, bytes));
            kept.len() - 1
        });
        by_digest.insert(digest, place);
    }
    let files = digests.into_iter().map(|found| {
        let (digest, _) = found?;
        by_digest.get(&digest).cloned().unwrap_or_else(|| Err(unseen()))
    });
    let files = files.collect();
    Some(Found { kept, files })
}

/// Why there is nothing, and whether that would be so again.
type Failure = (String, bool);

fn io_text(error: &io::Error) -> Failure {
    (format!("cannot be read: {error}"), false)
}

/// The result of `work` for each number below `count`, on as many threads as there are processors.
fn in_parallel<T: Send>(count: usize, work: impl Fn(usize) -> Result<T, Failure> + Sync) -> Vec<Result<T, Failure>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.min(MAX_WORKERS).min(count);
    if threads <= 1 {
        return (0..count).map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let mut results: Vec<Option<Result<T, Failure>>> = (0..count).map(|_| None).collect();
    std::thread::scope(|scope| {
        let worker = || {
            let mut done = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return done;
                }
                done.push((number, work(number)));
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        for worker in workers {
            // What a thread that panicked had is missing, and counts as not looked at.
            for (number, result) in worker.join().unwrap_or_default() {
                if let Some(place) = results.get_mut(number) {
                    *place = Some(result);
                }
            }
        }
    });
    results
        .into_iter()
        .map(|result| result.unwrap_or_else(|| Err(("was not looked at".to_owned(), false))))
        .collect()
}

/// Opens one of the files where the container will see it: below the image, or below a mount, without passing a link.
fn open(files: &Files<'_>, needs: &Needs, index: usize) -> Result<File, Failure> {
    let absent = || ("is not there any more".to_owned(), false);
    let elf = needs.objects.get(index).ok_or_else(absent)?;
    let (base, path) = match &elf.mount {
        None => (files.root, elf.path.as_str()),
        Some((number, path)) => {
            let mount = usize::try_from(*number)
                .ok()
                .and_then(|number| files.mounts.get(number));
            (mount.copied().flatten().ok_or_else(absent)?, path.as_str())
        }
    };
    let file = if path == "/" {
        // A mounted file. The copy shares its offset, which nobody here uses.
        File::from(rustix::io::fcntl_dupfd_cloexec(base, 3).map_err(|error| io_text(&error.into()))?)
    } else {
        let opened = rustix::fs::openat2(
            base,
            path.trim_start_matches('/'),
            OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV,
        );
        File::from(opened.map_err(|error| io_text(&error.into()))?)
    };
    let stat = rustix::fs::fstat(&file).map_err(|error| io_text(&error.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(("is no file any more".to_owned(), false));
    }
    if u64::try_from(stat.st_size).is_ok_and(|size| size > MAX_FILE) {
        return Err((
            format!("has more than {MAX_FILE} bytes, and larger files are not analysed"),
            true,
        ));
    }
    Ok(file)
}

/// The digest of a file's bytes, which go into `copy` at the same time.
fn digest(file: &File, mut copy: Option<&mut File>) -> Result<Digest, Failure> {
    let mut hasher = Sha256::new();
    let mut piece = vec![0; PIECE];
    let mut offset = 0;
    loop {
        let count = match file.read_at(&mut piece, offset) {
            Ok(0) => return Ok(Digest::of_stream(hasher)),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(io_text(&error)),
        };
        let bytes = piece.get(..count).unwrap_or_default();
        hasher.update(bytes);
        if let Some(copy) = &mut copy {
            copy.write_all(bytes).map_err(|error| io_text(&error))?;
        }
        offset += count as u64;
        if offset > MAX_FILE {
            return Err((format!("has more than {MAX_FILE} bytes"), true));
        }
    }
}

/// The name under which a summary is kept.
fn name(digest: &Digest) -> String {
    format!("{}-{}", digest.hex(), syscalls::edition())
}

/// What is known of a file; if nothing is, a cage finds it out.
fn known(desk: &Desk<'_>, directory: &StateDir, file: &File, digest_of: &Digest) -> Result<Vec<u8>, Failure> {
    if let Ok(Some(bytes)) = directory.read(&name(digest_of), MAX_SUMMARY) {
        return Ok(bytes);
    }
    let mut copy = memory().map_err(|error| io_text(&error))?;
    // Of the bytes that go into the cage: the file may have changed since.
    let digest = digest(file, Some(&mut copy))?;
    copy.rewind().map_err(|error| io_text(&error))?;
    let command = cage(desk, SUMMARISE).map_err(|error| io_text(&error))?;
    let bytes = child::run_on(command.0, copy, MAX_SUMMARY, desk.deadline)
        .map_err(|fault| (format!("cannot be analysed: the analysis {fault}"), false))?;
    // One that cannot be kept is made again; nothing else depends on it.
    let is_current = |name: &str| name.ends_with(syscalls::edition());
    let _ = memo::forget_oldest(directory, MAX_KEPT, MAX_KEPT_BYTES, &is_current)
        .and_then(|()| directory.write_volatile(&name(&digest), &bytes));
    Ok(bytes)
}

/// A file in memory, for what a cage is given.
fn memory() -> io::Result<File> {
    Ok(rustix::fs::memfd_create("question", MemfdFlags::CLOEXEC)?.into())
}

/// A command that starts a cage in the empty directory, and the descriptor that it inherits.
fn cage(desk: &Desk<'_>, what: &str) -> io::Result<(Command, OwnedFd)> {
    let inherited = rustix::io::dup(desk.empty)?;
    let mut command = Command::new("/proc/self/exe");
    command.args([what, &inherited.as_raw_fd().to_string()]);
    Ok((command, inherited))
}

/// What the second cage is given, before what is kept of the files.
#[derive(Debug, Serialize, Deserialize)]
struct Joined {
    /// How many bytes are kept of each different file; they follow in this order.
    lengths: Vec<usize>,
    /// The index in it for each file, none where nothing is known; and whether it loads programs.
    objects: Vec<(Option<usize>, bool)>,
    processes: Vec<Order>,
    plugins: Vec<Order>,
    /// Whether it is asked how each call comes about.
    routes: bool,
}

/// What it says.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    calls: Vec<u32>,
    unknown: Vec<Unknown>,
    /// Files that cannot be analysed.
    unreadable: Vec<(usize, String)>,
    /// Indexes among the different files: of these something is kept that is no summary.
    damaged: Vec<usize>,
    routes: Vec<(u32, Route)>,
}

/// A place whose number is not known.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Unknown {
    object: usize,
    address: u64,
    why: String,
    path: Vec<Step>,
}

fn join(desk: &Desk<'_>, joined: &Joined, kept: &[(Digest, Vec<u8>)]) -> Result<Answer, AnalysisFault> {
    let io_fault = |error: io::Error| AnalysisFault::Child(ChildFault::Start(error));
    let head = postcard::to_stdvec(joined).map_err(|_| AnalysisFault::Garbage("its question cannot be written"))?;
    let mut question = memory().map_err(io_fault)?;
    for bytes in [&head].into_iter().chain(kept.iter().map(|(_, bytes)| bytes)) {
        question.write_all(bytes).map_err(io_fault)?;
    }
    question.rewind().map_err(io_fault)?;
    let (command, _root) = cage(desk, CLOSE).map_err(io_fault)?;
    let answer = child::run_on(command, question, MAX_ANSWER, desk.deadline)?;
    serde_json::from_slice(&answer).map_err(|_| AnalysisFault::Garbage("it is no answer"))
}

/// The `main` of both cages: shuts itself in, reads, answers. `argument` is the number of its root's descriptor.
#[must_use]
pub fn main(what: &str, argument: &str) -> ExitCode {
    if let Err(status) = child::enter(argument, sandbox::enter) {
        return status;
    }
    let mut bytes = Vec::new();
    let most = if what == SUMMARISE {
        MAX_FILE + 1
    } else {
        2 * MAX_JOINED
    };
    let answered = io::stdin().take(most).read_to_end(&mut bytes).and_then(|_| {
        let answer = if what == SUMMARISE {
            postcard::to_stdvec(&summarise(&bytes)).map_err(io::Error::other)?
        } else {
            let (joined, kept) = postcard::take_from_bytes(&bytes).map_err(io::Error::other)?;
            serde_json::to_vec(&close(&joined, kept))?
        };
        io::stdout().write_all(&answer)
    });
    match answered {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(child::NO_PIPE),
    }
}

fn summarise(bytes: &[u8]) -> Kept {
    use syscalls::Error;
    let encoded = syscalls::summarise(bytes).and_then(|summary| summary.encode());
    match encoded {
        Ok(encoded) => Kept::Summary(encoded),
        Err(Error::NotRun | Error::NoCode) => Kept::Nothing,
        Err(error) => Kept::Unreadable(shown(&error.to_string())),
    }
}

fn close(joined: &Joined, mut kept: &[u8]) -> Answer {
    let mut answer = Answer::default();
    // What is known of each different file: its summary if it can make a call, or why that cannot be said.
    let mut files: Vec<Result<Option<Summary>, String>> = Vec::new();
    for (number, length) in joined.lengths.iter().enumerate() {
        let (bytes, rest) = kept.split_at_checked(*length).unwrap_or_default();
        kept = rest;
        files.push(match postcard::from_bytes(bytes) {
            Ok(Kept::Nothing) => Ok(None),
            Ok(Kept::Unreadable(why)) => Err(shown(&why)),
            Ok(Kept::Summary(encoded)) => match Summary::decode(&encoded) {
                Ok(summary) if summary.machine == Machine::native() => Ok(Some(summary)),
                Ok(_) => Err("it is for another machine than this one".to_owned()),
                Err(_) => {
                    answer.damaged.push(number);
                    Ok(None)
                }
            },
            Err(_) => {
                answer.damaged.push(number);
                Ok(None)
            }
        });
    }
    let first = |orders: &[Order]| -> BTreeSet<usize> {
        let first = orders.iter().filter_map(|order| order.first());
        first.flatten().copied().collect()
    };
    let (programs, plugins) = (first(&joined.processes), first(&joined.plugins));
    // Names of one file in one role are one object, which has the index of the first of them.
    let mut known: Vec<usize> = Vec::new();
    let mut places: BTreeMap<(usize, Role), usize> = BTreeMap::new();
    let mut found: Vec<(&Summary, Role)> = Vec::new();
    let mut at: Vec<Option<usize>> = Vec::new();
    for (index, (file, loads)) in joined.objects.iter().enumerate() {
        let role = if plugins.contains(&index) {
            Role::Plugin
        } else if programs.contains(&index) {
            Role::Program
        } else if *loads {
            Role::Interpreter
        } else {
            Role::Library
        };
        let read = file.and_then(|file| Some((file, files.get(file)?)));
        at.push(match read {
            Some((file, Ok(Some(summary)))) => Some(*places.entry((file, role)).or_insert_with(|| {
                known.push(index);
                found.push((summary, role));
                found.len() - 1
            })),
            Some((_, Err(why))) => {
                answer.unreadable.push((index, why.clone()));
                None
            }
            _ => None,
        });
    }
    // Each order once, as indexes of the objects.
    let here = |orders: &[Order]| -> Vec<Order> {
        let place = |alternatives: &Vec<usize>| {
            let places = alternatives
                .iter()
                .filter_map(|index| at.get(*index).copied().flatten());
            let mut seen = BTreeSet::new();
            places.filter(|place| seen.insert(*place)).collect()
        };
        let mut seen = BTreeSet::new();
        let orders = orders.iter().map(|order| order.iter().map(place).collect());
        orders.filter(|order: &Order| seen.insert(order.clone())).collect()
    };
    let paths: Vec<String> = known.iter().map(ToString::to_string).collect();
    let objects: Vec<Object<'_>> = found
        .iter()
        .zip(&paths)
        .map(|((summary, role), path)| Object {
            path,
            summary,
            role: *role,
        })
        .collect();
    let calls = syscalls::close_all(&objects, &here(&joined.processes), &here(&joined.plugins));
    let steps = |path: &[syscalls::Step]| -> Vec<Step> {
        path.iter()
            .take(MAX_STEPS)
            .filter_map(|step| {
                Some(Step {
                    object: *known.get(step.object)?,
                    function: shown(&step.function),
                })
            })
            .collect()
    };
    answer.calls = calls.calls.keys().copied().collect();
    answer.unknown = calls
        .unknown
        .iter()
        .take(MAX_LISTED)
        .filter_map(|site| {
            Some(Unknown {
                object: *known.get(site.object)?,
                address: site.address,
                why: site.why.to_string(),
                path: steps(&site.path),
            })
        })
        .collect();
    if joined.routes {
        answer.routes = calls
            .calls
            .iter()
            .map(|(number, path)| {
                let route = Route {
                    steps: steps(&path.steps),
                    site: path.site,
                    fact: shown(path.fact.unwrap_or_default()),
                };
                (*number, route)
            })
            .collect();
    }
    answer
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;
    use std::time::Duration;

    use super::super::needs::Elf;
    use super::*;

    /// Names in one folder, and what is kept of files with certain bytes.
    struct Node {
        folder: tempfile::TempDir,
        state: StateDir,
    }

    impl Node {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            std::fs::create_dir(folder.path().join("image")).unwrap();
            let state = StateDir::open(&folder.path().join("state")).unwrap();
            Self { folder, state }
        }

        fn keep(&self, of: &[u8], length: u64) {
            let directory = self.state.subdir(DIRECTORY).unwrap();
            let path = directory.path().join(name(&Digest::of(of)));
            std::fs::write(&path, b"kept").unwrap();
            File::options().write(true).open(path).unwrap().set_len(length).unwrap();
        }

        fn found(&self, names: impl Iterator<Item = String>) -> Option<Found> {
            let image = File::open(self.folder.path().join("image")).unwrap();
            let desk = Desk {
                state: &self.state,
                empty: image.as_fd(),
                deadline: Instant::now() + Duration::from_secs(60),
            };
            let files = Files {
                root: image.as_fd(),
                mounts: &[],
            };
            let elf = |path| Elf {
                path,
                mount: None,
                is_interpreter: false,
                package: String::new(),
                standing: crate::admission::needs::Accounted::default(),
            };
            let needs = Needs {
                objects: names.map(elf).collect(),
                ..Needs::default()
            };
            summaries(&desk, &self.state.subdir(DIRECTORY).unwrap(), &files, &needs)
        }
    }

    #[test]
    fn a_file_with_many_names_is_known_once() {
        let node = Node::new();
        let path = |name: &str| node.folder.path().join("image").join(name);
        std::fs::write(path("0"), "elf").unwrap();
        for link in 1..30 {
            std::fs::hard_link(path("0"), path(&link.to_string())).unwrap();
        }
        node.keep(b"elf", 4);
        let found = node.found((0..31).map(|name| format!("/{name}"))).unwrap();
        assert_eq!(found.kept, [(Digest::of(b"elf"), b"kept".to_vec())]);
        assert_eq!(found.files[..30], vec![Ok(0); 30]);
        assert!(found.files[30].is_err(), "there is no such name");
    }

    #[test]
    fn no_more_is_read_than_can_be_joined() {
        let node = Node::new();
        let names = || (0..6).map(|name| format!("/{name}"));
        for name in names() {
            std::fs::write(node.folder.path().join("image").join(&name[1..]), &name).unwrap();
            node.keep(name.as_bytes(), MAX_JOINED / 8);
        }
        assert_eq!(node.found(names()).unwrap().kept.len(), 6);
        for name in names() {
            node.keep(name.as_bytes(), MAX_JOINED / 4);
        }
        assert!(node.found(names()).is_none());
    }

    #[test]
    fn names_of_one_file_are_one_object() {
        // Every name is a process of its own, and each is reported.
        let kept = postcard::to_stdvec(&Kept::Unreadable("why".to_owned())).unwrap();
        let nothing = postcard::to_stdvec(&Kept::Nothing).unwrap();
        let joined = Joined {
            lengths: vec![kept.len(), nothing.len(), 3],
            objects: vec![
                (Some(0), false),
                (Some(1), false),
                (Some(0), false),
                (None, false),
                (Some(2), false),
            ],
            processes: (0..5).map(|index| vec![vec![index]]).collect(),
            plugins: Vec::new(),
            routes: false,
        };
        let answer = close(&joined, &[kept, nothing, vec![9, 9, 9]].concat());
        assert_eq!(answer.unreadable, [(0, "why".to_owned()), (2, "why".to_owned())]);
        assert_eq!(answer.damaged, [2]);
    }
}
