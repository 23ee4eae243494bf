//! Notices that policy, trust or evidence changed: what is in force and what lies in the cache, not their sources.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

/// Every change there ends in a file that gets its name, or loses it.
const CHANGES: WatchFlags = WatchFlags::MOVED_TO
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::ONLYDIR)
    .union(WatchFlags::DONT_FOLLOW);
/// What happens to the directories themselves. One that is held open says nothing of it until it is closed.
const NAMES: WatchFlags = WatchFlags::MOVED_TO
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::ONLYDIR)
    .union(WatchFlags::DONT_FOLLOW);

/// A watch on directories.
#[derive(Debug)]
pub(super) struct Watch {
    fd: AsyncFd<OwnedFd>,
    /// The watch on the directory that they are in.
    parent: i32,
}

impl Watch {
    /// Watches directories, all of which exist in `parent`.
    pub(super) fn new(parent: &Path, directories: &[&Path]) -> io::Result<Self> {
        let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let parent = inotify::add_watch(&fd, parent, NAMES)?;
        for directory in directories {
            inotify::add_watch(&fd, *directory, CHANGES)?;
        }
        // SAFETY: an OwnedFd is open and stays the same descriptor until it is dropped, and AsyncFd owns it.
        let fd = unsafe { AsyncFd::register(fd) }?;
        Ok(Self { fd, parent })
    }

    /// Waits for a change. Answers whether the watch goes on: it does not when a directory was replaced or changes were
    /// lost.
    pub(super) async fn changed(&self) -> io::Result<bool> {
        loop {
            let mut ready = self.fd.readable().await?;
            let (mut some, mut goes_on) = (false, true);
            let mut buffer = [MaybeUninit::uninit(); 4096];
            let mut events = inotify::Reader::new(self.fd.get_ref(), &mut buffer);
            loop {
                match events.next() {
                    Ok(event) => {
                        let what = event.events();
                        let is_lost = what.intersects(ReadFlags::IGNORED | ReadFlags::QUEUE_OVERFLOW);
                        let is_parent = event.wd() == self.parent;
                        // Files that come and go beside the directories are no change.
                        if is_parent && !is_lost && !what.contains(ReadFlags::ISDIR) {
                            continue;
                        }
                        some = true;
                        goes_on &= !is_lost && !is_parent;
                    }
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => break,
                    Err(error) => return Err(error.into()),
                }
            }
            ready.clear_ready();
            if some {
                return Ok(goes_on);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StateDir;

    #[test]
    fn a_file_that_is_replaced_and_a_directory_that_goes_are_noticed() {
        let place = tempfile::tempdir().unwrap();
        let state = StateDir::open(&place.path().canonicalize().unwrap().join("state")).unwrap();
        let active = state.subdir("active").unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .unwrap();
        runtime.block_on(async {
            let watch = Watch::new(state.path(), &[active.path()]).unwrap();
            // Not this, which happens all the time.
            state.write("decisions.jsonl", b"{}").unwrap();
            active.write("policy.json", b"{}").unwrap();
            assert!(watch.changed().await.unwrap());
            // Held open, as the agent does.
            std::fs::rename(active.path(), place.path().join("elsewhere")).unwrap();
            assert!(!watch.changed().await.unwrap());
            let again = state.subdir("active").unwrap();
            let watch = Watch::new(state.path(), &[again.path()]).unwrap();
            std::fs::remove_dir_all(again.path()).unwrap();
            while watch.changed().await.unwrap() {}
        });
        assert!(Watch::new(state.path(), &[Path::new("/nonexistent")]).is_err());
    }
}
