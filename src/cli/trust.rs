//! `assay trust`: whom this node trusts, and the time that it has seen pass.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::builder::PossibleValuesParser;
use clap::builder::TypedValueParser as _;
use jiff::Timestamp;
use serde::Serialize;

use super::{Exit, Output, complain, count, print, show};
use crate::admission::{Verdict, log};
use crate::config::Config;
use crate::diagnostic::{Diagnostic, Diagnostics, printable};
use crate::digest::Digest;
use crate::policy::Sources;
use crate::policy::activate::load_active;
use crate::store::StateDir;
use crate::trust::clock::{Clock, Mark};
use crate::trust::edit::{self, EditError, NewKey};
use crate::trust::update::{self, Place};
use crate::trust::{self, Builder, HashAlgorithm, Key, Root, RootSource, Status, Trust, Use};

/// Arguments of `assay trust`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show the keys, trusted roots, builders and trust stores of trust.d, and whether they are in force
    Show {
        /// What they are written as
        #[arg(long, short, value_enum, default_value_t)]
        output: Output,
    },
    /// Add a public key to trust.d
    AddKey {
        /// Name by which policy shall refer to it
        id: String,
        /// PEM file with the public key; a copy is put beside the files of trust
        file: PathBuf,
        /// What its signatures shall count for
        #[arg(long, required = true, value_delimiter = ',', value_name = "USE", value_parser = uses())]
        r#use: Vec<Use>,
        /// Hash that it signs with; Ed25519 has its own
        #[arg(long, default_value = "sha256", value_parser = hashes())]
        hash: HashAlgorithm,
    },
    /// Retire a key: what it signed and this node allowed still counts, nothing else
    RetireKey {
        /// Its name
        id: String,
        /// Digest of a manifest or index for which it still counts, beside those that the decision log shows
        #[arg(long, value_name = "DIGEST")]
        digest: Vec<Digest>,
    },
    /// Distrust a key: none of its signatures counts any more
    DistrustKey {
        /// Its name
        id: String,
    },
    /// Refresh the built-in trusted roots from their TUF repositories, and put policy in force again
    Update {
        /// Copy of a TUF repository, as a folder or a tar: nothing is asked over the network
        #[arg(long, value_name = "TAR|DIR")]
        from: Option<PathBuf>,
        /// Only the root of this id; needed with --from where there are several
        #[arg(long, value_name = "ID")]
        root: Option<String>,
    },
    /// Show the latest time that someone trusted vouched for
    Clock {
        /// Forget it, because this machine's clock ran ahead
        #[arg(long)]
        reset: bool,
    },
}

fn uses() -> impl clap::builder::TypedValueParser<Value = Use> {
    named(Use::all())
}

fn hashes() -> impl clap::builder::TypedValueParser<Value = HashAlgorithm> {
    named(HashAlgorithm::all())
}

fn named<T: Copy + Send + Sync + 'static>(
    names: &'static [(&'static str, T)],
) -> impl clap::builder::TypedValueParser<Value = T> {
    PossibleValuesParser::new(names.iter().map(|(name, _)| *name)).try_map(|text| {
        names
            .iter()
            .find(|(name, _)| *name == text)
            .map(|(_, value)| *value)
            .ok_or("no such value")
    })
}

/// Runs the command.
#[must_use]
pub fn run(args: &Args, config: &Config) -> Exit {
    match &args.command {
        Command::Show { output } => show_trust(config, *output),
        Command::AddKey { id, file, r#use, hash } => {
            let new = NewKey {
                id,
                file,
                uses: r#use,
                hash: *hash,
            };
            edited(edit::add_key(&config.trust, &new).map(|file| format!("key '{id}' is in {}", file.display())))
        }
        Command::RetireKey { id, digest } => retire(config, id, digest),
        Command::DistrustKey { id } => {
            let nothing = BTreeSet::new();
            let done = edit::set_status(&config.trust, id, Status::Distrusted, &nothing);
            edited(done.map(|(file, _)| format!("key '{id}' is distrusted in {}", file.display())))
        }
        Command::Update { from, root } => update(config, from.as_deref(), root.as_deref()),
        Command::Clock { reset } => clock(config, *reset),
    }
}

/// Says what was changed, and that it is not in force yet.
fn edited(done: Result<String, EditError>) -> Exit {
    match done {
        Ok(what) => {
            print(printable(&what));
            print("it is not in force yet; to put it in force: assay policy apply");
            Exit::Done
        }
        Err(error) => {
            match &error {
                EditError::Sources(Diagnostics(faults)) => show(faults),
                other => complain(printable(&format!("error: {other}"))),
            }
            complain("nothing was changed");
            match error {
                EditError::Unknown { .. } => Exit::NotFound,
                _ => Exit::Failed,
            }
        }
    }
}

/// What the key signed and this node allowed stays valid.
fn retire(config: &Config, id: &str, given: &[Digest]) -> Exit {
    let mut digests: BTreeSet<Digest> = given.iter().copied().collect();
    let found = StateDir::open(&config.state).and_then(|state| {
        log::read(&state, |entry| {
            let facts = entry.decision.evidence.iter();
            if entry.decision.verdict == Verdict::Allow {
                let by_key = facts.filter(|fact| fact.proof.signer.key() == Some(id));
                digests.extend(by_key.map(|fact| fact.subject));
            }
        })
    });
    if let Err(error) = found {
        complain(printable(&format!("error: the decision log cannot be read: {error}")));
        complain("nothing was changed");
        return Exit::Failed;
    }
    let done = edit::set_status(&config.trust, id, Status::Retired, &digests);
    edited(done.map(|(file, digests)| {
        format!(
            "key '{id}' is retired in {}; its signatures count for {} that this node allowed or you named",
            file.display(),
            count(digests, "digest")
        )
    }))
}

/// This node's own trust and its fleet's.
fn load(config: &Config) -> Result<Trust, Vec<Diagnostic>> {
    trust::load(&Sources::of(config).map_err(|fault| vec![fault])?.trust)
}

/// Refreshes each root that can be, and activates policy when one was.
fn update(config: &Config, from: Option<&Path>, only: Option<&str>) -> Exit {
    let trust = match load(config) {
        Ok(trust) => trust,
        Err(faults) => {
            show(&faults);
            return Exit::Failed;
        }
    };
    let roots: Vec<&Root> = trust
        .roots
        .iter()
        .filter(|root| only.is_none_or(|id| root.id == id))
        .filter(|root| matches!(root.source, RootSource::Builtin(_)))
        .collect();
    match (roots.as_slice(), from) {
        ([], _) if only.is_some_and(|id| trust.roots.iter().all(|root| root.id != id)) => {
            let known: Vec<&str> = trust.roots.iter().map(|root| root.id.as_str()).collect();
            complain(printable(&format!(
                "trust.d has no root '{}'; it has: {}",
                only.unwrap_or_default(),
                known.join(", ")
            )));
            return Exit::NotFound;
        }
        ([], _) => {
            complain(
                "trust.d lists no built-in root to refresh; a root from a file is refreshed by replacing the file",
            );
            return Exit::NotFound;
        }
        ([_, _, ..], Some(_)) => {
            complain("a mirror is a copy of one repository: name the root that it refreshes with --root ID");
            return Exit::Usage;
        }
        _ => {}
    }
    let state = match StateDir::open(&config.state) {
        Ok(state) => state,
        Err(error) => {
            complain(printable(&format!("error: {error}")));
            return Exit::Failed;
        }
    };
    let place = from.map_or(Place::Network, Place::Mirror);
    let mut failed = 0;
    for root in &roots {
        match update::update(&state, root, &place) {
            Ok(Some(updated)) => print(format_args!(
                "root '{}' is {} ({}); its repository vouches for it until {:.0}",
                root.id,
                if updated.changed {
                    "refreshed"
                } else {
                    "current already"
                },
                updated.digest,
                updated.expires
            )),
            Ok(None) => {}
            Err(error) => {
                failed += 1;
                let text = format!("error[{}]: root '{}': {error}", error.code(), root.id);
                complain(printable(&text));
                complain(format_args!("root '{}' stays as it was", root.id));
            }
        }
    }
    if failed == roots.len() {
        return Exit::Failed;
    }
    match super::policy::apply(config) {
        Exit::Done if failed > 0 => Exit::Failed,
        exit => exit,
    }
}

fn clock(config: &Config, reset: bool) -> Exit {
    let state = match StateDir::open(&config.state) {
        Ok(state) => state,
        Err(error) => {
            complain(printable(&format!("error: {error}")));
            return Exit::Failed;
        }
    };
    let mark = Mark::read(&state);
    if reset {
        if let Err(error) = Mark::reset(&state) {
            complain(printable(&format!("error: {error}")));
            return Exit::Failed;
        }
        match mark {
            Ok(Some(mark)) => print(printable(&format!("forgot that {mark} has passed"))),
            Ok(None) => print("there was nothing to forget"),
            Err(error) => print(printable(&format!(
                "removed the record of the latest known time: {error}"
            ))),
        }
    }
    let now = Clock::read(&state);
    match Mark::read(&state) {
        Ok(mark) => {
            let mark = mark.map_or_else(|| "nothing is known".to_owned(), |mark| mark.to_string());
            print(format_args!("this node's clock    {:.0}", now.now));
            print(printable(&format!(
                "latest time that is known to have passed    {mark}"
            )));
            if now.is_behind() {
                complain(
                    "the clock is behind: what holds only for a time counts for nothing until it is set; if it is \
                     right: assay trust clock --reset",
                );
                return Exit::Failed;
            }
            Exit::Done
        }
        Err(error) => {
            complain(printable(&format!("error: {error}")));
            Exit::Corrupt
        }
    }
}

/// What `show` says to programs.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    /// Whether the active policy holds the same; none where only root may read that.
    in_force: Option<bool>,
    keys: Vec<ShownKey<'a>>,
    roots: Vec<ShownRoot<'a>>,
    builders: &'a [Builder],
    stores: Vec<ShownStore<'a>>,
}

/// A trust store of the Notary Project, by how much is in it.
#[derive(Debug, Serialize)]
struct ShownStore<'a> {
    id: &'a str,
    ca: usize,
    signing_authority: usize,
    tsa: usize,
    crls: usize,
}

#[derive(Debug, Serialize)]
struct ShownKey<'a> {
    id: &'a str,
    status: &'static str,
    r#use: Vec<&'static str>,
    hash: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Timestamp>,
    /// Digests for which a retired key still counts.
    digests: &'a [Digest],
    /// SHA-256 of its SubjectPublicKeyInfo.
    fingerprint: Digest,
}

#[derive(Debug, Serialize)]
struct ShownRoot<'a> {
    id: &'a str,
    source: String,
    digest: Digest,
    /// When it was known to be current.
    #[serde(skip_serializing_if = "Option::is_none")]
    as_of: Option<Timestamp>,
    /// How long ago that was.
    #[serde(skip_serializing_if = "Option::is_none")]
    days: Option<i64>,
    /// When it ceases to count, by the `max_age` of its entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Timestamp>,
    entries: Vec<trust::listing::Listed>,
}

fn show_trust(config: &Config, output: Output) -> Exit {
    let trust = match load(config) {
        Ok(trust) => trust,
        Err(faults) => {
            show(&faults);
            return Exit::Failed;
        }
    };
    show(&trust.warnings);
    let state = config
        .state
        .exists()
        .then(|| StateDir::open(&config.state).ok())
        .flatten();
    let mut trust = trust;
    let mut dates = Vec::new();
    for root in &mut trust.roots {
        let current = match &state {
            Some(state) => update::current(state, root),
            None => Ok((root.clone(), update::as_of(root))),
        };
        match current {
            Ok((current, as_of)) => {
                *root = current;
                dates.push(as_of);
            }
            Err(error) => {
                complain(printable(&format!(
                    "warning: the refreshed root '{}' cannot be used: {error}",
                    root.id
                )));
                dates.push(update::as_of(root));
            }
        }
    }
    let trust = trust;
    let shown = Shown {
        in_force: is_in_force(config, &trust),
        keys: trust.keys.iter().map(ShownKey::new).collect(),
        roots: trust
            .roots
            .iter()
            .zip(dates)
            .map(|(root, as_of)| ShownRoot::new(root, as_of))
            .collect(),
        builders: &trust.builders,
        stores: trust
            .notation
            .iter()
            .map(|store| ShownStore {
                id: &store.id,
                ca: store.ca.len(),
                signing_authority: store.signing_authority.len(),
                tsa: store.tsa.len(),
                crls: store.crls.len(),
            })
            .collect(),
    };
    match output {
        Output::Json => match crate::diagnostic::json(&shown) {
            Ok(json) => print(json),
            Err(error) => {
                complain(format_args!("error: trust cannot be written as JSON: {error}"));
                return Exit::Internal;
            }
        },
        Output::Text => print(shown.text(&config.trust)),
    }
    Exit::Done
}

/// `None` where it cannot be told for want of rights.
fn is_in_force(config: &Config, trust: &Trust) -> Option<bool> {
    let state = match StateDir::open(&config.state) {
        Ok(state) => state,
        Err(error) => return (!error.is_denied()).then_some(false),
    };
    Some(load_active(&state).is_ok_and(|(active, _)| {
        active.keys == trust.keys
            && active.roots == trust.roots
            && active.builders == trust.builders
            && active.notation == trust.notation
    }))
}

impl<'a> ShownKey<'a> {
    fn new(key: &'a Key) -> Self {
        Self {
            id: &key.id,
            status: key.status.name(),
            r#use: key.r#use.iter().map(|one| one.name()).collect(),
            hash: key.hash.name(),
            from: key.from,
            until: key.until,
            digests: &key.digests,
            fingerprint: Digest::of(&key.spki),
        }
    }
}

impl<'a> ShownRoot<'a> {
    fn new(root: &'a Root, as_of: Option<Timestamp>) -> Self {
        Self {
            id: &root.id,
            source: root.source.to_string(),
            digest: root.digest,
            as_of,
            days: as_of.map(|as_of| Timestamp::now().duration_since(as_of).as_hours() / 24),
            until: root.until(),
            entries: root.usable().map(|usable| usable.list()).unwrap_or_default(),
        }
    }
}

impl Shown<'_> {
    fn text(&self, place: &Path) -> String {
        let mut text = String::new();
        let mut rows = vec![["KEY", "STATUS", "USE", "HASH", "WINDOW", "FINGERPRINT"].map(str::to_owned)];
        rows.extend(self.keys.iter().map(|key| {
            let status = match key.digests.len() {
                0 => key.status.to_owned(),
                digests => format!("{}, {}", key.status, count(digests, "digest")),
            };
            let fingerprint = key.fingerprint.to_string().chars().take(19).collect();
            [
                key.id.to_owned(),
                status,
                key.r#use.join(","),
                key.hash.to_owned(),
                window(key.from, key.until),
                fingerprint,
            ]
        }));
        if !self.keys.is_empty() {
            table(&mut text, &rows);
        }
        for root in &self.roots {
            let age = root.days.map_or_else(String::new, |days| {
                format!(", {} old", count(usize::try_from(days).unwrap_or(0), "day"))
            });
            let until = root
                .until
                .map_or_else(String::new, |until| format!(", counts until {until:.0}"));
            let is_over = root.until.is_some_and(|until| until <= Timestamp::now());
            let old = is_over || root.days.is_some_and(|days| days >= update::OLD.as_hours() / 24);
            let old = if old { "; run: assay trust update" } else { "" };
            let _ = write!(
                text,
                "
ROOT {}  {}  {}{age}{until}{old}",
                root.id, root.source, root.digest
            );
            let rows: Vec<_> = root
                .entries
                .iter()
                .map(|entry| {
                    [
                        "".to_owned(),
                        entry.kind.to_string(),
                        entry.name.clone(),
                        window(entry.from, entry.until),
                        entry.id.clone(),
                    ]
                })
                .collect();
            text.push('\n');
            table(&mut text, &rows);
        }
        if !self.builders.is_empty() {
            let mut rows = vec![["BUILDER", "LEVEL", "ID"].map(str::to_owned)];
            rows.extend(
                self.builders
                    .iter()
                    .map(|builder| [builder.name.clone(), builder.level.to_string(), builder.id.clone()]),
            );
            text.push('\n');
            table(&mut text, &rows);
        }
        if !self.stores.is_empty() {
            let mut rows = vec![["TRUST STORE", "CA", "SIGNING AUTHORITY", "TSA", "CRL"].map(str::to_owned)];
            rows.extend(self.stores.iter().map(|store| {
                let [ca, authority, tsa, crls] =
                    [store.ca, store.signing_authority, store.tsa, store.crls].map(|count| count.to_string());
                [store.id.to_owned(), ca, authority, tsa, crls]
            }));
            text.push('\n');
            table(&mut text, &rows);
        }
        if text.is_empty() {
            let _ = writeln!(text, "{} lists nobody", place.display());
        }
        text.push_str(match self.in_force {
            Some(true) => "the active policy holds the same",
            Some(false) => "this is not what is in force on this node; to put it in force: assay policy apply",
            None => "whether it is in force on this node, only root can see: run it as root",
        });
        text.lines()
            .map(printable)
            .collect::<Vec<_>>()
            .join("\n")
            .trim_start()
            .to_owned()
    }
}

fn window(from: Option<Timestamp>, until: Option<Timestamp>) -> String {
    let day = |time: Timestamp| time.strftime("%Y-%m-%d").to_string();
    match (from.map(day), until.map(day)) {
        (None, None) => "always".to_owned(),
        (from, until) => format!("{} to {}", from.unwrap_or_default(), until.unwrap_or_default())
            .trim()
            .to_owned(),
    }
}

/// Columns as wide as what is in them.
fn table<const N: usize>(text: &mut String, rows: &[[String; N]]) {
    let widths: Vec<usize> = (0..N)
        .map(|column| {
            rows.iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
}
