//! What can run, followed to a fixed point, and the system calls that it makes.
//!
//! Why nothing is lost: a function runs only when control enters it, and control enters by the program's or loader's
//! entry, by the loader calling what a file names, by a direct call or jump, by running on, by a symbol, or by a pointer.
//! Pointers come from code that computes them, which makes their target live when that code is, or from data, where
//! every one is live. A number counts when the function that sets it is live, and it cannot reach the site otherwise.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use super::facts::Facts;
use super::link::{Function, Scope};
use super::name;
use super::slice::{Place, Why};
use super::summary::{LOOKUPS, Reach, Site, Summary, hash};

/// Most entries of slices that are looked at for the sites of all objects.
const MAX_ENTRIES: usize = 4 << 20;
/// Most places whose number is not known that are listed.
const MAX_UNKNOWN: usize = 1 << 12;
/// How far explanations are followed: references between functions, and functions of paths, which count as many.
const MAX_EXPLAINED: usize = 16 << 20;
const STEP: usize = 16;

/// What a file is to the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The program itself.
    Program,
    /// The loader that it asks for.
    Interpreter,
    /// A library that program or libraries need.
    Library,
    /// A file that may be loaded while it runs: every function that it exports can be called.
    Plugin,
}

/// A file of a process.
#[derive(Debug, Clone, Copy)]
pub struct Object<'a> {
    /// Its path, for explanations.
    pub path: &'a str,
    /// What it contributes.
    pub summary: &'a Summary,
    /// What it is to the process.
    pub role: Role,
}

/// A function on a path to a system call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Index of the object.
    pub object: usize,
    /// Name of the function, or its address.
    pub function: String,
    /// Virtual address of the function in its file.
    pub address: u64,
}

/// How a system call comes about: from where the process, or the loader, enters a file, to the place that calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// Functions, the first entered from outside, the last with the site. Empty for a fact.
    pub steps: Vec<Step>,
    /// Virtual address of the site in the last function's file.
    pub site: u64,
    /// Why it is there although no code shows it.
    pub fact: Option<&'static str>,
}

/// A place that can be reached and whose number is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownSite {
    /// Index of the object.
    pub object: usize,
    /// Name of the function.
    pub function: String,
    /// Virtual address of the site.
    pub address: u64,
    /// Why its number is not known.
    pub why: Why,
    /// How it is reached.
    pub path: Vec<Step>,
}

/// The system calls of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Calls {
    /// Numbers, each with its shortest path.
    pub calls: BTreeMap<u32, Path>,
    /// Places whose numbers are not known: while there are any, the calls are not all.
    pub unknown: Vec<UnknownSite>,
    /// Symbols that live code needs and no object defines, with the object that needs them.
    pub unresolved: Vec<(usize, String)>,
    /// How many functions can run, of all.
    pub functions: (usize, usize),
}

/// The loader's search order of one process, or of one plugin with what it brings along, as indexes of objects: program,
/// libraries breadth-first, loader. Where several are at one place, it depends on the processor which of them is loaded.
pub type Order = Vec<Vec<usize>>;

/// Follows everything that the objects of one process can run.
///
/// `objects` are in the loader's search order: program, libraries breadth-first, loader, then what may be loaded later.
/// Adding an object at the end never removes a call.
#[must_use]
pub fn close(objects: &[Object<'_>]) -> Calls {
    let process = objects
        .iter()
        .enumerate()
        .filter(|(_, object)| object.role != Role::Plugin)
        .map(|(index, _)| vec![index]);
    close_all(objects, &[process.collect()], &[])
}

/// Follows everything that the objects of several processes can run, plugins being loaded into any of them.
///
/// The result has every call that the processes make each on its own: a function that is live in one of them is taken
/// for live in all.
#[must_use]
pub fn close_all(objects: &[Object<'_>], processes: &[Order], plugins: &[Order]) -> Calls {
    let mut closure = Closure::new(objects, processes, plugins);
    closure.run();
    closure.calls()
}

#[derive(Debug, Clone, Copy, Default)]
struct Node {
    live: bool,
    /// Entered by callers that cannot be seen.
    opaque: bool,
    /// The function that made it so first, plus one.
    opened: u32,
    /// The function that reached it first, plus one.
    parent: u32,
}

/// A function that never runs.
struct RuledOut {
    /// Only where this one would make it run.
    from: Option<Function>,
    /// As long as none of these runs.
    unless: Vec<Function>,
}

struct Closure<'a> {
    objects: &'a [Object<'a>],
    scope: Scope<'a>,
    /// Index of each object's first node.
    bases: Vec<u32>,
    nodes: Vec<Node>,
    work: VecDeque<u32>,
    /// Definitions by object and import, as they are asked for.
    resolved: HashMap<(usize, u32), Vec<Function>>,
    /// Exports by hash of their name, once something live looks names up.
    by_hash: Option<HashMap<u32, Vec<Function>>>,
    /// Objects by the names that they import, once something live looks names up.
    importing: Option<HashMap<&'a str, Vec<usize>>>,
    looking: BTreeSet<usize>,
    /// Functions that were looked up, by the first object that did.
    sought: HashMap<Function, usize>,
    missing: BTreeSet<(usize, u32)>,
    /// Functions that a reviewer ruled out.
    cuts: HashMap<Function, Vec<RuledOut>>,
    /// Places that a reviewer ruled out, and those without which they are.
    silent: HashMap<(usize, u32), Vec<Function>>,
    /// Functions ruled out that something referred to: by whom, and whether by their address.
    withheld: Vec<(Function, Option<u32>, bool)>,
    /// Places in which functions take the number of a call from a caller.
    wrappers: HashMap<Function, Vec<Place>>,
    /// Objects, their imports and the places of these whose numbers were searched for.
    feeds: HashSet<(usize, u32, Place)>,
    /// How many more entries of slices are looked at.
    entries: usize,
    /// How much further explanations are followed.
    explained: Cell<usize>,
}

impl<'a> Closure<'a> {
    fn new(objects: &'a [Object<'a>], processes: &[Order], plugins: &[Order]) -> Self {
        let mut bases = Vec::with_capacity(objects.len() + 1);
        let mut total = 0u32;
        for object in objects {
            bases.push(total);
            total = total.saturating_add(u32::try_from(object.summary.functions.len()).unwrap_or(u32::MAX));
        }
        bases.push(total);
        let mut wrappers: HashMap<Function, Vec<Place>> = HashMap::new();
        for (index, object) in objects.iter().enumerate() {
            let sites = object.summary.sites.iter().map(|site| &site.slice);
            let feeds = object.summary.feeds.iter().map(|feed| &feed.slice);
            for (function, place) in sites.chain(feeds).flat_map(|slice| &slice.open) {
                wrappers.entry((index, *function)).or_default().push(*place);
            }
        }
        let mut feeds = HashSet::new();
        for (index, object) in objects.iter().enumerate() {
            let fed = object.summary.feeds.iter();
            feeds.extend(fed.map(|feed| (index, feed.import, argument(object.summary, feed.argument))));
        }
        let mut cuts: HashMap<Function, Vec<RuledOut>> = HashMap::new();
        let mut silent = HashMap::new();
        for (index, object) in objects.iter().enumerate() {
            let find = |address: &u32| {
                let found = object.summary.functions.binary_search(address).ok()?;
                Some((index, u32::try_from(found).ok()?))
            };
            for cut in Facts::get().cuts(object.summary.build_id.as_deref()) {
                let unless: Vec<Function> = cut.unless.iter().filter_map(find).collect();
                // What names no function of the file rules nothing out.
                if unless.len() < cut.unless.len() || cut.from.is_some_and(|from| find(&from).is_none()) {
                    continue;
                }
                silent.extend(cut.sites.iter().map(|site| ((index, *site), unless.clone())));
                if let Some(to) = cut.to.as_ref().and_then(find) {
                    let from = cut.from.as_ref().and_then(find);
                    cuts.entry(to).or_default().push(RuledOut { from, unless });
                }
            }
        }
        Self {
            objects,
            scope: Scope::new(objects, processes, plugins),
            bases,
            nodes: vec![Node::default(); total as usize],
            work: VecDeque::new(),
            resolved: HashMap::new(),
            by_hash: None,
            importing: None,
            looking: BTreeSet::new(),
            sought: HashMap::new(),
            missing: BTreeSet::new(),
            cuts,
            silent,
            withheld: Vec::new(),
            wrappers,
            feeds,
            entries: MAX_ENTRIES,
            explained: Cell::new(MAX_EXPLAINED),
        }
    }

    fn node(&self, (object, function): Function) -> u32 {
        self.bases.get(object).copied().unwrap_or_default() + function
    }

    fn function(&self, node: u32) -> Function {
        let object = self.bases.partition_point(|base| *base <= node).saturating_sub(1);
        (object, node - self.bases.get(object).copied().unwrap_or_default())
    }

    fn is_live(&self, function: Function) -> bool {
        self.nodes
            .get(self.node(function) as usize)
            .is_some_and(|node| node.live)
    }

    fn enter(&mut self, function: Function, parent: Option<u32>, opaque: bool) {
        let by = |from| parent.is_some_and(|parent| self.function(parent) == from);
        let mut ruled_out = self.cuts.get(&function).into_iter().flatten();
        if ruled_out.any(|cut| cut.from.is_none_or(by)) {
            self.withheld.push((function, parent, opaque));
            return;
        }
        let index = self.node(function);
        let Some(node) = self.nodes.get_mut(index as usize) else {
            return;
        };
        if opaque && !node.opaque {
            node.opaque = true;
            node.opened = parent.map_or(0, |parent| parent + 1);
        }
        if !node.live {
            node.live = true;
            node.parent = parent.map_or(0, |parent| parent + 1);
            self.work.push_back(index);
        }
    }

    fn resolve(&mut self, object: usize, import: u32) -> Vec<Function> {
        if let Some(found) = self.resolved.get(&(object, import)) {
            return found.clone();
        }
        let found = self
            .objects
            .get(object)
            .and_then(|from| from.summary.imports.get(import as usize))
            .map(|import| (self.scope.resolve(object, import), import));
        let Some((found, named)) = found else { return Vec::new() };
        if found.is_empty() && !named.weak {
            self.missing.insert((object, import));
        }
        if LOOKUPS.contains(&named.name.as_str()) {
            self.look_up(object);
        }
        self.resolved.insert((object, import), found.clone());
        found
    }

    /// A live object looks symbols up by name: an exported function of that name can run. Where a name is not known,
    /// it is taken to be among the strings of the object, or of one that calls its functions.
    fn look_up(&mut self, index: usize) {
        let objects = self.objects;
        let Some(object) = objects.get(index).filter(|_| self.looking.insert(index)) else {
            return;
        };
        let by_hash = self.by_hash.get_or_insert_with(|| {
            let mut by_hash: HashMap<u32, Vec<Function>> = HashMap::new();
            for (index, object) in objects.iter().enumerate() {
                for export in &object.summary.exports {
                    let hash = hash(export.name.as_bytes());
                    by_hash.entry(hash).or_default().push((index, export.function));
                }
            }
            by_hash
        });
        let mut names: Vec<u32> = object
            .summary
            .looked_up
            .iter()
            .map(|name| hash(name.as_bytes()))
            .collect();
        if object.summary.looks_up_unknown {
            let fact = Facts::get().lookup(object.summary);
            if fact.is_none_or(|fact| fact.strings) {
                names.extend(&object.summary.strings);
            }
            names.extend(
                fact.iter()
                    .flat_map(|fact| &fact.names)
                    .map(|name| hash(name.as_bytes())),
            );
            let known = fact.map(|fact| &fact.callers_of).filter(|known| *known != &["*"]);
            let through: Vec<&str> = match known {
                Some(known) => known.iter().map(String::as_str).collect(),
                None => object
                    .summary
                    .exports
                    .iter()
                    .map(|export| export.name.as_str())
                    .collect(),
            };
            let importing = self.importing.get_or_insert_with(|| {
                let mut importing: HashMap<&str, Vec<usize>> = HashMap::new();
                for (caller, object) in objects.iter().enumerate() {
                    for import in &object.summary.imports {
                        importing.entry(import.name.as_str()).or_default().push(caller);
                    }
                }
                importing
            });
            let callers: BTreeSet<usize> = through
                .iter()
                .filter_map(|name| importing.get(name))
                .flatten()
                .copied()
                .filter(|caller| *caller != index && self.scope.may_meet(*caller, index))
                .collect();
            for caller in callers {
                names.extend(
                    objects
                        .get(caller)
                        .into_iter()
                        .flat_map(|object| &object.summary.strings),
                );
            }
        }
        let found: Vec<Function> = names
            .iter()
            .filter_map(|hash| by_hash.get(hash))
            .flatten()
            .copied()
            .collect();
        for function in found {
            self.sought.entry(function).or_insert(index);
            self.enter(function, None, true);
        }
    }

    fn run(&mut self) {
        // Program first: of several paths of one length the one that begins there is found.
        let mut order: Vec<usize> = (0..self.objects.len()).collect();
        order.sort_by_key(|index| match self.objects.get(*index).map(|object| object.role) {
            Some(Role::Program) => 0,
            Some(Role::Library) => 1,
            Some(Role::Plugin) => 2,
            _ => 3,
        });
        for index in &order {
            let Some(object) = self.objects.get(*index) else {
                continue;
            };
            for entry in object.summary.entry.iter().filter(|_| object.role != Role::Library) {
                self.enter((*index, *entry), None, true);
            }
            for function in &object.summary.kept {
                self.enter((*index, *function), None, false);
            }
            for function in Facts::get().stages(object.summary) {
                self.enter((*index, function), None, true);
            }
        }
        for index in &order {
            let Some(object) = self.objects.get(*index) else {
                continue;
            };
            for function in object.summary.called.iter().chain(&object.summary.pointers) {
                self.enter((*index, *function), None, true);
            }
            if object.role == Role::Plugin {
                for export in &object.summary.exports {
                    self.enter((*index, export.function), None, true);
                }
            }
            for import in &object.summary.pointer_imports {
                for function in self.resolve(*index, *import) {
                    self.enter(function, None, true);
                }
            }
        }
        loop {
            while let Some(node) = self.work.pop_front() {
                self.follow(node);
            }
            // What was ruled out only as long as something else cannot run.
            let count = |cuts: &HashMap<Function, Vec<RuledOut>>| cuts.values().map(Vec::len).sum::<usize>();
            let mut cuts = std::mem::take(&mut self.cuts);
            let before = count(&cuts);
            let holds = |cut: &RuledOut| !cut.unless.iter().any(|function| self.is_live(*function));
            cuts.values_mut().for_each(|cuts| cuts.retain(holds));
            self.cuts = cuts;
            if count(&self.cuts) == before {
                break;
            }
            for (function, parent, opaque) in std::mem::take(&mut self.withheld) {
                self.enter(function, parent, opaque);
            }
        }
    }

    fn follow(&mut self, node: u32) {
        let (index, function) = self.function(node);
        let Some(object) = self.objects.get(index) else { return };
        let count = u32::try_from(object.summary.functions.len()).unwrap_or(u32::MAX);
        for edge in object.summary.edges_of(function) {
            let taken = edge.reach == Reach::Taken;
            if let Some(import) = edge.to.checked_sub(count) {
                for target in self.resolve(index, import) {
                    let fed = taken || self.is_fed(index, import, target);
                    self.enter(target, Some(node), taken || !fed);
                }
            } else {
                self.enter((index, edge.to), Some(node), taken);
            }
        }
    }

    /// Whether the numbers that an object passes to an imported function were searched for, if that takes any.
    fn is_fed(&self, object: usize, import: u32, target: Function) -> bool {
        let Some(places) = self.wrappers.get(&target) else {
            return true;
        };
        places
            .iter()
            .all(|place| self.feeds.contains(&(object, import, *place)))
    }

    fn calls(mut self) -> Calls {
        let mut calls = Calls {
            functions: (self.nodes.iter().filter(|node| node.live).count(), self.nodes.len()),
            ..Calls::default()
        };
        // Which feeds reach which wrapper.
        let mut fed: HashMap<(Function, Place), Vec<(usize, usize)>> = HashMap::new();
        for (index, object) in self.objects.iter().enumerate() {
            for (at, feed) in object.summary.feeds.iter().enumerate() {
                let place = argument(object.summary, feed.argument);
                for target in self.resolve(index, feed.import) {
                    fed.entry((target, place)).or_default().push((index, at));
                }
            }
        }
        for (index, object) in self.objects.iter().enumerate() {
            for site in &object.summary.sites {
                let is_silent = self.silent.get(&(index, site.address));
                let is_silent = is_silent.is_some_and(|unless| !unless.iter().any(|function| self.is_live(*function)));
                if self.is_live((index, site.function)) && !is_silent {
                    self.site(index, site, &fed, &mut calls);
                }
            }
        }
        if let Some(object) = self.objects.first() {
            for fact in &Facts::get().always {
                for call in &fact.calls {
                    if let Some(number) = name::number(object.summary.machine, call) {
                        calls.calls.entry(number).or_insert(Path {
                            steps: Vec::new(),
                            site: 0,
                            fact: Some(&fact.reason),
                        });
                    }
                }
            }
        }
        calls.unresolved = self
            .missing
            .iter()
            .filter_map(|(object, import)| {
                let import = self.objects.get(*object)?.summary.imports.get(*import as usize)?;
                Some((*object, import.name.clone()))
            })
            .collect();
        calls
    }

    fn site(
        &mut self,
        index: usize,
        place: &Site,
        fed: &HashMap<(Function, Place), Vec<(usize, usize)>>,
        calls: &mut Calls,
    ) {
        let Some(object) = self.objects.get(index) else { return };
        let machine = object.summary.machine;
        let function = place.function;
        let end = (index, function);
        let site = object.summary.base + u64::from(place.address);
        let own = &place.slice;
        let mut slices = vec![(index, own)];
        let mut seen: HashSet<(Function, Place)> = HashSet::new();
        let mut reasons: BTreeSet<(Function, Why)> = BTreeSet::new();
        while let Some((holder, slice)) = slices.pop() {
            let entries = 1 + slice.numbers.len() + slice.unknown.len() + slice.open.len();
            let Some(left) = self.entries.checked_sub(entries) else {
                self.entries = 0;
                // No fact says anything about what was not looked at.
                calls.unknown.push(UnknownSite {
                    object: index,
                    function: object.summary.name(function),
                    address: site,
                    why: Why::TooComplex,
                    path: Vec::new(),
                });
                break;
            };
            self.entries = left;
            for (number, at) in &slice.numbers {
                // A number that no system call has is refused by the kernel itself.
                if name::name(machine, *number).is_none() || !self.is_live((holder, *at)) {
                    continue;
                }
                let known = calls.calls.get(number).map(|known| known.steps.len());
                // No path is shorter than one function.
                if known.is_some_and(|known| known <= 1 || self.explained.get() == 0) {
                    continue;
                }
                let steps = self.path((holder, *at), end);
                if known.is_none_or(|known| known > steps.len() && self.explained.get() > 0) {
                    let path = Path {
                        steps,
                        site,
                        fact: None,
                    };
                    calls.calls.insert(*number, path);
                }
            }
            for (at, why) in &slice.unknown {
                if self.is_live((holder, *at)) {
                    reasons.insert(((holder, *at), *why));
                }
            }
            for (at, place) in &slice.open {
                let target = (holder, *at);
                if !seen.insert((target, *place)) {
                    continue;
                }
                let opaque = self
                    .nodes
                    .get(self.node(target) as usize)
                    .is_some_and(|node| node.live && node.opaque);
                if opaque {
                    reasons.insert((target, Why::Caller));
                }
                let feeders = fed.get(&(target, *place)).into_iter().flatten();
                for (feeder, feed) in feeders.take(self.entries.saturating_add(1)) {
                    let feed = self
                        .objects
                        .get(*feeder)
                        .and_then(|object| object.summary.feeds.get(*feed));
                    slices.extend(feed.map(|feed| (*feeder, &feed.slice)));
                }
            }
        }
        for (from, why) in reasons {
            let holder = self.objects.get(from.0).map_or(object.summary, |object| object.summary);
            if let Some(fact) = Facts::get().site(holder, from.1, why, (from == end).then_some(place)) {
                let runs = |name: &String| {
                    holder
                        .exports
                        .iter()
                        .any(|export| export.name == *name && self.is_live((from.0, export.function)))
                };
                let applies = fact.when.is_empty() || fact.when.iter().any(runs);
                for number in fact
                    .calls
                    .iter()
                    .filter(|_| applies)
                    .filter_map(|call| name::number(machine, call))
                {
                    calls.calls.entry(number).or_insert_with(|| Path {
                        steps: self.path(from, end),
                        site,
                        fact: Some(&fact.reason),
                    });
                }
                continue;
            }
            if calls.unknown.len() >= MAX_UNKNOWN {
                continue;
            }
            calls.unknown.push(UnknownSite {
                object: index,
                function: object.summary.name(function),
                address: site,
                why,
                path: if why == Why::Caller {
                    self.opening(from, end)
                } else {
                    self.path(from, end)
                },
            });
        }
    }

    fn step(&self, function: Function) -> Option<Step> {
        let summary = self.objects.get(function.0)?.summary;
        let address = summary.functions.get(function.1 as usize)?;
        Some(Step {
            object: function.0,
            function: summary.name(function.1),
            address: summary.base + u64::from(*address),
        })
    }

    /// Whether an explanation may go on, at a price.
    fn may_explain(&self, price: usize) -> bool {
        let left = self.explained.get().checked_sub(price);
        self.explained.set(left.unwrap_or_default());
        left.is_some()
    }

    /// The shortest way from outside to the function that sets a number, and on to the one that has the site;
    /// only its end once [`MAX_EXPLAINED`] is reached.
    fn path(&self, via: Function, site: Function) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut at = Some(self.node(via));
        while let Some(node) = at.filter(|_| self.may_explain(STEP)) {
            steps.extend(self.step(self.function(node)));
            at = self
                .nodes
                .get(node as usize)
                .and_then(|node| node.parent.checked_sub(1));
        }
        steps.reverse();
        steps.extend(self.onward(via, site));
        steps
    }

    /// The way to a function whose number comes from a caller that cannot be seen, by that caller: the one that takes the
    /// function's address, passes on what was not searched for, or looks the function up by its name.
    fn opening(&self, via: Function, site: Function) -> Vec<Step> {
        let opened = self.nodes.get(self.node(via) as usize).map_or(0, |node| node.opened);
        let mut steps = match (opened.checked_sub(1), self.sought.get(&via)) {
            (Some(caller), _) => {
                let caller = self.function(caller);
                self.path(caller, caller)
            }
            (None, Some(object)) => vec![Step {
                object: *object,
                function: LOOKUPS[0].to_owned(),
                address: 0,
            }],
            (None, None) => Vec::new(),
        };
        steps.extend(self.step(via));
        steps.extend(self.onward(via, site));
        steps
    }

    /// Functions between one that sets a number and the one whose site uses it, the latter included.
    fn onward(&self, from: Function, to: Function) -> Vec<Step> {
        if from == to {
            return Vec::new();
        }
        let (start, end) = (self.node(from), self.node(to));
        let mut parents: HashMap<u32, u32> = HashMap::new();
        let mut work = VecDeque::from([start]);
        while let Some(node) = work.pop_front() {
            if node == end {
                break;
            }
            let (index, function) = self.function(node);
            let Some(object) = self.objects.get(index) else {
                continue;
            };
            let count = u32::try_from(object.summary.functions.len()).unwrap_or(u32::MAX);
            for edge in object.summary.edges_of(function) {
                if edge.reach == Reach::Taken || !self.may_explain(1) {
                    continue;
                }
                let targets = match edge.to.checked_sub(count) {
                    Some(import) => self.resolved.get(&(index, import)).cloned().unwrap_or_default(),
                    None => vec![(index, edge.to)],
                };
                for target in targets {
                    let target = self.node(target);
                    if target != start && !parents.contains_key(&target) {
                        parents.insert(target, node);
                        work.push_back(target);
                    }
                }
            }
        }
        let mut steps = Vec::new();
        let mut at = end;
        while at != start {
            self.may_explain(STEP);
            steps.extend(self.step(self.function(at)));
            match parents.get(&at) {
                Some(parent) => at = *parent,
                None => break,
            }
        }
        steps.reverse();
        steps
    }
}

/// Where a C function of a machine finds an argument.
fn argument(summary: &Summary, index: u8) -> Place {
    match summary.machine {
        super::Machine::X86_64 => super::x86::ABI.argument(index),
        super::Machine::Aarch64 => super::aarch64::ABI.argument(index),
    }
}
