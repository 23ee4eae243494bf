//! Which way this kernel can show a view, found by trying: each way is mounted once, over a file system that views are
//! for, and must show what it should and leave files in the upper directory that need no view to be read.

use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::thread::UnshareFlags;
use serde::{Deserialize, Serialize};

use super::mount::{Rootfs, in_thread};
use super::{Error, View, Way, build};
use crate::digest::Digest;
use crate::store::StateDir;

/// Most bytes of a remembered answer.
const MAX_ANSWER: u64 = 4096;
/// What the file that is shown says.
const CONTENT: &str = "shown through a view";

/// An answer of an earlier probe.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    boot: String,
    device: u64,
    way: Way,
}

/// The best way for views that lie in `home`. Tried once per boot and file system; `run` remembers it.
///
/// # Errors
/// [`Error::NoWay`] where no way works.
pub fn way(run: &StateDir, home: &StateDir) -> Result<Way, Error> {
    let boot = boot()?;
    let failed = |e| Error::at("look at", home.path(), e);
    #[expect(clippy::useless_conversion, reason = "its type differs between architectures")]
    let device = u64::from(rustix::fs::fstat(home).map_err(failed)?.st_dev);
    let name = format!("view-way-{device:x}.json");
    if let Some(bytes) = run.read(&name, MAX_ANSWER)?
        && let Ok(answer) = serde_json::from_slice::<Answer>(&bytes)
        && answer.boot == boot
        && answer.device == device
    {
        return Ok(answer.way);
    }
    let way = probe(home)?;
    let answer = Answer { boot, device, way };
    run.write_volatile(&name, serde_json::to_string(&answer).unwrap_or_default().as_bytes())?;
    Ok(way)
}

/// What tells this boot from others.
pub(super) fn boot() -> Result<String, Error> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let text =
        fs::read_to_string(path).map_err(|e| Error::at("read", path, Errno::from_io_error(&e).unwrap_or(Errno::IO)))?;
    Ok(text.trim().to_owned())
}

/// Tries each way in `home`, the best first.
fn probe(home: &StateDir) -> Result<Way, Error> {
    let folder = home.path().join(format!(".probe-{}", std::process::id()));
    let failed = |error: io::Error| {
        Error::at(
            "try views in",
            &folder,
            Errno::from_io_error(&error).unwrap_or(Errno::IO),
        )
    };
    // Of a process with the same number that was killed.
    let _ = fs::remove_dir_all(&folder);
    let mut reasons = Vec::new();
    let mut found = None;
    for way in [Way::One, Way::Two, Way::Whiteouts] {
        fs::create_dir(&folder).map_err(failed)?;
        let tried = attempt(&folder, way);
        fs::remove_dir_all(&folder).map_err(failed)?;
        match tried {
            Ok(()) => {
                found = Some(way);
                break;
            }
            Err(error) => reasons.push(format!("{}: {error}", way.name())),
        }
    }
    found.ok_or_else(|| Error::NoWay(reasons.join("; ")))
}

/// Mounts a view of one file out of two and changes the file's mode.
///
/// # Errors
/// What does not work.
pub(super) fn attempt(folder: &Path, way: Way) -> io::Result<()> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    for name in ["data", "view", "upper", "work", "root"] {
        fs::create_dir(folder.join(name))?;
    }
    for name in ["shown", "hidden"] {
        fs::write(folder.join("data").join(name), CONTENT)?;
    }
    let layers = [folder.join("data")];
    let layer = folder.join("view");
    let directory = rustix::fs::open(
        &layer,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let keep = std::iter::once("/shown".to_owned()).collect();
    let built = build::build(&layers, &keep, way.form(), &directory).map_err(io::Error::other)?;
    let view = View {
        key: Digest::of(b"probe"),
        way,
        layer,
        digest: built.digest,
    };
    in_thread(UnshareFlags::NEWNS, || {
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        let root = folder.join("root");
        let target = rustix::fs::open(&root, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let options = ["upper", "work"].map(|name| format!("{name}dir={}", folder.join(name).display()));
        Rootfs {
            view: &view,
            layers: &layers,
            source: "overlay",
            options: &options,
            flags: MountFlags::empty(),
            mapping: None,
        }
        .mount(target.as_fd(), &root)?;
        let judged = judge(&root, &folder.join("upper"));
        drop(target);
        unmount(&root, UnmountFlags::empty())?;
        judged
    })
}

fn judge(root: &Path, upper: &Path) -> io::Result<()> {
    let expect = |what: bool, otherwise: &str| if what { Ok(()) } else { Err(io::Error::other(otherwise)) };
    let shown: PathBuf = root.join("shown");
    expect(!root.join("hidden").exists(), "a hidden file is visible")?;
    expect(
        fs::read_to_string(&shown)? == CONTENT,
        "a visible file has another content",
    )?;
    fs::set_permissions(&shown, fs::Permissions::from_mode(0o600))?;
    expect(
        fs::read_to_string(upper.join("shown"))? == CONTENT,
        "a file whose mode was changed has lost its content",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dirs() -> (tempfile::TempDir, StateDir, StateDir) {
        let temporary = tempfile::tempdir().unwrap();
        let open = |name: &str| StateDir::open(&temporary.path().canonicalize().unwrap().join(name)).unwrap();
        let (run, home) = (open("run"), open("views"));
        (temporary, run, home)
    }

    #[test]
    fn the_answer_is_remembered_for_this_boot_and_file_system_only() {
        let (_temporary, run, home) = dirs();
        let found = way(&run, &home).unwrap();
        let name = fs::read_dir(run.path()).unwrap().next().unwrap().unwrap().file_name();
        let path = run.path().join(name);
        let text = fs::read_to_string(&path).unwrap();
        // Another answer for this boot is believed, one of another boot or none is not.
        let other = if found == Way::Whiteouts {
            Way::One
        } else {
            Way::Whiteouts
        };
        fs::write(&path, text.replace(found.name(), other.name())).unwrap();
        assert_eq!(way(&run, &home).unwrap(), other);
        let old = text
            .replace(found.name(), other.name())
            .replace(&boot().unwrap(), "before");
        fs::write(&path, old).unwrap();
        assert_eq!(way(&run, &home).unwrap(), found);
        fs::write(&path, "{").unwrap();
        assert_eq!(way(&run, &home).unwrap(), found);
        assert_eq!(
            fs::read_dir(home.path()).unwrap().count(),
            0,
            "the probe leaves nothing"
        );
    }

    #[test]
    fn whiteouts_work_on_every_kernel() {
        let (_temporary, _run, home) = dirs();
        let folder = home.path().join("try");
        fs::create_dir(&folder).unwrap();
        attempt(&folder, Way::Whiteouts).unwrap();
    }
}
