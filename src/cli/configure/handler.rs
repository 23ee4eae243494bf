//! A handler in containerd's configuration: the keys that make one, put into a TOML document and taken out of it again,
//! and read from what containerd makes of all its files.

use toml::{Table, Value};
use toml_edit::{Array, DocumentMut, Item, TableLike};

/// The annotations that policy may honour; without these lists containerd keeps them from the runtime.
pub const ANNOTATIONS: &str = "assay.dev/*";
/// The runtime type of the shim that containerd brings along.
pub const RUNC: &str = "io.containerd.runc.v2";
/// The runtime type by which containerd finds the shim of Assay in its `PATH`.
pub const ASSAY: &str = "io.containerd.assay.v1";
/// File name of the shim of Assay.
pub const SHIM: &str = "containerd-shim-assay-v1";

/// Keys of the runtime that a handler is modelled on which are the handler's own.
const OWN: [&str; 6] = [
    "runtime_type",
    "runtime_path",
    "runtime_engine",
    "runtime_root",
    "pod_annotations",
    "container_annotations",
];

/// How the version of a file names things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schema {
    /// The version: 2, 3 or 4.
    pub version: i64,
}

impl Schema {
    /// The section that holds the handlers.
    #[must_use]
    pub fn runtime(self) -> &'static str {
        if self.version == 2 {
            "io.containerd.grpc.v1.cri"
        } else {
            "io.containerd.cri.v1.runtime"
        }
    }

    /// The section that says which snapshotter a handler has, where that is another one.
    #[must_use]
    pub fn images(self) -> Option<&'static str> {
        (self.version > 2).then_some("io.containerd.cri.v1.images")
    }
}

/// A handler of Assay.
#[derive(Debug, Clone, PartialEq)]
pub struct Handler {
    /// Its name, which a RuntimeClass names.
    pub name: String,
    /// Its `runtime_type`.
    pub runtime_type: &'static str,
    /// Its `runtime_path`, where this containerd reads one.
    pub runtime_path: Option<String>,
    /// Settings of the runtime that it is modelled on: those that are not containerd's defaults.
    pub settings: Table,
    /// Its options.
    pub options: Table,
    /// Its snapshotter, where it has one of its own.
    pub snapshotter: Option<String>,
    /// Whether pods that name no handler get it.
    pub is_default: bool,
}

/// A document that a handler cannot be put into.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a table")]
pub struct NotTable(pub String);

impl Handler {
    /// A handler that does for pods what the handler `model` of `read` does, but for the shim.
    #[must_use]
    pub fn like(name: &str, model: &Table) -> Self {
        let mut settings = Table::new();
        let mut options = Table::new();
        let mut snapshotter = None;
        for (key, value) in model {
            match value {
                Value::Table(table) if key == "options" => {
                    let set = table.iter().filter(|(_, value)| !is_zero(value));
                    options.extend(set.map(|(key, value)| (key.clone(), value.clone())));
                }
                Value::String(text) if key == "snapshotter" && !text.is_empty() => snapshotter = Some(text.clone()),
                value if OWN.contains(&key.as_str()) || is_zero(value) => {}
                Value::Table(_) => {}
                value => {
                    settings.insert(key.clone(), value.clone());
                }
            }
        }
        Self {
            name: name.to_owned(),
            runtime_type: RUNC,
            runtime_path: None,
            settings,
            options,
            snapshotter,
            is_default: false,
        }
    }

    /// Puts the handler into a document.
    ///
    /// # Errors
    /// When a key on the way is no table there.
    pub fn insert(&self, document: &mut DocumentMut, schema: Schema) -> Result<(), NotTable> {
        let containerd = descend(document.as_table_mut(), &["plugins", schema.runtime(), "containerd"])?;
        if self.is_default {
            set(containerd, "default_runtime_name", self.name.as_str().into());
        }
        let runtimes = descend(containerd, &["runtimes"])?;
        let mut table = toml_edit::Table::new();
        table.insert("runtime_type", toml_edit::value(self.runtime_type));
        if let Some(path) = &self.runtime_path {
            table.insert("runtime_path", toml_edit::value(path.as_str()));
        }
        for key in ["pod_annotations", "container_annotations"] {
            table.insert(key, toml_edit::value(Array::from_iter([ANNOTATIONS])));
        }
        for (key, setting) in &self.settings {
            table.insert(key, Item::Value(edited(setting)));
        }
        if let Some(snapshotter) = &self.snapshotter {
            table.insert("snapshotter", toml_edit::value(snapshotter.as_str()));
        }
        if !self.options.is_empty() {
            let mut options = toml_edit::Table::new();
            for (key, option) in &self.options {
                options.insert(key, Item::Value(edited(option)));
            }
            table.insert("options", Item::Table(options));
        }
        runtimes.insert(&self.name, Item::Table(table));
        if let (Some(snapshotter), Some(images)) = (&self.snapshotter, schema.images()) {
            let platform = descend(
                document.as_table_mut(),
                &["plugins", images, "runtime_platforms", &self.name],
            )?;
            set(platform, "snapshotter", snapshotter.as_str().into());
        }
        Ok(())
    }

    /// A file that holds nothing but the handler.
    ///
    /// # Errors
    /// Never in practice: the document starts empty.
    pub fn drop_in(&self, schema: Schema, header: &str) -> Result<String, NotTable> {
        let mut document = DocumentMut::new();
        document.insert("version", toml_edit::value(schema.version));
        self.insert(&mut document, schema)?;
        Ok(format!("{header}{document}"))
    }
}

/// Puts handlers into a document as containerd reads them now, where the document has none of that name: releases before
/// 2.0 forget the handler that they bring along as soon as a file names another.
///
/// # Errors
/// When a key on the way is no table there.
pub fn keep<'a>(
    document: &mut DocumentMut,
    schema: Schema,
    handlers: impl Iterator<Item = (&'a str, &'a Table)>,
) -> Result<(), NotTable> {
    let runtimes = descend(
        document.as_table_mut(),
        &["plugins", schema.runtime(), "containerd", "runtimes"],
    )?;
    for (name, handler) in handlers {
        if runtimes.contains_key(name) {
            continue;
        }
        let mut table = toml_edit::Table::new();
        for (key, value) in handler {
            match value {
                // Options are no fixed set of keys: one that is written as nothing is not the same as none.
                Value::Table(options) => {
                    let options = options.iter().map(|(key, option)| (key, Item::Value(edited(option))));
                    table.insert(key, Item::Table(options.collect()));
                }
                value if is_zero(value) => {}
                value => {
                    table.insert(key, Item::Value(edited(value)));
                }
            }
        }
        runtimes.insert(name, Item::Table(table));
    }
    Ok(())
}

/// Takes the handler `name` out of a document; false when it holds none of that name that is Assay's. `default` is what
/// a default that named it becomes again.
pub fn remove(document: &mut DocumentMut, name: &str, default: Option<&str>) -> bool {
    let mut removed = false;
    for schema in [Schema { version: 2 }, Schema { version: 3 }] {
        let Some(containerd) = find(document.as_table_mut(), &["plugins", schema.runtime(), "containerd"]) else {
            continue;
        };
        let is_ours = find(containerd, &["runtimes", name]).is_some_and(|handler| {
            let text = |key: &str| handler.get(key).and_then(Item::as_str).unwrap_or_default();
            is_assay(text("runtime_type"), text("runtime_path"))
        });
        if !is_ours {
            continue;
        }
        removed = true;
        if let Some(runtimes) = find(containerd, &["runtimes"]) {
            runtimes.remove(name);
        }
        if containerd.get("default_runtime_name").and_then(Item::as_str) == Some(name) {
            match default {
                Some(default) => set(containerd, "default_runtime_name", default.into()),
                None => {
                    containerd.remove("default_runtime_name");
                }
            }
        }
        if let Some(images) = schema.images()
            && let Some(platforms) = find(document.as_table_mut(), &["plugins", images, "runtime_platforms"])
        {
            platforms.remove(name);
        }
    }
    removed
}

/// The default handler that a document names.
#[must_use]
pub fn default_of(text: &str) -> Option<String> {
    let document: DocumentMut = text.parse().ok()?;
    let plugins = document.get("plugins")?.as_table_like()?;
    [Schema { version: 2 }, Schema { version: 3 }]
        .iter()
        .find_map(|schema| {
            let section = plugins.get(schema.runtime())?.as_table_like()?;
            let containerd = section.get("containerd")?.as_table_like()?;
            Some(containerd.get("default_runtime_name")?.as_str()?.to_owned())
        })
}

/// Whether a handler of these settings is Assay's.
#[must_use]
pub fn is_assay(runtime_type: &str, runtime_path: &str) -> bool {
    runtime_type == ASSAY
        || std::path::Path::new(runtime_path)
            .file_name()
            .is_some_and(|name| name == SHIM)
}

/// What containerd made of its files, as far as handlers go. Releases before 2.0 have one section for it, later two.
#[derive(Debug, Clone, Copy)]
pub struct Reading<'a>(pub &'a Table);

impl<'a> Reading<'a> {
    fn section(self, names: &[&str]) -> Option<&'a Table> {
        let plugins = self.0.get("plugins")?.as_table()?;
        names.iter().find_map(|name| plugins.get(*name)?.as_table())
    }

    fn containerd(self) -> Option<&'a Table> {
        let section = self.section(&["io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri"])?;
        section.get("containerd")?.as_table()
    }

    /// All handlers.
    pub fn handlers(self) -> impl Iterator<Item = (&'a str, &'a Table)> {
        let runtimes = self
            .containerd()
            .and_then(|section| section.get("runtimes")?.as_table());
        runtimes
            .into_iter()
            .flatten()
            .filter_map(|(name, handler)| Some((name.as_str(), handler.as_table()?)))
    }

    /// One handler.
    #[must_use]
    pub fn handler(self, name: &str) -> Option<&'a Table> {
        self.handlers()
            .find(|(known, _)| *known == name)
            .map(|(_, handler)| handler)
    }

    /// The handler of pods that name none.
    #[must_use]
    pub fn default(self) -> Option<&'a str> {
        self.containerd()?.get("default_runtime_name")?.as_str()
    }

    /// The image of sandboxes.
    #[must_use]
    pub fn sandbox_image(self) -> Option<&'a str> {
        let pinned = || {
            let images = self.section(&["io.containerd.cri.v1.images"])?;
            images.get("pinned_images")?.as_table()?.get("sandbox")?.as_str()
        };
        let older = || {
            let cri = self.section(&["io.containerd.grpc.v1.cri"])?;
            cri.get("sandbox_image")?.as_str()
        };
        pinned().or_else(older).filter(|name| !name.is_empty())
    }
}

/// Whether `after` is `before` with `handler` and nothing else changed; otherwise the first key that is not.
///
/// # Errors
/// That key.
pub fn only_adds(handler: &Handler, before: &Table, after: &Table) -> Result<(), String> {
    let Some(found) = Reading(after).handler(&handler.name) else {
        return Err(format!("the handler {} is not there", handler.name));
    };
    let text = |key: &str| found.get(key).and_then(Value::as_str).unwrap_or_default();
    if text("runtime_type") != handler.runtime_type
        || text("runtime_path") != handler.runtime_path.as_deref().unwrap_or_default()
    {
        return Err(format!("the handler {} is another one", handler.name));
    }
    if handler.is_default && Reading(after).default() != Some(&handler.name) {
        return Err("default_runtime_name is another".to_owned());
    }
    let (before, after) = (without(handler, before), without(handler, after));
    first_difference("", &Value::Table(before), &Value::Table(after)).map_or(Ok(()), Err)
}

fn without(handler: &Handler, table: &Table) -> Table {
    let mut table = table.clone();
    table.remove("imports");
    table.remove("version");
    let Some(plugins) = table.get_mut("plugins").and_then(Value::as_table_mut) else {
        return table;
    };
    for (_, section) in plugins.iter_mut() {
        let Some(section) = section.as_table_mut() else {
            continue;
        };
        for path in [&["containerd", "runtimes"][..], &["runtime_platforms"]] {
            let mut here = Some(&mut *section);
            for key in path {
                here = here.and_then(|table| table.get_mut(*key)?.as_table_mut());
            }
            if let Some(found) = here {
                found.remove(&handler.name);
            }
        }
        if handler.is_default
            && let Some(containerd) = section.get_mut("containerd").and_then(Value::as_table_mut)
        {
            containerd.remove("default_runtime_name");
        }
    }
    table
}

fn first_difference(path: &str, before: &Value, after: &Value) -> Option<String> {
    let (Value::Table(old), Value::Table(new)) = (before, after) else {
        return (before != after).then(|| path.to_owned());
    };
    let mut keys: Vec<&String> = old.keys().chain(new.keys()).collect();
    keys.sort();
    keys.dedup();
    keys.into_iter().find_map(|key| {
        let deeper = if path.is_empty() {
            key.clone()
        } else {
            format!("{path}.{key}")
        };
        match (old.get(key), new.get(key)) {
            (Some(old), Some(new)) => first_difference(&deeper, old, new),
            // An empty table says as much as none.
            (Some(Value::Table(table)), None) | (None, Some(Value::Table(table))) if table.is_empty() => None,
            _ => Some(deeper),
        }
    })
}

/// What containerd would take anyway.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_empty(),
        Value::Integer(number) => *number == 0,
        Value::Boolean(flag) => !flag,
        Value::Array(list) => list.is_empty(),
        Value::Table(table) => table.values().all(is_zero),
        _ => false,
    }
}

fn edited(value: &Value) -> toml_edit::Value {
    match value {
        Value::String(text) => text.as_str().into(),
        Value::Integer(number) => (*number).into(),
        Value::Float(number) => (*number).into(),
        Value::Boolean(flag) => (*flag).into(),
        Value::Datetime(time) => time.to_string().into(),
        Value::Array(list) => list.iter().map(edited).collect::<Array>().into(),
        Value::Table(table) => {
            let mut inline = toml_edit::InlineTable::new();
            for (key, value) in table {
                inline.insert(key, edited(value));
            }
            inline.into()
        }
    }
}

/// Sets a key and leaves what stands around an old value, a comment for example.
fn set(table: &mut dyn TableLike, key: &str, mut value: toml_edit::Value) {
    match table.get_mut(key).and_then(Item::as_value_mut) {
        Some(old) => {
            *value.decor_mut() = old.decor().clone();
            *old = value;
        }
        None => {
            table.insert(key, Item::Value(value));
        }
    }
}

fn descend<'a>(table: &'a mut dyn TableLike, path: &[&str]) -> Result<&'a mut dyn TableLike, NotTable> {
    let mut here = table;
    for key in path {
        if here.get(key).is_none() {
            let mut table = toml_edit::Table::new();
            table.set_implicit(true);
            here.insert(key, Item::Table(table));
        }
        here = here
            .get_mut(key)
            .and_then(Item::as_table_like_mut)
            .ok_or_else(|| NotTable((*key).to_owned()))?;
    }
    Ok(here)
}

fn find<'a>(table: &'a mut dyn TableLike, path: &[&str]) -> Option<&'a mut dyn TableLike> {
    let mut here = table;
    for key in path {
        here = here.get_mut(key)?.as_table_like_mut()?;
    }
    Some(here)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handler() -> Handler {
        let model: Table = "runtime_type = 'io.containerd.runc.v2'\nruntime_path = ''\nsnapshotter = 'erofs'\n\
                            privileged_without_host_devices = true\ncni_max_conf_num = 0\nsandboxer = 'podsandbox'\n\
                            [options]\nSystemdCgroup = true\nBinaryName = ''\n"
            .parse()
            .unwrap();
        Handler {
            runtime_path: Some("/usr/bin/containerd-shim-assay-v1".to_owned()),
            ..Handler::like("assay", &model)
        }
    }

    #[test]
    fn a_drop_in_has_what_the_nodes_own_runtime_has() {
        insta::assert_snapshot!(handler().drop_in(Schema { version: 4 }, "# header\n").unwrap(), @r#"
        # header
        version = 4

        [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.assay]
        runtime_type = "io.containerd.runc.v2"
        runtime_path = "/usr/bin/containerd-shim-assay-v1"
        pod_annotations = ["assay.dev/*"]
        container_annotations = ["assay.dev/*"]
        privileged_without_host_devices = true
        sandboxer = "podsandbox"
        snapshotter = "erofs"

        [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.assay.options]
        SystemdCgroup = true

        [plugins."io.containerd.cri.v1.images".runtime_platforms.assay]
        snapshotter = "erofs"
        "#);
    }

    #[test]
    fn a_file_keeps_its_comments_and_gets_back_what_it_was() {
        for text in [
            "# ours\nversion = 2\n\n[plugins.\"io.containerd.grpc.v1.cri\"] # cri\n  sandbox_image = \"x\" # pause\n\n  \
             [plugins.\"io.containerd.grpc.v1.cri\".containerd]\n    default_runtime_name = \"runc\" # as always\n\n    \
             [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\n      runtime_type = \
             \"io.containerd.runc.v2\"\n\n# the end\n",
            "version = 2\n",
            "version = 2\n[plugins]\n\"io.containerd.grpc.v1.cri\" = { containerd = { runtimes = { } } }\n",
        ] {
            let mut document: DocumentMut = text.parse().unwrap();
            let handler = Handler {
                is_default: true,
                ..handler()
            };
            handler.insert(&mut document, Schema { version: 2 }).unwrap();
            let edited = document.to_string();
            for line in text
                .lines()
                .filter(|line| line.contains('#') && !line.contains("default_runtime_name"))
            {
                assert!(edited.contains(line), "{line} is not in {edited}");
            }
            let read: Table = edited.parse().unwrap();
            assert_eq!(Reading(&read).default(), Some("assay"));
            assert!(Reading(&read).handler("assay").is_some());
            // Reading again and writing again changes nothing.
            handler.insert(&mut document, Schema { version: 2 }).unwrap();
            assert_eq!(document.to_string(), edited);

            assert!(remove(&mut document, "assay", default_of(text).as_deref()));
            let read: Table = document.to_string().parse().unwrap();
            assert!(Reading(&read).handler("assay").is_none());
            assert_eq!(Reading(&read).default(), default_of(text).as_deref());
            assert!(!remove(&mut document, "assay", None));
        }
    }

    #[test]
    fn what_is_no_table_is_not_overwritten() {
        let mut document: DocumentMut = "version = 2\nplugins = 1\n".parse().unwrap();
        let fault = handler().insert(&mut document, Schema { version: 2 }).unwrap_err();
        assert_eq!(fault.to_string(), "`plugins` is not a table");
    }

    #[test]
    fn nothing_but_the_handler_may_change() {
        let before: Table = "version = 2\n[plugins.'io.containerd.grpc.v1.cri']\nsandbox_image = 'x'\n\
                             [plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc.options]\nSystemdCgroup = true\n"
            .parse()
            .unwrap();
        let mut document: DocumentMut = before.to_string().parse().unwrap();
        let handler = handler();
        handler.insert(&mut document, Schema { version: 2 }).unwrap();
        let after: Table = document.to_string().parse().unwrap();
        assert_eq!(only_adds(&handler, &before, &after), Ok(()));
        for (edit, said) in [
            ("sandbox_image = 'x'", "plugins.io.containerd.grpc.v1.cri.sandbox_image"),
            (
                "SystemdCgroup = true",
                "plugins.io.containerd.grpc.v1.cri.containerd.runtimes.runc.options.SystemdCgroup",
            ),
        ] {
            let lost = before
                .to_string()
                .replace(edit, "")
                .replace(&edit.replace('\'', "\""), "");
            assert_ne!(lost, before.to_string(), "{edit}");
            let mut document: DocumentMut = lost.parse().unwrap();
            handler.insert(&mut document, Schema { version: 2 }).unwrap();
            let after: Table = document.to_string().parse().unwrap();
            assert_eq!(only_adds(&handler, &before, &after), Err(said.to_owned()));
        }
        assert!(only_adds(&handler, &before, &before).is_err());
    }
}
