//! Kills for want of memory.
//!
//! cgroup v1 signals an eventfd; cgroup v2 counts in `memory.events`, a change of which inotify reports. The kill comes
//! before the process's end, so that whoever sees the end and then asks [`OomWatch::check_now`] misses none.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::inotify;
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

use super::io::watched;
use super::stats::{Cgroup, StatsError};

/// Longest file of events that is read.
const EVENTS_LIMIT: u64 = 4096;

/// Watches one container's cgroup. Dropping it ends the watch.
#[derive(Debug)]
pub struct OomWatch {
    directory: PathBuf,
    source: Source,
}

#[derive(Debug)]
enum Source {
    V1(AsyncFd<OwnedFd>),
    V2 {
        changes: AsyncFd<OwnedFd>,
        /// Kills that have been reported.
        seen: AtomicU64,
    },
}

impl OomWatch {
    /// Begins to watch. Kills from before are not reported.
    ///
    /// # Errors
    /// When the cgroup has no memory controller, or is gone.
    pub fn new(cgroup: &Cgroup) -> Result<Self, StatsError> {
        let (directory, unified) = cgroup.memory()?;
        let source = if unified {
            watch_v2(directory)?
        } else {
            watch_v1(directory)?
        };
        Ok(Self {
            directory: directory.to_owned(),
            source,
        })
    }

    /// Waits for a kill that has not been reported; false when the cgroup is gone or nothing runs in it any more.
    pub async fn wait(&self) -> bool {
        let (Source::V1(changes) | Source::V2 { changes, .. }) = &self.source;
        loop {
            let Ok(mut readable) = changes.readable().await else {
                return false;
            };
            if self.check_now() {
                return true;
            }
            if self.is_over() {
                // What happened between the two looks still counts.
                return self.check_now();
            }
            // Everything there was has been taken, with the guard from before that.
            readable.clear_ready();
        }
    }

    /// Whether there was a kill that has not been reported yet; it is now.
    pub fn check_now(&self) -> bool {
        match &self.source {
            // The kernel signals the end of the cgroup in the same way.
            Source::V1(signals) => take_signals(signals) && self.directory.is_dir(),
            Source::V2 { changes, seen } => {
                forget_changes(changes);
                let Some(kills) = count(&self.directory.join("memory.events"), "oom_kill") else {
                    return false;
                };
                seen.fetch_max(kills, Ordering::Relaxed) < kills
            }
        }
    }

    fn is_over(&self) -> bool {
        match &self.source {
            Source::V1(_) => !self.directory.is_dir(),
            Source::V2 { .. } => count(&self.directory.join("cgroup.events"), "populated").unwrap_or(0) == 0,
        }
    }
}

fn watch_v1(directory: &Path) -> Result<Source, StatsError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| StatsError::Read { path, source }
    };
    let path = directory.join("memory.oom_control");
    let control = File::open(&path).map_err(failed(&path))?;
    let path = directory.join("cgroup.event_control");
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    let signals = eventfd(0, flags).map_err(|error| failed(&path)(error.into()))?;
    let registration = format!("{} {}", signals.as_raw_fd(), control.as_raw_fd());
    let written = OpenOptions::new()
        .write(true)
        .open(&path)
        .and_then(|mut file| file.write_all(registration.as_bytes()));
    written.map_err(failed(&path))?;
    Ok(Source::V1(watched(signals).map_err(failed(&path))?))
}

fn watch_v2(directory: &Path) -> Result<Source, StatsError> {
    let path = directory.join("memory.events");
    let failed = |source: io::Error| StatsError::Read {
        path: path.clone(),
        source,
    };
    let changes =
        inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).map_err(|e| failed(e.into()))?;
    // The second tells when the last process has ended; the removal of a cgroup is not reported.
    for file in [&path, &directory.join("cgroup.events")] {
        inotify::add_watch(&changes, file, inotify::WatchFlags::MODIFY).map_err(|error| StatsError::Read {
            path: file.clone(),
            source: error.into(),
        })?;
    }
    let seen = AtomicU64::new(count(&path, "oom_kill").unwrap_or(0));
    Ok(Source::V2 {
        changes: watched(changes).map_err(failed)?,
        seen,
    })
}

/// Whether the eventfd was signalled; it is not any more.
fn take_signals(signals: impl AsFd) -> bool {
    let mut number = [0; 8];
    loop {
        match rustix::io::read(&signals, &mut number) {
            Err(Errno::INTR) => {}
            Ok(_) => return true,
            Err(_) => return false,
        }
    }
}

/// Takes all events away: what they are about is read from the files.
fn forget_changes(changes: impl AsFd) {
    let mut space = [MaybeUninit::uninit(); 512];
    let mut events = inotify::Reader::new(changes, &mut space);
    while events.next().is_ok() {}
}

/// The number after `name` in a file of such pairs; `None` when the cgroup is gone.
fn count(path: &Path, name: &str) -> Option<u64> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(EVENTS_LIMIT).read_to_string(&mut text))
        .ok()?;
    let (_, number) = text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(known, _)| *known == name)?;
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// A memory cgroup of this machine; tests run as root with cgroup v1 controllers or cgroup v2.
    struct Group(PathBuf);

    impl Group {
        fn new(name: &str) -> Self {
            let path = PathBuf::from(format!(
                "/sys/fs/cgroup/memory/assay-test-{name}-{}",
                std::process::id()
            ));
            fs::create_dir(&path).unwrap();
            fs::write(path.join("memory.limit_in_bytes"), "16M").unwrap();
            // Without swap the limit is hard.
            let _ = fs::write(path.join("memory.swappiness"), "0");
            Self(path)
        }

        fn run(&self, script: &str) -> std::process::Child {
            let script = format!("echo $$ >{}/cgroup.procs; {script}", self.0.display());
            Command::new("sh").args(["-c", &script]).spawn().unwrap()
        }
    }

    impl Drop for Group {
        fn drop(&mut self) {
            let _ = fs::remove_dir(&self.0);
        }
    }

    /// Allocates without end.
    const HOG: &str = "exec tail /dev/zero";
    const LIMIT: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_kill_of_cgroup_v1_is_reported_once_and_the_watch_ends_with_the_cgroup() {
        let group = Group::new("oom");
        let mut idle = group.run("exec sleep 100");
        std::thread::sleep(Duration::from_millis(200));
        let cgroup = Cgroup::of(i32::try_from(idle.id()).unwrap()).unwrap();
        let watch = OomWatch::new(&cgroup).unwrap();
        assert!(!watch.check_now());

        let mut hog = group.run(HOG);
        assert!(timeout(LIMIT, watch.wait()).await.unwrap());
        hog.wait().unwrap();
        // The kernel may notify more than once until the kill has freed memory, all of it before the end.
        watch.check_now();
        assert!(!watch.check_now());

        let mut hog = group.run(HOG);
        hog.wait().unwrap();
        assert!(watch.check_now(), "the kill came before the end");

        idle.kill().unwrap();
        idle.wait().unwrap();
        drop(group);
        assert!(!timeout(LIMIT, watch.wait()).await.unwrap());
        assert!(OomWatch::new(&cgroup).is_err());
    }

    /// The files of a cgroup, which the test changes in the kernel's place; real ones need a kernel with cgroup v2.
    #[tokio::test]
    async fn a_kill_of_cgroup_v2_is_reported_once_and_the_watch_ends_when_nothing_runs() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
        let events = |kills: u32| {
            write(
                "memory.events",
                &format!("low 0\nhigh 0\nmax 7\noom 9\noom_kill {kills}\n"),
            )
        };
        events(1);
        write("cgroup.events", "populated 1\nfrozen 0\n");
        let source = watch_v2(directory.path()).unwrap();
        let watch = OomWatch {
            directory: directory.path().to_owned(),
            source,
        };
        assert!(!watch.check_now(), "a kill from before");
        events(2);
        assert!(timeout(LIMIT, watch.wait()).await.unwrap());
        assert!(!watch.check_now());
        events(4);
        assert!(watch.check_now());
        assert!(
            timeout(Duration::from_millis(100), watch.wait()).await.is_err(),
            "reported twice"
        );
        events(5);
        write("cgroup.events", "populated 0\nfrozen 0\n");
        assert!(timeout(LIMIT, watch.wait()).await.unwrap(), "the last kill is lost");
        write("cgroup.events", "populated 0\nfrozen 0\n");
        assert!(!timeout(LIMIT, watch.wait()).await.unwrap());
    }
}
