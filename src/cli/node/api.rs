//! The cluster's API server, with what a pod has of it: <https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/>.

use std::env;
use std::fs;
use std::path::Path;
use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use reqwest::{Certificate, Client, Method, StatusCode};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

use super::Fault;
use crate::oci::shorten;

/// Where Kubernetes puts what a pod needs for the API server.
const CREDENTIALS: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Longest time for an answer of the API server.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A variable of the pod's environment.
pub(super) fn variable(name: &'static str) -> Result<String, Fault> {
    let value = env::var(name).unwrap_or_default();
    // It goes into an address.
    let is_plain = value.chars().all(|c| c.is_ascii_alphanumeric() || "-.:".contains(c));
    if value.is_empty() || !is_plain {
        return Err(Fault::Environment(name));
    }
    Ok(value)
}

/// Asks for something. `path` begins with a slash. Answers its word, and where that is no success what it said.
pub(super) async fn ask(method: Method, path: &str, kind: &str, body: &Value) -> Result<(StatusCode, String), Fault> {
    let mut host = variable("KUBERNETES_SERVICE_HOST")?;
    if host.contains(':') {
        host = format!("[{host}]");
    }
    let port = variable("KUBERNETES_SERVICE_PORT")?;
    let folder = Path::new(CREDENTIALS);
    let read = |name: &str| {
        let path = folder.join(name);
        fs::read(&path).map_err(|source| Fault::File {
            path,
            verb: "read",
            source,
        })
    };
    // Read for each question: a kubelet renews it.
    let token = read("token")?;
    let answer = Client::builder()
        .tls_certs_only(Certificate::from_pem_bundle(&read("ca.crt")?).map_err(unreachable)?)
        .https_only(true)
        .no_proxy()
        .timeout(TIMEOUT)
        .user_agent(concat!("assay/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(unreachable)?
        .request(method, format!("https://{host}:{port}{path}"))
        .bearer_auth(String::from_utf8_lossy(&token).trim())
        .header(CONTENT_TYPE, kind)
        .body(body.to_string())
        .send()
        .await
        .map_err(unreachable)?;
    let status = answer.status();
    if status.is_success() {
        return Ok((status, String::new()));
    }
    Ok((status, shorten(answer.text().await.unwrap_or_default().trim())))
}

fn unreachable(error: reqwest::Error) -> Fault {
    let mut reason: &dyn std::error::Error = &error;
    while let Some(source) = reason.source() {
        reason = source;
    }
    Fault::Unreachable(reason.to_string())
}

/// Ends with SIGTERM or SIGINT, from now on.
pub(super) fn told_to_end() -> Result<impl Future<Output = ()>, Fault> {
    let wait = |kind| signal(kind).map_err(Fault::Signals);
    let (mut term, mut int) = (wait(SignalKind::terminate())?, wait(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
    })
}

pub(super) fn run(step: impl Future<Output = Result<(), Fault>>) -> Result<(), Fault> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Fault::Signals)?
        .block_on(step)
}
