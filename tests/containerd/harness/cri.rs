//! The part of a kubelet that the tests need.

use std::collections::HashMap;
use std::path::Path;

use containerd_client::tonic::Status;
use containerd_client::tonic::transport::Channel;
use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use k8s_cri::v1::{
    ContainerConfig, ContainerMetadata, ContainerState, ContainerStatus, ContainerStatusRequest,
    CreateContainerRequest, ExecSyncRequest, ExecSyncResponse, ImageSpec, ImageStatusRequest, LinuxContainerConfig,
    LinuxContainerResources, LinuxContainerSecurityContext, LinuxPodSandboxConfig, LinuxSandboxSecurityContext, Mount,
    NamespaceMode, NamespaceOption, PodSandboxConfig, PodSandboxMetadata, PodSandboxState, PodSandboxStatusRequest,
    PodSandboxStatusResponse, RemoveContainerRequest, RemovePodSandboxRequest, RunPodSandboxRequest,
    RuntimeHandlerFeatures, StartContainerRequest, StatusRequest, StopContainerRequest, StopPodSandboxRequest,
};

use serde_json::Value;

use super::client::Client;
use super::daemon::Daemon;
use super::eventually;
use super::leftovers::cgroup_roots;

/// Whether containerd serves CRI.
pub fn ready(socket: &Path) -> Result<(), String> {
    let client = Client::try_connect(socket, "k8s.io").map_err(|error| error.to_string())?;
    let request = StatusRequest { verbose: false };
    client
        .answer(RuntimeServiceClient::new(client.channel()).status(request))
        .map(drop)
        .map_err(|status| status.to_string())
}

/// Whether containerd has read how to make a pod's network.
pub fn network_ready(daemon: &Daemon) -> Result<(), String> {
    let client = daemon.client("k8s.io");
    let request = StatusRequest { verbose: false };
    let answer = client.answer(runtime(&client).status(request)).unwrap();
    let conditions = answer.status.unwrap_or_default().conditions;
    match conditions.iter().find(|condition| condition.r#type == "NetworkReady") {
        Some(condition) if condition.status => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

/// CRI learns of an image that something else imported by an event.
pub fn wait_for_image(socket: &Path, name: &str) {
    let client = Client::connect(socket, "k8s.io");
    eventually(&format!("CRI to know {name}"), || {
        let request = ImageStatusRequest {
            image: Some(ImageSpec {
                image: name.to_owned(),
                ..ImageSpec::default()
            }),
            verbose: false,
        };
        let answer = client.answer(ImageServiceClient::new(client.channel()).image_status(request));
        match answer {
            Ok(answer) if answer.image.is_some() => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

/// A pod in the host's network. Dropping it removes it with its containers.
#[derive(Debug)]
pub struct Pod {
    client: Client,
    pub id: String,
    config: PodSandboxConfig,
}

impl Pod {
    /// Starts a sandbox with a runtime handler; the empty name is the default one.
    pub fn run(daemon: &Daemon, name: &str, handler: &str) -> Result<Self, Status> {
        Self::run_with(daemon, name, handler, |_| {})
    }

    /// As [`Pod::run`], of a pod that asks for more.
    pub fn run_with(
        daemon: &Daemon,
        name: &str,
        handler: &str,
        edit: impl FnOnce(&mut PodSandboxConfig),
    ) -> Result<Self, Status> {
        let client = daemon.client("k8s.io");
        let mut config = PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: name.to_owned(),
                uid: format!("{name}-uid"),
                namespace: "default".to_owned(),
                attempt: 0,
            }),
            log_directory: daemon.folder.join("logs").join(name).display().to_string(),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: format!("/{}/{name}", daemon.scope),
                security_context: Some(LinuxSandboxSecurityContext {
                    namespace_options: Some(namespaces()),
                    ..LinuxSandboxSecurityContext::default()
                }),
                ..LinuxPodSandboxConfig::default()
            }),
            ..PodSandboxConfig::default()
        };
        edit(&mut config);
        let request = RunPodSandboxRequest {
            config: Some(config.clone()),
            runtime_handler: handler.to_owned(),
        };
        let id = client.answer(runtime(&client).run_pod_sandbox(request))?.pod_sandbox_id;
        Ok(Self { client, id, config })
    }

    /// Creates a container that is not started yet; its id.
    pub fn create(&self, name: &str, image: &str, command: &[&str]) -> Result<String, Status> {
        self.create_with(name, image, command, |_| {})
    }

    /// As [`Pod::create`], of a container that asks for more. It has the namespaces of the pod.
    pub fn create_with(
        &self,
        name: &str,
        image: &str,
        command: &[&str],
        edit: impl FnOnce(&mut ContainerConfig),
    ) -> Result<String, Status> {
        let pod = self
            .config
            .linux
            .as_ref()
            .and_then(|linux| linux.security_context.clone());
        let mut config = ContainerConfig {
            metadata: Some(ContainerMetadata {
                name: name.to_owned(),
                attempt: 0,
            }),
            image: Some(ImageSpec {
                image: image.to_owned(),
                user_specified_image: image.to_owned(),
                ..ImageSpec::default()
            }),
            command: command.iter().map(|part| (*part).to_owned()).collect(),
            log_path: format!("{name}.log"),
            linux: Some(LinuxContainerConfig {
                resources: Some(LinuxContainerResources::default()),
                security_context: Some(LinuxContainerSecurityContext {
                    namespace_options: pod.and_then(|pod| pod.namespace_options),
                    ..LinuxContainerSecurityContext::default()
                }),
            }),
            ..ContainerConfig::default()
        };
        edit(&mut config);
        let request = CreateContainerRequest {
            pod_sandbox_id: self.id.clone(),
            config: Some(config),
            sandbox_config: Some(self.config.clone()),
        };
        let answer = self.client.answer(runtime(&self.client).create_container(request))?;
        Ok(answer.container_id)
    }

    pub fn start(&self, container: &str) -> Result<(), Status> {
        let request = StartContainerRequest {
            container_id: container.to_owned(),
        };
        self.client
            .answer(runtime(&self.client).start_container(request))
            .map(drop)
    }

    /// Runs a command in a container and waits for it.
    pub fn exec(&self, container: &str, command: &[&str]) -> Result<ExecSyncResponse, Status> {
        let request = ExecSyncRequest {
            container_id: container.to_owned(),
            cmd: command.iter().map(|part| (*part).to_owned()).collect(),
            timeout: 20,
        };
        self.client.answer(runtime(&self.client).exec_sync(request))
    }

    pub fn status(&self, container: &str) -> ContainerStatus {
        let request = ContainerStatusRequest {
            container_id: container.to_owned(),
            verbose: false,
        };
        let answer = self
            .client
            .answer(runtime(&self.client).container_status(request))
            .unwrap();
        answer.status.unwrap()
    }

    /// Waits until a container has ended; its status.
    pub fn wait(&self, container: &str) -> ContainerStatus {
        eventually(&format!("the end of {container}"), || {
            match self.status(container).state() {
                ContainerState::ContainerExited => Ok(()),
                state => Err(format!("it is {state:?}")),
            }
        });
        self.status(container)
    }

    pub fn stop(&self, container: &str) -> Result<(), Status> {
        let request = StopContainerRequest {
            container_id: container.to_owned(),
            timeout: 1,
        };
        self.client
            .answer(runtime(&self.client).stop_container(request))
            .map(drop)
    }

    pub fn remove(&self, container: &str) -> Result<(), Status> {
        let request = RemoveContainerRequest {
            container_id: container.to_owned(),
        };
        self.client
            .answer(runtime(&self.client).remove_container(request))
            .map(drop)
    }

    /// The same pod, asked for of a containerd that was restarted.
    pub fn reconnect(&mut self, daemon: &Daemon) {
        self.client = daemon.client("k8s.io");
    }

    pub fn sandbox_state(&self) -> PodSandboxState {
        self.sandbox_status().status.unwrap().state()
    }

    fn sandbox_status(&self) -> PodSandboxStatusResponse {
        let request = PodSandboxStatusRequest {
            pod_sandbox_id: self.id.clone(),
            verbose: true,
        };
        self.client
            .answer(runtime(&self.client).pod_sandbox_status(request))
            .unwrap()
    }

    /// First process of the sandbox.
    pub fn sandbox_pid(&self) -> u32 {
        pid(&self.sandbox_status().info)
    }

    /// First process of a container.
    pub fn pid(&self, container: &str) -> u32 {
        let request = ContainerStatusRequest {
            container_id: container.to_owned(),
            verbose: true,
        };
        let answer = self
            .client
            .answer(runtime(&self.client).container_status(request))
            .unwrap();
        pid(&answer.info)
    }

    pub fn stop_sandbox(&self) -> Result<(), Status> {
        let request = StopPodSandboxRequest {
            pod_sandbox_id: self.id.clone(),
        };
        self.client
            .answer(runtime(&self.client).stop_pod_sandbox(request))
            .map(drop)
    }

    /// The log that a container's output goes to.
    pub fn log(&self, name: &str) -> String {
        std::fs::read_to_string(Path::new(&self.config.log_directory).join(format!("{name}.log"))).unwrap_or_default()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let remove = RemovePodSandboxRequest {
            pod_sandbox_id: self.id.clone(),
        };
        let stopped = self.stop_sandbox();
        let removed = self.client.answer(runtime(&self.client).remove_pod_sandbox(remove));
        if std::thread::panicking() {
            return;
        }
        stopped.unwrap();
        removed.unwrap();
        // The pod's cgroup is the kubelet's: here the test's.
        let own = &self.config.linux.as_ref().unwrap().cgroup_parent;
        for root in cgroup_roots() {
            let cgroup = root.join(own.trim_start_matches('/'));
            eventually("an empty cgroup", || match std::fs::remove_dir(&cgroup) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.to_string()),
                _ => Ok(()),
            });
        }
    }
}

/// An image as a read-only volume.
pub fn image_volume(image: &str, path: &str) -> Mount {
    Mount {
        container_path: path.to_owned(),
        readonly: true,
        image: Some(ImageSpec {
            image: image.to_owned(),
            user_specified_image: image.to_owned(),
            ..ImageSpec::default()
        }),
        ..Mount::default()
    }
}

/// What a kubelet asks for by default, but for the network: there is no network plugin here.
fn namespaces() -> NamespaceOption {
    NamespaceOption {
        network: NamespaceMode::Node.into(),
        pid: NamespaceMode::Container.into(),
        ..NamespaceOption::default()
    }
}

/// The process that the verbose form of a status names.
fn pid(info: &HashMap<String, String>) -> u32 {
    let info: Value = serde_json::from_str(&info["info"]).unwrap();
    u32::try_from(info["pid"].as_u64().unwrap()).unwrap()
}

/// What containerd tells a kubelet that a handler can do.
pub fn features(daemon: &Daemon, handler: &str) -> RuntimeHandlerFeatures {
    let client = daemon.client("k8s.io");
    let request = StatusRequest { verbose: false };
    let answer = client.answer(runtime(&client).status(request)).unwrap();
    let mut handlers = answer.runtime_handlers.into_iter();
    let handler = handlers
        .find(|known| known.name == handler)
        .unwrap_or_else(|| panic!("no handler {handler}"));
    handler.features.unwrap_or_default()
}

fn runtime(client: &Client) -> RuntimeServiceClient<Channel> {
    RuntimeServiceClient::new(client.channel())
}
