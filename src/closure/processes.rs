//! Which ELF files meet in one process: each program with what the loader puts beside it, each plugin with what it
//! brings along. The analysis of system calls binds symbols by it.

use std::collections::BTreeSet;

use super::elf::Elf;
use super::trace::Trace;
use super::{Class, Closure, How};

/// Most ELF files of one search order.
const MAX_MEMBERS: usize = 4096;

/// The loader's search order, first searched first. More than one file at a place: which of them the loader takes
/// depends on the processor.
pub type Order = Vec<Vec<String>>;

/// Which of the kept ELF files meet.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Linked {
    /// Of each program: itself, what it is linked with, its loader.
    pub processes: Vec<Order>,
    /// Of each file that is loaded while a program runs: itself, and what it is linked with.
    pub plugins: Vec<Order>,
    /// Files that load programs.
    pub interpreters: BTreeSet<String>,
}

impl Trace<'_> {
    /// Takes every ELF file of the image and of what is mounted for one that runs.
    pub(super) fn take_everything(&mut self) {
        self.is_everything = true;
        let mut paths: Vec<String> = self
            .space
            .tree
            .nodes()
            .filter(|(_, node)| node.is_file())
            .map(|(path, _)| path.to_owned())
            .collect();
        let points: Vec<String> = self.space.mount_points().map(str::to_owned).collect();
        for point in points {
            paths.extend(self.space.below(&point));
            paths.push(point);
        }
        for path in paths {
            match self.class(&path) {
                Class::Program => self.add_object(&path, How::Program),
                Class::Library if self.elf(&path).is_some() => self.add_object(&path, How::Plugin),
                Class::Library | Class::Script | Class::Data => {}
            }
        }
        let unfollowed = std::mem::take(&mut self.closure.unfollowed);
        // Whatever it may start in the image counts already.
        self.closure.unfollowed = unfollowed
            .into_iter()
            .filter(|unfollowed| self.space.mount(&unfollowed.what).is_some())
            .collect();
    }

    /// Finds out which of the kept ELF files meet.
    pub(super) fn link(&mut self) {
        let mut linked = Linked::default();
        let mut members: BTreeSet<String> = BTreeSet::new();
        let objects: Vec<(String, How)> = (self.closure.objects.iter())
            .map(|(path, object)| (path.clone(), object.how))
            .collect();
        for (path, _) in objects.iter().filter(|(_, how)| *how == How::Program) {
            let order = self.order(path, &mut linked.interpreters);
            members.extend(order.iter().flatten().cloned());
            linked.processes.push(order);
        }
        for (path, how) in &objects {
            let is_plugin = match how {
                How::Plugin => !self.is_everything || !members.contains(path),
                // Whoever opens the C library by its name looks up functions by theirs, which the analysis of its calls
                // searches for: not all that it exports can be called for that.
                How::Dlopen => !Self::is_c_library(path),
                How::Preload => linked.processes.is_empty(),
                How::Program | How::Interpreter | How::Needed => false,
            };
            if is_plugin && !linked.interpreters.contains(path) {
                let order = self.order(path, &mut BTreeSet::new());
                linked.plugins.push(order);
            }
        }
        self.closure.linked = linked;
    }

    /// The closure, with the places of ELF files that lie in mounts.
    pub(super) fn placed(mut self) -> Closure {
        let mounted = self.closure.objects.iter().filter(|(_, object)| object.is_mounted);
        let places = mounted.filter_map(|(path, _)| Some((path.clone(), self.space.place(path)?)));
        self.closure.places = places.collect();
        self.closure
    }

    fn order(&self, start: &str, interpreters: &mut BTreeSet<String>) -> Order {
        let mut order: Order = vec![vec![start.to_owned()]];
        let Some(program) = self.elf(start) else { return order };
        let mut seen = BTreeSet::from([start.to_owned()]);
        let is_musl = program
            .interpreter
            .as_deref()
            .is_some_and(|name| name.contains("ld-musl"))
            || program.needed.iter().any(|name| name.starts_with("libc.musl"));
        let mut waiting = vec![start.to_owned()];
        if program.interpreter.is_some() {
            for name in self.preloaded() {
                let found = self.find_libraries(name, start, &program, &[], is_musl);
                waiting.extend(self.place(&found, &mut order, &mut seen));
            }
        }
        let mut rpath: Vec<String> = Vec::new();
        let mut at = 0;
        while let Some(member) = waiting.get(at).cloned() {
            at += 1;
            if waiting.len() > MAX_MEMBERS {
                break;
            }
            let Some(elf) = self.elf(&member) else { continue };
            inherit(&mut rpath, &member, &elf);
            for name in elf.needed.iter().chain(&elf.optional) {
                let found = self.find_libraries(name, &member, &elf, &rpath, is_musl);
                waiting.extend(self.place(&found, &mut order, &mut seen));
            }
        }
        if let Some(interpreter) = program.interpreter.as_ref().and_then(|path| self.space.resolve(path)) {
            if seen.insert(interpreter.path.clone()) {
                order.push(vec![interpreter.path.clone()]);
            }
            interpreters.insert(interpreter.path);
        }
        order
    }

    /// Adds a place to the order, of those files that are kept and have none yet, and returns them.
    fn place(&self, found: &[String], order: &mut Order, seen: &mut BTreeSet<String>) -> Vec<String> {
        let new: Vec<String> = found
            .iter()
            .filter_map(|path| self.space.resolve(path))
            .map(|end| end.path)
            .filter(|path| self.closure.objects.contains_key(path) && seen.insert(path.clone()))
            .collect();
        if !new.is_empty() {
            order.push(new.clone());
        }
        new
    }
}

/// `DT_RPATH` of a member counts for what those that it leads to need.
fn inherit(rpath: &mut Vec<String>, member: &str, elf: &Elf) {
    if !elf.runpath.is_empty() {
        return;
    }
    let origin = member.rsplit_once('/').map_or("", |(directory, _)| directory);
    for directory in &elf.rpath {
        let directory = directory.replace("${ORIGIN}", origin).replace("$ORIGIN", origin);
        if rpath.len() < 64 && !rpath.contains(&directory) {
            rpath.push(directory);
        }
    }
}

impl Closure {
    /// The number of the mount in which a kept ELF file lies, and its path there; `None` for a file of the image.
    #[must_use]
    pub fn mounted_at(&self, path: &str) -> Option<&(usize, String)> {
        self.places.get(path)
    }
}
