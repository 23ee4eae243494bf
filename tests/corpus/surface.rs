//! What a container can see of its image: counted in its own root, whatever runtime made it.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Regular files of a root file system, without what is mounted into it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Surface {
    /// How many.
    pub files: u64,
    /// Their sizes together; a file with several names counts once.
    pub bytes: u64,
    /// ELF programs and scripts that may be executed.
    pub executables: u64,
    /// Programs that give whoever runs them another user, group or capabilities.
    pub set_user: u64,
}

/// Counts below a root.
///
/// # Errors
/// What cannot be read.
pub fn of(root: &Path) -> Result<Surface, String> {
    let wrong = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    // With the link followed: the root of a container is a link in /proc.
    let device = fs::metadata(root).map_err(|error| wrong(root, error))?.dev();
    let mut surface = Surface::default();
    let mut seen = HashSet::new();
    let mut folders: Vec<PathBuf> = vec![root.join(".")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(|error| wrong(&folder, error))? {
            let path = entry.map_err(|error| wrong(&folder, error))?.path();
            let metadata = fs::symlink_metadata(&path).map_err(|error| wrong(&path, error))?;
            if metadata.is_dir() {
                if metadata.dev() == device {
                    folders.push(path);
                }
                continue;
            }
            if !metadata.is_file() || metadata.dev() != device {
                continue;
            }
            surface.files += 1;
            if seen.insert(metadata.ino()) {
                surface.bytes += metadata.len();
            }
            let mode = metadata.permissions().mode();
            if mode & 0o111 == 0 {
                continue;
            }
            if is_program(&path) {
                surface.executables += 1;
            }
            let mut value = [0; 64];
            if mode & 0o6000 != 0 || rustix::fs::lgetxattr(&path, "security.capability", &mut value).is_ok() {
                surface.set_user += 1;
            }
        }
    }
    Ok(surface)
}

/// True of a script, and of an ELF file with an entry point: libraries are data here, whatever their mode says.
fn is_program(path: &Path) -> bool {
    let mut head = [0; 32];
    let Ok(read) = File::open(path).and_then(|mut file| file.read(&mut head)) else {
        return false;
    };
    let head = &head[..read];
    let library = path
        .file_name()
        .is_some_and(|name| name.to_string_lossy().contains(".so"));
    head.starts_with(b"#!") || (head.starts_with(b"\x7fELF") && !library)
}
