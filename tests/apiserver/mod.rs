//! A cluster, as far as what runs in a pod can see.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// An API server and what a pod has of it.
pub struct Cluster {
    pub folder: TempDir,
    server: Child,
    port: String,
}

impl Cluster {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name).display().to_string();
        let script = r#"
            cd "$0"
            openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=cluster -keyout ca.key -out ca.crt
            openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=kubernetes -keyout key -out request
            printf 'subjectAltName=IP:127.0.0.1\n' >names
            openssl x509 -req -in request -CA ca.crt -CAkey ca.key -CAcreateserial -extfile names -out crt
            mkdir credentials && cp ca.crt credentials && printf secret >credentials/token
            chmod 755 . credentials && chmod 644 credentials/*
        "#;
        let mut openssl = Command::new("sh");
        let made = openssl.args(["-ec", script]).arg(folder.path()).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut server = Command::new("python3");
        server
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/apiserver/server.py"))
            .args([place("crt"), place("key"), "secret".to_owned(), place("log")])
            .stdout(Stdio::piped());
        let mut server = server.spawn().unwrap();
        let mut port = String::new();
        BufReader::new(server.stdout.take().unwrap())
            .read_line(&mut port)
            .unwrap();
        Self {
            folder,
            server,
            port: port.trim().to_owned(),
        }
    }

    /// `assay node …` as the DaemonSet's other containers run it: nobody, with nothing but the credentials.
    pub fn step(&self, arguments: &str) -> Command {
        let script = format!(
            "mount -t tmpfs tmpfs /run && mkdir -p /run/secrets/kubernetes.io/serviceaccount &&
             mount --bind -o ro {} /run/secrets/kubernetes.io/serviceaccount &&
             exec setpriv --reuid 65532 --regid 65532 --clear-groups --bounding-set=-all --no-new-privs {} node {arguments}",
            self.folder.path().join("credentials").display(),
            env!("CARGO_BIN_EXE_assay"),
        );
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", &script])
            .env("NODE_NAME", "worker-1.example")
            .env("KUBERNETES_SERVICE_HOST", "127.0.0.1")
            .env("KUBERNETES_SERVICE_PORT", &self.port);
        command
    }

    /// What the server was asked, a line each.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Has the server answer with this status from now on, or as it should.
    pub fn answer(&self, status: Option<u16>) {
        let file = self.folder.path().join("log.status");
        match status {
            Some(status) => fs::write(file, status.to_string()).unwrap(),
            None => fs::remove_file(file).unwrap(),
        }
    }

    /// What the server was asked, and forgets.
    pub fn asked(&self) -> String {
        let said = self.log();
        drop(fs::remove_file(self.folder.path().join("log")));
        said
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.server.kill());
        drop(self.server.wait());
    }
}
