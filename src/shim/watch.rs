//! The process that watches what an audited container uses. It is there before the container, and gone after it.

use std::io;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::admit::Admission;
use super::child::{Children, Exit, Handle};
use crate::admission::FilesAudit;

/// What it says on standard output once it listens.
pub const READY: &[u8] = b"watching\n";
/// Most bytes of why it does not.
const MAX_REASON: u64 = 500;
/// Longest wait for that, and for its last word.
const PATIENCE: Duration = Duration::from_secs(5);

/// A running watcher. Dropped, it is told to end and nobody waits for it.
#[derive(Debug)]
pub struct Watcher {
    /// It ends when this is closed.
    stdin: Option<ChildStdin>,
    handle: Handle,
    ended: JoinHandle<Exit>,
}

/// What is watched.
#[derive(Debug)]
pub struct Watched<'a> {
    /// containerd namespace.
    pub namespace: &'a str,
    /// Container id.
    pub container: &'a str,
    /// Where its root file system is mounted.
    pub root: &'a Path,
    /// The OCI runtime, whose own opens do not count.
    pub runtime: &'a str,
    /// What is hidden, by which rule.
    pub audit: &'a FilesAudit,
}

impl Watcher {
    /// Starts one, and waits until it listens.
    ///
    /// # Errors
    /// When it does not come to that; then it is not there either.
    pub async fn start(
        children: &Arc<Children>,
        admission: &Admission,
        config: &str,
        watched: Watched<'_>,
    ) -> io::Result<Self> {
        let mut command = admission.command("watch", config);
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        command
            .args(["--namespace", watched.namespace, "--container", watched.container])
            .args(["--rule", &watched.audit.rule, "--runtime", watched.runtime])
            .arg("--root")
            .arg(watched.root)
            .arg(watched.audit.list.to_string());
        Self::run(children, &mut command).await
    }

    async fn run(children: &Arc<Children>, command: &mut Command) -> io::Result<Self> {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // Not killed with the shim: its standard input ends then, and it has a last word to write.
        let mut std = command.spawn()?;
        let mut child = children.watch(i32::try_from(std.id()).map_err(io::Error::other)?)?;
        let handle = child.handle()?;
        let watcher = Self {
            stdin: std.stdin.take(),
            handle,
            // Whoever is not waited for keeps all others from being reaped.
            ended: tokio::spawn(async move { child.wait().await }),
        };
        let (stdout, stderr) = std
            .stdout
            .take()
            .zip(std.stderr.take())
            .ok_or(io::ErrorKind::BrokenPipe)?;
        let mut stdout = pipe::Receiver::from_owned_fd(stdout.into())?;
        let mut said = [0; READY.len()];
        match timeout(PATIENCE, stdout.read_exact(&mut said)).await {
            Ok(Ok(_)) if said == *READY => return Ok(watcher),
            Ok(_) => {}
            Err(_) => {
                watcher.kill();
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        let mut why = Vec::new();
        let mut stderr = pipe::Receiver::from_owned_fd(stderr.into())?.take(MAX_REASON);
        let _ = timeout(PATIENCE, stderr.read_to_end(&mut why)).await;
        Err(io::Error::other(String::from_utf8_lossy(&why).trim().to_owned()))
    }

    /// Ends it, after it has recorded what it saw.
    pub async fn end(mut self) {
        self.stdin = None;
        if timeout(PATIENCE, &mut self.ended).await.is_err() {
            self.kill();
            log::warn!("assay watch did not end by itself; the last second of its record may be missing");
        }
    }

    fn kill(&self) {
        // Fails when it has ended, which is what is wanted.
        let _ = self.handle.signal(libc::SIGKILL.cast_unsigned());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn run(script: &str) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", script]);
            let watcher = Watcher::run(&Arc::new(Children::default()), &mut command).await?;
            watcher.end().await;
            Ok(())
        })
    }

    #[test]
    fn a_watcher_ends_when_its_input_does_and_says_why_it_never_began() {
        let place = tempfile::tempdir().unwrap();
        let last = place.path().join("last");
        let started = Instant::now();
        run(&format!("echo watching; cat; echo word > {}", last.display())).unwrap();
        assert_eq!(std::fs::read_to_string(last).unwrap(), "word\n");
        assert!(started.elapsed() < PATIENCE);
        assert_eq!(
            run("echo fanotify: no >&2; exit 1").unwrap_err().to_string(),
            "fanotify: no"
        );
        assert_eq!(run("echo something; exit 0").unwrap_err().to_string(), "");
    }
}
