//! Programs, files and directories that files of configuration name.

use std::collections::BTreeSet;

use super::shell::{self, Word};
use super::space::What;
use super::trace::{By, SHARED, Trace};
use super::{Class, Origin, pattern};
use crate::diagnostic::printable;

/// Largest file that is searched; one that is larger is data.
const MAX_FILE: u64 = 1 << 20;
/// Bytes of all files together.
const MAX_BYTES: u64 = 32 << 20;
/// Most files of one mount, largest of them, and bytes after which no further mount is searched: a volume may hold data.
const MAX_MOUNTED: usize = 1000;
const MAX_MOUNTED_FILE: u64 = 256 << 10;
const MAX_MOUNTED_BYTES: u64 = 8 << 20;
/// Most programs and scripts of the image's own in one directory.
const MAX_PROGRAMS: usize = 2000;

/// Most files of configuration of which each includes the next.
const MAX_DEPTH: usize = 4;

/// Files and directories in `/etc` that say nothing about what the package's own program starts.
const OTHERS: &[&str] = &[
    "/etc/*.d/**",
    "/etc/alternatives/**",
    "/etc/cron*/**",
    "/etc/default/**",
    "/etc/pam.d/**",
    "/etc/security/**",
    "/etc/skel/**",
    "/etc/ssl/**",
    "/etc/systemd/**",
    "/etc/X11/**",
];

/// Shared directories in which only applications lie: what no package owns there may be started.
const APPLICATIONS: &[&str] = &["/home", "/media", "/mnt", "/opt", "/root", "/srv"];

/// What was searched so far.
#[derive(Debug, Default)]
pub(super) struct Configured {
    files: BTreeSet<String>,
    directories: BTreeSet<String>,
    bytes: u64,
    /// Level of inclusion of the file that is searched.
    depth: usize,
}

impl Trace<'_> {
    /// Follows what a text names by its absolute path. Anything else than a text is left alone, and so are sources and
    /// scripts, which are followed as such.
    pub(super) fn search_configuration(&mut self, file: &str, rule: &str) {
        let Some(found) = self.space.resolve(file) else { return };
        let Some(What::File { size, .. }) = self.space.what(&found.path) else {
            return;
        };
        let is_source = self.rules.languages.iter().any(|language| {
            let sources = &language.sources;
            sources.iter().any(|source| pattern::path(source, &found.path))
        });
        if size > MAX_FILE
            || is_source
            || self.class(&found.path) != Class::Data
            || !self.configured.files.insert(found.path.clone())
        {
            return;
        }
        if self.configured.bytes + size > MAX_BYTES {
            self.closure
                .cannot_follow(&found.path, "is one configuration file too many to search for programs");
            return;
        }
        self.configured.bytes += size;
        let Some(bytes) = self
            .space
            .bytes(&found.path, MAX_FILE)
            .filter(|bytes| !bytes.contains(&0))
        else {
            return;
        };
        let text = String::from_utf8_lossy(&bytes).into_owned();
        self.search_lines(&text, rule, &Origin::Path(found.path));
    }

    /// Follows what the lines of a configuration name by absolute paths.
    pub(super) fn search_lines(&mut self, text: &str, rule: &str, origin: &Origin) {
        for line in text.lines() {
            let line = line.trim_start();
            if line.starts_with(['#', ';']) || line.starts_with("//") || line.starts_with("-----BEGIN") {
                continue;
            }
            self.search_unknown_line(line, rule, origin);
            let mut tokens = line.split(is_between).filter(|token| !token.is_empty());
            let is_handed_out = tokens
                .next()
                .is_some_and(|word| self.rules.served.contains(&word.to_ascii_lowercase()));
            for token in line.split(is_between) {
                // `exec:/usr/bin/program`, as servers write it; `https://host` names no file.
                let token = match token.split_once(":/") {
                    Some((word, _)) if !word.contains('/') && !token.contains("://") => {
                        token.get(word.len() + 1..).unwrap_or(token)
                    }
                    _ => token,
                };
                if token.starts_with('/') && token.len() > 1 {
                    self.configures(token, rule, origin);
                    if is_handed_out {
                        self.hand_out(token, rule, origin);
                    }
                }
            }
            // `command = name arguments`, as supervisors write it.
            if let Some((key, value)) = line.split_once('=')
                && matches!(key.trim(), "command" | "exec" | "ExecStart" | "ExecStartPre")
            {
                // Of which a quoted word is one.
                for command in shell::parse(value.trim(), 0).commands {
                    let words: Option<Vec<String>> = command.words.iter().map(Word::literal).collect();
                    let words = words.unwrap_or_else(|| value.split_ascii_whitespace().map(str::to_owned).collect());
                    self.run_words(&words, rule, origin, "/");
                }
            }
        }
    }

    /// Whether a path is a file that would be searched and has not been.
    fn is_searched(&self, path: &str) -> bool {
        self.space.resolve(path).is_some_and(|found| {
            matches!(self.space.what(&found.path), Some(What::File { size, .. }) if size <= MAX_FILE)
                && self.class(&found.path) == Class::Data
                && !self.configured.files.contains(&found.path)
        })
    }

    fn hand_out(&mut self, directory: &str, rule: &str, origin: &Origin) {
        if let Some(found) = self.space.resolve(directory)
            && self.space.what(&found.path) == Some(What::Directory)
            && found.path.matches('/').count() > 1
        {
            // What many packages share says nothing about any of them: that a manual page is handed out needs no module
            // of its program.
            let is_shared = SHARED.iter().any(|shared| pattern::path(shared, &found.path));
            let by = if is_shared { By::Convention } else { By::Rule };
            self.whole_directory(found.path, rule, origin, by);
        }
    }

    /// A path in a file of configuration: a program, a file that may be included, a directory of either.
    fn configures(&mut self, path: &str, rule: &str, origin: &Origin) {
        self.named(path, rule, origin, By::Rule, "/");
        self.own_programs(path, rule, origin);
        if self.configured.depth < MAX_DEPTH {
            self.configured.depth += 1;
            self.search_configuration(path, rule);
            self.configured.depth -= 1;
        } else if self.is_searched(path) {
            self.closure.note(format!(
                "{}, which {} includes, was not searched for programs that it names: files of configuration are \
                 followed through {MAX_DEPTH} of them",
                printable(path),
                match origin {
                    Origin::Path(from) | Origin::Root(from) => printable(from),
                }
            ));
        }
    }

    /// Keeps and follows the programs and scripts below a directory that no package owns: the CGI scripts and hooks
    /// that a server starts when it is asked to.
    pub(super) fn own_programs(&mut self, directory: &str, rule: &str, origin: &Origin) {
        let Some(found) = self.space.resolve(directory) else {
            return;
        };
        if self.space.what(&found.path) != Some(What::Directory)
            || SHARED.iter().any(|shared| pattern::path(shared, &found.path))
                && !APPLICATIONS.contains(&found.path.as_str())
            || !self.configured.directories.insert(found.path.clone())
        {
            return;
        }
        let below = self.space.below(&found.path);
        if below.len() > MAX_PROGRAMS {
            self.closure.note(format!(
                "{} has {} names, of which the first {MAX_PROGRAMS} were looked at for programs of the image's own",
                printable(&found.path),
                below.len()
            ));
        }
        for path in below.into_iter().take(MAX_PROGRAMS) {
            // What git and Subversion put beside the hooks that they start.
            let is_example = path.ends_with(".sample") || path.ends_with(".tmpl");
            if !is_example
                && self.inventory.owner(&path).is_none()
                && let Some(end) = self.space.resolve(&path)
                && matches!(self.class(&end.path), Class::Program | Class::Script)
            {
                self.keep(&path, rule, origin, By::Rule);
            }
        }
    }

    /// Texts that are mounted are configuration, or nothing that names a program.
    pub(super) fn search_mount(&mut self, point: &str) {
        let mut files = vec![point.to_owned()];
        files.extend(self.space.below(point));
        let mut searched = 0;
        for file in files {
            let is_small = matches!(self.space.what(&file), Some(What::File { size, .. }) if size <= MAX_MOUNTED_FILE);
            if !is_small {
                continue;
            }
            if searched == MAX_MOUNTED || self.configured.bytes >= MAX_MOUNTED_BYTES {
                self.closure.note(format!(
                    "{} and what comes behind it in the mount at {} was not searched for programs that it names: a \
                     container's mounts are searched up to {MAX_MOUNTED} files each and {} MiB together",
                    printable(&file),
                    printable(point),
                    MAX_MOUNTED_BYTES >> 20
                ));
                return;
            }
            searched += 1;
            self.search_configuration(&file, "a mounted file names it");
        }
    }

    /// The configuration that a program's package brings along, what was put beside it, and the directory of its name.
    pub(super) fn search_own_configuration(&mut self, program: &str) {
        if self.is_everything || self.is_interpreter(program) {
            return;
        }
        let package = self.inventory.owner(program).and_then(|id| self.inventory.package(id));
        let mut places = BTreeSet::new();
        for path in package.into_iter().flat_map(|package| &package.files) {
            let is_others = OTHERS.iter().any(|others| pattern::path(others, path));
            let is_file = matches!(self.space.what(path), Some(What::File { .. }));
            if !path.starts_with("/etc/") || is_others || !is_file {
                continue;
            }
            let mut parts = path.splitn(4, '/').skip(2);
            match (parts.next(), parts.next()) {
                (Some(first), Some(_)) => places.insert(format!("/etc/{first}/**")),
                _ => places.insert(path.clone()),
            };
        }
        // A package of its own may bring the configuration along, and what whoever built the image wrote is no package's.
        let names = program.rsplit('/').next().into_iter();
        for name in names.chain(package.map(|package| package.name.as_str())) {
            let directory = format!("/etc/{name}");
            let is_others = OTHERS
                .iter()
                .any(|others| pattern::path(others, &format!("{directory}/x")));
            if !is_others && self.space.what(&directory) == Some(What::Directory) {
                places.insert(format!("{directory}/**"));
            }
        }
        for place in places {
            for file in self.space.expand(&place) {
                let end = self.space.resolve(&file).map(|found| found.path);
                let is_enabled = end.is_some_and(|end| end != file && self.class(&end) != Class::Data);
                if is_enabled {
                    let origin = Origin::Path(program.to_owned());
                    let rule = "a link in the configuration of a program leads to it";
                    self.keep(&file, rule, &origin, By::Rule);
                }
                self.search_configuration(&file, "the configuration of a program names it");
            }
        }
    }
}

fn is_between(c: char) -> bool {
    c.is_whitespace() || "\"'=|;,(){}<>`".contains(c)
}
