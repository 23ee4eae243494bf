//! The names that a view shows, as a tree.

use std::collections::{BTreeMap, BTreeSet};

use super::{Error, MAX_DEPTH};
use crate::tree::MAX_NODES;

/// Longest name, as in Linux.
const MAX_NAME: usize = 255;
/// Longest path in bytes, as in Linux.
const MAX_PATH: usize = 4096;

/// A name that is kept, and what is kept below it.
#[derive(Debug, Default)]
pub(super) struct Kept<'k>(pub(super) BTreeMap<&'k str, Kept<'k>>);

impl<'k> Kept<'k> {
    /// Reads a keep set: absolute paths without `.`, `..`, doubled or trailing slashes. What is above a path is kept too.
    pub(super) fn parse(paths: &'k BTreeSet<String>) -> Result<Self, Error> {
        if paths.len() > MAX_NODES {
            return Err(Error::TooManyNames);
        }
        let mut root = Self::default();
        for path in paths {
            let invalid = || Error::Path(path.chars().take(200).collect());
            let below = path.strip_prefix('/').ok_or_else(invalid)?;
            if path.len() > MAX_PATH {
                return Err(invalid());
            }
            if below.is_empty() {
                continue;
            }
            let mut here = &mut root;
            for (depth, name) in below.split('/').enumerate() {
                if matches!(name, "" | "." | "..") || name.contains('\0') || name.len() > MAX_NAME {
                    return Err(invalid());
                }
                if depth >= MAX_DEPTH {
                    return Err(Error::TooDeep(path.into()));
                }
                here = here.0.entry(name).or_default();
            }
        }
        Ok(root)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_absolute_paths_are_kept() {
        let set = |paths: &[&str]| paths.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
        let paths = set(&["/", "/a/b", "/a-b", "/a"]);
        let kept = Kept::parse(&paths).unwrap();
        assert_eq!(kept.0.keys().copied().collect::<Vec<_>>(), ["a", "a-b"]);
        assert!(kept.0["a"].0.contains_key("b"));
        for bad in ["", "a", "/a/", "//a", "/a/../b", "/./a", "/..", "/a\0b"] {
            assert!(matches!(Kept::parse(&set(&[bad])), Err(Error::Path(_))), "{bad:?}");
        }
        assert!(Kept::parse(&set(&[&format!("/{}", "n".repeat(256))])).is_err());
        let deep = "/d".repeat(MAX_DEPTH + 1);
        assert!(matches!(Kept::parse(&set(&[&deep])), Err(Error::TooDeep(_))));
    }
}
