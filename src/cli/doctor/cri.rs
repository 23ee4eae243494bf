//! What a kubelet would ask containerd.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use k8s_cri::v1::{
    ContainerConfig, ContainerMetadata, ContainerStatusRequest, CreateContainerRequest, ImageSpec,
    LinuxContainerConfig, LinuxContainerSecurityContext, LinuxPodSandboxConfig, LinuxSandboxSecurityContext,
    ListContainersRequest, ListPodSandboxRequest, NamespaceMode, NamespaceOption, PodSandboxConfig, PodSandboxMetadata,
    PodSandboxState, RemovePodSandboxRequest, RunPodSandboxRequest, StartContainerRequest, StatusRequest,
    StopPodSandboxRequest,
};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};
use tonic::transport::Channel;
use tonic::{Response, Status};

/// Longest time for one call; a pod may take a while to start.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A connection to containerd's CRI plugin.
#[derive(Debug)]
pub(super) struct Cri {
    runtime: Runtime,
    channel: Channel,
}

/// The handlers of the containerd that runs.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    /// Type and path by name.
    pub handlers: BTreeMap<String, (String, String)>,
    /// The default one.
    pub default: Option<String>,
}

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pod {
    /// Namespace and name.
    pub name: String,
    /// Its handler; empty for the default one.
    pub handler: String,
    /// Whether its sandbox runs.
    pub runs: bool,
}

/// A pod that was started to see whether it starts.
#[derive(Debug)]
pub(super) struct Trial {
    pub sandbox: String,
    config: PodSandboxConfig,
}

impl Cri {
    /// Connects to the socket.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn connect(socket: &str) -> Result<Self, String> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        let channel = runtime
            .block_on(containerd_client::connect(socket))
            .map_err(|error| error.to_string())?;
        Ok(Self { runtime, channel })
    }

    fn client(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.channel.clone())
    }

    fn answer<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, String> {
        self.runtime
            .block_on(async { tokio::time::timeout(TIMEOUT, call).await })
            .map_err(|_| format!("no answer within {} s", TIMEOUT.as_secs()))?
            .map(Response::into_inner)
            .map_err(|status| status.message().to_owned())
    }

    /// The handlers of the containerd that runs.
    ///
    /// # Errors
    /// Why they are not known.
    pub(super) fn loaded(&self) -> Result<Loaded, String> {
        let status = self.answer(self.client().status(StatusRequest { verbose: true }))?;
        let config = status
            .info
            .get("config")
            .ok_or("its status does not show its configuration")?;
        parse(config)
    }

    /// All pods.
    ///
    /// # Errors
    /// What containerd said.
    pub(super) fn pods(&self) -> Result<Vec<Pod>, String> {
        let answer = self.answer(self.client().list_pod_sandbox(ListPodSandboxRequest::default()))?;
        let pods = answer.items.into_iter().map(|pod| {
            let metadata = pod.metadata.clone().unwrap_or_default();
            Pod {
                name: format!("{}/{}", metadata.namespace, metadata.name),
                runs: pod.state() == PodSandboxState::SandboxReady,
                handler: pod.runtime_handler,
            }
        });
        Ok(pods.collect())
    }

    /// Name and host paths of the mounts of every container.
    ///
    /// # Errors
    /// What containerd said.
    pub(super) fn mounts(&self) -> Result<Vec<(String, Vec<String>)>, String> {
        let answer = self.answer(self.client().list_containers(ListContainersRequest::default()))?;
        let mut found = Vec::new();
        for container in answer.containers {
            let request = ContainerStatusRequest {
                container_id: container.id.clone(),
                verbose: false,
            };
            // One that has just gone holds nothing any more.
            let Ok(status) = self.answer(self.client().container_status(request)) else {
                continue;
            };
            let mounts = status.status.map(|status| status.mounts).unwrap_or_default();
            let label = |key: &str| container.labels.get(key).cloned().unwrap_or_default();
            let name = format!(
                "{}/{}/{}",
                label("io.kubernetes.pod.namespace"),
                label("io.kubernetes.pod.name"),
                container.metadata.map(|metadata| metadata.name).unwrap_or_default()
            );
            found.push((name, mounts.into_iter().map(|mount| mount.host_path).collect()));
        }
        Ok(found)
    }

    /// Starts the sandbox of a pod in the host's network.
    ///
    /// # Errors
    /// What containerd said, which is what a kubelet would show.
    pub(super) fn run_sandbox(&self, handler: &str, cgroup_parent: &str) -> Result<Trial, String> {
        let name = format!("assay-doctor-{}-{handler}", std::process::id());
        let config = PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                uid: name.clone(),
                name,
                namespace: "default".to_owned(),
                attempt: 0,
            }),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: cgroup_parent.to_owned(),
                security_context: Some(LinuxSandboxSecurityContext {
                    namespace_options: Some(namespaces()),
                    ..LinuxSandboxSecurityContext::default()
                }),
                ..LinuxPodSandboxConfig::default()
            }),
            ..PodSandboxConfig::default()
        };
        let request = RunPodSandboxRequest {
            config: Some(config.clone()),
            runtime_handler: handler.to_owned(),
        };
        let sandbox = self.answer(self.client().run_pod_sandbox(request))?.pod_sandbox_id;
        Ok(Trial { sandbox, config })
    }

    /// Creates a container in the pod.
    ///
    /// # Errors
    /// What containerd said.
    pub(super) fn create(&self, trial: &Trial, image: &str) -> Result<String, String> {
        let request = CreateContainerRequest {
            pod_sandbox_id: trial.sandbox.clone(),
            config: Some(ContainerConfig {
                metadata: Some(ContainerMetadata {
                    name: "main".to_owned(),
                    attempt: 0,
                }),
                image: Some(ImageSpec {
                    image: image.to_owned(),
                    user_specified_image: image.to_owned(),
                    ..ImageSpec::default()
                }),
                linux: Some(LinuxContainerConfig {
                    security_context: Some(LinuxContainerSecurityContext {
                        namespace_options: Some(namespaces()),
                        ..LinuxContainerSecurityContext::default()
                    }),
                    ..LinuxContainerConfig::default()
                }),
                ..ContainerConfig::default()
            }),
            sandbox_config: Some(trial.config.clone()),
        };
        Ok(self.answer(self.client().create_container(request))?.container_id)
    }

    /// Starts it.
    ///
    /// # Errors
    /// What containerd said.
    pub(super) fn start(&self, container: &str) -> Result<(), String> {
        let request = StartContainerRequest {
            container_id: container.to_owned(),
        };
        self.answer(self.client().start_container(request)).map(drop)
    }

    /// Takes the pod away with all that is in it.
    ///
    /// # Errors
    /// What containerd said.
    pub(super) fn remove(&self, trial: &Trial) -> Result<(), String> {
        let id = || trial.sandbox.clone();
        self.answer(
            self.client()
                .stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: id() }),
        )?;
        self.answer(
            self.client()
                .remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: id() }),
        )
        .map(drop)
    }
}

/// The host's network, so that no network plugin takes part.
fn namespaces() -> NamespaceOption {
    NamespaceOption {
        network: NamespaceMode::Node.into(),
        pid: NamespaceMode::Container.into(),
        ..NamespaceOption::default()
    }
}

/// The configuration in a verbose status.
fn parse(config: &str) -> Result<Loaded, String> {
    let config: Value = serde_json::from_str(config).map_err(|error| error.to_string())?;
    let containerd = config.get("containerd").ok_or("its configuration names no handlers")?;
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let runtimes = containerd.get("runtimes").and_then(Value::as_object);
    let handlers = runtimes.into_iter().flatten().map(|(name, handler)| {
        let (kind, path) = (text(handler, "runtimeType"), text(handler, "runtimePath"));
        (name.clone(), (kind, path))
    });
    Ok(Loaded {
        handlers: handlers.collect(),
        default: Some(text(containerd, "defaultRuntimeName")).filter(|name| !name.is_empty()),
    })
}
