//! Further processes in a container that runs: what its decision says about them, and the record of what became of one.
//!
//! The shim decides by what the decision of the container says, so that an exec costs no round trip.

use serde::{Deserialize, Serialize};

use super::{Image, VERSION, Verdict};
use crate::diagnostic::printable;
use crate::digest::Digest;
use crate::grant::{GRANTED, Granted};
use crate::policy::{ExecMode, Rule};

/// Longest command line in a record, in bytes.
const MAX_COMMAND: usize = 512;
/// Longest path of a program in a record and in an error, in bytes.
const MAX_PROGRAM: usize = 256;

/// Which further processes may be started in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exec {
    /// Which; never [`ExecMode::Allow`], of which a decision says nothing.
    pub mode: ExecMode,
    /// Name of the rule that says so.
    pub rule: String,
    /// Where it says so, as `file:line`.
    pub at: String,
    /// Paths of the programs that `[rule.filesystem]` names: they may always.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub programs: Vec<String>,
    /// Under an audit rule nothing is refused; the record says what would be.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub audit: bool,
}

impl Exec {
    /// What a rule says about further processes; `None` where it allows them all.
    #[must_use]
    pub fn of(rule: &Rule, audit: bool) -> Option<Self> {
        (rule.exec.mode != ExecMode::Allow).then(|| Self {
            mode: rule.exec.mode,
            rule: rule.name.clone(),
            at: rule.exec.at.clone(),
            programs: rule.filesystem.exec.clone(),
            audit,
        })
    }
}

/// Marks the record among those of decisions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExecKind {
    /// The only one.
    #[default]
    Exec,
}

/// A line of the decision log about a further process in a container. Who asked for it is not known to a shim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecRecord {
    /// Version of the document, that of decisions.
    pub version: u32,
    /// What tells it from a decision.
    pub kind: ExecKind,
    /// When it was asked for, RFC 3339, UTC.
    pub time: String,
    /// containerd namespace.
    pub namespace: String,
    /// Container id.
    pub container: String,
    /// Image name that the container was created with.
    pub name: String,
    /// Digest of the image's manifest, else of its configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// Its id.
    pub exec: String,
    /// The program as it was asked for.
    pub program: String,
    /// The command line, its arguments parted by spaces, cut after 512 bytes. Never the environment.
    pub command: String,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// Its user id in the container.
    pub user: u32,
    /// Whether it may be started.
    pub verdict: Verdict,
    /// Stable code of the reason.
    pub code: String,
    /// The reason in a sentence.
    pub reason: String,
    /// What to do about a refusal.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub fix: String,
    /// Name of the rule that decided; absent where none says anything about further processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The grant that it rests on, in place of the rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<Granted>,
    /// How often the same was asked for since the record of it before, this time included.
    pub times: u64,
    /// How many others of this container were not recorded, because there were too many different ones.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unrecorded: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A process that is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Its id.
    pub id: &'a str,
    /// Program and arguments.
    pub arguments: &'a [String],
    /// Whether it has a terminal.
    pub terminal: bool,
    /// Its user id in the container.
    pub user: u32,
}

impl ExecRecord {
    /// The record of a process that is allowed because nothing says otherwise. The caller says where it is, and whether
    /// something does.
    #[must_use]
    pub fn new(asked: Asked<'_>) -> Self {
        Self {
            version: VERSION,
            kind: ExecKind::Exec,
            time: jiff::Timestamp::now().to_string(),
            namespace: String::new(),
            container: String::new(),
            name: String::new(),
            digest: None,
            exec: asked.id.to_owned(),
            program: cut(asked.arguments.first().map_or("", String::as_str), MAX_PROGRAM),
            command: command(asked.arguments),
            terminal: asked.terminal,
            user: asked.user,
            verdict: Verdict::Allow,
            code: "exec-allowed".to_owned(),
            reason: "nothing says which programs may be started in it".to_owned(),
            fix: String::new(),
            rule: None,
            grant: None,
            times: 1,
            unrecorded: 0,
        }
    }

    /// Makes a refusal of it.
    pub fn refuse(&mut self, code: &str, reason: String, fix: &str) {
        self.verdict = Verdict::Refuse;
        self.grant = None;
        code.clone_into(&mut self.code);
        self.reason = reason;
        fix.clone_into(&mut self.fix);
    }

    /// Takes in what was said about a refusal: a grant that opens it, or why none does.
    pub fn open(&mut self, opened: Opened) {
        match opened.grant {
            Some(granted) => {
                self.verdict = Verdict::Allow;
                GRANTED.clone_into(&mut self.code);
                self.reason = granted.sentence();
                self.fix.clear();
                self.grant = Some(granted);
            }
            None => {
                for note in opened.notes {
                    self.reason.push_str("; ");
                    self.reason.push_str(&note);
                }
            }
        }
    }

    /// The one line that whoever asked for a refused process reads.
    #[must_use]
    pub fn line(&self) -> String {
        let Self {
            program,
            code,
            reason,
            fix,
            ..
        } = self;
        format!("assay refused exec of {program}: {code}: {reason}; to fix: {fix}")
    }
}

/// What the shim asks `assay admit-exec` about a process that a rule refuses, as one JSON document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plea {
    /// Version of the document, that of decisions.
    pub version: u32,
    /// containerd namespace.
    pub namespace: String,
    /// Container id.
    pub container: String,
    /// Image name that the container was created with.
    pub name: String,
    /// The image that the container was proved to be.
    pub image: Option<Image>,
    /// Code of the refusal.
    pub code: String,
    /// The sentence of the refusal.
    pub reason: String,
}

/// The answer to a [`Plea`], one line of JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Opened {
    /// Version of the document, that of decisions.
    pub version: u32,
    /// containerd namespace.
    pub namespace: String,
    /// Container id.
    pub container: String,
    /// The grant that opens it; none where it stays refused.
    pub grant: Option<Granted>,
    /// Why grants that are about it do not.
    pub notes: Vec<String>,
}

impl Opened {
    /// The answer that opens nothing.
    #[must_use]
    pub fn new(plea: &Plea) -> Self {
        Self {
            version: VERSION,
            namespace: plea.namespace.clone(),
            container: plea.container.clone(),
            grant: None,
            notes: Vec::new(),
        }
    }
}

fn command(arguments: &[String]) -> String {
    let mut command = String::new();
    for argument in arguments {
        if !command.is_empty() {
            command.push(' ');
        }
        command.push_str(argument);
        if command.len() > MAX_COMMAND {
            break;
        }
    }
    cut(&command, MAX_COMMAND)
}

/// A text as it may be shown, with an ellipsis where it is longer than `most` bytes.
fn cut(text: &str, most: usize) -> String {
    let shown = printable(text);
    if shown.len() <= most {
        return shown.into_owned();
    }
    let end = shown.floor_char_boundary(most);
    format!("{}…", shown.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_bounded_and_cannot_forge_a_line() {
        let asked = |arguments: &[&str]| {
            let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
            ExecRecord::new(Asked {
                id: "probe",
                arguments: &arguments,
                terminal: false,
                user: 0,
            })
        };
        let plain = asked(&["/bin/sh", "-c", "echo\nallowed\u{1b}[2J"]);
        assert_eq!(plain.program, "/bin/sh");
        assert_eq!(plain.command, r"/bin/sh -c echo\u{a}allowed\u{1b}[2J");
        assert_eq!(asked(&[]).program, "");
        let long = asked(&["é".repeat(3000).as_str(), "argument"]);
        assert!(long.program.len() <= MAX_PROGRAM + '…'.len_utf8());
        assert!(long.command.len() <= MAX_COMMAND + '…'.len_utf8());
        let many = asked(&["a"; 100_000]);
        assert!(many.command.len() <= MAX_COMMAND + '…'.len_utf8());
    }
}
