//! Answers whoever asks for figures: on a socket of root's, and on a port of this machine alone where that is asked for.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;

use super::metrics::Metrics;
use super::refusals::Refusals;
use crate::store::StateDir;

/// Name of the socket below `run`.
const SOCKET: &str = "agent.sock";
/// Most requests that are answered at once.
const MAX_CONNECTIONS: usize = 8;
/// Longest time for one connection.
const PATIENCE: Duration = Duration::from_secs(10);
/// As Prometheus asks for it.
const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// What can be asked for.
#[derive(Debug)]
pub(super) struct Pages {
    pub(super) metrics: Arc<Metrics>,
    /// Where they are told on the port.
    pub(super) refusals: Option<Arc<Refusals>>,
}

/// Answers requests until the event loop ends. `run` is the directory of the socket.
pub(super) fn serve(pages: Pages, run: &StateDir, port: Option<SocketAddr>) -> io::Result<()> {
    let pages = Arc::new(pages);
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let socket = listen(&run.path().join(SOCKET))?;
    let (asked, places) = (Arc::clone(&pages), Arc::clone(&room));
    tokio::spawn(async move {
        loop {
            match socket.accept().await {
                Ok((stream, _)) => answer(&asked, &places, stream),
                Err(_) => tokio::time::sleep(PATIENCE).await,
            }
        }
    });
    let Some(port) = port else {
        return Ok(());
    };
    let listener = std::net::TcpListener::bind(port)?;
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => answer(&pages, &room, stream),
                Err(_) => tokio::time::sleep(PATIENCE).await,
            }
        }
    });
    Ok(())
}

/// A socket that only its owner reaches. The directory is private, so nobody reaches it before its mode is set either.
fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers the requests of one connection; one too many is closed.
fn answer(pages: &Arc<Pages>, room: &Arc<Semaphore>, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
    let Ok(place) = Arc::clone(room).try_acquire_owned() else {
        return;
    };
    let pages = Arc::clone(pages);
    tokio::spawn(async move {
        let service = service_fn(move |request| {
            let response = respond(&pages, &request);
            async move { Ok::<_, std::convert::Infallible>(response) }
        });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
        // Whoever asked went away, or did not ask as HTTP asks.
        let _ = tokio::time::timeout(PATIENCE, http.serve_connection(TokioIo::new(stream), service)).await;
        drop(place);
    });
}

fn respond(pages: &Pages, request: &Request<Incoming>) -> Response<String> {
    let mut response = Response::new(String::new());
    match (request.method(), request.uri().path(), &pages.refusals) {
        (&Method::GET, "/metrics", _) => {
            *response.body_mut() = pages.metrics.text();
            response.headers_mut().insert(CONTENT_TYPE, OPEN_METRICS);
        }
        (&Method::GET, "/refusals", Some(refusals)) => {
            *response.body_mut() = refusals.json();
            response.headers_mut().insert(CONTENT_TYPE, JSON);
        }
        (_, "/metrics", _) | (_, "/refusals", Some(_)) => *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED,
        _ => *response.status_mut() = StatusCode::NOT_FOUND,
    }
    response
}
