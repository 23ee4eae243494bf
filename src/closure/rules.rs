//! The rules of `config/closure/*.toml`, and what an administrator adds to them in `/etc/assay/closure.d`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use super::pattern;
use crate::diagnostic::strict::{Reader, Table};
use crate::diagnostic::{self, Code, Diagnostic, Severity, Source};

const BUILTIN: &[(&str, &str)] = &[
    (
        "config/closure/commands.toml",
        include_str!("../../config/closure/commands.toml"),
    ),
    (
        "config/closure/files.toml",
        include_str!("../../config/closure/files.toml"),
    ),
    (
        "config/closure/hidden.toml",
        include_str!("../../config/closure/hidden.toml"),
    ),
    (
        "config/closure/languages.toml",
        include_str!("../../config/closure/languages.toml"),
    ),
    (
        "config/closure/libraries.toml",
        include_str!("../../config/closure/libraries.toml"),
    ),
    (
        "config/closure/programs.toml",
        include_str!("../../config/closure/programs.toml"),
    ),
];

const TOP_KEYS: &[&str] = &["rule", "language", "wrapper", "shell", "unread", "served", "hide"];
const RULE_KEYS: &[&str] = &[
    "name",
    "reason",
    "reached",
    "imports",
    "keep",
    "programs",
    "run",
    "libraries",
    "configuration",
    "mentions",
    "own",
    "commanded",
    "known",
];
const LANGUAGE_KEYS: &[&str] = &[
    "name",
    "interpreters",
    "modules",
    "programs",
    "library",
    "tests",
    "sources",
    "calls",
    "shell",
    "numbers",
    "reviewed",
    "foreign",
];
const HIDE_KEYS: &[&str] = &["name", "reason", "paths", "packages_too"];

/// A rule: where one of `reached` is kept or, if it has `imports`, an ELF file imports one of those functions, what
/// it names is kept too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) name: String,
    pub(super) reason: String,
    /// Patterns of programs, libraries and scripts; none: always.
    pub(super) reached: Vec<String>,
    pub(super) imports: Vec<String>,
    /// Patterns of data and libraries.
    pub(super) keep: Vec<String>,
    /// Patterns of anything.
    pub(super) programs: Vec<String>,
    /// Commands, found as a shell finds them.
    pub(super) run: Vec<String>,
    /// Libraries, found as the loader finds them.
    pub(super) libraries: Vec<String>,
    /// Patterns of files that are searched for names of programs.
    pub(super) configuration: Vec<String>,
    /// Patterns of files whose imports say nothing: modules that are the library's own and only pass on what they are told.
    pub(super) own: Vec<String>,
    /// Words of which one of these files, or one that the environment names, must have one outside of its comments.
    pub(super) mentions: Vec<String>,
    /// Nobody starts `reached` but an argument, a script or the policy: that a text in a program names it says nothing.
    pub(super) commanded: bool,
    /// `reached` starts nothing beside what is found in it and what the rule names, whatever could not be followed.
    pub(super) known: bool,
}

/// An interpreter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Language {
    pub(super) name: String,
    pub(super) interpreters: Vec<String>,
    pub(super) modules: Vec<String>,
    pub(super) programs: Vec<String>,
    /// Modules that are the language's own, and are not searched.
    pub(super) library: Vec<String>,
    /// Tests of modules, which nobody imports: they are not searched.
    pub(super) tests: Vec<String>,
    pub(super) sources: Vec<String>,
    pub(super) calls: Vec<String>,
    pub(super) shell: Vec<String>,
    /// Its code calls functions of libraries by names that lie in files that are no ELF files.
    pub(super) foreign: bool,
    /// What a source has that makes system calls by number, or calls functions of libraries by name.
    pub(super) numbers: Vec<String>,
    /// Sources of which a reviewer has found that they make no further calls all the same.
    pub(super) reviewed: Vec<String>,
}

/// Data that is left out unless something names it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Hide {
    pub(super) name: String,
    pub(super) reason: String,
    pub(super) paths: Vec<String>,
    /// At level `packages` too.
    pub(super) packages_too: bool,
}

/// All rules that a closure is made by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    pub(super) rules: Vec<Rule>,
    pub(super) languages: Vec<Language>,
    pub(super) wrappers: BTreeSet<String>,
    pub(super) shells: BTreeSet<String>,
    /// Shells of languages that are not read.
    pub(super) unread: BTreeSet<String>,
    /// Words before a directory that a server hands out.
    pub(super) served: BTreeSet<String>,
    pub(super) hide: Vec<Hide>,
    /// Functions that some rule asks for.
    pub(super) imports: BTreeSet<String>,
}

impl Rules {
    /// Whether a rule says by which function or which word of a configuration a file is loaded. That its package is
    /// reached does not load it then.
    pub(super) fn say_what_loads(&self, path: &str) -> bool {
        let mut rules = self
            .rules
            .iter()
            .filter(|rule| !rule.imports.is_empty() || !rule.mentions.is_empty());
        rules.any(|rule| rule.keep.iter().any(|wanted| pattern::path(wanted, path)))
    }

    /// The rules that Assay brings along.
    ///
    /// # Errors
    /// What is wrong with them; a test sees to it that nothing is.
    pub fn builtin() -> Result<Self, Vec<Diagnostic>> {
        let mut rules = Self::default();
        let mut faults = Vec::new();
        for (path, text) in BUILTIN {
            let source = Arc::new(Source {
                path: path.into(),
                text: (*text).to_owned(),
            });
            rules.parse(&source, &mut faults);
        }
        rules.complete(faults)
    }

    /// An administrator's files in folders (their `*.toml` in the order of their names) or files, each with its path and
    /// its text. A place that does not exist has none.
    ///
    /// # Errors
    /// What cannot be read safely.
    pub fn files(places: &[PathBuf]) -> Result<Vec<(String, String)>, Vec<Diagnostic>> {
        let mut faults = Vec::new();
        let files = diagnostic::sources(&diagnostic::present(places), &mut faults)
            .into_iter()
            .map(|source| (source.path.display().to_string(), source.text.clone()))
            .collect();
        if faults.is_empty() { Ok(files) } else { Err(faults) }
    }

    /// The built-in rules and those of an administrator's files, each with its path and its text.
    ///
    /// # Errors
    /// Everything that is wrong with the files.
    pub fn with(files: &[(String, String)]) -> Result<Self, Vec<Diagnostic>> {
        let mut rules = Self::builtin()?;
        let mut faults = Vec::new();
        for (path, text) in files {
            let source = Arc::new(Source {
                path: path.into(),
                text: text.clone(),
            });
            rules.parse(&source, &mut faults);
        }
        rules.complete(faults)
    }

    /// Whether a rule says all that a script starts which could not be followed.
    pub(super) fn know(&self, script: &str) -> bool {
        let mut rules = self.rules.iter().filter(|rule| rule.known);
        rules.any(|rule| rule.reached.iter().any(|wanted| pattern::path(wanted, script)))
    }

    fn complete(mut self, faults: Vec<Diagnostic>) -> Result<Self, Vec<Diagnostic>> {
        if faults.iter().any(|fault| fault.severity == Severity::Error) {
            return Err(faults);
        }
        self.imports = self
            .rules
            .iter()
            .flat_map(|rule| rule.imports.iter().cloned())
            .collect();
        Ok(self)
    }

    fn parse(&mut self, source: &Arc<Source>, faults: &mut Vec<Diagnostic>) {
        let (mut reader, mut top) = match Reader::new(source, "a file of closure rules") {
            Ok(read) => read,
            Err(syntax) => {
                faults.extend(syntax);
                return;
            }
        };
        for mut table in reader.tables(&mut top, "rule", "[[rule]]") {
            let rule = parse_rule(&mut reader, &mut table);
            self.rules.push(rule);
        }
        for mut table in reader.tables(&mut top, "language", "[[language]]") {
            let language = parse_language(&mut reader, &mut table);
            self.languages.push(language);
        }
        for mut table in reader.tables(&mut top, "hide", "[[hide]]") {
            let hide = parse_hide(&mut reader, &mut table);
            self.hide.push(hide);
        }
        for mut table in reader.tables(&mut top, "wrapper", "[[wrapper]]") {
            self.wrappers.extend(texts(&mut reader, &mut table, "commands"));
            reader.finish(&table, &["commands"], &[]);
        }
        for mut table in reader.tables(&mut top, "shell", "[[shell]]") {
            self.shells.extend(texts(&mut reader, &mut table, "commands"));
            reader.finish(&table, &["commands"], &[]);
        }
        for mut table in reader.tables(&mut top, "unread", "[[unread]]") {
            self.unread.extend(texts(&mut reader, &mut table, "commands"));
            reader.finish(&table, &["commands"], &[]);
        }
        for mut table in reader.tables(&mut top, "served", "[[served]]") {
            self.served.extend(texts(&mut reader, &mut table, "words"));
            reader.finish(&table, &["words"], &[]);
        }
        reader.finish(&top, TOP_KEYS, &[]);
        faults.extend(reader.into_faults());
    }
}

fn texts(reader: &mut Reader<'_>, table: &mut Table<'_>, key: &str) -> Vec<String> {
    reader
        .texts(table, key)
        .into_iter()
        .map(|text| text.into_inner())
        .collect()
}

fn required(reader: &mut Reader<'_>, table: &mut Table<'_>, key: &str) -> String {
    reader
        .required_text(table, key)
        .map(|text| text.into_inner())
        .unwrap_or_default()
}

/// Patterns of paths: absolute ones.
fn paths(reader: &mut Reader<'_>, table: &mut Table<'_>, key: &str) -> Vec<String> {
    let mut list = Vec::new();
    for text in reader.texts(table, key) {
        if text.get_ref().starts_with('/') {
            list.push(text.into_inner());
        } else {
            reader.fault(
                Code::PathNotAbsolute,
                text.span(),
                format!("`{}` in `{key}` does not begin with a slash", text.get_ref()),
                "",
                "write the whole path; `**` stands for any number of directories",
            );
        }
    }
    list
}

fn parse_rule(reader: &mut Reader<'_>, table: &mut Table<'_>) -> Rule {
    let rule = Rule {
        name: required(reader, table, "name"),
        reason: required(reader, table, "reason"),
        reached: texts(reader, table, "reached"),
        imports: texts(reader, table, "imports"),
        keep: paths(reader, table, "keep"),
        programs: paths(reader, table, "programs"),
        run: texts(reader, table, "run"),
        libraries: texts(reader, table, "libraries"),
        configuration: paths(reader, table, "configuration"),
        mentions: texts(reader, table, "mentions"),
        own: paths(reader, table, "own"),
        commanded: reader.flag(table, "commanded").is_some_and(|flag| *flag.get_ref()),
        known: reader.flag(table, "known").is_some_and(|flag| *flag.get_ref()),
    };
    if rule.keep.is_empty()
        && rule.programs.is_empty()
        && rule.run.is_empty()
        && rule.libraries.is_empty()
        && rule.configuration.is_empty()
    {
        reader.fault(
            Code::Empty,
            table.span(),
            "[[rule]] keeps nothing".to_owned(),
            "",
            "add `keep`, `programs`, `run`, `libraries` or `configuration`",
        );
    }
    reader.finish(table, RULE_KEYS, &[]);
    rule
}

fn parse_language(reader: &mut Reader<'_>, table: &mut Table<'_>) -> Language {
    let language = Language {
        name: required(reader, table, "name"),
        interpreters: texts(reader, table, "interpreters"),
        modules: paths(reader, table, "modules"),
        programs: paths(reader, table, "programs"),
        library: paths(reader, table, "library"),
        tests: paths(reader, table, "tests"),
        sources: texts(reader, table, "sources"),
        calls: texts(reader, table, "calls"),
        shell: texts(reader, table, "shell"),
        numbers: texts(reader, table, "numbers"),
        reviewed: paths(reader, table, "reviewed"),
        foreign: reader.flag(table, "foreign").is_some_and(|flag| *flag.get_ref()),
    };
    if language.interpreters.is_empty() {
        reader.fault(
            Code::MissingKey,
            table.span(),
            "[[language]] has no `interpreters`".to_owned(),
            "",
            "name the programs that interpret it",
        );
    }
    reader.finish(table, LANGUAGE_KEYS, &[]);
    language
}

fn parse_hide(reader: &mut Reader<'_>, table: &mut Table<'_>) -> Hide {
    let hide = Hide {
        name: required(reader, table, "name"),
        reason: required(reader, table, "reason"),
        paths: paths(reader, table, "paths"),
        packages_too: reader.flag(table, "packages_too").is_some_and(|flag| *flag.get_ref()),
    };
    if hide.paths.is_empty() {
        reader.fault(
            Code::MissingKey,
            table.span(),
            "[[hide]] has no `paths`".to_owned(),
            "",
            "name what is left out",
        );
    }
    reader.finish(table, HIDE_KEYS, &[]);
    hide
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_that_come_along_are_right() {
        let rules = Rules::builtin().unwrap_or_else(|faults| panic!("{faults:?}"));
        assert!(rules.rules.len() > 30 && rules.languages.len() > 5 && !rules.hide.is_empty());
        assert!(rules.shells.contains("sh") && rules.served.contains("alias") && rules.wrappers.contains("gosu"));
    }

    fn load(path: &std::path::Path) -> Result<Rules, Vec<Diagnostic>> {
        Rules::with(&Rules::files(&[path.to_owned()])?)
    }

    #[test]
    fn an_administrators_rules_are_added_and_read_strictly() {
        let folder = tempfile::tempdir().unwrap();
        let none = load(&folder.path().join("none")).unwrap();
        assert_eq!(none, Rules::builtin().unwrap());
        let file = folder.path().join("a.toml");
        std::fs::write(
            &file,
            "[[rule]]\nname='x'\nreason='y'\nreached=['z']\nkeep=['/data/**']\n",
        )
        .unwrap();
        assert_eq!(load(&file).unwrap().rules.len(), none.rules.len() + 1);
        std::fs::write(
            &file,
            "[[rule]]\nname='x'\nkept=['/data/**']\nkeep=['data']\n[[hide]]\nname='a'\nreason='b'",
        )
        .unwrap();
        let faults: Vec<_> = load(&file)
            .unwrap_err()
            .iter()
            .map(|fault| fault.code.as_str())
            .collect();
        assert_eq!(
            faults,
            [
                "missing-key",
                "empty",
                "unknown-key",
                "path-not-absolute",
                "missing-key"
            ]
        );
    }
}
