//! Pods that were refused lately, for `assay node events`, which tells their cluster.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::admission::again::{Reevaluation, Step};
use crate::admission::log::Entry;
use crate::admission::{Pod, Verdict};
use crate::diagnostic::printable;

/// How long a refusal is told to whoever asks.
const TIME: SignedDuration = SignedDuration::from_mins(10);
/// Most refusals that are kept.
const MAX_KEPT: usize = 256;
/// Longest text of one, in bytes: as much as an Event holds.
const MAX_TEXT: usize = 1024;

/// A container of a pod that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Identifier of the line of the decision log.
    pub id: String,
    /// When it was refused.
    pub time: Timestamp,
    /// The pod and the container in it.
    pub pod: Pod,
    /// Whether it runs already, and was refused when it was judged again.
    pub runs: bool,
    /// Stable code of the reason.
    pub code: String,
    /// What its users read.
    pub text: String,
}

/// The refusals of the last minutes.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<VecDeque<Refusal>>);

impl Refusals {
    pub(super) fn decided(&self, entry: &Entry) {
        let decision = &entry.decision;
        if let (Verdict::Refuse, Some(pod)) = (decision.verdict, &decision.pod) {
            self.add(pod, entry.id(), &decision.time, &decision.code, decision.line(), false);
        }
    }

    /// What became of a container that runs; its record says it in a sentence.
    pub(super) fn judged_again(&self, id: String, record: &Reevaluation, pod: Option<&Pod>) {
        let is_refused = record.step == Step::Changed && record.new.verdict == Verdict::Refuse;
        if let (true, Some(pod)) = (is_refused, pod) {
            self.add(
                pod,
                &id,
                &record.time,
                &record.new.code,
                format!("assay: {record}"),
                true,
            );
        }
    }

    fn add(&self, pod: &Pod, id: &str, time: &str, code: &str, text: String, runs: bool) {
        let Ok(time) = time.parse() else {
            return;
        };
        let text = match pod.container.as_str() {
            "" => text,
            name => format!("container {name}: {text}"),
        };
        self.keep(Refusal {
            id: id.to_owned(),
            time,
            pod: pod.clone(),
            runs,
            code: code.to_owned(),
            text: printable(&text).into_owned(),
        });
    }

    fn keep(&self, mut refusal: Refusal) {
        if refusal.text.len() > MAX_TEXT {
            refusal
                .text
                .truncate(refusal.text.floor_char_boundary(MAX_TEXT - '…'.len_utf8()));
            refusal.text.push('…');
        }
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.truncate(MAX_KEPT - 1);
        kept.push_front(refusal);
    }

    /// Those of the last minutes, the latest first, as JSON.
    pub(super) fn json(&self) -> String {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Timestamp::now();
        kept.retain(|refusal| now.duration_since(refusal.time) < TIME);
        // Strings and times only: there is always a JSON form.
        serde_json::to_string(&*kept).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_refusals_are_told_and_old_ones_are_not() {
        let refusals = Refusals::default();
        let refusal = |number: usize, age: i64| Refusal {
            id: number.to_string(),
            time: Timestamp::now() - SignedDuration::from_secs(age),
            pod: Pod {
                namespace: "prod".to_owned(),
                name: "web".to_owned(),
                uid: "8d5f".to_owned(),
                container: "main".to_owned(),
            },
            runs: false,
            code: "signature-missing".to_owned(),
            text: "é".repeat(MAX_TEXT),
        };
        let told = || serde_json::from_str::<Vec<Refusal>>(&refusals.json()).unwrap();
        assert_eq!(told(), []);
        refusals.keep(refusal(0, 700));
        assert_eq!(told(), []);
        for number in 0..=MAX_KEPT {
            refusals.keep(refusal(number, 0));
        }
        let told = told();
        assert_eq!((told.len(), told[0].id.as_str()), (MAX_KEPT, "256"));
        assert!(told[0].text.len() <= MAX_TEXT && told[0].text.ends_with('…'));
    }
}
