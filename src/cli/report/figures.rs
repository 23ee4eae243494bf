//! Image against view in numbers, each with the list behind it.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use crate::admission::{Name, NameKind, Package, Survey};
use crate::policy::glob;

const TOOLS: &str = include_str!("../../../config/report/tools.toml");

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tools {
    kind: Vec<ToolKind>,
}

/// A kind of program that is recognised by its name.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ToolKind {
    name: String,
    reason: String,
    programs: Vec<String>,
}

/// The kinds in the order of the file. It is part of the program: a test reads it.
static TOOL_KINDS: LazyLock<Vec<ToolKind>> =
    LazyLock::new(|| toml::from_str::<Tools>(TOOLS).map_or_else(|_| Vec::new(), |tools| tools.kind));

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Unit {
    /// Things, each in a list.
    Count,
    /// Bytes of the files, which are listed already.
    Bytes,
}

/// One number of the image and of the view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Figure {
    /// What it counts.
    pub(super) name: String,
    /// What counts as that.
    pub(super) meaning: String,
    pub(super) unit: Unit,
    /// In the image.
    pub(super) image: u64,
    /// Of these, in the view.
    pub(super) visible: u64,
    /// Which ones the view shows.
    pub(super) shown: Vec<String>,
    /// Which ones it hides.
    pub(super) hidden: Vec<String>,
}

impl Figure {
    /// Share of the image that is hidden in percent, rounded down: 100 means all.
    pub(super) fn percent(&self) -> Option<u64> {
        (self.image.saturating_sub(self.visible) * 100).checked_div(self.image)
    }

    fn of<'s>(name: &str, meaning: &str, all: impl Iterator<Item = (String, bool)> + 's) -> Self {
        let (shown, hidden): (Vec<_>, Vec<_>) = all.partition(|(_, visible)| *visible);
        let names = |list: Vec<(String, bool)>| list.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        Self {
            name: name.to_owned(),
            meaning: meaning.to_owned(),
            unit: Unit::Count,
            image: (shown.len() + hidden.len()) as u64,
            visible: shown.len() as u64,
            shown: names(shown),
            hidden: names(hidden),
        }
    }
}

/// All numbers of a survey, in the order in which they are read.
pub(super) fn figures(survey: &Survey) -> Vec<Figure> {
    let count = |name: &str, meaning: &str, counts: &dyn Fn(&Name) -> bool| {
        let found = survey.names.iter().filter(|name| counts(name));
        Figure::of(name, meaning, found.map(|name| (name.path.clone(), name.visible)))
    };
    let is_file = |name: &Name| name.kind == NameKind::File;
    let files = count("files", "regular files", &is_file);
    let sum = |visible: bool| {
        let files = survey.names.iter().filter(|name| !visible || name.visible);
        files.map(|name| name.bytes).sum()
    };
    let bytes = Figure {
        name: "bytes".to_owned(),
        meaning: "bytes of these files".to_owned(),
        unit: Unit::Bytes,
        image: sum(false),
        visible: sum(true),
        shown: Vec::new(),
        hidden: Vec::new(),
    };
    let with_files = survey.packages.iter().filter(|package| package.files.0 > 0);
    let packages = Figure::of(
        "packages",
        "packages with a file",
        with_files.map(|package| (title(package), !package.is_hidden())),
    );
    let mut figures = vec![
        files,
        bytes,
        packages,
        count("executables", "programs, libraries and scripts", &|name| {
            is_file(name) && name.executable
        }),
        count(
            "set-uid and set-gid",
            "executables that change the user or group",
            &|name| name.set_id,
        ),
        count("file capabilities", "executables that gain capabilities", &|name| {
            name.capability
        }),
    ];
    for kind in TOOL_KINDS.iter() {
        figures.push(count(&kind.name, &kind.reason, &|name| {
            let last = name.path.rsplit('/').next().unwrap_or_default();
            name.executable && kind.programs.iter().any(|pattern| glob::component(pattern, last))
        }));
    }
    figures
}

/// A package for people.
pub(super) fn title(package: &Package) -> String {
    format!("{} {}", package.name, package.version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_names_is_read_whole() {
        let tools: Tools = toml::from_str(TOOLS).unwrap();
        let names: Vec<&str> = tools.kind.iter().map(|kind| kind.name.as_str()).collect();
        assert_eq!(names, ["shells", "interpreters", "package managers", "network tools"]);
        for kind in &tools.kind {
            assert!(!kind.reason.is_empty() && !kind.programs.is_empty(), "{}", kind.name);
            assert!(
                kind.programs.iter().all(|pattern| glob::is_sound(pattern)),
                "{}",
                kind.name
            );
        }
        assert_eq!(TOOL_KINDS.len(), tools.kind.len());
    }

    fn name(path: &str, kind: NameKind, visible: bool) -> Name {
        Name {
            path: path.to_owned(),
            kind,
            bytes: 10,
            visible,
            executable: true,
            set_id: path.ends_with("su"),
            capability: path.ends_with("ping"),
        }
    }

    #[test]
    fn each_number_has_its_list() {
        let mut data = name("/usr/share/bash", NameKind::File, true);
        data.executable = false;
        let survey = Survey {
            names: vec![
                name("/bin/bash", NameKind::File, false),
                Name {
                    bytes: 0,
                    ..name("/bin/sh", NameKind::Link, true)
                },
                name("/bin/su", NameKind::File, false),
                name("/usr/bin/ping", NameKind::File, false),
                name("/usr/bin/python3.11", NameKind::File, true),
                data,
            ],
            packages: vec![
                Package {
                    name: "bash".to_owned(),
                    version: "5".to_owned(),
                    purl: "pkg:deb/debian/bash@5".to_owned(),
                    listed: None,
                    files: (1, 0),
                },
                Package {
                    name: "empty".to_owned(),
                    version: "1".to_owned(),
                    purl: "pkg:deb/debian/empty@1".to_owned(),
                    listed: None,
                    files: (0, 0),
                },
            ],
        };
        let lines: Vec<String> = figures(&survey)
            .iter()
            .map(|figure| {
                format!(
                    "{}: {} of {} ({:?} %) +{:?} -{:?}",
                    figure.name,
                    figure.visible,
                    figure.image,
                    figure.percent(),
                    figure.shown,
                    figure.hidden
                )
            })
            .collect();
        insta::assert_snapshot!(lines.join("\n"), @r#"
        files: 2 of 5 (Some(60) %) +["/usr/bin/python3.11", "/usr/share/bash"] -["/bin/bash", "/bin/su", "/usr/bin/ping"]
        bytes: 20 of 50 (Some(60) %) +[] -[]
        packages: 0 of 1 (Some(100) %) +[] -["bash 5"]
        executables: 1 of 4 (Some(75) %) +["/usr/bin/python3.11"] -["/bin/bash", "/bin/su", "/usr/bin/ping"]
        set-uid and set-gid: 0 of 1 (Some(100) %) +[] -["/bin/su"]
        file capabilities: 0 of 1 (Some(100) %) +[] -["/usr/bin/ping"]
        shells: 1 of 2 (Some(50) %) +["/bin/sh"] -["/bin/bash"]
        interpreters: 1 of 1 (Some(0) %) +["/usr/bin/python3.11"] -[]
        package managers: 0 of 0 (None %) +[] -[]
        network tools: 0 of 1 (Some(100) %) +[] -["/usr/bin/ping"]
        "#);
    }
}
