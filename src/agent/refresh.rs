//! The fleet's policy and the trusted roots, fetched on a schedule: by the commands that an administrator would run.

use std::process::Stdio;
use std::time::Duration;

use tokio::time::Instant;

use super::process::Process;

/// How often the fleet's policy is asked for.
const POLICY: Duration = Duration::from_secs(15 * 60);
/// How often trusted roots are refreshed: a TUF repository signs anew every few days.
const TRUST: Duration = Duration::from_secs(24 * 60 * 60);
/// How long after the first failure it is tried again; each time it is twice as long, up to the usual time.
const FIRST_WAIT: Duration = Duration::from_secs(30);

/// What is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Policy,
    Trust,
}

impl What {
    /// As figures name it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Trust => "trust",
        }
    }

    /// The command that an administrator would run.
    pub(super) fn arguments(self) -> [&'static str; 2] {
        match self {
            Self::Policy => ["policy", "pull"],
            Self::Trust => ["trust", "update"],
        }
    }

    fn interval(self) -> Duration {
        match self {
            Self::Policy => POLICY,
            Self::Trust => TRUST,
        }
    }
}

#[derive(Debug)]
struct Task {
    what: What,
    due: Instant,
    failures: u32,
}

impl Task {
    /// When it is tried next.
    fn again(&mut self, is_done: bool, now: Instant) {
        let usual = self.what.interval();
        let after = if is_done {
            self.failures = 0;
            usual
        } else {
            let doubled = 2_u32.saturating_pow(self.failures);
            self.failures += 1;
            FIRST_WAIT.saturating_mul(doubled).min(usual)
        };
        self.due = now + after;
    }
}

/// Fetches one after the other.
#[derive(Debug)]
pub(super) struct Refresher {
    tasks: Vec<Task>,
    running: Option<(usize, Process)>,
}

impl Refresher {
    /// Both are fetched at once when the agent begins.
    pub(super) fn new(what: &[What]) -> Self {
        let due = Instant::now();
        Self {
            tasks: what.iter().map(|&what| Task { what, due, failures: 0 }).collect(),
            running: None,
        }
    }

    /// When there is something to begin.
    pub(super) fn due(&self) -> Option<Instant> {
        let dues = self.tasks.iter().map(|task| task.due);
        if self.running.is_some() { None } else { dues.min() }
    }

    /// Begins what is due. What a command complains of goes where the agent's own words go.
    pub(super) fn go_on(&mut self) {
        let now = Instant::now();
        if self.running.is_some() {
            return;
        }
        let Some((at, task)) = self.tasks.iter_mut().enumerate().find(|(_, task)| task.due <= now) else {
            return;
        };
        match Process::start(&task.what.arguments(), Stdio::inherit()) {
            Ok(process) => self.running = Some((at, process)),
            Err(_) => task.again(false, now),
        }
    }

    /// Waits until a fetch ends. Answers what was fetched, and whether that went well.
    pub(super) async fn ended(&mut self) -> (What, bool) {
        let at = match &self.running {
            Some((at, process)) => {
                process.ended().await;
                *at
            }
            None => std::future::pending().await,
        };
        let code = self.running.take().and_then(|(_, process)| process.finish());
        let is_done = code == Some(0);
        match self.tasks.get_mut(at) {
            Some(task) => {
                task.again(is_done, Instant::now());
                (task.what, is_done)
            }
            None => std::future::pending().await,
        }
    }

    /// Ends a fetch that is under way.
    pub(super) fn end(self) {
        if let Some((_, process)) = self.running {
            process.kill();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_tried_again_soon_and_then_less_often() {
        let now = Instant::now();
        let mut task = Task {
            what: What::Policy,
            due: now,
            failures: 0,
        };
        let mut waits = Vec::new();
        for _ in 0..7 {
            task.again(false, now);
            waits.push((task.due - now).as_secs());
        }
        assert_eq!(waits, [30, 60, 120, 240, 480, 900, 900]);
        task.again(true, now);
        assert_eq!(task.due - now, POLICY);
        task.again(false, now);
        assert_eq!(task.due - now, FIRST_WAIT);
    }
}
