//! The node's label, by which pods of Assay find it: <https://kubernetes.io/docs/reference/kubernetes-api/>, a merge patch
//! of a Node.

use reqwest::Method;
use serde_json::json;

use super::Fault;
use super::api::{ask, run, told_to_end, variable};
use crate::cli::print;

/// What the RuntimeClass looks for.
const LABEL: &str = "assay.dev/ready";

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

async fn patch(is_ready: bool) -> Result<(), Fault> {
    let node = variable("NODE_NAME")?;
    let body = json!({ "metadata": { "labels": { LABEL: is_ready.then_some("true") } } });
    let path = format!("/api/v1/nodes/{node}");
    let (status, said) = ask(Method::PATCH, &path, "application/merge-patch+json", &body).await?;
    if !status.is_success() {
        return Err(Fault::Refused {
            node,
            status: status.as_u16(),
            said,
        });
    }
    let what = if is_ready { "is" } else { "is not" };
    print(format_args!("node {node} {what} ready for pods of Assay"));
    Ok(())
}
