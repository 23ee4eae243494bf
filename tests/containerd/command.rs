//! The shim's command line, called as containerd calls it, without containerd.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use containerd_shim_protos::api::{ConnectRequest, ConnectResponse, ShutdownRequest};
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::shim::oci::Options;
use containerd_shim_protos::types::introspection::RuntimeInfo;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use tempfile::TempDir;
use tokio::runtime::Builder;
use ttrpc::r#async::Client;

use crate::harness::{eventually, leftovers};

const SHIM: &str = env!("CARGO_BIN_EXE_containerd-shim-assay-v1");

/// A bundle as containerd leaves it for `start`.
struct Bundle {
    folder: TempDir,
    /// containerd opens it before it starts a shim.
    _log: File,
}

impl Bundle {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        fs::write(
            folder.path().join("config.json"),
            r#"{"ociVersion":"1.0.2","annotations":{}}"#,
        )
        .unwrap();
        let home = folder.path().join("assay");
        for name in ["", "state", "run", "policy.d", "trust.d"] {
            fs::DirBuilder::new().mode(0o700).create(home.join(name)).unwrap();
        }
        let dir = home.display();
        let text =
            format!("state = '{dir}/state'\nrun = '{dir}/run'\npolicy = '{dir}/policy.d'\ntrust = '{dir}/trust.d'\n");
        fs::write(home.join("config.toml"), text).unwrap();
        let log = folder.path().join("log");
        mknodat(CWD, &log, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        let log = OpenOptions::new().read(true).write(true).open(log).unwrap();
        Self { folder, _log: log }
    }

    fn call(&self, arguments: &[&str], input: &[u8]) -> Output {
        let missing = self.folder.path().join("no-containerd.sock");
        let mut child = Command::new(SHIM)
            .args(["-namespace", "default", "-address"])
            .arg(&missing)
            .args(arguments)
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("TTRPC_ADDRESS", missing.with_extension("ttrpc"))
            .env("ASSAY_CONFIG", self.folder.path().join("assay/config.toml"))
            .env("MAX_SHIM_VERSION", "2")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        child.wait_with_output().unwrap()
    }
}

/// Calls a method of the shim's task service, in the version of the API that every containerd speaks.
fn task_call(socket: &Path, method: &str, request: &impl Message) -> Vec<u8> {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = Client::connect(&format!("unix://{}", socket.display())).await.unwrap();
        let request = ttrpc::Request {
            service: "containerd.task.v2.Task".to_owned(),
            method: method.to_owned(),
            payload: request.write_to_bytes().unwrap(),
            timeout_nano: 10_000_000_000,
            ..ttrpc::Request::default()
        };
        client.request(request).await.unwrap().payload
    })
}

/// Starts a shim with this input and sees it through to its end.
fn starts_with(input: &[u8]) {
    let bundle = Bundle::new();
    let started = bundle.call(&["-id", "web", "start"], input);
    assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
    // containerd reads both streams together: one stray byte and it has no address.
    assert_eq!(String::from_utf8_lossy(&started.stderr), "");
    let address = String::from_utf8(started.stdout).unwrap();
    let socket = PathBuf::from(address.strip_prefix("unix://").unwrap_or_else(|| panic!("{address:?}")));
    assert!(
        socket.is_absolute() && socket.to_str().unwrap().len() < 107,
        "{address:?}"
    );
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);

    // Asked again, for the same group of containers, it names the shim that runs.
    let again = bundle.call(&["-id", "web", "start"], input);
    assert_eq!(String::from_utf8(again.stdout).unwrap(), address);

    let connected = task_call(&socket, "Connect", &ConnectRequest::new());
    let shim = ConnectResponse::parse_from_bytes(&connected).unwrap().shim_pid;
    assert!(leftovers::alive(shim));
    task_call(&socket, "Shutdown", &ShutdownRequest::new());
    eventually("the shim to end", || {
        let left = leftovers::alive(shim) || socket.exists();
        if left {
            Err(format!("{:?}", leftovers::command_line(shim)))
        } else {
            Ok(())
        }
    });
}

#[test]
fn start_with_nothing_on_standard_input() {
    starts_with(b"");
}

/// What containerd up to 2.2 writes: options, or nothing.
#[test]
fn start_with_options() {
    starts_with(b"\x0a\x1acontainerd.runc.v1.Options\x12\x06\x32\x04runc");
}

/// What containerd 2.3 writes; no Debian package of it exists to try.
#[test]
fn start_with_bootstrap_parameters() {
    starts_with(
        b"\x0a\x03web\x12\x07default\x22\x06v2.3.4\x2a\x25/run/containerd/containerd.sock.ttrpc\
\x32\x1f/run/containerd/containerd.sock\x3a\x13/usr/bin/containerd",
    );
}

#[test]
fn start_fails_aloud() {
    let bundle = Bundle::new();
    fs::remove_file(bundle.folder.path().join("config.json")).unwrap();
    let output = bundle.call(&["-id", "web", "start"], b"");
    // An empty answer and success would be read as an address from containerd 2.3 on.
    assert!(!output.status.success() && output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).contains("config.json"));
}

#[test]
fn an_identifier_is_no_path() {
    let output = Bundle::new().call(&["-id", "../web", "start"], b"");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("../web"));
}

/// Nothing is left of this container, and containerd still wants an answer.
#[test]
fn delete_of_what_is_gone() {
    let bundle = Bundle::new();
    let path = bundle.folder.path().to_str().unwrap().to_owned();
    let output = bundle.call(&["-id", "web", "-bundle", &path, "delete"], b"");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer = containerd_shim_protos::api::DeleteResponse::parse_from_bytes(&output.stdout).unwrap();
    assert_eq!(answer.exit_status, 137);
    assert!(answer.exited_at.seconds > 0);
}

#[test]
fn version() {
    let output = Command::new(SHIM).arg("-v").output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty());
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .contains(env!("CARGO_PKG_VERSION"))
    );
}

/// The features are those of the OCI runtime that the options name, word for word.
#[test]
fn info_tells_the_features_of_the_oci_runtime() {
    let options = Options {
        binary_name: "runc".to_owned(),
        ..Options::default()
    };
    let any = containerd_shim_protos::protobuf::well_known_types::any::Any {
        type_url: "containerd.runc.v1.Options".to_owned(),
        value: options.write_to_bytes().unwrap(),
        ..Default::default()
    };
    let features = Command::new("runc").arg("features").output().unwrap().stdout;
    let features: serde_json::Value = serde_json::from_slice(&features).unwrap();
    for input in [any.write_to_bytes().unwrap(), Vec::new()] {
        let output = Bundle::new().call(&["-info"], &input);
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let info = RuntimeInfo::parse_from_bytes(&output.stdout).unwrap();
        assert_eq!(info.name, "io.containerd.assay.v1");
        assert!(
            info.features
                .type_url
                .ends_with("opencontainers/runtime-spec/1/features/Features")
        );
        let told: serde_json::Value = serde_json::from_slice(&info.features.value).unwrap();
        assert_eq!(told, features);
    }
}
