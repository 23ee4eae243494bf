use std::fs::{File, Permissions, metadata, read_to_string, set_permissions, write};
use std::io::{IoSlice, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use tempfile::TempDir;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use super::*;

const SECOND: Duration = Duration::from_secs(1);
/// Longer than anything here takes on a busy machine, shorter than a developer's patience.
const LIMIT: Duration = Duration::from_secs(20);

/// A directory with a FIFO for each stream.
struct Fifos {
    directory: TempDir,
}

impl Fifos {
    fn new() -> Self {
        let fifos = Self {
            directory: TempDir::new().unwrap(),
        };
        for name in ["in", "out", "err"] {
            mknodat(CWD, fifos.path(name), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        }
        fifos
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn address(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn stdio(&self, terminal: bool) -> Stdio {
        let stderr = if terminal { String::new() } else { self.address("err") };
        Stdio {
            stdin: self.address("in"),
            stdout: self.address("out"),
            stderr,
            terminal,
        }
    }

    /// A client that reads to the end, as containerd does: it blocks in open until the shim comes.
    fn reader(&self, name: &str) -> JoinHandle<Vec<u8>> {
        let path = self.path(name);
        thread::spawn(move || {
            let mut bytes = Vec::new();
            File::open(path).unwrap().read_to_end(&mut bytes).unwrap();
            bytes
        })
    }

    /// A client that has the FIFO open and does not read yet.
    fn idle_reader(&self, name: &str) -> File {
        OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(self.path(name))
            .unwrap()
    }

    fn writer(&self) -> File {
        OpenOptions::new().write(true).open(self.path("in")).unwrap()
    }
}

async fn prepare(stdio: &Stdio) -> Pending {
    Pending::prepare("c1", "ns", stdio, 0, 0).await.unwrap()
}

/// Runs a shell with the streams, as the OCI runtime would.
async fn run(stdio: &Stdio, script: &str) -> (Child, ProcessIo) {
    let mut pending = prepare(stdio).await;
    let [stdin, stdout, stderr] = pending.runtime_stdio().unwrap();
    let child = Command::new("sh")
        .args(["-c", script])
        .stdin(stdin)
        .stdout(stdout)
        .stderr(stderr)
        .spawn()
        .unwrap();
    (child, pending.start().await.unwrap())
}

async fn exit_code(mut child: Child) -> i32 {
    let waited = spawn_blocking(move || child.wait().unwrap().code().unwrap());
    timeout(LIMIT, waited).await.expect("the process does not end").unwrap()
}

async fn joined<T: Send + 'static>(thread: JoinHandle<T>) -> T {
    timeout(LIMIT, spawn_blocking(|| thread.join().unwrap()))
        .await
        .expect("the client sees no end")
        .unwrap()
}

async fn drained(io: &ProcessIo) {
    timeout(LIMIT, io.drained()).await.expect("output is not drained");
}

/// Of this thread.
fn processor_time() -> Duration {
    let text = read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

/// What descriptors of this process are about: paths, and the names of pipes and sockets.
fn open_descriptors() -> Vec<PathBuf> {
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap();
    // Other tests open and close theirs meanwhile.
    descriptors
        .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
        .collect()
}

#[test]
fn everything_is_send() {
    fn send<T: Send>(_: T) {}
    let stdio = Stdio::default();
    send(Pending::prepare("", "", &stdio, 0, 0));
    fn start(pending: Pending) -> impl Send {
        pending.start()
    }
    let _ = start;
    fn shared<T: Send + Sync>() {}
    shared::<ProcessIo>();
}

#[tokio::test]
async fn large_output_of_both_streams_is_complete() {
    let fifos = Fifos::new();
    let (out, err) = (fifos.reader("out"), fifos.reader("err"));
    let (child, io) = run(
        &fifos.stdio(false),
        "head -c 20000000 /dev/zero & head -c 3000000 /dev/zero >&2; wait",
    )
    .await;
    assert_eq!(exit_code(child).await, 0);
    drained(&io).await;
    assert_eq!(joined(out).await.len(), 20_000_000);
    assert_eq!(joined(err).await.len(), 3_000_000);
}

#[tokio::test]
async fn a_process_that_ends_at_once_loses_nothing() {
    for _ in 0..50 {
        let fifos = Fifos::new();
        let path = fifos.path("out");
        let out = thread::spawn(move || {
            // Late, as a busy client is.
            thread::sleep(Duration::from_millis(5));
            read_to_string(path).unwrap()
        });
        let stdio = Stdio {
            stdout: fifos.address("out"),
            ..Stdio::default()
        };
        let (child, io) = run(&stdio, "echo done").await;
        assert_eq!(joined(out).await, "done\n");
        drained(&io).await;
        exit_code(child).await;
    }
}

#[tokio::test]
async fn a_reader_may_go_and_another_come() {
    let fifos = Fifos::new();
    let first = fifos.idle_reader("out");
    let stdio = Stdio {
        stdout: fifos.address("out"),
        ..Stdio::default()
    };
    // 300 kB are more than FIFO and pipe hold, so that the process is stopped while nobody reads.
    let (child, io) = run(&stdio, "echo one; sleep 0.3; seq 1 50000; echo last").await;
    sleep(Duration::from_millis(100)).await;
    let mut first = first;
    let mut line = [0; 4];
    first.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"one\n");
    drop(first);
    sleep(SECOND).await;
    let second = joined(fifos.reader("out")).await;
    let expected: String = (1..=50000).map(|n| format!("{n}\n")).collect();
    assert_eq!(String::from_utf8(second).unwrap(), expected + "last\n");
    assert_eq!(exit_code(child).await, 0, "the process saw a broken pipe");
    drained(&io).await;
}

#[tokio::test]
async fn a_full_fifo_stops_its_own_stream_only() {
    let fifos = Fifos::new();
    let stuck = fifos.idle_reader("out");
    let err = fifos.reader("err");
    let (child, io) = run(
        &fifos.stdio(false),
        "exec 3>&1; (exec 2>&-; head -c 1000000 /dev/zero >&3) & exec 1>&- 3>&-; seq 1 50000 >&2",
    )
    .await;
    let text = joined(err).await;
    assert!(text.ends_with(b"\n50000\n"));
    assert!(
        timeout(SECOND / 2, io.drained()).await.is_err(),
        "nobody has read standard output"
    );
    drop(stuck);
    let rest = joined(fifos.reader("out")).await;
    assert_eq!(rest.len(), 1_000_000);
    drained(&io).await;
    exit_code(child).await;
}

#[tokio::test]
async fn input_survives_its_clients_until_it_is_closed() {
    let fifos = Fifos::new();
    let (out, _err) = (fifos.reader("out"), fifos.idle_reader("err"));
    let (child, io) = run(&fifos.stdio(false), "cat; echo end").await;
    // More than a pipe holds, so that the client's last bytes are still in the FIFO when it leaves.
    let mut expected = vec![b'x'; 500_000];
    let (mut client, bytes) = (fifos.writer(), expected.clone());
    joined(thread::spawn(move || client.write_all(&bytes).unwrap())).await;
    sleep(SECOND / 5).await;
    fifos.writer().write_all(b"second client\n").unwrap();
    // Closing comes after the bytes, which must all be delivered.
    io.close_stdin();
    expected.extend(b"second client\nend\n");
    assert_eq!(joined(out).await, expected);
    assert_eq!(exit_code(child).await, 0);
}

#[tokio::test]
async fn closing_input_waits_for_the_client_that_still_writes() {
    let fifos = Fifos::new();
    let (out, _err) = (fifos.reader("out"), fifos.idle_reader("err"));
    let (child, io) = run(&fifos.stdio(false), "cat").await;
    let mut client = fifos.writer();
    client.write_all(b"before ").unwrap();
    io.close_stdin();
    io.close_stdin();
    sleep(SECOND / 5).await;
    client.write_all(b"after").unwrap();
    drop(client);
    assert_eq!(joined(out).await, b"before after");
    assert_eq!(exit_code(child).await, 0);
}

#[tokio::test]
async fn input_without_any_client_ends_when_it_is_closed() {
    let fifos = Fifos::new();
    let (_out, _err) = (fifos.idle_reader("out"), fifos.idle_reader("err"));
    let (child, io) = run(&fifos.stdio(false), "cat >/dev/null").await;
    io.close_stdin();
    assert_eq!(exit_code(child).await, 0);
}

#[tokio::test]
async fn a_client_of_a_process_that_reads_no_more_is_not_hurt() {
    let fifos = Fifos::new();
    let (_out, _err) = (fifos.idle_reader("out"), fifos.idle_reader("err"));
    let (child, _io) = run(&fifos.stdio(false), "exec <&-; sleep 1").await;
    sleep(SECOND / 5).await;
    let mut client = fifos.writer();
    for _ in 0..3 {
        client.write_all(b"nobody reads this\n").unwrap();
        sleep(SECOND / 10).await;
    }
    assert_eq!(exit_code(child).await, 0);
}

#[tokio::test]
async fn idle_streams_cost_no_processor_time() {
    let fifos = Fifos::new();
    let (out, err) = (fifos.idle_reader("out"), fifos.idle_reader("err"));
    let (child, io) = run(&fifos.stdio(false), "exec <&-; echo x; sleep 1").await;
    // Every state that could spin: output that nobody reads any more, input whose process is gone.
    fifos.writer().write_all(b"x").unwrap();
    drop((out, err));
    sleep(SECOND / 5).await;
    let before = processor_time();
    sleep(SECOND).await;
    let used = processor_time() - before;
    assert!(used < SECOND / 20, "{used:?} of processor time in an idle second");
    io.close_stdin();
    exit_code(child).await;
}

#[tokio::test]
async fn without_addresses_it_is_all_dev_null() {
    let (child, io) = run(&Stdio::default(), "cat && echo x && echo y >&2").await;
    assert_eq!(exit_code(child).await, 0);
    drained(&io).await;
    io.resize(80, 24).unwrap();
}

#[tokio::test]
async fn nobody_reading_is_an_error_after_a_while() {
    let fifos = Fifos::new();
    let error = Sink::open(Stream::Stdout, &fifos.path("out"), SECOND / 5)
        .await
        .unwrap_err();
    assert!(matches!(error, IoError::NoReader { .. }), "{error}");
}

#[tokio::test]
async fn what_is_wrong_is_said() {
    let fifos = Fifos::new();
    let directory = fifos.directory.path().display().to_string();
    let address = |name: &str| format!("{directory}/{name}");
    write(address("file"), "").unwrap();
    let cases = [
        Stdio {
            stdout: address("missing"),
            ..Stdio::default()
        },
        Stdio {
            stdin: address("missing"),
            ..Stdio::default()
        },
        Stdio {
            stdin: address("file"),
            ..Stdio::default()
        },
        Stdio {
            stdin: "file:///x".to_owned(),
            ..Stdio::default()
        },
        Stdio {
            stderr: "binary:///bin/true".to_owned(),
            ..Stdio::default()
        },
        Stdio {
            stdout: "binary:///bin/true".to_owned(),
            stderr: "/dev/null".to_owned(),
            ..Stdio::default()
        },
        Stdio {
            stdout: format!("binary://{directory}/missing"),
            ..Stdio::default()
        },
        Stdio {
            stdout: "binary-v2:///bin/true".to_owned(),
            ..Stdio::default()
        },
        Stdio {
            stdout: directory.clone(),
            ..Stdio::default()
        },
    ];
    let mut messages = Vec::new();
    for stdio in cases {
        let error = Pending::prepare("c1", "ns", &stdio, 0, 0).await.unwrap_err();
        messages.push(error.to_string().replace(&directory, "DIR"));
    }
    insta::assert_snapshot!(messages.join("\n"), @r"
    stdout: cannot open DIR/missing: No such file or directory (os error 2)
    stdin: cannot open DIR/missing: No such file or directory (os error 2)
    stdin: DIR/file is not a FIFO
    stdin 'file:///x': only a FIFO can be standard input
    stderr 'binary:///bin/true': a logging binary takes both streams; give both the same address
    stderr '/dev/null': a logging binary takes both streams; give both the same address
    cannot start the logging binary DIR/missing: No such file or directory (os error 2)
    the logging binary /bin/true did not confirm that it is ready; see whether it writes to descriptor 5
    stdout: cannot open DIR: Is a directory (os error 21)
    ");
}

#[tokio::test]
async fn log_files_are_made_and_appended_to() {
    let directory = TempDir::new().unwrap();
    let log = directory.path().join("a/b/c.log");
    let address = format!("file://{}", log.display());
    let stdio = Stdio {
        stdout: address.clone(),
        stderr: address,
        ..Stdio::default()
    };
    for n in [1, 2] {
        let (child, io) = run(&stdio, &format!("echo out{n}; echo err{n} >&2")).await;
        exit_code(child).await;
        drained(&io).await;
    }
    let text = read_to_string(&log).unwrap();
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["err1", "err2", "out1", "out2"]);
    assert_eq!(metadata(&log).unwrap().mode() & 0o7777 & !0o022, 0o644);
}

#[tokio::test]
async fn a_full_disk_does_not_stop_the_process() {
    let stdio = Stdio {
        stdout: "/dev/full".to_owned(),
        ..Stdio::default()
    };
    let (child, io) = run(&stdio, "head -c 1000000 /dev/zero").await;
    assert_eq!(exit_code(child).await, 0);
    drained(&io).await;
}

#[tokio::test]
async fn pipes_belong_to_the_user_who_was_asked_for() {
    let fifos = Fifos::new();
    let (_out, _err) = (fifos.idle_reader("out"), fifos.idle_reader("err"));
    let mut pending = Pending::prepare("c1", "ns", &fifos.stdio(false), 1234, 5678)
        .await
        .unwrap();
    for end in pending.runtime_stdio().unwrap() {
        let stat = rustix::fs::fstat(&end).unwrap();
        assert_eq!((stat.st_uid, stat.st_gid), (1234, 5678));
    }
}

#[tokio::test]
async fn dropping_closes_everything() {
    let fifos = Fifos::new();
    let (out, err) = (fifos.reader("out"), fifos.reader("err"));
    let mut pending = prepare(&fifos.stdio(false)).await;
    let pipes = pending.runtime_stdio().unwrap();
    let name = |fd: &OwnedFd| std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap();
    let names: Vec<_> = pipes.iter().map(name).collect();
    let is_open = || {
        open_descriptors()
            .iter()
            .any(|open| names.contains(open) || open.starts_with(&fifos.directory))
    };
    let io = pending.start().await.unwrap();
    // A descendant keeps the output open.
    assert!(timeout(SECOND / 10, io.drained()).await.is_err());
    drop(io);
    assert!(joined(out).await.is_empty());
    assert!(joined(err).await.is_empty());
    drop(pipes);
    // Aborted copies are dropped when the event loop comes to them.
    sleep(SECOND / 20).await;
    assert!(!is_open());

    let (out, err) = (fifos.reader("out"), fifos.reader("err"));
    drop(prepare(&fifos.stdio(false)).await);
    assert!(joined(out).await.is_empty());
    assert!(joined(err).await.is_empty());
    assert!(!is_open());
}

#[tokio::test]
async fn the_console_socket_is_private_and_goes_away() {
    let pending = prepare(&Stdio {
        terminal: true,
        ..Stdio::default()
    })
    .await;
    let socket = pending.console_socket().unwrap().to_owned();
    assert!(socket.as_os_str().len() <= 106);
    assert_eq!(metadata(socket.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
    drop(pending);
    assert!(!socket.parent().unwrap().exists());
}

fn script(directory: &Path, name: &str, text: &str) -> String {
    let path = directory.join(name);
    write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

#[tokio::test]
async fn a_logging_binary_gets_all_and_is_awaited() {
    let directory = TempDir::new().unwrap();
    let log = directory.path().join("log").display().to_string();
    let program = script(
        directory.path(),
        "logger",
        &format!(
            "exec >{log}; echo \"$CONTAINER_NAMESPACE/$CONTAINER_ID $X $HOME $*\"; echo r >&5; exec 5>&-; cat <&3; cat <&4; sleep 0.3; echo end"
        ),
    );
    let uri = format!("binary://{program}?--a=1&b=&env.X=2");
    let stdio = Stdio {
        stdout: uri.clone(),
        stderr: uri,
        ..Stdio::default()
    };
    let (child, io) = run(&stdio, "echo output; echo error >&2").await;
    exit_code(child).await;
    drained(&io).await;
    assert_eq!(read_to_string(&log).unwrap(), "ns/c1 2  --a 1 b \noutput\nerror\nend\n");
}

#[tokio::test]
async fn a_logging_binary_that_does_not_end_is_made_to() {
    let directory = TempDir::new().unwrap();
    let log = directory.path().join("log").display().to_string();
    let program = script(
        directory.path(),
        "logger",
        &format!("trap 'echo asked >{log}; exit' TERM; exec 5>&-; while :; do sleep 0.1; done"),
    );
    let (child, io) = run(
        &Stdio {
            stdout: format!("binary://{program}"),
            ..Stdio::default()
        },
        "echo x",
    )
    .await;
    exit_code(child).await;
    let start = Instant::now();
    drained(&io).await;
    assert!(start.elapsed() >= SECOND, "it was not given time to read");
    assert_eq!(read_to_string(&log).unwrap(), "asked\n");
}

/// A process with a terminal, started as the OCI runtime would.
async fn run_terminal(stdio: &Stdio, script: &str) -> (Child, ProcessIo) {
    let pending = prepare(stdio).await;
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    unlockpt(&master).unwrap();
    let slave = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    let socket = UnixStream::connect(pending.console_socket().unwrap()).unwrap();
    let descriptors = [master.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
    sendmsg(&socket, &[IoSlice::new(b"/dev/ptmx")], &mut control, SendFlags::empty()).unwrap();
    drop(master);
    let copy = || slave.try_clone().unwrap();
    // Under `nohup` a shell could not be told of a hang-up.
    let child = Command::new("env")
        .args(["--default-signal=HUP", "setsid", "-c", "sh", "-c", script])
        .stdin(copy())
        .stdout(copy())
        .stderr(copy())
        .spawn();
    drop(slave);
    (child.unwrap(), pending.start().await.unwrap())
}

#[tokio::test]
async fn a_terminal_is_copied_both_ways_and_resized() {
    let fifos = Fifos::new();
    let out = fifos.reader("out");
    let (child, io) = run_terminal(
        &fifos.stdio(true),
        "stty -echo; read line; echo got $line; read go; stty size; exit 3",
    )
    .await;
    let mut client = fifos.writer();
    client.write_all(b"hello\n").unwrap();
    io.resize(123, 45).unwrap();
    client.write_all(b"\n").unwrap();
    assert_eq!(exit_code(child).await, 3);
    io.exited();
    let text = String::from_utf8(joined(out).await).unwrap();
    assert!(text.ends_with("got hello\r\n45 123\r\n"), "{text:?}");
    drained(&io).await;
    io.resize(1, 1).unwrap();
}

#[tokio::test]
async fn large_terminal_output_and_a_terminal_closed_for_a_while() {
    let fifos = Fifos::new();
    let out = fifos.reader("out");
    let (child, io) = run_terminal(
        &Stdio {
            stdin: String::new(),
            ..fifos.stdio(true)
        },
        "stty -opost; tty=$(tty); trap '' HUP; seq 1 100000; exec <&- >&- 2>&-; sleep 0.5; exec >$tty; echo again",
    )
    .await;
    assert_eq!(exit_code(child).await, 0);
    io.exited();
    let expected: String = (1..=100_000).map(|n| format!("{n}\n")).collect();
    let text = String::from_utf8(joined(out).await).unwrap();
    assert_eq!(text.replace('\r', ""), expected + "again\n");
    drained(&io).await;
}

#[tokio::test]
async fn closing_the_input_of_a_terminal_hangs_it_up() {
    let fifos = Fifos::new();
    let out = fifos.reader("out");
    let (child, io) = run_terminal(
        &fifos.stdio(true),
        "trap 'exit 7' HUP; echo ready; while :; do sleep 0.1; done",
    )
    .await;
    sleep(SECOND / 5).await;
    let client = fifos.writer();
    io.close_stdin();
    drop(client);
    assert_eq!(exit_code(child).await, 7);
    assert_eq!(joined(out).await, b"ready\r\n");
    io.exited();
    drained(&io).await;
}

#[tokio::test]
async fn a_terminal_can_be_logged_by_a_binary() {
    let directory = TempDir::new().unwrap();
    let log = directory.path().join("log").display().to_string();
    let program = script(
        directory.path(),
        "logger",
        &format!("exec >{log} 5>&-; cat <&3; cat <&4"),
    );
    let stdio = Stdio {
        stdout: format!("binary://{program}"),
        terminal: true,
        ..Stdio::default()
    };
    let (child, io) = run_terminal(&stdio, "echo logged").await;
    assert_eq!(exit_code(child).await, 0);
    drained(&io).await;
    assert_eq!(read_to_string(&log).unwrap(), "logged\r\n");
}
