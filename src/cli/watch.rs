//! `assay watch`: the process beside a container whose file system is audited. It listens before the container is
//! created, keeps a record of what it saw, and ends when its standard input does: with the container, or with the shim.

use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec};

use super::{Exit, complain};
use crate::config::Config;
use crate::digest::Digest;
use crate::store::{self, StateDir};
use crate::view::watch::{Hidden, LISTS, RECORDS, Record, VERSION, Watch, record_name};

/// What it says on standard output when it listens.
pub use crate::shim::watch::READY;

/// Largest list of hidden paths in bytes.
const MAX_LIST: u64 = 128 << 20;
/// Most records that are kept; the oldest go first.
const MAX_RECORDS: usize = 1000;
/// Longest time that something seen is not in the record.
const DELAY: Duration = Duration::from_secs(1);

/// Arguments of `assay watch`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// containerd namespace
    #[arg(long)]
    namespace: String,
    /// Container id
    #[arg(long)]
    container: String,
    /// Rule that says what would be visible
    #[arg(long)]
    rule: String,
    /// Where the container's root file system is mounted
    #[arg(long)]
    root: PathBuf,
    /// The OCI runtime
    #[arg(long)]
    runtime: PathBuf,
    /// Digest of the list of hidden paths
    list: Digest,
}

/// Why nothing is watched.
#[derive(Debug, thiserror::Error)]
enum WatchError {
    #[error("{0}")]
    State(#[from] store::Error),
    #[error("the list of hidden paths {0} is gone")]
    NoList(Digest),
    #[error("fanotify: {0}")]
    Listen(#[source] std::io::Error),
    #[error("waiting for events: {0}")]
    Wait(#[source] rustix::io::Errno),
}

/// Watches until standard input ends.
#[must_use]
pub fn run(args: &Args, config: &Config) -> Exit {
    match watch(args, config) {
        Ok(()) => Exit::Done,
        Err(error) => {
            complain(error);
            Exit::Failed
        }
    }
}

fn watch(args: &Args, config: &Config) -> Result<(), WatchError> {
    let state = StateDir::open(&config.state)?;
    let list = state.subdir(LISTS)?.read(&args.list.hex(), MAX_LIST)?;
    let list = list.ok_or(WatchError::NoList(args.list))?;
    let hidden = Hidden::new(list.split(|byte| *byte == 0).filter(|path| !path.is_empty()));
    drop(list);
    let mut watch = Watch::new(&args.root, &program(&args.runtime), hidden).map_err(WatchError::Listen)?;
    let records = state.subdir(RECORDS)?;
    make_room(&records, MAX_RECORDS)?;
    let name = record_name(&args.namespace, &args.container);
    let mut record = Record {
        version: VERSION,
        namespace: args.namespace.clone(),
        container: args.container.clone(),
        rule: args.rule.clone(),
        since: Timestamp::now(),
        until: None,
        seen: watch.report(),
    };
    write(&records, &name, &record)?;
    // The reader is gone when the shim is, and then standard input has ended too.
    let _ = std::io::stdout().write_all(READY);
    let _ = std::io::stdout().flush();
    let stdin = std::io::stdin();
    // When what was seen must be written: a container that is busy with hidden files is not written about for each.
    let mut due: Option<Instant> = None;
    loop {
        let mut wanted = [
            PollFd::from_borrowed_fd(watch.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN),
        ];
        let left = due.map(|due| due.saturating_duration_since(Instant::now()));
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        match rustix::event::poll(&mut wanted, left.as_ref()) {
            Err(rustix::io::Errno::INTR) => continue,
            result => result.map_err(WatchError::Wait)?,
        };
        let ended = !wanted[1].revents().is_empty();
        // At once: who did it is known only as long as it lives.
        if watch.drain().map_err(WatchError::Listen)? && due.is_none() {
            due = Some(Instant::now() + DELAY);
        }
        if ended || due.is_some_and(|due| due <= Instant::now()) {
            due = None;
            record.seen = watch.report();
            record.until = ended.then(Timestamp::now);
            write(&records, &name, &record)?;
        }
        if ended {
            return Ok(());
        }
    }
}

fn write(records: &StateDir, name: &str, record: &Record) -> Result<(), store::Error> {
    // Strings, numbers and lists only: there is always a JSON form.
    let json = serde_json::to_vec(record).unwrap_or_default();
    records.write_volatile(name, &json)
}

/// Removes the oldest records, so that with one more there are `most`.
fn make_room(records: &StateDir, most: usize) -> Result<(), store::Error> {
    let names = store::names(records.as_fd(), records.path())?.collect::<Result<Vec<_>, _>>()?;
    if names.len() < most {
        return Ok(());
    }
    let changed = |name: &PathBuf| {
        std::fs::symlink_metadata(records.path().join(name))
            .and_then(|file| file.modified())
            .ok()
    };
    let mut by_age: Vec<(Option<std::time::SystemTime>, PathBuf)> = names
        .into_iter()
        .map(PathBuf::from)
        .map(|name| (changed(&name), name))
        .collect();
    by_age.sort();
    for (_, name) in by_age.iter().take(by_age.len() + 1 - most) {
        // Another process may be clearing up as well.
        let _ = std::fs::remove_file(records.path().join(name));
    }
    Ok(())
}

/// The OCI runtime's file, which may be given by name.
fn program(runtime: &Path) -> PathBuf {
    if runtime.components().count() > 1 {
        return runtime.to_owned();
    }
    let search = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&search)
        .map(|directory| directory.join(runtime))
        .find(|file| file.is_file())
        .unwrap_or_else(|| runtime.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_records_go_first() {
        let place = tempfile::tempdir().unwrap();
        let records = StateDir::open(&place.path().join("state")).unwrap();
        let old = std::time::SystemTime::UNIX_EPOCH;
        for (name, age) in [("a", 3), ("b", 1), ("c", 2)] {
            records.write_volatile(name, b"{}").unwrap();
            let file = std::fs::File::open(records.path().join(name)).unwrap();
            file.set_modified(old + Duration::from_secs(age)).unwrap();
        }
        make_room(&records, 4).unwrap();
        assert!(records.read("b", 10).unwrap().is_some());
        make_room(&records, 2).unwrap();
        let left = ["a", "b", "c"].map(|name| records.read(name, 10).unwrap().is_some());
        assert_eq!(left, [true, false, false]);
    }

    #[test]
    fn the_oci_runtime_may_be_given_by_name() {
        assert_eq!(program(Path::new("/usr/sbin/runc")), Path::new("/usr/sbin/runc"));
        assert!(program(Path::new("sh")).is_absolute());
        assert_eq!(program(Path::new("no-such-runtime")), Path::new("no-such-runtime"));
    }
}
