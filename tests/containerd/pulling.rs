//! Assay as containerd's image verifier plugin: what is refused before it is pulled.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use containerd_client::tonic::Status;
use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::{ImageSpec, PullImageRequest};

use crate::harness::daemon::{DENIED, UNSIGNED, set_up};
use crate::harness::{Daemon, Version, eventually, needs_assay};

/// The registry that `make setup` installs; dropping it ends it.
struct Registry {
    child: Child,
    address: String,
}

impl Registry {
    fn start(folder: &Path) -> Self {
        let (file, log) = (folder.join("registry.yml"), folder.join("registry.log"));
        let storage = folder.join("registry");
        let configuration = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: '127.0.0.1:0', secret: tests}}\n",
            storage.display()
        );
        fs::write(&file, configuration).unwrap();
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/registry/bin/docker-registry");
        let out = fs::File::create(&log).unwrap();
        let child = Command::new(program)
            .arg("serve")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .expect("docker-registry is not in target/tools: run `make setup`");
        let mut registry = Self {
            child,
            address: String::new(),
        };
        eventually("the registry", || {
            let said = fs::read_to_string(&log).unwrap();
            let (_, after) = said.split_once("listening on ").ok_or_else(|| said.clone())?;
            let end = after.find(['"', ',', ' ', '\n']).unwrap_or(after.len());
            after[..end].clone_into(&mut registry.address);
            Ok::<(), String>(())
        });
        registry
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether `ctr` pulls it, and what it says.
fn pull(daemon: &Daemon, name: &str) -> (bool, String) {
    let done = daemon.ctr(&daemon.scope, &["images", "pull", "--plain-http", name]);
    let said = [done.stdout, done.stderr].concat();
    (done.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// What a kubelet does.
fn pull_as_kubelet(daemon: &Daemon, name: &str) -> Result<(), Status> {
    let client = daemon.client("k8s.io");
    let request = PullImageRequest {
        image: Some(ImageSpec {
            image: name.to_owned(),
            ..ImageSpec::default()
        }),
        ..PullImageRequest::default()
    };
    let mut images = ImageServiceClient::new(client.channel());
    client.answer(images.pull_image(request)).map(drop)
}

#[test]
fn what_would_be_refused_is_not_even_pulled() {
    if !needs_assay("the image verifier plugin") {
        return;
    }
    let daemon = Daemon::start(Version::V2_1);
    let registry = Registry::start(&daemon.folder);
    let name = |name: &str| format!("{}/{name}:1", registry.address);
    for (local, remote) in [(&UNSIGNED, "unsigned"), (&DENIED, "denied"), (&UNSIGNED, "audited")] {
        let pushed = daemon.ctr(
            &daemon.scope,
            &["images", "push", "--plain-http", &name(remote), &local.name],
        );
        assert!(pushed.status.success(), "{}", String::from_utf8_lossy(&pushed.stderr));
    }
    // With the image of every platform, as publishers do.
    let layout = set_up("images/signed/busybox");
    let copied = Command::new(set_up("tools/oras/bin/oras"))
        .args(["cp", "--from-oci-layout", "--to-plain-http"])
        .arg(format!("{}:latest", layout.display()))
        .arg(name("signed"))
        .env("HOME", &daemon.folder)
        .output()
        .unwrap();
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    let policy = daemon.folder.join("assay/policy.d/50-tests.toml");
    let rules = format!(
        "[[deny]]\ndigest = ['{}']\n\n\
         [[rule]]\nname = 'prod'\nmatch = {{ image = ['{registry}/**'], namespace = ['prod'] }}\nmode = 'enforce'\n\
         [[rule.signature]]\nany = [{{ key = 'release' }}]\n\n\
         [[rule]]\nname = 'tried'\nmatch = {{ image = ['{registry}/audited'] }}\nmode = 'audit'\n\
         [[rule.signature]]\nany = [{{ key = 'release' }}]\n\n",
        DENIED.manifest,
        registry = registry.address
    );
    fs::write(&policy, rules).unwrap();
    let applied = daemon.assay(&["policy", "apply"]);
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));

    let verifiers = daemon.folder.join("verifiers");
    fs::create_dir(&verifiers).unwrap();
    symlink(env!("CARGO_BIN_EXE_assay"), verifiers.join("assay-image-verifier")).unwrap();
    let plugin = format!(
        "[plugins.'io.containerd.image-verifier.v1.bindir']\nbin_dir = '{}'\n",
        verifiers.display()
    );
    let config = daemon.folder.join("containerd.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text}{plugin}")).unwrap();
    daemon.restart(|| {});

    let (is_pulled, said) = pull(&daemon, &name("signed"));
    assert!(is_pulled, "{said}");
    // In a namespace that is not prod only the audit rule applies, which lets it run.
    let (is_pulled, said) = pull(&daemon, &name("audited"));
    assert!(is_pulled, "{said}");
    for (image, code) in [("unsigned", "signature-missing"), ("denied", "digest-denied")] {
        let image = name(image);
        let (is_pulled, said) = pull(&daemon, &image);
        let refusal = format!("assay refused image {image} ");
        assert!(
            !is_pulled && said.contains(&refusal) && said.contains(&format!("{code}: ")),
            "{said}"
        );
        let status = pull_as_kubelet(&daemon, &image).unwrap_err();
        let said = status.message();
        assert!(said.contains(&refusal) && said.contains(&format!("{code}: ")), "{said}");
    }
    pull_as_kubelet(&daemon, &name("signed")).unwrap();
    // Without a policy nothing is pulled, as nothing is started.
    fs::remove_file(daemon.state().join("active/policy.json")).unwrap();
    let (is_pulled, said) = pull(&daemon, &name("signed"));
    assert!(!is_pulled && said.contains("policy-missing"), "{said}");
}
