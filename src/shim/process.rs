//! The states of one process: the first of a container, or an exec.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use containerd_shim_protos::types::task::Status;
use tokio::sync::watch;

use super::child::{Exit, Handle};
use super::error::Error;
use super::io::{ProcessIo, Stdio};

/// Where a process is in its life. A change that takes a call of the OCI runtime has a phase of its own, so that no
/// lock is held during that call and a second one of the same kind is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Set up, waiting for `Start`.
    Created,
    /// `Start` is under way.
    Starting,
    /// `Start` failed and nothing ever ran.
    NeverRan,
    /// Runs.
    Running,
    /// `Pause` is under way.
    Pausing,
    /// Frozen.
    Paused,
    /// `Resume` is under way.
    Resuming,
    /// `Delete` is under way.
    Deleting,
}

/// One process.
#[derive(Debug)]
pub struct Process {
    /// Id of the exec; empty for the first process.
    pub exec_id: String,
    /// Its standard streams as asked for.
    pub stdio: Stdio,
    /// For an exec, the JSON of its `Process`.
    pub spec: Vec<u8>,
    inner: Mutex<Inner>,
    exit: watch::Sender<Option<Exit>>,
    unannounced: watch::Sender<usize>,
    signals: watch::Sender<usize>,
}

#[derive(Debug)]
struct Inner {
    phase: Phase,
    pid: i32,
    handle: Option<Arc<Handle>>,
    io: Option<Arc<ProcessIo>>,
    /// Clients said that no more input comes, which may be before the streams are open.
    input_ended: bool,
}

impl Process {
    /// A process that is set up, or will be at `Start`.
    #[must_use]
    pub fn new(exec_id: String, stdio: Stdio, spec: Vec<u8>) -> Self {
        Self {
            exec_id,
            stdio,
            spec,
            inner: Mutex::new(Inner {
                phase: Phase::Created,
                pid: 0,
                handle: None,
                io: None,
                input_ended: false,
            }),
            exit: watch::Sender::new(None),
            unannounced: watch::Sender::new(0),
            signals: watch::Sender::new(0),
        }
    }

    /// Takes note of the process that the OCI runtime started.
    pub fn started(&self, pid: i32, handle: Handle, io: ProcessIo) {
        let mut inner = self.lock();
        inner.pid = pid;
        inner.handle = Some(Arc::new(handle));
        if inner.input_ended {
            io.close_stdin();
        }
        inner.io = Some(Arc::new(io));
    }

    /// Its pid; 0 before it has one.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.lock().pid
    }

    /// The pid as containerd's messages carry it.
    #[must_use]
    pub fn message_pid(&self) -> u32 {
        self.pid().cast_unsigned()
    }

    /// Sends it signals.
    #[must_use]
    pub fn handle(&self) -> Option<Arc<Handle>> {
        self.lock().handle.clone()
    }

    /// Its open streams.
    #[must_use]
    pub fn io(&self) -> Option<Arc<ProcessIo>> {
        self.lock().io.clone()
    }

    /// No more input comes.
    pub fn close_stdin(&self) {
        let mut inner = self.lock();
        inner.input_ended = true;
        if let Some(io) = &inner.io {
            io.close_stdin();
        }
    }

    /// Closes its streams.
    pub fn close_io(&self) {
        self.lock().io = None;
    }

    /// How it ended, if it has.
    #[must_use]
    pub fn exit(&self) -> Option<Exit> {
        self.exit.borrow().clone()
    }

    /// Waits for its end.
    pub async fn ended(&self) -> Exit {
        let mut exits = self.exit.subscribe();
        match exits.wait_for(Option::is_some).await.map(|exit| exit.clone()) {
            Ok(Some(exit)) => exit,
            // The sender is this process's own field and outlives the borrow.
            _ => Exit::now(u32::MAX),
        }
    }

    /// Makes its end known to all who wait.
    pub fn end(&self, exit: Exit) {
        self.exit.send_replace(Some(exit));
    }

    /// Holds its exit event back until the announcement of an earlier one has been accepted.
    #[must_use]
    pub fn announcing(self: &Arc<Self>) -> Announcing {
        self.unannounced.send_modify(|n| *n += 1);
        Announcing(Arc::clone(self))
    }

    /// Waits until nothing is left to be announced before the exit.
    pub async fn announced(&self) {
        // Fails only when the sender is gone, and it is this process's own.
        let _ = self.unannounced.subscribe().wait_for(|n| *n == 0).await;
    }

    /// Counts a signal that is being sent.
    #[must_use]
    pub fn signalling(self: &Arc<Self>) -> Signalling {
        self.signals.send_modify(|n| *n += 1);
        Signalling(Arc::clone(self))
    }

    /// Waits until no signal is being sent. containerd hangs up when a process is deleted, and the client whose signal
    /// ended it would not get its answer.
    pub async fn signalled(&self) {
        // Fails only when the sender is gone, and it is this process's own.
        let _ = self.signals.subscribe().wait_for(|n| *n == 0).await;
    }

    /// Its state as containerd names it.
    #[must_use]
    pub fn status(&self) -> Status {
        let ended = self.exit.borrow().is_some();
        match self.lock().phase {
            // Its waiters are released, but it is no process that has stopped: there never was one.
            Phase::NeverRan => Status::CREATED,
            _ if ended => Status::STOPPED,
            Phase::Created | Phase::Starting => Status::CREATED,
            Phase::Running | Phase::Resuming | Phase::Deleting => Status::RUNNING,
            Phase::Pausing => Status::PAUSING,
            Phase::Paused => Status::PAUSED,
        }
    }

    /// Goes from one of `from` to `to`, or says why not. The answer undoes the step unless it is told to stay.
    ///
    /// # Errors
    /// [`Error::Precondition`] when the process is in another phase, or has ended where a living one is needed.
    pub fn step(self: &Arc<Self>, verb: &str, from: &[Phase], to: Phase) -> Result<Step, Error> {
        let ended = self.exit.borrow().is_some();
        let mut inner = self.lock();
        let before = inner.phase;
        if ended && to != Phase::Deleting {
            return Err(Error::Precondition(format!("cannot {verb} a stopped process")));
        }
        // A stopped process can be deleted from whatever phase it ended in, but only once.
        let fits = if ended {
            before != Phase::Deleting
        } else {
            from.contains(&before)
        };
        if !fits {
            return Err(Error::Precondition(format!(
                "cannot {verb} a {} process",
                describe(before)
            )));
        }
        inner.phase = to;
        Ok(Step {
            process: Arc::clone(self),
            back: Some(before),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every field is valid whatever happened while it was locked.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn describe(phase: Phase) -> &'static str {
    match phase {
        Phase::Created => "created",
        Phase::Starting => "starting",
        Phase::NeverRan => "failed",
        Phase::Running => "running",
        Phase::Pausing => "pausing",
        Phase::Paused => "paused",
        Phase::Resuming => "resuming",
        Phase::Deleting => "deleted",
    }
}

/// A change of phase that is undone unless it is finished.
#[derive(Debug)]
pub struct Step {
    process: Arc<Process>,
    back: Option<Phase>,
}

impl Step {
    /// The change came to its end: the process is in `phase` now.
    pub fn finish(mut self, phase: Phase) {
        self.back = None;
        self.process.lock().phase = phase;
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(phase) = self.back {
            self.process.lock().phase = phase;
        }
    }
}

/// While it lives, the exit event of the process is held back.
#[derive(Debug)]
pub struct Announcing(Arc<Process>);

impl Drop for Announcing {
    fn drop(&mut self) {
        self.0.unannounced.send_modify(|n| *n -= 1);
    }
}

/// While it lives, the process is not deleted.
#[derive(Debug)]
pub struct Signalling(Arc<Process>);

impl Drop for Signalling {
    fn drop(&mut self) {
        self.0.signals.send_modify(|n| *n -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process() -> Arc<Process> {
        Arc::new(Process::new(String::new(), Stdio::default(), Vec::new()))
    }

    #[test]
    fn a_second_start_is_refused_while_the_first_runs_and_a_failed_one_is_undone() {
        let process = process();
        let step = process.step("start", &[Phase::Created], Phase::Starting).unwrap();
        let second = process.step("start", &[Phase::Created], Phase::Starting).unwrap_err();
        insta::assert_snapshot!(second, @"cannot start a starting process: failed precondition");
        drop(step);
        assert_eq!(process.status(), Status::CREATED);
        process
            .step("start", &[Phase::Created], Phase::Starting)
            .unwrap()
            .finish(Phase::Running);
        assert_eq!(process.status(), Status::RUNNING);
    }

    #[test]
    fn a_process_whose_start_failed_stays_created_and_can_only_be_deleted() {
        let process = process();
        let step = process.step("start", &[Phase::Created], Phase::Starting).unwrap();
        process.end(Exit::now(255));
        step.finish(Phase::NeverRan);
        assert_eq!(process.status(), Status::CREATED);
        assert_eq!(process.exit().map(|exit| exit.status), Some(255));
        assert!(process.step("start", &[Phase::Created], Phase::Starting).is_err());
        assert!(process.step("delete", &[Phase::Created], Phase::Deleting).is_ok());
    }

    #[test]
    fn only_a_stopped_or_created_process_can_be_deleted_and_only_once() {
        let process = process();
        process
            .step("start", &[Phase::Created], Phase::Starting)
            .unwrap()
            .finish(Phase::Running);
        let delete = |process: &Arc<Process>| process.step("delete", &[Phase::Created], Phase::Deleting);
        insta::assert_snapshot!(delete(&process).unwrap_err(), @"cannot delete a running process: failed precondition");
        process.end(Exit::now(0));
        let step = delete(&process).unwrap();
        assert!(delete(&process).is_err());
        drop(step);
        assert!(delete(&process).is_ok());
    }
}
