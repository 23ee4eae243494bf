//! What an image is made of and how it is run: `tests/corpus/images/NAME/image.toml`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use assay::digest::Digest;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::root;

/// One image of the corpus.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// Name of its folder.
    #[serde(skip)]
    pub name: String,
    /// What it is there to show.
    pub about: String,
    /// What it is built on.
    #[serde(default)]
    pub base: Base,
    /// Debian packages.
    #[serde(default)]
    pub packages: Vec<String>,
    /// One of the few that stand for the rest.
    #[serde(default)]
    pub quick: bool,
    /// The `config` object of the image's configuration, with OCI's own names.
    #[serde(default)]
    pub image: Map<String, Value>,
    /// How a container of it is run.
    #[serde(default)]
    pub run: Run,
}

/// What an image is built on.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Base {
    /// The shared layer of Debian's essential packages and apt.
    #[default]
    Debian,
    /// Nothing: packages are unpacked, not installed.
    None,
}

/// How a container is run. `${PORT}` and what else the workload's environment has is replaced in every text.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Run {
    /// Instead of the image's `Cmd`.
    pub arguments: Vec<String>,
    /// Beside the image's environment.
    pub env: Vec<String>,
    /// Destinations, and what they show: files and folders of the run's folder, read-only; a name that ends in `/` is
    /// a new folder that the container may write to.
    pub mounts: BTreeMap<String, String>,
    /// Instead of the image's `Cmd`, in a container with the same mounts that must end well before this one starts.
    pub init: Vec<String>,
    /// Without writable layer.
    pub read_only: bool,
    /// When the workload may begin.
    pub ready: Ready,
    /// The status that it must end with.
    pub exit: u32,
}

/// When the workload may begin.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ready {
    /// Somebody listens on `PORT`.
    #[default]
    Listens,
    /// The container has ended, on its own.
    Ended,
}

impl Definition {
    /// All of them, by name.
    pub fn all() -> Vec<Self> {
        let mut all: Vec<_> = fs::read_dir(root().join("tests/corpus/images"))
            .unwrap()
            .map(|entry| Self::read(&entry.unwrap().path()))
            .collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    fn read(folder: &Path) -> Self {
        let file = folder.join("image.toml");
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let mut read: Self = toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        folder.file_name().unwrap().to_str().unwrap().clone_into(&mut read.name);
        let search = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let env = read.image.entry("Env").or_insert_with(|| json!([]));
        let env = env.as_array_mut().expect("Env is a list");
        if !env
            .iter()
            .any(|entry| entry.as_str().is_some_and(|entry| entry.starts_with("PATH=")))
        {
            env.insert(0, search.into());
        }
        read
    }

    /// Its folder.
    pub fn folder(&self) -> PathBuf {
        root().join("tests/corpus/images").join(&self.name)
    }

    /// What `make corpus` keeps about it.
    pub fn kept(&self) -> PathBuf {
        crate::target().join(&self.name)
    }

    /// The name that containerd knows it by.
    pub fn image_name(&self) -> String {
        format!("assay.test/corpus/{}:latest", self.name)
    }

    /// What runs before the arguments.
    pub fn entrypoint(&self) -> Vec<String> {
        let words = self.image.get("Entrypoint").and_then(Value::as_array);
        let words = words.into_iter().flatten();
        words.filter_map(|word| Some(word.as_str()?.to_owned())).collect()
    }

    /// The signal that asks it to stop.
    pub fn stop_signal(&self) -> &str {
        self.image
            .get("StopSignal")
            .and_then(Value::as_str)
            .unwrap_or("SIGTERM")
    }

    /// Changes with the image and with everything that its workload does.
    pub fn run_key(&self) -> String {
        let mut parts = vec![fs::read_to_string(self.kept().join("key")).unwrap()];
        describe(&self.folder(), &mut parts);
        Digest::of(parts.join("\n").as_bytes()).to_string()
    }
}

/// A line for each file: path, mode and content.
fn describe(path: &Path, lines: &mut Vec<String>) {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return;
    };
    if metadata.is_dir() {
        let mut names: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        for name in names {
            describe(&name, lines);
        }
        return;
    }
    let content = if metadata.is_symlink() {
        fs::read_link(path).unwrap().display().to_string()
    } else {
        Digest::of(&fs::read(path).unwrap()).to_string()
    };
    let mode = metadata.permissions().mode() & 0o777;
    lines.push(format!("{} {mode:o} {content}", path.display()));
}
