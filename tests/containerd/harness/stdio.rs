//! The test's ends of a process's standard streams.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};

use super::eventually;

/// The named pipes of one process, with everything it wrote so far.
#[derive(Debug)]
pub struct Stdio {
    folder: PathBuf,
    terminal: bool,
    stdin: Option<File>,
    stdout: Option<Collector>,
    stderr: Option<Collector>,
}

#[derive(Debug)]
struct Collector {
    bytes: Arc<Mutex<Vec<u8>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Stdio {
    /// Makes the pipes and starts to read.
    pub fn new(folder: PathBuf, terminal: bool) -> Self {
        fs::create_dir_all(&folder).unwrap();
        let mut stdio = Self {
            folder,
            terminal,
            stdin: None,
            stdout: None,
            stderr: None,
        };
        for name in ["stdin", "stdout", "stderr"] {
            mknodat(
                CWD,
                stdio.folder.join(name),
                FileType::Fifo,
                Mode::from_raw_mode(0o600),
                0,
            )
            .unwrap();
        }
        // A reader of its own keeps a writer from blocking until the shim opens the pipe.
        let stdin = OpenOptions::new()
            .read(true)
            .write(true)
            .open(stdio.folder.join("stdin"));
        stdio.stdin = Some(stdin.unwrap());
        stdio.attach();
        stdio
    }

    pub fn stdin_path(&self) -> String {
        text(&self.folder.join("stdin"))
    }

    pub fn stdout_path(&self) -> String {
        text(&self.folder.join("stdout"))
    }

    /// Empty for a terminal, which has one stream only.
    pub fn stderr_path(&self) -> String {
        if self.terminal {
            String::new()
        } else {
            text(&self.folder.join("stderr"))
        }
    }

    /// Opens the output pipes for reading and collects what arrives.
    pub fn attach(&mut self) {
        self.stdout = Some(Collector::start(&self.folder.join("stdout")));
        if !self.terminal {
            self.stderr = Some(Collector::start(&self.folder.join("stderr")));
        }
    }

    /// Closes the output pipes.
    pub fn detach(&mut self) {
        for collector in [self.stdout.take(), self.stderr.take()].into_iter().flatten() {
            collector.stop.store(true, Ordering::SeqCst);
            collector.finish();
        }
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.stdin.as_mut().expect("stdin was closed").write_all(bytes).unwrap();
    }

    /// Closes the test's end. The process sees the end of its input only after CloseIO.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    pub fn stdout(&self) -> String {
        self.stdout.as_ref().map_or_else(String::new, Collector::text)
    }

    /// Waits until the output holds `wanted`.
    #[track_caller]
    pub fn expect(&self, wanted: &str) {
        eventually(&format!("{wanted:?} in the output"), || {
            let output = self.stdout();
            if output.contains(wanted) {
                Ok(())
            } else {
                Err(format!("it is {output:?}"))
            }
        });
    }

    /// Everything written to the output and to the error stream, once both have ended.
    pub fn finish(&mut self) -> (String, String) {
        let (stdout, stderr) = self.finish_bytes();
        (
            String::from_utf8_lossy(&stdout).into_owned(),
            String::from_utf8_lossy(&stderr).into_owned(),
        )
    }

    pub fn finish_bytes(&mut self) -> (Vec<u8>, Vec<u8>) {
        let stdout = self.stdout.take().map(Collector::finish);
        let stderr = self.stderr.take().map(Collector::finish);
        (stdout.unwrap_or_default(), stderr.unwrap_or_default())
    }
}

impl Drop for Stdio {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.folder));
    }
}

impl Collector {
    fn start(path: &Path) -> Self {
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
            .open(path)
            .unwrap();
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let (bytes, stop) = (Arc::clone(&bytes), Arc::clone(&stop));
            move || {
                let mut buffer = vec![0; 64 * 1024];
                while !stop.load(Ordering::SeqCst) {
                    // A pipe that nobody has opened for writing yet reports nothing here, but would read as ended.
                    let limit = Timespec::try_from(GLANCE).unwrap();
                    if poll(&mut [PollFd::new(&file, PollFlags::IN)], Some(&limit)).unwrap() == 0 {
                        continue;
                    }
                    match file.read(&mut buffer) {
                        Ok(0) => return,
                        Ok(count) => bytes.lock().unwrap().extend_from_slice(&buffer[..count]),
                        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                        Err(error) => panic!("reading a process's output: {error}"),
                    }
                }
            }
        });
        Self {
            bytes,
            stop,
            thread: Some(thread),
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap()).into_owned()
    }

    fn finish(mut self) -> Vec<u8> {
        let thread = self.thread.take().unwrap();
        eventually("the end of a process's output", || {
            if thread.is_finished() {
                Ok(())
            } else {
                Err("still open".to_owned())
            }
        });
        thread.join().unwrap();
        std::mem::take(&mut *self.bytes.lock().unwrap())
    }
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// How long the test waits between two looks.
pub const GLANCE: Duration = Duration::from_millis(10);
