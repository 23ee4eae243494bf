//! Questions put to containerd before it is certain that they will be asked.
//!
//! The way from an image's name to its layers is a chain: each answer names the blob to read next, and each step costs
//! a round trip. Where a container of the same layers was started before, the steps are known, and all of them are
//! taken at once.
//!
//! This changes when containerd is asked, not what is believed: every answer is containerd's of this moment, every
//! blob is hashed, and an answer counts only where the way itself comes to the same question. A trail that is wrong
//! costs time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use containerd_client::types::Descriptor;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use super::Fault;
use super::fault::Blob;
use super::mounts::Mount;
use crate::digest::Digest;

/// Most questions of each kind that are put ahead.
const MAX_AHEAD: usize = 32;

/// A search of the content store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Search {
    /// For manifests of one of these image configurations.
    Manifests(Vec<Digest>),
    /// For indexes that list one of these manifests.
    Indexes(Vec<Digest>),
}

impl Search {
    pub(super) fn is_empty(&self) -> bool {
        let (Self::Manifests(of) | Self::Indexes(of)) = self;
        of.is_empty()
    }
}

/// What containerd was asked on the way to an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trail {
    pub(super) images: BTreeSet<String>,
    /// Snapshotters that were asked about a container's snapshot, which has the container's name nearly always.
    pub(super) snapshotters: BTreeSet<String>,
    pub(super) blobs: BTreeSet<(Blob, Digest)>,
    pub(super) searches: BTreeSet<Search>,
}

/// A snapshotter and the key of a snapshot.
pub(super) type Snapshot = (String, String);

/// Answers that are on their way, and the questions that were really asked.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    pub(super) images: Answers<String, Option<Descriptor>>,
    pub(super) parents: Answers<Snapshot, Option<String>>,
    pub(super) mounts: Answers<Snapshot, Option<Vec<Mount>>>,
    pub(super) blobs: Answers<(Blob, Digest), Vec<u8>>,
    pub(super) searches: Answers<Search, Vec<Digest>>,
    asked: Mutex<Trail>,
}

impl Ahead {
    /// Notes a question that was asked.
    pub(super) fn note(&self, note: impl FnOnce(&mut Trail) -> bool) {
        note(&mut lock(&self.asked));
    }

    /// Every question asked so far.
    pub(super) fn trail(&self) -> Trail {
        lock(&self.asked).clone()
    }
}

/// Answers of one kind that are on their way.
#[derive(Debug)]
pub(super) struct Answers<K, T>(Mutex<BTreeMap<K, JoinHandle<Result<T, Fault>>>>);

impl<K, T> Default for Answers<K, T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Ord, T: Send + 'static> Answers<K, T> {
    /// Asks without waiting for the answer.
    pub(super) fn start(&self, key: K, question: impl Future<Output = Result<T, Fault>> + Send + 'static) {
        let mut started = lock(&self.0);
        if started.len() < MAX_AHEAD {
            started.entry(key).or_insert_with(|| tokio::spawn(question));
        }
    }

    /// The answer to a question that was started, or else to `question`. It serves once: who asks again, asks anew.
    pub(super) async fn or(&self, key: K, question: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        let started = lock(&self.0).remove(&key);
        match started {
            Some(task) => match task.await {
                Ok(answer) => answer,
                // It ended without an answer.
                Err(_) => question.await,
            },
            None => question.await,
        }
    }
}

/// No operation leaves these half changed, so a panic elsewhere does not matter to them.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(future)
    }

    #[test]
    fn an_answer_serves_its_own_question_once() {
        let answers = Answers::<&str, &str>::default();
        run(async {
            answers.start("known", async { Ok("early") });
            assert_eq!(answers.or("other", async { Ok("asked") }).await.unwrap(), "asked");
            assert_eq!(answers.or("known", async { Ok("asked") }).await.unwrap(), "early");
            assert_eq!(answers.or("known", async { Ok("asked") }).await.unwrap(), "asked");
        });
    }

    #[test]
    fn a_fault_is_an_answer_and_a_panic_is_none() {
        let answers = Answers::<&str, &str>::default();
        run(async {
            answers.start("fault", async { Err(Fault::DockerLayout) });
            answers.start("panic", async { panic!("on purpose") });
            assert!(answers.or("fault", async { Ok("asked") }).await.is_err());
            assert_eq!(answers.or("panic", async { Ok("asked") }).await.unwrap(), "asked");
        });
    }

    #[test]
    fn no_trail_asks_without_end() {
        let answers = Answers::<usize, ()>::default();
        run(async {
            for number in 0..2 * MAX_AHEAD {
                answers.start(number, async { Ok(()) });
            }
        });
        assert_eq!(lock(&answers.0).len(), MAX_AHEAD);
    }
}
