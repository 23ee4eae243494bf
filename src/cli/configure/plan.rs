//! Which files to write so that this node's containerd gets a handler of Assay and nothing else changes.
//!
//! A drop-in is tried first: containerd is asked what it would read with it. Releases before 2.0 replace a whole section
//! by that of a drop-in, so that a handler alone would take the pause image and every other handler away; there, and
//! where nothing is imported, the handler goes into the administrator's own file, comments and all.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use toml::{Table, Value};
use toml_edit::{DocumentMut, TomlError};

use super::handler::{self, ASSAY, Handler, NotTable, RUNC, Reading, SHIM, Schema, only_adds};
use super::node::{Import, Keeper, MICROK8S_TEMPLATE, Node, NodeError, expand, read_text};
use super::undo::Record;
use crate::store;

/// First line of every file that is written whole.
pub const HEADER: &str = "# Written by `assay configure`. `assay configure --uninstall` takes it away again.\n";

/// From this release on containerd reads `runtime_path`; older ones ignore it without a word.
pub const FIRST_WITH_PATH: (u32, u32, u32) = (1, 6, 21);
/// The oldest release of containerd that Assay is tested with.
pub const OLDEST: (u32, u32, u32) = (1, 6, 20);

/// Folder that k0s reads.
const K0S_FOLDER: &str = "containerd.d";

/// A file to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Where.
    pub path: PathBuf,
    /// What it said; `None` when there was none.
    pub before: Option<String>,
    /// What it will say.
    pub after: String,
    /// What for.
    pub what: String,
}

/// What to write.
#[derive(Debug, Default)]
pub struct Plan {
    /// Files, in the order in which to write them.
    pub changes: Vec<Change>,
    /// What a person has to know.
    pub notes: Vec<String>,
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// Name of the handler.
    pub name: &'a str,
    /// Whether pods that name no handler get it.
    pub is_default: bool,
    /// The shim of Assay.
    pub shim: &'a Path,
    /// Assay's own configuration, where containerd's shims look for it.
    pub assay_config: &'a Path,
}

/// Why there is nothing to write.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// containerd's files cannot be known.
    #[error("{0}")]
    Node(#[from] NodeError),
    /// Too old.
    #[error("containerd {0} is older than 1.6.20, the oldest that Assay supports")]
    TooOld(String),
    /// Not a name of a handler.
    #[error("{0:?} cannot be the name of a handler")]
    Name(String),
    /// The name is taken.
    #[error("containerd has a handler {name} already, and it is not Assay's: {is}")]
    Taken {
        /// The name.
        name: String,
        /// What it is.
        is: String,
    },
    /// No handler to follow.
    #[error("containerd has no handler for {RUNC}, after which Assay's could be modelled")]
    NoModel,
    /// The shim is not there, or not safe.
    #[error("{path}: {why}", path = path.display())]
    Shim {
        /// Where it should be.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// containerd could not find the shim.
    #[error("containerd {release} reads no runtime_path, and its PATH ({path}) lacks {folder}", folder = folder.display())]
    NotInPath {
        /// containerd's release.
        release: String,
        /// Its `PATH`.
        path: String,
        /// The folder of the shim.
        folder: PathBuf,
    },
    /// A file in a version of long ago.
    #[error("{path} is of configuration version {version}, and Assay writes 2, 3 and 4", path = path.display())]
    Schema {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: String,
    },
    /// A file that cannot be edited.
    #[error("{path} cannot be edited: {why}", path = path.display())]
    Edit {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// Another program's file is where the drop-in would go.
    #[error("{path} is there already, and `assay configure` did not write it", path = path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// Every way changes something else too.
    #[error("no way to add a handler without changing something else was found: {}", .0.join("; "))]
    NoWay(Vec<String>),
    /// k3s and RKE2 have a setting of their own for that.
    #[error("the default handler of k3s and RKE2 is not set in containerd's template")]
    RancherDefault,
    /// A state file of Assay's.
    #[error("{0}")]
    State(#[from] store::Error),
}

impl PlanError {
    /// What to do next.
    #[must_use]
    pub fn fix(&self) -> String {
        match self {
            Self::Node(error) => error.fix(),
            Self::TooOld(_) => "upgrade containerd".into(),
            Self::Name(_) => {
                "1 to 63 lower-case letters, digits and `-`, with a letter or digit at both ends, as in a RuntimeClass"
                    .into()
            }
            Self::Taken { .. } => "choose another with --name, or take that handler out first".into(),
            Self::NoModel => "add a handler for runc to containerd's configuration first".into(),
            Self::Shim { .. } => {
                format!("install assay and {SHIM} into one folder, /usr/local/bin for example, owned by root")
            }
            Self::NotInPath { folder, .. } => format!(
                "move assay and {SHIM} from {} to a folder of that PATH, /usr/local/bin for example, or upgrade \
                 containerd",
                folder.display()
            ),
            Self::Schema { path, .. } => {
                format!("write it anew: containerd --config {} config migrate", path.display())
            }
            Self::Edit { path, .. } => format!("mend {}, then run this again", path.display()),
            Self::Foreign { path } => format!("move {} away", path.display()),
            Self::NoWay(_) => "see what containerd makes of its files with: containerd config dump".into(),
            Self::RancherDefault => {
                "leave --set-as-default out, and set `default-runtime` in /etc/rancher/k3s/config.yaml (or rke2)".into()
            }
            Self::State(_) => "mend what it says, and run this again".into(),
        }
    }
}

/// containerd's files without what an earlier run added for the same name, and what containerd makes of them.
#[derive(Debug)]
pub struct Sources {
    /// containerd's own file; `None` when there is none.
    pub main: Option<String>,
    /// What it says where there is none: the version, and what this containerd imports by default.
    blank: String,
    patterns: Vec<String>,
    imports: Vec<Import>,
    /// What containerd makes of them.
    pub before: Table,
    schema: Schema,
}

/// Reads containerd's files.
///
/// # Errors
/// See [`PlanError`].
pub fn sources(node: &Node, name: &str, record: Option<&Record>) -> Result<Sources, PlanError> {
    let main = match (node.text()?, record.and_then(|record| record.of(&node.config))) {
        (Some(now), Some(written)) if written.after == now => written.before.clone(),
        (now, _) => now
            .map(|text| without(&text, name, &node.config, default_before(record, &node.config)))
            .transpose()?,
    };
    let edited = |why: TomlError| PlanError::Edit {
        path: node.config.clone(),
        why: why.to_string(),
    };
    let blank = match &main {
        Some(_) => String::new(),
        None => node.defaults()?,
    };
    let text = main.as_deref().unwrap_or(&blank);
    let document: DocumentMut = text.parse().map_err(edited)?;
    let version = document.get("version").and_then(toml_edit::Item::as_integer);
    let version = match version {
        Some(version @ 2..=4) => version,
        // A file without any key is read in the newest version.
        None if document.as_table().is_empty() => node.defaults()?.parse::<DocumentMut>().map_err(edited)?["version"]
            .as_integer()
            .unwrap_or(2),
        other => {
            return Err(PlanError::Schema {
                path: node.config.clone(),
                version: other.map_or_else(|| "1 (it names none)".to_owned(), |version| version.to_string()),
            });
        }
    };
    let patterns: Vec<String> = document
        .get("imports")
        .and_then(toml_edit::Item::as_array)
        .into_iter()
        .flatten()
        .filter_map(|pattern| pattern.as_str().map(str::to_owned))
        .collect();
    let base = node.config.parent().unwrap_or(Path::new("/"));
    let ours = drop_in_name(name);
    let imports: Vec<Import> = expand(&patterns, base)
        .into_iter()
        .filter(|path| Path::new(path).file_name().is_none_or(|file| file != ours.as_str()))
        .map(Import::File)
        .collect();
    let before = node.reads(text, &imports)?;
    Ok(Sources {
        before,
        imports,
        patterns,
        schema: Schema { version },
        main,
        blank,
    })
}

fn default_before<'a>(record: Option<&'a Record>, path: &Path) -> Option<&'a str> {
    record?.of(path)?.before.as_deref()
}

/// A text without the handler `name`; `earlier` is what it was before there was one.
fn without(text: &str, name: &str, path: &Path, earlier: Option<&str>) -> Result<String, PlanError> {
    let mut document: DocumentMut = text.parse().map_err(|error: TomlError| PlanError::Edit {
        path: path.to_owned(),
        why: error.to_string(),
    })?;
    let default = earlier.and_then(handler::default_of);
    Ok(if handler::remove(&mut document, name, default.as_deref()) {
        document.to_string()
    } else {
        text.to_owned()
    })
}

/// Plans what a wish needs.
///
/// # Errors
/// See [`PlanError`].
pub fn plan(node: &Node, wish: Wish<'_>, sources: &Sources, record: Option<&Record>) -> Result<Plan, PlanError> {
    let mut plan = Plan::default();
    check_name(wish.name)?;
    if node.release.number < OLDEST {
        return Err(PlanError::TooOld(node.release.text.clone()));
    }
    check_shim(wish.shim)?;
    let reading = Reading(&sources.before);
    if let Some(taken) = reading.handler(wish.name) {
        let text = |key: &str| taken.get(key).and_then(Value::as_str).unwrap_or_default();
        return Err(PlanError::Taken {
            name: wish.name.to_owned(),
            is: [text("runtime_type"), text("runtime_path")].join(" ").trim().to_owned(),
        });
    }
    let mut handler = Handler::like(wish.name, model(reading)?);
    handler.is_default = wish.is_default;
    if node.release.number < FIRST_WITH_PATH {
        handler.runtime_type = ASSAY;
        by_name(node, wish, &mut handler, record, &mut plan)?;
    } else {
        handler.runtime_path = Some(wish.shim.display().to_string());
    }

    let mut why_not = Vec::new();
    let found = match node.keeper {
        Keeper::K0s => k0s(node, &handler, sources.schema)?,
        Keeper::Administrator => match drop_in(node, &handler, sources, &mut why_not)? {
            Some(change) => change,
            None => edit(node, &handler, sources, &node.config, &mut why_not)?,
        },
        Keeper::Rancher => match drop_in(node, &handler, sources, &mut why_not)? {
            Some(change) => change,
            None => template(node, &handler, sources, &mut why_not)?,
        },
        Keeper::MicroK8s => {
            let path = node.config.with_file_name(MICROK8S_TEMPLATE);
            edit(node, &handler, sources, &path, &mut why_not)?
        }
    };
    if node.keeper == Keeper::K0s {
        plan.notes
            .push("k0s merges its folder itself, at its next start: `assay doctor` says whether it did".to_owned());
    }
    plan.changes.insert(0, found);
    Ok(plan)
}

fn check_name(name: &str) -> Result<(), PlanError> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_label = (1..=63).contains(&name.len())
        && name.chars().all(|c| plain(c) || c == '-')
        && name.starts_with(plain)
        && name.ends_with(plain);
    is_label.then_some(()).ok_or_else(|| PlanError::Name(name.to_owned()))
}

/// Whether containerd may be told to run this program as root.
///
/// # Errors
/// What is wrong with it.
pub fn check_shim(path: &Path) -> Result<(), PlanError> {
    let wrong = |why: String| PlanError::Shim {
        path: path.to_owned(),
        why,
    };
    let found = fs::symlink_metadata(path).map_err(|error| wrong(format!("the shim is not there: {error}")))?;
    if !found.is_file() {
        return Err(wrong("the shim is not a plain file".to_owned()));
    }
    for here in path.ancestors() {
        let found = fs::metadata(here).map_err(|error| wrong(error.to_string()))?;
        let (mode, owner) = (found.mode() & 0o7777, found.uid());
        if owner != 0 && owner != rustix::process::geteuid().as_raw() {
            return Err(wrong(format!(
                "{} belongs to user {owner}, not to root",
                here.display()
            )));
        }
        // In a sticky folder nobody can replace what belongs to someone else.
        if mode & 0o022 != 0 && mode & 0o1000 == 0 {
            return Err(wrong(format!(
                "{} can be written by others (mode {mode:04o})",
                here.display()
            )));
        }
    }
    Ok(())
}

/// The handler after which Assay's is modelled: the default, where it is runc's, else the first that is.
fn model(reading: Reading<'_>) -> Result<&Table, PlanError> {
    let is_runc = |handler: &Table| {
        let text = |key: &str| handler.get(key).and_then(Value::as_str).unwrap_or_default();
        text("runtime_type") == RUNC && !handler::is_assay(text("runtime_type"), text("runtime_path"))
    };
    reading
        .default()
        .and_then(|name| reading.handler(name))
        .filter(|handler| is_runc(handler))
        .or_else(|| {
            let mut handlers = reading.handlers();
            handlers
                .find(|(_, handler)| is_runc(handler))
                .map(|(_, handler)| handler)
        })
        .ok_or(PlanError::NoModel)
}

/// What containerd 1.6.20 needs: it finds the shim by its name only, and hands it options only in a file.
fn by_name(
    node: &Node,
    wish: Wish<'_>,
    handler: &mut Handler,
    record: Option<&Record>,
    plan: &mut Plan,
) -> Result<(), PlanError> {
    let folder = wish.shim.parent().unwrap_or(Path::new("/"));
    let path = node.environment.get(std::ffi::OsStr::new("PATH"));
    let is_found = path.is_some_and(|path| std::env::split_paths(path).any(|part| part == folder));
    if !is_found {
        return Err(PlanError::NotInPath {
            release: node.release.text.clone(),
            path: path.map_or_else(String::new, |path| path.to_string_lossy().into_owned()),
            folder: folder.to_owned(),
        });
    }
    let options = std::mem::take(&mut handler.options);
    if options.is_empty() {
        return Ok(());
    }
    let now = read_text(wish.assay_config)?;
    let before = match record.and_then(|record| record.of(wish.assay_config)) {
        Some(written) if Some(&written.after) == now.as_ref() => written.before.clone(),
        _ => now,
    };
    let mut document: DocumentMut = before
        .as_deref()
        .unwrap_or(HEADER)
        .parse()
        .map_err(|error: TomlError| PlanError::Edit {
            path: wish.assay_config.to_owned(),
            why: error.to_string(),
        })?;
    for (key, value) in &options {
        let text = value.to_string();
        let value: toml_edit::Value = text.parse().map_err(|error: TomlError| PlanError::Edit {
            path: wish.assay_config.to_owned(),
            why: error.to_string(),
        })?;
        document.insert(key, toml_edit::Item::Value(value));
    }
    let file = wish.assay_config.display().to_string();
    handler.options.insert("ConfigPath".to_owned(), Value::String(file));
    plan.changes.push(Change {
        path: wish.assay_config.to_owned(),
        before,
        after: document.to_string(),
        what: "the handler's options, which this containerd hands on only in a file".to_owned(),
    });
    Ok(())
}

/// File name of the drop-in of a handler.
#[must_use]
pub fn drop_in_name(name: &str) -> String {
    format!("50-assay-{name}.toml")
}

/// The drop-in, where containerd imports a folder and reads with it what it read before.
fn drop_in(
    node: &Node,
    handler: &Handler,
    sources: &Sources,
    why_not: &mut Vec<String>,
) -> Result<Option<Change>, PlanError> {
    let Some(main) = &sources.main else {
        return Ok(None);
    };
    let base = node.config.parent().unwrap_or(Path::new("/"));
    let folder = sources
        .patterns
        .iter()
        .map(|pattern| base.join(pattern))
        .find(|pattern| {
            let is_any = pattern.file_name().is_some_and(|name| name == "*.toml" || name == "*");
            is_any
                && !pattern
                    .parent()
                    .is_some_and(|folder| folder.to_string_lossy().contains('*'))
        });
    let Some(folder) = folder.as_deref().and_then(Path::parent) else {
        why_not.push(format!("{} imports no folder of drop-ins", node.config.display()));
        return Ok(None);
    };
    let path = folder.join(drop_in_name(&handler.name));
    let text = rendered(handler, sources.schema, &path)?;
    let mut imports = sources.imports.clone();
    // In the order of names, as containerd will read it.
    let at = imports
        .iter()
        .position(|import| matches!(import, Import::File(file) if Path::new(file) > path && Path::new(file).parent() == path.parent()))
        .unwrap_or(imports.len());
    imports.insert(at, Import::Text(text.clone()));
    let after = node.reads(main, &imports)?;
    match only_adds(handler, &sources.before, &after) {
        Ok(()) => own(path, text, "the handler, as a drop-in").map(Some),
        Err(key) => {
            why_not.push(format!(
                "with a drop-in, containerd {} would read {key} differently",
                node.release.text
            ));
            Ok(None)
        }
    }
}

fn rendered(handler: &Handler, schema: Schema, path: &Path) -> Result<String, PlanError> {
    handler.drop_in(schema, HEADER).map_err(|fault| not_table(&fault, path))
}

fn not_table(fault: &NotTable, path: &Path) -> PlanError {
    PlanError::Edit {
        path: path.to_owned(),
        why: fault.to_string(),
    }
}

/// A file that is Assay's alone.
fn own(path: PathBuf, after: String, what: &str) -> Result<Change, PlanError> {
    let before = read_text(&path)?;
    match before {
        Some(text) if !text.starts_with(HEADER) => Err(PlanError::Foreign { path }),
        _ => Ok(Change {
            path,
            before: None,
            after,
            what: what.to_owned(),
        }),
    }
}

fn k0s(node: &Node, handler: &Handler, schema: Schema) -> Result<Change, PlanError> {
    let path = node.config.with_file_name(K0S_FOLDER).join(drop_in_name(&handler.name));
    let text = rendered(handler, schema, &path)?;
    own(path, text, "the handler, which k0s merges")
}

/// The handler in a file of the administrator's.
fn edit(
    node: &Node,
    handler: &Handler,
    sources: &Sources,
    path: &Path,
    why_not: &mut Vec<String>,
) -> Result<Change, PlanError> {
    let into = |text: &str, path: &Path, keeps: bool| -> Result<String, PlanError> {
        let mut document: DocumentMut = text.parse().map_err(|error: TomlError| PlanError::Edit {
            path: path.to_owned(),
            why: error.to_string(),
        })?;
        handler
            .insert(&mut document, sources.schema)
            .and_then(|()| match keeps {
                true => handler::keep(&mut document, sources.schema, Reading(&sources.before).handlers()),
                false => Ok(()),
            })
            .map_err(|fault| not_table(&fault, path))?;
        Ok(document.to_string())
    };
    // As little as does: the handler alone, or with those that containerd would forget.
    let mut differs = String::new();
    let mut found = None;
    for keeps in [false, true] {
        let main = into(sources.main.as_deref().unwrap_or(&sources.blank), &node.config, keeps)?;
        let after = node.reads(&main, &sources.imports)?;
        match only_adds(handler, &sources.before, &after) {
            Ok(()) => {
                found = Some((main, keeps));
                break;
            }
            Err(key) => differs = key,
        }
    }
    let Some((main, keeps)) = found else {
        why_not.push(format!(
            "with the handler in its file, containerd would read {differs} differently"
        ));
        return Err(PlanError::NoWay(std::mem::take(why_not)));
    };
    let what = match why_not.first() {
        Some(why) => format!("the handler ({why})"),
        None => "the handler".to_owned(),
    };
    if path == node.config {
        return Ok(Change {
            path: path.to_owned(),
            before: sources.main.clone(),
            after: main,
            what,
        });
    }
    let before = read_text(path)?
        .map(|text| without(&text, &handler.name, path, None))
        .transpose()?;
    let after = into(before.as_deref().unwrap_or_default(), path, keeps)?;
    Ok(Change {
        path: path.to_owned(),
        before,
        after,
        what,
    })
}

/// Around what is added to a template, which is no TOML.
fn marks(name: &str) -> (String, String) {
    (
        format!("# >>> assay configure --name {name}\n"),
        format!("# <<< assay configure --name {name}\n"),
    )
}

/// A template without what was added for `name`.
#[must_use]
pub fn without_block(text: &str, name: &str) -> String {
    let (begin, end) = marks(name);
    match (text.find(&begin), text.find(&end)) {
        (Some(from), Some(to)) if from < to => {
            let mut kept = text.get(..from).unwrap_or_default().to_owned();
            kept.push_str(text.get(to + end.len()..).unwrap_or_default());
            kept
        }
        _ => text.to_owned(),
    }
}

/// The template from which k3s and RKE2 write containerd's file: that of the node, else one that extends their own.
fn template(node: &Node, handler: &Handler, sources: &Sources, why_not: &mut Vec<String>) -> Result<Change, PlanError> {
    if handler.is_default {
        return Err(PlanError::RancherDefault);
    }
    let path = node.config.with_file_name(if sources.schema.version == 2 {
        "config.toml.tmpl"
    } else {
        "config-v3.toml.tmpl"
    });
    let tables = rendered(handler, sources.schema, &path)?;
    let tables = tables.split_once("\n\n").map_or(tables.as_str(), |(_, tables)| tables);
    let (begin, end) = marks(&handler.name);
    let block = format!("{begin}{tables}{end}");
    // The file that was made from it: what is added comes to its end.
    let main = format!("{}\n{block}", sources.main.as_deref().unwrap_or_default());
    let after = node.reads(&main, &sources.imports)?;
    if let Err(key) = only_adds(handler, &sources.before, &after) {
        why_not.push(format!(
            "with the handler in its template, containerd would read {key} differently"
        ));
        return Err(PlanError::NoWay(std::mem::take(why_not)));
    }
    let before = read_text(&path)?
        .map(|text| without_block(&text, &handler.name))
        .filter(|text| text != BASE);
    let mut text = before.clone().unwrap_or_else(|| BASE.to_owned());
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(Change {
        path,
        before,
        after: format!("{text}{block}"),
        what: "the handler, in the template of containerd's file".to_owned(),
    })
}

/// A template that adds nothing to the one that is built into k3s and RKE2.
const BASE: &str = "{{ template \"base\" . }}\n";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn names_are_those_that_a_runtime_class_can_name() {
        for name in ["assay", "a", "assay-strict", "9"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in [
            "",
            "Assay",
            "a_b",
            "-a",
            "a-",
            "a b",
            "a/b",
            &"a".repeat(64),
            "a\"\n[x]",
        ] {
            assert!(matches!(check_name(name), Err(PlanError::Name(_))), "{name}");
        }
    }

    #[test]
    fn what_is_added_to_a_template_goes_again_and_nothing_else() {
        let (begin, end) = marks("assay");
        let text = format!("{{{{ template \"base\" . }}}}\n{begin}[x]\n{end}# mine\n");
        assert_eq!(without_block(&text, "assay"), "{{ template \"base\" . }}\n# mine\n");
        assert_eq!(without_block(&text, "other"), text);
    }

    #[test]
    fn a_shim_that_others_can_replace_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let shim = folder.path().join(SHIM);
        assert!(check_shim(&shim).unwrap_err().to_string().contains("is not there"));
        fs::write(&shim, "").unwrap();
        check_shim(&shim).unwrap();
        fs::set_permissions(&shim, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(check_shim(&shim).unwrap_err().to_string().contains("mode 0777"));
        fs::set_permissions(&shim, fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(check_shim(&shim).unwrap_err().to_string().contains("mode 0777"));
    }
}
