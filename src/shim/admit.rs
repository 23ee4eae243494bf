//! Asking for admission: one `assay admit` per container, and a refusal for everything that is not its clear answer.

use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use std::{env, fs, io};

use serde::Serialize;

use super::child::Children;
use crate::admission::exec::{Opened, Plea};
use crate::admission::{Decision, Edits, Request, VERSION, Verdict};

/// Environment variable that names another configuration file.
pub const CONFIG: &str = "ASSAY_CONFIG";
/// Name of the program that is asked.
const PROGRAM: &str = "assay";
/// Where a package puts it.
const PACKAGED: &str = "/usr/bin";
/// Shown with a refusal that only an administrator can lift.
const SEE_LOG: &str = "run 'assay admit' by hand with the request in the shim's debug log, or see containerd's log";

/// Finds the program that is asked: beside the shim, else in the search path, as containerd finds the shim itself.
///
/// To be called when the shim starts: after an upgrade the path of a running program is no longer known.
///
/// # Errors
/// When the kernel does not say where this program lies.
pub fn program() -> io::Result<PathBuf> {
    Ok(find(&env::current_exe()?, &env::var_os("PATH").unwrap_or_default()))
}

fn find(shim: &Path, search: &OsStr) -> PathBuf {
    let beside = shim.with_file_name(PROGRAM);
    // Who can replace `assay` can mostly replace the shim just as well; but to a sticky directory, such as /tmp,
    // everyone may add a file and nobody may replace another's.
    let shared = shim.parent().is_none_or(is_sticky);
    if !shared && beside.is_file() {
        return beside;
    }
    let mut found = env::split_paths(search).filter(|dir| dir.is_absolute() && !is_sticky(dir));
    let fallback = if shared {
        Path::new(PACKAGED).join(PROGRAM)
    } else {
        beside
    };
    found
        .find_map(|dir| Some(dir.join(PROGRAM)).filter(|file| file.is_file()))
        .unwrap_or(fallback)
}

fn is_sticky(dir: &Path) -> bool {
    fs::metadata(dir).is_ok_and(|meta| meta.mode() & libc::S_ISVTX != 0)
}

/// How admission is asked for.
#[derive(Debug)]
pub struct Admission {
    /// The `assay` program.
    pub program: PathBuf,
    /// containerd's gRPC socket.
    pub containerd: String,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    #[error("{} cannot be run: {source}", program.display())]
    NotRun { program: PathBuf, source: io::Error },
    #[error("no answer within {0:?}")]
    Late(Duration),
    #[error("assay admit ended with status {status}: {stderr}")]
    Crashed { status: u32, stderr: String },
    #[error("the answer of assay admit cannot be read: {0}")]
    Unreadable(String),
}

impl NoAnswer {
    fn code(&self) -> &'static str {
        match self {
            Self::NotRun { .. } => "admit-missing",
            Self::Late(_) => "admit-timeout",
            Self::Crashed { .. } => "admit-crashed",
            Self::Unreadable(_) => "admit-unreadable",
        }
    }

    fn fix(&self) -> String {
        match self {
            Self::NotRun { .. } => {
                format!("install the program '{PROGRAM}' beside containerd-shim-assay-v1, or in containerd's PATH")
            }
            Self::Late(_) => "find what is slow with 'assay verify', or raise admit_timeout".to_owned(),
            Self::Crashed { .. } | Self::Unreadable(_) => {
                format!("install assay and containerd-shim-assay-v1 of the same version; {SEE_LOG}")
            }
        }
    }
}

impl Admission {
    /// Asks; whatever goes wrong is a refusal.
    pub async fn ask(&self, children: &Arc<Children>, request: &Request, config: &str, timeout: Duration) -> Decision {
        let decision = self.answer(children, request, config, timeout).await;
        decision.unwrap_or_else(|error| Decision {
            version: VERSION,
            time: jiff::Timestamp::now().to_string(),
            namespace: request.namespace.clone(),
            container: request.container.clone(),
            verdict: Verdict::Refuse,
            code: error.code().to_owned(),
            reason: error.to_string(),
            fix: error.fix(),
            policy: false,
            name: String::new(),
            pod: None,
            image: None,
            hooks: Vec::new(),
            devices: Vec::new(),
            rule: None,
            audit: Vec::new(),
            evidence: Vec::new(),
            repeated: false,
            phases: Vec::new(),
            edits: Edits::default(),
            view: None,
            files: None,
            syscalls: None,
            exec: None,
            grant: None,
            basis: None,
        })
    }

    /// `assay` with a command, and with the configuration in `config`, or the one that the environment names.
    pub(super) fn command(&self, verb: &str, config: &str) -> Command {
        let mut command = Command::new(&self.program);
        // Its verdict must not depend on what containerd happens to have in its environment.
        command.arg(verb).env_clear();
        if !config.is_empty() {
            command.env(CONFIG, config);
        } else if let Some(config) = std::env::var_os(CONFIG) {
            command.env(CONFIG, config);
        }
        command
    }

    /// Asks whether a grant opens a process that a rule refuses; whatever goes wrong opens nothing.
    pub async fn plead(&self, children: &Arc<Children>, plea: &Plea, config: &str, timeout: Duration) -> Opened {
        let answer = async {
            let output = self.output(children, "admit-exec", plea, config, timeout).await?;
            let opened: Opened =
                serde_json::from_slice(&output).map_err(|error| NoAnswer::Unreadable(error.to_string()))?;
            let blank = Opened::new(plea);
            let is_about = |opened: &Opened| {
                (opened.version, &opened.namespace, &opened.container)
                    == (blank.version, &blank.namespace, &blank.container)
            };
            if is_about(&opened) {
                Ok(opened)
            } else {
                Err(NoAnswer::Unreadable("it is about another container".to_owned()))
            }
        };
        answer.await.unwrap_or_else(|error| Opened {
            notes: vec![format!("grants cannot be asked for: {}: {error}", error.code())],
            ..Opened::new(plea)
        })
    }

    async fn answer(
        &self,
        children: &Arc<Children>,
        request: &Request,
        config: &str,
        timeout: Duration,
    ) -> Result<Decision, NoAnswer> {
        read(
            &self.output(children, "admit", request, config, timeout).await?,
            request,
        )
    }

    /// What `assay` says to a question.
    async fn output(
        &self,
        children: &Arc<Children>,
        verb: &str,
        question: &impl Serialize,
        config: &str,
        timeout: Duration,
    ) -> Result<Vec<u8>, NoAnswer> {
        let input = serde_json::to_vec(question).map_err(|error| NoAnswer::Unreadable(error.to_string()))?;
        log::debug!("{verb} {}", String::from_utf8_lossy(&input));
        let mut command = self.command(verb, config);
        let run = children.run(&mut command, &input);
        let output = tokio::time::timeout(timeout, run)
            .await
            .map_err(|_| NoAnswer::Late(timeout))?
            .map_err(|source| NoAnswer::NotRun {
                program: self.program.clone(),
                source,
            })?;
        if output.exit.status != 0 {
            let stderr: String = String::from_utf8_lossy(&output.stderr)
                .trim()
                .chars()
                .take(500)
                .collect();
            return Err(NoAnswer::Crashed {
                status: output.exit.status,
                stderr,
            });
        }
        Ok(output.stdout)
    }
}

fn read(answer: &[u8], request: &Request) -> Result<Decision, NoAnswer> {
    let decision: Decision = serde_json::from_slice(answer).map_err(|error| NoAnswer::Unreadable(error.to_string()))?;
    if decision.version != VERSION {
        return Err(NoAnswer::Unreadable(format!(
            "version {}, expected {VERSION}",
            decision.version
        )));
    }
    if decision.container != request.container || decision.namespace != request.namespace {
        return Err(NoAnswer::Unreadable("it is about another container".to_owned()));
    }
    Ok(decision)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn ask(script: &str) -> Decision {
        // A busy machine takes its time for the others.
        let patience = Duration::from_millis(if script.starts_with("sleep") { 500 } else { 60_000 });
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("assay");
        if !script.is_empty() {
            fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let admission = Admission {
            program,
            containerd: String::new(),
        };
        let request = Request {
            version: VERSION,
            containerd: String::new(),
            namespace: "n".into(),
            container: "c".into(),
            bundle: "/b".into(),
            rootfs: Vec::new(),
            checkpoint: false,
            runtime: String::new(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            admission
                .ask(&Arc::new(Children::default()), &request, "", patience)
                .await
        })
    }

    #[test]
    fn assay_is_found_beside_the_shim_or_in_the_path_but_never_where_everyone_may_put_it() {
        let dir = tempfile::tempdir().unwrap();
        let [own, shared, bin] = ["own", "shared", "bin"].map(|name| dir.path().join(name));
        for place in [&own, &shared, &bin] {
            fs::create_dir(place).unwrap();
            fs::write(place.join("assay"), "").unwrap();
        }
        fs::set_permissions(&shared, fs::Permissions::from_mode(0o1777)).unwrap();
        let search = env::join_paths([&shared, &bin]).unwrap();
        assert_eq!(find(&own.join("shim"), &search), own.join("assay"));
        assert_eq!(find(&shared.join("shim"), &search), bin.join("assay"));
        fs::remove_file(own.join("assay")).unwrap();
        assert_eq!(find(&own.join("shim"), &search), bin.join("assay"));
        fs::remove_file(bin.join("assay")).unwrap();
        assert_eq!(find(&own.join("shim"), &search), own.join("assay"));
        assert_eq!(find(&shared.join("shim"), &search), Path::new("/usr/bin/assay"));
    }

    #[test]
    fn everything_but_a_clear_answer_is_a_refusal() {
        let allow = |container: &str, version: u32| {
            format!(
                r#"{{"version":{version},"time":"","namespace":"n","container":"{container}","verdict":"allow","code":"x","reason":"","fix":"","policy":true,"repeated":false,"phases":[]}}"#
            )
        };
        assert_eq!(ask(&format!("echo '{}'", allow("c", VERSION))).verdict, Verdict::Allow);
        for (script, code) in [
            (String::new(), "admit-missing"),
            ("sleep 60".to_owned(), "admit-timeout"),
            ("exit 3".to_owned(), "admit-crashed"),
            ("kill -SEGV $$".to_owned(), "admit-crashed"),
            (format!("echo '{}'; exit 1", allow("c", VERSION)), "admit-crashed"),
            ("true".to_owned(), "admit-unreadable"),
            ("echo '{}'".to_owned(), "admit-unreadable"),
            ("head -c 3000000 /dev/zero".to_owned(), "admit-unreadable"),
            (format!("echo '{} trailing'", allow("c", VERSION)), "admit-unreadable"),
            (format!("echo '{}'", allow("other", VERSION)), "admit-unreadable"),
            (format!("echo '{}'", allow("c", VERSION + 1)), "admit-unreadable"),
        ] {
            let decision = ask(&script);
            assert_eq!(
                (decision.verdict, decision.code.as_str()),
                (Verdict::Refuse, code),
                "{script}"
            );
            assert!(!decision.fix.is_empty());
        }
    }
}
