//! Follows what is kept to what it needs, until nothing is added.

use std::cell::RefCell;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use super::budget::Budget;
use super::configuration::Configured;
use super::elf::{self, Abi, Elf, Known, Texts};
use super::loader::{Loader, Search};
use super::rules::{Rule, Rules};
use super::scripts::{BUILTINS, MAX_LINE, Waiting, is_module};
use super::space::{Space, What};
use super::{Class, Closure, Hidden, How, Kept, Level, Object, Origin, Roots, pattern};
use crate::packages::{Inventory, PackageId};
use crate::tree::{Tree, join};

/// Most objects of one process.
const MAX_PROCESS: usize = 4096;
/// Most names of libraries that are looked up because texts of one file have them.
const MAX_LIBRARIES: usize = 2000;
/// Most names of one script.
const MAX_NAMES: usize = 16;
/// Most searches for libraries whose outcome is kept.
const MAX_SEARCHES: usize = 100_000;
/// Bytes of a file from which its kind is told.
const HEAD: usize = 64;
/// Largest file of the loader, of PAM and of name services.
const MAX_CONFIGURATION: u64 = 1 << 20;
/// Most levels of a data directory that a program names.
const MAX_NAMED: usize = 20_000;

/// Where commands are looked up beside `PATH`.
const STANDARD_PATH: &[&str] = &[
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];

/// The C library and its loader: what their texts name is in the rules, since it depends on the caller.
const C_LIBRARY: &[&str] = &[
    "libc.so.6",
    "libc-2.*.so",
    "ld-linux*",
    "ld-2.*.so",
    "ld64.so*",
    "libpthread.so.0",
    "libdl.so.2",
    "libc.musl-*",
    "ld-musl-*",
    "libnss_*.so.2",
    "libresolv.so.2",
    "librt.so.1",
    "libm.so.6",
];

/// Directories that belong to everybody: whoever names one does not need all that is in it.
pub(super) const SHARED: &[&str] = &[
    "/",
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/home",
    "/lib*",
    "/media",
    "/mnt",
    "/opt",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/srv",
    "/sys",
    "/tmp",
    "/usr",
    "/var",
    "/usr/*",
    "/usr/local/*",
    "/usr/lib/*-linux-*",
    "/usr/share/doc",
    "/usr/share/man",
    "/usr/share/info",
    "/usr/share/locale",
    "/usr/share/zoneinfo",
    "/usr/share/misc",
    "/var/*",
    "/var/lib/dpkg",
    "/var/lib/dpkg/*",
    "/etc/default",
    "/etc/init.d",
    "/etc/ssl/certs",
    "/etc/alternatives",
    "/etc/*.d",
    "/proc/**",
    "/sys/**",
    "/dev/**",
    "/run/**",
    "/tmp/**",
    "/usr/local/share/*",
    "/usr/share/applications",
    "/usr/share/icons",
    "/usr/share/pixmaps",
    // Rules say which of their modules are needed.
    "/usr/lib/**/gconv",
    "/usr/lib/**/security",
    "/usr/lib64/gconv",
    "/usr/lib64/security",
    "/lib/**/security",
];

/// Name of a library, what it must fit to, whether musl loads it, and the directories that are searched for this one;
/// and where it was found.
type Searches = BTreeMap<(String, Abi, bool, String), Rc<Vec<String>>>;

/// Who asks for a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// A root, or a command of a script: may name set-uid programs, and reaches the package.
    Command,
    /// A rule about what is loaded, started or read.
    Rule,
    /// A convention: the file itself, and nothing of its package.
    Convention,
}

pub(super) struct Trace<'a> {
    pub(super) space: Space<'a>,
    pub(super) inventory: &'a Inventory,
    pub(super) rules: &'a Rules,
    pub(super) roots: &'a Roots,
    pub(super) level: Level,
    pub(super) closure: Closure,
    pub(super) set_id: BTreeSet<String>,
    loader: Loader,
    path: Vec<String>,
    top: BTreeSet<String>,
    queue: VecDeque<String>,
    /// What the image's texts may still cost.
    pub(super) budget: Rc<Budget>,
    pub(super) waiting: Waiting,
    /// Directories of which all data is kept.
    whole: BTreeSet<String>,
    /// Packages of which something was reached, and what.
    pub(super) packages: BTreeMap<PackageId, String>,
    waiting_packages: VecDeque<PackageId>,
    elves: RefCell<BTreeMap<String, Option<Rc<Elf>>>>,
    texts: BTreeMap<String, Rc<Texts>>,
    analysed: BTreeSet<String>,
    fired: BTreeSet<usize>,
    languages: BTreeSet<usize>,
    pub(super) scripts: BTreeSet<(String, Option<Vec<String>>)>,
    pub(super) configured: Configured,
    preload: Vec<String>,
    searches: RefCell<Searches>,
    /// Members of processes for which texts were followed, and whether the process starts programs.
    followed: BTreeSet<(String, bool)>,
    /// Modules of languages by their first name, not yet searched.
    pub(super) modules: BTreeMap<(String, String), Vec<String>>,
    pub(super) imported: BTreeSet<(String, String)>,
    /// Everything is kept anyway; nothing has to be searched.
    pub(super) is_everything: bool,
    services: BTreeSet<String>,
    /// Names by which scripts are started, their own paths left out.
    pub(super) called: BTreeMap<String, BTreeSet<String>>,
    /// What lies in `PATH`.
    commands: RefCell<Option<Rc<BTreeSet<String>>>>,
    /// Modules, and the libraries that the loader does not find for them.
    missing: Vec<(String, String)>,
}

impl<'a> Trace<'a> {
    pub(super) fn new(
        tree: &'a Tree,
        inventory: &'a Inventory,
        rules: &'a Rules,
        roots: &'a Roots,
        level: Level,
    ) -> Self {
        let space = Space::new(tree, &roots.mounts);
        let mut loader = Loader::read(&space);
        let mut path: Vec<String> = Vec::new();
        let mut preload = Vec::new();
        for entry in &roots.env {
            match entry.split_once('=') {
                Some(("LD_LIBRARY_PATH", value)) => {
                    loader.environment = value
                        .split([':', ';'])
                        .filter(|part| !part.is_empty())
                        .map(str::to_owned)
                        .collect();
                }
                Some(("LD_PRELOAD" | "LD_AUDIT", value)) => {
                    preload.extend(
                        value
                            .split([':', ' '])
                            .filter(|part| !part.is_empty())
                            .map(str::to_owned),
                    );
                }
                Some(("PATH", value)) => {
                    path = value
                        .split(':')
                        .filter(|part| part.starts_with('/'))
                        .map(str::to_owned)
                        .collect()
                }
                _ => {}
            }
        }
        for standard in STANDARD_PATH {
            if !path.iter().any(|known| known == standard) {
                path.push((*standard).to_owned());
            }
        }
        if let Some(bytes) = space
            .resolve("/etc/ld.so.preload")
            .and_then(|found| space.bytes(&found.path, MAX_CONFIGURATION))
        {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            preload.extend(
                text.split([' ', '\t', '\n', ':'])
                    .filter(|part| !part.is_empty())
                    .map(str::to_owned),
            );
        }
        let top = space
            .children("/")
            .iter()
            .map(|path| path.trim_start_matches('/').to_owned())
            .collect();
        let mut trace = Self {
            space,
            inventory,
            rules,
            roots,
            level,
            closure: Closure::default(),
            set_id: BTreeSet::new(),
            loader,
            path,
            top,
            queue: VecDeque::new(),
            budget: Rc::new(Budget::of_image()),
            waiting: Waiting::default(),
            whole: BTreeSet::new(),
            packages: BTreeMap::new(),
            waiting_packages: VecDeque::new(),
            elves: RefCell::new(BTreeMap::new()),
            texts: BTreeMap::new(),
            analysed: BTreeSet::new(),
            fired: BTreeSet::new(),
            languages: BTreeSet::new(),
            scripts: BTreeSet::new(),
            configured: Configured::default(),
            preload,
            searches: RefCell::new(BTreeMap::new()),
            followed: BTreeSet::new(),
            modules: BTreeMap::new(),
            imported: BTreeSet::new(),
            is_everything: false,
            services: BTreeSet::new(),
            called: BTreeMap::new(),
            commands: RefCell::new(None),
            missing: Vec::new(),
        };
        trace.closure.left_out = rules
            .hide
            .iter()
            .map(|hide| (hide.name.clone(), hide.reason.clone()))
            .collect();
        trace.classify(tree);
        trace
    }

    fn classify(&mut self, tree: &Tree) {
        for (path, node) in tree.nodes().filter(|(_, node)| node.is_file() && node.size > 0) {
            let class = tree
                .head(path, HEAD as u64)
                .map_or(Class::Data, |head| self.class_of(path, node.mode, &head));
            if class != Class::Data {
                self.closure.classes.insert(path.to_owned(), class);
            }
        }
    }

    fn class_of(&self, path: &str, mode: u32, head: &[u8]) -> Class {
        if elf::is_elf(head) {
            if elf::is_data(head) {
                return Class::Data;
            }
            let name = path.rsplit('/').next().unwrap_or(path);
            let has_suffix = (name.rsplit_once('.')).is_some_and(|(_, end)| end.starts_with(char::is_alphabetic));
            let is_named_library = name.contains(".so") || has_suffix && self.is_module(path);
            let startable = self
                .space
                .open(path)
                .and_then(|reader| elf::is_startable(&reader))
                .unwrap_or(false);
            // A static program that can lie anywhere looks like a library; a library may have an interpreter.
            let is_program = mode & 0o111 != 0 && (startable || !is_named_library);
            return if is_program { Class::Program } else { Class::Library };
        }
        if mode & 0o111 != 0 && (head.starts_with(b"#!") || !head.is_empty() && !head.contains(&0)) {
            return Class::Script;
        }
        Class::Data
    }

    /// Whether an ELF file is nothing that could be started: Lisp's modules, Node's and Octave's have names of their own,
    /// and some may be executed for all that.
    fn is_module(&self, path: &str) -> bool {
        let reader = self.space.open(path);
        let parsed = reader.and_then(|reader| elf::parse(&reader, &self.rules.imports).ok());
        parsed.is_some_and(|elf| !elf.is_program)
    }

    /// What kind of file something is, in the image or in a mount.
    pub(super) fn class(&self, path: &str) -> Class {
        if let Some(class) = self.closure.classes.get(path) {
            return *class;
        }
        if self.space.mount(path).is_none() {
            return Class::Data;
        }
        match self.space.what(path) {
            Some(What::File { mode, .. }) => self
                .space
                .head(path, HEAD)
                .map_or(Class::Data, |head| self.class_of(path, mode, &head)),
            _ => Class::Data,
        }
    }

    pub(super) fn elf(&self, path: &str) -> Option<Rc<Elf>> {
        if let Some(known) = self.elves.borrow().get(path) {
            return known.clone();
        }
        let parsed = self
            .space
            .open(path)
            .filter(|reader| reader.read(0, 4).is_some_and(|head| elf::is_elf(&head)))
            .and_then(|reader| elf::parse(&reader, &self.rules.imports).ok())
            .map(Rc::new);
        self.elves.borrow_mut().insert(path.to_owned(), parsed.clone());
        parsed
    }

    pub(super) fn insert(&mut self, path: &str, rule: &str, origin: &Origin) -> bool {
        if self.closure.kept.contains_key(path) {
            return false;
        }
        // A mount point that the image has must stay in it.
        let is_mounted =
            self.space.tree.node(path).is_none() || self.space.mount(path).is_some_and(|(_, below)| below != "/");
        self.closure.kept.insert(
            path.to_owned(),
            Kept {
                rule: rule.to_owned(),
                origin: origin.clone(),
                is_mounted,
            },
        );
        true
    }

    /// Keeps a path with every link on the way and returns where it ends; `None` where it does not exist, or must not
    /// be kept.
    pub(super) fn keep(&mut self, path: &str, rule: &str, origin: &Origin, by: By) -> Option<String> {
        let found = self.space.resolve(path)?;
        if let Some(What::File { mode, .. }) = self.space.what(&found.path) {
            let is_set_id = mode & 0o6000 != 0 && mode & 0o111 != 0;
            if is_set_id && by != By::Command && !self.closure.kept.contains_key(&found.path) {
                self.set_id.insert(found.path);
                return None;
            }
        }
        for link in &found.links {
            self.insert(link, rule, origin);
        }
        let class = self.class(&found.path);
        self.insert(&found.path, rule, origin);
        if class == Class::Script && !found.links.is_empty() {
            self.call(path, &found.path);
        }
        if by != By::Convention {
            self.reach(&found.path);
            for link in &found.links {
                self.reach(link);
            }
        }
        if class != Class::Data && !self.analysed.contains(&found.path) {
            self.queue.push_back(found.path.clone());
        }
        Some(found.path)
    }

    /// Notes a name by which a script can be started: it may look for other files beside it.
    fn call(&mut self, name: &str, script: &str) {
        let names = self.called.entry(script.to_owned()).or_default();
        if names.len() < MAX_NAMES && names.insert(name.to_owned()) && self.analysed.remove(script) {
            let followed: Vec<_> = self
                .scripts
                .iter()
                .filter(|(known, _)| known == script)
                .cloned()
                .collect();
            followed.iter().for_each(|known| {
                self.scripts.remove(known);
            });
        }
    }

    fn reach(&mut self, path: &str) {
        let Some(id) = self.inventory.owner(path) else {
            return;
        };
        if let Entry::Vacant(place) = self.packages.entry(id) {
            place.insert(path.to_owned());
            self.waiting_packages.push_back(id);
        }
    }

    /// Where a command is found, as a shell would.
    pub(super) fn command(&self, name: &str, cwd: &str) -> Option<String> {
        if name.is_empty() {
            return None;
        }
        if name.contains('/') {
            let path = if name.starts_with('/') {
                name.to_owned()
            } else {
                join(cwd, name)
            };
            return self.is_startable(&path).then_some(path);
        }
        self.path
            .iter()
            .map(|directory| join(directory, name))
            .find(|path| self.is_startable(path))
    }

    fn is_startable(&self, path: &str) -> bool {
        self.space.resolve(path).is_some_and(
            |found| matches!(self.space.what(&found.path), Some(What::File { mode, .. }) if mode & 0o111 != 0),
        )
    }

    /// Whether a path leads into a mount that could hold a program and could not be read.
    pub(super) fn is_unknown(&self, path: &str) -> bool {
        let mut at = path;
        loop {
            if let Some(found) = self.space.resolve(at) {
                return self.space.what(&found.path) == Some(What::Unknown)
                    && self.space.mount(&found.path).is_some_and(|(mount, _)| mount.programs);
            }
            match at.rsplit_once('/') {
                Some((parent, _)) if !parent.is_empty() => at = parent,
                _ => return false,
            }
        }
    }

    pub(super) fn adopt_path(&mut self, directories: &str) {
        self.commands.take();
        for directory in directories.split(':').filter(|part| part.starts_with('/')) {
            if self.path.len() < 64 && !self.path.iter().any(|known| known == directory) {
                self.path.push(directory.to_owned());
            }
        }
    }

    /// Everything that the container was given, and the conventions.
    pub(super) fn roots(&mut self) {
        let roots = self.roots;
        let root = Origin::Root("the container".to_owned());
        self.insert("/", "directory", &root);
        let cwd = if roots.cwd.is_empty() { "/" } else { roots.cwd.as_str() };
        let arguments = Origin::Root("the container's arguments".to_owned());
        self.arguments(cwd, &arguments);
        for name in &roots.exec {
            let origin = Origin::Root(format!("the policy's exec: {name}"));
            match self.command(name, cwd) {
                Some(path) => {
                    self.keep(&path, "the policy names it", &origin, By::Command);
                }
                None => self
                    .closure
                    .note(format!("{name}, which the policy's exec names, is not in the image")),
            }
        }
        for wanted in &roots.keep {
            let origin = Origin::Root(format!("the policy's keep: {wanted}"));
            for path in self.space.expand(wanted) {
                self.keep(&path, "the policy names it", &origin, By::Command);
            }
        }
        for entry in &roots.env {
            self.environment(entry, cwd);
        }
        for volume in &roots.volumes {
            let origin = Origin::Root(format!("the volume {volume}"));
            self.keep(volume, "a declared volume", &origin, By::Convention);
            self.directory_data(volume, "in a declared volume", &origin);
        }
        let points: Vec<String> = self.space.mount_points().map(str::to_owned).collect();
        for point in points {
            let origin = Origin::Root(format!("the mount at {point}"));
            self.insert(&point, "something is mounted there", &origin);
            self.search_mount(&point);
        }
        if cwd != "/" {
            let origin = Origin::Root("the working directory".to_owned());
            self.keep(cwd, "the working directory", &origin, By::Convention);
            self.directory_data(cwd, "in the working directory", &origin);
            self.application(cwd, &origin);
        }
        for name in ["/etc/ld.so.conf"]
            .into_iter()
            .map(str::to_owned)
            .chain(self.loader.files.clone())
        {
            let origin = Origin::Root("loader".to_owned());
            self.keep(
                &name,
                "where the dynamic loader looks for libraries",
                &origin,
                By::Convention,
            );
        }
        self.fire_rules(None);
    }

    fn environment(&mut self, entry: &str, cwd: &str) {
        let Some((name, value)) = entry.split_once('=') else {
            return;
        };
        if name == "PATH" || name == "LD_PRELOAD" || name == "LD_AUDIT" {
            return;
        }
        let origin = Origin::Root(format!("the environment: {name}"));
        for part in value
            .split([':', ';', ',', ' ', '='])
            .filter(|part| part.starts_with('/'))
        {
            self.named(part, "the environment names it", &origin, By::Command, cwd);
        }
        if matches!(name, "BASH_ENV" | "ENV") {
            self.run_shell_file(value, None, &origin);
        }
    }

    /// Keeps what a text names: a file with all that it needs, a directory with its data and libraries.
    pub(super) fn named(&mut self, path: &str, rule: &str, origin: &Origin, by: By, cwd: &str) {
        let path = if path.starts_with('/') {
            path.to_owned()
        } else {
            join(cwd, path)
        };
        let Some(found) = self.space.resolve(&path) else { return };
        let is_directory = self.space.what(&found.path) == Some(What::Directory);
        self.keep(&path, rule, origin, if is_directory { By::Convention } else { by });
        if is_directory {
            self.directory_data(&found.path, rule, origin);
        }
    }

    /// Keeps data and libraries below a directory, unless it is everybody's.
    pub(super) fn directory_data(&mut self, directory: &str, rule: &str, origin: &Origin) {
        let Some(found) = self.space.resolve(directory) else {
            return;
        };
        if SHARED.iter().any(|shared| pattern::path(shared, &found.path)) {
            return;
        }
        self.whole_directory(found.path, rule, origin, By::Rule);
    }

    /// Keeps data and libraries below a directory without links.
    pub(super) fn whole_directory(&mut self, directory: String, rule: &str, origin: &Origin, by: By) {
        let mut above = directory.as_str();
        while !above.is_empty() {
            if self.whole.contains(above) {
                return;
            }
            above = above.rsplit_once('/').map_or("", |(parent, _)| parent);
        }
        let below = self.space.below(&directory);
        if below.len() > MAX_NAMED && self.space.mount(&directory).is_none() {
            self.closure.note(format!(
                "{directory} has more than {MAX_NAMED} files, which are kept only where something else leads to them"
            ));
            return;
        }
        for path in below {
            self.keep_unless_program(&path, rule, origin, by);
        }
        self.whole.insert(directory);
    }

    /// Keeps a source that is loaded as a module, even if it could be started as a script too: as that it is not
    /// followed.
    pub(super) fn keep_source(&mut self, path: &str, rule: &str, origin: &Origin) {
        if let Some(found) = self.space.resolve(path)
            && self.class(&found.path) == Class::Script
        {
            self.analysed.insert(found.path);
        }
        self.keep(path, rule, origin, By::Convention);
    }

    /// Keeps what no package owns in the working directory: the application, helpers included.
    fn application(&mut self, directory: &str, origin: &Origin) {
        let Some(found) = self.space.resolve(directory) else {
            return;
        };
        if SHARED.iter().any(|shared| pattern::path(shared, &found.path))
            && !matches!(found.path.as_str(), "/opt" | "/srv")
        {
            return;
        }
        for path in self.space.below(&found.path).into_iter().take(MAX_NAMED) {
            if self.inventory.owner(&path).is_some() {
                continue;
            }
            match self.space.resolve(&path).map(|end| self.class(&end.path)) {
                Some(Class::Script) => self.keep_source(&path, "in the working directory", origin),
                Some(_) => {
                    self.keep(&path, "in the working directory", origin, By::Rule);
                }
                None => {}
            }
        }
    }

    pub(super) fn keep_unless_program(&mut self, path: &str, rule: &str, origin: &Origin, by: By) {
        let Some(found) = self.space.resolve(path) else {
            // A dangling link is what the image has; a program may replace or read it.
            self.insert(path, rule, origin);
            return;
        };
        match self.class(&found.path) {
            Class::Program => {}
            // What an interpreter loads can begin with a line for the kernel and go on as data: Forth's images do.
            Class::Script => {
                if self
                    .space
                    .head(&found.path, MAX_LINE)
                    .is_some_and(|head| head.contains(&0))
                {
                    self.keep_source(path, rule, origin);
                }
            }
            Class::Library | Class::Data => {
                self.keep(path, rule, origin, by);
            }
        }
    }

    /// Follows everything that waits.
    pub(super) fn settle(&mut self) {
        loop {
            if let Some(path) = self.queue.pop_front() {
                if self.analysed.insert(path.clone()) {
                    self.analyse(&path);
                }
            } else if let Some(id) = self.waiting_packages.pop_front() {
                self.package_reached(id);
            } else if !self.pam_services() {
                return;
            }
        }
    }

    fn analyse(&mut self, path: &str) {
        match self.class(path) {
            Class::Program => {
                self.process(path, How::Program);
                self.fire_rules(Some(path));
                self.search_own_configuration(path);
            }
            Class::Library => {
                if !self.closure.objects.contains_key(path) {
                    self.process(path, How::Plugin);
                }
                self.fire_rules(Some(path));
            }
            Class::Script => {
                self.script(path, None);
                self.fire_rules(Some(path));
            }
            Class::Data => {}
        }
    }

    /// A package's shared objects outside of the loader's directories are modules, which only its programs know of.
    fn package_reached(&mut self, id: PackageId) {
        let Some(package) = self.inventory.package(id) else {
            return;
        };
        let origin = Origin::Path(self.packages.get(&id).cloned().unwrap_or_default());
        for path in &package.files {
            if self.level == Level::Packages {
                if matches!(self.space.what(path), Some(What::File { .. } | What::Link(_))) {
                    self.keep(path, "the level keeps its package whole", &origin, By::Convention);
                }
                continue;
            }
            if self.class(path) == Class::Library
                && is_private(path)
                && !path.contains("/gconv/")
                && !path.contains("/security/")
                && !self.rules.say_what_loads(path)
            {
                self.keep(path, "a module of a package that is reached", &origin, By::Convention);
            }
        }
    }

    /// Whether a directory holds only files of which rules say what loads them.
    fn has_what_rules_load(&self, directory: &str) -> bool {
        let below = self.space.below(directory);
        !below.is_empty() && below.iter().all(|path| self.rules.say_what_loads(path))
    }

    pub(super) fn is_c_library(path: &str) -> bool {
        C_LIBRARY.iter().any(|name| pattern::path(name, path))
    }

    pub(super) fn is_interpreter(&self, path: &str) -> bool {
        let name = path.rsplit('/').next().unwrap_or(path);
        self.rules.shells.contains(name)
            || self
                .rules
                .languages
                .iter()
                .any(|language| language.interpreters.iter().any(|pattern| pattern::path(pattern, path)))
    }

    /// Names of the libraries that are put into every process.
    pub(super) fn preloaded(&self) -> &[String] {
        &self.preload
    }

    pub(super) fn find_libraries(
        &self,
        name: &str,
        from: &str,
        elf: &Elf,
        rpath: &[String],
        is_musl: bool,
    ) -> Rc<Vec<String>> {
        let mut own = String::new();
        for directory in rpath.iter().chain(&elf.rpath).chain(&elf.runpath) {
            own.push_str(directory);
            own.push(':');
        }
        if elf.no_default {
            own.push('!');
        }
        if own.contains('$') || name.contains('/') {
            own.push_str(from.rsplit_once('/').map_or("", |(directory, _)| directory));
        }
        let key = (name.to_owned(), elf.abi, is_musl, own);
        if let Some(known) = self.searches.borrow().get(&key) {
            return Rc::clone(known);
        }
        let search = Search {
            abi: elf.abi,
            is_musl,
            rpath: rpath.to_vec(),
            from,
            elf,
        };
        let mut abi_of = |path: &str| -> Option<Abi> { self.elf(path).map(|elf| elf.abi) };
        let found = Rc::new(self.loader.find(name, &search, &self.space, &mut abi_of));
        if self.searches.borrow().len() < MAX_SEARCHES {
            self.searches.borrow_mut().insert(key, Rc::clone(&found));
        }
        found
    }

    pub(super) fn add_object(&mut self, path: &str, how: How) {
        let is_mounted = self.space.mount(path).is_some();
        self.closure
            .objects
            .entry(path.to_owned())
            .or_insert(Object { how, is_mounted });
    }

    /// A program or module with all that the loader puts beside it, and what their texts name.
    fn process(&mut self, start: &str, how: How) {
        let Some(program) = self.elf(start) else {
            self.add_object(start, how);
            let reason = self.space.open(start).map_or("it cannot be read", |reader| {
                elf::parse(&reader, &self.rules.imports)
                    .err()
                    .unwrap_or("it is no ELF file")
            });
            self.closure
                .cannot_follow(start, &format!("is a damaged program: {reason}"));
            return;
        };
        self.add_object(start, how);
        let is_musl = program
            .interpreter
            .as_deref()
            .is_some_and(|name| name.contains("ld-musl"))
            || program.needed.iter().any(|name| name.starts_with("libc.musl"));
        let mut members: Vec<String> = vec![start.to_owned()];
        let mut seen: BTreeSet<String> = members.iter().cloned().collect();
        if let Some(interpreter) = &program.interpreter {
            let origin = Origin::Path(start.to_owned());
            if let Some(path) = self.keep(interpreter, "loads the program", &origin, By::Rule) {
                self.add_object(&path, How::Interpreter);
                if seen.insert(path.clone()) {
                    members.push(path);
                }
            } else {
                self.closure
                    .note(format!("{start} needs {interpreter}, which the image does not have"));
            }
            for name in self.preload.clone() {
                let origin = Origin::Root("LD_PRELOAD, LD_AUDIT or /etc/ld.so.preload".to_owned());
                let found = self.find_libraries(&name, start, &program, &[], is_musl);
                self.take_libraries(
                    &found,
                    "put into every process",
                    &origin,
                    How::Preload,
                    &mut members,
                    &mut seen,
                );
            }
        }
        let mut rpath: Vec<String> = Vec::new();
        let mut at = 0;
        let mut missing = Vec::new();
        let mut loads = false;
        loop {
            while let Some(member) = members.get(at).cloned() {
                at += 1;
                if members.len() > MAX_PROCESS {
                    self.closure.cannot_follow(start, "has too many libraries");
                    return;
                }
                let Some(elf) = self.elf(&member) else { continue };
                loads |= elf.loads && !Self::is_c_library(&member);
                if elf.runpath.is_empty() {
                    let origin = member.rsplit_once('/').map_or("", |(directory, _)| directory);
                    for directory in &elf.rpath {
                        let directory = directory.replace("${ORIGIN}", origin).replace("$ORIGIN", origin);
                        if rpath.len() < 64 && !rpath.contains(&directory) {
                            rpath.push(directory);
                        }
                    }
                }
                let origin = Origin::Path(member.clone());
                for name in elf.needed.iter().chain(&elf.optional) {
                    let found = self.find_libraries(name, &member, &elf, &rpath, is_musl);
                    if found.is_empty() && elf.needed.contains(name) && !(is_musl && name.starts_with("libc.")) {
                        missing.push((member.clone(), name.clone()));
                    }
                    self.take_libraries(&found, "linked with it", &origin, How::Needed, &mut members, &mut seen);
                }
            }
            // Names of libraries in texts, once the linked ones are known; they bring further ones.
            let before = members.len();
            for member in members.clone() {
                if Self::is_c_library(&member) || !loads && how == How::Program {
                    continue;
                }
                let Some(elf) = self.elf(&member).filter(|elf| elf.is_dynamic) else {
                    continue;
                };
                let origin = Origin::Path(member.clone());
                if elf.loads && elf.locates && elf.lists {
                    let beside = self.modules_beside(&member);
                    let rule = "it lists its own directory for modules, and this one has its name";
                    self.take_libraries(&beside, rule, &origin, How::Dlopen, &mut members, &mut seen);
                }
                let texts = self.texts(&member, &elf);
                for name in texts.libraries.iter().take(MAX_LIBRARIES) {
                    let found = self.find_libraries(name, &member, &elf, &rpath, is_musl);
                    self.take_libraries(
                        &found,
                        "its text names the library",
                        &origin,
                        How::Dlopen,
                        &mut members,
                        &mut seen,
                    );
                }
            }
            if members.len() == before {
                break;
            }
        }
        if how == How::Program {
            // The loader looks no further than the process.
            let has = |name: &str| members.iter().any(|member| member.rsplit('/').next() == Some(name));
            missing.retain(|(_, name)| !has(name));
            self.note_missing(missing);
        } else {
            self.missing.extend(missing);
        }
        self.follow_texts(start, &program, &members);
    }

    /// The libraries beside one whose names continue its own: `libloop-epoll.so.1` of `libloop.so.1`.
    fn modules_beside(&self, library: &str) -> Vec<String> {
        let Some((directory, name)) = library.rsplit_once('/') else {
            return Vec::new();
        };
        let Some((stem, _)) = name.split_once(".so") else {
            return Vec::new();
        };
        let mut beside = self.space.children(directory);
        let is_its = |name: &str| {
            let rest = name.strip_prefix(stem).and_then(|rest| rest.strip_prefix(['-', '_']));
            rest.is_some_and(|rest| rest.contains(".so"))
        };
        beside.retain(|path| path.rsplit('/').next().is_some_and(is_its));
        beside
    }

    /// Says which libraries are missing.
    fn note_missing(&mut self, missing: Vec<(String, String)>) {
        for (member, name) in missing {
            self.closure
                .note(format!("{member} needs {name}, which the image does not have"));
        }
    }

    /// Says which libraries modules lack that no process can have when it loads them: one under their name that is there
    /// already counts, wherever it was loaded from.
    pub(super) fn note_missing_of_modules(&mut self) {
        let mut missing = std::mem::take(&mut self.missing);
        let names: BTreeSet<&str> = self
            .closure
            .objects
            .keys()
            .filter_map(|path| path.rsplit('/').next())
            .collect();
        missing.retain(|(_, name)| !names.contains(name.as_str()));
        self.note_missing(missing);
    }

    fn take_libraries(
        &mut self,
        paths: &[String],
        rule: &str,
        origin: &Origin,
        how: How,
        members: &mut Vec<String>,
        seen: &mut BTreeSet<String>,
    ) {
        for path in paths {
            let Some(end) = self.keep(path, rule, origin, By::Rule) else {
                continue;
            };
            self.add_object(&end, how);
            if seen.insert(end.clone()) {
                members.push(end);
            }
        }
    }

    fn texts(&mut self, path: &str, elf: &Elf) -> Rc<Texts> {
        if let Some(known) = self.texts.get(path) {
            return Rc::clone(known);
        }
        let texts = self.space.open(path).map_or_else(Texts::default, |reader| {
            let mut names = self.siblings(path);
            if elf.searches && !self.is_interpreter(path) {
                names.extend(self.commands().iter().cloned());
            }
            let known = Known {
                space: &self.space,
                top: &self.top,
                names: &names,
                path,
            };
            elf::texts(&reader, elf, known)
        });
        if texts.cut {
            self.closure
                .cannot_follow(path, "is too large to be searched for the files that it names");
        }
        let texts = Rc::new(texts);
        self.texts.insert(path.to_owned(), Rc::clone(&texts));
        texts
    }

    /// Names of all that a program finds in `PATH`.
    pub(super) fn commands(&self) -> Rc<BTreeSet<String>> {
        if let Some(known) = self.commands.borrow().as_ref() {
            return Rc::clone(known);
        }
        let found: BTreeSet<String> = self
            .path
            .iter()
            .filter_map(|directory| self.space.resolve(directory))
            .flat_map(|found| self.space.children(&found.path))
            .filter(|path| self.is_startable(path))
            .filter_map(|path| path.rsplit('/').next().map(str::to_owned))
            .collect();
        let found = Rc::new(found);
        *self.commands.borrow_mut() = Some(Rc::clone(&found));
        found
    }

    /// Names of the programs of the same package in the same directory.
    fn siblings(&self, path: &str) -> BTreeSet<String> {
        let (Some(owner), Some((directory, own))) = (self.inventory.owner(path), path.rsplit_once('/')) else {
            return BTreeSet::new();
        };
        let Some(package) = self.inventory.package(owner) else {
            return BTreeSet::new();
        };
        package
            .files
            .iter()
            .filter_map(|file| file.rsplit_once('/'))
            .filter(|(parent, name)| *parent == directory && *name != own)
            .map(|(_, name)| name.to_owned())
            .collect()
    }

    /// What the texts of a program and its libraries name.
    fn follow_texts(&mut self, start: &str, program: &Elf, members: &[String]) {
        let mut starts = !program.is_dynamic;
        let mut starts_shell = None;
        for member in members.iter().filter(|member| !Self::is_c_library(member)) {
            let Some(elf) = self.elf(member) else { continue };
            if self.is_interpreter(member) {
                continue;
            }
            starts |= elf.starts;
            if elf.starts_shell && starts_shell.is_none() {
                starts_shell = Some(member.clone());
            }
        }
        if let Some(member) = starts_shell {
            let origin = Origin::Path(member);
            self.keep(
                "/bin/sh",
                "it calls system() or popen(), which start the shell",
                &origin,
                By::Rule,
            );
        }
        for member in members {
            let again = member != start && self.followed.contains(&(member.clone(), starts));
            if again || Self::is_c_library(member) {
                continue;
            }
            self.followed.insert((member.clone(), starts));
            let Some(elf) = self.elf(member) else { continue };
            let texts = self.texts(member, &elf);
            let silent = self.is_interpreter(member);
            let origin = Origin::Path(member.clone());
            let prefixes = texts.prefixes.iter().filter(|_| texts.endless);
            for path in texts.paths.iter().chain(prefixes) {
                let Some(found) = self.space.resolve(path) else {
                    continue;
                };
                match (self.space.what(&found.path), self.class(&found.path)) {
                    (Some(What::File { .. }), Class::Program | Class::Script)
                        if starts
                            && !silent
                            && (texts.endless || texts.started.contains(path))
                            && !self.is_commanded(&found.path) =>
                    {
                        self.keep(
                            path,
                            "its text names the program, and it starts programs",
                            &origin,
                            By::Rule,
                        );
                    }
                    (Some(What::File { .. }), Class::Library) => {
                        self.keep(path, "its text names the library", &origin, By::Rule);
                    }
                    // libcrypto has the name of its engines' directory, and looks there for one that it was asked for.
                    (Some(What::Directory), _) if self.has_what_rules_load(&found.path) => {}
                    (Some(What::File { .. } | What::Directory), Class::Data) => {
                        self.named(path, "its text names it", &origin, By::Rule, "/");
                    }
                    _ => {}
                }
            }
            if silent || !starts {
                continue;
            }
            // One that starts what it is told to has other words for texts, busybox those of its own applets.
            let is_told = start
                .rsplit('/')
                .next()
                .is_some_and(|name| self.rules.wrappers.contains(name));
            if elf.searches && member == start && !is_told {
                for name in &texts.names {
                    // The names of scripts are words: `service`, `install`.
                    if let Some(path) = self.command(name, "/")
                        && (name.len() > 2 || name == "sh")
                        && let Some(found) = self.space.resolve(&path)
                        && self.class(&found.path) == Class::Program
                        && !self.is_commanded(&found.path)
                    {
                        self.keep(
                            &path,
                            "its text is the name of a command, and it starts commands",
                            &origin,
                            By::Rule,
                        );
                    }
                }
            }
            if member == start {
                let directory = member
                    .rsplit_once('/')
                    .map_or("", |(directory, _)| directory)
                    .to_owned();
                let public = self.path.contains(&directory);
                // Where a rule says which of the programs there are started, names of scripts say nothing.
                let is_ruled = self
                    .fired
                    .iter()
                    .filter_map(|number| self.rules.rules.get(*number))
                    .any(|rule| {
                        let mut wanted = rule.programs.iter().filter_map(|wanted| wanted.rsplit_once('/'));
                        wanted.any(|(place, _)| place == directory)
                    });
                for name in &texts.names {
                    // Short names of commands are words of other meaning, too.
                    if name.len() < 4 || public && (name.len() < 6 || !name.contains(['-', '_'])) {
                        continue;
                    }
                    let path = join(&directory, name);
                    if is_ruled && self.class(&path) == Class::Script {
                        continue;
                    }
                    self.keep(
                        &path,
                        "its text names the program beside it, and it starts programs",
                        &origin,
                        By::Rule,
                    );
                }
            }
            if elf.starts_shell && member == start {
                for text in &texts.commands {
                    let name = text.split(' ').next().unwrap_or("");
                    if BUILTINS.contains(&name) {
                        continue;
                    }
                    if let Some(path) = self.command(name, "/") {
                        self.keep(&path, "its text is a command for the shell", &origin, By::Rule);
                    }
                }
            }
        }
        self.languages_of(start);
        for member in members {
            self.languages_of(member);
        }
    }

    /// Whether a rule says that only a command line starts a program.
    fn is_commanded(&self, path: &str) -> bool {
        let mut rules = self.rules.rules.iter().filter(|rule| rule.commanded);
        rules.any(|rule| rule.reached.iter().any(|wanted| pattern::path(wanted, path)))
    }

    /// Applies the rules that a reached file fires; without one, those that always hold.
    fn fire_rules(&mut self, path: Option<&str>) {
        let rules = self.rules;
        for (number, rule) in rules.rules.iter().enumerate() {
            if self.fired.contains(&number) {
                continue;
            }
            let holds = match path {
                None => rule.reached.is_empty() && rule.imports.is_empty(),
                Some(path) => {
                    let reached = rule.reached.is_empty()
                        || rule
                            .reached
                            .iter()
                            .any(|pattern| pattern::path(pattern, path) || self.is_called(pattern, path));
                    let by_import = !rule.imports.is_empty()
                        && !rule.own.iter().any(|own| pattern::path(own, path))
                        && self
                            .elf(path)
                            .is_some_and(|elf| rule.imports.iter().any(|name| elf.imports.contains(name)));
                    if rule.imports.is_empty() {
                        reached && !rule.reached.is_empty()
                    } else {
                        by_import
                    }
                }
            };
            if !holds || !self.is_mentioned(rule) {
                continue;
            }
            self.fired.insert(number);
            let origin = path.map_or_else(
                || Origin::Root(format!("convention: {}", rule.name)),
                |path| Origin::Path(path.to_owned()),
            );
            let by = if path.is_some() { By::Rule } else { By::Convention };
            for wanted in &rule.keep {
                for path in self.space.expand(wanted) {
                    self.keep_unless_program(&path, &rule.reason, &origin, by);
                }
            }
            for wanted in &rule.programs {
                for path in self.space.expand(wanted) {
                    if matches!(self.space.what(&path), Some(What::File { .. } | What::Link(_))) {
                        self.keep(&path, &rule.reason, &origin, By::Rule);
                    }
                }
            }
            for name in &rule.run {
                if let Some(path) = self.command(name, "/") {
                    self.keep(&path, &rule.reason, &origin, By::Rule);
                }
            }
            if let Some(elf) = path.and_then(|path| self.elf(path)) {
                let from = path.unwrap_or("/");
                for name in &rule.libraries {
                    for found in self.find_libraries(name, from, &elf, &[], false).iter() {
                        if let Some(end) = self.keep(found, &rule.reason, &origin, By::Rule) {
                            self.add_object(&end, How::Dlopen);
                            self.process(&end, How::Dlopen);
                        }
                    }
                }
            }
            for wanted in &rule.configuration {
                for file in self.space.expand(wanted) {
                    self.search_configuration(&file, &format!("the configuration of {} names it", rule.name));
                }
            }
            if rule.name == "name services" {
                self.name_services(path.unwrap_or("/"));
            }
        }
    }

    /// Whether the words that a rule asks for, if any, stand in its files of configuration or in one that the environment
    /// names. A file that is too large to be read may have them.
    fn is_mentioned(&self, rule: &Rule) -> bool {
        let values = self.roots.env.iter().filter_map(|entry| entry.split_once('='));
        let named = values.map(|(_, value)| value.to_owned());
        let files = rule.configuration.iter().flat_map(|wanted| self.space.expand(wanted));
        let has = |file: String| {
            let Some(found) = self.space.resolve(&file) else {
                return false;
            };
            let Some(What::File { size, .. }) = self.space.what(&found.path) else {
                return false;
            };
            let Some(bytes) = self.space.bytes(&found.path, MAX_CONFIGURATION) else {
                return size > 0;
            };
            let text = String::from_utf8_lossy(&bytes);
            text.lines()
                .map(|line| line.split_once('#').map_or(line, |(before, _)| before))
                .any(|line| rule.mentions.iter().any(|word| line.contains(word.as_str())))
        };
        rule.mentions.is_empty() || files.chain(named.filter(|value| value.starts_with('/'))).any(has)
    }

    /// Whether a link by which a file was kept has this name: `redis-server` is a link to `redis-check-rdb`.
    fn is_called(&self, wanted: &str, path: &str) -> bool {
        if wanted.contains('/') {
            return false;
        }
        self.path.iter().map(|directory| join(directory, wanted)).any(|link| {
            !pattern::is_pattern(wanted)
                && self.closure.kept.contains_key(&link)
                && self.space.resolve(&link).is_some_and(|found| found.path == path)
        })
    }

    /// The modules that `nsswitch.conf` names.
    fn name_services(&mut self, from: &str) {
        let Some(found) = self.space.resolve("/etc/nsswitch.conf") else {
            return;
        };
        let Some(bytes) = self.space.bytes(&found.path, MAX_CONFIGURATION) else {
            return;
        };
        let Some(elf) = self.elf(from) else { return };
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let mut services = BTreeSet::new();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or("");
            let Some((_, list)) = line.split_once(':') else {
                continue;
            };
            for word in list.split_ascii_whitespace() {
                if services.len() < 64 && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                    services.insert(word.to_owned());
                }
            }
        }
        let origin = Origin::Path(found.path);
        for service in services {
            for path in self
                .find_libraries(&format!("libnss_{service}.so.2"), from, &elf, &[], false)
                .iter()
            {
                if let Some(end) = self.keep(path, "nsswitch.conf names the service", &origin, By::Rule) {
                    self.add_object(&end, How::Dlopen);
                    self.process(&end, How::Dlopen);
                }
            }
        }
    }

    /// The modules that services of PAM name, once libpam is there: services of packages that are reached, and those
    /// that stand for all others. False where there is no new one.
    fn pam_services(&mut self) -> bool {
        let libpam = self
            .closure
            .objects
            .keys()
            .find(|path| pattern::path("libpam.so.*", path))
            .cloned();
        let Some(libpam) = libpam else { return false };
        let mut modules = BTreeSet::new();
        for file in self.space.expand("/etc/pam.d/*") {
            let name = file.rsplit('/').next().unwrap_or("");
            let is_reached = self
                .inventory
                .owner(&file)
                .is_none_or(|id| self.packages.contains_key(&id));
            if !(is_reached || name == "other" || name.starts_with("common-") || name == "system-auth")
                || self.services.contains(&file)
            {
                continue;
            }
            self.services.insert(file.clone());
            let Some(end) = self.keep(&file, "a service of PAM", &Origin::Path(libpam.clone()), By::Convention) else {
                continue;
            };
            let text = self.space.bytes(&end, MAX_CONFIGURATION).unwrap_or_default();
            for token in String::from_utf8_lossy(&text)
                .split_ascii_whitespace()
                .filter(|token| token.ends_with(".so"))
            {
                modules.insert((token.to_owned(), end.clone()));
            }
        }
        if modules.is_empty() {
            return false;
        }
        for (name, service) in modules {
            let places: &[&str] = if name.starts_with('/') {
                &[""]
            } else {
                &[
                    "/usr/lib/*/security/",
                    "/usr/lib/security/",
                    "/usr/lib64/security/",
                    "/lib/*/security/",
                    "/lib/security/",
                ]
            };
            for place in places {
                for path in self.space.expand(&format!("{place}{name}")) {
                    self.keep(
                        &path,
                        "the service of PAM names the module",
                        &Origin::Path(service.clone()),
                        By::Convention,
                    );
                }
            }
        }
        true
    }

    /// The modules of the languages that a file interprets.
    pub(super) fn languages_of(&mut self, path: &str) {
        let rules = self.rules;
        for (number, language) in rules.languages.iter().enumerate() {
            if self.languages.contains(&number)
                || !language.interpreters.iter().any(|pattern| pattern::path(pattern, path))
            {
                continue;
            }
            self.languages.insert(number);
            if language.foreign {
                self.closure.cannot_see(format!(
                    "{path} interprets {}, which calls functions of libraries by names that no ELF file has",
                    language.name
                ));
            }
            let origin = Origin::Path(path.to_owned());
            let rule = format!("a module of {}", language.name);
            for wanted in &language.modules {
                for path in self.space.expand(wanted) {
                    if language.sources.iter().any(|source| pattern::path(source, &path)) {
                        self.keep_source(&path, &rule, &origin);
                    } else {
                        self.keep_unless_program(&path, &rule, &origin, By::Convention);
                    }
                    self.note_module(language, path);
                }
            }
            for wanted in &language.programs {
                for path in self.space.expand(wanted) {
                    self.keep(&path, &format!("a helper of {}", language.name), &origin, By::Rule);
                }
            }
            // What no package owns is the application, wherever an argument or a configuration says that it lies.
            let tree = self.space.tree;
            let files = tree.nodes().filter(|(_, node)| !node.is_directory());
            let mut own: Vec<String> = files
                .filter(|(path, _)| language.sources.iter().any(|source| pattern::path(source, path)))
                .filter(|(path, _)| !is_module(path) && self.inventory.owner(path).is_none())
                .map(|(path, _)| path.to_owned())
                .collect();
            for point in self.space.mount_points() {
                own.extend(self.sources_below(language, point));
            }
            for path in &own {
                self.keep_source(path, "a source of the application", &origin);
            }
            self.search_sources(language, &own);
            self.search_imports(language);
        }
    }

    /// Where something could not be followed: every executable of eligible packages, and all that it needs.
    pub(super) fn keep_everything(&mut self, eligible: &dyn Fn(PackageId) -> bool) {
        let first = self
            .closure
            .unfollowed
            .first()
            .map_or_else(String::new, |first| format!("{} {}", first.what, first.why));
        let origin = Origin::Root(format!("not followed: {first}"));
        let paths: Vec<String> = self
            .space
            .tree
            .nodes()
            .filter(|(path, node)| !node.is_directory() && self.inventory.owner(path).is_some_and(eligible))
            .map(|(path, _)| path.to_owned())
            .collect();
        self.is_everything = true;
        let rule = "something could not be followed, so every executable of the SBOM's packages stays";
        for path in paths {
            let Some(end) = self.space.resolve(&path).map(|found| found.path) else {
                continue;
            };
            let class = self.class(&end);
            if class == Class::Data || self.analysed.contains(&end) && self.closure.kept.contains_key(&path) {
                continue;
            }
            // All that it could need stays as well, or belongs to a language.
            self.analysed.insert(end.clone());
            if self.keep(&path, rule, &origin, By::Rule).is_none() {
                continue;
            }
            match class {
                Class::Program => self.add_object(&end, How::Program),
                Class::Library => self.add_object(&end, How::Plugin),
                Class::Script | Class::Data => {}
            }
            self.languages_of(&end);
            self.fire_rules(Some(&end));
        }
        self.settle();
    }

    pub(super) fn hidden_set_id(&self, path: &str) -> bool {
        self.set_id.contains(path)
            || self
                .space
                .tree
                .node(path)
                .is_some_and(|node| node.is_executable() && node.mode & 0o6000 != 0)
    }

    pub(super) fn hide(&mut self, path: &str, why: Hidden) {
        self.closure.hidden.insert(path.to_owned(), why);
    }
}

/// Whether a shared object lies where no loader looks for it by its name alone.
fn is_private(path: &str) -> bool {
    let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
    ![
        "/lib",
        "/lib64",
        "/lib32",
        "/usr/lib",
        "/usr/lib64",
        "/usr/lib32",
        "/usr/local/lib",
        "/usr/lib/*-linux-*",
        "/lib/*-linux-*",
        "/usr/local/lib/*-linux-*",
        "/usr/lib/**/glibc-hwcaps/*",
    ]
    .iter()
    .any(|known| pattern::path(known, directory))
}
