//! containerd's own API, one method per call, blocking.

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use containerd_client::services::v1::containers_client::ContainersClient;
use containerd_client::services::v1::events_client::EventsClient;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::snapshots::{MountsRequest, PrepareSnapshotRequest, RemoveSnapshotRequest};
use containerd_client::services::v1::tasks_client::TasksClient;
use containerd_client::services::v1::{
    CheckpointTaskRequest, CloseIoRequest, Container as Record, CreateContainerRequest, CreateTaskRequest,
    DeleteContainerRequest, DeleteProcessRequest, DeleteResponse, DeleteTaskRequest, ExecProcessRequest, GetRequest,
    KillRequest, ListPidsRequest, MetricsRequest, PauseTaskRequest, PublishRequest, ResizePtyRequest,
    ResumeTaskRequest, StartRequest, UpdateTaskRequest, WaitRequest,
};
use containerd_client::tonic::transport::Channel;
use containerd_client::tonic::{Code, Request, Response, Status};
use containerd_client::types::v1::{Process, ProcessInfo};
use containerd_client::types::{Metric, Mount};
use prost_types::Any;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

/// Nothing that a test asks takes this long; a call that does is a hang and fails the test.
const HANG: Duration = Duration::from_secs(90);

pub const SNAPSHOTTER: &str = "overlayfs";

/// A connection to one containerd, for one of its namespaces.
#[derive(Debug)]
pub struct Client {
    runtime: Runtime,
    channel: Channel,
    namespace: String,
}

impl Client {
    #[track_caller]
    pub fn connect(socket: &Path, namespace: &str) -> Self {
        Self::try_connect(socket, namespace)
            .unwrap_or_else(|error| panic!("cannot connect to {}: {error}", socket.display()))
    }

    pub fn try_connect(socket: &Path, namespace: &str) -> Result<Self, containerd_client::tonic::transport::Error> {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let channel = runtime.block_on(containerd_client::connect(socket))?;
        Ok(Self {
            runtime,
            channel,
            namespace: namespace.to_owned(),
        })
    }

    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Waits for the answer of one call.
    pub fn answer<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Status> {
        self.runtime
            .block_on(async { timeout(HANG, call).await })
            .expect("containerd gave no answer")
            .map(Response::into_inner)
    }

    fn request<T>(&self, body: T) -> Request<T> {
        let mut request = Request::new(body);
        request
            .metadata_mut()
            .insert("containerd-namespace", self.namespace.parse().unwrap());
        request
    }

    fn tasks(&self) -> TasksClient<Channel> {
        TasksClient::new(self.channel.clone())
    }

    /// Publishes an event without content.
    pub fn publish(&self, topic: &str) -> Result<(), Status> {
        let request = self.request(PublishRequest {
            topic: topic.to_owned(),
            event: Some(Any {
                type_url: "containerd.events.TaskStart".to_owned(),
                value: Vec::new(),
            }),
        });
        self.answer(EventsClient::new(self.channel()).publish(request))
    }

    pub fn prepare_snapshot(&self, key: &str, parent: &str) -> Result<Vec<Mount>, Status> {
        let request = self.request(PrepareSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            // Until a container record refers to it, nothing else keeps the garbage collector away.
            labels: [("containerd.io/gc.root".to_owned(), "true".to_owned())].into(),
        });
        let answer = self.answer(SnapshotsClient::new(self.channel()).prepare(request))?;
        Ok(answer.mounts)
    }

    pub fn snapshot_mounts(&self, key: &str) -> Result<Vec<Mount>, Status> {
        let request = self.request(MountsRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            key: key.to_owned(),
        });
        let answer = self.answer(SnapshotsClient::new(self.channel()).mounts(request))?;
        Ok(answer.mounts)
    }

    pub fn remove_snapshot(&self, key: &str) -> Result<(), Status> {
        let request = self.request(RemoveSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            key: key.to_owned(),
        });
        self.answer(SnapshotsClient::new(self.channel()).remove(request))
    }

    pub fn create_record(&self, container: Record) -> Result<(), Status> {
        let request = self.request(CreateContainerRequest {
            container: Some(container),
        });
        self.answer(ContainersClient::new(self.channel()).create(request))
            .map(drop)
    }

    pub fn delete_record(&self, id: &str) -> Result<(), Status> {
        let request = self.request(DeleteContainerRequest { id: id.to_owned() });
        self.answer(ContainersClient::new(self.channel()).delete(request))
    }

    pub fn create_task(&self, body: CreateTaskRequest) -> Result<u32, Status> {
        let request = self.request(body);
        Ok(self.answer(self.tasks().create(request))?.pid)
    }

    pub fn start(&self, container: &str, exec: &str) -> Result<u32, Status> {
        let request = self.request(StartRequest {
            container_id: container.to_owned(),
            exec_id: exec.to_owned(),
        });
        Ok(self.answer(self.tasks().start(request))?.pid)
    }

    pub fn delete_task(&self, container: &str) -> Result<DeleteResponse, Status> {
        let request = self.request(DeleteTaskRequest {
            container_id: container.to_owned(),
        });
        self.answer(self.tasks().delete(request))
    }

    pub fn delete_exec(&self, container: &str, exec: &str) -> Result<DeleteResponse, Status> {
        let request = self.request(DeleteProcessRequest {
            container_id: container.to_owned(),
            exec_id: exec.to_owned(),
        });
        self.answer(self.tasks().delete_process(request))
    }

    pub fn state(&self, container: &str, exec: &str) -> Result<Process, Status> {
        let request = self.request(GetRequest {
            container_id: container.to_owned(),
            exec_id: exec.to_owned(),
        });
        let answer = self.answer(self.tasks().get(request))?;
        Ok(answer.process.expect("a state without a process"))
    }

    pub fn kill(&self, container: &str, exec: &str, signal: u32, all: bool) -> Result<(), Status> {
        let request = self.request(KillRequest {
            container_id: container.to_owned(),
            exec_id: exec.to_owned(),
            signal,
            all,
        });
        self.answer(self.tasks().kill(request))
    }

    pub fn exec(&self, body: ExecProcessRequest) -> Result<(), Status> {
        let request = self.request(body);
        self.answer(self.tasks().exec(request))
    }

    pub fn resize(&self, container: &str, exec: &str, width: u32, height: u32) -> Result<(), Status> {
        let request = self.request(ResizePtyRequest {
            container_id: container.to_owned(),
            exec_id: exec.to_owned(),
            width,
            height,
        });
        self.answer(self.tasks().resize_pty(request))
    }

    pub fn close_stdin(&self, container: &str, exec: &str) -> Result<(), Status> {
        let request = self.request(CloseIoRequest {
            container_id: container.to_owned(),
            exec_id: exec.to_owned(),
            stdin: true,
        });
        self.answer(self.tasks().close_io(request))
    }

    pub fn pause(&self, container: &str) -> Result<(), Status> {
        let request = self.request(PauseTaskRequest {
            container_id: container.to_owned(),
        });
        self.answer(self.tasks().pause(request))
    }

    pub fn resume(&self, container: &str) -> Result<(), Status> {
        let request = self.request(ResumeTaskRequest {
            container_id: container.to_owned(),
        });
        self.answer(self.tasks().resume(request))
    }

    pub fn pids(&self, container: &str) -> Result<Vec<ProcessInfo>, Status> {
        let request = self.request(ListPidsRequest {
            container_id: container.to_owned(),
        });
        Ok(self.answer(self.tasks().list_pids(request))?.processes)
    }

    pub fn update(&self, container: &str, resources: Any) -> Result<(), Status> {
        let request = self.request(UpdateTaskRequest {
            container_id: container.to_owned(),
            resources: Some(resources),
            annotations: [].into(),
        });
        self.answer(self.tasks().update(request))
    }

    pub fn metrics(&self, container: &str) -> Result<Vec<Metric>, Status> {
        let request = self.request(MetricsRequest {
            filters: vec![format!("id=={container}")],
        });
        Ok(self.answer(self.tasks().metrics(request))?.metrics)
    }

    pub fn checkpoint(&self, container: &str, options: Option<Any>) -> Result<(), Status> {
        let request = self.request(CheckpointTaskRequest {
            container_id: container.to_owned(),
            parent_checkpoint: String::new(),
            options,
        });
        self.answer(self.tasks().checkpoint(request)).map(drop)
    }

    /// Blocks until the process has ended; its exit status.
    pub fn wait(&self, container: &str, exec: &str) -> Result<u32, Status> {
        let request = self.request(WaitRequest {
            container_id: container.to_owned(),
            exec_id: exec.to_owned(),
        });
        Ok(self.answer(self.tasks().wait(request))?.exit_status)
    }
}

/// Fails unless the call was refused with this code.
#[track_caller]
pub fn assert_code<T: std::fmt::Debug>(result: Result<T, Status>, code: Code) -> String {
    let status = result.expect_err("the call had to fail");
    assert_eq!(status.code(), code, "{status}");
    status.message().to_owned()
}

/// Fails unless the call was refused, by Assay with this code. The stock shim says UNKNOWN where it should not.
#[track_caller]
pub fn assert_refused<T: std::fmt::Debug>(result: Result<T, Status>, code: Code) {
    let status = result.expect_err("the call had to be refused");
    if super::runtime() == super::ASSAY {
        assert_eq!(status.code(), code, "{status}");
    }
}
