//! Which definition a reference gets, in the loader's search order.

use std::collections::HashMap;

use super::close::{Object, Order, Role};
use super::summary::{Export, Import};

/// Index of an object and of a function in it.
pub(super) type Function = (usize, u32);

/// The definitions of all objects, and where each is searched.
pub(super) struct Scope<'a> {
    objects: &'a [Object<'a>],
    exports: HashMap<&'a str, Vec<(usize, &'a Export)>>,
    processes: Ranks,
    plugins: Ranks,
}

/// Places of objects in several search orders.
struct Ranks {
    /// By order and object; none where the object is not in the order.
    place: Vec<Vec<Option<u32>>>,
    /// Orders of each object.
    of: Vec<Vec<usize>>,
}

impl Ranks {
    fn new(count: usize, orders: &[Order]) -> Self {
        let mut ranks = Self {
            place: vec![vec![None; count]; orders.len()],
            of: vec![Vec::new(); count],
        };
        for (number, (order, places)) in orders.iter().zip(&mut ranks.place).enumerate() {
            for (rank, alternatives) in order.iter().enumerate() {
                for object in alternatives {
                    let (Some(place), Some(of)) = (places.get_mut(*object), ranks.of.get_mut(*object)) else {
                        continue;
                    };
                    if place.is_none() {
                        *place = u32::try_from(rank).ok();
                        of.push(number);
                    }
                }
            }
        }
        ranks
    }

    /// The definitions that come first in an order; several where it depends on the processor.
    fn first<'d>(&self, order: usize, definitions: &'d [(usize, &'d Export)]) -> impl Iterator<Item = Function> + 'd {
        let places = self.place.get(order);
        let ranked: Vec<(u32, Function)> = definitions
            .iter()
            .filter_map(|(object, export)| {
                let rank = (*places?.get(*object)?)?;
                Some((rank, (*object, export.function)))
            })
            .collect();
        let best = ranked.iter().map(|(rank, _)| *rank).min();
        ranked
            .into_iter()
            .filter(move |(rank, _)| Some(*rank) == best)
            .map(|(_, function)| function)
    }
}

impl<'a> Scope<'a> {
    /// Of objects, the search orders of the processes and those of the plugins.
    pub fn new(objects: &'a [Object<'a>], processes: &[Order], plugins: &[Order]) -> Self {
        // Only what somebody refers to is looked up.
        let mut exports: HashMap<&str, Vec<(usize, &Export)>> = HashMap::new();
        for object in objects {
            for import in &object.summary.imports {
                exports.entry(import.name.as_str()).or_default();
            }
        }
        for (index, object) in objects.iter().enumerate() {
            for export in &object.summary.exports {
                if let Some(known) = exports.get_mut(export.name.as_str()) {
                    known.push((index, export));
                }
            }
        }
        Self {
            objects,
            exports,
            processes: Ranks::new(objects.len(), processes),
            plugins: Ranks::new(objects.len(), plugins),
        }
    }

    /// Whether an object is a plugin, or one that a plugin brings along: it may get into any process.
    fn is_local(&self, object: usize) -> bool {
        let is_plugin = self
            .objects
            .get(object)
            .is_some_and(|object| object.role == Role::Plugin);
        is_plugin || self.plugins.of.get(object).is_some_and(|of| !of.is_empty())
    }

    /// Whether two objects can be in one process, so that one can call the other.
    pub fn may_meet(&self, one: usize, other: usize) -> bool {
        let of = |object: usize| self.processes.of.get(object).map_or(&[][..], Vec::as_slice);
        self.is_local(one) || self.is_local(other) || of(one).iter().any(|process| of(other).contains(process))
    }

    /// The functions that a reference of an object can get.
    ///
    /// In each process that the object is part of, the first definition in the loader's global scope. A plugin, and
    /// what it brings along, may get into any process, with a scope of its own or not: the first definition of each
    /// process, that of its own scope, its own and, where a process has none, those of all plugins count, so that no
    /// order of loading is assumed.
    pub fn resolve(&self, from: usize, import: &Import) -> Vec<Function> {
        let Some(known) = self.exports.get(import.name.as_str()) else {
            return Vec::new();
        };
        let known: Vec<(usize, &Export)> = known
            .iter()
            .filter(|(_, export)| satisfies(import, export))
            .copied()
            .collect();
        let empty = Vec::new();
        let scopes = self.plugins.of.get(from).unwrap_or(&empty);
        let is_local = |object: usize| self.is_local(object);
        let mut found = Vec::new();
        let mut lacking = false;
        let mut ask = |process: usize, found: &mut Vec<Function>| {
            let before = found.len();
            found.extend(self.processes.first(process, &known));
            lacking |= found.len() == before;
        };
        if is_local(from) {
            (0..self.processes.place.len()).for_each(|process| ask(process, &mut found));
        } else {
            let of = self.processes.of.get(from).unwrap_or(&empty);
            of.iter().for_each(|process| ask(*process, &mut found));
        }
        let nowhere = found.is_empty();
        for scope in scopes {
            found.extend(self.plugins.first(*scope, &known));
        }
        for (object, export) in &known {
            let own = *object == from && is_local(from);
            if own || (lacking || nowhere) && is_local(*object) {
                found.push((*object, export.function));
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}

/// Whether a definition is one that the loader takes for a reference: the same version, or a definition of a file
/// without versions; a reference without a version takes the default one.
fn satisfies(import: &Import, export: &Export) -> bool {
    match (&import.version, &export.version) {
        (Some(wanted), Some(has)) => wanted == has,
        (Some(_), None) => true,
        (None, _) => export.default,
    }
}
