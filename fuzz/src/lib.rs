//! What the fuzz targets share. A target is a file in `fuzz_targets/`, its entry in `Cargo.toml` and a folder of small
//! inputs in `corpus/`; `fuzz/run` finds it by the file.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use assay::store::StateDir;
use assay::trust::{Builtin, Root};
use assay::verify::TrustedRoot;
use jiff::Timestamp;
use rustix::fs::MemfdFlags;

/// The node's time: fixed, so that an input always does the same.
pub const NOW: Timestamp = Timestamp::constant(1_790_000_000, 0);

/// Roots that real evidence was made under.
pub static ROOTS: LazyLock<Vec<TrustedRoot>> = LazyLock::new(|| {
    [Builtin::Sigstore, Builtin::Github, Builtin::Staging]
        .map(|which| TrustedRoot::new(&Root::builtin("root", which)).unwrap().0)
        .into()
});

/// A folder of this process, below the one that `TMPDIR` names; whoever starts the target takes it away.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("assay-fuzz-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    folder.canonicalize().unwrap()
});

/// Path of a file of that name with these bytes.
pub fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let path = FOLDER.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, bytes).unwrap();
    path
}

/// An empty state directory.
pub fn state(name: &str) -> StateDir {
    let path = FOLDER.join(name);
    let _ = fs::remove_dir_all(&path);
    StateDir::open(&path).unwrap()
}

/// Hands the path of a file in memory with these bytes to `read`.
pub fn in_memory(bytes: &[u8], read: impl FnOnce(&Path)) {
    let mut file = File::from(rustix::fs::memfd_create("input", MemfdFlags::CLOEXEC).unwrap());
    file.write_all(bytes).unwrap();
    read(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())));
}

/// An input of two parts, which a zero byte separates.
pub fn two_parts(data: &[u8]) -> (&[u8], &[u8]) {
    match data.iter().position(|byte| *byte == 0) {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &[]),
    }
}
