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

use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use super::Fault;
use super::fault::Blob;
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

/// What the content store was asked on the way to an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trail {
    blobs: BTreeSet<(Blob, Digest)>,
    searches: BTreeSet<Search>,
}

/// Answers of one kind that are on their way.
type Answers<K, T> = Mutex<BTreeMap<K, JoinHandle<Result<T, Fault>>>>;

/// Answers that are on their way, and the questions that were really asked.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    blobs: Answers<(Blob, Digest), Vec<u8>>,
    searches: Answers<Search, Vec<Digest>>,
    asked: Mutex<Trail>,
}

impl Ahead {
    /// Puts the questions of a trail, each by a task of its own.
    pub(super) fn set_out<B, S>(&self, trail: &Trail, blob: impl Fn(Blob, Digest) -> B, search: impl Fn(Search) -> S)
    where
        B: Future<Output = Result<Vec<u8>, Fault>> + Send + 'static,
        S: Future<Output = Result<Vec<Digest>, Fault>> + Send + 'static,
    {
        let blobs = trail.blobs.iter().take(MAX_AHEAD);
        lock(&self.blobs).extend(blobs.map(|key| (*key, tokio::spawn(blob(key.0, key.1)))));
        let searches = trail
            .searches
            .iter()
            .filter(|search| !search.is_empty())
            .take(MAX_AHEAD);
        lock(&self.searches).extend(searches.map(|key| (key.clone(), tokio::spawn(search(key.clone())))));
    }

    /// The answer about a blob, if it was asked for ahead. A second question is a new one.
    pub(super) async fn blob(&self, what: Blob, digest: Digest) -> Option<Result<Vec<u8>, Fault>> {
        lock(&self.asked).blobs.insert((what, digest));
        arrive(&self.blobs, &(what, digest)).await
    }

    /// The answer to a search, if it was asked for ahead.
    pub(super) async fn search(&self, search: &Search) -> Option<Result<Vec<Digest>, Fault>> {
        lock(&self.asked).searches.insert(search.clone());
        arrive(&self.searches, search).await
    }

    /// Every question asked so far.
    pub(super) fn trail(&self) -> Trail {
        lock(&self.asked).clone()
    }
}

async fn arrive<K: Ord, T>(answers: &Answers<K, T>, key: &K) -> Option<Result<T, Fault>> {
    let task = lock(answers).remove(key)?;
    // A task that ended without an answer is as good as none.
    task.await.ok()
}

/// No operation leaves these half changed, so a panic elsewhere does not matter to them.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(text: &str) -> Digest {
        Digest::of(text.as_bytes())
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(future)
    }

    #[test]
    fn an_answer_serves_its_own_question_once() {
        let (blob, known) = (digest("blob"), Search::Manifests(vec![digest("config")]));
        let trail = Trail {
            blobs: [(Blob::Manifest, blob), (Blob::Config, digest("panic"))].into(),
            searches: [known.clone()].into(),
        };
        let ahead = Ahead::default();
        run(async {
            ahead.set_out(
                &trail,
                |what, asked| async move {
                    assert_eq!(what, Blob::Manifest, "the other one never answers");
                    Ok(asked.to_string().into_bytes())
                },
                |search| async move {
                    let (Search::Manifests(of) | Search::Indexes(of)) = search;
                    Ok(of)
                },
            );
            let answer = ahead.blob(Blob::Manifest, blob).await.unwrap().unwrap();
            assert_eq!(answer, blob.to_string().into_bytes());
            assert!(ahead.blob(Blob::Manifest, blob).await.is_none());
            assert!(ahead.blob(Blob::Config, blob).await.is_none());
            assert!(ahead.blob(Blob::Config, digest("panic")).await.is_none());
            let other = Search::Indexes(vec![digest("config")]);
            assert!(ahead.search(&other).await.is_none());
            assert_eq!(ahead.search(&known).await.unwrap().unwrap(), [digest("config")]);
        });
        let asked = ahead.trail();
        assert_eq!(asked.blobs.len(), 3);
        assert_eq!(asked.searches.len(), 2);
    }

    #[test]
    fn a_question_that_was_only_put_ahead_leaves_the_trail() {
        let trail = Trail {
            blobs: [(Blob::Manifest, digest("gone"))].into(),
            searches: BTreeSet::new(),
        };
        let ahead = Ahead::default();
        run(async {
            ahead.set_out(&trail, |_, _| async { Ok(Vec::new()) }, |_| async { Ok(Vec::new()) });
            assert!(ahead.blob(Blob::Manifest, digest("other")).await.is_none());
        });
        assert_eq!(ahead.trail().blobs, [(Blob::Manifest, digest("other"))].into());
    }

    #[test]
    fn no_trail_asks_without_end() {
        let trail = Trail {
            blobs: (0..100).map(|n| (Blob::Manifest, digest(&n.to_string()))).collect(),
            searches: (0..100)
                .map(|n| Search::Indexes(vec![digest(&n.to_string())]))
                .collect(),
        };
        let ahead = Ahead::default();
        run(async {
            ahead.set_out(&trail, |_, _| async { Ok(Vec::new()) }, |_| async { Ok(Vec::new()) });
        });
        assert_eq!(lock(&ahead.blobs).len(), MAX_AHEAD);
        assert_eq!(lock(&ahead.searches).len(), MAX_AHEAD);
    }
}
