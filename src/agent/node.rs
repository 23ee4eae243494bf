//! What the agent asks containerd for: which containers run, and to pause or to end one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use containerd_client::services::v1::containers_client::ContainersClient;
use containerd_client::services::v1::events_client::EventsClient;
use containerd_client::services::v1::images_client::ImagesClient;
use containerd_client::services::v1::namespaces_client::NamespacesClient;
use containerd_client::services::v1::tasks_client::TasksClient;
use containerd_client::services::v1::{
    KillRequest, ListContainersRequest, ListImagesRequest, ListNamespacesRequest, ListTasksRequest, PauseTaskRequest,
    ResumeTaskRequest, SubscribeRequest,
};
use containerd_client::types::Envelope;
use containerd_client::types::v1::Status as State;
use jiff::Timestamp;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use crate::diagnostic::printable;
use crate::digest::Digest;
use crate::identity::{self, Fault};
use crate::oci::{self, Reference};

/// Longest time for one call to containerd.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Signal 15.
const SIGTERM: u32 = 15;
/// Signals of Linux by their numbers, from 1 on, the same on x86-64 and aarch64.
const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];
/// First and last real-time signal of glibc and musl.
const REAL_TIME: std::ops::RangeInclusive<u32> = 34..=64;

/// Namespace and id of a container.
pub(super) type Key = (String, String);

/// Why containerd did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum NodeError {
    #[error("containerd does not answer on {socket}: {why}")]
    Unreachable { socket: String, why: String },
    #[error("containerd's {call} failed: {why}")]
    Call { call: &'static str, why: String },
    #[error("'{0}' is not a containerd namespace")]
    Namespace(String),
}

/// A container that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resident {
    /// When it was created; what was decided before is about another one of the same id.
    pub(super) created: Option<Timestamp>,
    pub(super) activity: Activity,
}

/// An image by a name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Picture {
    pub(super) namespace: String,
    pub(super) name: String,
    /// Digest of its manifest or index.
    pub(super) target: String,
}

impl Picture {
    /// A name for what this one names now, whatever becomes of its tag in the registry.
    pub(super) fn by_digest(&self) -> String {
        match self.name.parse::<Reference>() {
            Ok(reference) => format!("{}@{}", reference.name(), self.target),
            Err(_) => self.name.clone(),
        }
    }
}

/// What its processes do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Activity {
    /// Nothing: there are none, or they ended.
    None,
    Running,
    Paused,
}

/// A connection to containerd.
#[derive(Debug)]
pub(super) struct Node {
    socket: String,
    channel: Channel,
}

impl Node {
    pub(super) async fn connect(socket: &str) -> Result<Self, NodeError> {
        let path = socket.strip_prefix("unix://").unwrap_or(socket);
        let unreachable = |why: String| NodeError::Unreachable {
            socket: printable(socket).into_owned(),
            why,
        };
        let connecting = tokio::time::timeout(CALL_TIMEOUT, containerd_client::connect(path));
        let channel = match connecting.await {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) => return Err(unreachable(printable(&error.to_string()).into_owned())),
            Err(_) => return Err(unreachable("it takes too long".to_owned())),
        };
        Ok(Self {
            socket: socket.to_owned(),
            channel,
        })
    }

    async fn namespaces(&self) -> Result<Vec<String>, NodeError> {
        let mut request = Request::new(ListNamespacesRequest::default());
        request.set_timeout(CALL_TIMEOUT);
        let namespaces = NamespacesClient::new(self.channel.clone())
            .list(request)
            .await
            .map_err(|status| failed("Namespaces.List", &status))?;
        let namespaces = namespaces.into_inner().namespaces.into_iter();
        Ok(namespaces.map(|namespace| namespace.name).collect())
    }

    /// Names and targets of the images of all namespaces, but for CRI's own records, by which nothing is started.
    pub(super) async fn images(&self) -> Result<BTreeSet<Picture>, NodeError> {
        let mut pictures = BTreeSet::new();
        for namespace in self.namespaces().await? {
            let images = ImagesClient::new(self.channel.clone())
                .list(self.request(&namespace, ListImagesRequest::default())?)
                .await
                .map_err(|status| failed("Images.List", &status))?;
            let images = images.into_inner().images.into_iter();
            pictures.extend(
                images
                    .filter(|image| image.name.parse::<Digest>().is_err())
                    .map(|image| Picture {
                        namespace: namespace.clone(),
                        target: image.target.map(|target| target.digest).unwrap_or_default(),
                        name: image.name,
                    }),
            );
        }
        Ok(pictures)
    }

    /// What happens to images from now on, in all namespaces. containerd answers with the first that does.
    pub(super) async fn image_events(self) -> Result<Streaming<Envelope>, NodeError> {
        let request = SubscribeRequest {
            filters: ["create", "update"]
                .map(|what| format!("topic==\"/images/{what}\""))
                .to_vec(),
        };
        let stream = EventsClient::new(self.channel.clone()).subscribe(request).await;
        stream
            .map(tonic::Response::into_inner)
            .map_err(|status| failed("Events.Subscribe", &status))
    }

    /// All containers of all namespaces.
    pub(super) async fn residents(&self) -> Result<BTreeMap<Key, Resident>, NodeError> {
        let mut residents = BTreeMap::new();
        for name in self.namespaces().await? {
            let containers = ContainersClient::new(self.channel.clone())
                .list(self.request(&name, ListContainersRequest::default())?)
                .await
                .map_err(|status| failed("Containers.List", &status))?;
            let tasks = TasksClient::new(self.channel.clone())
                .list(self.request(&name, ListTasksRequest::default())?)
                .await
                .map_err(|status| failed("Tasks.List", &status))?;
            // The list calls a container's id `id`, and leaves `container_id` empty.
            let activities: BTreeMap<String, Activity> = tasks
                .into_inner()
                .tasks
                .into_iter()
                .map(|task| (task.id.clone(), activity(task.status())))
                .collect();
            residents.extend(containers.into_inner().containers.into_iter().map(|container| {
                let created = container
                    .created_at
                    .and_then(|time| Timestamp::new(time.seconds, time.nanos).ok());
                let resident = Resident {
                    created,
                    activity: activities.get(&container.id).copied().unwrap_or(Activity::None),
                };
                ((name.clone(), container.id), resident)
            }));
        }
        Ok(residents)
    }

    /// Pauses all processes of a container.
    pub(super) async fn pause(&self, (namespace, container): &Key) -> Result<(), NodeError> {
        let request = self.request(
            namespace,
            PauseTaskRequest {
                container_id: container.clone(),
            },
        )?;
        let paused = TasksClient::new(self.channel.clone()).pause(request).await;
        paused.map(drop).map_err(|status| failed("Tasks.Pause", &status))
    }

    /// Lets the processes of a container that is paused go on.
    pub(super) async fn resume(&self, (namespace, container): &Key) -> Result<(), NodeError> {
        let request = self.request(
            namespace,
            ResumeTaskRequest {
                container_id: container.clone(),
            },
        )?;
        let resumed = TasksClient::new(self.channel.clone()).resume(request).await;
        resumed.map(drop).map_err(|status| failed("Tasks.Resume", &status))
    }

    /// Sends a signal to the first process of a container, or to all of them.
    pub(super) async fn kill(&self, (namespace, container): &Key, signal: u32, all: bool) -> Result<(), NodeError> {
        let request = self.request(
            namespace,
            KillRequest {
                container_id: container.clone(),
                exec_id: String::new(),
                signal,
                all,
            },
        )?;
        let killed = TasksClient::new(self.channel.clone()).kill(request).await;
        killed.map(drop).map_err(|status| failed("Tasks.Kill", &status))
    }

    /// The signal that asks a container of this image to end: as the image says, else SIGTERM.
    pub(super) async fn stop_signal(&self, namespace: &str, config: Digest) -> u32 {
        let asked = identity::stop_signal(&self.socket, namespace, config);
        let said: Result<String, Option<Fault>> = match tokio::time::timeout(CALL_TIMEOUT, asked).await {
            Ok(said) => said.map_err(Some),
            Err(_) => Err(None),
        };
        // What cannot be found out keeps nothing from being stopped.
        said.ok().and_then(|text| signal(&text)).unwrap_or(SIGTERM)
    }

    fn request<T>(&self, namespace: &str, message: T) -> Result<Request<T>, NodeError> {
        let name: MetadataValue<Ascii> = namespace
            .parse()
            .map_err(|_| NodeError::Namespace(printable(namespace).into_owned()))?;
        let mut request = Request::new(message);
        request.metadata_mut().insert("containerd-namespace", name);
        request.set_timeout(CALL_TIMEOUT);
        Ok(request)
    }
}

fn failed(call: &'static str, status: &Status) -> NodeError {
    NodeError::Call {
        call,
        why: format!("{:?}: {}", status.code(), oci::shorten(status.message())),
    }
}

fn activity(state: State) -> Activity {
    match state {
        State::Running => Activity::Running,
        State::Paused | State::Pausing => Activity::Paused,
        State::Unknown | State::Created | State::Stopped => Activity::None,
    }
}

/// A signal by its number, or by its name as images write it: `15`, `SIGTERM`, `term`, `SIGRTMIN+3`.
fn signal(text: &str) -> Option<u32> {
    if let Ok(number) = text.parse::<u32>() {
        return (1..=*REAL_TIME.end()).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(more) = name.strip_prefix("RTMIN") {
        let more: u32 = more.strip_prefix('+').map_or(Some(0), |more| more.parse().ok())?;
        return REAL_TIME
            .start()
            .checked_add(more)
            .filter(|number| REAL_TIME.contains(number));
    }
    if let Some(less) = name.strip_prefix("RTMAX") {
        let less: u32 = less.strip_prefix('-').map_or(Some(0), |less| less.parse().ok())?;
        return REAL_TIME
            .end()
            .checked_sub(less)
            .filter(|number| REAL_TIME.contains(number));
    }
    let place = SIGNALS.iter().position(|known| *known == name)?;
    u32::try_from(place + 1).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_named_by_its_digest() {
        for (name, repository) in [
            ("registry.example:5000/prod/web:1.4", "registry.example:5000/prod/web"),
            ("registry.example:5000/prod/web", "registry.example:5000/prod/web"),
            ("docker.io/library/nginx:latest", "docker.io/library/nginx"),
        ] {
            let picture = Picture {
                namespace: "k8s.io".to_owned(),
                name: name.to_owned(),
                target: "sha256:new".to_owned(),
            };
            assert_eq!(picture.by_digest(), format!("{repository}@sha256:new"));
        }
    }

    #[test]
    fn stop_signals_are_read_as_images_write_them() {
        for (text, number) in [
            ("SIGTERM", Some(15)),
            ("term", Some(15)),
            ("SIGQUIT", Some(3)),
            ("SIGWINCH", Some(28)),
            ("SIGSYS", Some(31)),
            ("9", Some(9)),
            ("37", Some(37)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMIN", Some(34)),
            ("SIGRTMAX-1", Some(63)),
            ("", None),
            ("0", None),
            ("65", None),
            ("SIGRTMIN+31", None),
            ("SIGRTMAX-31", None),
            ("SIGNOTHING", None),
        ] {
            assert_eq!(signal(text), number, "{text}");
        }
    }
}
