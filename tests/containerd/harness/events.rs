//! Every task event that containerd publishes, recorded in its order.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;

use containerd_client::services::v1::SubscribeRequest;
use containerd_client::services::v1::events_client::EventsClient;
use containerd_client::types::Envelope;
use containerd_shim_protos::events::task::{
    TaskCheckpointed, TaskCreate, TaskDelete, TaskExecAdded, TaskExecStarted, TaskExit, TaskOOM, TaskPaused,
    TaskResumed, TaskStart,
};
use containerd_shim_protos::protobuf::Message;
use tokio::runtime::Builder;

use super::client::Client;
use super::{GLANCE, eventually, eventually_within};

/// One event about a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub topic: String,
    pub container: String,
    /// Empty for the container's first process.
    pub exec: String,
    pub pid: u32,
    pub status: u32,
}

/// `exit:exec-1=7`: the last part of the topic, the exec and, where it ended, its status.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let topic = self.topic.rsplit('/').next().unwrap_or_default();
        write!(f, "{topic}")?;
        if !self.exec.is_empty() {
            write!(f, ":{}", self.exec)?;
        }
        if matches!(topic, "exit" | "delete") {
            write!(f, "={}", self.status)?;
        }
        Ok(())
    }
}

/// What has been published since the recorder was started.
#[derive(Debug, Clone)]
pub struct Events {
    seen: Arc<Mutex<Vec<Event>>>,
    socket: PathBuf,
}

/// Topic of events that only show that the recorder hears them.
const PROBE: &str = "/tasks/probe";

impl Events {
    /// Subscribes, and subscribes again whenever containerd comes back.
    pub fn record(socket: PathBuf) -> Self {
        let events = Self {
            seen: Arc::default(),
            socket,
        };
        thread::spawn({
            let events = events.clone();
            move || {
                let runtime = Builder::new_current_thread().enable_all().build().unwrap();
                // The recorder ends with the last test that listens to it.
                while Arc::strong_count(&events.seen) > 1 {
                    runtime.block_on(events.follow());
                    thread::sleep(GLANCE);
                }
            }
        });
        events.listening();
        events
    }

    async fn follow(&self) {
        let Ok(channel) = containerd_client::connect(&self.socket).await else {
            return;
        };
        let request = SubscribeRequest {
            filters: vec!["topic~=^/tasks/".to_owned()],
        };
        let Ok(stream) = EventsClient::new(channel).subscribe(request).await else {
            return;
        };
        let mut stream = stream.into_inner();
        while let Ok(Some(envelope)) = stream.message().await {
            self.seen.lock().unwrap().push(decode(envelope));
        }
    }

    /// Waits until the subscription stands: containerd confirms none, so that only an event shows it.
    pub fn listening(&self) {
        let client = Client::connect(&self.socket, "probe");
        let probes = || {
            self.seen
                .lock()
                .unwrap()
                .iter()
                .filter(|event| event.topic == PROBE)
                .count()
        };
        let before = probes();
        eventually("a subscription to events", || {
            if probes() > before {
                return Ok(());
            }
            let published = client.publish(PROBE);
            Err(format!("published: {published:?}"))
        });
    }

    /// Events about a container so far.
    pub fn of(&self, container: &str) -> Vec<Event> {
        let events = self.seen.lock().unwrap();
        events
            .iter()
            .filter(|event| event.container == container)
            .cloned()
            .collect()
    }

    /// Waits until the events of a container, as text, are exactly these.
    #[track_caller]
    pub fn expect(&self, container: &str, wanted: &[&str]) {
        eventually_within(
            std::time::Duration::from_secs(10),
            &format!("the events {wanted:?}"),
            || {
                let mut seen: Vec<_> = self.of(container).iter().map(Event::to_string).collect();
                if super::runtime() == super::STOCK && seen.len() + 1 == wanted.len() {
                    // The stock shim of containerd 2.1 sometimes exits before it has sent its last event.
                    let last = wanted.last().filter(|event| event.starts_with("delete"));
                    seen.extend(last.map(ToString::to_string));
                }
                if seen == wanted {
                    Ok(())
                } else {
                    Err(format!("they are {seen:?}"))
                }
            },
        );
    }

    /// Waits for one event of a container.
    #[track_caller]
    pub fn wait(&self, container: &str, wanted: &str) -> Event {
        let mut found = None;
        eventually(&format!("the event {wanted}"), || {
            let seen = self.of(container);
            found = seen.iter().find(|event| event.to_string() == wanted).cloned();
            if found.is_some() {
                return Ok(());
            }
            let seen: Vec<_> = seen.iter().map(Event::to_string).collect();
            Err(format!("there are {seen:?}"))
        });
        found.unwrap()
    }
}

fn decode(envelope: Envelope) -> Event {
    fn message<M: Message>(bytes: &[u8]) -> M {
        M::parse_from_bytes(bytes).expect("an event that is not what its topic says")
    }
    let bytes = envelope.event.expect("an event without a body").value;
    let topic = envelope.topic;
    let (container, exec, pid, status) = match topic.as_str() {
        "/tasks/create" => {
            let event: TaskCreate = message(&bytes);
            (event.container_id, String::new(), event.pid, 0)
        }
        "/tasks/start" => {
            let event: TaskStart = message(&bytes);
            (event.container_id, String::new(), event.pid, 0)
        }
        "/tasks/exit" => {
            let event: TaskExit = message(&bytes);
            let exec = if event.id == event.container_id {
                String::new()
            } else {
                event.id
            };
            (event.container_id, exec, event.pid, event.exit_status)
        }
        "/tasks/delete" => {
            let event: TaskDelete = message(&bytes);
            (event.container_id, event.id, event.pid, event.exit_status)
        }
        "/tasks/exec-added" => {
            let event: TaskExecAdded = message(&bytes);
            (event.container_id, event.exec_id, 0, 0)
        }
        "/tasks/exec-started" => {
            let event: TaskExecStarted = message(&bytes);
            (event.container_id, event.exec_id, event.pid, 0)
        }
        "/tasks/oom" => (message::<TaskOOM>(&bytes).container_id, String::new(), 0, 0),
        "/tasks/paused" => (message::<TaskPaused>(&bytes).container_id, String::new(), 0, 0),
        "/tasks/resumed" => (message::<TaskResumed>(&bytes).container_id, String::new(), 0, 0),
        "/tasks/checkpointed" => (message::<TaskCheckpointed>(&bytes).container_id, String::new(), 0, 0),
        // A topic that no test knows fails the test that compares the events of a container.
        _ => Default::default(),
    };
    Event {
        topic,
        container,
        exec,
        pid,
        status,
    }
}
