//! The kernel's table of mounts, `/proc/<pid>/mountinfo` (proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// Most bytes read: more than a hundred thousand mounts.
const LIMIT: u64 = 32 << 20;

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Directory of the file system that is mounted.
    pub root: PathBuf,
    /// Where it is mounted.
    pub point: PathBuf,
    /// File system type.
    pub fs_type: String,
    /// Options of the file system, separated by commas.
    pub super_options: String,
}

/// The mounts that this process sees, in the order in which they were made below each other.
///
/// # Errors
/// When the table cannot be read.
pub fn read() -> io::Result<Vec<Entry>> {
    let mut bytes = Vec::new();
    File::open("/proc/self/mountinfo")?
        .take(LIMIT)
        .read_to_end(&mut bytes)?;
    Ok(parse(&bytes))
}

/// Reads the table. Lines that have too few fields are left out.
#[must_use]
pub fn parse(bytes: &[u8]) -> Vec<Entry> {
    bytes.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<Entry> {
    let mut fields = line.split(|byte| *byte == b' ');
    let root = PathBuf::from(unescape(fields.nth(3)?));
    let point = PathBuf::from(unescape(fields.next()?));
    // Any number of optional fields comes before a dash.
    fields.find(|field| *field == b"-")?;
    let fs_type = String::from_utf8_lossy(fields.next()?).into_owned();
    let super_options = String::from_utf8_lossy(fields.nth(1)?).into_owned();
    Some(Entry {
        root,
        point,
        fs_type,
        super_options,
    })
}

/// Undoes the octal escapes of space, tab, newline and backslash.
fn unescape(field: &[u8]) -> OsString {
    let mut text = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        match (first, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..]) => {
                text.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = tail;
            }
            (byte, tail) => {
                text.push(*byte);
                rest = tail;
            }
        }
    }
    OsString::from_vec(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_with_escapes_and_optional_fields_are_read() {
        let text = br"22 27 0:21 / /proc rw,relatime - proc proc rw
35 31 0:32 /docker/a\040b /sys/fs/cgroup/memory rw,nosuid master:9 shared:4 - cgroup cgroup rw,memory
broken
41 31 0:38 / /mnt/tab\011back\134slash\12 rw - cgroup2 cgroup2 rw,nsdelegate
";
        let entry = |root: &str, point: &str, fs_type: &str, options: &str| Entry {
            root: root.into(),
            point: point.into(),
            fs_type: fs_type.to_owned(),
            super_options: options.to_owned(),
        };
        assert_eq!(
            parse(text),
            [
                entry("/", "/proc", "proc", "rw"),
                entry("/docker/a b", "/sys/fs/cgroup/memory", "cgroup", "rw,memory"),
                entry("/", "/mnt/tab\tback\\slash\\12", "cgroup2", "rw,nsdelegate"),
            ]
        );
    }

    #[test]
    fn the_table_of_this_process_has_proc() {
        assert!(
            read()
                .unwrap()
                .iter()
                .any(|entry| entry.fs_type == "proc" && entry.point.starts_with("/proc"))
        );
    }
}
