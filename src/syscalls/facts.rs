//! The reviewed facts of `config/syscalls/facts.toml`.

use std::sync::LazyLock;

use serde::Deserialize;

use super::name;
use super::slice::Why;
use super::summary::{Site, Summary};

const TEXT: &str = include_str!("../../config/syscalls/facts.toml");
const OBJECTS: &str = include_str!("../../config/syscalls/objects.toml");

/// All facts.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Facts {
    #[serde(default)]
    wrapper: Vec<Wrapper>,
    #[serde(default)]
    pub always: Vec<Always>,
    #[serde(default)]
    pub site: Vec<SiteFact>,
    #[serde(default)]
    lookup: Vec<Lookup>,
    #[serde(default)]
    stage: Vec<Stage>,
    #[serde(default)]
    pub cut: Vec<Cut>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wrapper {
    symbol: String,
    argument: u8,
    #[cfg_attr(not(test), expect(dead_code, reason = "for reviewers"))]
    reason: String,
}

/// Calls of every program.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Always {
    pub calls: Vec<String>,
    pub reason: String,
}

/// What a site whose number cannot be found calls.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SiteFact {
    /// A symbol that the file exports, by which it is known.
    exports: Option<String>,
    /// A section that the file has, by which it is known.
    section: Option<String>,
    /// The function in which the number gets lost.
    function: Option<String>,
    /// The function has no name that the file exports.
    #[serde(default)]
    inner: bool,
    /// Why the number is not known: `memory`, `caller`, `computed`, `returned`.
    why: String,
    /// With `memory`: distance from the pointer.
    offset: Option<i64>,
    /// With `memory`: how far from the same pointer the first three arguments lie.
    structure: Option<Vec<i64>>,
    /// Calls that the next sites of the file make, in this order, and nothing else.
    #[serde(default)]
    before: Vec<String>,
    /// Names of the calls that such a site makes beyond those found elsewhere.
    pub calls: Vec<String>,
    /// Exported functions of the file without one of which none of these calls happens; none listed: always.
    #[serde(default)]
    pub when: Vec<String>,
    pub reason: String,
}

/// The symbols that a file looks up by names which cannot be found in it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Lookup {
    /// A symbol that the file exports, by which it is known.
    exports: String,
    pub names: Vec<String>,
    /// Its own strings are names.
    #[serde(default)]
    pub strings: bool,
    /// Its exported functions whose callers pass names: the strings of those callers count as well. `*`: any of them.
    #[serde(default)]
    pub callers_of: Vec<String>,
    #[cfg_attr(not(test), expect(dead_code, reason = "for reviewers"))]
    reason: String,
}

/// Functions that a loader finds by their names in its own table of symbols.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stage {
    /// A symbol that the file exports, by which it is known.
    exports: String,
    names: Vec<String>,
    #[cfg_attr(not(test), expect(dead_code, reason = "for reviewers"))]
    reason: String,
}

/// What a reviewer ruled out in one build.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cut {
    build_id: String,
    /// Package and version that the build identifier stands for.
    #[cfg_attr(not(test), expect(dead_code, reason = "for reviewers"))]
    package: String,
    /// Address of the function that never runs.
    pub to: Option<u32>,
    /// Address of the function that never makes it run; none: nothing does.
    pub from: Option<u32>,
    /// Addresses of places where it never enters the kernel.
    #[serde(default)]
    pub sites: Vec<u32>,
    /// Addresses of functions of which one must run for it to happen.
    #[serde(default)]
    pub unless: Vec<u32>,
    #[cfg_attr(not(test), expect(dead_code, reason = "for reviewers"))]
    reason: String,
}

/// What a summary follows from beside the file: the version of the analysis, and the facts.
#[must_use]
pub fn edition() -> &'static str {
    static EDITION: LazyLock<String> = LazyLock::new(|| {
        let text = format!("{} {TEXT} {OBJECTS}", super::VERSION);
        crate::digest::Digest::of(text.as_bytes())
            .hex()
            .chars()
            .take(16)
            .collect()
    });
    &EDITION
}

static FACTS: LazyLock<Facts> = LazyLock::new(|| toml::from_str(TEXT).unwrap_or_default());

impl Facts {
    /// The facts of this build.
    pub fn get() -> &'static Self {
        &FACTS
    }

    /// Sections by which files are known.
    pub fn sections(&self) -> impl Iterator<Item = &str> {
        self.site.iter().filter_map(|fact| fact.section.as_deref())
    }

    /// Which argument of an imported function is the number of a system call, if one is.
    pub fn number_argument(&self, symbol: &str) -> Option<u8> {
        self.wrapper
            .iter()
            .find(|wrapper| wrapper.symbol == symbol)
            .map(|wrapper| wrapper.argument)
    }

    /// The fact about a number that gets lost for a reason in a function of a file.
    ///
    /// `site`: where the number is used, if that is in the same function.
    pub fn site(&self, summary: &Summary, function: u32, why: Why, site: Option<&Site>) -> Option<&SiteFact> {
        self.site.iter().find(|fact| {
            let reason = match (fact.why.as_str(), why) {
                ("memory", Why::Memory(offset)) => fact.offset.is_none() || (site.is_some() && offset == fact.offset),
                ("caller", Why::Caller) | ("computed", Why::Computed) | ("returned", Why::Returned) => true,
                _ => false,
            };
            let exports = |name: &String| summary.exports.iter().any(|export| export.name == *name);
            let exported = || summary.exports.iter().any(|export| export.function == function);
            let structured = |wanted: &Vec<i64>| site.is_some_and(|site| site.structure == *wanted);
            let is_followed = || {
                let at = site.map_or(u32::MAX, |site| site.address);
                let mut next = summary.sites.iter().filter(|site| site.address > at);
                fact.before.iter().all(|call| {
                    let numbers = next.next().map_or(&[][..], |site| &site.slice.numbers);
                    matches!(numbers, [(number, _)] if name::number(summary.machine, call) == Some(*number))
                })
            };
            let known = [&fact.exports, &fact.function, &fact.section];
            reason
                && !(fact.inner && exported())
                && (fact.structure.is_some() || known.iter().any(|name| name.is_some()))
                && fact.structure.as_ref().is_none_or(structured)
                && is_followed()
                && fact.section.as_ref().is_none_or(|name| summary.sections.contains(name))
                && fact.exports.as_ref().is_none_or(exports)
                && fact
                    .function
                    .as_ref()
                    .is_none_or(|name| summary.name(function) == *name)
        })
    }

    /// The symbols that a file is known to look up.
    pub fn lookup(&self, summary: &Summary) -> Option<&Lookup> {
        self.lookup
            .iter()
            .find(|fact| summary.exports.iter().any(|export| export.name == fact.exports))
    }

    /// The functions of a loader that it finds by their names.
    pub fn stages(&self, summary: &Summary) -> impl Iterator<Item = u32> {
        let known = |stage: &&Stage| summary.exports.iter().any(|export| export.name == stage.exports);
        let stage = self.stage.iter().find(known);
        summary
            .exports
            .iter()
            .filter(move |export| stage.is_some_and(|stage| stage.names.contains(&export.name)))
            .map(|export| export.function)
    }

    /// What never happens in a build.
    pub fn cuts(&self, build_id: Option<&str>) -> impl Iterator<Item = &Cut> {
        self.cut
            .iter()
            .filter(move |cut| Some(cut.build_id.as_str()) == build_id)
    }
}

/// An object that holds pointers to code: name, address, size in bytes.
pub(super) type DataObject = (String, u32, u32);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Build {
    build_id: String,
    #[cfg_attr(not(test), expect(dead_code, reason = "for reviewers"))]
    package: String,
    objects: Vec<DataObject>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Builds {
    build: Vec<Build>,
}

static BUILDS: LazyLock<Builds> = LazyLock::new(|| toml::from_str(OBJECTS).unwrap_or_default());

/// The objects of a build, sorted by address; none of a build that is not known.
pub(super) fn objects(build_id: &str) -> &'static [DataObject] {
    BUILDS
        .build
        .iter()
        .find(|build| build.build_id == build_id)
        .map_or(&[], |build| &build.objects)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_facts_are_readable_and_every_one_has_its_reason() {
        let facts: Facts = toml::from_str(TEXT).unwrap();
        let mut reasons: Vec<&str> = facts.wrapper.iter().map(|fact| fact.reason.as_str()).collect();
        reasons.extend(facts.always.iter().map(|fact| fact.reason.as_str()));
        reasons.extend(facts.site.iter().map(|fact| fact.reason.as_str()));
        reasons.extend(facts.lookup.iter().map(|fact| fact.reason.as_str()));
        reasons.extend(facts.stage.iter().map(|fact| fact.reason.as_str()));
        reasons.extend(facts.cut.iter().map(|fact| fact.reason.as_str()));
        assert!(facts.cut.iter().all(|cut| cut.build_id.len() == 40
            && !cut.package.is_empty()
            && cut.to.is_some() == cut.sites.is_empty()));
        let builds: Builds = toml::from_str(OBJECTS).unwrap();
        assert!(
            builds
                .build
                .iter()
                .all(|build| !build.package.is_empty() && build.objects.is_sorted_by_key(|object| object.1))
        );
        assert!(reasons.len() > 5);
        assert!(reasons.iter().all(|reason| reason.len() > 20), "{reasons:?}");
    }
}
