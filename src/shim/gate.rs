//! Which further processes may be started in a container: by its decision, and by the agent's word. What became of each
//! is a line of the decision log.
//!
//! It stands before those who come from outside, through containerd. What runs in the container starts programs without
//! asking anybody.

use std::collections::HashMap;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::bar;
use super::hidden::Program;
use crate::admission::exec::{Asked, ExecRecord, Plea};
use crate::admission::{Decision, Exec, Image, Mount, Verdict, log as decisions};
use crate::diagnostic::printable;
use crate::digest::Digest;
use crate::grant;
use crate::policy::ExecMode;
use crate::store::{self, StateDir};

/// After how long the same process is recorded again.
const PERIOD: Duration = Duration::from_secs(3600);
/// Most records of one container in a [`PERIOD`].
const MAX_RECORDS: u32 = 120;
/// Code of the refusal of a program that is not there.
pub const NOT_FOUND: &str = "exec-not-found";
/// Code of the refusal of a process that the agent's word forbids.
const BARRED: &str = "exec-barred";
/// Bits of a mode of which a program has one.
const EXECUTABLE: u32 = 0o111;

/// Decides about further processes of one container.
#[derive(Debug)]
pub struct Gate {
    policy: Option<Exec>,
    /// Whether it sees its image through a view.
    narrowed: bool,
    name: String,
    image: Option<Image>,
    /// Where the log is.
    state: PathBuf,
    /// Where a file would be that forbids further processes.
    bar: PathBuf,
    /// Directory that takes what the container writes.
    upper: Option<PathBuf>,
    /// The container's root, as the node sees it.
    rootfs: PathBuf,
    history: Mutex<History>,
}

impl Gate {
    /// The gate of a container with this decision and these mounts for its root. A bar that is there is another
    /// container's.
    #[must_use]
    pub fn new(decision: &Decision, mounts: &[Mount], rootfs: PathBuf, state: PathBuf, bar: PathBuf) -> Self {
        let _ = std::fs::remove_file(&bar);
        let upper = mounts.iter().find_map(|mount| mount.option("upperdir"));
        Self {
            policy: decision.exec.clone(),
            narrowed: decision.view.is_some(),
            name: decision.name.clone(),
            image: decision.image.clone(),
            state,
            bar,
            upper: upper.map(PathBuf::from),
            rootfs,
            history: Mutex::default(),
        }
    }

    /// Leaves no file behind that forbids processes of a container that is gone.
    pub fn end(&self) {
        // Most never have one.
        let _ = std::fs::remove_file(&self.bar);
    }

    /// Decides about a process. `pid` is that of the container's first process.
    #[must_use]
    pub fn judge(&self, asked: Asked<'_>, program: &Program, pid: i32) -> ExecRecord {
        let mut record = ExecRecord {
            name: self.name.clone(),
            digest: (self.image.as_ref()).map(|image| *image.manifests.first().unwrap_or(&image.config)),
            rule: self.policy.as_ref().map(|policy| policy.rule.clone()),
            ..ExecRecord::new(asked)
        };
        if let Some(reason) = bar::reason(&self.bar) {
            record.refuse(
                BARRED,
                reason,
                "delete the container; an administrator sees why with: assay decisions",
            );
            return record;
        }
        let Some(policy) = &self.policy else {
            return record;
        };
        match self.word(policy, program, pid) {
            Ok((code, reason)) => {
                code.clone_into(&mut record.code);
                reason.clone_into(&mut record.reason);
            }
            Err(refusal) if policy.audit => {
                "exec-audit".clone_into(&mut record.code);
                record.reason = format!(
                    "under enforce it would be refused: {}: {}",
                    refusal.code(),
                    refusal.reason(policy)
                );
            }
            Err(refusal) => record.refuse(refusal.code(), refusal.reason(policy), refusal.fix()),
        }
        record
    }

    /// What is to be asked about a refused process, where this node has grants that may open it. What the agent barred is
    /// first to be judged again by it.
    #[must_use]
    pub fn plea(&self, record: &ExecRecord) -> Option<Plea> {
        if record.verdict == Verdict::Allow || record.code == BARRED || !grant::are_any(&self.state) {
            return None;
        }
        Some(Plea {
            version: record.version,
            namespace: record.namespace.clone(),
            container: record.container.clone(),
            name: self.name.clone(),
            image: self.image.clone(),
            code: record.code.clone(),
            reason: record.reason.clone(),
        })
    }

    /// What the rule says.
    fn word(&self, policy: &Exec, program: &Program, pid: i32) -> Result<(&'static str, &'static str), Refusal> {
        if policy.mode == ExecMode::Deny && policy.programs.is_empty() {
            return Err(Refusal::Denied);
        }
        let unreadable = |error: Errno| Refusal::Unreadable(error.to_string());
        let root = open(&PathBuf::from(format!("/proc/{pid}/root"))).map_err(unreadable)?;
        // The new process starts at the root of the mounts, wherever the first one went.
        let own = open(&self.rootfs).map_err(unreadable)?;
        if !is_same(&root, &own).map_err(unreadable)? {
            return Err(Refusal::Unreadable("its first process has another root".to_owned()));
        }
        if program.is_searched_beyond() {
            return Err(Refusal::Unreadable("its PATH has too many directories".to_owned()));
        }
        // The OCI runtime passes over what the process may not reach, which the container can arrange: whatever it may
        // come to has to be allowed.
        let found = locate(&root, &program.candidates(), self.upper.as_deref())?;
        let mut word = Err(match policy.mode {
            ExecMode::Closure if !self.narrowed => Refusal::NoView,
            ExecMode::Closure => Refusal::Missing,
            ExecMode::Deny | ExecMode::Allow => Refusal::Denied,
        });
        for one in &found {
            // The same file by another path, as where /bin is a link to /usr/bin.
            let mut same = found.iter().filter(|other| other.file == one.file);
            let allowed = same.find_map(|other| self.place(policy, other).ok());
            let said = allowed.map_or_else(|| self.place(policy, one), Ok)?;
            word = word.or(Ok(said));
        }
        word
    }

    /// What the rule says about a program at a place.
    fn place(&self, policy: &Exec, found: &Found) -> Result<(&'static str, &'static str), Refusal> {
        let path = found.path.clone();
        if policy.programs.contains(&path) {
            return Ok(("exec-listed", "[rule.filesystem] of its rule names the program"));
        }
        match (policy.mode, found.place) {
            (ExecMode::Closure, _) if !self.narrowed => Err(Refusal::NoView),
            (ExecMode::Closure, Place::Image) => {
                Ok(("exec-in-closure", "the program is one of its image that its view shows"))
            }
            (ExecMode::Closure, Place::Mounted) => Err(Refusal::Mounted(path)),
            (ExecMode::Closure, Place::Written) => Err(Refusal::Written(path)),
            (ExecMode::Deny | ExecMode::Allow, _) => Err(Refusal::Denied),
        }
    }

    /// Writes what became of a process, unless the same was written a short while ago; each of those that a grant opened.
    /// A log that cannot be written keeps nobody from repairing the node, but opens nothing.
    ///
    /// # Errors
    /// A log that cannot be written.
    pub fn record(&self, mut record: ExecRecord, arguments: &[String]) -> Result<(), store::Error> {
        let alone = record.grant.as_ref().map_or("", |_| record.exec.as_str());
        let key = format!(
            "{:?}\0{}\0{}\0{}\0{alone}",
            arguments, record.terminal, record.user, record.code
        );
        let key = Digest::of(key.as_bytes());
        let due = self
            .history
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .note(key, Instant::now());
        let Some((times, unrecorded)) = due else { return Ok(()) };
        (record.times, record.unrecorded) = (times, unrecorded);
        StateDir::open(&self.state)
            .and_then(|state| decisions::record(&state, &record))
            .inspect_err(|error| log::error!("an exec in {} is not recorded: {error}", record.container))
    }
}

/// Why a program may not be started.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    Denied,
    NoView,
    Mounted(String),
    Written(String),
    Missing,
    Unreadable(String),
}

impl Refusal {
    fn code(&self) -> &'static str {
        match self {
            Self::Denied => "exec-denied",
            Self::NoView => "exec-no-view",
            Self::Mounted(_) => "exec-on-mount",
            Self::Written(_) => "exec-written",
            Self::Missing => NOT_FOUND,
            Self::Unreadable(_) => "exec-unreadable",
        }
    }

    fn reason(&self, policy: &Exec) -> String {
        let Exec { rule, at, .. } = policy;
        let by = format!("rule \"{}\" ({at})", printable(rule));
        match self {
            Self::Denied => format!("{by} lets no program be started in it that [rule.filesystem] does not name"),
            Self::NoView => format!(
                "{by} lets only programs be started that the container's view shows, and this container has no view"
            ),
            Self::Mounted(path) => format!(
                "{by} lets only programs of its image be started, and {} is on a mount",
                printable(path)
            ),
            Self::Written(path) => format!(
                "{by} lets only programs of its image be started, and {} was written or changed by the container",
                printable(path)
            ),
            Self::Missing => format!(
                "{by} lets only programs be started that the container's view shows, and it shows none of this name"
            ),
            Self::Unreadable(why) => {
                format!("{by} lets only some programs be started, and which this is cannot be seen: {why}")
            }
        }
    }

    fn fix(&self) -> &'static str {
        match self {
            Self::Denied | Self::Missing | Self::Mounted(_) => {
                "an administrator adds the program to exec in the rule's [rule.filesystem], runs assay policy apply, and \
                 the container is created again"
            }
            Self::Written(_) => "run a program of the image; delete the container if nobody should have written there",
            Self::NoView => "an administrator sees why there is no view with: assay explain CONTAINER",
            Self::Unreadable(_) => "try again; if it stays, look at the node's kernel log",
        }
    }
}

/// Where a program is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In the image.
    Image,
    /// On another file system that is mounted in the container.
    Mounted,
    /// In what the container wrote, the image's own file included once anything about it was changed.
    Written,
}

/// A program in the container.
#[derive(Debug)]
struct Found {
    path: String,
    place: Place,
    /// Device and inode.
    file: (u64, u64),
}

/// Those of the paths at which there is a program, and where that is. `root` is the container's, as its processes
/// see it, and `upper` what they wrote.
fn locate(root: &OwnedFd, paths: &[String], upper: Option<&Path>) -> Result<Vec<Found>, Refusal> {
    // Links such as /proc/1/root lead out of every root.
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let mut found = Vec::new();
    for path in paths {
        let place = match look(root, path, inside | ResolveFlags::NO_XDEV) {
            Err(Errno::XDEV) => look(root, path, inside).map(|file| file.map(|file| (Place::Mounted, file))),
            Ok(Some(file)) if is_of_image(root, &file, upper) => Ok(Some((Place::Image, file))),
            Ok(file) => Ok(file.map(|file| (Place::Written, file))),
            Err(error) => Err(error),
        };
        let unreadable = |error: Errno| Refusal::Unreadable(format!("{}: {error}", printable(path)));
        if let Some((place, file)) = place.map_err(unreadable)? {
            let stat = stat(&file).map_err(unreadable)?;
            found.push(Found {
                path: path.clone(),
                place,
                file: (stat.st_dev, stat.st_ino),
            });
        }
    }
    Ok(found)
}

/// The program at a path, if there is one.
fn look(root: &OwnedFd, path: &str, how: ResolveFlags) -> Result<Option<OwnedFd>, Errno> {
    let file = match rustix::fs::openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), how) {
        Ok(file) => file,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(error) => return Err(error),
    };
    let stat = stat(&file)?;
    let is_program = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_mode & EXECUTABLE != 0;
    Ok(is_program.then_some(file))
}

/// Whether a file of the root's own file system was not touched by the container. What cannot be told was.
fn is_of_image(root: &OwnedFd, file: &OwnedFd, upper: Option<&Path>) -> bool {
    let Some(upper) = upper else {
        // A view over such a snapshot is read-only.
        return true;
    };
    let link = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    let Ok(path) = std::fs::read_link(link) else {
        return false;
    };
    // The kernel's path of the file must lead to the file, or it is none.
    let straight = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let again = rustix::fs::openat2(root, &path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), straight);
    if again.and_then(|again| is_same(file, &again)) != Ok(true) {
        return false;
    }
    let Ok(upper) = open(upper) else { return false };
    let written = rustix::fs::openat2(
        &upper,
        &path,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS,
    );
    matches!(written, Err(Errno::NOENT | Errno::NOTDIR))
}

fn is_same(file: &OwnedFd, other: &OwnedFd) -> Result<bool, Errno> {
    let (one, other) = (stat(file)?, stat(other)?);
    Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}

fn stat(file: &OwnedFd) -> Result<Stat, Errno> {
    rustix::fs::statat(file, c"", AtFlags::EMPTY_PATH)
}

fn open(path: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// What was recorded: a probe each second leaves a line an hour, and nobody fills the log with ever other commands.
#[derive(Debug, Default)]
struct History {
    seen: HashMap<Digest, Seen>,
    /// Since when the records are counted.
    since: Option<Instant>,
    records: u32,
    unrecorded: u64,
}

#[derive(Debug)]
struct Seen {
    recorded: Instant,
    /// How often it came again since.
    again: u64,
}

impl History {
    /// Takes note of a process. Where it is to be recorded: how often it came since it was recorded last, and how many
    /// others were not recorded.
    fn note(&mut self, key: Digest, now: Instant) -> Option<(u64, u64)> {
        let is_past = |since: Instant| now.saturating_duration_since(since) >= PERIOD;
        if let Some(seen) = self.seen.get_mut(&key)
            && !is_past(seen.recorded)
        {
            seen.again += 1;
            return None;
        }
        if self.since.is_none_or(is_past) {
            (self.since, self.records) = (Some(now), 0);
            // Those that came again wait for their next time, the others are over.
            self.seen
                .retain(|known, seen| *known == key || seen.again > 0 || !is_past(seen.recorded));
        }
        if self.records == MAX_RECORDS {
            self.unrecorded += 1;
            return None;
        }
        self.records += 1;
        if self.seen.len() >= MAX_RECORDS as usize * 2 {
            self.seen.clear();
        }
        let before = self.seen.insert(
            key,
            Seen {
                recorded: now,
                again: 0,
            },
        );
        let times = before.map_or(0, |before| before.again) + 1;
        Some((times, std::mem::take(&mut self.unrecorded)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::{Request, reject};

    fn gate(mode: ExecMode, programs: &[&str], audit: bool) -> (tempfile::TempDir, Gate) {
        let folder = tempfile::tempdir().unwrap();
        let decision = Decision {
            exec: Some(Exec {
                mode,
                rule: "release images".to_owned(),
                at: "/etc/assay/policy.d/50.toml:7".to_owned(),
                programs: programs.iter().map(ToString::to_string).collect(),
                audit,
            }),
            ..reject(&Request::parse(b"{").unwrap_err())
        };
        let at = folder.path().canonicalize().unwrap();
        let gate = Gate::new(&decision, &[], PathBuf::from("/"), at.join("state"), at.join("bar"));
        (folder, gate)
    }

    fn judge(gate: &Gate, program: &str) -> ExecRecord {
        judge_in(gate, program, "/usr/bin:/bin")
    }

    fn judge_in(gate: &Gate, program: &str, search: &str) -> ExecRecord {
        let env = [format!("PATH={search}")];
        let json = serde_json::json!({ "args": [program, "secret"], "user": { "uid": 7 }, "env": env });
        let program: Program = serde_json::from_value(json).unwrap();
        let asked = Asked {
            id: "exec",
            arguments: &program.args,
            terminal: true,
            user: program.user(),
        };
        // This process's own root stands for a container's.
        gate.judge(asked, &program, std::process::id().cast_signed())
    }

    fn said(record: &ExecRecord) -> (Verdict, &str) {
        (record.verdict, record.code.as_str())
    }

    #[test]
    fn what_a_rule_denies_is_refused_with_program_file_and_line() {
        let (_folder, denied) = gate(ExecMode::Deny, &[], false);
        let record = judge(&denied, "/bin/sh");
        assert_eq!((record.user, record.rule.as_deref()), (7, Some("release images")));
        insta::assert_snapshot!(record.line(), @r#"assay refused exec of /bin/sh: exec-denied: rule "release images" (/etc/assay/policy.d/50.toml:7) lets no program be started in it that [rule.filesystem] does not name; to fix: an administrator adds the program to exec in the rule's [rule.filesystem], runs assay policy apply, and the container is created again"#);
        let (_folder, audited) = gate(ExecMode::Deny, &[], true);
        assert_eq!(said(&judge(&audited, "/bin/sh")), (Verdict::Allow, "exec-audit"));
        let (_folder, without_view) = gate(ExecMode::Closure, &[], false);
        assert_eq!(
            said(&judge(&without_view, "/bin/sh")),
            (Verdict::Refuse, "exec-no-view")
        );
    }

    #[test]
    fn a_program_that_the_rule_names_is_started_by_any_way_that_leads_to_its_path_and_no_other_is() {
        let (_folder, listed) = gate(ExecMode::Deny, &["/bin/sh"], false);
        assert_eq!(said(&judge(&listed, "/bin/sh")), (Verdict::Allow, "exec-listed"));
        for program in ["/bin/../bin/sh", "/bin/cat", "cat", "", "/bin", "/no/such"] {
            assert_eq!(
                said(&judge(&listed, program)),
                (Verdict::Refuse, "exec-denied"),
                "{program}"
            );
        }
    }

    #[test]
    fn all_that_a_name_may_lead_to_has_to_be_allowed() {
        let (folder, listed) = gate(ExecMode::Deny, &["/bin/sh"], false);
        let own = folder.path().canonicalize().unwrap();
        assert_eq!(said(&judge_in(&listed, "sh", "/bin")), (Verdict::Allow, "exec-listed"));
        let search = format!("/bin:{}", own.display());
        assert_eq!(said(&judge_in(&listed, "sh", &search)), (Verdict::Allow, "exec-listed"));
        std::os::unix::fs::symlink("/bin/sh", own.join("sh")).unwrap();
        assert_eq!(said(&judge_in(&listed, "sh", &search)), (Verdict::Allow, "exec-listed"));
        std::fs::remove_file(own.join("sh")).unwrap();
        std::fs::copy("/bin/sh", own.join("sh")).unwrap();
        assert_eq!(
            said(&judge_in(&listed, "sh", &search)),
            (Verdict::Refuse, "exec-denied")
        );
        let long = format!("/bin{}", ":/bin".repeat(100));
        assert_eq!(
            said(&judge_in(&listed, "sh", &long)),
            (Verdict::Refuse, "exec-unreadable")
        );
    }

    #[test]
    fn a_program_in_another_root_than_that_of_the_mounts_cannot_be_told() {
        let (folder, mut listed) = gate(ExecMode::Deny, &["/bin/sh"], false);
        listed.rootfs = folder.path().to_owned();
        assert_eq!(said(&judge(&listed, "/bin/sh")), (Verdict::Refuse, "exec-unreadable"));
    }

    #[test]
    fn the_word_of_the_agent_comes_before_the_rule() {
        let (_folder, listed) = gate(ExecMode::Deny, &["/bin/sh"], false);
        std::fs::write(&listed.bar, "its key is distrusted").unwrap();
        let record = judge(&listed, "/bin/sh");
        assert_eq!(said(&record), (Verdict::Refuse, "exec-barred"));
        assert!(record.line().contains("its key is distrusted"), "{}", record.line());
        listed.end();
        assert_eq!(said(&judge(&listed, "/bin/sh")), (Verdict::Allow, "exec-listed"));
    }

    #[test]
    fn a_probe_each_second_leaves_a_line_an_hour() {
        let mut history = History::default();
        let start = Instant::now();
        let written: Vec<_> = (0..7200)
            .filter_map(|second| history.note(Digest::of(b"probe"), start + Duration::from_secs(second)))
            .collect();
        assert_eq!(written, [(1, 0), (3600, 0)]);
    }

    #[test]
    fn nobody_fills_the_log_and_what_is_not_in_it_is_counted() {
        let mut history = History::default();
        let start = Instant::now();
        let key = |number: u32| Digest::of(&number.to_le_bytes());
        let written = (0..100_000)
            .filter_map(|number| history.note(key(number), start))
            .count();
        assert_eq!(written, MAX_RECORDS as usize);
        assert!(history.seen.len() <= MAX_RECORDS as usize * 2);
        let unrecorded = 100_000 - u64::from(MAX_RECORDS);
        assert_eq!(history.note(key(1_000_000), start + PERIOD), Some((1, unrecorded)));
        assert_eq!(history.note(key(1_000_001), start + PERIOD), Some((1, 0)));
    }
}
