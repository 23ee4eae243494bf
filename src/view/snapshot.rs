//! What the mounts of a snapshot say about its layers.

use std::path::PathBuf;

use crate::identity::Mount;

/// Why a snapshot cannot be shown through a view.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsuitable {
    /// Not one mount at the root.
    #[error("its root file system has {0} mounts at its root, a view takes one")]
    Mounts(usize),
    /// Not a tree of files that is there already.
    #[error("its root file system is of type '{}', whose files lie in no directory", .0.escape_debug())]
    Type(String),
    /// A snapshotter without layers, and a container that writes.
    #[error("its snapshotter gives it one directory of its own, over which a view can only be read-only")]
    Writable,
    /// An option that makes something else of the layers than their files.
    #[error("its root file system is mounted with '{}'", .0.escape_debug())]
    Option(String),
}

/// A snapshot as the layers that a view is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Directories of the layers, top-most first.
    pub layers: Vec<PathBuf>,
    /// Directory that takes what the container writes.
    pub upper: Option<PathBuf>,
}

impl Snapshot {
    /// Reads the mounts of a create request. `read_only`: the container's root file system is read-only whatever the
    /// mounts say.
    ///
    /// # Errors
    /// See [`Unsuitable`].
    pub fn of(mounts: &[Mount], read_only: bool) -> Result<Self, Unsuitable> {
        let [mount] = mounts else {
            return Err(Unsuitable::Mounts(mounts.len()));
        };
        if !matches!(mount.target.as_str(), "" | "/") {
            return Err(Unsuitable::Mounts(0));
        }
        let has = |word: &str| mount.options.iter().any(|option| option == word);
        if matches!(mount.r#type.as_str(), "bind" | "rbind") || has("bind") || has("rbind") {
            if !read_only && !has("ro") && !has("rro") {
                return Err(Unsuitable::Writable);
            }
            return Ok(Self {
                layers: vec![PathBuf::from(&mount.source)],
                upper: None,
            });
        }
        if mount.r#type != "overlay" {
            return Err(Unsuitable::Type(mount.r#type.chars().take(80).collect()));
        }
        if let Some(option) = mount.options.iter().find(|option| changes_layers(option)) {
            return Err(Unsuitable::Option(option.chars().take(80).collect()));
        }
        let layers = lower_directories(&mount.options).unwrap_or_default();
        // An empty one would make those after it data only.
        if layers.is_empty() || layers.iter().any(|layer| !layer.starts_with('/')) {
            return Err(Unsuitable::Option("lowerdir".to_owned()));
        }
        Ok(Self {
            layers: layers
                .into_iter()
                .map(|layer| PathBuf::from(unescaped(layer)))
                .collect(),
            upper: mount.option("upperdir").map(|upper| PathBuf::from(unescaped(upper))),
        })
    }
}

fn changes_layers(option: &str) -> bool {
    let key = option.split('=').next().unwrap_or_default();
    matches!(key, "userxattr" | "metacopy" | "verity" | "lowerdir+" | "datadir+")
}

/// The layers of an overlay, in the order in which they are written.
#[must_use]
pub fn lower_directories(data: &[String]) -> Option<Vec<&str>> {
    let list = data.iter().find_map(|option| option.strip_prefix("lowerdir="))?;
    let mut parts = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (at, byte) in list.bytes().enumerate() {
        match byte {
            b':' if !escaped => {
                parts.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
        escaped = byte == b'\\' && !escaped;
    }
    parts.push(&list[start..]);
    Some(parts)
}

/// A layer's path without the escapes that keep colons apart from separators.
#[must_use]
pub fn unescaped(layer: &str) -> String {
    let mut text = String::with_capacity(layer.len());
    let mut characters = layer.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => text.extend(characters.next()),
            other => text.push(other),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(fs_type: &str, options: &[&str]) -> Mount {
        Mount {
            r#type: fs_type.to_owned(),
            source: "/s/9".to_owned(),
            target: String::new(),
            options: options.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn the_layers_of_each_snapshotter_are_found() {
        let overlay = mount(
            "overlay",
            &[
                "index=off",
                "workdir=/s/3/work",
                "upperdir=/s/3/fs",
                r"lowerdir=/s/2\:b/fs:/s/1/fs",
            ],
        );
        let snapshot = Snapshot::of(&[overlay], false).unwrap();
        assert_eq!(snapshot.layers, [PathBuf::from("/s/2:b/fs"), PathBuf::from("/s/1/fs")]);
        assert_eq!(snapshot.upper, Some(PathBuf::from("/s/3/fs")));
        let native = mount("bind", &["rbind", "rw"]);
        assert_eq!(
            Snapshot::of(std::slice::from_ref(&native), true).unwrap().layers,
            [PathBuf::from("/s/9")]
        );
        assert_eq!(Snapshot::of(&[native], false), Err(Unsuitable::Writable));
        assert!(Snapshot::of(&[mount("none", &["bind", "ro"])], false).is_ok());
    }

    #[test]
    fn what_no_view_can_cover_is_refused_in_words() {
        let cases = [
            vec![],
            vec![mount("ext4", &["loop"])],
            vec![mount("bind", &["rbind"])],
            vec![mount("overlay", &["lowerdir=/a::/b"])],
            vec![mount("overlay", &["upperdir=/a"])],
            vec![mount("overlay", &["lowerdir=/a", "metacopy=on"])],
            vec![mount("overlay", &["lowerdir=/a", "userxattr"])],
        ];
        let messages: Vec<_> = cases
            .iter()
            .map(|mounts| Snapshot::of(mounts, false).unwrap_err().to_string())
            .collect();
        insta::assert_snapshot!(messages.join("\n"), @r"
        its root file system has 0 mounts at its root, a view takes one
        its root file system is of type 'ext4', whose files lie in no directory
        its snapshotter gives it one directory of its own, over which a view can only be read-only
        its root file system is mounted with 'lowerdir'
        its root file system is mounted with 'lowerdir'
        its root file system is mounted with 'metacopy=on'
        its root file system is mounted with 'userxattr'
        ");
    }
}
