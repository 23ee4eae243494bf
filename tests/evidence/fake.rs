//! A registry of which the test decides every answer: what real ones do that the one in `target/tools` does not.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use assay::digest::Digest;
use serde_json::{Value, json};

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// How a client has to log in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Login {
    None,
    Basic,
    Bearer,
}

#[derive(Clone)]
pub struct Answer {
    pub status: &'static str,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

pub struct State {
    pub answers: HashMap<String, Answer>,
    /// Answers for the first requests of a path, before `answers` counts.
    pub first: HashMap<String, Vec<Answer>>,
    pub login: Login,
    /// Request lines and what they were authorised with.
    pub log: Vec<(String, Option<String>)>,
}

pub struct Fake {
    pub address: SocketAddr,
    pub state: Arc<Mutex<State>>,
}

/// `user:password` as the Basic scheme has it.
pub const BASIC: &str = "Basic dXNlcjpwYXNzd29yZA==";
const TOKEN: &str = "Bearer a-token";

impl Answer {
    pub fn of(media_type: &str, body: &[u8]) -> Self {
        Self {
            status: "200 OK",
            headers: vec![("Content-Type", media_type.to_owned())],
            body: body.to_vec(),
        }
    }

    pub fn status(status: &'static str) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }
}

impl Fake {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State {
            answers: HashMap::new(),
            first: HashMap::new(),
            login: Login::None,
            log: Vec::new(),
        }));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                // A client that goes away is its own affair.
                std::thread::spawn(move || serve(stream, address, &shared).ok());
            }
        });
        Self { address, state }
    }

    pub fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.address)
    }

    pub fn set(&self, path: &str, answer: Answer) {
        self.state.lock().unwrap().answers.insert(path.to_owned(), answer);
    }

    pub fn requests(&self) -> Vec<String> {
        self.state
            .lock()
            .unwrap()
            .log
            .iter()
            .map(|(line, _)| line.clone())
            .collect()
    }

    pub fn forget(&self) {
        self.state.lock().unwrap().log.clear();
    }

    /// Puts a blob into a repository and returns its descriptor.
    pub fn blob(&self, repository: &str, media_type: &str, bytes: &[u8]) -> Value {
        let digest = Digest::of(bytes);
        self.set(
            &format!("/v2/{repository}/blobs/{digest}"),
            Answer::of("application/octet-stream", bytes),
        );
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    }

    /// Puts a manifest or index into a repository and returns its descriptor.
    pub fn document(&self, repository: &str, document: &Value) -> Value {
        let media_type = document["mediaType"].as_str().unwrap();
        let bytes = document.to_string();
        let digest = Digest::of(bytes.as_bytes());
        self.set(
            &format!("/v2/{repository}/manifests/{digest}"),
            Answer::of(media_type, bytes.as_bytes()),
        );
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    }

    /// An artifact with one layer.
    pub fn artifact(&self, repository: &str, layer_type: &str, layer: &[u8], subject: Option<&Value>) -> Value {
        let config = self.blob(repository, "application/vnd.oci.empty.v1+json", b"{}");
        let layer = self.blob(repository, layer_type, layer);
        let mut manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]});
        if let Some(subject) = subject {
            manifest["subject"] = subject.clone();
        }
        self.document(repository, &manifest)
    }

    /// An image of which nothing but the manifest exists.
    pub fn image(&self, repository: &str, name: &str) -> Value {
        let absent = |what: &str, media_type: &str| {
            let bytes = format!("{what} of {name}");
            json!({"mediaType": media_type, "digest": Digest::of(bytes.as_bytes()), "size": bytes.len()})
        };
        self.document(
            repository,
            &json!({
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": absent("configuration", "application/vnd.oci.image.config.v1+json"),
                "layers": [absent("layer", "application/vnd.oci.image.layer.v1.tar+gzip")],
            }),
        )
    }

    pub fn index(&self, repository: &str, manifests: &[Value]) -> Value {
        self.document(
            repository,
            &json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}),
        )
    }

    pub fn tag(&self, repository: &str, tag: &str, descriptor: &Value) {
        let mut state = self.state.lock().unwrap();
        let path = format!("/v2/{repository}/manifests/{}", descriptor["digest"].as_str().unwrap());
        let answer = state.answers[&path].clone();
        state
            .answers
            .insert(format!("/v2/{repository}/manifests/{tag}"), answer);
    }

    /// What the registry lists about a digest, `page` entries at a time.
    pub fn referrers(&self, repository: &str, subject: &Value, list: &[Value], page: usize) {
        let path = format!("/v2/{repository}/referrers/{}", subject["digest"].as_str().unwrap());
        let pages: Vec<_> = if list.is_empty() {
            vec![list]
        } else {
            list.chunks(page).collect()
        };
        for (number, entries) in pages.iter().enumerate() {
            let body = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).to_string();
            let mut answer = Answer::of(INDEX, body.as_bytes());
            if number + 1 < pages.len() {
                let next = format!("<{path}?page={}>; rel=\"next\"", number + 1);
                answer.headers.push(("Link", next));
            }
            let query = if number == 0 {
                String::new()
            } else {
                format!("?page={number}")
            };
            self.set(&format!("{path}{query}"), answer);
        }
    }
}

fn serve(mut stream: TcpStream, address: SocketAddr, state: &Mutex<State>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut authorization = None;
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').unwrap_or_default();
        if name.eq_ignore_ascii_case("authorization") {
            authorization = Some(value.trim().to_owned());
        }
    }
    let answer = {
        let mut state = state.lock().unwrap();
        state.log.push((path.clone(), authorization.clone()));
        let challenge = match state.login {
            Login::Basic if authorization.as_deref() != Some(BASIC) => Some("Basic realm=\"here\"".to_owned()),
            Login::Bearer if !path.starts_with("/token") && authorization.as_deref() != Some(TOKEN) => Some(format!(
                "Bearer realm=\"http://{address}/token\",service=\"fake, registry\""
            )),
            _ => None,
        };
        if let Some(challenge) = challenge {
            Answer {
                headers: vec![("WWW-Authenticate", challenge)],
                ..Answer::status("401 Unauthorized")
            }
        } else if path.starts_with("/token") {
            if authorization.as_deref() == Some(BASIC) {
                Answer::of("application/json", br#"{"token":"a-token"}"#)
            } else {
                Answer::status("401 Unauthorized")
            }
        } else if let Some(first) = state
            .first
            .get_mut(&path)
            .and_then(|list| (!list.is_empty()).then(|| list.remove(0)))
        {
            first
        } else {
            let none = || Answer::status("404 Not Found");
            state.answers.get(&path).cloned().unwrap_or_else(none)
        }
    };
    let mut head = format!("HTTP/1.1 {}\r\nConnection: close\r\n", answer.status);
    if !answer.headers.iter().any(|(name, _)| *name == "Content-Length") {
        head.push_str(&format!("Content-Length: {}\r\n", answer.body.len()));
    }
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    stream.write_all(&answer.body)
}
