//! The grants of this node: one file for each below `state`, kept until the grant is long over, so that what was revoked
//! or has ended cannot be added again.

use std::os::fd::AsFd as _;

use jiff::{SignedDuration, Timestamp};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::{Container, Fault, Grant, Granted, ID, MAX_ENVELOPE, Scope, Subject, is_id, verify};
use crate::digest::Digest;
use crate::policy::Active;
use crate::store::{self, StateDir};
use crate::trust::clock::{Clock, TOLERANCE};

/// Folder below `state`.
pub const DIRECTORY: &str = "grants";
const LOCK: &str = ".lock";
const SUFFIX: &str = ".json";
/// Largest file in bytes: an envelope as a text in JSON.
const MAX_FILE: u64 = 2 * MAX_ENVELOPE + 4096;
/// Most grants that are looked at.
const MAX_GRANTS: usize = 64;
/// How long a grant is remembered after its end.
const MEMORY: SignedDuration = SignedDuration::from_hours(24 * 7);
/// Most notes about grants that do not count.
const MAX_NOTES: usize = 2;
/// Where the kernel names the boot.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// A file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    /// The envelope, byte for byte.
    envelope: String,
    added: Timestamp,
    /// The boot in which it was added, and the second of that boot in which it ends, whatever the clock says.
    boot: String,
    ends: u64,
    /// When it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revoked: Option<Timestamp>,
    /// When it was first found to be over: a clock that is turned back brings nothing back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ended: Option<Timestamp>,
}

const VERSION: u32 = 1;

/// What became of a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// It was added to this node.
    Added,
    /// It was taken back on this node.
    Revoked,
}

/// Marks the record among those of decisions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecordKind {
    /// The only one.
    #[default]
    Grant,
}

/// A line of the decision log about a grant. Its uses are in the decisions that rest on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Version of the document, that of decisions.
    pub version: u32,
    /// What tells it from a decision.
    pub kind: RecordKind,
    /// When it was written, RFC 3339, UTC.
    pub time: String,
    /// What became of it.
    pub event: Event,
    /// The key of trust that signed it.
    pub key: String,
    /// The grant.
    pub grant: Grant,
}

/// Where a grant stands.
#[derive(Debug)]
pub enum State {
    /// It opens what it is about.
    Active {
        /// Until when: its own end, or that of its key.
        until: Timestamp,
    },
    /// It does not, and why.
    Not(Fault),
}

/// A grant that this node keeps.
#[derive(Debug)]
pub struct Held {
    /// What it says.
    pub grant: Grant,
    /// The key of trust that signed it.
    pub key: String,
    /// When it was added.
    pub added: Timestamp,
    /// Where it stands.
    pub state: State,
}

/// A file that is no grant, or one whose signature does not count.
#[derive(Debug)]
pub struct Unusable {
    /// Its name, without the ending.
    pub name: String,
    /// Why it is none.
    pub fault: Fault,
    /// What it says, for which nobody who is trusted vouches.
    claimed: Option<Grant>,
}

/// The grants of a node under the policy in force, at one time.
#[derive(Debug, Default)]
pub struct Grants {
    /// Those whose signature counts, by their identifiers.
    pub held: Vec<Held>,
    /// Files that are no grants, and why.
    pub faults: Vec<Unusable>,
}

/// No grants: where something is judged that is not of this moment on this node.
pub static NONE: Grants = Grants {
    held: Vec::new(),
    faults: Vec::new(),
};

impl Grants {
    /// Reads and verifies them all. What cannot be used opens nothing, and is said to whoever is refused.
    #[must_use]
    pub fn load(state: &StateDir, active: &Active, clock: Clock) -> Self {
        let mut grants = Self::default();
        if let Err(error) = grants.read(state, active, clock) {
            grants.faults.push(Unusable::directory(error));
        }
        grants
    }

    /// The one that opens something about a container of an image with these digests, the one that lasts longest; with
    /// `exec`, one that opens further processes.
    ///
    /// # Errors
    /// None does. Answers why those that are about it do not count, a sentence each, the newest first.
    pub fn opening(
        &self,
        digests: &[Digest],
        namespace: &str,
        container: &str,
        exec: bool,
    ) -> Result<(&Held, Timestamp), Vec<String>> {
        let about = || {
            let held = self.held.iter();
            held.filter(|held| held.grant.is_about(digests, namespace, container) && (held.grant.exec || !exec))
        };
        let active = about().filter_map(|held| match held.state {
            State::Active { until } => Some((held, until)),
            State::Not(_) => None,
        });
        active.max_by_key(|(_, until)| *until).ok_or_else(|| {
            let mut about: Vec<(Timestamp, &str, &Fault)> = about()
                .filter_map(|held| match &held.state {
                    State::Active { .. } => None,
                    State::Not(fault) => Some((held.added, held.grant.id.as_str(), fault)),
                })
                .collect();
            about.sort_by_key(|(added, ..)| std::cmp::Reverse(*added));
            let is_about = |grant: &Grant| grant.is_about(digests, namespace, container) && (grant.exec || !exec);
            let unusable = self.faults.iter();
            about
                .into_iter()
                .map(|(_, name, fault)| (name, fault))
                .chain(
                    unusable
                        .filter(|unusable| unusable.claimed.as_ref().is_none_or(is_about))
                        .map(|unusable| (unusable.name.as_str(), &unusable.fault)),
                )
                .take(MAX_NOTES)
                .map(|(name, fault)| format!("grant {name} does not count: {}: {fault}", fault.code()))
                .collect()
        })
    }

    fn read(&mut self, state: &StateDir, active: &Active, clock: Clock) -> Result<(), Fault> {
        let directory = state.subdir(DIRECTORY)?;
        let mut ids = ids(&directory)?;
        if ids.len() > MAX_GRANTS {
            ids.truncate(MAX_GRANTS);
            self.faults.push(Unusable::directory(Fault::TooMany(MAX_GRANTS)));
        }
        for id in ids {
            match read(&directory, &id, active, clock) {
                Ok((held, _)) => {
                    if let State::Not(Fault::Expired(at)) = held.state {
                        note_end(&directory, &id, at);
                    }
                    self.held.push(held);
                }
                Err(fault) => self.faults.push(Unusable {
                    claimed: claimed(&directory, &id),
                    name: id,
                    fault,
                }),
            }
        }
        Ok(())
    }
}

impl Unusable {
    fn directory(fault: Fault) -> Self {
        Self {
            name: DIRECTORY.to_owned(),
            fault,
            claimed: None,
        }
    }
}

impl Held {
    /// What a decision says of it, where it takes the place of a refusal.
    #[must_use]
    pub fn granted(&self, until: Timestamp, code: &str, why: &str) -> Granted {
        Granted {
            id: self.grant.id.clone(),
            reason: self.grant.reason.clone(),
            owner: self.grant.owner.clone(),
            key: self.key.clone(),
            until,
            refused: code.to_owned(),
            why: why.to_owned(),
        }
    }
}

impl std::fmt::Display for Record {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { event, key, grant, .. } = self;
        let what = match event {
            Event::Added => "added",
            Event::Revoked => "revoked",
        };
        let Grant {
            id,
            subject,
            scope,
            reason,
            owner,
            not_before,
            not_after,
            exec,
            ..
        } = grant;
        let opens = if *exec { "start and exec" } else { "start" };
        write!(
            formatter,
            "grant {id} {what}: {opens} of {subject} on {scope}, from {not_before:.0} to {not_after:.0}, by {owner}, \
             signed by key {key}: {reason}"
        )
    }
}

impl Record {
    fn new(event: Event, key: &str, grant: &Grant) -> Self {
        Self {
            version: crate::grant::VERSION,
            kind: RecordKind::Grant,
            time: Timestamp::now().to_string(),
            event,
            key: key.to_owned(),
            grant: grant.clone(),
        }
    }
}

/// Verifies an envelope and keeps it, once `record` has written down that it is. Grants that are long over are forgotten.
///
/// # Errors
/// A grant that will never open anything on this node, one that was added before, or a record or file that cannot be
/// written: then nothing is kept.
pub fn add(
    state: &StateDir,
    envelope: &[u8],
    active: &Active,
    clock: Clock,
    record: impl FnOnce(&Record) -> Result<(), store::Error>,
) -> Result<Held, Fault> {
    let (grant, key) = verify(envelope, active, clock.now)?;
    let directory = state.subdir(DIRECTORY)?;
    let _lock = directory.lock(LOCK)?;
    directory.remove_abandoned()?;
    sweep(&directory, clock.now, MEMORY)?;
    let name = name(&grant.id);
    if let Some(bytes) = directory.read(&name, MAX_FILE)? {
        return Err(match serde_json::from_slice::<File>(&bytes) {
            Ok(File { revoked: Some(at), .. }) => Fault::Revoked(at),
            _ => Fault::Present,
        });
    }
    // What is over may be forgotten for the sake of room, which opens nothing: it cannot be added again. What was revoked
    // and would not be over could.
    if ids(&directory)?.len() >= MAX_GRANTS {
        sweep(&directory, clock.now, SignedDuration::ZERO)?;
    }
    if ids(&directory)?.len() >= MAX_GRANTS {
        return Err(Fault::TooMany(MAX_GRANTS));
    }
    let left = grant.not_after.duration_since(clock.now);
    let file = File {
        version: VERSION,
        envelope: String::from_utf8_lossy(envelope).into_owned(),
        added: clock.now,
        boot: boot(),
        ends: uptime().saturating_add(u64::try_from(left.as_secs()).unwrap_or_default()),
        revoked: None,
        ended: None,
    };
    let held = judged(grant, key, &file, clock);
    match held.state {
        State::Active { .. } | State::Not(Fault::Pending(_)) => {}
        State::Not(fault) => return Err(fault),
    }
    record(&Record::new(Event::Added, &held.key, &held.grant))?;
    keep(&directory, &name, &file)?;
    Ok(held)
}

/// Takes back the grant `id`, or the only one whose identifier starts so, once `record` has written that down. It stays
/// taken back.
///
/// # Errors
/// No such grant, one that was revoked or is over, or a file that cannot be written.
pub fn revoke(
    state: &StateDir,
    id: &str,
    active: &Active,
    clock: Clock,
    record: impl FnOnce(&Record) -> Result<(), store::Error>,
) -> Result<Grant, Fault> {
    let directory = state.subdir(DIRECTORY)?;
    let _lock = directory.lock(LOCK)?;
    let missing = || Fault::Missing(crate::oci::shorten(id));
    let found: Vec<String> = ids(&directory)?
        .into_iter()
        .filter(|known| known.starts_with(id))
        .collect();
    let [id] = found.as_slice() else {
        return Err(missing());
    };
    let bytes = directory.read(&name(id), MAX_FILE)?.ok_or_else(missing)?;
    let mut file: File = serde_json::from_slice(&bytes).map_err(|error| Fault::Malformed(error.to_string()))?;
    if let Some(at) = file.revoked {
        return Err(Fault::Revoked(at));
    }
    file.revoked = Some(clock.now);
    // Whose key does not count any more is revoked as well.
    let (grant, key) = match verify(file.envelope.as_bytes(), active, clock.now) {
        Ok((grant, key)) => (grant, key.id.as_str()),
        Err(fault) => (super::envelope::unverified(file.envelope.as_bytes()).ok_or(fault)?, ""),
    };
    record(&Record::new(Event::Revoked, key, &grant))?;
    keep(&directory, &name(id), &file)?;
    Ok(grant)
}

/// Whether there is anything in the directory of grants below `state`: nobody who has none waits for them.
#[must_use]
pub fn are_any(state: &std::path::Path) -> bool {
    let entries = std::fs::read_dir(state.join(DIRECTORY));
    entries.is_ok_and(|mut entries| {
        entries
            .any(|entry| entry.is_ok_and(|entry| entry.file_name().to_str().is_some_and(|name| name.ends_with(SUFFIX))))
    })
}

/// The host name of this node.
#[must_use]
pub fn node() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn name(id: &str) -> String {
    format!("{id}{SUFFIX}")
}

/// Identifiers of the grants in a directory, in order.
fn ids(directory: &StateDir) -> Result<Vec<String>, store::Error> {
    let names = store::names(directory.as_fd(), directory.path())?.collect::<Result<Vec<_>, _>>()?;
    let mut ids: Vec<String> = names
        .iter()
        .filter_map(|name| name.strip_suffix(SUFFIX))
        .filter(|name| name.len() == ID && is_id(name))
        .map(str::to_owned)
        .collect();
    ids.sort();
    Ok(ids)
}

fn read(directory: &StateDir, id: &str, active: &Active, clock: Clock) -> Result<(Held, File), Fault> {
    let bytes = directory
        .read(&name(id), MAX_FILE)?
        .ok_or_else(|| Fault::Missing(id.to_owned()))?;
    let file: File = serde_json::from_slice(&bytes).map_err(|error| Fault::Malformed(error.to_string()))?;
    if file.version != VERSION {
        return Err(Fault::Malformed(format!("its file has version {}", file.version)));
    }
    let (grant, key) = verify(file.envelope.as_bytes(), active, clock.now)?;
    if grant.id != id {
        return Err(Fault::Malformed("its file has the name of another".to_owned()));
    }
    Ok((judged(grant, key, &file, clock), file))
}

/// Where a verified grant stands.
fn judged(grant: Grant, key: &crate::trust::Key, file: &File, clock: Clock) -> Held {
    let now = clock.now;
    let is_over = now >= grant.not_after || (file.boot == boot() && uptime() >= file.ends);
    let was_turned_back = now.saturating_add(TOLERANCE).unwrap_or(Timestamp::MAX) < file.added;
    let here = node();
    let fault = match (&grant.scope, file.revoked, file.ended) {
        (_, Some(at), _) => Some(Fault::Revoked(at)),
        (_, _, Some(at)) => Some(Fault::Expired(at)),
        (Scope::Node(wanted), ..) if *wanted != here => Some(Fault::Node {
            wanted: wanted.clone(),
            here,
        }),
        _ if is_over => Some(Fault::Expired(grant.not_after.min(now))),
        _ if clock.mark.is_none() || clock.is_behind() || was_turned_back => Some(Fault::Clock),
        _ if now < grant.not_before => Some(Fault::Pending(grant.not_before)),
        _ => None,
    };
    let until = key.until.map_or(grant.not_after, |until| until.min(grant.not_after));
    Held {
        key: key.id.clone(),
        added: file.added,
        state: fault.map_or(State::Active { until }, State::Not),
        grant,
    }
}

/// Writes down that a grant is over. Where that fails, it is found to be over again.
fn note_end(directory: &StateDir, id: &str, at: Timestamp) {
    let Ok(Some(_lock)) = directory.try_lock(LOCK) else {
        return;
    };
    let Ok(Some(bytes)) = directory.read(&name(id), MAX_FILE) else {
        return;
    };
    if let Ok(mut file) = serde_json::from_slice::<File>(&bytes)
        && file.ended.is_none()
        && file.revoked.is_none()
    {
        file.ended = Some(at);
        let _ = keep(directory, &name(id), &file);
    }
}

fn keep(directory: &StateDir, name: &str, file: &File) -> Result<(), Fault> {
    let bytes = serde_json::to_vec(file).map_err(|error| Fault::Malformed(error.to_string()))?;
    Ok(directory.write(name, &bytes)?)
}

/// Forgets what has been over for a time, whoever signed it.
fn sweep(directory: &StateDir, now: Timestamp, memory: SignedDuration) -> Result<(), Fault> {
    for id in ids(directory)? {
        let Some(grant) = claimed(directory, &id) else {
            continue;
        };
        if grant.not_after.saturating_add(memory).unwrap_or(Timestamp::MAX) < now {
            directory.remove(&name(&id))?;
        }
    }
    Ok(())
}

/// What a file says that it grants, whoever signed it.
fn claimed(directory: &StateDir, id: &str) -> Option<Grant> {
    let bytes = directory.read(&name(id), MAX_FILE).ok()??;
    let file: File = serde_json::from_slice(&bytes).ok()?;
    super::envelope::unverified(file.envelope.as_bytes())
}

/// What the kernel calls this boot; another each time where it does not say.
fn boot() -> String {
    std::fs::read_to_string(BOOT).map_or_else(|_| String::new(), |boot| boot.trim().to_owned())
}

/// Seconds since the boot, those of sleep included.
fn uptime() -> u64 {
    clock_gettime(ClockId::Boottime).tv_sec.unsigned_abs()
}

impl Subject {
    /// A container by its id.
    #[must_use]
    pub fn container(namespace: &str, id: &str) -> Self {
        Self::Container(Container {
            namespace: namespace.to_owned(),
            id: id.to_owned(),
        })
    }
}
