//! Checkpoints: through the OCI runtime and criu, where both can.

use containerd_client::types::v1::Status as State;
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::shim::oci::CheckpointOptions;
use prost_types::Any;

use crate::harness::{Case, on_each_containerd};

on_each_containerd! {
    a_checkpoint_is_made_or_its_failure_explained,
}

/// criu has its own demands on the kernel. Whether it works or not, the container must be as it was.
fn a_checkpoint_is_made_or_its_failure_explained(case: &Case) {
    let container = case
        .container("sleeper", &["/bin/sleep", "1000"])
        .without_streams()
        .start();
    let image = case.daemon.folder.join(case.id("image"));
    std::fs::create_dir(&image).unwrap();
    let options = CheckpointOptions {
        image_path: image.to_str().unwrap().to_owned(),
        work_path: image.to_str().unwrap().to_owned(),
        ..CheckpointOptions::default()
    };
    let result = container.client.checkpoint(
        &container.id,
        Some(Any {
            type_url: "containerd.runc.v1.CheckpointOptions".to_owned(),
            value: options.write_to_bytes().unwrap(),
        }),
    );
    match result {
        Ok(()) => {
            assert!(image.join("inventory.img").exists());
            case.daemon.events.wait(&container.id, "checkpointed");
        }
        Err(status) => {
            println!("criu cannot do it here: {status}");
            assert!(status.message().to_lowercase().contains("criu"), "{status}");
        }
    }
    assert_eq!(container.status(), State::Running);
    assert_eq!(container.run("exec", "exit 3").status, 3);
}
