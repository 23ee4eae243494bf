//! What does not count because of the time: the node's clock, or that of whoever vouches for a signature.
//!
//! Facts that no time plays a part in are never touched, so a node whose clock was never set still starts what is
//! signed with a key that has no window.

use jiff::Timestamp;

use super::Verdict;
use super::ruling::Ruling;
use crate::attest::Details;
use crate::trust::clock::Clock;
use crate::verify::{Answer, Fact};

/// An answer of which a part does not count.
#[derive(Debug)]
pub(super) struct Timely<'a> {
    all: &'a Answer,
    left: Answer,
    doubt: Doubt,
}

/// Why a fact does not count at this time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doubt {
    /// The node's clock shows a time before one that has passed.
    Behind { now: Timestamp, mark: Timestamp },
    /// What has passed is not known.
    Unreadable,
    /// Someone vouches for a time that has not come.
    Future { now: Timestamp, time: Timestamp },
}

impl<'a> Timely<'a> {
    /// `None` where everything counts.
    pub(super) fn new(all: &'a Answer, clock: Clock) -> Option<Self> {
        let doubts: Vec<Option<Doubt>> = all.facts.iter().map(|fact| Doubt::about(fact, clock)).collect();
        let doubt = doubts.iter().copied().flatten().next()?;
        let facts = all.facts.iter().zip(&doubts);
        let left = Answer {
            facts: facts
                .filter(|(_, doubt)| doubt.is_none())
                .map(|(fact, _)| fact.clone())
                .collect(),
            findings: all.findings.clone(),
            attestations: all.attestations.clone(),
        };
        Some(Self { all, left, doubt })
    }

    /// What `word` says about what counts; where it would allow with the rest, the time is the reason of its refusal.
    pub(super) fn word(&self, word: impl Fn(&Answer) -> Ruling) -> Ruling {
        let ruling = word(&self.left);
        if ruling.verdict == Verdict::Allow || word(self.all).verdict == Verdict::Refuse {
            return ruling;
        }
        Ruling::refuse(self.doubt.code(), self.doubt.reason(), self.doubt.fix(), false)
    }
}

impl Doubt {
    fn about(fact: &Fact, clock: Clock) -> Option<Self> {
        let proof = &fact.proof;
        // A verification summary says itself how old it is, and rules may ask.
        let tells_its_age = matches!(fact.details.as_deref(), Some(Details::Summary(_)));
        if proof.times.is_empty() && proof.span.is_always() && !tells_its_age {
            return None;
        }
        let now = clock.now;
        let Some(mark) = clock.mark else {
            return Some(Self::Unreadable);
        };
        if clock.is_behind() {
            return Some(Self::Behind { now, mark });
        }
        // Whether the span contains now is for the rule to say.
        let future = proof.times.iter().map(|time| time.time).max();
        let time = future.filter(|time| *time > clock.latest())?;
        Some(Self::Future { now, time })
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Behind { .. } => "clock-behind",
            Self::Unreadable => "clock-unreadable",
            Self::Future { .. } => "time-in-future",
        }
    }

    fn reason(self) -> String {
        match self {
            Self::Behind { now, mark } => format!(
                "this node's clock says {now:.0}, and {mark:.0} has passed already; what is needed holds only for a \
                 time, which cannot be judged with such a clock"
            ),
            Self::Unreadable => "what is needed holds only for a time, and Assay's record of the latest known time is \
                                 damaged, so the clock of this node cannot be judged"
                .to_owned(),
            Self::Future { now, time } => {
                format!(
                    "what is needed is said to be of {time:.0}, which has not come: this node's clock says {now:.0}"
                )
            }
        }
    }

    fn fix(self) -> &'static str {
        match self {
            Self::Behind { .. } => {
                "set this node's clock; if it is right and ran ahead before, an administrator runs: assay trust clock \
                 --reset"
            }
            Self::Unreadable => "an administrator runs: assay trust clock --reset",
            Self::Future { .. } => "set this node's clock",
        }
    }
}
