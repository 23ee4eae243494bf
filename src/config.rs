//! `/etc/assay/config.toml`: where things are.
//!
//! The shim reads it too, on every create: keep it small and free of heavy dependencies.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use toml::Spanned;

use crate::diagnostic::strict::{Reader, Table};
use crate::diagnostic::{Code, Diagnostic, Diagnostics, Source};
use crate::oci::Reference;

/// Where the configuration is unless [`ENVIRONMENT`] names another file.
pub const DEFAULT_PATH: &str = "/etc/assay/config.toml";

/// The environment variable that names another file; containerd passes its environment on to shims.
pub const ENVIRONMENT: &str = "ASSAY_CONFIG";

/// Shortest time that `admit` may be given; a shorter one would refuse every container.
const MIN_ADMIT_TIMEOUT: Duration = Duration::from_millis(100);

/// Longest time that `admit` may be given; kubelet gives up on a container after some minutes.
const MAX_ADMIT_TIMEOUT: Duration = Duration::from_secs(600);

const KEYS: &[&str] = &[
    "state",
    "run",
    "policy",
    "trust",
    "closure",
    "seccomp",
    "oci_runtime",
    "admit_timeout",
    "pull_evidence",
    "policy_from",
    "refresh_trust",
];

/// Options of a containerd handler that the shim reads from a file named by the handler's `ConfigPath`, which is this
/// configuration too. Anywhere else they have no effect.
const HANDLER_OPTIONS: &[&str] = &[
    "NoPivotRoot",
    "NoNewKeyring",
    "ShimCgroup",
    "IoUid",
    "IoGid",
    "BinaryName",
    "Root",
    "SystemdCgroup",
    "CriuPath",
    "CriuImagePath",
    "CriuWorkPath",
];

/// The configuration, with its defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Folder of what outlives a boot: evidence, decisions, the active policy.
    pub state: PathBuf,
    /// Folder of what dies with the boot.
    pub run: PathBuf,
    /// Folder or file of policy.
    pub policy: PathBuf,
    /// Folder or file of trust.
    pub trust: PathBuf,
    /// Folder or file of further rules of the closure; it need not exist.
    pub closure: PathBuf,
    /// Folder or file of tunings of seccomp profiles; it may be missing.
    pub seccomp: PathBuf,
    /// Name or path of the OCI runtime; containerd's `BinaryName` option wins.
    pub oci_runtime: String,
    /// How long `assay admit` may take before the container is refused.
    pub admit_timeout: Duration,
    /// Whether `assay agent` pulls the evidence of images that appear on this node, and again once a day.
    pub pull_evidence: bool,
    /// Where the fleet's policy is, which `assay agent` fetches.
    pub policy_from: Option<Reference>,
    /// Whether `assay agent` refreshes the built-in trusted roots.
    pub refresh_trust: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state: "/var/lib/assay".into(),
            run: "/run/assay".into(),
            policy: "/etc/assay/policy.d".into(),
            trust: "/etc/assay/trust.d".into(),
            closure: "/etc/assay/closure.d".into(),
            seccomp: "/etc/assay/seccomp.d".into(),
            oci_runtime: "runc".to_owned(),
            admit_timeout: Duration::from_secs(30),
            pull_evidence: false,
            policy_from: None,
            refresh_trust: false,
        }
    }
}

impl Config {
    /// The configuration in force: the file that [`ENVIRONMENT`] names, else [`DEFAULT_PATH`], else the defaults.
    ///
    /// # Errors
    /// When a named file is missing, or a file cannot be read safely or says something that is not understood.
    pub fn load() -> Result<Self, Diagnostics> {
        match std::env::var_os(ENVIRONMENT) {
            Some(path) => Self::read(Path::new(&path)),
            None => Self::read_default(Path::new(DEFAULT_PATH)),
        }
    }

    fn read_default(path: &Path) -> Result<Self, Diagnostics> {
        // Only a file that is certainly not there means the defaults; one that cannot be looked at is an error.
        match path.try_exists() {
            Ok(false) if !path.is_symlink() => Ok(Self::default()),
            _ => Self::read(path),
        }
    }

    /// The configuration in a file. The path must be absolute, since a shim's working directory is a bundle, which
    /// belongs to a container.
    ///
    /// # Errors
    /// When the path is relative, or the file is missing, cannot be read safely, or is not understood.
    pub fn read(path: &Path) -> Result<Self, Diagnostics> {
        if !path.is_absolute() {
            return Err(Diagnostics(vec![Diagnostic::without_place(
                Code::PathNotAbsolute,
                format!("the configuration file {:?} is not an absolute path", path),
                &format!("write the whole path in {ENVIRONMENT} or ConfigPath"),
            )]));
        }
        let source = Source::read(path).map_err(|fault| Diagnostics(vec![fault]))?;
        Self::parse(&source)
    }

    /// The configuration that a text says.
    ///
    /// # Errors
    /// When it is not understood.
    pub fn parse(source: &Arc<Source>) -> Result<Self, Diagnostics> {
        let (mut reader, mut table) = Reader::new(source, "config.toml").map_err(Diagnostics)?;
        let mut config = Self::default();
        for (key, path) in [
            ("state", &mut config.state),
            ("run", &mut config.run),
            ("policy", &mut config.policy),
            ("trust", &mut config.trust),
            ("closure", &mut config.closure),
            ("seccomp", &mut config.seccomp),
        ] {
            if let Some(text) = reader.text(&mut table, key) {
                require_absolute(&mut reader, key, &text);
                *path = text.into_inner().into();
            }
        }
        if let Some(text) = reader.text(&mut table, "oci_runtime") {
            if text.get_ref().contains('/') {
                require_absolute(&mut reader, "oci_runtime", &text);
            }
            config.oci_runtime = text.into_inner();
        }
        if let Some(timeout) = admit_timeout(&mut reader, &mut table) {
            config.admit_timeout = timeout;
        }
        if let Some(pull) = reader.flag(&mut table, "pull_evidence") {
            config.pull_evidence = pull.into_inner();
        }
        if let Some(text) = reader.text(&mut table, "policy_from") {
            config.policy_from = policy_from(&mut reader, &text);
        }
        if let Some(refresh) = reader.flag(&mut table, "refresh_trust") {
            config.refresh_trust = refresh.into_inner();
        }
        for option in HANDLER_OPTIONS {
            table.discard(option);
        }
        reader.finish(&table, KEYS, &[]);
        let faults = reader.into_faults();
        if faults.is_empty() {
            Ok(config)
        } else {
            Err(Diagnostics(faults))
        }
    }
}

fn require_absolute(reader: &mut Reader<'_>, key: &str, text: &Spanned<String>) {
    let path = Path::new(text.get_ref());
    let climbs = path.components().any(|part| part == std::path::Component::ParentDir);
    if !path.is_absolute() || climbs || text.get_ref().contains('\0') {
        reader.fault(
            Code::PathNotAbsolute,
            text.span(),
            format!("`{key}` is not an absolute path without `..`"),
            "",
            "start it with / and leave out `..`",
        );
    }
}

fn admit_timeout(reader: &mut Reader<'_>, table: &mut Table<'_>) -> Option<Duration> {
    let text = reader.text(table, "admit_timeout")?;
    let duration = text
        .get_ref()
        .parse::<SignedDuration>()
        .ok()
        .and_then(|duration| Duration::try_from(duration).ok())
        .filter(|duration| (MIN_ADMIT_TIMEOUT..=MAX_ADMIT_TIMEOUT).contains(duration));
    if duration.is_none() {
        reader.fault(
            Code::InvalidValue,
            text.span(),
            format!("`{}` is no time for `admit_timeout`", text.get_ref()),
            "",
            "from \"100ms\" to \"10m\", \"10s\" for example",
        );
    }
    duration
}

fn policy_from(reader: &mut Reader<'_>, text: &Spanned<String>) -> Option<Reference> {
    let parsed: Result<Reference, _> = text.get_ref().parse();
    parsed
        .map_err(|error| {
            reader.fault(
                Code::InvalidValue,
                text.span(),
                format!("`policy_from` names nothing in a registry: {error}"),
                "",
                "as an image is named, \"registry.example/ops/policy:prod\" for example",
            );
        })
        .ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn parse(text: &str) -> Result<Config, Diagnostics> {
        Config::parse(&Arc::new(Source {
            path: DEFAULT_PATH.into(),
            text: text.to_owned(),
        }))
    }

    #[test]
    fn every_key_is_optional() {
        assert_eq!(parse(""), Ok(Config::default()));
        assert_eq!(parse("# nothing\n"), Ok(Config::default()));
    }

    #[test]
    fn options_of_a_handler_may_stand_in_the_file_that_its_config_path_names() {
        assert_eq!(
            parse("SystemdCgroup = true\nBinaryName = 'crun'\n"),
            Ok(Config::default())
        );
        assert!(parse("SystemdCgrop = true\n").is_err());
    }

    #[test]
    fn every_key_counts() {
        let text = r#"
            state = "/srv/assay"
            run = "/run/other"
            policy = "/srv/policy.toml"
            trust = "/srv/trust"
            closure = "/srv/closure"
            seccomp = "/srv/seccomp"
            oci_runtime = "/usr/bin/crun"
            admit_timeout = "1m 500ms"
            pull_evidence = true
            policy_from = "registry.example/ops/policy:prod"
            refresh_trust = true
        "#;
        assert_eq!(
            parse(text),
            Ok(Config {
                state: "/srv/assay".into(),
                run: "/run/other".into(),
                policy: "/srv/policy.toml".into(),
                trust: "/srv/trust".into(),
                closure: "/srv/closure".into(),
                seccomp: "/srv/seccomp".into(),
                oci_runtime: "/usr/bin/crun".to_owned(),
                admit_timeout: Duration::from_millis(60_500),
                pull_evidence: true,
                policy_from: Some("registry.example/ops/policy:prod".parse().unwrap()),
                refresh_trust: true,
            })
        );
    }

    #[test]
    fn what_is_wrong_has_a_place() {
        let text = "state = \"assay\"\nrun = 1\npolicy = \"\"\ntrust = \"/etc/../tmp\"\noci_runtime = \"bin/runc\"\n\
                    admit_timeout = \"0s\"\nstat = \"/\"\n";
        let Diagnostics(faults) = parse(text).unwrap_err();
        let lines: Vec<_> = faults.iter().map(Diagnostic::line).collect();
        insta::assert_snapshot!(lines.join("\n"), @r#"
        /etc/assay/config.toml:1:9: `state` is not an absolute path without `..` (path-not-absolute); start it with / and leave out `..`
        /etc/assay/config.toml:2:7: `run` must be a string, not a number (wrong-type)
        /etc/assay/config.toml:3:10: `policy` is empty (empty); write a value, or leave the key out
        /etc/assay/config.toml:4:9: `trust` is not an absolute path without `..` (path-not-absolute); start it with / and leave out `..`
        /etc/assay/config.toml:5:15: `oci_runtime` is not an absolute path without `..` (path-not-absolute); start it with / and leave out `..`
        /etc/assay/config.toml:6:17: `0s` is no time for `admit_timeout` (invalid-value); from "100ms" to "10m", "10s" for example
        /etc/assay/config.toml:7:1: config.toml has no key `stat` (unknown-key); its keys are `state`, `run`, `policy`, `trust`, `closure`, `seccomp`, `oci_runtime`, `admit_timeout`, `pull_evidence`, `policy_from` and `refresh_trust`
        "#);
        for timeout in ["-1s", "1", "soon", "11m", "99999999999999999999s", "1 month"] {
            let Diagnostics(faults) = parse(&format!("admit_timeout = \"{timeout}\"")).unwrap_err();
            assert_eq!(faults.len(), 1, "{timeout}");
            assert_eq!(faults[0].code, Code::InvalidValue, "{timeout}");
        }
    }

    #[test]
    fn only_the_default_file_may_be_missing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        assert_eq!(Config::read_default(&path), Ok(Config::default()));
        assert_eq!(Config::read(&path).unwrap_err().0[0].code, Code::Unreadable);
        assert_eq!(
            Config::read(Path::new("config.toml")).unwrap_err().0[0].code,
            Code::PathNotAbsolute
        );
        fs::write(&path, "oci_runtime = \"crun\"").unwrap();
        assert_eq!(Config::read_default(&path).unwrap().oci_runtime, "crun");
        fs::remove_file(&path).unwrap();
        // A link to nothing is a mistake, not an absent file.
        std::os::unix::fs::symlink("nowhere", &path).unwrap();
        assert_eq!(Config::read_default(&path).unwrap_err().0[0].code, Code::Unreadable);
    }
}
