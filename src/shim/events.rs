//! Events to containerd: in order, and none that was accepted is lost while the shim lives.

use std::sync::Arc;
use std::time::Duration;

use containerd_shim_protos::api::ForwardRequest;
use containerd_shim_protos::shim::event::Envelope;
use containerd_shim_protos::shim_async::{Client, EventsClient};
use protobuf::Message;
use protobuf::well_known_types::any::Any;
use tokio::sync::{mpsc, watch};
use ttrpc::context::{self, Context};

use super::clock;

/// Longest that one delivery may take.
const DELIVERY: Duration = Duration::from_secs(5);
/// First and longest pause before the next attempt while containerd is away.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// Idle time after which the connection is given back: an idle pod needs none.
const IDLE: Duration = Duration::from_secs(5);

/// A kind of event: containerd's topic and the name of its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topic {
    topic: &'static str,
    message: &'static str,
}

macro_rules! topics {
    ($($name:ident, $topic:literal, $message:literal;)*) => {
        $(#[doc = concat!("`", $message, "`")]
        pub const $name: Topic = Topic { topic: $topic, message: concat!("containerd.events.", $message) };)*
    };
}
topics! {
    CREATE, "/tasks/create", "TaskCreate";
    START, "/tasks/start", "TaskStart";
    EXIT, "/tasks/exit", "TaskExit";
    DELETE, "/tasks/delete", "TaskDelete";
    OOM, "/tasks/oom", "TaskOOM";
    EXEC_ADDED, "/tasks/exec-added", "TaskExecAdded";
    EXEC_STARTED, "/tasks/exec-started", "TaskExecStarted";
    PAUSED, "/tasks/paused", "TaskPaused";
    RESUMED, "/tasks/resumed", "TaskResumed";
    CHECKPOINTED, "/tasks/checkpointed", "TaskCheckpointed";
}

/// Accepts events and delivers them in the background.
#[derive(Debug)]
pub struct Publisher {
    namespace: String,
    queue: mpsc::UnboundedSender<Envelope>,
    undelivered: Arc<watch::Sender<usize>>,
}

impl Publisher {
    /// Delivers to the ttrpc socket at `address`. Needs a running event loop.
    #[must_use]
    pub fn new(address: String, namespace: String) -> Self {
        let (queue, events) = mpsc::unbounded_channel();
        let undelivered = Arc::new(watch::Sender::new(0));
        tokio::spawn(deliver(address, events, Arc::clone(&undelivered)));
        Self {
            namespace,
            queue,
            undelivered,
        }
    }

    /// Accepts an event; its time is now.
    pub fn publish(&self, topic: Topic, event: &impl Message) {
        let value = match event.write_to_bytes() {
            Ok(value) => value,
            Err(error) => return log::error!("{} does not encode: {error}", topic.message),
        };
        let envelope = Envelope {
            timestamp: Some(clock::now()).into(),
            namespace: self.namespace.clone(),
            topic: topic.topic.to_owned(),
            event: Some(Any {
                type_url: topic.message.to_owned(),
                value,
                ..Any::default()
            })
            .into(),
            ..Envelope::default()
        };
        self.undelivered.send_modify(|n| *n += 1);
        // The delivering task ends only with the event loop.
        let _ = self.queue.send(envelope);
    }

    /// Resolves when everything accepted so far has been delivered.
    pub async fn delivered(&self) {
        // Fails only when the sender is gone, and it is ours.
        let _ = self.undelivered.subscribe().wait_for(|n| *n == 0).await;
    }
}

async fn deliver(
    address: String,
    mut events: mpsc::UnboundedReceiver<Envelope>,
    undelivered: Arc<watch::Sender<usize>>,
) {
    let mut client = None;
    loop {
        let envelope = if client.is_some() {
            match tokio::time::timeout(IDLE, events.recv()).await {
                Ok(envelope) => envelope,
                Err(_) => {
                    client = None;
                    continue;
                }
            }
        } else {
            events.recv().await
        };
        let Some(envelope) = envelope else { return };
        let request = ForwardRequest {
            envelope: Some(envelope).into(),
            ..ForwardRequest::default()
        };
        let mut pause = RETRY.0;
        while let Err(error) = forward(&mut client, &address, &request).await {
            log::debug!("event {} waits for containerd: {error}", request.envelope.topic);
            client = None;
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY.1);
        }
        undelivered.send_modify(|n| *n -= 1);
    }
}

async fn forward(client: &mut Option<EventsClient>, address: &str, request: &ForwardRequest) -> ttrpc::Result<()> {
    let client = match client {
        Some(client) => client,
        None => client.insert(EventsClient::new(Client::connect(&format!("unix://{address}")).await?)),
    };
    match client.forward(timeout(), request).await {
        // containerd has seen it and says that it is wrong: another attempt would not change that.
        Err(ttrpc::Error::RpcStatus(status)) if rejected(&status) => {
            log::error!(
                "containerd refuses the event {}: {}",
                request.envelope.topic,
                status.message
            );
            Ok(())
        }
        result => result.map(drop),
    }
}

fn rejected(status: &ttrpc::Status) -> bool {
    use ttrpc::Code;
    matches!(
        status.code.enum_value(),
        Ok(Code::INVALID_ARGUMENT | Code::UNIMPLEMENTED | Code::NOT_FOUND)
    )
}

fn timeout() -> Context {
    context::with_duration(DELIVERY)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Mutex;

    use async_trait::async_trait;
    use containerd_shim_protos::api::Empty;
    use containerd_shim_protos::events::task::TaskOOM;
    use containerd_shim_protos::shim_async::{Events, create_events};
    use ttrpc::r#async::{Server, TtrpcContext};

    use super::*;

    /// containerd's side: keeps what it is sent, and refuses one container's as malformed.
    #[derive(Default)]
    struct Containerd {
        seen: Mutex<Vec<String>>,
    }

    #[async_trait]
    impl Events for Containerd {
        async fn forward(&self, _: &TtrpcContext, request: ForwardRequest) -> ttrpc::Result<Empty> {
            let event = TaskOOM::parse_from_bytes(&request.envelope.event.value).unwrap();
            if event.container_id == "malformed" {
                return Err(ttrpc::Error::RpcStatus(ttrpc::get_status(
                    ttrpc::Code::INVALID_ARGUMENT,
                    "malformed",
                )));
            }
            self.seen.lock().unwrap().push(event.container_id);
            Ok(Empty::default())
        }
    }

    async fn serve(socket: &Path, containerd: &Arc<Containerd>) -> Server {
        let service = create_events(Arc::clone(containerd) as Arc<dyn Events + Send + Sync>);
        let address = format!("unix://{}", socket.display());
        let mut server = Server::new().bind(&address).unwrap().register_service(service);
        server.start().await.unwrap();
        server
    }

    fn publish(publisher: &Publisher, container: &str) {
        publisher.publish(
            OOM,
            &TaskOOM {
                container_id: container.to_owned(),
                ..TaskOOM::default()
            },
        );
    }

    #[test]
    fn nothing_accepted_is_lost_or_reordered_while_containerd_is_away() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let socket = dir.path().join("s");
            let containerd = Arc::new(Containerd::default());
            let publisher = Publisher::new(socket.display().to_string(), "n".to_owned());

            let mut server = serve(&socket, &containerd).await;
            publish(&publisher, "1");
            publisher.delivered().await;
            server.shutdown().await.unwrap();
            drop(server);
            std::fs::remove_file(&socket).unwrap();

            for container in ["2", "malformed", "3"] {
                publish(&publisher, container);
            }
            let while_away = tokio::time::timeout(Duration::from_millis(300), publisher.delivered());
            assert!(while_away.await.is_err());

            let _server = serve(&socket, &containerd).await;
            tokio::time::timeout(Duration::from_secs(20), publisher.delivered())
                .await
                .unwrap();
            assert_eq!(*containerd.seen.lock().unwrap(), ["1", "2", "3"]);
        });
    }
}
