//! Mount options as containerd writes them, one word each.

use rustix::mount::{MountFlags, MountPropagationFlags};

use super::MountError;

/// Options of a mount itself, apart from those of its file system.
const PER_MOUNT: MountFlags = MountFlags::RDONLY
    .union(MountFlags::NOSUID)
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC)
    .union(MountFlags::NOATIME)
    .union(MountFlags::NODIRATIME)
    .union(MountFlags::RELATIME)
    .union(MountFlags::STRICTATIME)
    .union(MountFlags::NOSYMFOLLOW);
/// Options that label files. A bind mount keeps the labels of its source, and containerd gives them all the same.
const LABELS: [&str; 4] = ["context=", "fscontext=", "defcontext=", "rootcontext="];

/// What the options of one mount say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Options {
    /// Flags of mount(2), without those for binding and remounting.
    pub(super) flags: MountFlags,
    /// Bind the source; with everything mounted below it when true.
    pub(super) bind: Option<bool>,
    /// Change what is mounted.
    pub(super) remount: bool,
    /// How later mounts spread.
    pub(super) propagation: Option<MountPropagationFlags>,
    /// Mount the source through a loop device.
    pub(super) loop_device: bool,
    /// Let the loop device bypass the page cache.
    pub(super) direct_io: bool,
    /// User and group mappings.
    pub(super) mapping: Option<(String, String)>,
    /// Options for the file system.
    pub(super) data: Vec<String>,
}

impl Options {
    /// Reads the options of a mount of type `fs_type`. None is left out without a word.
    pub(super) fn parse(fs_type: &str, options: &[String]) -> Result<Self, MountError> {
        let refuse = |option: &str, reason| MountError::Option {
            option: shortened(option),
            reason,
        };
        let mut parsed = Self {
            flags: MountFlags::empty(),
            // The type says so too.
            bind: match fs_type {
                "bind" => Some(false),
                "rbind" => Some(true),
                _ => None,
            },
            remount: false,
            propagation: None,
            loop_device: false,
            direct_io: false,
            mapping: None,
            data: Vec::new(),
        };
        let (mut users, mut groups) = (None, None);
        for option in options {
            match option.as_str() {
                "" | "defaults" => {}
                "bind" => parsed.bind = Some(parsed.bind == Some(true)),
                "rbind" => parsed.bind = Some(true),
                "remount" => parsed.remount = true,
                "loop" => parsed.loop_device = true,
                word => {
                    if let Some(propagation) = propagation(word) {
                        parsed.propagation = Some(propagation);
                    } else if let Some((set, flag)) = flag(word) {
                        parsed.flags.set(flag, set);
                    } else if let Some(mapping) = word.strip_prefix("uidmap=") {
                        users = Some(mapping.to_owned());
                    } else if let Some(mapping) = word.strip_prefix("gidmap=") {
                        groups = Some(mapping.to_owned());
                    } else if word.starts_with("X-containerd.") {
                        return Err(refuse(
                            word,
                            "is for containerd's mount manager, which should have acted on it",
                        ));
                    } else if word.contains('\0') {
                        return Err(refuse(word, "contains a NUL"));
                    } else {
                        parsed.data.push(word.to_owned());
                    }
                }
            }
        }
        parsed.mapping = match (users, groups) {
            (Some(users), Some(groups)) => Some((users, groups)),
            (None, None) => None,
            _ => return Err(refuse("uidmap, gidmap", "need each other")),
        };
        if parsed.loop_device {
            let before = parsed.data.len();
            parsed.data.retain(|option| option != "direct-io");
            parsed.direct_io = parsed.data.len() < before;
        }
        if parsed.bind.is_some() {
            parsed
                .data
                .retain(|option| !LABELS.iter().any(|label| option.starts_with(label)));
            // The kernel would ignore them.
            if let Some(option) = parsed.data.first() {
                return Err(refuse(option, "has no meaning for a bind mount"));
            }
            if !PER_MOUNT.contains(parsed.flags) {
                return Err(refuse(
                    "sync, dirsync, mand, lazytime",
                    "have no meaning for a bind mount",
                ));
            }
            if parsed.loop_device {
                return Err(refuse("loop", "has no meaning for a bind mount"));
            }
        }
        if parsed.remount && (parsed.mapping.is_some() || parsed.loop_device) {
            return Err(refuse("remount", "cannot change a loop device or a mapping of ids"));
        }
        Ok(parsed)
    }
}

/// The flag that a word sets or clears.
fn flag(word: &str) -> Option<(bool, MountFlags)> {
    Some(match word {
        "ro" => (true, MountFlags::RDONLY),
        "rw" => (false, MountFlags::RDONLY),
        "nosuid" => (true, MountFlags::NOSUID),
        "suid" => (false, MountFlags::NOSUID),
        "nodev" => (true, MountFlags::NODEV),
        "dev" => (false, MountFlags::NODEV),
        "noexec" => (true, MountFlags::NOEXEC),
        "exec" => (false, MountFlags::NOEXEC),
        "sync" => (true, MountFlags::SYNCHRONOUS),
        "async" => (false, MountFlags::SYNCHRONOUS),
        "dirsync" => (true, MountFlags::DIRSYNC),
        "mand" => (true, MountFlags::PERMIT_MANDATORY_FILE_LOCKING),
        "nomand" => (false, MountFlags::PERMIT_MANDATORY_FILE_LOCKING),
        "noatime" => (true, MountFlags::NOATIME),
        "atime" => (false, MountFlags::NOATIME),
        "nodiratime" => (true, MountFlags::NODIRATIME),
        "diratime" => (false, MountFlags::NODIRATIME),
        "relatime" => (true, MountFlags::RELATIME),
        "norelatime" => (false, MountFlags::RELATIME),
        "strictatime" => (true, MountFlags::STRICTATIME),
        "nostrictatime" => (false, MountFlags::STRICTATIME),
        "lazytime" => (true, MountFlags::LAZYTIME),
        "nolazytime" => (false, MountFlags::LAZYTIME),
        "nosymfollow" => (true, MountFlags::NOSYMFOLLOW),
        "symfollow" => (false, MountFlags::NOSYMFOLLOW),
        "silent" => (true, MountFlags::SILENT),
        "loud" => (false, MountFlags::SILENT),
        _ => return None,
    })
}

fn propagation(word: &str) -> Option<MountPropagationFlags> {
    let (word, recursive) = match word.strip_prefix('r') {
        Some(rest) if matches!(rest, "private" | "shared" | "slave" | "unbindable") => (rest, true),
        _ => (word, false),
    };
    let kind = match word {
        "private" => MountPropagationFlags::PRIVATE,
        "shared" => MountPropagationFlags::SHARED,
        "slave" => MountPropagationFlags::DOWNSTREAM,
        "unbindable" => MountPropagationFlags::UNBINDABLE,
        _ => return None,
    };
    Some(if recursive {
        kind | MountPropagationFlags::REC
    } else {
        kind
    })
}

/// The same options with other layers.
pub(super) fn with_lower_directories(data: &[String], layers: &str) -> Vec<String> {
    let replace = |option: &String| {
        if option.starts_with("lowerdir=") {
            format!("lowerdir={layers}")
        } else {
            option.clone()
        }
    };
    data.iter().map(replace).collect()
}

/// An error must not repeat a whole hostile document.
fn shortened(option: &str) -> String {
    option.chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::snapshot::{lower_directories, unescaped};

    fn parse(fs_type: &str, options: &[&str]) -> Result<Options, MountError> {
        Options::parse(fs_type, &options.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn the_last_word_on_a_flag_counts() {
        let options = parse(
            "ext4",
            &["ro", "nosuid", "rw", "noexec", "exec", "noatime", "data=ordered"],
        )
        .unwrap();
        assert_eq!(options.flags, MountFlags::NOSUID | MountFlags::NOATIME);
        assert_eq!(options.data, ["data=ordered"]);
        let words = [
            "ro",
            "nosuid",
            "nodev",
            "noexec",
            "sync",
            "dirsync",
            "mand",
            "noatime",
            "nodiratime",
            "relatime",
            "strictatime",
        ];
        let all = parse("ext4", &words).unwrap();
        assert!(all.data.is_empty());
        let opposites = [
            "rw",
            "suid",
            "dev",
            "exec",
            "async",
            "nomand",
            "atime",
            "diratime",
            "norelatime",
            "nostrictatime",
        ];
        let none = parse("ext4", &[&words[..], &opposites[..]].concat()).unwrap();
        assert_eq!(none.flags, MountFlags::DIRSYNC, "only dirsync has no opposite");
        assert!(none.data.is_empty());
    }

    #[test]
    fn binds_propagation_loops_and_mappings_are_not_data() {
        assert_eq!(parse("bind", &["ro", "rbind"]).unwrap().bind, Some(true));
        assert_eq!(parse("none", &["bind"]).unwrap().bind, Some(false));
        assert_eq!(parse("overlay", &[]).unwrap().bind, None);
        let rslave = parse("bind", &["rslave"]).unwrap().propagation;
        assert_eq!(
            rslave,
            Some(MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        );
        assert_eq!(
            parse("bind", &["shared"]).unwrap().propagation,
            Some(MountPropagationFlags::SHARED)
        );
        let image = parse("ext4", &["loop", "direct-io", "ro"]).unwrap();
        assert!(image.loop_device && image.direct_io && image.data.is_empty());
        assert_eq!(parse("ext4", &["direct-io"]).unwrap().data, ["direct-io"]);
        let mapped = parse("overlay", &["uidmap=0:1:2", "gidmap=0:3:4", "index=off"]).unwrap();
        assert_eq!(mapped.mapping, Some(("0:1:2".to_owned(), "0:3:4".to_owned())));
        assert_eq!(mapped.data, ["index=off"]);
        assert!(parse("bind", &["rw", "context=\"a:b:c:d\""]).unwrap().data.is_empty());
    }

    #[test]
    fn what_would_be_ignored_is_refused() {
        let cases: [(&str, &[&str]); 8] = [
            ("bind", &["ro", "size=1"]),
            ("bind", &["sync"]),
            ("bind", &["loop"]),
            ("overlay", &["uidmap=0:1:2"]),
            ("overlay", &["gidmap=0:1:2"]),
            ("ext4", &["loop", "remount"]),
            ("ext4", &["X-containerd.mkfs.fs=ext4"]),
            ("ext4", &["a\0b"]),
        ];
        let messages: Vec<_> = cases
            .iter()
            .map(|(kind, options)| parse(kind, options).unwrap_err().to_string())
            .collect();
        insta::assert_snapshot!(messages.join("\n"), @r"
        mount option 'size=1' has no meaning for a bind mount
        mount option 'sync, dirsync, mand, lazytime' have no meaning for a bind mount
        mount option 'loop' has no meaning for a bind mount
        mount option 'uidmap, gidmap' need each other
        mount option 'uidmap, gidmap' need each other
        mount option 'remount' cannot change a loop device or a mapping of ids
        mount option 'X-containerd.mkfs.fs=ext4' is for containerd's mount manager, which should have acted on it
        mount option 'a\0b' contains a NUL
        ");
    }

    #[test]
    fn layers_are_split_at_plain_colons() {
        let data = ["index=off", r"lowerdir=/a\:b:/c::/d\\", "upperdir=/u"].map(str::to_owned);
        assert_eq!(lower_directories(&data).unwrap(), [r"/a\:b", "/c", "", r"/d\\"]);
        assert_eq!(unescaped(r"/a\:b\\c"), r"/a:b\c");
        assert_eq!(
            with_lower_directories(&data, "0:1"),
            ["index=off", "lowerdir=0:1", "upperdir=/u"]
        );
        assert_eq!(lower_directories(&["index=off".to_owned()]), None);
    }
}
