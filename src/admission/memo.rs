//! What a parser answered before, so that starting the same image again needs no parser.
//!
//! Kept is the *answer*, not the verdict: policy is evaluated every time. An answer is kept only when it led to an
//! allow, and it counts only while everything it was made from is the same: the program, the active policy with its
//! keys, the subjects, and every file of the evidence cache that it rests on, by size, times and inode, index
//! included. A changed file, a removed one, an added one (which rewrites the index) or a new policy asks again. When a
//! fact holds is part of the answer and is compared with the clock every time.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, Stat};
use serde::{Deserialize, Serialize};

use super::parser::Judged;
use crate::digest::Digest;
use crate::store::{self, StateDir};

/// Folder below `run`.
const DIRECTORY: &str = "memo";
/// Largest memo in bytes.
const MAX_MEMO: u64 = 4 << 20;
/// Most memos that are kept. Each new policy and each new image adds one, and all are cheap to make again.
const MAX_MEMOS: usize = 1024;
const INDEX: &str = "index.json";

/// Everything that an answer was made from, except the evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Inputs {
    /// Version of this program and state of its file: another build may judge differently.
    program: Vec<String>,
    /// The active policy, which holds the keys.
    policy: Digest,
    /// Where the evidence is.
    evidence: String,
    subjects: Vec<Digest>,
}

/// A file of the evidence cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    size: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Memo {
    inputs: Inputs,
    files: Vec<File>,
    judged: Judged,
}

impl Inputs {
    /// `None` where this program's own file cannot be looked at; then nothing is remembered.
    pub(super) fn new(policy: Digest, evidence: &StateDir, subjects: &[Digest]) -> Option<Self> {
        let program = rustix::fs::stat("/proc/self/exe").ok()?;
        let mut subjects = subjects.to_vec();
        subjects.sort();
        Some(Self {
            program: [
                env!("CARGO_PKG_VERSION").to_owned(),
                format!("{:?}", file("", &program)),
            ]
            .into(),
            policy,
            evidence: evidence.path().display().to_string(),
            subjects,
        })
    }

    fn name(&self) -> Option<String> {
        let json = serde_json::to_vec(self).ok()?;
        Some(format!("{}.json", Digest::of(&json).hex()))
    }

    /// The answer to the same question, when nothing it rests on has changed.
    pub(super) fn recall(&self, run: &StateDir, evidence: &StateDir) -> Option<Judged> {
        // Anything unreadable is forgotten: asking again is always right.
        let bytes = run.subdir(DIRECTORY).ok()?.read(&self.name()?, MAX_MEMO).ok()??;
        let memo: Memo = serde_json::from_slice(&bytes).ok()?;
        let unchanged = |known: &File| look(evidence.as_fd(), &known.name).as_ref() == Some(known);
        (memo.inputs == *self && memo.files.iter().all(unchanged)).then_some(memo.judged)
    }

    /// Keeps an answer, unless a file it rests on may have changed since `asked`.
    pub(super) fn keep(
        self,
        run: &StateDir,
        evidence: &StateDir,
        judged: &Judged,
        asked: SystemTime,
    ) -> Result<(), store::Error> {
        let names = judged.blobs.iter().map(|blob| format!("blobs/sha256/{}", blob.hex()));
        let files: Option<Vec<File>> = names
            .chain([INDEX.to_owned()])
            .map(|name| look(evidence.as_fd(), &name).filter(|file| file.is_older_than(asked)))
            .collect();
        let (Some(files), Some(name)) = (files, self.name()) else {
            return Ok(());
        };
        let memo = Memo {
            inputs: self,
            files,
            judged: judged.clone(),
        };
        let Ok(bytes) = serde_json::to_vec(&memo) else {
            return Ok(());
        };
        let directory = run.subdir(DIRECTORY)?;
        make_room(&directory)?;
        directory.write_unsynced(&name, &bytes)
    }
}

impl File {
    fn is_older_than(&self, time: SystemTime) -> bool {
        let time = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        self.changed < (seconds, time.subsec_nanos().into())
    }
}

/// The state of a file, with its last component not followed.
fn look(directory: BorrowedFd<'_>, name: &str) -> Option<File> {
    let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    Some(file(name, &stat))
}

fn file(name: &str, stat: &Stat) -> File {
    let nanoseconds = |value| i64::try_from(value).unwrap_or_default();
    File {
        name: name.to_owned(),
        size: stat.st_size.unsigned_abs(),
        inode: stat.st_ino,
        modified: (stat.st_mtime, nanoseconds(stat.st_mtime_nsec)),
        changed: (stat.st_ctime, nanoseconds(stat.st_ctime_nsec)),
    }
}

/// Forgets everything in a folder of memos once there is too much of it.
pub(super) fn make_room(directory: &StateDir) -> Result<(), store::Error> {
    let names = store::names(directory.as_fd(), directory.path())?.collect::<Result<Vec<_>, _>>()?;
    if names.len() < MAX_MEMOS {
        return Ok(());
    }
    for name in names {
        // Another process may be clearing up as well.
        let _ = rustix::fs::unlinkat(directory, &name, AtFlags::empty());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;
    use crate::verify::{Answer, Carrier, Claim, Fact, Proof};

    struct Place {
        _folder: tempfile::TempDir,
        run: StateDir,
        evidence: StateDir,
        blob: std::path::PathBuf,
    }

    fn place() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let run = StateDir::open(&folder.path().join("run")).unwrap();
        let evidence = StateDir::open(&folder.path().join("evidence")).unwrap();
        let blobs = evidence.path().join("blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        fs::write(evidence.path().join(INDEX), "{}").unwrap();
        let blob = blobs.join(Digest::of(b"blob").hex());
        fs::write(&blob, "blob").unwrap();
        Place {
            _folder: folder,
            run,
            evidence,
            blob,
        }
    }

    fn answer() -> Answer {
        Answer {
            facts: vec![Fact {
                evidence: Digest::of(b"blob"),
                carrier: Carrier::BundleKey,
                subject: Digest::of(b"image"),
                claim: Claim::ImageSignature,
                proof: Proof::by_key("release"),
            }],
            findings: Vec::new(),
        }
    }

    fn inputs(place: &Place) -> Inputs {
        Inputs::new(Digest::of(b"policy"), &place.evidence, &[Digest::of(b"image")]).unwrap()
    }

    fn keep(place: &Place, asked: SystemTime) {
        inputs(place)
            .keep(&place.run, &place.evidence, &judged(), asked)
            .unwrap();
    }

    fn judged() -> Judged {
        Judged {
            answer: answer(),
            blobs: vec![Digest::of(b"blob")],
        }
    }

    fn later() -> SystemTime {
        SystemTime::now() + Duration::from_secs(60)
    }

    #[test]
    fn an_answer_is_recalled_while_nothing_changes() {
        let place = place();
        assert_eq!(inputs(&place).recall(&place.run, &place.evidence), None);
        keep(&place, later());
        assert_eq!(inputs(&place).recall(&place.run, &place.evidence), Some(judged()));
    }

    #[test]
    fn every_input_counts() {
        let place = place();
        keep(&place, later());
        let recall = |policy: &[u8], subjects: &[Digest]| {
            Inputs::new(Digest::of(policy), &place.evidence, subjects)
                .unwrap()
                .recall(&place.run, &place.evidence)
        };
        let image = Digest::of(b"image");
        assert!(recall(b"policy", &[image]).is_some());
        assert!(recall(b"other policy", &[image]).is_none());
        assert!(recall(b"policy", &[Digest::of(b"other image")]).is_none());
        assert!(recall(b"policy", &[image, Digest::of(b"other image")]).is_none());
    }

    #[test]
    fn changed_evidence_is_judged_again() {
        type Change = fn(&Place);
        let changes: [Change; 5] = [
            |place| fs::write(&place.blob, "BLOB").unwrap(),
            |place| fs::remove_file(&place.blob).unwrap(),
            |place| fs::write(place.evidence.path().join(INDEX), "[]").unwrap(),
            |place| {
                let other = place.blob.with_extension("new");
                fs::write(&other, "blob").unwrap();
                fs::rename(other, &place.blob).unwrap();
            },
            |place| {
                fs::remove_file(&place.blob).unwrap();
                std::os::unix::fs::symlink("/etc/hostname", &place.blob).unwrap();
            },
        ];
        for change in changes {
            let place = place();
            keep(&place, later());
            std::thread::sleep(Duration::from_millis(10));
            change(&place);
            assert_eq!(inputs(&place).recall(&place.run, &place.evidence), None);
        }
    }

    #[test]
    fn what_changed_while_it_was_read_is_not_kept() {
        let place = place();
        keep(&place, SystemTime::now() - Duration::from_secs(60));
        assert_eq!(inputs(&place).recall(&place.run, &place.evidence), None);
    }

    #[test]
    fn a_memo_under_another_name_or_cut_short_does_not_count() {
        let place = place();
        keep(&place, later());
        let folder = place.run.path().join(DIRECTORY);
        let memo = folder.join(inputs(&place).name().unwrap());
        let other = Inputs::new(Digest::of(b"other policy"), &place.evidence, &[Digest::of(b"image")]).unwrap();
        fs::copy(&memo, folder.join(other.name().unwrap())).unwrap();
        assert_eq!(other.recall(&place.run, &place.evidence), None);
        let bytes = fs::read(&memo).unwrap();
        fs::write(&memo, &bytes[..bytes.len() / 2]).unwrap();
        assert_eq!(inputs(&place).recall(&place.run, &place.evidence), None);
    }

    #[test]
    fn memos_are_cleared_when_there_are_too_many() {
        let place = place();
        let folder = place.run.subdir(DIRECTORY).unwrap();
        for number in 0..MAX_MEMOS {
            fs::write(folder.path().join(number.to_string()), "").unwrap();
        }
        keep(&place, later());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(inputs(&place).recall(&place.run, &place.evidence).is_some());
    }
}
