//! The resident shim: serves the task service until containerd has no more use for it.

use std::env;
use std::io;
use std::os::fd::IntoRawFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use containerd_shim_protos::shim_async::create_task;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use ttrpc::r#async::Server;

use super::admit::{self, Admission};
use super::child::Children;
use super::container::Services;
use super::error::Error;
use super::events::Publisher;
use super::invocation::Invocation;
use super::task::{Service, Tasks};
use super::{log, memory};

/// Environment variable with the path of the socket that standard input is.
pub const SOCKET: &str = "ASSAY_SHIM_SOCKET";
/// Environment variable with the path of containerd's ttrpc socket.
const TTRPC_ADDRESS: &str = "TTRPC_ADDRESS";
/// The task service's name in version 2 of the API. Version 3 has the same messages under another name.
const TASK_V2: &str = "containerd.task.v2.Task";
const TASK_V3: &str = "containerd.task.v3.Task";
/// Longest wait for calls that are under way when containerd asks the shim to go: a Kill, for example, whose effect was
/// seen by another client before its own answer left.
const LAST_CALLS: Duration = Duration::from_secs(10);
/// Longest that the last events may take once containerd has asked the shim to go.
const LAST_EVENTS: Duration = Duration::from_secs(3);
/// Time for the last answer to leave.
const LAST_ANSWER: Duration = Duration::from_millis(50);

/// Serves on the socket that `start` left on standard input.
///
/// # Errors
/// When the environment is not the one that `start` makes, or the kernel refuses what the shim needs.
pub fn serve(invocation: &Invocation) -> Result<(), Error> {
    memory::frugal_allocator();
    log::init(Path::new("log"), invocation.debug);
    let socket = env::var_os(SOCKET).map(PathBuf::from).ok_or_else(|| {
        Error::Invalid(format!(
            "{SOCKET} is not set; containerd starts this program with the action 'start'"
        ))
    })?;
    let listener = take_listener().map_err(Error::system("the listening socket on standard input"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(2)
        .thread_keep_alive(Duration::from_secs(1))
        .build()
        .map_err(Error::system("event loop"))?;
    runtime.block_on(run(invocation, socket, listener))
}

async fn run(invocation: &Invocation, socket: PathBuf, listener: UnixListener) -> Result<(), Error> {
    let services = Arc::new(Services {
        namespace: invocation.namespace.clone(),
        children: Children::adopt().map_err(Error::system("child subreaper"))?,
        publisher: Publisher::new(
            env::var(TTRPC_ADDRESS).unwrap_or_default(),
            invocation.namespace.clone(),
        ),
    });
    let admission = Admission {
        program: admit::program().map_err(Error::system("path of this program"))?,
        containerd: invocation.address.clone(),
    };
    let shutdown = Arc::new(Notify::new());
    let tasks = Arc::new(Tasks::new(
        Arc::clone(&services),
        admission,
        socket.clone(),
        Arc::clone(&shutdown),
    ));

    let mut methods = create_task(Arc::new(Service(Arc::clone(&tasks))));
    if let Some(service) = methods.remove(TASK_V3) {
        methods.insert(TASK_V2.to_owned(), service);
    }
    // SAFETY: the descriptor is a listening Unix socket and given away here.
    let server = unsafe { Server::new().add_unix_listener(listener.into_raw_fd()) };
    let mut server = server.map_err(|error| Error::System {
        what: "ttrpc",
        source: io::Error::other(error),
    })?;
    server = server.register_service(methods);
    server.start().await.map_err(|error| Error::System {
        what: "ttrpc",
        source: io::Error::other(error),
    })?;

    memory::release_soon();
    let asked_by_containerd = wait_for_the_end(&shutdown, &tasks).await?;
    if tokio::time::timeout(LAST_CALLS, tasks.idle()).await.is_err() {
        ::log::warn!("a call to the OCI runtime is given up");
    }
    if tokio::time::timeout(LAST_EVENTS, services.publisher.delivered())
        .await
        .is_err()
    {
        ::log::warn!("containerd did not take the last events");
    }
    tokio::time::sleep(LAST_ANSWER).await;
    if asked_by_containerd {
        // The socket went with the answer; what is there now belongs to the next shim of the same id.
        return Ok(());
    }
    super::socket::remove(&socket).map_err(Error::file(&socket))
}

/// Waits until containerd asks the shim to go, which is true, or a signal does. SIGTERM and SIGINT, which reach every process when the node goes down,
/// count only once no container needs the shim to learn of its end.
async fn wait_for_the_end(shutdown: &Notify, tasks: &Tasks) -> Result<bool, Error> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::system("SIGTERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::system("SIGINT"))?;
    let mut asked = false;
    loop {
        tokio::select! {
            () = shutdown.notified() => return Ok(true),
            _ = terminate.recv() => asked = true,
            _ = interrupt.recv() => asked = true,
            () = tokio::time::sleep(Duration::from_secs(1)), if asked => {}
        }
        if asked && !tasks.any_alive() {
            return Ok(false);
        }
    }
}

/// Takes the listener from standard input and leaves `/dev/null` in its place.
fn take_listener() -> io::Result<UnixListener> {
    let listener = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let null = std::fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(null)?;
    let listener = UnixListener::from(listener);
    // Anything else than a listening Unix socket fails here.
    listener.local_addr()?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
