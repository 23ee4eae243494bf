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
use std::sync::atomic::{AtomicUsize, Ordering};
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
/// Most bytes of all summaries of one image.
const MAX_JOINED: u64 = 256 << 20;
/// Largest answer of the second cage in bytes.
const MAX_ANSWER: u64 = 16 << 20;
/// Most summaries that are kept.
const MAX_KEPT: usize = 8192;
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
        let found = summaries(desk, &directory, files, needs);
        let mut joined = Joined {
            objects: Vec::new(),
            processes: needs.processes.clone(),
            plugins: needs.plugins.clone(),
            routes,
        };
        let mut total = 0;
        for (elf, found) in needs.objects.iter().zip(&found) {
            let kept = match found {
                Found::Kept(_, bytes) => {
                    total += bytes.len() as u64;
                    bytes.clone()
                }
                Found::Not(why, is_lasting) => {
                    lasting &= is_lasting;
                    unknown.push(shown(&format!("{} {why}", elf.path)));
                    Vec::new()
                }
            };
            joined.objects.push((kept, elf.is_interpreter));
        }
        if total > MAX_JOINED {
            unknown.push(format!(
                "what is known of its ELF files has more than {MAX_JOINED} bytes"
            ));
            return Ok((
                Analysis {
                    unknown,
                    objects: needs.objects.len(),
                    ..Analysis::default()
                },
                lasting,
            ));
        }
        let answer = join(desk, &joined)?;
        if !answer.damaged.is_empty() && attempts == 1 {
            // What is kept was damaged on the disk; it is made again.
            for index in &answer.damaged {
                if let Some(Found::Kept(digest, _)) = found.get(*index) {
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
        let way: Vec<&str> = site.path.iter().map(|step| step.function.as_str()).collect();
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

/// What is known of a file.
enum Found {
    Kept(Digest, Vec<u8>),
    /// Nothing, and why, as the end of a sentence; and whether that would be so again.
    Not(String, bool),
}

/// What is known of each file, in their order; what is not is found out.
fn summaries(desk: &Desk<'_>, directory: &StateDir, files: &Files<'_>, needs: &Needs) -> Vec<Found> {
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
    let kept = in_parallel(wanted.len(), |number| {
        let (digest, index) = wanted
            .get(number)
            .ok_or_else(|| io_text(&io::ErrorKind::NotFound.into()))?;
        let (_, file) = digests
            .get(*index)
            .and_then(|found| found.as_ref().ok())
            .ok_or_else(|| io_text(&io::ErrorKind::NotFound.into()))?;
        known(desk, directory, file, digest)
    });
    let by_digest: BTreeMap<Digest, &Result<Vec<u8>, (String, bool)>> =
        wanted.iter().map(|(digest, _)| *digest).zip(&kept).collect();
    digests
        .iter()
        .map(|found| match found {
            Err((why, lasting)) => Found::Not(why.clone(), *lasting),
            Ok((digest, _)) => match by_digest.get(digest) {
                Some(Ok(bytes)) => Found::Kept(*digest, bytes.clone()),
                Some(Err((why, lasting))) => Found::Not(why.clone(), *lasting),
                None => Found::Not("was not looked at".to_owned(), false),
            },
        })
        .collect()
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
    let memory = rustix::fs::memfd_create("elf", MemfdFlags::CLOEXEC).map_err(|error| io_text(&error.into()))?;
    let mut copy = File::from(memory);
    // Of the bytes that go into the cage: the file may have changed since.
    let digest = digest(file, Some(&mut copy))?;
    copy.rewind().map_err(|error| io_text(&error))?;
    let command = cage(desk, SUMMARISE).map_err(|error| io_text(&error))?;
    let bytes = child::run_on(command.0, copy, MAX_SUMMARY, desk.deadline)
        .map_err(|fault| (format!("cannot be analysed: the analysis {fault}"), false))?;
    // One that cannot be kept is made again; nothing else depends on it.
    let is_current = |name: &str| name.ends_with(syscalls::edition());
    let _ = memo::forget_oldest(directory, MAX_KEPT, &is_current)
        .and_then(|()| directory.write_volatile(&name(&digest), &bytes));
    Ok(bytes)
}

/// A command that starts a cage in the empty directory, and the descriptor that it inherits.
fn cage(desk: &Desk<'_>, what: &str) -> io::Result<(Command, OwnedFd)> {
    let inherited = rustix::io::dup(desk.empty)?;
    let mut command = Command::new("/proc/self/exe");
    command.args([what, &inherited.as_raw_fd().to_string()]);
    Ok((command, inherited))
}

/// What the second cage is given.
#[derive(Debug, Serialize, Deserialize)]
struct Joined {
    /// What is known of each file, empty where nothing is; and whether it loads programs.
    objects: Vec<(Vec<u8>, bool)>,
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
    /// Files of which something is kept that is no summary.
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

fn join(desk: &Desk<'_>, joined: &Joined) -> Result<Answer, AnalysisFault> {
    let io_fault = |error: io::Error| AnalysisFault::Child(ChildFault::Start(error));
    let bytes = postcard::to_stdvec(joined).map_err(|_| AnalysisFault::Garbage("its question cannot be written"))?;
    let (command, _root) = cage(desk, CLOSE).map_err(io_fault)?;
    let answer = child::run(command, &bytes, MAX_ANSWER, desk.deadline)?;
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
            let joined = postcard::from_bytes(&bytes).map_err(io::Error::other)?;
            serde_json::to_vec(&close(&joined))?
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

fn close(joined: &Joined) -> Answer {
    let mut answer = Answer::default();
    // Indexes of the files that have a summary.
    let mut known: Vec<usize> = Vec::new();
    let mut summaries: Vec<Summary> = Vec::new();
    for (index, (bytes, _)) in joined
        .objects
        .iter()
        .enumerate()
        .filter(|(_, (bytes, _))| !bytes.is_empty())
    {
        match postcard::from_bytes(bytes) {
            Ok(Kept::Nothing) => {}
            Ok(Kept::Unreadable(why)) => answer.unreadable.push((index, shown(&why))),
            Ok(Kept::Summary(encoded)) => match Summary::decode(&encoded) {
                Ok(summary) if summary.machine == Machine::native() => {
                    known.push(index);
                    summaries.push(summary);
                }
                Ok(_) => answer
                    .unreadable
                    .push((index, "it is for another machine than this one".to_owned())),
                Err(_) => answer.damaged.push(index),
            },
            Err(_) => answer.damaged.push(index),
        }
    }
    let mut at: Vec<Option<usize>> = vec![None; joined.objects.len()];
    for (place, index) in known.iter().enumerate() {
        if let Some(at) = at.get_mut(*index) {
            *at = Some(place);
        }
    }
    let here = |order: &Order| -> Order {
        let place = |alternatives: &Vec<usize>| {
            alternatives
                .iter()
                .filter_map(|index| at.get(*index).copied().flatten())
                .collect()
        };
        order.iter().map(place).collect()
    };
    let first = |orders: &[Order]| -> BTreeSet<usize> {
        let first = orders.iter().filter_map(|order| order.first());
        first.flatten().copied().collect()
    };
    let (programs, plugins) = (first(&joined.processes), first(&joined.plugins));
    let paths: Vec<String> = known.iter().map(ToString::to_string).collect();
    let objects: Vec<Object<'_>> = known
        .iter()
        .zip(&summaries)
        .zip(&paths)
        .map(|((index, summary), path)| Object {
            path,
            summary,
            role: if plugins.contains(index) {
                Role::Plugin
            } else if programs.contains(index) {
                Role::Program
            } else if joined.objects.get(*index).is_some_and(|(_, loads)| *loads) {
                Role::Interpreter
            } else {
                Role::Library
            },
        })
        .collect();
    let processes: Vec<Order> = joined.processes.iter().map(here).collect();
    let scopes: Vec<Order> = joined.plugins.iter().map(here).collect();
    let calls = syscalls::close_all(&objects, &processes, &scopes);
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
