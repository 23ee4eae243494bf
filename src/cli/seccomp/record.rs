//! `assay seccomp record`: which system calls a program or a running container makes, added to a profile.

use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use clap::builder::NonEmptyStringValueParser;

use super::super::{Exit, complain, count, print};
use super::operand;
use crate::admission;
use crate::diagnostic::printable;
use crate::runtime::{Recorder, Recording, Wake};
use crate::seccomp::{self, Permission, Profile};
use crate::store;
use crate::syscalls::{Machine, all};

/// How often it is looked for processes that somebody else has started in a container.
const GLANCE: Duration = Duration::from_millis(200);

/// Arguments of `assay seccomp record`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub(super) struct Args {
    /// A profile that what is seen is added to; it is made if it does not exist. Without one, standard output gets what is seen
    #[arg(long, value_name = "FILE")]
    into: Option<PathBuf>,
    /// Stop after this many seconds; without it a command is followed to its end, a container until it ends or Ctrl-C
    #[arg(long = "for", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    seconds: Option<u64>,
    /// containerd namespace that holds the container
    #[arg(long, default_value = "k8s.io", value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    namespace: String,
    /// containerd's socket
    #[arg(long, default_value = "/run/containerd/containerd.sock", value_name = "PATH", value_parser = super::super::verify::socket)]
    address: String,
    /// A container that runs, by its id
    #[arg(value_name = "CONTAINER", group = "what", value_parser = NonEmptyStringValueParser::new())]
    container: Option<String>,
    /// A program with its arguments
    #[arg(last = true, value_name = "COMMAND", group = "what")]
    command: Vec<String>,
}

/// Follows, adds, and says what there was.
pub(super) fn run(args: &Args) -> Exit {
    // What cannot be added to is better known before.
    if let Some(Err(exit)) = args.into.as_deref().map(earlier) {
        return exit;
    }
    let followed = match &args.container {
        Some(container) => container_calls(args, container),
        None => command_calls(args).map_err(|why| (why, Exit::Failed)),
    };
    let (recording, exit) = match followed {
        Ok(followed) => followed,
        Err((why, exit)) => {
            complain(printable(&why));
            return exit;
        }
    };
    // Another recording may have been added meanwhile: what is there now counts, and nobody changes it until this is.
    let locked = args.into.as_deref().map(lock).transpose();
    let (_lock, earlier) = match locked.map(|lock| (lock, args.into.as_deref().map(self::earlier).transpose())) {
        Ok((lock, Ok(earlier))) => (lock, earlier.flatten()),
        Ok((_, Err(exit))) => return exit,
        Err(error) => {
            complain(printable(&format!("what was seen cannot be added: {error}")));
            return Exit::Failed;
        }
    };
    let seen = Profile::allow(Machine::native(), recording.calls.keys().cloned());
    let union = match &earlier {
        None => Ok(seen),
        Some(earlier) => seccomp::union(&[earlier.clone(), seen], Machine::native()),
    };
    let union = match union {
        Ok(union) => union,
        Err(why) => {
            complain(format!("what was seen cannot be added: {why}"));
            return Exit::Failed;
        }
    };
    match &args.into {
        None => print(String::from_utf8_lossy(&union.to_json())),
        Some(file) => {
            let mut bytes = union.to_json();
            bytes.push(b'\n');
            if let Err(error) = store::replace(&absolute(file), &bytes, 0o644) {
                complain(printable(&format!("what was seen is not written: {error}")));
                return Exit::Failed;
            }
        }
    }
    complain(summary(&recording, earlier.as_ref()));
    exit
}

/// The profile that is added to, if it is there.
fn earlier(file: &Path) -> Result<Option<Profile>, Exit> {
    match operand::file(file) {
        Ok(profile) => Ok(Some(profile)),
        Err((_, Exit::NotFound)) => Ok(None),
        Err((why, exit)) => {
            complain(printable(&format!("{}: {why}", file.display())));
            Err(exit)
        }
    }
}

/// Keeps every other recording from adding to a file of the same folder, until the returned value is dropped.
fn lock(file: &Path) -> std::io::Result<File> {
    let folder = File::open(absolute(file).parent().unwrap_or(Path::new("/")))?;
    folder.lock()?;
    Ok(folder)
}

fn absolute(file: &Path) -> PathBuf {
    std::path::absolute(file).unwrap_or_else(|_| file.to_owned())
}

fn command_calls(args: &Args) -> Result<(Recording, Exit), String> {
    let [program, arguments @ ..] = args.command.as_slice() else {
        return Err("there is no command".to_owned());
    };
    let lost = |error: std::io::Error| format!("the command cannot be followed any more: {error}");
    let mut recorder = Recorder::new().map_err(lost)?;
    let process = recorder
        .start(Command::new(program).args(arguments))
        .map_err(|error| format!("{program} does not start: {error}"))?;
    let end = args
        .seconds
        .map(|seconds| Instant::now() + Duration::from_secs(seconds));
    while !recorder.is_over() && end.is_none_or(|end| Instant::now() < end) {
        // A terminal tells Ctrl-C to the command too, and what that does then counts as well.
        if recorder.wait(GLANCE).map_err(lost)? == Wake::Signal(libc::SIGTERM) {
            break;
        }
    }
    let exit = match recorder.ended(process) {
        None | Some(0) => Exit::Done,
        Some(status) => {
            complain(format!("the command ended with status {status}"));
            Exit::Failed
        }
    };
    Ok((recorder.recording(), exit))
}

fn container_calls(args: &Args, container: &str) -> Result<(Recording, Exit), (String, Exit)> {
    let failed = |why: String| (why, Exit::Failed);
    let processes = || {
        admission::processes(&args.address, &args.namespace, container)
            .map_err(|(reason, fix)| failed(format!("{reason}; to fix: {fix}")))?
            .ok_or_else(|| {
                let namespace = &args.namespace;
                let why = format!(
                    "no container '{container}' runs in namespace {namespace}; to fix: name one that does, or its --namespace"
                );
                (why, Exit::NotFound)
            })
    };
    let mut recorder = Recorder::new().map_err(|error| failed(format!("nothing can be followed: {error}")))?;
    let attach = |recorder: &mut Recorder, processes: Vec<u32>| {
        for process in processes {
            recorder.attach(process.cast_signed()).map_err(|error| {
                failed(format!(
                    "process {process} of the container cannot be followed: {error}"
                ))
            })?;
        }
        Ok::<(), (String, Exit)>(())
    };
    attach(&mut recorder, processes()?)?;
    let end = args
        .seconds
        .map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut looked = Instant::now();
    while !recorder.is_over() && end.is_none_or(|end| Instant::now() < end) {
        let wake = recorder
            .wait(GLANCE)
            .map_err(|error| failed(format!("the container cannot be followed any more: {error}")))?;
        if matches!(wake, Wake::Signal(_)) {
            break;
        }
        if looked.elapsed() > GLANCE {
            // Those that others start in it: probes, commands. When it has ended there are none, which is no fault.
            attach(&mut recorder, processes().unwrap_or_default())?;
            looked = Instant::now();
        }
    }
    Ok((recorder.recording(), Exit::Done))
}

/// What was seen, in a few words.
fn summary(recording: &Recording, earlier: Option<&Profile>) -> String {
    let mut text = format!(
        "{} by {} with {} in {:.1} s",
        count(recording.calls.len(), "call"),
        match recording.processes {
            1 => "1 process".to_owned(),
            more => format!("{more} processes"),
        },
        count(recording.threads, "thread"),
        recording.time.as_secs_f64(),
    );
    if let Some(earlier) = earlier {
        let rules = earlier.rules();
        let is_new = |name: &str| recording.calls.contains_key(name) && rules.permission(name) != Permission::Always;
        let new: Vec<&str> = all(Machine::native())
            .map(|(_, name)| name)
            .filter(|name| is_new(name))
            .collect();
        let _ = match new.as_slice() {
            [] => write!(text, ", none of them new"),
            new => write!(text, ", new: {}", new.join(" ")),
        };
    }
    for (architecture, number) in &recording.unnamed {
        let _ = write!(
            text,
            "\nnot in the profile: call {number} of architecture {architecture:#x}"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_new_is_said() {
        let recording = Recording {
            calls: [("read".to_owned(), 3), ("ptrace".to_owned(), 1)].into(),
            unnamed: [(0x4000_0003, 20)].into(),
            processes: 1,
            threads: 2,
            time: Duration::from_millis(1500),
        };
        let earlier = Profile::allow(Machine::native(), ["read", "write"]);
        assert_eq!(
            summary(&recording, Some(&earlier)),
            "2 calls by 1 process with 2 threads in 1.5 s, new: ptrace\n\
             not in the profile: call 20 of architecture 0x40000003"
        );
        assert!(summary(&recording, None).starts_with("2 calls by 1 process with 2 threads in 1.5 s\n"));
    }
}
