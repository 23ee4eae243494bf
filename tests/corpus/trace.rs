//! System calls of a container's processes through its workload, as strace sees them.
//!
//! strace is attached between the create and the start call, when the OCI runtime has finished everything but the
//! `execve` of the container's program. What comes before that `execve` returns is the OCI runtime's and does not count.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::definition::Definition;
use crate::node::{Node, Runtime};
use crate::run;

const PATIENCE: Duration = Duration::from_secs(15);

/// A running strace.
#[derive(Debug)]
pub struct Tracer {
    strace: Child,
}

impl Tracer {
    /// Follows a process with all its threads and children.
    ///
    /// # Errors
    /// strace does not run or does not attach.
    pub fn attach(process: u32, file: &Path) -> Result<Self, String> {
        let strace = Command::new("strace")
            .args([
                "--follow-forks",
                "--quiet=all",
                "--signal=none",
                "--string-limit=0",
                "--output",
            ])
            .arg(file)
            .args(["--attach", &process.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .map_err(|error| format!("strace does not start: {error}; `tests/setup/corpus` installs it"))?;
        let tracer = Self { strace };
        let since = Instant::now();
        while !is_traced(process) {
            if since.elapsed() > PATIENCE {
                return Err(format!("strace does not attach to process {process}"));
            }
            sleep(Duration::from_millis(2));
        }
        Ok(tracer)
    }

    /// Waits until it has written everything, after the last process has ended.
    ///
    /// # Errors
    /// It does not end: a process of the container is still there.
    pub fn finish(mut self) -> Result<(), String> {
        let since = Instant::now();
        while self.strace.try_wait().unwrap().is_none() {
            if since.elapsed() > PATIENCE {
                return Err("strace goes on after the container's end".to_owned());
            }
            sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}

/// True when every thread has a tracer.
fn is_traced(process: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else {
        return false;
    };
    threads.flatten().all(|thread| {
        fs::read_to_string(thread.path().join("status"))
            .is_ok_and(|status| !status.lines().any(|line| line == "TracerPid:\t0"))
    })
}

/// Runs the image with its workload under strace and keeps the names of its system calls.
///
/// # Errors
/// The workload fails, or the trace is not one of a container.
pub fn record(node: &Node, definition: &Definition) -> Result<(), String> {
    let file = node.folder.join("strace");
    run::run(node, definition, Runtime::Stock, Some(&file))?;
    let names = names(&file)?;
    fs::remove_file(file).unwrap();
    let text: String = names.iter().flat_map(|name| [name.as_str(), "\n"]).collect();
    fs::write(definition.kept().join("traced"), text).unwrap();
    fs::write(definition.kept().join("traced.key"), definition.run_key()).unwrap();
    Ok(())
}

/// True when neither the image nor its workload has changed since the trace was recorded.
pub fn is_current(definition: &Definition) -> bool {
    fs::read_to_string(definition.kept().join("traced.key")).is_ok_and(|key| key == definition.run_key())
}

/// The recorded names.
pub fn recorded(definition: &Definition) -> Option<BTreeSet<String>> {
    let text = fs::read_to_string(definition.kept().join("traced")).ok()?;
    Some(text.lines().map(str::to_owned).collect())
}

/// Names of the system calls in strace's file, from the return of the first `execve`.
fn names(file: &Path) -> Result<BTreeSet<String>, String> {
    let mut names = BTreeSet::new();
    let mut started = false;
    let mut lines = BufReader::new(File::open(file).unwrap());
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line).unwrap() > 0 {
        let text = String::from_utf8_lossy(&line).into_owned();
        line.clear();
        let event = text.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start();
        if !started {
            let execve = event.starts_with("execve(") || event.starts_with("<... execve resumed>");
            started = execve && event.trim_end().ends_with("= 0");
            continue;
        }
        let call = event.strip_prefix("<... ").unwrap_or(event);
        let name: String = call
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
            .collect();
        if !name.is_empty() && !event.starts_with("+++") && !event.starts_with("---") {
            names.insert(name);
        }
    }
    if started {
        Ok(names)
    } else {
        Err("no program was executed in the container while strace looked".to_owned())
    }
}
