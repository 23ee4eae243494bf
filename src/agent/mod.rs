//! `assay agent`: judges the running containers of this node again when policy, trust, evidence or the time says that
//! their verdict may be another one, records what changed, and does what their rules want done.
//!
//! Nothing depends on it: the shim does not know that it exists. It keeps no state of its own; what was decided, judged
//! and done is in the decision log, and another agent goes on from there. It never acts on trouble of its own: where
//! anything that it needs cannot be read or asked, or takes too long, it says so and leaves the container alone.

mod complaints;
mod metrics;
mod node;
mod prepare;
mod process;
mod refresh;
mod refusals;
mod renewal;
mod serve;
mod tenant;
mod traces;
mod watch;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use crate::admission::Verdict;
use crate::admission::again::{Cause, PutBack, Reevaluation, Review, causes, crossed};
use crate::admission::log::{self, Line};
use crate::config::Config;
use crate::diagnostic::printable;
use crate::digest::Digest;
use crate::grant::{self, GRANTED, Grants};
use crate::policy::activate::load_active;
use crate::policy::{Active, Kept};
use crate::shim::bar;
use crate::store::{self, Bookmark, StateDir};
use crate::trust::clock::Clock;
use complaints::Complaints;
use metrics::{Metrics, Standings};
use node::{Activity, Key, Node, NodeError, Resident};
use prepare::{Ground, Outcome, Preparer};
use refresh::{Refresher, What};
pub use refusals::Refusal;
use refusals::Refusals;
use serve::Pages;
use tenant::{Deed, Judged, Now, Tenant};
use traces::Traces;
use watch::Watch;

/// Lock of the only agent of a node, below `run`.
const LOCK: &str = "agent.lock";
/// Folder of the active policy below `state`.
const ACTIVE: &str = "active";
/// Folder of the evidence cache below `state`.
const EVIDENCE: &str = "evidence";
/// How long nothing may change before a change counts as complete.
const QUIET: Duration = Duration::from_millis(100);
/// Longest time that changes are waited for.
const MAX_QUIET: Duration = Duration::from_secs(1);
/// How often new containers are looked for, and the clock.
const INTERVAL: Duration = Duration::from_secs(15);
/// How often the caches are looked at, and which containers have gone.
const LOOK: Duration = Duration::from_secs(60);
/// How long after a container could not be judged it is tried again.
const BLIND_RETRY: Duration = Duration::from_secs(60);
/// How long after something could not be read or asked it is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// Shortest time between two rounds that nothing but the time asks for.
const PAUSE: Duration = Duration::from_secs(1);
/// By how much the clock may move against the time that passed.
const MAX_DRIFT: SignedDuration = SignedDuration::from_secs(2);
/// Signal 9.
const SIGKILL: u32 = 9;
/// What a decision may be older than the list of containers that lacks its container.
const SETTLING: SignedDuration = SignedDuration::from_mins(5);

/// Why there is no agent.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A directory of Assay's cannot be used.
    #[error("{0}")]
    State(#[from] store::Error),
    /// There is one already.
    #[error("another agent runs on this node already: it holds {0}")]
    Another(String),
    /// Nobody can ask for figures.
    #[error("figures cannot be served: {0}")]
    Listen(#[source] std::io::Error),
    /// No event loop or no signals.
    #[error("the event loop cannot be started: {0}")]
    Runtime(#[source] std::io::Error),
}

/// Runs until SIGTERM or SIGINT. `containerd` is the path of containerd's socket; figures are served on `listen` too, an
/// address of this machine alone; with `refusals` the pods that were refused are told there too.
///
/// # Errors
/// See [`AgentError`]. What goes wrong later is said on standard error, and tried again.
pub fn run(config: &Config, containerd: &str, listen: Option<SocketAddr>, refusals: bool) -> Result<(), AgentError> {
    let run = StateDir::open(&config.run)?;
    let _lock = run
        .try_lock(LOCK)?
        .ok_or_else(|| AgentError::Another(run.path().join(LOCK).display().to_string()))?;
    let state = StateDir::open(&config.state)?;
    let mut agent = Agent {
        evidence: state.subdir(EVIDENCE)?,
        active: state.subdir(ACTIVE)?,
        grants: state.subdir(grant::DIRECTORY)?,
        run,
        state,
        patience: config.admit_timeout,
        pulls: config.pull_evidence,
        refreshes: (config.policy_from.iter().map(|_| What::Policy))
            .chain(config.refresh_trust.then_some(What::Trust))
            .collect(),
        expired: None,
        containerd: containerd.to_owned(),
        bookmark: Bookmark::default(),
        tenants: BTreeMap::new(),
        current: None,
        previous: None,
        retry: None,
        trouble: String::new(),
        voice: Voice::new(),
        metrics: Arc::new(Metrics::new()),
        complaints: Complaints::default(),
        traces: None,
        refusals: refusals.then(Arc::default),
        looked: None,
        listed: None,
        is_counting: false,
    };
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(AgentError::Runtime)?
        .block_on(async {
            let pages = Pages {
                metrics: Arc::clone(&agent.metrics),
                refusals: agent.refusals.clone(),
            };
            serve::serve(pages, &agent.run, listen).map_err(AgentError::Listen)?;
            agent.run().await
        })
}

#[derive(Debug)]
struct Agent {
    run: StateDir,
    state: StateDir,
    evidence: StateDir,
    active: StateDir,
    grants: StateDir,
    patience: Duration,
    /// Whether evidence is pulled of images that appear.
    pulls: bool,
    /// What is fetched on a schedule.
    refreshes: Vec<What>,
    /// The fleet's policy that was last said to have expired.
    expired: Option<Digest>,
    containerd: String,
    /// How far the decision log was read.
    bookmark: Bookmark,
    tenants: BTreeMap<Key, Tenant>,
    /// Policy and trust that containers were judged by last, and before.
    current: Option<(Digest, Active)>,
    previous: Option<(Digest, Active)>,
    /// When something that failed is tried again.
    retry: Option<Instant>,
    /// What is wrong, as it was said last.
    trouble: String,
    voice: Voice,
    metrics: Arc<Metrics>,
    complaints: Complaints,
    /// Where the environment asks for them.
    traces: Option<Traces>,
    /// Where somebody asks for them.
    refusals: Option<Arc<Refusals>>,
    /// When the caches were looked at.
    looked: Option<Instant>,
    /// Whether decisions are counted: those of before the agent are not.
    is_counting: bool,
    /// When containerd was asked last which containers there are: nothing else says that one has gone.
    listed: Option<Instant>,
}

/// Why nothing at all could be judged.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("the decision log cannot be read: {0}")]
    Log(#[source] store::Error),
    #[error("{0}")]
    Node(#[from] NodeError),
}

impl Agent {
    async fn run(&mut self) -> Result<(), AgentError> {
        let mut terminate = signal(SignalKind::terminate()).map_err(AgentError::Runtime)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(AgentError::Runtime)?;
        let voice = self.voice.clone();
        match Traces::begin(move |text| voice.warn(&printable(text))) {
            Ok(traces) => self.traces = traces,
            Err(why) => self.voice.warn(&format!("there are no traces: {}", printable(&why))),
        }
        // Before the first look, so that no change falls between.
        let mut watch = self.watch();
        self.round(true).await;
        self.voice.ready();
        let mut clock = Drift::new();
        let mut preparer = Preparer::new(self.pulls);
        let mut refresher = Refresher::new(&self.refreshes);
        let mut wake = self.wake();
        loop {
            self.voice.alive();
            preparer.go_on(&self.containerd, self.ground()).await;
            refresher.go_on();
            let first = preparer
                .due()
                .into_iter()
                .chain(refresher.due())
                .fold(wake, Instant::min);
            let everything = tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                goes_on = changed(watch.as_ref()) => {
                    if !(goes_on && settled(watch.as_ref()).await) {
                        watch = self.watch();
                    }
                    true
                }
                news = preparer.news() => {
                    match preparer.take_in(&news) {
                        Some(Outcome::Prepared(image)) => {
                            let text = format!("image {}/{} is prepared", image.namespace, image.name);
                            self.voice.note(&printable(&text));
                        }
                        Some(Outcome::Pulled(is_done)) => self.metrics.refreshed("evidence", is_done),
                        None => {}
                    }
                    continue;
                }
                (what, is_done) = refresher.ended() => {
                    self.metrics.refreshed(what.as_str(), is_done);
                    if !is_done {
                        let command = what.arguments().join(" ");
                        self.voice.warn(&format!("assay {command} failed, and is tried again"));
                    }
                    continue;
                }
                () = tokio::time::sleep_until(first) => {
                    if Instant::now() < wake {
                        continue;
                    }
                    if watch.is_none() {
                        watch = self.watch();
                    }
                    clock.jumped() || watch.is_none() || self.is_due()
                }
            };
            self.round(everything).await;
            wake = self.wake();
        }
        self.voice.stopping();
        preparer.end();
        refresher.end();
        if let Some(traces) = self.traces.take() {
            traces.end().await;
        }
        Ok(())
    }

    /// Without a watch, everything is judged again each time that it is tried to have one.
    fn watch(&mut self) -> Option<Watch> {
        let again = |state: &StateDir, name| state.subdir(name);
        let opened = again(&self.state, EVIDENCE).and_then(|evidence| {
            let active = again(&self.state, ACTIVE)?;
            Ok((evidence, active, again(&self.state, grant::DIRECTORY)?))
        });
        let watch = opened
            .map_err(|error| error.to_string())
            .and_then(|(evidence, active, grants)| {
                // They may have been replaced.
                (self.evidence, self.active, self.grants) = (evidence, active, grants);
                let watched = [self.active.path(), self.evidence.path(), self.grants.path()];
                Watch::new(self.state.path(), &watched).map_err(|error| error.to_string())
            });
        match watch {
            Ok(watch) => Some(watch),
            Err(why) => {
                self.retry = Some(Instant::now() + RETRY);
                self.voice.warn(&format!(
                    "policy and evidence cannot be watched, and are looked at every {} s: {why}",
                    RETRY.as_secs()
                ));
                None
            }
        }
    }

    /// What images are prepared by.
    fn ground(&self) -> Ground {
        let policy = self.current.as_ref().map(|(digest, _)| *digest);
        Ground::new(policy, self.tenants.values())
    }

    /// When there is something to do without a change.
    fn wake(&self) -> Instant {
        let now = Now::read();
        let dues = self.tenants.values().filter_map(|tenant| tenant.due(now));
        let latest = now.instant + self.voice.interval();
        let at = dues.chain(self.retry).fold(latest, Instant::min);
        // What came due during the last round can wait for so long.
        at.max(now.instant + PAUSE)
    }

    /// Whether everything is to be judged again because of the time.
    fn is_due(&self) -> bool {
        let now = Now::read();
        let mut dues = self
            .tenants
            .values()
            .filter_map(|tenant| tenant.due(now))
            .chain(self.retry);
        dues.any(|due| due <= now.instant)
    }

    /// Judges every running container again, or only those that are new.
    async fn round(&mut self, everything: bool) {
        let done = self.try_round(everything).await;
        let trouble = done.map_or_else(|trouble| trouble.to_string(), |()| String::new());
        let is_blind = self.tenants.values().any(Tenant::is_blind);
        self.retry = match (trouble.is_empty(), is_blind) {
            (false, _) => Some(RETRY),
            (true, true) => Some(BLIND_RETRY),
            (true, false) => None,
        }
        .map(|after| Instant::now() + after);
        if trouble != self.trouble {
            if trouble.is_empty() {
                self.voice.note("running containers can be judged again");
            } else {
                self.voice
                    .warn(&format!("not judged, nothing is done: {}", printable(&trouble)));
            }
            self.trouble = trouble;
        }
        self.voice.status(self.tenants.len(), &self.trouble);
        self.count();
    }

    /// Brings the figures up to date.
    fn count(&mut self) {
        let mut standings = Standings::default();
        for tenant in self
            .tenants
            .values()
            .filter(|tenant| tenant.is_known || tenant.is_blind())
        {
            *match (tenant.is_blind(), tenant.standing.verdict) {
                (true, _) => &mut standings.not_judged,
                (false, Verdict::Allow) => &mut standings.allowed,
                (false, Verdict::Refuse) => &mut standings.refused,
            } += 1;
            if let Some(counts) = tenant.view {
                standings.view(counts);
            }
        }
        self.metrics.stand(standings);
        self.look_at_fleet();
        if self.looked.is_none_or(|looked| looked.elapsed() >= LOOK) {
            self.looked = Some(Instant::now());
            let Self {
                metrics,
                complaints,
                state,
                ..
            } = self;
            metrics.look(state);
            complaints.look(state, |call, times| metrics.complained(call, times));
        }
        self.is_counting = true;
    }

    /// Says once that the fleet's policy has expired. It stays in force.
    fn look_at_fleet(&mut self) {
        // One that cannot be read keeps policy from being put in force, which says so.
        let Ok(Some(kept)) = Kept::read(self.state.path()) else {
            self.metrics.keep(None);
            return;
        };
        self.metrics.keep(Some(&kept));
        if kept.expires <= Timestamp::now() && self.expired != Some(kept.digest) {
            self.expired = Some(kept.digest);
            self.voice.warn(&format!(
                "the fleet's policy, version {}, expired at {}; it stays in force until there is a newer one",
                kept.version, kept.expires
            ));
        }
    }

    async fn try_round(&mut self, everything: bool) -> Result<(), Trouble> {
        if !everything {
            self.read_log(None)?;
            let is_recent = self.listed.is_some_and(|listed| listed.elapsed() < LOOK);
            if is_recent && self.tenants.values().all(|tenant| tenant.is_known) {
                return Ok(());
            }
        }
        let node = Node::connect(&self.containerd).await?;
        // Of a long log, only what is about containers that exist is kept.
        let asked = Timestamp::now();
        let residents = node.residents().await?;
        self.listed = Some(Instant::now());
        self.read_log(Some((&residents, asked)))?;
        self.tenants
            .retain(|key, tenant| is_there(&residents, asked, key, tenant));
        let now = Now::read();
        self.judge(now, everything, &residents);
        self.act(&node, now).await;
        Ok(())
    }

    /// Takes in what was decided since the last time.
    fn read_log(&mut self, residents: Option<(&BTreeMap<Key, Resident>, Timestamp)>) -> Result<(), Trouble> {
        let Self {
            tenants,
            metrics,
            traces,
            refusals,
            is_counting,
            ..
        } = self;
        let read = log::follow(&self.state, &mut self.bookmark, |line| match line {
            Line::Decision(entry) => {
                if *is_counting {
                    metrics.decided(&entry.decision);
                    if let Some(traces) = traces {
                        traces.decided(&entry.decision);
                    }
                    if let Some(refusals) = refusals {
                        refusals.decided(&entry);
                    }
                }
                let key = (entry.decision.namespace.clone(), entry.decision.container.clone());
                match Tenant::new(entry.decision) {
                    Some(tenant)
                        if residents.is_none_or(|(residents, asked)| is_there(residents, asked, &key, &tenant)) =>
                    {
                        tenants.insert(key, tenant);
                    }
                    _ => {
                        tenants.remove(&key);
                    }
                }
            }
            // The journal has it from whoever wrote it.
            Line::Grant(..) => {}
            Line::Exec(_, record) => {
                if *is_counting {
                    metrics.executed(&record);
                }
            }
            Line::Reevaluation(id, record) => {
                if let Some(tenant) = tenants.get_mut(&(record.namespace.clone(), record.container.clone())) {
                    if let (Some(refusals), true) = (refusals.as_ref(), *is_counting) {
                        refusals.judged_again(id, &record, tenant.decision.pod.as_ref());
                    }
                    tenant.replay(&record);
                }
            }
        });
        read.map(drop).map_err(Trouble::Log)
    }

    fn judge(&mut self, now: Now, everything: bool, residents: &BTreeMap<Key, Resident>) {
        let unknown = match load_active(&self.state) {
            Ok((active, digest)) => {
                if self.current.as_ref().is_none_or(|(current, _)| *current != digest) {
                    self.metrics.in_force(&active);
                    self.previous = self.current.replace((digest, active));
                }
                None
            }
            Err(error) => Some(format!("{error}; {}", error.fix())),
        };
        let Self {
            state,
            evidence,
            patience,
            tenants,
            current,
            previous,
            voice,
            metrics,
            ..
        } = self;
        let running = tenants.iter_mut().filter_map(|(key, tenant)| {
            let activity = residents.get(key).map_or(Activity::None, |resident| resident.activity);
            if activity == Activity::None {
                tenant.rest();
            }
            (activity != Activity::None && (everything || !tenant.is_known))
                .then_some((tenant, activity == Activity::Paused))
        });
        let (Some((policy, active)), None) = (current.as_ref(), unknown.as_ref()) else {
            let why = unknown.unwrap_or_default();
            for (tenant, is_paused) in running {
                let records = tenant.judge(Judged::Not(why.clone()), now, is_paused, |_| Vec::new());
                record_all(state, voice, metrics, tenant, &records);
            }
            return;
        };
        let mut clock = Clock::read(state);
        clock.now = now.time;
        let grants = Grants::load(state, active, clock);
        let judging = |active, clock| Review::new(active, evidence, clock, *patience, &grants);
        let mut review = judging(active, clock);
        let crossings = previous
            .as_ref()
            .map(|(digest, previous)| (digest, crossed(previous, active), crossed(active, previous)));
        let mut crossings = crossings.as_ref().map(|(digest, rules, trust)| {
            let review = |crossed, with: &Active| (crossed != with).then(|| judging(crossed, clock));
            (**digest, review(rules, active), review(trust, active))
        });
        let mut earlier: BTreeMap<Timestamp, Review<'_>> = BTreeMap::new();
        for (tenant, is_paused) in running {
            voice.alive();
            let is_opened = review.is_opened(&tenant.decision);
            let mut is_granted = false;
            let judged = match review.word(&tenant.decision) {
                Some(word) => {
                    is_granted = word.code == GRANTED;
                    Judged::Word(Box::new(word), *policy)
                }
                None => Judged::Not("its decision does not say what it was about".to_owned()),
            };
            let records = tenant.judge(judged, now, is_paused, |tenant| {
                if is_granted || (tenant.standing.code == GRANTED && !is_opened) {
                    return vec![Cause::Grant];
                }
                let then = tenant.judged.min(now.time);
                let at = Clock {
                    now: then,
                    mark: Some(then),
                };
                let decision = &tenant.decision;
                let before = earlier.entry(then).or_insert_with(|| judging(active, at));
                let mut put_back = PutBack {
                    time: before.word(decision).map(|word| word.verdict),
                    policy: None,
                    trust: None,
                    other_document: tenant.policy != Some(*policy),
                };
                if let Some((digest, rules, trust)) = &mut crossings
                    && tenant.policy == Some(*digest)
                {
                    let verdict = |review: &mut Option<Review<'_>>| Some(review.as_mut()?.word(decision)?.verdict);
                    (put_back.policy, put_back.trust) = (verdict(rules), verdict(trust));
                }
                causes(tenant.standing.verdict, put_back)
            });
            record_all(state, voice, metrics, tenant, &records);
        }
    }

    /// Does what is due, to what was just found to be refused.
    async fn act(&mut self, node: &Node, now: Now) {
        // Without the directory nobody is barred, and nobody can be.
        let bars = self.run.subdir(bar::FOLDER);
        for (key, tenant) in &mut self.tenants {
            let Some(deed) = tenant.deed(now) else {
                if let (Ok(bars), true) = (&bars, tenant.is_allowed(now)) {
                    // Most never had one.
                    let _ = bars.remove(&bar::name(&key.0, &key.1));
                }
                continue;
            };
            let done = perform(node, bars.as_ref(), key, tenant, deed).await;
            let record = tenant.did(deed, done, now);
            self.voice.alive();
            if let Some(record) = record {
                self.voice.record(&record);
                self.metrics.recorded(&record);
                if let Err(error) = log::record(&self.state, &record) {
                    self.voice.warn(&format!("this cannot be recorded: {error}"));
                }
            }
        }
    }
}

impl Now {
    fn read() -> Self {
        Self {
            instant: Instant::now(),
            time: Timestamp::now(),
        }
    }
}

/// Does something to a container. Answers what was done, or why it was not.
async fn perform(
    node: &Node,
    bars: Result<&StateDir, &store::Error>,
    key: &Key,
    tenant: &Tenant,
    deed: Deed,
) -> Result<String, String> {
    let said = |error: NodeError| error.to_string();
    match deed {
        Deed::DenyExec => {
            let why = format!(
                "{}: {}; see: assay decisions",
                tenant.standing.code, tenant.standing.reason
            );
            let why = why.get(..why.floor_char_boundary(bar::MAX_REASON)).unwrap_or_default();
            let bars = bars.map_err(ToString::to_string)?;
            let written = bars.write_volatile(&bar::name(&key.0, &key.1), why.as_bytes());
            written.map_err(|error| error.to_string())?;
            Ok("no further process is started in it".to_owned())
        }
        Deed::Freeze => {
            node.pause(key).await.map_err(said)?;
            Ok(format!(
                "its processes are paused; to go on with it: ctr --namespace {} tasks resume {}",
                key.0, key.1
            ))
        }
        Deed::End => {
            let config = tenant.decision.image.as_ref().map(|image| image.config);
            let signal = match config {
                Some(config) => node.stop_signal(&key.0, config).await,
                None => SIGKILL,
            };
            node.kill(key, signal, false).await.map_err(said)?;
            Ok(format!("its first process was sent signal {signal}"))
        }
        Deed::Kill => {
            node.kill(key, SIGKILL, true).await.map_err(said)?;
            // The processes of a paused container die when they go on. Most are not paused, and it fails.
            let _ = node.resume(key).await;
            Ok("it did not end, so all of its processes were killed".to_owned())
        }
    }
}

/// Records what came of judging a container; what cannot be recorded is not announced.
fn record_all(state: &StateDir, voice: &Voice, metrics: &Metrics, tenant: &mut Tenant, records: &[Reevaluation]) {
    for record in records {
        voice.record(record);
        metrics.recorded(record);
        if let Err(error) = log::record(state, record) {
            voice.warn(&format!("this cannot be recorded: {error}"));
            if record.at.is_some() {
                tenant.unannounce();
            }
        }
    }
}

/// Whether a container exists that this tenant is, or may exist soon: its decision comes before its task.
fn is_there(residents: &BTreeMap<Key, Resident>, asked: Timestamp, key: &Key, tenant: &Tenant) -> bool {
    let Ok(decided) = tenant.decision.time.parse::<Timestamp>() else {
        return false;
    };
    match residents.get(key) {
        Some(resident) => resident.created.is_none_or(|created| created <= decided),
        None => decided.checked_add(SETTLING).is_ok_and(|settled| settled > asked),
    }
}

/// Waits until something changed. Answers whether the watch goes on.
async fn changed(watch: Option<&Watch>) -> bool {
    match watch {
        Some(watch) => watch.changed().await.unwrap_or(false),
        None => std::future::pending().await,
    }
}

/// Waits until what changed stays as it is. Answers whether the watch goes on.
async fn settled(watch: Option<&Watch>) -> bool {
    let latest = Instant::now() + MAX_QUIET;
    while Instant::now() < latest {
        match tokio::time::timeout(QUIET, changed(watch)).await {
            Ok(true) => {}
            Ok(false) => return false,
            Err(_) => break,
        }
    }
    true
}

/// Notices that the clock was set.
#[derive(Debug)]
struct Drift {
    instant: Instant,
    time: Timestamp,
}

impl Drift {
    fn new() -> Self {
        Self {
            instant: Instant::now(),
            time: Timestamp::now(),
        }
    }

    /// Whether it was set since this was asked last.
    fn jumped(&mut self) -> bool {
        let now = Self::new();
        let passed = SignedDuration::try_from(now.instant - self.instant).unwrap_or_default();
        let drift = now.time.duration_since(self.time) - passed;
        *self = now;
        drift.abs() > MAX_DRIFT
    }
}

/// What the agent says: to systemd, and on standard error, which is the journal there.
#[derive(Debug, Clone)]
struct Voice {
    /// Whether lines carry their priority, as the journal reads it.
    for_journal: bool,
    /// How often systemd wants to hear that the agent is alive.
    watchdog: Option<Duration>,
}

impl Voice {
    fn new() -> Self {
        Self {
            for_journal: std::env::var_os("JOURNAL_STREAM").is_some(),
            watchdog: sd_notify::watchdog_enabled(),
        }
    }

    /// Longest time without a sign of life.
    fn interval(&self) -> Duration {
        self.watchdog.map_or(INTERVAL, |watchdog| (watchdog / 3).min(INTERVAL))
    }

    fn tell(state: NotifyState<'_>) {
        // Nobody listens outside of systemd.
        let _ = sd_notify::notify(&[state]);
    }

    fn ready(&self) {
        Self::tell(NotifyState::Ready);
    }

    fn alive(&self) {
        if self.watchdog.is_some() {
            Self::tell(NotifyState::Watchdog);
        }
    }

    fn stopping(&self) {
        Self::tell(NotifyState::Stopping);
    }

    fn status(&self, tenants: usize, trouble: &str) {
        let status = if trouble.is_empty() {
            format!("{tenants} containers are judged again when something changes")
        } else {
            format!("not judged: {}", printable(trouble))
        };
        Self::tell(NotifyState::Status(&status));
    }

    /// Says on standard error what the journal hears with its fields anyway.
    fn record(&self, record: &Reevaluation) {
        if self.for_journal {
            return;
        }
        let text = format!(
            "container {}/{} of {}: {record}",
            record.namespace, record.container, record.name
        );
        self.warn(&printable(&text));
    }

    fn warn(&self, text: &str) {
        self.say(4, text);
    }

    fn note(&self, text: &str) {
        self.say(6, text);
    }

    fn say(&self, priority: u8, text: &str) {
        use std::io::Write as _;
        let mut stderr = std::io::stderr();
        // Whoever read it went away.
        let _ = if self.for_journal {
            writeln!(stderr, "<{priority}>{text}")
        } else {
            writeln!(stderr, "{text}")
        };
    }
}
