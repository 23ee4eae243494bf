//! System calls that enforcing would have refused, as the listeners of complain mode wrote them down.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::SystemTime;

use crate::seccomp::{MAX_SEEN, SEEN_DIRECTORY, Seen};
use crate::store::{StateDir, read_bounded};

/// Most records that are looked at: a listener keeps 256 of each containerd namespace.
const MAX_RECORDS: usize = 4096;
/// What a call without a name that Assay knows is counted as.
const UNKNOWN: &str = "unknown";

/// What was counted of each record.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    /// `None` before the first look.
    records: Option<BTreeMap<PathBuf, Record>>,
}

#[derive(Debug)]
struct Record {
    modified: SystemTime,
    /// Since when its container was listened to: another one of the same id counts anew.
    since: String,
    calls: BTreeMap<&'static str, u64>,
}

impl Complaints {
    /// Looks at the records that changed since the last time, and hands every call that was made since then to `count`.
    /// The first time says where counting begins.
    pub(super) fn look(&mut self, state: &StateDir, mut count: impl FnMut(&'static str, u64)) {
        let mut before = self.records.take();
        let mut records = BTreeMap::new();
        // What is not there, or cannot be read, is not counted.
        let namespaces = std::fs::read_dir(state.path().join(SEEN_DIRECTORY));
        let folders = namespaces.into_iter().flatten().flatten().map(|folder| folder.path());
        let files = folders.flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten().flatten());
        for file in files.take(MAX_RECORDS) {
            let path = file.path();
            let Ok(modified) = file.metadata().and_then(|metadata| metadata.modified()) else {
                continue;
            };
            let known = before.as_mut().and_then(|before| before.remove(&path));
            let record = match known {
                Some(known) if known.modified == modified => known,
                known => {
                    let bytes = read_bounded(&path, MAX_SEEN).ok();
                    let Some(seen) = bytes.and_then(|bytes| Seen::parse(&bytes).ok()) else {
                        // Another one writes it anew; what it said before still counts.
                        records.extend(known.map(|known| (path, known)));
                        continue;
                    };
                    let record = Record::new(seen, modified);
                    if before.is_some() {
                        let earlier = known.filter(|known| known.since == record.since);
                        for (call, times) in &record.calls {
                            let counted = earlier.as_ref().and_then(|earlier| earlier.calls.get(call));
                            count(call, times.saturating_sub(counted.copied().unwrap_or_default()));
                        }
                    }
                    record
                }
            };
            records.insert(path, record);
        }
        self.records = Some(records);
    }
}

impl Record {
    fn new(seen: Seen, modified: SystemTime) -> Self {
        let mut calls = BTreeMap::new();
        for call in &seen.calls {
            let times: &mut u64 = calls.entry(call.call().unwrap_or(UNKNOWN)).or_default();
            *times = times.saturating_add(call.count);
        }
        Self {
            modified,
            since: seen.since,
            calls,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp::{Call, SEEN_VERSION};

    #[test]
    fn each_call_is_counted_once_and_those_of_before_the_agent_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(&folder.path().canonicalize().unwrap().join("state")).unwrap();
        let records = state.subdir(SEEN_DIRECTORY).unwrap().subdir("k8s.io").unwrap();
        let mut second = 0;
        let mut write = |container: &str, since: &str, counts: &[(u32, u64)]| {
            let call = |&(number, count): &(u32, u64)| Call {
                architecture: 0xc000_003e,
                number,
                program: "/bin/app".to_owned(),
                process: 1,
                name: "app".to_owned(),
                count,
                first: String::new(),
                last: String::new(),
            };
            let seen = Seen {
                version: SEEN_VERSION,
                namespace: "k8s.io".to_owned(),
                container: container.to_owned(),
                since: since.to_owned(),
                until: String::new(),
                calls: counts.iter().map(call).collect(),
                further: 0,
            };
            let name = format!("{container}.json");
            records.write(&name, &serde_json::to_vec(&seen).unwrap()).unwrap();
            // Times of files are coarse.
            second += 1;
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(second);
            let file = std::fs::File::options().append(true).open(records.path().join(name));
            file.unwrap().set_modified(time).unwrap();
        };
        let mut complaints = Complaints::default();
        let mut look = || {
            let mut counted = Vec::new();
            complaints.look(&state, |call, times| counted.push((call, times)));
            counted
        };
        write("old", "1", &[(101, 7)]);
        assert_eq!(look(), []);
        write("old", "1", &[(101, 9), (165, 1)]);
        write("new", "1", &[(101, 3)]);
        let mut counted = look();
        counted.sort_unstable();
        assert_eq!(counted, [("mount", 1), ("ptrace", 2), ("ptrace", 3)]);
        assert_eq!(look(), []);
        // Another container of the same id, and one that is gone.
        write("old", "2", &[(101, 1), (9999, 4)]);
        records.remove("new.json").unwrap();
        assert_eq!(look(), [("ptrace", 1), ("unknown", 4)]);
        std::fs::write(records.path().join("broken.json"), "{").unwrap();
        assert_eq!(look(), []);
    }
}
