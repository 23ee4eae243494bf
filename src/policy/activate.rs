//! Putting a policy in force, and reading the one that is.
//!
//! Policy and trust are validated together and written as one document below the state directory; the way of a
//! container reads nothing else. A fault in the sources leaves the document as it was.

use jiff::Timestamp;

use super::{Active, Checked, Sources, check};
use crate::config::Config;
use crate::diagnostic::{Code, Diagnostic, Diagnostics, Severity};
use crate::digest::Digest;
use crate::store::{self, StateDir};
use crate::trust::{Root, update};

/// Version of the [`Active`] document.
pub const VERSION: u32 = 2;

/// Largest document that is read.
const MAX_BYTES: u64 = 16 << 20;

const DIRECTORY: &str = "active";
const FILE: &str = "policy.json";
/// Where a document that could not be used is kept for whoever wants to know why.
const SET_ASIDE: &str = "policy.json.corrupt";
const LOCK: &str = "lock";

/// What an activation did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activated {
    /// Generation of the policy that is now in force.
    pub generation: u64,
    /// False when the sources say what was in force already.
    pub changed: bool,
    /// Number of rules.
    pub rules: usize,
    /// Number of keys.
    pub keys: usize,
    /// Why the document before was set aside instead of being replaced.
    pub set_aside: Option<String>,
    /// What is probably not what was meant.
    pub warnings: Vec<Diagnostic>,
}

/// Why nothing was activated. The policy that was in force still is.
#[derive(Debug, thiserror::Error)]
pub enum ActivateError {
    /// The sources are wrong.
    #[error("{0}")]
    Sources(#[from] Diagnostics),
    /// The state directory cannot be used.
    #[error("{0}")]
    State(#[from] store::Error),
    /// The document cannot be written as JSON.
    #[error("the policy cannot be written as JSON: {0}")]
    Encode(#[from] serde_json::Error),
    /// The document would be larger than its readers accept.
    #[error("the activated policy would have {0} bytes, more than the {MAX_BYTES} that are accepted; list less in it")]
    TooLarge(usize),
}

/// Why there is no policy to decide by. Every container is refused then.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Nothing was activated on this node.
    #[error("no policy is active on this node")]
    Missing,
    /// The state directory or the document cannot be read safely.
    #[error("the active policy cannot be read: {0}")]
    State(#[from] store::Error),
    /// The document is not what was written.
    #[error("the active policy is corrupt: {0}")]
    Corrupt(#[from] serde_json::Error),
    /// The document is of another version of Assay.
    #[error("the active policy has format {0}, and this version of Assay reads format {VERSION}")]
    Version(u32),
}

impl LoadError {
    /// Stable kebab-case code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing => "policy-missing",
            Self::State(_) => "policy-unreadable",
            Self::Corrupt(_) => "policy-corrupt",
            Self::Version(_) => "policy-version",
        }
    }

    /// What to do next.
    #[must_use]
    pub fn fix(&self) -> &'static str {
        "an administrator runs: assay policy apply"
    }
}

/// Validates the sources that the configuration names, with the fleet's policy that this node keeps, and puts them in force.
///
/// # Errors
/// Any fault in the sources, and a state directory that cannot be used. What was in force stays in force.
pub fn activate(config: &Config) -> Result<Activated, ActivateError> {
    let sources = Sources::of(config).map_err(|fault| Diagnostics(vec![fault]))?;
    let mut checked = check(&sources).map_err(Diagnostics)?;
    let state = StateDir::open(&config.state)?;
    refresh_roots(&state, &mut checked);
    let directory = state.subdir(DIRECTORY)?;
    let _lock = directory.lock(LOCK)?;
    let (before, set_aside) = match read(&directory) {
        Ok((before, _)) => (Some(before), None),
        Err(LoadError::Missing) => (None, None),
        Err(LoadError::State(error)) => return Err(error.into()),
        // Activating is how a document that cannot be used is replaced.
        Err(error @ (LoadError::Corrupt(_) | LoadError::Version(_))) => {
            directory.rename(FILE, SET_ASIDE)?;
            (None, Some(error.to_string()))
        }
    };
    let mut activated = Activated {
        generation: before.as_ref().map_or(0, |before| before.generation),
        changed: false,
        rules: checked.rules.len(),
        keys: checked.keys.len(),
        set_aside,
        warnings: checked.warnings.clone(),
    };
    if before.is_some_and(|before| says_the_same(&before, &checked)) {
        return Ok(activated);
    }
    activated.generation += 1;
    activated.changed = true;
    let active = checked.into_active(activated.generation, Timestamp::now());
    let bytes = serde_json::to_vec(&active)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(ActivateError::TooLarge(bytes.len()));
    }
    directory.write(FILE, &bytes)?;
    Ok(activated)
}

/// Puts the trusted roots as they were refreshed last into the place of those that are part of this program, and warns
/// of those that are old.
pub fn refresh_roots(state: &StateDir, checked: &mut Checked) {
    for root in &mut checked.roots {
        match update::current(state, root) {
            Ok((current, as_of)) => {
                *root = current;
                checked.warnings.extend(old(root, as_of));
            }
            Err(error) => checked.warnings.push(warning(
                Code::RootDamaged,
                format!(
                    "the root `{}` was refreshed, and what came of it cannot be used: {error}; the one of this program \
                     counts",
                    root.id
                ),
                "run: assay trust update",
            )),
        }
    }
}

fn warning(code: Code, message: String, help: &str) -> Diagnostic {
    Diagnostic {
        severity: Severity::Warning,
        ..Diagnostic::without_place(code, message, help)
    }
}

fn old(root: &Root, as_of: Option<Timestamp>) -> Option<Diagnostic> {
    let now = Timestamp::now();
    let age = as_of.map(|as_of| now.duration_since(as_of));
    let id = &root.id;
    let is_over = root.until().is_some_and(|until| until <= now);
    let counts_no_more = if is_over {
        ", which is longer than its max_age: nothing counts under it"
    } else {
        ""
    };
    (is_over || age.is_some_and(|age| age >= update::OLD)).then(|| {
        warning(
            Code::RootOld,
            match age {
                Some(age) => format!(
                    "the trusted root `{id}` was last known to be current {} days ago{counts_no_more}",
                    age.as_hours() / 24
                ),
                None => format!(
                    "nobody knows when the trusted root `{id}` was current, and it has a max_age: nothing counts under it"
                ),
            },
            "run: assay trust update (without a network: --from a mirror of the TUF repository); a root from a file is \
             refreshed by replacing the file",
        )
    })
}

fn says_the_same(active: &Active, checked: &Checked) -> bool {
    active.sources == checked.sources
        && active.keys == checked.keys
        && active.builders == checked.builders
        && active.notation == checked.notation
        && active.roots == checked.roots
        && active.closure == checked.closure
        && active.deny == checked.deny
        && active.rules == checked.rules
        && active.tunings == checked.tunings
}

/// The policy in force and the digest of its document, which changes whenever the policy does.
///
/// # Errors
/// When nothing was activated, or what was cannot be read safely and completely.
pub fn load_active(state: &StateDir) -> Result<(Active, Digest), LoadError> {
    read(&state.subdir(DIRECTORY)?)
}

fn read(directory: &StateDir) -> Result<(Active, Digest), LoadError> {
    let bytes = directory.read(FILE, MAX_BYTES)?.ok_or(LoadError::Missing)?;
    parse(&bytes).map(|active| (active, Digest::of(&bytes)))
}

fn parse(bytes: &[u8]) -> Result<Active, LoadError> {
    #[derive(serde::Deserialize)]
    struct Version {
        version: u32,
    }
    // First alone, since another version may have other fields.
    let Version { version } = serde_json::from_slice(bytes)?;
    if version != VERSION {
        return Err(LoadError::Version(version));
    }
    Ok(serde_json::from_slice(bytes)?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    const RULE: &str =
        "[[rule]]\nname = 'all'\nmatch.image = ['**']\n[[rule.signature]]\nany = [{ key = 'release' }]\n";

    /// A node with a policy that is right and not yet active.
    fn node() -> (tempfile::TempDir, Config) {
        let folder = tempfile::tempdir().unwrap();
        let root: PathBuf = folder.path().canonicalize().unwrap();
        let config = Config {
            state: root.join("state"),
            policy: root.join("policy.d"),
            trust: root.join("trust.d"),
            closure: root.join("closure.d"),
            seccomp: root.join("seccomp.d"),
            ..Config::default()
        };
        fs::create_dir(&config.policy).unwrap();
        fs::create_dir(&config.trust).unwrap();
        fs::write(config.policy.join("50.toml"), RULE).unwrap();
        let keys = "[[key]]\nid = 'release'\nfile = 'release.pem'\nuse = ['image']\n";
        fs::write(config.trust.join("keys.toml"), keys).unwrap();
        fs::write(
            config.trust.join("release.pem"),
            include_str!("../trust/testdata/p256.pem"),
        )
        .unwrap();
        (folder, config)
    }

    fn load(config: &Config) -> Result<(Active, Digest), LoadError> {
        load_active(&StateDir::open(&config.state).unwrap())
    }

    fn document(config: &Config) -> PathBuf {
        config.state.join(DIRECTORY).join(FILE)
    }

    #[test]
    fn what_was_activated_is_what_is_read() {
        let (_folder, config) = node();
        assert!(matches!(load(&config), Err(LoadError::Missing)));
        let activated = activate(&config).unwrap();
        assert_eq!(
            (activated.generation, activated.changed, activated.rules, activated.keys),
            (1, true, 1, 1)
        );
        let (active, digest) = load(&config).unwrap();
        assert_eq!((active.version, active.generation), (VERSION, 1));
        assert_eq!(active.rules.len(), 1);
        assert_eq!(active.keys.first().map(|key| key.id.as_str()), Some("release"));
        assert_eq!(digest, Digest::of(&fs::read(document(&config)).unwrap()));
        for source in &active.sources {
            assert_eq!(source.digest, Digest::of(&fs::read(&source.path).unwrap()));
        }
        assert_eq!(active.sources.len(), 3);
    }

    #[test]
    fn an_activation_that_changes_nothing_keeps_the_document() {
        let (_folder, config) = node();
        activate(&config).unwrap();
        let (_, digest) = load(&config).unwrap();
        let again = activate(&config).unwrap();
        assert_eq!((again.generation, again.changed), (1, false));
        assert_eq!(load(&config).unwrap().1, digest);
        // A new key behind the same rules is a change.
        fs::write(
            config.trust.join("release.pem"),
            include_str!("../trust/testdata/p384.pem"),
        )
        .unwrap();
        let third = activate(&config).unwrap();
        assert_eq!((third.generation, third.changed), (2, true));
        assert_ne!(load(&config).unwrap().1, digest);
    }

    #[test]
    fn rules_of_the_closure_are_part_of_the_policy_in_force() {
        let (_folder, config) = node();
        activate(&config).unwrap();
        let (_, digest) = load(&config).unwrap();
        let file = config.closure.join("own.toml");
        let rule = |path: &str| format!("[[rule]]\nname = 'own'\nreason = 'it says so'\nkeep = ['{path}']\n");
        fs::create_dir(&config.closure).unwrap();
        fs::write(&file, rule("/usr/share/own/**")).unwrap();
        assert!(activate(&config).unwrap().changed);
        let (active, with_rule) = load(&config).unwrap();
        assert_eq!(
            active.closure,
            [(file.display().to_string(), rule("/usr/share/own/**"))]
        );
        assert!(
            active
                .sources
                .iter()
                .any(|source| source.path == file.display().to_string())
        );
        assert_ne!(with_rule, digest);
        assert!(!activate(&config).unwrap().changed);
        // A rule that is not understood leaves the one that is.
        fs::write(&file, rule("usr/share/own")).unwrap();
        let ActivateError::Sources(Diagnostics(faults)) = activate(&config).unwrap_err() else {
            panic!("it is the sources that are wrong");
        };
        assert!(
            faults.iter().any(|fault| fault.code == Code::PathNotAbsolute),
            "{faults:?}"
        );
        assert_eq!(load(&config).unwrap().1, with_rule);
    }

    #[test]
    fn a_fault_leaves_the_policy_in_force() {
        let (_folder, config) = node();
        activate(&config).unwrap();
        let (_, digest) = load(&config).unwrap();
        for (path, text) in [
            (
                config.policy.join("50.toml"),
                "[[rule]]\nname = 'all'\nmatch.image = ['**']\n",
            ),
            (config.policy.join("50.toml"), ""),
            (config.policy.join("60.toml"), "[[rule"),
            (config.trust.join("keys.toml"), "[[root]]\nid = 'x'\n"),
            (config.trust.join("release.pem"), "-----BEGIN PRIVATE KEY-----\n"),
        ] {
            let before = fs::read(&path).ok();
            fs::write(&path, text).unwrap();
            assert!(
                matches!(activate(&config), Err(ActivateError::Sources(_))),
                "{}",
                path.display()
            );
            assert_eq!(load(&config).unwrap().1, digest);
            match before {
                Some(before) => fs::write(&path, before).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
        }
        assert!(!activate(&config).unwrap().changed);
    }

    #[test]
    fn tunings_are_part_of_what_is_activated() {
        let (_folder, config) = node();
        activate(&config).unwrap();
        fs::create_dir(&config.seccomp).unwrap();
        let tune = "[[tune]]\nimage = ['**']\nallow = ['ptrace']\nreason = 'a'\nowner = 'b'\n";
        let file = config.seccomp.join("50.toml");
        fs::write(&file, format!("{tune}expires = '2099-01-01T00:00:00Z'\n")).unwrap();
        assert!(activate(&config).unwrap().changed);
        assert_eq!(load(&config).unwrap().0.tunings.len(), 1);
        assert!(!activate(&config).unwrap().changed);
        fs::write(&file, tune).unwrap();
        assert!(matches!(activate(&config), Err(ActivateError::Sources(_))));
        assert_eq!(load(&config).unwrap().0.tunings.len(), 1);
    }

    #[test]
    fn a_damaged_document_is_refused_and_replaced() {
        let (_folder, config) = node();
        activate(&config).unwrap();
        let whole = fs::read(document(&config)).unwrap();
        let damaged: Vec<Vec<u8>> = vec![
            vec![],
            whole[..whole.len() - 1].to_vec(),
            [whole.as_slice(), b"x"].concat(),
            String::from_utf8(whole.clone())
                .unwrap()
                .replace("\"deny\"", "\"allow\"")
                .into_bytes(),
            String::from_utf8(whole.clone())
                .unwrap()
                .replace("\"**\"", "\"**/x\"")
                .into_bytes(),
        ];
        for bytes in damaged {
            fs::write(document(&config), &bytes).unwrap();
            assert_eq!(
                load(&config).unwrap_err().code(),
                "policy-corrupt",
                "{}",
                String::from_utf8_lossy(&bytes)
            );
        }
        let other = String::from_utf8(whole)
            .unwrap()
            .replace("\"version\":2", "\"version\":1,\"new\":0");
        fs::write(document(&config), &other).unwrap();
        assert_eq!(load(&config).unwrap_err().code(), "policy-version");
        let activated = activate(&config).unwrap();
        assert!(activated.changed);
        assert!(activated.set_aside.unwrap().contains("format 1"));
        assert_eq!(
            fs::read_to_string(config.state.join(DIRECTORY).join(SET_ASIDE)).unwrap(),
            other
        );
        assert_eq!(load(&config).unwrap().0.rules.len(), 1);
    }

    #[test]
    fn a_root_past_its_age_is_said_and_one_that_was_refreshed_is_put_in_force_again() {
        let (_folder, config) = node();
        let file = config.trust.join("root.json");
        let json = Root::builtin("x", crate::trust::Builtin::Sigstore).json;
        fs::write(&file, json).unwrap();
        let put = |max_age: &str| {
            let entry = format!("[[root]]\nid = 'ours'\nfile = 'root.json'\n{max_age}\n");
            fs::write(config.trust.join("roots.toml"), entry).unwrap();
        };
        let written = |days: u64| {
            let time = std::time::SystemTime::now() - std::time::Duration::from_secs(days * 86_400);
            fs::File::options()
                .write(true)
                .open(&file)
                .unwrap()
                .set_modified(time)
                .unwrap();
        };
        let warned = |activated: &Activated| {
            let warnings = activated
                .warnings
                .iter()
                .filter(|warning| warning.code == Code::RootOld);
            warnings.map(|warning| warning.message.clone()).collect::<Vec<_>>()
        };
        written(10);
        put("max_age = '30d'");
        let first = activate(&config).unwrap();
        assert_eq!((first.changed, warned(&first)), (true, vec![]));
        assert!(!activate(&config).unwrap().changed);
        // Nothing but the time at which it was current has changed, and that is what counts.
        written(40);
        let second = activate(&config).unwrap();
        assert!(second.changed);
        assert_eq!(
            warned(&second),
            [
                "the trusted root `ours` was last known to be current 40 days ago, which is longer than its max_age: nothing counts under it"
            ]
        );
        let (active, _) = load(&config).unwrap();
        assert!(active.roots[0].until().unwrap() < Timestamp::now());
        // Without max_age it is old after 90 days, and no more than that.
        put("");
        assert_eq!(warned(&activate(&config).unwrap()), [""; 0]);
        written(91);
        let old = activate(&config).unwrap();
        assert!(!old.changed);
        assert_eq!(
            warned(&old),
            ["the trusted root `ours` was last known to be current 91 days ago"]
        );
    }

    #[test]
    fn a_state_that_others_can_reach_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let (_folder, config) = node();
        activate(&config).unwrap();
        fs::set_permissions(config.state.join(DIRECTORY), fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(load(&config).unwrap_err().code(), "policy-unreadable");
        assert!(matches!(activate(&config), Err(ActivateError::State(_))));
    }
}
