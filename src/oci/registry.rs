//! Reading from a registry: the pull half of <https://github.com/opencontainers/distribution-spec>.
//!
//! Everything that a registry answers is untrusted: each answer is bounded, each document and blob is hashed, a
//! list of pages ends, and credentials go to nobody but the registry and the token service that it names.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use docker_credential::{CredentialRetrievalError, DockerCredential};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use http_auth::ChallengeRef;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LINK, RETRY_AFTER, WWW_AUTHENTICATE,
};
use reqwest::{Response, StatusCode, Url};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::{Descriptor, Index, MAX_DOCUMENT, Reference, is_index, is_manifest, shorten};
use crate::digest::Digest;

/// Most referrers of one digest, all pages together.
pub const MAX_REFERRERS: usize = 4096;
/// Most pages of one list of referrers.
pub const MAX_PAGES: usize = 256;
/// Largest answer of a token service in bytes.
const MAX_TOKEN: u64 = 1 << 20;
/// Most bytes of an error that a registry explains itself with.
const MAX_EXPLANATION: u64 = 64 << 10;
/// Largest docker configuration in bytes.
const MAX_DOCKER_CONFIG: u64 = 1 << 20;
/// How often a request is sent when it fails in a way that may pass.
const MAX_TRIES: u32 = 4;
/// Longest wait between two tries, whatever the registry asks for.
const MAX_WAIT: Duration = Duration::from_secs(20);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest silence of a registry.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest answer: a registry that sends a byte a second is none.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(300);

const ANY_MANIFEST: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_HUB: &str = "docker.io";
/// Where Docker Hub's registry really is.
const DOCKER_HUB_HOST: &str = "registry-1.docker.io";
/// Under which name `docker login` keeps the password for Docker Hub.
const DOCKER_HUB_LOGIN: &str = "https://index.docker.io/v1/";

/// Why something cannot be had from a registry.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The HTTP client cannot be made.
    #[error("no HTTPS client can be set up: {0}; are there CA certificates on this machine (package ca-certificates)?")]
    Client(String),
    /// No answer.
    #[error("{registry} cannot be reached: {reason}; check the name and the network{hint}")]
    Unreachable {
        /// Which registry.
        registry: String,
        /// What the network said.
        reason: String,
        /// What else it may be.
        hint: &'static str,
    },
    /// The docker configuration cannot be used.
    #[error("the credentials for {registry} cannot be read from {}: {reason}", path.display())]
    Credentials {
        /// Which registry.
        registry: String,
        /// The docker configuration.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The registry wants a login, or another one.
    #[error(
        "{registry} does not let {who} read {repository}; run: docker login {registry}, or check that the repository exists"
    )]
    Unauthorized {
        /// Which registry.
        registry: String,
        /// Which repository.
        repository: String,
        /// With which credentials it was tried.
        who: &'static str,
    },
    /// The registry asks for a login in a way that is not understood or not safe.
    #[error("{registry} asks for a login in a way that is not supported: {reason}")]
    Challenge {
        /// Which registry.
        registry: String,
        /// What is wrong.
        reason: String,
    },
    /// An error of the registry's own.
    #[error("{registry} answers {status} for {path}{explanation}")]
    Status {
        /// Which registry.
        registry: String,
        /// HTTP status.
        status: StatusCode,
        /// What was asked for.
        path: String,
        /// What the registry says about it.
        explanation: String,
    },
    /// An answer is larger than what is accepted.
    #[error("{registry} answers {path} with more than the {limit} bytes that are accepted")]
    TooLarge {
        /// Which registry.
        registry: String,
        /// What was asked for.
        path: String,
        /// The limit.
        limit: u64,
    },
    /// An answer is not what it should be.
    #[error("{registry} answers {path} with something unusable: {reason}")]
    Malformed {
        /// Which registry.
        registry: String,
        /// What was asked for.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// Other content than was asked for.
    #[error("{registry} answers {path} with other content: its digest is {found}")]
    Digest {
        /// Which registry.
        registry: String,
        /// What was asked for.
        path: String,
        /// What came.
        found: Digest,
    },
    /// A list that does not end.
    #[error("{registry} lists more than {limit} {what} of {subject}")]
    TooMany {
        /// Which registry.
        registry: String,
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: usize,
        /// Of what.
        subject: Digest,
    },
}

/// An HTTPS client for registries.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    plain: bool,
}

/// One repository of a registry.
pub struct Repository {
    http: reqwest::Client,
    plain: bool,
    base: Url,
    registry: String,
    name: String,
    credential: Option<DockerCredential>,
    authorization: Mutex<Option<HeaderValue>>,
}

impl fmt::Debug for Repository {
    /// Without credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.name)
    }
}

/// A manifest or index as the registry has it.
#[derive(Debug, Clone)]
pub struct Document {
    /// Media type, digest and size of it.
    pub descriptor: Descriptor,
    /// Its bytes, which have that digest.
    pub bytes: Vec<u8>,
}

/// What a registry answered.
struct Answer {
    headers: HeaderMap,
    bytes: Vec<u8>,
}

impl Client {
    /// A client that speaks HTTPS, or HTTP where `plain` says so.
    ///
    /// # Errors
    /// [`RegistryError::Client`].
    pub fn new(plain: bool) -> Result<Self, RegistryError> {
        let http = http()?
            .https_only(!plain)
            .read_timeout(READ_TIMEOUT)
            .timeout(ANSWER_TIMEOUT)
            .build()
            .map_err(|error| RegistryError::Client(innermost(&error)))?;
        Ok(Self { http, plain })
    }

    /// The repository that `reference` is in, with the credentials that `docker login` left for it.
    ///
    /// # Errors
    /// [`RegistryError::Credentials`]; [`RegistryError::Malformed`] for a registry that is no host name.
    pub fn repository(&self, reference: &Reference) -> Result<Repository, RegistryError> {
        let registry = reference.registry();
        let host = if registry == DOCKER_HUB {
            DOCKER_HUB_HOST
        } else {
            registry
        };
        let scheme = if self.plain { "http" } else { "https" };
        let base = Url::parse(&format!("{scheme}://{host}/v2/{}/", reference.repository())).map_err(|error| {
            RegistryError::Challenge {
                registry: registry.to_owned(),
                reason: error.to_string(),
            }
        })?;
        Ok(Repository {
            http: self.http.clone(),
            plain: self.plain,
            base,
            registry: registry.to_owned(),
            name: reference.repository().to_owned(),
            credential: credential(registry)?,
            authorization: Mutex::new(None),
        })
    }
}

impl Repository {
    /// The manifest or index with this tag; `None` when there is none.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn tagged(&self, tag: &str) -> Result<Option<Document>, RegistryError> {
        self.document(tag).await
    }

    /// The manifest or index with this digest; `None` when there is none.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn manifest(&self, digest: Digest) -> Result<Option<Document>, RegistryError> {
        let path = format!("manifests/{digest}");
        let document = self.document(&digest.to_string()).await?;
        match &document {
            Some(document) if document.descriptor.digest != digest => {
                Err(self.other_content(&path, document.descriptor.digest))
            }
            _ => Ok(document),
        }
    }

    /// The bytes of a blob; `None` when there is none. The caller has checked its size.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn blob(&self, descriptor: &Descriptor) -> Result<Option<Vec<u8>>, RegistryError> {
        let path = format!("blobs/{}", descriptor.digest);
        let Some(Answer { bytes, .. }) = self.get(self.url(&path)?, "*/*", descriptor.size).await? else {
            return Ok(None);
        };
        let found = Digest::of(&bytes);
        if found != descriptor.digest {
            return Err(self.other_content(&path, found));
        }
        Ok(Some(bytes))
    }

    /// What says that it is about `subject`; `None` when the registry keeps no such lists.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn referrers(&self, subject: Digest) -> Result<Option<Vec<Descriptor>>, RegistryError> {
        let path = format!("referrers/{subject}");
        let mut url = self.url(&path)?;
        let mut referrers = Vec::new();
        for page in 0..MAX_PAGES {
            let answer = match self.get(url.clone(), super::INDEX, MAX_DOCUMENT).await {
                Ok(Some(answer)) if is_index(&content_type(&answer.headers)) => answer,
                // Registries that know no such list say so in many ways.
                Ok(_) if page == 0 => return Ok(None),
                Err(RegistryError::Status { status, .. }) if page == 0 && status.is_client_error() => return Ok(None),
                Ok(_) => return Err(self.malformed(&path, "a page of it is missing")),
                Err(error) => return Err(error),
            };
            let index = Index::parse(&answer.bytes, &content_type(&answer.headers))
                .map_err(|error| self.malformed(&path, error))?;
            referrers.extend(index.manifests);
            if referrers.len() > MAX_REFERRERS {
                return Err(self.too_many("referrers", MAX_REFERRERS, subject));
            }
            match next_page(&answer.headers) {
                Some(next) => {
                    let next = url.join(&next).map_err(|error| self.malformed(&path, error))?;
                    // The next request carries the credentials of this one.
                    if next.origin() != url.origin() {
                        return Err(self.malformed(&path, "its next page is on another host"));
                    }
                    url = next;
                }
                None => return Ok(Some(referrers)),
            }
        }
        Err(self.too_many("pages of referrers", MAX_PAGES, subject))
    }

    async fn document(&self, reference: &str) -> Result<Option<Document>, RegistryError> {
        let path = format!("manifests/{reference}");
        let Some(Answer { headers, bytes }) = self.get(self.url(&path)?, ANY_MANIFEST, MAX_DOCUMENT).await? else {
            return Ok(None);
        };
        let media_type = content_type(&headers);
        if !is_manifest(&media_type) && !is_index(&media_type) {
            let reason = format!("'{}' is not the media type of a manifest", shorten(&media_type));
            return Err(self.malformed(&path, reason));
        }
        let descriptor = Descriptor {
            media_type,
            digest: Digest::of(&bytes),
            size: bytes.len() as u64,
            annotations: std::collections::BTreeMap::new(),
            artifact_type: None,
            platform: None,
        };
        Ok(Some(Document { descriptor, bytes }))
    }

    /// Asks until there is an answer that more asking would not change. `None` is 404.
    async fn get(&self, url: Url, accept: &str, limit: u64) -> Result<Option<Answer>, RegistryError> {
        let mut tries = 1;
        let mut logged_in = false;
        loop {
            let authorization = self.authorization.lock().await.clone();
            let mut request = self.http.get(url.clone()).header(ACCEPT, accept);
            if let Some(authorization) = &authorization {
                request = request.header(AUTHORIZATION, authorization);
            }
            let response = match request.send().await {
                Ok(response) => response,
                Err(error) if tries < MAX_TRIES && !error.is_connect() && !error.is_builder() => {
                    tries += 1;
                    wait(tries, None).await;
                    continue;
                }
                Err(error) => return Err(self.unreachable(&error)),
            };
            let status = response.status();
            match status {
                StatusCode::OK => match self.read(response, limit).await {
                    Err(RegistryError::Unreachable { .. }) if tries < MAX_TRIES => {
                        tries += 1;
                        wait(tries, None).await;
                    }
                    answer => return answer.map(Some),
                },
                StatusCode::NOT_FOUND => return Ok(None),
                StatusCode::UNAUTHORIZED if !logged_in => {
                    self.log_in(response.headers(), authorization.as_ref()).await?;
                    logged_in = true;
                }
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Err(self.unauthorized()),
                status
                    if tries < MAX_TRIES && (status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()) =>
                {
                    tries += 1;
                    wait(tries, response.headers().get(RETRY_AFTER)).await;
                }
                status => {
                    let explanation = match self.read(response, MAX_EXPLANATION).await {
                        Ok(answer) => explanation(&answer.bytes),
                        Err(_) => String::new(),
                    };
                    return Err(RegistryError::Status {
                        registry: self.registry.clone(),
                        status,
                        path: url.path().to_owned(),
                        explanation,
                    });
                }
            }
        }
    }

    async fn read(&self, mut response: Response, limit: u64) -> Result<Answer, RegistryError> {
        let mut bytes = Vec::new();
        let headers = std::mem::take(response.headers_mut());
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(&error))? {
            if (bytes.len() + chunk.len()) as u64 > limit {
                return Err(RegistryError::TooLarge {
                    registry: self.registry.clone(),
                    path: response.url().path().to_owned(),
                    limit,
                });
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(Answer { headers, bytes })
    }

    /// Gets what the registry's 401 asks for, unless another request did since `used` was sent.
    async fn log_in(&self, headers: &HeaderMap, used: Option<&HeaderValue>) -> Result<(), RegistryError> {
        let mut authorization = self.authorization.lock().await;
        if authorization.as_ref() != used {
            return Ok(());
        }
        let header: Vec<&str> = headers
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .collect();
        let header = header.join(", ");
        let challenges =
            http_auth::parse_challenges(&header).map_err(|_| self.challenge("its challenge cannot be read"))?;
        let find = |scheme: &str| challenges.iter().find(|c| c.scheme.eq_ignore_ascii_case(scheme));
        let value = if let Some(bearer) = find("Bearer") {
            format!("Bearer {}", self.token(bearer).await?)
        } else if find("Basic").is_some() {
            let Some(DockerCredential::UsernamePassword(user, password)) = &self.credential else {
                return Err(self.unauthorized());
            };
            use base64::Engine as _;
            let pair = base64::prelude::BASE64_STANDARD.encode(format!("{user}:{password}"));
            format!("Basic {pair}")
        } else {
            return Err(self.challenge("it offers neither Bearer nor Basic"));
        };
        let mut value = HeaderValue::from_str(&value).map_err(|_| self.challenge("its token is not printable"))?;
        value.set_sensitive(true);
        *authorization = Some(value);
        Ok(())
    }

    /// A token for reading this repository, as <https://distribution.github.io/distribution/spec/auth/token/> says.
    async fn token(&self, challenge: &ChallengeRef<'_>) -> Result<String, RegistryError> {
        #[derive(Deserialize)]
        struct Reply {
            token: Option<String>,
            access_token: Option<String>,
        }
        let parameter = |name: &str| {
            let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.to_unescaped())
        };
        let realm = parameter("realm").ok_or_else(|| self.challenge("it names no token service"))?;
        let mut url = Url::parse(&realm).map_err(|_| self.challenge("its token service has no address"))?;
        if url.scheme() != "https" && !(self.plain && url.scheme() == "http") {
            return Err(self.challenge("its token service does not speak HTTPS"));
        }
        let scope = format!("repository:{}:pull", self.name);
        let service = parameter("service");
        let request = if let Some(DockerCredential::IdentityToken(token)) = &self.credential {
            let form = [
                ("grant_type", "refresh_token"),
                ("client_id", "assay"),
                ("refresh_token", token),
                ("scope", &scope),
                ("service", service.as_deref().unwrap_or_default()),
            ];
            self.http.post(url).form(&form)
        } else {
            url.query_pairs_mut().append_pair("scope", &scope);
            if let Some(service) = &service {
                url.query_pairs_mut().append_pair("service", service);
            }
            let request = self.http.get(url);
            match &self.credential {
                Some(DockerCredential::UsernamePassword(user, password)) => request.basic_auth(user, Some(password)),
                _ => request,
            }
        };
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        match response.status() {
            StatusCode::OK => {}
            status if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS => {
                return Err(self.unauthorized());
            }
            status => return Err(self.challenge(format!("its token service answers {status}"))),
        }
        let Answer { bytes, .. } = self.read(response, MAX_TOKEN).await?;
        // The parser's words could repeat the token.
        let reply: Reply =
            serde_json::from_slice(&bytes).map_err(|_| self.challenge("its token service answers with no token"))?;
        reply
            .token
            .or(reply.access_token)
            .filter(|token| !token.is_empty())
            .ok_or_else(|| self.challenge("its token service answers with no token"))
    }

    fn url(&self, path: &str) -> Result<Url, RegistryError> {
        self.base.join(path).map_err(|error| self.malformed(path, error))
    }

    fn unreachable(&self, error: &reqwest::Error) -> RegistryError {
        RegistryError::Unreachable {
            registry: self.registry.clone(),
            reason: shorten(&innermost(error)),
            hint: if error.is_connect() && !self.plain {
                ", whether this machine trusts its certificate (SSL_CERT_FILE names a file with other authorities), and \
                 whether it speaks HTTPS at all (else: --plain-http)"
            } else {
                ""
            },
        }
    }

    fn unauthorized(&self) -> RegistryError {
        RegistryError::Unauthorized {
            registry: self.registry.clone(),
            repository: self.name.clone(),
            who: match self.credential {
                Some(_) => "the user that docker is logged in as",
                None => "someone without a login",
            },
        }
    }

    fn challenge(&self, reason: impl Into<String>) -> RegistryError {
        RegistryError::Challenge {
            registry: self.registry.clone(),
            reason: reason.into(),
        }
    }

    fn malformed(&self, path: &str, reason: impl fmt::Display) -> RegistryError {
        RegistryError::Malformed {
            registry: self.registry.clone(),
            path: format!("{}/{path}", self.name),
            reason: reason.to_string(),
        }
    }

    fn other_content(&self, path: &str, found: Digest) -> RegistryError {
        RegistryError::Digest {
            registry: self.registry.clone(),
            path: format!("{}/{path}", self.name),
            found,
        }
    }

    fn too_many(&self, what: &'static str, limit: usize, subject: Digest) -> RegistryError {
        RegistryError::TooMany {
            registry: self.registry.clone(),
            what,
            limit,
            subject,
        }
    }
}

/// A client of HTTP that says who it is, and finds hosts without the C library.
pub(crate) fn http() -> Result<reqwest::ClientBuilder, RegistryError> {
    let names = Names::new().map_err(|error| RegistryError::Client(innermost(&error)))?;
    Ok(reqwest::Client::builder()
        .user_agent(concat!("assay/", env!("CARGO_PKG_VERSION")))
        .referer(false)
        .connect_timeout(CONNECT_TIMEOUT)
        .dns_resolver(Arc::new(names)))
}

/// Finds hosts by `/etc/hosts` and the name servers of `/etc/resolv.conf`.
#[derive(Clone)]
struct Names(TokioResolver);

impl Names {
    fn new() -> Result<Self, hickory_resolver::net::NetError> {
        // Without resolv.conf there is no name server; asking somebody else's would tell him what runs here.
        let mut builder = TokioResolver::builder_tokio().unwrap_or_else(|_| {
            TokioResolver::builder_with_config(ResolverConfig::default(), TokioRuntimeProvider::default())
        });
        builder.options_mut().ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        Ok(Self(builder.build()?))
    }
}

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let Self(resolver) = self.clone();
        Box::pin(async move {
            let found = resolver.lookup_ip(name.as_str()).await?;
            let addresses: Vec<_> = found.iter().map(|address| SocketAddr::new(address, 0)).collect();
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// What `docker login` keeps for `registry`.
fn credential(registry: &str) -> Result<Option<DockerCredential>, RegistryError> {
    let folder = match (std::env::var_os("DOCKER_CONFIG"), std::env::var_os("HOME")) {
        (Some(folder), _) if !folder.is_empty() => PathBuf::from(folder),
        (_, Some(home)) => PathBuf::from(home).join(".docker"),
        _ => return Ok(None),
    };
    let path = folder.join("config.json");
    let failed = |reason: String| RegistryError::Credentials {
        registry: registry.to_owned(),
        path: path.clone(),
        reason: shorten(&reason),
    };
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error.to_string())),
    };
    let login = if registry == DOCKER_HUB {
        DOCKER_HUB_LOGIN
    } else {
        registry
    };
    match docker_credential::get_credential_from_reader(file.take(MAX_DOCKER_CONFIG), login) {
        Ok(credential) => Ok(Some(credential)),
        Err(CredentialRetrievalError::NoCredentialConfigured) => Ok(None),
        // The protocol of credential helpers has no other way to say it:
        // https://github.com/docker/docker-credential-helpers/blob/master/credentials/error.go
        Err(CredentialRetrievalError::HelperFailure { stdout, .. })
            if stdout.trim() == "credentials not found in native keychain" =>
        {
            Ok(None)
        }
        // Of what a helper says nothing is repeated: it may be the password.
        Err(CredentialRetrievalError::HelperFailure { helper, .. }) => Err(failed(format!("{helper} failed"))),
        Err(error) => Err(failed(error.to_string())),
    }
}

async fn wait(tries: u32, asked: Option<&HeaderValue>) {
    let asked = asked
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .map(Duration::from_secs);
    let wait = asked.unwrap_or_else(|| Duration::from_millis(250) * 2_u32.pow(tries));
    tokio::time::sleep(wait.min(MAX_WAIT)).await;
}

/// The media type without its parameters.
fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let value = value.unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_owned()
}

/// The address of the next page in a header as RFC 8288 defines it.
fn next_page(headers: &HeaderMap) -> Option<String> {
    headers
        .get_all(LINK)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .find_map(|link| {
            let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
            let is_next = |parameter: &str| {
                let (name, value) = parameter.split_once('=').unwrap_or_default();
                name.trim().eq_ignore_ascii_case("rel") && value.trim().trim_matches('"') == "next"
            };
            parameters.split(';').any(is_next).then(|| target.to_owned())
        })
}

/// What a registry says about an error, in brackets.
fn explanation(bytes: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<One>,
    }
    #[derive(Deserialize)]
    struct One {
        code: String,
        #[serde(default)]
        message: String,
    }
    let Ok(Errors { errors }) = serde_json::from_slice(bytes) else {
        return String::new();
    };
    errors
        .first()
        .map(|One { code, message }| format!(" ({}: {})", shorten(code), shorten(message)))
        .unwrap_or_default()
}

/// The error at the end of the chain: the others only repeat what was tried.
pub(crate) fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
