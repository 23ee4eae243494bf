//! One running container: what was said about it last, and what will be done about it. No clock, no containerd, no file
//! in here.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::admission::again::{Cause, Reevaluation, Said, Step, is_sure};
use crate::admission::comparison::Word;
use crate::admission::{Counts, Decision, Edits, Verdict};
use crate::digest::Digest;
use crate::policy::Action;

/// How long a container that was asked to end may take until it is killed.
const STOP_TIME: Duration = Duration::from_secs(10);
/// How long after a failure an action is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// This moment, by both clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub(super) instant: Instant,
    pub(super) time: Timestamp,
}

/// A container that was decided on and runs.
#[derive(Debug)]
pub(super) struct Tenant {
    /// What it was started by, without what judging it again does not need.
    pub(super) decision: Decision,
    /// How much of its image it sees, where that is not all of it.
    pub(super) view: Option<Counts>,
    /// What was said last.
    pub(super) standing: Said,
    /// When that was found.
    pub(super) judged: Timestamp,
    /// The document of policy and trust by which it was found; `None` where that is not known.
    pub(super) policy: Option<Digest>,
    /// When an allow has to be judged again at the latest.
    until: Option<Timestamp>,
    /// Whether it was judged since the agent began.
    pub(super) is_known: bool,
    /// Whether it is on record that it could not be judged.
    is_blind: bool,
    pending: Option<Pending>,
    /// What was done already.
    acted: Option<Action>,
}

/// An action that was announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pending {
    action: Action,
    due: Instant,
    /// Whether it was asked to end already.
    is_asked: bool,
    /// Whether it is on record that it failed.
    has_failed: bool,
}

/// What is to be done to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    /// Let no further process be started in it.
    DenyExec,
    /// Pause its processes.
    Freeze,
    /// Ask it to end.
    End,
    /// Kill all that is left of it.
    Kill,
}

/// What came of judging a container again.
#[derive(Debug)]
pub(super) enum Judged {
    /// By this document of policy and trust.
    Word(Box<Word>, Digest),
    /// It could not be judged, and why.
    Not(String),
}

impl Tenant {
    /// `None` where the decision does not let a container run, or does not say which image it is.
    pub(super) fn new(mut decision: Decision) -> Option<Self> {
        let policy = decision.basis.as_ref()?.policy;
        decision.image.as_ref()?;
        if decision.verdict != Verdict::Allow || decision.container.is_empty() {
            return None;
        }
        let judged = decision.time.parse().ok()?;
        let standing = Said::from(&decision);
        let view = (decision.view.as_ref().zip(decision.files.as_ref())).map(|(_, files)| files.counts);
        decision.evidence = Vec::new();
        decision.audit = Vec::new();
        decision.phases = Vec::new();
        decision.hooks = Vec::new();
        decision.devices = Vec::new();
        decision.edits = Edits::default();
        (decision.view, decision.files, decision.syscalls) = (None, None, None);
        Some(Self {
            decision,
            view,
            standing,
            judged,
            policy: Some(policy),
            until: None,
            is_known: false,
            is_blind: false,
            pending: None,
            acted: None,
        })
    }

    /// Takes over what an earlier agent recorded.
    pub(super) fn replay(&mut self, record: &Reevaluation) {
        if self.is_known {
            return;
        }
        match record.step {
            Step::Changed => {
                self.standing = record.new.clone();
                self.policy = None;
                self.judged = record.time.parse().unwrap_or(self.judged);
                self.acted = None;
            }
            Step::Done => self.acted = Some(record.action),
            Step::NotJudged => self.is_blind = true,
            Step::Announced | Step::Failed | Step::Dropped => {}
        }
    }

    /// When it has to be judged again without a change, after this moment.
    pub(super) fn due(&self, now: Now) -> Option<Instant> {
        if self.is_blind {
            return None;
        }
        let until = self.until.map(|until| {
            let left = until.duration_since(now.time);
            now.instant + Duration::try_from(left).unwrap_or_default()
        });
        let pending = self.pending.map(|pending| pending.due);
        until.into_iter().chain(pending).min()
    }

    /// Whether it could not be judged the last time.
    pub(super) fn is_blind(&self) -> bool {
        self.is_blind
    }

    /// It does not run any more, so there is nothing to do about it.
    pub(super) fn rest(&mut self) {
        (self.pending, self.until) = (None, None);
    }

    /// Takes in what was said about it now; `causes` are asked for only where it is something else than before. Answers
    /// what is to be recorded.
    pub(super) fn judge(
        &mut self,
        judged: Judged,
        now: Now,
        is_paused: bool,
        causes: impl FnOnce(&Self) -> Vec<Cause>,
    ) -> Vec<Reevaluation> {
        let (word, policy) = match judged {
            Judged::Word(word, policy) if is_sure(&word) => (word, policy),
            Judged::Word(word, _) => {
                return self.not_judged(Said::from(&*word), format!("{}: {}", word.code, word.reason));
            }
            Judged::Not(why) => return self.not_judged(self.standing.clone(), why),
        };
        self.is_blind = false;
        self.is_known = true;
        let said = Said::from(&*word);
        let mut records = Vec::new();
        if said.verdict != self.standing.verdict {
            let mut record = self.record(Step::Changed, said.clone(), word.reevaluate.action);
            record.cause = causes(self);
            records.push(record);
            self.acted = None;
        }
        self.standing = said;
        self.judged = now.time;
        self.policy = Some(policy);
        self.until = word.span.until.filter(|_| word.verdict == Verdict::Allow);
        let wanted = match word.verdict {
            Verdict::Allow => Action::Report,
            Verdict::Refuse => word.reevaluate.action,
        };
        let is_same = self.pending.is_some_and(|pending| pending.action == wanted);
        if !is_same && let Some(pending) = self.pending.take() {
            let mut record = self.record(Step::Dropped, self.standing.clone(), pending.action);
            record.note = match word.verdict {
                Verdict::Allow => "it may run again".to_owned(),
                Verdict::Refuse => "the rule wants something else now".to_owned(),
            };
            records.push(record);
        }
        let is_done = match wanted {
            Action::Report => true,
            Action::DenyExec => self.acted.is_some(),
            Action::Freeze => matches!(self.acted, Some(Action::Freeze | Action::Stop)) || is_paused,
            Action::Stop => self.acted == Some(Action::Stop),
        };
        if is_same || is_done {
            return records;
        }
        let grace = Duration::from_secs(word.reevaluate.grace.unsigned_abs());
        self.pending = Some(Pending {
            action: wanted,
            due: now.instant + grace,
            is_asked: false,
            has_failed: false,
        });
        let at = now.time.checked_add(grace).unwrap_or(Timestamp::MAX);
        match records.iter_mut().find(|record| record.step == Step::Changed) {
            Some(record) => record.at = Some(at.to_string()),
            None => {
                let mut record = self.record(Step::Announced, self.standing.clone(), wanted);
                record.at = Some(at.to_string());
                records.push(record);
            }
        }
        records
    }

    /// Whether it may run, as was found now.
    pub(super) fn is_allowed(&self, now: Now) -> bool {
        self.standing.verdict == Verdict::Allow && !self.is_blind && self.judged == now.time
    }

    /// What was announced could not be recorded, so it is not announced, and will be again.
    pub(super) fn unannounce(&mut self) {
        self.pending = None;
    }

    /// What has to be done now, where the verdict that it follows from was found again just now.
    pub(super) fn deed(&self, now: Now) -> Option<Deed> {
        let pending = self.pending.filter(|pending| pending.due <= now.instant)?;
        let is_refused = self.standing.verdict == Verdict::Refuse && !self.is_blind && self.judged == now.time;
        is_refused.then_some(match (pending.action, pending.is_asked) {
            (Action::DenyExec, _) => Deed::DenyExec,
            (Action::Freeze, _) => Deed::Freeze,
            (Action::Stop, false) => Deed::End,
            (Action::Stop, true) => Deed::Kill,
            (Action::Report, _) => return None,
        })
    }

    /// Takes in what came of it. Answers what is to be recorded.
    pub(super) fn did(&mut self, deed: Deed, done: Result<String, String>, now: Now) -> Option<Reevaluation> {
        let pending = self.pending.take()?;
        match done {
            Ok(note) => {
                self.acted = Some(pending.action);
                self.pending = (deed == Deed::End).then_some(Pending {
                    due: now.instant + STOP_TIME,
                    is_asked: true,
                    ..pending
                });
                Some(self.noted(Step::Done, pending.action, note))
            }
            Err(why) => {
                self.pending = Some(Pending {
                    due: now.instant + RETRY,
                    has_failed: true,
                    ..pending
                });
                (!pending.has_failed).then(|| self.noted(Step::Failed, pending.action, why))
            }
        }
    }

    fn not_judged(&mut self, said: Said, why: String) -> Vec<Reevaluation> {
        if std::mem::replace(&mut self.is_blind, true) {
            return Vec::new();
        }
        let mut record = self.noted(Step::NotJudged, Action::Report, why);
        record.new = said;
        vec![record]
    }

    fn noted(&self, step: Step, action: Action, note: String) -> Reevaluation {
        Reevaluation {
            note,
            ..self.record(step, self.standing.clone(), action)
        }
    }

    fn record(&self, step: Step, new: Said, action: Action) -> Reevaluation {
        Reevaluation::new(&self.decision, step, self.standing.clone(), new, action)
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::admission::{Basis, Image, Request, reject};
    use crate::policy::{Kind, Reevaluate};
    use crate::verify::Span;

    const START: Timestamp = Timestamp::constant(1_800_000_000, 0);

    fn decision() -> Decision {
        let digest = Digest::of(b"image");
        Decision {
            verdict: Verdict::Allow,
            container: "web".to_owned(),
            namespace: "k8s.io".to_owned(),
            image: Some(Image {
                name: "example.com/app:1".to_owned(),
                config: digest,
                manifests: vec![digest],
                indexes: Vec::new(),
                chain_id: digest,
            }),
            basis: Some(Basis {
                generation: 1,
                policy: Digest::of(b"policy"),
                roots: std::collections::BTreeMap::new(),
                kind: Kind::Container,
                kubernetes_namespace: None,
                upper: None,
                volumes: Vec::new(),
                blobs: Vec::new(),
            }),
            ..reject(&Request::parse(b"{").unwrap_err())
        }
    }

    fn tenant() -> Tenant {
        Tenant::new(decision()).unwrap()
    }

    fn word(verdict: Verdict, action: Action) -> Word {
        Word {
            verdict,
            code: match verdict {
                Verdict::Allow => "signature-verified".to_owned(),
                Verdict::Refuse => "key-distrusted".to_owned(),
            },
            rule: None,
            reason: String::new(),
            fix: String::new(),
            audit: Vec::new(),
            policy: true,
            span: Span::default(),
            reevaluate: Reevaluate { action, grace: 30 },
        }
    }

    fn judged(word: Word) -> Judged {
        Judged::Word(Box::new(word), Digest::of(b"policy"))
    }

    /// A tenant and a clock.
    struct Stage {
        tenant: Tenant,
        begin: Instant,
        seconds: i64,
    }

    impl Stage {
        fn new() -> Self {
            Self {
                tenant: tenant(),
                begin: Instant::now(),
                seconds: 0,
            }
        }

        fn now(&self) -> Now {
            let since = Duration::from_secs(self.seconds.unsigned_abs());
            Now {
                instant: self.begin + since,
                time: START + since,
            }
        }

        fn say(&mut self, judged: Judged) -> Vec<Step> {
            let now = self.now();
            let records = self.tenant.judge(judged, now, false, |_| vec![Cause::Trust]);
            for record in &records {
                let is_announced = matches!(record.step, Step::Changed | Step::Announced)
                    && record.new.verdict == Verdict::Refuse
                    && record.action != Action::Report;
                assert_eq!(record.at.is_some(), is_announced, "{record:?}");
            }
            records.into_iter().map(|record| record.step).collect()
        }

        fn allow(&mut self) -> Vec<Step> {
            self.say(judged(word(Verdict::Allow, Action::Stop)))
        }

        fn refuse(&mut self, action: Action) -> Vec<Step> {
            self.say(judged(word(Verdict::Refuse, action)))
        }

        fn did(&mut self, deed: Deed, done: Result<String, String>) -> Option<Step> {
            let now = self.now();
            self.tenant.did(deed, done, now).map(|record| record.step)
        }

        fn deed(&self) -> Option<Deed> {
            self.tenant.deed(self.now())
        }
    }

    #[test]
    fn a_changed_verdict_is_recorded_once() {
        let mut stage = Stage::new();
        assert_eq!(stage.allow(), []);
        assert_eq!(stage.refuse(Action::Report), [Step::Changed]);
        assert_eq!(stage.refuse(Action::Report), []);
        assert_eq!(stage.deed(), None);
        assert_eq!(stage.allow(), [Step::Changed]);
    }

    #[test]
    fn nothing_is_done_before_the_grace_is_over_and_the_verdict_was_found_again() {
        let mut stage = Stage::new();
        assert_eq!(stage.refuse(Action::Freeze), [Step::Changed]);
        stage.seconds = 29;
        assert_eq!(stage.refuse(Action::Freeze), []);
        assert_eq!(stage.deed(), None);
        stage.seconds = 30;
        // Not judged at this moment.
        assert_eq!(stage.deed(), None);
        assert_eq!(stage.refuse(Action::Freeze), []);
        assert_eq!(stage.deed(), Some(Deed::Freeze));
        assert_eq!(stage.did(Deed::Freeze, Ok(String::new())), Some(Step::Done));
        // Whoever thaws it knows why.
        stage.seconds = 100;
        assert_eq!(stage.refuse(Action::Freeze), []);
        assert_eq!(stage.deed(), None);
    }

    #[test]
    fn what_may_run_again_within_the_grace_is_left_alone() {
        let mut stage = Stage::new();
        stage.refuse(Action::Stop);
        stage.seconds = 30;
        assert_eq!(stage.allow(), [Step::Changed, Step::Dropped]);
        assert_eq!(stage.deed(), None);
        // The next time has a grace of its own.
        assert_eq!(stage.refuse(Action::Stop), [Step::Changed]);
        assert_eq!(stage.deed(), None);
        // So has another action.
        assert_eq!(stage.refuse(Action::Freeze), [Step::Dropped, Step::Announced]);
        assert_eq!(stage.refuse(Action::Report), [Step::Dropped]);
    }

    #[test]
    fn nothing_is_done_to_what_cannot_be_judged() {
        let mut stage = Stage::new();
        let cannot = || Judged::Not("the active policy cannot be read".to_owned());
        assert_eq!(stage.say(cannot()), [Step::NotJudged]);
        assert_eq!(stage.say(cannot()), []);
        assert_eq!(stage.refuse(Action::Stop), [Step::Changed]);
        stage.seconds = 30;
        assert_eq!(stage.say(cannot()), [Step::NotJudged]);
        assert_eq!(stage.deed(), None);
        for (code, policy) in [
            ("clock-behind", false),
            ("parser-timeout", false),
            ("evidence-cache-empty", true),
            ("evidence-unreadable", true),
        ] {
            let mut doubt = word(Verdict::Refuse, Action::Stop);
            (doubt.code, doubt.policy) = (code.to_owned(), policy);
            assert_eq!(stage.say(judged(doubt)), [], "{code}");
            assert_eq!(stage.deed(), None, "{code}");
        }
        assert_eq!(stage.refuse(Action::Stop), []);
        assert_eq!(stage.deed(), Some(Deed::End));
    }

    #[test]
    fn a_container_that_does_not_end_is_killed() {
        let mut stage = Stage::new();
        stage.refuse(Action::Stop);
        stage.seconds = 30;
        stage.refuse(Action::Stop);
        assert_eq!(stage.deed(), Some(Deed::End));
        assert_eq!(stage.did(Deed::End, Ok(String::new())), Some(Step::Done));
        assert_eq!(stage.deed(), None);
        stage.seconds = 40;
        assert_eq!(stage.refuse(Action::Stop), []);
        assert_eq!(stage.deed(), Some(Deed::Kill));
        // A failure is recorded once and tried again.
        assert_eq!(stage.did(Deed::Kill, Err(String::new())), Some(Step::Failed));
        assert_eq!(stage.deed(), None);
        stage.seconds = 50;
        stage.refuse(Action::Stop);
        assert_eq!(stage.did(Deed::Kill, Err(String::new())), None);
        stage.seconds = 60;
        stage.refuse(Action::Stop);
        assert_eq!(stage.did(Deed::Kill, Ok(String::new())), Some(Step::Done));
        stage.seconds = 100;
        stage.refuse(Action::Stop);
        assert_eq!(stage.deed(), None);
    }

    #[test]
    fn a_stricter_action_follows_a_weaker_one_and_not_the_other_way_round() {
        let mut stage = Stage::new();
        stage.refuse(Action::DenyExec);
        for (action, seconds, deed) in [
            (Action::DenyExec, 30, Deed::DenyExec),
            (Action::Freeze, 60, Deed::Freeze),
        ] {
            stage.refuse(action);
            stage.seconds = seconds;
            assert_eq!(stage.refuse(action), []);
            assert_eq!(stage.deed(), Some(deed));
            assert_eq!(stage.did(deed, Ok(String::new())), Some(Step::Done));
        }
        assert_eq!(stage.refuse(Action::DenyExec), []);
        assert_eq!(stage.deed(), None);
        assert_eq!(stage.refuse(Action::Stop), [Step::Announced]);
        assert_eq!(stage.allow(), [Step::Changed, Step::Dropped]);
        assert!(stage.tenant.is_allowed(stage.now()));
    }

    #[test]
    fn what_could_not_be_recorded_is_announced_again() {
        let mut stage = Stage::new();
        stage.refuse(Action::Stop);
        stage.tenant.unannounce();
        stage.seconds = 40;
        assert_eq!(stage.refuse(Action::Stop), [Step::Announced]);
        assert_eq!(stage.deed(), None);
    }

    #[test]
    fn another_agent_goes_on_where_one_ended() {
        let mut stage = Stage::new();
        let now = stage.now();
        let refused = || judged(word(Verdict::Refuse, Action::Freeze));
        let records = tenant().judge(refused(), now, false, |_| vec![Cause::Time]);
        stage.tenant.replay(&records[0]);
        assert_eq!(stage.tenant.standing.verdict, Verdict::Refuse);
        // It was killed before it did what it had announced.
        assert_eq!(stage.refuse(Action::Freeze), [Step::Announced]);
        let mut stage = Stage::new();
        stage.tenant.replay(&records[0]);
        let done = Reevaluation {
            step: Step::Done,
            ..records[0].clone()
        };
        stage.tenant.replay(&done);
        assert_eq!(stage.refuse(Action::Freeze), []);
        // What is paused already needs no freezing.
        let mut stage = Stage::new();
        let records = stage.tenant.judge(refused(), now, true, |_| vec![Cause::Time]);
        assert_eq!((records.len(), records[0].at.as_ref()), (1, None));
    }

    #[test]
    fn an_allow_is_found_again_when_it_ends() {
        let mut stage = Stage::new();
        assert_eq!(stage.tenant.due(stage.now()), None);
        let mut aging = word(Verdict::Allow, Action::Stop);
        aging.span.until = Some(START + SignedDuration::from_secs(60));
        assert_eq!(stage.say(judged(aging)), []);
        let due = Some(stage.begin + Duration::from_secs(60));
        assert_eq!(stage.tenant.due(stage.now()), due);
        stage.seconds = 60;
        assert_eq!(stage.tenant.due(stage.now()), due);
        assert_eq!(stage.refuse(Action::Stop), [Step::Changed]);
        assert_eq!(
            stage.tenant.due(stage.now()),
            Some(stage.begin + Duration::from_secs(90))
        );
        // One that cannot be judged, and one that ended, keep nobody awake.
        stage.say(Judged::Not(String::new()));
        assert_eq!(stage.tenant.due(stage.now()), None);
        stage.refuse(Action::Stop);
        stage.tenant.rest();
        assert_eq!(stage.tenant.due(stage.now()), None);
    }

    #[test]
    fn only_what_was_let_in_is_a_tenant() {
        let refused = Decision {
            verdict: Verdict::Refuse,
            ..decision()
        };
        assert!(Tenant::new(refused).is_none());
        let unproved = Decision {
            image: None,
            ..decision()
        };
        assert!(Tenant::new(unproved).is_none());
    }
}
