//! Images that are new on this node, and the process that prepares one after the other.
//!
//! It is a process of its own so that the agent stays small, is never kept waiting, and outlives whatever an image does
//! to it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::pin::Pin;
use std::process::Stdio;
use std::time::Duration;

use containerd_client::types::Envelope;
use tokio::time::Instant;
use tonic::Streaming;

use super::node::{Node, NodeError, Picture};
use super::process::Process;
use super::renewal::Renewal;
use super::tenant::Tenant;
use crate::digest::Digest;
use crate::policy::Kind;

/// How often an image that is not unpacked yet is tried.
const TRIES: u32 = 6;
/// How long after the first try; each time it is twice as long.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The same for a registry that did not give what was asked for.
const FIRST_PULL_WAIT: Duration = Duration::from_secs(30);
/// How `assay evidence pull` ends where the registry has none.
const NOTHING: i32 = 4;
/// How `assay prepare` ends where an image is not unpacked yet.
const EARLY: i32 = 7;
/// How long after the news of an image all are listed: a pull makes several records.
const QUIET: Duration = Duration::from_millis(300);
/// How long after containerd did not answer it is asked again.
const RETRY: Duration = Duration::from_secs(5);
/// Most Kubernetes namespaces that an image is prepared for.
const MAX_NAMESPACES: usize = 16;

/// What the images of this node are prepared by: it changes when the containers of the node, or its policy, do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ground {
    /// The document of policy and trust.
    pub(super) policy: Option<Digest>,
    /// A container in each containerd namespace that has what all of them have.
    likes: BTreeMap<String, String>,
    /// Kubernetes namespaces that containers are in.
    kubernetes: BTreeSet<String>,
}

impl Ground {
    pub(super) fn new<'a>(policy: Option<Digest>, tenants: impl Iterator<Item = &'a Tenant>) -> Self {
        let mut ground = Self {
            policy,
            ..Self::default()
        };
        for tenant in tenants {
            let decision = &tenant.decision;
            let Some(basis) = &decision.basis else {
                continue;
            };
            if basis.kind == Kind::Container {
                let like = ground.likes.entry(decision.namespace.clone());
                like.or_insert_with(|| decision.container.clone());
            }
            if let Some(name) = &basis.kubernetes_namespace
                && ground.kubernetes.len() < MAX_NAMESPACES
            {
                ground.kubernetes.insert(name.clone());
            }
        }
        ground
    }

    /// Whether what was prepared on `before` has to be prepared anew on this. Another container to be alike is no reason.
    fn differs(&self, before: &Self) -> bool {
        self.policy != before.policy
            || self.kubernetes != before.kubernetes
            || !self.likes.keys().eq(before.likes.keys())
    }
}

/// Prepares what is new, one image after the other.
#[derive(Debug)]
pub(super) struct Preparer {
    queue: Queue,
    /// Where evidence is pulled.
    renewal: Option<Renewal>,
    ground: Ground,
    preparing: Option<Preparing>,
    events: Events,
    /// When all images are listed.
    list_at: Option<Instant>,
}

/// What happens to images.
enum Events {
    /// Nobody was asked.
    None,
    /// containerd was, and nothing happened yet.
    Asked(Pin<Box<dyn Future<Output = Result<Streaming<Envelope>, NodeError>>>>),
    Coming(Box<Streaming<Envelope>>),
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Asked(_) => "Asked",
            Self::Coming(_) => "Coming",
        })
    }
}

impl Events {
    /// Waits for the next one. Answers whether more can come.
    async fn next(&mut self) -> bool {
        if let Self::Asked(answer) = self {
            match answer.await {
                Ok(events) => *self = Self::Coming(Box::new(events)),
                Err(_) => return false,
            }
        }
        match self {
            Self::Coming(events) => matches!(events.message().await, Ok(Some(_))),
            Self::None | Self::Asked(_) => std::future::pending().await,
        }
    }
}

/// What a preparer waited for.
#[derive(Debug)]
pub(super) enum News {
    /// Images were made or changed; nothing where containerd says no more.
    Images(bool),
    /// A process ended.
    Ended,
}

/// What was done for an image.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It is prepared.
    Prepared(Picture),
    /// Its evidence was fetched, or was not.
    Pulled(bool),
}

impl Preparer {
    /// `pulls` says whether evidence is pulled of images that appear.
    pub(super) fn new(pulls: bool) -> Self {
        Self {
            queue: Queue {
                pulls,
                ..Queue::default()
            },
            renewal: pulls.then(Renewal::default),
            ground: Ground::default(),
            preparing: None,
            events: Events::None,
            list_at: Some(Instant::now()),
        }
    }

    /// Waits for news, which have to be taken in.
    pub(super) async fn news(&mut self) -> News {
        let Self { events, preparing, .. } = self;
        let ended = async {
            match preparing {
                Some(preparing) => preparing.process.ended().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            more = events.next() => News::Images(more),
            () = ended => News::Ended,
        }
    }

    /// Takes in news. Answers what was done for an image, if something was.
    pub(super) fn take_in(&mut self, news: &News) -> Option<Outcome> {
        let now = Instant::now();
        match news {
            News::Images(true) => self.list_at = Some(self.list_at.unwrap_or(now + QUIET)),
            News::Images(false) => {
                self.events = Events::None;
                self.list_at = Some(now + RETRY);
            }
            News::Ended => {
                if let Some(preparing) = self.preparing.take() {
                    let Preparing { job, process } = preparing;
                    let code = process.finish();
                    let outcome = match (job.task, code) {
                        (Task::Prepare, Some(0)) => Some(Outcome::Prepared(job.picture.clone())),
                        (Task::Prepare, _) => None,
                        (Task::Pull | Task::Renew, code) => Some(Outcome::Pulled(is_pulled(code))),
                    };
                    match (job.task, &mut self.renewal) {
                        (Task::Renew, Some(renewal)) => renewal.ended(&job.picture, is_pulled(code), now),
                        _ => self.queue.ended(job, code, now),
                    }
                    return outcome;
                }
            }
        }
        None
    }

    /// When there is something to do without news.
    pub(super) fn due(&self) -> Option<Instant> {
        let renewal = self.renewal.as_ref().and_then(Renewal::due);
        let next = self.queue.due().into_iter().chain(renewal).min();
        let next = self.preparing.is_none().then_some(next).flatten();
        self.list_at.into_iter().chain(next).min()
    }

    /// Does what there is to do.
    pub(super) async fn go_on(&mut self, containerd: &str, ground: Ground) {
        if ground.differs(&self.ground) {
            self.queue.forget();
            self.list_at = Some(Instant::now());
        }
        self.ground = ground;
        if self.list_at.is_some_and(|time| time <= Instant::now()) {
            // The agent says so already when containerd does not answer: it asks for the containers.
            let next = self.list(containerd).await.unwrap_or(Some(RETRY));
            self.list_at = next.map(|after| Instant::now() + after);
        }
        let now = Instant::now();
        let renew = |renewal: &mut Renewal| Some(Job::new(Task::Renew, renewal.next(now)?));
        if self.preparing.is_none()
            && let Some(job) = (self.queue.next(now)).or_else(|| self.renewal.as_mut().and_then(renew))
        {
            let like = self.ground.likes.get(&job.picture.namespace).map(String::as_str);
            // One that cannot be started is prepared by its first container.
            self.preparing = Preparing::start(job, containerd, like, &self.ground.kubernetes).ok();
        }
    }

    /// Answers how long after this the images are to be listed again.
    async fn list(&mut self, containerd: &str) -> Result<Option<Duration>, NodeError> {
        let node = Node::connect(containerd).await?;
        if matches!(self.events, Events::None) {
            self.events = Events::Asked(Box::pin(node.image_events()));
            // Once containerd has begun to listen, so that no image falls between.
            return Ok(Some(QUIET));
        }
        let images = node.images().await?;
        if let Some(renewal) = &mut self.renewal {
            renewal.take_in(&images, Instant::now());
        }
        self.queue.take_in(images);
        Ok(None)
    }

    /// Ends the process that prepares.
    pub(super) fn end(self) {
        if let Some(preparing) = self.preparing {
            preparing.process.kill();
        }
    }
}

/// What is to be prepared.
#[derive(Debug, Default)]
struct Queue {
    /// Whether evidence is pulled of what appears.
    pulls: bool,
    /// What the node had the last time; nothing before the first.
    seen: Option<BTreeSet<Picture>>,
    /// What was put in under this policy.
    known: BTreeSet<Picture>,
    waiting: VecDeque<Job>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Job {
    task: Task,
    picture: Picture,
    not_before: Option<Instant>,
    tries: u32,
}

/// What is done for an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    /// Its evidence is fetched, and then it is prepared.
    Pull,
    /// Its evidence is fetched again.
    Renew,
    Prepare,
}

impl Job {
    fn new(task: Task, picture: Picture) -> Self {
        Self {
            task,
            picture,
            not_before: None,
            tries: 0,
        }
    }
}

impl Queue {
    /// Takes in what the node has now.
    fn take_in(&mut self, pictures: BTreeSet<Picture>) {
        self.waiting.retain(|job| pictures.contains(&job.picture));
        for picture in pictures.difference(&self.known) {
            // What was there before the agent has its evidence, or somebody's reason not to.
            let is_new = |seen: &BTreeSet<Picture>| !seen.contains(picture);
            let task = if self.pulls && self.seen.as_ref().is_some_and(is_new) {
                Task::Pull
            } else {
                Task::Prepare
            };
            self.waiting.push_back(Job::new(task, picture.clone()));
        }
        self.seen = Some(pictures.clone());
        self.known = pictures;
    }

    /// Begins again: what was prepared was so under another policy.
    fn forget(&mut self) {
        self.known.clear();
        self.waiting.retain(|job| job.task == Task::Pull);
    }

    /// The first that can be prepared now.
    fn next(&mut self, now: Instant) -> Option<Job> {
        let ready = |job: &Job| job.not_before.is_none_or(|time| time <= now);
        let place = self.waiting.iter().position(ready)?;
        self.waiting.remove(place)
    }

    /// When the next one can be.
    fn due(&self) -> Option<Instant> {
        let now = Instant::now();
        self.waiting.iter().map(|job| job.not_before.unwrap_or(now)).min()
    }

    /// Puts one back that ended with this exit code, where it may go better later.
    fn ended(&mut self, mut job: Job, code: Option<i32>, now: Instant) {
        if job.task == Task::Pull {
            // Whatever came of it: there may be evidence already.
            self.waiting.push_front(Job::new(Task::Prepare, job.picture.clone()));
        }
        job.tries += 1;
        let wait = match (job.task, code) {
            (Task::Prepare, Some(EARLY)) => FIRST_WAIT,
            (Task::Prepare | Task::Renew, _) => return,
            (Task::Pull, code) if is_pulled(code) => return,
            (Task::Pull, _) => FIRST_PULL_WAIT,
        };
        if job.tries < TRIES {
            job.not_before = Some(now + wait * 2_u32.pow(job.tries - 1));
            self.waiting.push_back(job);
        }
    }
}

/// Whether a fetch that ended so needs no other one: there is nothing to fetch, or it was.
fn is_pulled(code: Option<i32>) -> bool {
    matches!(code, Some(0 | NOTHING))
}

/// The process that prepares an image.
#[derive(Debug)]
struct Preparing {
    job: Job,
    process: Process,
}

impl Preparing {
    /// `like` is a container of the same namespace, `kubernetes` are the Kubernetes namespaces of this node's containers.
    fn start(job: Job, containerd: &str, like: Option<&str>, kubernetes: &BTreeSet<String>) -> io::Result<Self> {
        let mut arguments = match job.task {
            Task::Pull | Task::Renew => vec!["evidence", "pull"],
            Task::Prepare => vec![
                "prepare",
                "--address",
                containerd,
                "--namespace",
                &job.picture.namespace,
            ],
        };
        if job.task == Task::Prepare {
            arguments.extend(kubernetes.iter().flat_map(|name| ["--kubernetes-namespace", name]));
            arguments.extend(like.iter().flat_map(|id| ["--like", id]));
        }
        let name = match job.task {
            Task::Renew => job.picture.by_digest(),
            Task::Pull | Task::Prepare => job.picture.name.clone(),
        };
        arguments.extend(["--", &name]);
        let process = Process::start(&arguments, Stdio::null())?;
        Ok(Self { job, process })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(name: &str) -> Picture {
        Picture {
            namespace: "k8s.io".to_owned(),
            name: name.to_owned(),
            target: "sha256:0".to_owned(),
        }
    }

    fn names(queue: &mut Queue, now: Instant) -> Vec<String> {
        std::iter::from_fn(|| queue.next(now))
            .map(|job| job.picture.name)
            .collect()
    }

    #[test]
    fn each_image_is_prepared_once_until_the_policy_changes() {
        let mut queue = Queue::default();
        let now = Instant::now();
        let node = BTreeSet::from([picture("a"), picture("b")]);
        queue.take_in(node.clone());
        assert_eq!(names(&mut queue, now), ["a", "b"]);
        queue.take_in(node.clone());
        assert_eq!(names(&mut queue, now), [""; 0]);
        let moved = Picture {
            target: "sha256:1".to_owned(),
            ..picture("b")
        };
        queue.take_in(BTreeSet::from([picture("a"), moved]));
        assert_eq!(names(&mut queue, now), ["b"]);
        queue.forget();
        queue.take_in(node);
        assert_eq!(names(&mut queue, now), ["a", "b"]);
    }

    #[test]
    fn evidence_is_pulled_of_what_appears_and_a_registry_is_given_time() {
        let mut queue = Queue {
            pulls: true,
            ..Queue::default()
        };
        let mut now = Instant::now();
        let mut node = BTreeSet::from([picture("old")]);
        queue.take_in(node.clone());
        let job = |task, name: &str| Job::new(task, picture(name));
        assert_eq!(queue.next(now), Some(job(Task::Prepare, "old")));
        node.insert(picture("new"));
        queue.take_in(node.clone());
        let mut waits = Vec::new();
        while let Some(pull) = queue.next(now) {
            assert_eq!((pull.task, pull.picture.name.as_str()), (Task::Pull, "new"));
            queue.ended(pull, Some(1), now);
            assert_eq!(queue.next(now), Some(job(Task::Prepare, "new")));
            if let Some(due) = queue.due() {
                waits.push((due - now).as_secs());
                now = due;
            }
        }
        assert_eq!(waits, [30, 60, 120, 240, 480]);
        // Another policy is no reason to ask the registry again.
        queue.forget();
        queue.take_in(node.clone());
        assert_eq!(queue.next(now).map(|job| job.task), Some(Task::Prepare));
        assert_eq!(queue.next(now).map(|job| job.task), Some(Task::Prepare));
        for code in [Some(0), Some(NOTHING)] {
            let name = format!("{code:?}");
            node.insert(picture(&name));
            queue.take_in(node.clone());
            let pull = queue.next(now).unwrap();
            queue.ended(pull, code, now);
            assert_eq!(queue.next(now), Some(job(Task::Prepare, &name)));
            assert_eq!(queue.due(), None);
        }
    }

    #[test]
    fn what_is_not_unpacked_yet_is_tried_again_and_not_forever() {
        let mut queue = Queue::default();
        let mut now = Instant::now();
        queue.take_in(BTreeSet::from([picture("a")]));
        let mut waits = Vec::new();
        while let Some(job) = queue.next(now) {
            queue.ended(job, Some(EARLY), now);
            assert_eq!(queue.next(now), None);
            if let Some(due) = queue.due() {
                waits.push((due - now).as_secs());
                now = due;
            }
        }
        assert_eq!(waits, [1, 2, 4, 8, 16]);
        for code in [Some(0), Some(1), Some(3), None] {
            queue.forget();
            queue.take_in(BTreeSet::from([picture("a")]));
            let job = queue.next(now).unwrap();
            queue.ended(job, code, now);
            assert_eq!(queue.due(), None);
        }
        // One that was removed meanwhile is not.
        queue.forget();
        queue.take_in(BTreeSet::from([picture("a")]));
        let job = queue.next(now).unwrap();
        queue.ended(job, Some(EARLY), now);
        queue.take_in(BTreeSet::new());
        assert_eq!(queue.due(), None);
    }
}
