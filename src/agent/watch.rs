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

/// A watch on directories.
#[derive(Debug)]
pub(super) struct Watch(AsyncFd<OwnedFd>);

impl Watch {
    /// Watches directories, all of which exist.
    pub(super) fn new(directories: &[&Path]) -> io::Result<Self> {
        let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        for directory in directories {
            inotify::add_watch(&fd, *directory, CHANGES)?;
        }
        // SAFETY: an OwnedFd is open and stays the same descriptor until it is dropped, and AsyncFd owns it.
        Ok(Self(unsafe { AsyncFd::register(fd) }?))
    }

    /// Waits for a change. Answers whether the watch goes on: it does not when a directory was replaced or changes were
    /// lost.
    pub(super) async fn changed(&self) -> io::Result<bool> {
        loop {
            let mut ready = self.0.readable().await?;
            let (mut some, mut goes_on) = (false, true);
            let mut buffer = [MaybeUninit::uninit(); 4096];
            let mut events = inotify::Reader::new(self.0.get_ref(), &mut buffer);
            loop {
                match events.next() {
                    Ok(event) => {
                        some = true;
                        goes_on &= !event
                            .events()
                            .intersects(ReadFlags::IGNORED | ReadFlags::QUEUE_OVERFLOW);
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
            let watch = Watch::new(&[active.path()]).unwrap();
            active.write("policy.json", b"{}").unwrap();
            assert!(watch.changed().await.unwrap());
            std::fs::remove_dir_all(active.path()).unwrap();
            while watch.changed().await.unwrap() {}
        });
        assert!(Watch::new(&[Path::new("/nonexistent")]).is_err());
    }
}
