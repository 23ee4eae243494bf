//! Refused pods as Events of their cluster, events.k8s.io/v1:
//! <https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/>.
//!
//! The agent says what was refused. Neither it nor any container waits for this.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Fault;
use super::api::{ask, run, told_to_end, variable};
use crate::agent::Refusal;
use crate::cli::{complain, print};
use crate::diagnostic::printable;
use crate::oci::registry::innermost;

/// How often the agent is asked.
const INTERVAL: Duration = Duration::from_secs(15);
/// Longest time between two questions when the cluster takes no Events; it is doubled until then.
const MAX_INTERVAL: Duration = Duration::from_secs(5 * 60);
/// For how long nothing more is told about a container that is refused for the same reason: as long as a cluster keeps an
/// Event.
const SILENCE: Duration = Duration::from_secs(60 * 60);
/// Most Events in one turn.
const MAX_EVENTS: usize = 20;
/// Most containers that are remembered.
const MAX_TOLD: usize = 4096;
/// Largest answer of an agent, in bytes.
const MAX_ANSWER: usize = 1 << 20;
/// Longest time for an answer of the agent.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest name of a pod in the name of an Event, which is 253 bytes long at most.
const MAX_POD: usize = 200;

/// Tells until it is told to end. `agent` is where the agent listens.
pub(super) fn tell(agent: SocketAddr) -> Result<(), Fault> {
    run(async {
        let mut end = Box::pin(told_to_end()?);
        let node = variable("NODE_NAME")?;
        let client = Client::builder()
            .no_proxy()
            .timeout(TIMEOUT)
            .build()
            .map_err(|error| Fault::Unreachable(innermost(&error)))?;
        let mut told = Told::default();
        let mut trouble = String::new();
        loop {
            let turn = turn(&client, agent, &node, &mut told).await;
            let now = turn.map_or_else(|error| format!("{error}; to fix: {}", error.fix()), |()| String::new());
            told.ended(now.is_empty());
            if now != trouble {
                if now.is_empty() {
                    print("Events are taken again");
                } else {
                    complain(printable(&format!("no Events, it is tried again: {now}")));
                }
                trouble = now;
            }
            tokio::select! {
                () = &mut end => return Ok(()),
                () = tokio::time::sleep(told.interval()) => {}
            }
        }
    })
}

/// Asks the agent, and tells the cluster what it does not know.
async fn turn(client: &Client, agent: SocketAddr, node: &str, told: &mut Told) -> Result<(), Fault> {
    let mut refusals = refusals(client, agent).await?;
    // The oldest first.
    refusals.reverse();
    told.forget(Instant::now());
    for refusal in told.news(&refusals, Instant::now()) {
        let pod = &refusal.pod;
        let path = format!("/apis/events.k8s.io/v1/namespaces/{}/events", pod.namespace);
        let (status, said) = ask(Method::POST, &path, "application/json", &event(refusal, node)).await?;
        match status {
            // The namespace is gone, it is there already, or it is nothing that the cluster takes.
            StatusCode::NOT_FOUND | StatusCode::CONFLICT => {}
            StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => {
                complain(printable(&format!(
                    "an Event about pod {}/{}: {said}",
                    pod.namespace, pod.name
                )));
            }
            _ if status.is_success() => {
                print(printable(&format!(
                    "pod {}/{}: {}",
                    pod.namespace, pod.name, refusal.code
                )));
            }
            _ => {
                return Err(Fault::Event {
                    status: status.as_u16(),
                    said,
                });
            }
        }
        told.note(refusal, Instant::now());
    }
    Ok(())
}

/// What the agent says.
async fn refusals(client: &Client, agent: SocketAddr) -> Result<Vec<Refusal>, Fault> {
    let failed = |why: String| Fault::Agent { agent, why };
    let asked = client.get(format!("http://{agent}/refusals")).send().await;
    let mut answer = asked.map_err(|error| failed(innermost(&error)))?;
    if !answer.status().is_success() {
        return Err(failed(answer.status().to_string()));
    }
    let mut bytes = Vec::new();
    while let Some(more) = answer.chunk().await.map_err(|error| failed(innermost(&error)))? {
        bytes.extend_from_slice(&more);
        if bytes.len() > MAX_ANSWER {
            return Err(failed(format!("it answers with more than {MAX_ANSWER} bytes")));
        }
    }
    serde_json::from_slice(&bytes).map_err(|error| failed(error.to_string()))
}

fn event(refusal: &Refusal, node: &str) -> Value {
    let pod = &refusal.pod;
    let name = pod
        .name
        .get(..pod.name.floor_char_boundary(MAX_POD))
        .unwrap_or_default();
    let (reason, action) = if refusal.runs {
        ("AssayReevaluated", "Reevaluate")
    } else {
        ("AssayRefused", "CreateContainer")
    };
    json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {
            "name": format!("{}.{}", name.trim_end_matches(['-', '.']), refusal.id),
            "namespace": pod.namespace,
        },
        "eventTime": refusal.time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string(),
        "type": "Warning",
        "reason": reason,
        "action": action,
        "note": refusal.text,
        "regarding": {
            "apiVersion": "v1",
            "kind": "Pod",
            "namespace": pod.namespace,
            "name": pod.name,
            "uid": pod.uid,
        },
        "reportingController": "assay.dev/agent",
        "reportingInstance": node,
    })
}

/// A container, and why it is refused.
type Matter = (String, String, bool, String);

/// What the cluster knows.
#[derive(Debug, Default)]
struct Told {
    matters: BTreeMap<Matter, Instant>,
    /// Turns in a row that went wrong.
    failures: u32,
}

impl Told {
    fn matter(refusal: &Refusal) -> Matter {
        let pod = &refusal.pod;
        (
            pod.uid.clone(),
            pod.container.clone(),
            refusal.runs,
            refusal.code.clone(),
        )
    }

    fn forget(&mut self, now: Instant) {
        self.matters.retain(|_, told| now.duration_since(*told) < SILENCE);
    }

    /// What is to be told now.
    fn news<'a>(&self, refusals: &'a [Refusal], now: Instant) -> Vec<&'a Refusal> {
        let room = MAX_TOLD.saturating_sub(self.matters.len()).min(MAX_EVENTS);
        let mut news: BTreeMap<Matter, &Refusal> = BTreeMap::new();
        for refusal in refusals {
            let matter = Self::matter(refusal);
            let is_known = self
                .matters
                .get(&matter)
                .is_some_and(|told| now.duration_since(*told) < SILENCE);
            if !is_known && (news.len() < room || news.contains_key(&matter)) {
                news.entry(matter).or_insert(refusal);
            }
        }
        news.into_values().collect()
    }

    fn note(&mut self, refusal: &Refusal, now: Instant) {
        self.matters.insert(Self::matter(refusal), now);
    }

    fn ended(&mut self, well: bool) {
        self.failures = if well { 0 } else { self.failures.saturating_add(1) };
    }

    /// How long until the next turn.
    fn interval(&self) -> Duration {
        let doubled = 2_u32.saturating_pow(self.failures);
        INTERVAL.saturating_mul(doubled).min(MAX_INTERVAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::Pod;

    fn refusal(pod: &str, code: &str) -> Refusal {
        Refusal {
            id: "9c1f0a77e2d4".to_owned(),
            time: "2026-11-22T05:16:20.327630335Z".parse().unwrap(),
            pod: Pod {
                namespace: "prod".to_owned(),
                name: pod.to_owned(),
                uid: format!("uid-of-{pod}"),
                container: "main".to_owned(),
            },
            runs: false,
            code: code.to_owned(),
            text: "assay refused image app:1".to_owned(),
        }
    }

    #[test]
    fn a_container_that_is_refused_again_and_again_is_told_of_once_an_hour() {
        let mut told = Told::default();
        let start = Instant::now();
        let refusals = [
            refusal("a", "x"),
            refusal("a", "x"),
            refusal("a", "y"),
            refusal("b", "x"),
        ];
        let news = told.news(&refusals, start);
        assert_eq!(news.len(), 3);
        for refusal in news {
            told.note(refusal, start);
        }
        assert!(told.news(&refusals, start + SILENCE / 2).is_empty());
        assert_eq!(told.news(&refusals, start + SILENCE).len(), 3);
        told.forget(start + SILENCE);
        assert!(told.matters.is_empty());
    }

    #[test]
    fn many_are_told_of_in_turns_and_a_cluster_in_trouble_is_left_in_peace() {
        let mut told = Told::default();
        let now = Instant::now();
        let many: Vec<Refusal> = (0..50).map(|number| refusal(&format!("pod-{number}"), "x")).collect();
        let mut turns = Vec::new();
        loop {
            let news = told.news(&many, now);
            turns.push(news.len());
            if news.is_empty() {
                break;
            }
            news.into_iter().for_each(|refusal| told.note(refusal, now));
        }
        assert_eq!(turns, [20, 20, 10, 0]);
        let mut intervals = Vec::new();
        for _ in 0..6 {
            told.ended(false);
            intervals.push(told.interval().as_secs());
        }
        assert_eq!(intervals, [30, 60, 120, 240, 300, 300]);
        told.ended(true);
        assert_eq!(told.interval(), INTERVAL);
    }

    #[test]
    fn an_event_has_a_name_that_a_cluster_takes() {
        let event = event(
            &refusal(&format!("{}-{}", "a".repeat(199), "b".repeat(40)), "x"),
            "worker-1",
        );
        assert_eq!(event["metadata"]["name"], format!("{}.9c1f0a77e2d4", "a".repeat(199)));
        assert_eq!(event["eventTime"], "2026-11-22T05:16:20.327630Z");
    }
}
