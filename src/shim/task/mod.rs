//! The task service that containerd calls: one file per call that changes something, the rest here.

mod checkpoint;
mod create;
mod delete;
mod exec;
mod kill;
mod pause;
mod query;
mod start;
mod update;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use containerd_shim_protos::api::{
    CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest, CreateTaskResponse,
    DeleteRequest, DeleteResponse, Empty, ExecProcessRequest, KillRequest, PauseRequest, PidsRequest, PidsResponse,
    ResizePtyRequest, ResumeRequest, ShutdownRequest, StartRequest, StartResponse, StateRequest, StateResponse,
    StatsRequest, StatsResponse, UpdateTaskRequest, WaitRequest, WaitResponse,
};
use containerd_shim_protos::shim_async::Task;
use tokio::sync::{Notify, watch};
use ttrpc::r#async::TtrpcContext;

use super::admit::Admission;
use super::container::{Container, Services};
use super::error::Error;

/// The containers of this shim and what they need.
#[derive(Debug)]
pub struct Tasks {
    services: Arc<Services>,
    admission: Admission,
    containers: Mutex<HashMap<String, Option<Arc<Container>>>>,
    calls: watch::Sender<usize>,
    shutdown: Arc<Notify>,
    socket: std::path::PathBuf,
}

impl Tasks {
    /// A service without containers. `shutdown` is notified when containerd has no more use for the shim.
    #[must_use]
    pub fn new(
        services: Arc<Services>,
        admission: Admission,
        socket: std::path::PathBuf,
        shutdown: Arc<Notify>,
    ) -> Self {
        Self {
            services,
            admission,
            containers: Mutex::default(),
            calls: watch::Sender::new(0),
            shutdown,
            socket,
        }
    }

    /// Whether any first process has not ended.
    #[must_use]
    pub fn any_alive(&self) -> bool {
        self.containers()
            .values()
            .any(|slot| slot.as_ref().is_none_or(|container| container.init.exit().is_none()))
    }

    /// Resolves when no call is under way.
    pub async fn idle(&self) {
        // Fails only when the sender is gone, and it is ours.
        let _ = self.calls.subscribe().wait_for(|calls| *calls == 0).await;
    }

    fn container(&self, id: &str) -> Result<Arc<Container>, Error> {
        let container = self.containers().get(id).cloned().flatten();
        container.ok_or_else(|| Error::NotFound(format!("container {id}")))
    }

    /// Reserves an id; it is free again when the answer is dropped without a container.
    fn reserve(self: &Arc<Self>, id: &str) -> Result<Reservation, Error> {
        let mut containers = self.containers();
        if containers.contains_key(id) {
            return Err(Error::AlreadyExists(format!("container {id}")));
        }
        containers.insert(id.to_owned(), None);
        Ok(Reservation {
            tasks: Arc::clone(self),
            id: id.to_owned(),
        })
    }

    fn containers(&self) -> MutexGuard<'_, HashMap<String, Option<Arc<Container>>>> {
        // The map is valid whatever happened while it was locked.
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// While it lives, the shim does not end: its answer is still to come.
struct Call(Arc<Tasks>);

impl Call {
    fn begin(tasks: Arc<Tasks>) -> Self {
        tasks.calls.send_modify(|calls| *calls += 1);
        Self(tasks)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.0.calls.send_modify(|calls| *calls -= 1);
    }
}

struct Reservation {
    tasks: Arc<Tasks>,
    id: String,
}

impl Reservation {
    fn fill(self, container: Arc<Container>) {
        self.tasks.containers().insert(self.id.clone(), Some(container));
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut containers = self.tasks.containers();
        if containers.get(&self.id).is_some_and(Option::is_none) {
            containers.remove(&self.id);
        }
    }
}

/// The ttrpc face of [`Tasks`].
#[derive(Debug, Clone)]
pub struct Service(pub Arc<Tasks>);

impl Service {
    /// Runs a call to its end even if containerd hangs up or restarts meanwhile: half a `create` is worse than one that
    /// nobody hears of. A panic becomes an answer.
    async fn call<T, F>(&self, name: &'static str, work: impl FnOnce(Arc<Tasks>) -> F) -> ttrpc::Result<T>
    where
        F: Future<Output = Result<T, Error>> + Send + 'static,
        T: Send + 'static,
    {
        let call = Call::begin(Arc::clone(&self.0));
        let work = work(Arc::clone(&self.0));
        let result = tokio::spawn(async move {
            let result = work.await;
            drop(call);
            result
        });
        let result = result.await.unwrap_or(Err(Error::Panicked(name)));
        super::memory::release_soon();
        result.map_err(|error| {
            log::info!("{name}: {error}");
            error.into()
        })
    }
}

#[async_trait]
impl Task for Service {
    async fn create(&self, _: &TtrpcContext, request: CreateTaskRequest) -> ttrpc::Result<CreateTaskResponse> {
        self.call("create", |tasks| tasks.create(request)).await
    }

    async fn start(&self, _: &TtrpcContext, request: StartRequest) -> ttrpc::Result<StartResponse> {
        self.call("start", |tasks| async move { tasks.start(&request).await })
            .await
    }

    async fn delete(&self, _: &TtrpcContext, request: DeleteRequest) -> ttrpc::Result<DeleteResponse> {
        self.call("delete", |tasks| async move { tasks.delete(&request).await })
            .await
    }

    async fn exec(&self, _: &TtrpcContext, request: ExecProcessRequest) -> ttrpc::Result<Empty> {
        self.call("exec", |tasks| async move { tasks.exec(request).await })
            .await
    }

    async fn pause(&self, _: &TtrpcContext, request: PauseRequest) -> ttrpc::Result<Empty> {
        self.call("pause", |tasks| async move { tasks.pause(&request.id).await })
            .await
    }

    async fn resume(&self, _: &TtrpcContext, request: ResumeRequest) -> ttrpc::Result<Empty> {
        self.call("resume", |tasks| async move { tasks.resume(&request.id).await })
            .await
    }

    async fn kill(&self, _: &TtrpcContext, request: KillRequest) -> ttrpc::Result<Empty> {
        self.call("kill", |tasks| async move { tasks.kill(&request).await })
            .await
    }

    async fn update(&self, _: &TtrpcContext, request: UpdateTaskRequest) -> ttrpc::Result<Empty> {
        self.call("update", |tasks| async move { tasks.update(&request).await })
            .await
    }

    async fn checkpoint(&self, _: &TtrpcContext, request: CheckpointTaskRequest) -> ttrpc::Result<Empty> {
        self.call("checkpoint", |tasks| async move { tasks.checkpoint(&request).await })
            .await
    }

    async fn stats(&self, _: &TtrpcContext, request: StatsRequest) -> ttrpc::Result<StatsResponse> {
        self.call("stats", |tasks| async move { tasks.stats(&request.id) })
            .await
    }

    async fn pids(&self, _: &TtrpcContext, request: PidsRequest) -> ttrpc::Result<PidsResponse> {
        self.call("pids", |tasks| async move { tasks.pids(&request.id).await })
            .await
    }

    async fn state(&self, _: &TtrpcContext, request: StateRequest) -> ttrpc::Result<StateResponse> {
        Ok(self.0.state(&request)?)
    }

    async fn resize_pty(&self, _: &TtrpcContext, request: ResizePtyRequest) -> ttrpc::Result<Empty> {
        Ok(self.0.resize_pty(&request)?)
    }

    async fn close_io(&self, _: &TtrpcContext, request: CloseIORequest) -> ttrpc::Result<Empty> {
        Ok(self.0.close_io(&request)?)
    }

    async fn wait(&self, _: &TtrpcContext, request: WaitRequest) -> ttrpc::Result<WaitResponse> {
        Ok(self.0.wait(&request).await?)
    }

    async fn connect(&self, _: &TtrpcContext, request: ConnectRequest) -> ttrpc::Result<ConnectResponse> {
        Ok(self.0.connect(&request))
    }

    async fn shutdown(&self, _: &TtrpcContext, _: ShutdownRequest) -> ttrpc::Result<Empty> {
        Ok(self.0.shut_down())
    }
}
