//! The node's label, by which pods of Assay find it: <https://kubernetes.io/docs/reference/kubernetes-api/>, a merge patch
//! of a Node.

use std::env;
use std::fs;
use std::path::Path;
use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use reqwest::{Certificate, Client};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::Fault;
use crate::cli::print;
use crate::oci::shorten;

/// What the RuntimeClass looks for.
const LABEL: &str = "assay.dev/ready";
/// Where Kubernetes puts what a pod needs for the API server.
const CREDENTIALS: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Longest time for an answer of the API server.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Labels the node, waits to be told to end, and takes the label away.
pub(super) fn hold() -> Result<(), Fault> {
    run(async {
        let end = told_to_end()?;
        patch(true).await?;
        end.await;
        patch(false).await
    })
}

/// Takes the label away, and where it is to `stay`, waits to be told to end.
pub(super) fn drop(stay: bool) -> Result<(), Fault> {
    run(async {
        let end = told_to_end()?;
        patch(false).await?;
        if stay {
            end.await;
        }
        Ok(())
    })
}

/// Ends with SIGTERM or SIGINT, from now on.
fn told_to_end() -> Result<impl Future<Output = ()>, Fault> {
    let wait = |kind| signal(kind).map_err(Fault::Signals);
    let (mut term, mut int) = (wait(SignalKind::terminate())?, wait(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
    })
}

fn run(step: impl Future<Output = Result<(), Fault>>) -> Result<(), Fault> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Fault::Signals)?
        .block_on(step)
}

/// A variable of the pod's environment.
fn variable(name: &'static str) -> Result<String, Fault> {
    let value = env::var(name).unwrap_or_default();
    // Both go into an address.
    let is_plain = value.chars().all(|c| c.is_ascii_alphanumeric() || "-.:".contains(c));
    if value.is_empty() || !is_plain {
        return Err(Fault::Environment(name));
    }
    Ok(value)
}

async fn patch(is_ready: bool) -> Result<(), Fault> {
    let node = variable("NODE_NAME")?;
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
    let unreachable = |error: reqwest::Error| {
        let mut reason: &dyn std::error::Error = &error;
        while let Some(source) = reason.source() {
            reason = source;
        }
        Fault::Unreachable(reason.to_string())
    };
    let answer = Client::builder()
        .tls_certs_only(Certificate::from_pem_bundle(&read("ca.crt")?).map_err(unreachable)?)
        .https_only(true)
        .no_proxy()
        .timeout(TIMEOUT)
        .user_agent(concat!("assay/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(unreachable)?
        .patch(format!("https://{host}:{port}/api/v1/nodes/{node}"))
        .bearer_auth(String::from_utf8_lossy(&token).trim())
        .header(CONTENT_TYPE, "application/merge-patch+json")
        .body(json!({ "metadata": { "labels": { LABEL: is_ready.then_some("true") } } }).to_string())
        .send()
        .await
        .map_err(unreachable)?;
    let status = answer.status();
    if !status.is_success() {
        return Err(Fault::Refused {
            node,
            status: status.as_u16(),
            said: shorten(answer.text().await.unwrap_or_default().trim()),
        });
    }
    let what = if is_ready { "is" } else { "is not" };
    print(format_args!("node {node} {what} ready for pods of Assay"));
    Ok(())
}
