//! Where the dynamic loader finds a library: `ld.so(8)` of glibc and the loader of musl.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::elf::{Abi, Elf};
use super::space::{Space, What};
use crate::tree::join;

/// Largest `ld.so.cache`.
const MAX_CACHE: u64 = 16 << 20;
/// Largest file of the loader's configuration.
const MAX_CONFIGURATION: u64 = 1 << 20;
/// Most files that `ld.so.conf` may include, and most directories of one search.
const MAX_INCLUDED: usize = 256;
/// Most directories of which it is kept what lies below them for some processors only.
const MAX_VARIANTS: usize = 10_000;
/// First bytes of `ld.so.cache` since glibc 2.32, and of the part behind the older one.
const CACHE_MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
/// Bytes of that header, and of one entry.
const CACHE_HEADER: usize = 48;
const CACHE_ENTRY: usize = 24;

/// Directories of `$PLATFORM` and of the legacy hardware capabilities, newest first.
const LEGACY: &[&str] = &[
    "haswell", "xeon_phi", "avx512_1", "tls", "x86_64", "i686", "sse2", "i586",
];

/// The loader's configuration in an image.
#[derive(Debug, Default)]
pub(super) struct Loader {
    /// Name of a library to paths, from `ld.so.cache`.
    cache: BTreeMap<String, Vec<String>>,
    /// From `ld.so.conf`; what `ldconfig` would search.
    configured: Vec<String>,
    /// From `LD_LIBRARY_PATH`.
    pub(super) environment: Vec<String>,
    /// Files that the loader reads.
    pub(super) files: BTreeSet<String>,
    /// Debian's directories of every architecture.
    architectures: Vec<String>,
    /// Where musl looks.
    musl: Vec<String>,
    /// Directories for some processors only, by the directory that they are below.
    variants: RefCell<BTreeMap<String, Rc<Vec<String>>>>,
}

/// In which process a library is looked for.
#[derive(Debug, Clone)]
pub(super) struct Search<'e> {
    pub(super) abi: Abi,
    pub(super) is_musl: bool,
    /// `DT_RPATH` of whoever led here, program last.
    pub(super) rpath: Vec<String>,
    /// The file that asks, without links.
    pub(super) from: &'e str,
    pub(super) elf: &'e Elf,
}

impl Loader {
    pub(super) fn read(space: &Space<'_>) -> Self {
        let mut loader = Self {
            architectures: ["/lib", "/usr/lib"]
                .iter()
                .flat_map(|base| space.expand(&format!("{base}/*-linux-gnu*")))
                .collect(),
            musl: musl_directories(space),
            ..Self::default()
        };
        if let Some(bytes) = space
            .resolve("/etc/ld.so.cache")
            .and_then(|found| space.bytes(&found.path, MAX_CACHE))
        {
            loader.cache = parse_cache(&bytes);
        }
        let mut waiting = vec!["/etc/ld.so.conf".to_owned()];
        while let Some(path) = waiting.pop() {
            let Some(found) = space.resolve(&path) else { continue };
            if loader.files.len() >= MAX_INCLUDED || !loader.files.insert(path) {
                continue;
            }
            let Some(bytes) = space.bytes(&found.path, MAX_CONFIGURATION) else {
                continue;
            };
            for line in String::from_utf8_lossy(&bytes).lines() {
                let line = line.split('#').next().unwrap_or("").trim();
                if let Some(included) = line
                    .strip_prefix("include")
                    .filter(|rest| rest.starts_with([' ', '\t']))
                {
                    let included = included.trim();
                    let included = if included.starts_with('/') {
                        included.to_owned()
                    } else {
                        join("/etc", included)
                    };
                    let mut files = space.expand(&included);
                    files.reverse();
                    waiting.extend(files);
                } else if line.starts_with('/') && loader.configured.len() < MAX_INCLUDED {
                    loader.configured.push(line.trim_end_matches('/').to_owned());
                }
            }
        }
        loader
    }

    /// Every file that a search for `name` may end at: the one that the loader takes, and its variants for other
    /// processors. Paths as the loader opens them; they may have links.
    pub(super) fn find(
        &self,
        name: &str,
        search: &Search<'_>,
        space: &Space<'_>,
        abi_of: &mut dyn FnMut(&str) -> Option<Abi>,
    ) -> Vec<String> {
        let mut fits = |path: &str| {
            space
                .resolve(path)
                .filter(|found| matches!(space.what(&found.path), Some(What::File { .. })))
                .is_some_and(|found| abi_of(&found.path) == Some(search.abi))
        };
        if name.contains('/') {
            let path = expand_tokens(name, search.from, search.abi);
            return path.into_iter().filter(|path| fits(path)).collect();
        }
        let mut found = Vec::new();
        let mut seen = BTreeSet::new();
        for directory in self.directories(search) {
            if !seen.insert(directory.clone()) {
                continue;
            }
            for variant in self.variants(&directory, space).iter() {
                let path = join(variant, name);
                if fits(&path) {
                    found.push(path);
                }
            }
            let places: Vec<String> = if directory == CACHE {
                self.cache.get(name).cloned().unwrap_or_default()
            } else {
                vec![join(&directory, name)]
            };
            let known = found.len();
            found.extend(places.into_iter().filter(|path| fits(path)));
            if found.len() > known {
                return found;
            }
        }
        found
    }

    fn variants(&self, directory: &str, space: &Space<'_>) -> Rc<Vec<String>> {
        if let Some(known) = self.variants.borrow().get(directory) {
            return Rc::clone(known);
        }
        let found = Rc::new(variants(directory, space));
        if self.variants.borrow().len() < MAX_VARIANTS {
            self.variants
                .borrow_mut()
                .insert(directory.to_owned(), Rc::clone(&found));
        }
        found
    }

    fn directories(&self, search: &Search<'_>) -> Vec<String> {
        let mut list = Vec::new();
        let add = |list: &mut Vec<String>, directories: &[String], from: &str| {
            for directory in directories.iter().take(MAX_INCLUDED) {
                list.extend(expand_tokens(directory, from, search.abi));
            }
        };
        // DT_RPATH has no effect in a file with DT_RUNPATH; musl takes both for the same, after LD_LIBRARY_PATH, and
        // asking in another order only ever finds more.
        if search.elf.runpath.is_empty() || search.is_musl {
            add(&mut list, &search.elf.rpath, search.from);
            list.extend(search.rpath.iter().cloned());
        }
        add(&mut list, &self.environment, search.from);
        add(&mut list, &search.elf.runpath, search.from);
        if search.is_musl {
            list.extend(self.musl.iter().cloned());
            return list;
        }
        list.push(CACHE.to_owned());
        list.extend(self.configured.iter().cloned());
        if !search.elf.no_default {
            list.extend(self.default_directories(search.abi));
        }
        list
    }

    /// The directories that glibc has built in: Debian's multi-architecture ones, those of 64 bits, and the plain ones.
    fn default_directories(&self, abi: Abi) -> Vec<String> {
        let mut list = self.architectures.clone();
        if abi.wide {
            list.extend(["/lib64".to_owned(), "/usr/lib64".to_owned()]);
        }
        list.extend([
            "/lib".to_owned(),
            "/usr/lib".to_owned(),
            "/lib32".to_owned(),
            "/usr/lib32".to_owned(),
        ]);
        list
    }
}

/// Stands for the cache in a list of directories.
const CACHE: &str = "";

fn musl_directories(space: &Space<'_>) -> Vec<String> {
    let mut list = Vec::new();
    for file in space.expand("/etc/ld-musl-*.path") {
        let bytes = space
            .resolve(&file)
            .and_then(|found| space.bytes(&found.path, MAX_CONFIGURATION));
        let text = String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned();
        list.extend(
            text.split([':', '\n'])
                .filter(|part| part.starts_with('/'))
                .take(MAX_INCLUDED)
                .map(str::to_owned),
        );
    }
    if list.is_empty() {
        list = ["/lib", "/usr/local/lib", "/usr/lib"].map(str::to_owned).to_vec();
    }
    list
}

/// Directories for some processors only, below a directory of libraries.
fn variants(directory: &str, space: &Space<'_>) -> Vec<String> {
    let Some(found) = space.resolve(directory).filter(|_| !directory.is_empty()) else {
        return Vec::new();
    };
    let mut list = Vec::new();
    if let Some(capabilities) = space.resolve(&join(&found.path, "glibc-hwcaps")) {
        list.extend(space.children(&capabilities.path));
    }
    for name in LEGACY {
        let path = join(&found.path, name);
        if space.what(&path) == Some(What::Directory) {
            list.extend(
                space
                    .children(&path)
                    .into_iter()
                    .filter(|path| space.what(path) == Some(What::Directory)),
            );
            list.push(path);
        }
    }
    list
}

/// A path with `$ORIGIN`, `$LIB` and `$PLATFORM`, in every meaning that they can have.
fn expand_tokens(text: &str, from: &str, abi: Abi) -> Vec<String> {
    if !text.contains('$') {
        return if text.starts_with('/') {
            vec![text.trim_end_matches('/').to_owned()]
        } else {
            Vec::new()
        };
    }
    let origin = from.rsplit_once('/').map_or("", |(directory, _)| directory);
    let text = text.replace("${ORIGIN}", origin).replace("$ORIGIN", origin);
    let libraries: &[&str] = if abi.wide {
        &["lib/x86_64-linux-gnu", "lib/aarch64-linux-gnu", "lib64", "lib"]
    } else {
        &["lib/i386-linux-gnu", "lib/arm-linux-gnueabihf", "lib32", "lib"]
    };
    let mut list = Vec::new();
    for library in libraries {
        for platform in ["haswell", "xeon_phi", "x86_64", "aarch64", "i686"] {
            let path = text
                .replace("${LIB}", library)
                .replace("$LIB", library)
                .replace("${PLATFORM}", platform)
                .replace("$PLATFORM", platform);
            if path.starts_with('/') && !path.contains('$') && !list.contains(&path) {
                list.push(path.trim_end_matches('/').to_owned());
            }
        }
    }
    list
}

fn parse_cache(bytes: &[u8]) -> BTreeMap<String, Vec<String>> {
    let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
    // The old format may stand before the new one, whose offsets count from its own start.
    let Some(start) = bytes
        .windows(CACHE_MAGIC.len())
        .position(|window| window == CACHE_MAGIC)
    else {
        return names;
    };
    let table = bytes.get(start..).unwrap_or_default();
    let word = |at: usize| -> Option<usize> {
        let four: [u8; 4] = table.get(at..at.checked_add(4)?)?.try_into().ok()?;
        // The byte after both counts says which order they have: 2 is little, 3 is big, 0 is the builder's own.
        let value = if table.get(28) == Some(&3) {
            u32::from_be_bytes(four)
        } else {
            u32::from_le_bytes(four)
        };
        usize::try_from(value).ok()
    };
    let text = |at: usize| -> Option<&str> {
        let rest = table.get(at..)?;
        let end = rest.iter().take(4096).position(|byte| *byte == 0)?;
        std::str::from_utf8(rest.get(..end)?).ok()
    };
    let count = word(20).unwrap_or(0).min(table.len() / CACHE_ENTRY);
    for index in 0..count {
        let entry = CACHE_HEADER + index * CACHE_ENTRY;
        let (Some(key), Some(value)) = (word(entry + 4), word(entry + 8)) else {
            break;
        };
        let (Some(key), Some(value)) = (text(key), text(value)) else {
            continue;
        };
        if value.starts_with('/') {
            names.entry(key.to_owned()).or_default().push(value.to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_of_this_machine_names_its_own_c_library() {
        let bytes = std::fs::read("/etc/ld.so.cache").unwrap();
        let cache = parse_cache(&bytes);
        assert!(
            cache
                .get("libc.so.6")
                .unwrap()
                .iter()
                .any(|path| path.ends_with("/libc.so.6")),
            "{cache:?}"
        );
        for cut in 0..200 {
            parse_cache(bytes.get(..cut).unwrap());
        }
        let mut lying = bytes;
        for byte in lying.iter_mut().skip(20).take(400) {
            *byte = 0xff;
        }
        parse_cache(&lying);
    }
}
