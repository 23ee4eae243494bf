//! Which definition a reference gets, in the loader's search order.

use std::collections::HashMap;

use super::close::{Object, Role};
use super::summary::{Export, Import};

/// Index of an object and of a function in it.
pub(super) type Function = (usize, u32);

/// The definitions of all objects.
pub(super) struct Scope<'a> {
    objects: &'a [Object<'a>],
    exports: HashMap<&'a str, Vec<(usize, &'a Export)>>,
}

impl<'a> Scope<'a> {
    /// Of objects in the order in which the loader searches them.
    pub fn new(objects: &'a [Object<'a>]) -> Self {
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
        Self { objects, exports }
    }

    /// The functions that a reference of an object can get.
    ///
    /// The first definition among program and libraries, as in the loader's global scope. A plugin may have been loaded
    /// with a scope of its own, or opened the global one: its own definition and those of other plugins count as well,
    /// so that no order of loading is assumed.
    pub fn resolve(&self, from: usize, import: &Import) -> Vec<Function> {
        let Some(known) = self.exports.get(import.name.as_str()) else {
            return Vec::new();
        };
        let role = |index: usize| self.objects.get(index).map(|object| object.role);
        let mut found = Vec::new();
        let mut global = false;
        for (index, export) in known {
            if !satisfies(import, export) {
                continue;
            }
            let local = role(*index) == Some(Role::Plugin);
            let first = !local && !global;
            let near = local && (*index == from || !global);
            if first || near || (*index == from && role(from) == Some(Role::Plugin)) {
                found.push((*index, export.function));
                global |= first;
            }
        }
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
