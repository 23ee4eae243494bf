//! A node of the test's own: configuration, state, and the `assay` of this build.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

pub struct Node {
    folder: tempfile::TempDir,
}

/// What a command said.
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Node {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let node = Self { folder };
        for name in ["policy", "trust", "docker"] {
            fs::create_dir(node.path(name)).unwrap();
        }
        let setting = |name: &str| format!("{name} = \"{}\"\n", node.path(name).display());
        let config: String = ["state", "run", "policy", "trust"].map(setting).concat();
        fs::write(node.path("config.toml"), config).unwrap();
        node
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join(name)
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_assay"));
        command
            .args(words)
            .env("ASSAY_CONFIG", self.path("config.toml"))
            .env("DOCKER_CONFIG", self.path("docker"))
            .env_remove("HTTP_PROXY")
            .env_remove("http_proxy");
        command
    }

    /// Runs `assay evidence` with these arguments.
    pub fn evidence(&self, words: &[&str]) -> Said {
        said(&self.command(&[&["evidence"], words].concat()).output().unwrap())
    }

    pub fn pull(&self, words: &[&str]) -> Said {
        self.evidence(&[&["pull", "--plain-http"], words].concat())
    }

    pub fn cache(&self) -> PathBuf {
        self.path("state/evidence")
    }

    /// Digests of the manifests with evidence in the cache's index, sorted.
    pub fn manifests(&self) -> Vec<String> {
        let index: Value = serde_json::from_slice(&fs::read(self.cache().join("index.json")).unwrap()).unwrap();
        let entries = index["manifests"].as_array().unwrap().iter();
        entries
            .filter(|entry| entry["annotations"]["dev.assay.evidence.image"].is_null())
            .map(|entry| entry["digest"].as_str().unwrap().to_owned())
            .collect()
    }

    pub fn has(&self, digest: &Value) -> bool {
        self.cache().join(blob(digest)).exists()
    }

    pub fn login(&self, registry: &str, pair: &str) {
        let config = serde_json::json!({"auths": {registry: {"auth": pair}}});
        fs::write(self.path("docker/config.json"), config.to_string()).unwrap();
    }
}

pub fn blob(digest: &Value) -> String {
    let digest = digest.as_str().unwrap_or_else(|| digest["digest"].as_str().unwrap());
    format!("blobs/sha256/{}", digest.strip_prefix("sha256:").unwrap())
}

pub fn said(output: &Output) -> Said {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    Said {
        code: output.status.code().unwrap(),
        out: text(&output.stdout),
        err: text(&output.stderr),
    }
}

/// Names and bytes of all files of a layout except locks.
pub fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.ends_with(".lock") {
                files.push((path.strip_prefix(folder).unwrap().to_owned(), fs::read(&path).unwrap()));
            }
        }
    }
    files.sort();
    files
}
