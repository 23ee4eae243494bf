//! What a parser answered before, so that starting the same image again needs no parser.
//!
//! Kept is the *answer*, not the verdict: policy is evaluated every time. An answer is kept only when it led to an
//! allow, and it counts only while everything it was made from is the same: the program, the active policy with its
//! keys and roots, the subjects, and every file of the evidence cache that it rests on, by size, times and inode: the
//! evidence itself and the lists of what there is about these subjects and their attestation manifests. A changed file, a removed one, an added one
//! (which changes such a list) or a new policy asks again; evidence about other images does not. So does a clock that
//! has left the span of time in which one of the facts holds.

use std::os::fd::AsFd as _;
use std::time::SystemTime;

use jiff::Timestamp;
use rustix::fs::AtFlags;
use serde::{Deserialize, Serialize};

use super::parser::Judged;
use crate::digest::Digest;
use crate::evidence;
use crate::store::{self, Stamp, StateDir};
use crate::verify::{Answer, Fact};

/// Folder below `run`.
const DIRECTORY: &str = "memo";
/// Largest memo in bytes.
const MAX_MEMO: u64 = 4 << 20;
/// Most memos that are kept. Each new policy and each new image adds one, and all are cheap to make again.
pub(super) const MAX_MEMOS: usize = 1024;

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
    /// `None` where there is no such file.
    stamp: Option<Stamp>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Memo {
    inputs: Inputs,
    /// What says which evidence there is.
    lists: Vec<File>,
    /// The evidence itself.
    blobs: Vec<File>,
    answer: Answer,
}

impl Inputs {
    /// `None` where this program's own file cannot be looked at; then nothing is remembered.
    pub(super) fn new(policy: Digest, evidence: &StateDir, subjects: &[Digest]) -> Option<Self> {
        let program = program()?;
        let mut subjects = subjects.to_vec();
        subjects.sort();
        Some(Self {
            program,
            policy,
            evidence: evidence.path().display().to_string(),
            subjects,
        })
    }

    fn name(&self) -> Option<String> {
        let json = serde_json::to_vec(self).ok()?;
        Some(format!("{}.json", Digest::of(&json).hex()))
    }

    /// What says which evidence there is about the subjects, and about the attestation manifests of `answer`.
    fn lists(&self, evidence: &StateDir, answer: &Answer) -> Vec<File> {
        let subjects = [self.subjects.as_slice(), answer.attestations.as_slice()].concat();
        let names = evidence::rests_on(evidence.as_fd(), &subjects);
        names.iter().map(|name| look(evidence, name)).collect()
    }

    /// The answer to the same question, when nothing it rests on has changed.
    pub(super) fn recall(&self, run: &StateDir, evidence: &StateDir, now: Timestamp) -> Option<Judged> {
        // Anything unreadable is forgotten: asking again is always right.
        let bytes = run.subdir(DIRECTORY).ok()?.read(&self.name()?, MAX_MEMO).ok()??;
        let memo: Memo = serde_json::from_slice(&bytes).ok()?;
        let unchanged = |known: &File| known.stamp.is_some() && look(evidence, &known.name) == *known;
        let holds = memo.answer.facts.iter().all(|fact| fact.proof.span.contains(now));
        let digest = |file: &File| format!("sha256:{}", file.name.rsplit('/').next()?).parse().ok();
        let blobs: Vec<Digest> = memo.blobs.iter().filter_map(digest).collect();
        // As when a parser says it: about what was asked, and resting on files whose change is seen.
        let fits = |fact: &Fact| self.subjects.contains(&fact.subject) && blobs.contains(&fact.evidence);
        (memo.inputs == *self
            && holds
            && memo.answer.facts.iter().all(fits)
            && memo.lists == self.lists(evidence, &memo.answer)
            && memo.blobs.iter().all(unchanged))
        .then_some(Judged {
            answer: memo.answer,
            blobs,
        })
    }

    /// Keeps an answer, unless a file it rests on may have changed since `asked`.
    pub(super) fn keep(
        self,
        run: &StateDir,
        evidence: &StateDir,
        Judged { answer, blobs }: &Judged,
        asked: SystemTime,
    ) -> Result<(), store::Error> {
        let lists = self.lists(evidence, answer);
        let blobs: Vec<File> = blobs
            .iter()
            .map(|blob| look(evidence, &format!("blobs/sha256/{}", blob.hex())))
            .collect();
        let settled = |file: &File| file.stamp.as_ref().is_some_and(|stamp| stamp.is_older_than(asked));
        let absent = |file: &File| file.stamp.is_none();
        if !blobs.iter().all(settled) || !lists.iter().all(|file| absent(file) || settled(file)) {
            return Ok(());
        }
        let Some(name) = self.name() else {
            return Ok(());
        };
        let memo = Memo {
            inputs: self,
            lists,
            blobs,
            answer: answer.clone(),
        };
        let Ok(bytes) = serde_json::to_vec(&memo) else {
            return Ok(());
        };
        let directory = run.subdir(DIRECTORY)?;
        make_room(&directory, MAX_MEMOS)?;
        // After a crash of the machine nothing here counts any more, and a file that is cut short is no answer.
        directory.write_volatile(&name, &bytes)
    }
}

/// What tells this build of the program from others; `None` where its own file cannot be looked at.
pub(super) fn program() -> Option<Vec<String>> {
    let stat = rustix::fs::stat("/proc/self/exe").ok()?;
    Some(vec![
        env!("CARGO_PKG_VERSION").to_owned(),
        format!("{:?}", Stamp::from(&stat)),
    ])
}

fn look(evidence: &StateDir, name: &str) -> File {
    File {
        name: name.to_owned(),
        stamp: Stamp::of(evidence.as_fd(), name),
    }
}

/// Forgets everything in a folder of memos once there are `most` of them.
pub(super) fn make_room(directory: &StateDir, most: usize) -> Result<(), store::Error> {
    let names = store::names(directory.as_fd(), directory.path())?.collect::<Result<Vec<_>, _>>()?;
    if names.len() < most {
        return Ok(());
    }
    for name in names {
        // Another process may be clearing up as well.
        let _ = rustix::fs::unlinkat(directory, &name, AtFlags::empty());
    }
    Ok(())
}

/// Forgets the older half of a folder, by their number and by their bytes, once it holds `most` files or `most_bytes`
/// bytes; those that are not current first.
pub(super) fn forget_oldest(
    directory: &StateDir,
    most: usize,
    most_bytes: u64,
    is_current: &dyn Fn(&str) -> bool,
) -> Result<(), store::Error> {
    let names = store::names(directory.as_fd(), directory.path())?.collect::<Result<Vec<_>, _>>()?;
    let mut aged: Vec<(bool, i64, String, u64)> = names
        .into_iter()
        .map(|name| {
            let stat = rustix::fs::statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW);
            let (time, size) = stat.map_or((0, 0), |stat| (stat.st_mtime, stat.st_size.unsigned_abs()));
            (is_current(&name), time, name, size)
        })
        .collect();
    let mut bytes: u64 = aged.iter().map(|(.., size)| size).sum();
    let mut count = aged.len();
    if count < most && bytes < most_bytes {
        return Ok(());
    }
    aged.sort();
    for (_, _, name, size) in aged {
        if count <= most / 2 && bytes <= most_bytes / 2 {
            break;
        }
        // Another process may be clearing up as well.
        let _ = rustix::fs::unlinkat(directory, &name, AtFlags::empty());
        count -= 1;
        bytes -= size;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use super::*;
    use crate::verify::{Carrier, Claim, Proof, Span};

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
        fs::write(evidence.path().join("index.json"), "{}").unwrap();
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
                chain: None,
                subject: Digest::of(b"image"),
                claim: Claim::ImageSignature,
                proof: Proof::by_key("release"),
                details: None,
                held: Vec::new(),
            }],
            ..Answer::default()
        }
    }

    fn inputs(place: &Place) -> Inputs {
        Inputs::new(Digest::of(b"policy"), &place.evidence, &[Digest::of(b"image")]).unwrap()
    }

    fn keep(place: &Place, asked: SystemTime) {
        inputs(place)
            .keep(&place.run, &place.evidence, &judged(answer()), asked)
            .unwrap();
    }

    fn judged(answer: Answer) -> Judged {
        Judged {
            answer,
            blobs: vec![Digest::of(b"blob")],
        }
    }

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn later() -> SystemTime {
        SystemTime::now() + Duration::from_secs(60)
    }

    #[test]
    fn an_answer_is_recalled_while_nothing_changes() {
        let place = place();
        assert_eq!(inputs(&place).recall(&place.run, &place.evidence, now()), None);
        keep(&place, later());
        assert_eq!(
            inputs(&place).recall(&place.run, &place.evidence, now()),
            Some(judged(answer()))
        );
    }

    #[test]
    fn a_fact_that_does_not_hold_now_is_asked_for_again() {
        let at = |seconds| now() + Duration::from_secs(seconds);
        let place = place();
        let mut answer = answer();
        answer.facts[0].proof.span = Span {
            from: Some(now()),
            until: Some(at(60)),
        };
        let inputs = || inputs(&place);
        inputs()
            .keep(&place.run, &place.evidence, &judged(answer), later())
            .unwrap();
        for (time, recalled) in [
            (now() - Duration::from_secs(1), false),
            (now(), true),
            (at(59), true),
            (at(60), false),
        ] {
            let known = inputs().recall(&place.run, &place.evidence, time);
            assert_eq!(known.is_some(), recalled, "{time}");
        }
    }

    #[test]
    fn every_input_counts() {
        let place = place();
        keep(&place, later());
        let recall = |policy: &[u8], subjects: &[Digest]| {
            Inputs::new(Digest::of(policy), &place.evidence, subjects)
                .unwrap()
                .recall(&place.run, &place.evidence, now())
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
            |place| fs::write(place.evidence.path().join("index.json"), "[]").unwrap(),
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
            assert_eq!(inputs(&place).recall(&place.run, &place.evidence, now()), None);
        }
    }

    #[test]
    fn a_signature_of_an_attestation_that_arrives_later_is_asked_for() {
        let place = place();
        let attestation = Digest::of(b"attestation");
        let answer = Answer {
            attestations: vec![attestation],
            ..answer()
        };
        let inputs = || inputs(&place);
        // Lists for single digests, as an import makes them.
        for folder in ["blobs", "blobs/sha256"] {
            use std::os::unix::fs::PermissionsExt as _;
            let private = fs::Permissions::from_mode(0o700);
            fs::set_permissions(place.evidence.path().join(folder), private).unwrap();
        }
        let empty = crate::evidence::import(&place.evidence, &[]).unwrap();
        assert!(empty.imported.is_empty());
        inputs()
            .keep(&place.run, &place.evidence, &judged(answer), later())
            .unwrap();
        assert!(inputs().recall(&place.run, &place.evidence, now()).is_some());
        let names = evidence::rests_on(place.evidence.as_fd(), &[attestation]);
        let list = place.evidence.path().join(&names[0]);
        fs::create_dir_all(list.parent().unwrap()).unwrap();
        fs::write(list, "{}").unwrap();
        assert_eq!(inputs().recall(&place.run, &place.evidence, now()), None);
    }

    #[test]
    fn what_changed_while_it_was_read_is_not_kept() {
        let place = place();
        keep(&place, SystemTime::now() - Duration::from_secs(60));
        assert_eq!(inputs(&place).recall(&place.run, &place.evidence, now()), None);
    }

    #[test]
    fn a_memo_under_another_name_or_cut_short_does_not_count() {
        let place = place();
        keep(&place, later());
        let folder = place.run.path().join(DIRECTORY);
        let memo = folder.join(inputs(&place).name().unwrap());
        let other = Inputs::new(Digest::of(b"other policy"), &place.evidence, &[Digest::of(b"image")]).unwrap();
        fs::copy(&memo, folder.join(other.name().unwrap())).unwrap();
        assert_eq!(other.recall(&place.run, &place.evidence, now()), None);
        let bytes = fs::read(&memo).unwrap();
        fs::write(&memo, &bytes[..bytes.len() / 2]).unwrap();
        assert_eq!(inputs(&place).recall(&place.run, &place.evidence, now()), None);
    }

    #[test]
    fn a_memo_of_one_image_says_nothing_about_another() {
        let place = place();
        keep(&place, later());
        let folder = place.run.path().join(DIRECTORY);
        let ours = inputs(&place).name().unwrap();
        let (image, other) = (Digest::of(b"image"), Digest::of(b"other image"));
        let theirs = Inputs::new(Digest::of(b"policy"), &place.evidence, &[other]).unwrap();
        let put = |text: &str| fs::write(folder.join(theirs.name().unwrap()), text).unwrap();
        let recall = || theirs.recall(&place.run, &place.evidence, now());
        let memo = fs::read_to_string(folder.join(ours)).unwrap();
        put(&memo);
        assert_eq!(recall(), None);
        // Its inputs edited to fit: what the facts are about still is the first image.
        let mut edited: serde_json::Value = serde_json::from_str(&memo).unwrap();
        edited["inputs"] = serde_json::to_value(&theirs).unwrap();
        put(&edited.to_string());
        assert_eq!(recall(), None);
        // Whoever can forge all of it is root, and has no need to; but a fact whose evidence is not watched for changes
        // is not even then believed.
        edited["answer"] =
            serde_json::from_str(&edited["answer"].to_string().replace(&image.hex(), &other.hex())).unwrap();
        put(&edited.to_string());
        assert!(recall().is_some());
        edited["blobs"] = serde_json::json!([]);
        put(&edited.to_string());
        assert_eq!(recall(), None);
        edited["unknown"] = serde_json::json!(1);
        put(&edited.to_string());
        assert_eq!(recall(), None);
    }

    #[test]
    fn the_oldest_are_forgotten_when_they_are_too_many_or_too_large() {
        let place = place();
        let folder = place.run.subdir(DIRECTORY).unwrap();
        let left = || {
            let mut names: Vec<String> = store::names(folder.as_fd(), folder.path())
                .unwrap()
                .map(Result::unwrap)
                .collect();
            names.sort();
            names.concat()
        };
        for (age, name) in ["a", "b", "c", "old"].into_iter().enumerate() {
            let file = fs::File::create(folder.path().join(name)).unwrap();
            file.set_len(10).unwrap();
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1000 + age as u64);
            file.set_modified(time).unwrap();
        }
        let forget = |most, bytes| forget_oldest(&folder, most, bytes, &|name| name != "old").unwrap();
        forget(5, 41);
        assert_eq!(left(), "abcold");
        forget(5, 40);
        assert_eq!(left(), "bc");
        forget(2, 100);
        assert_eq!(left(), "c");
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
        assert!(inputs(&place).recall(&place.run, &place.evidence, now()).is_some());
    }
}
