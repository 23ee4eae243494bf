//! `assay grant`: break-glass. Makes, adds, lists and revokes grants.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::builder::NonEmptyStringValueParser;
use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp};
use serde::Serialize;

use super::{Exit, Output, columns, complain, print};
use crate::admission::{self, Verdict, log};
use crate::config::Config;
use crate::diagnostic::printable;
use crate::digest::Digest;
use crate::grant::sign::{self, PrivateKey, SignError};
use crate::grant::{
    self, Fault, Grant, Grants, Held, LONGEST, MAX_ENVELOPE, Scope, State, Subject, Unsigned, Unusable,
};
use crate::policy::Active;
use crate::policy::activate::{LoadError, load_active};
use crate::store::{self, Bookmark, StateDir};
use crate::trust::clock::Clock;

/// Largest file with a signature in bytes.
const MAX_SIGNATURE: u64 = 8 << 10;

/// Arguments of `assay grant`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    new: Option<New>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Add a grant that was signed on another machine
    Add {
        /// A file that 'assay grant --output' wrote, or with --signature one that 'assay grant --unsigned' wrote
        file: PathBuf,
        /// The signature of the file, as it is or in base64, made by 'cosign sign-blob' or 'openssl dgst -sign', for example
        #[arg(long, value_name = "FILE")]
        signature: Option<PathBuf>,
    },
    /// List the grants of this node, and how often each was used
    Ls {
        /// What the list is written as
        #[arg(long, short, value_enum, default_value_t)]
        output: Output,
    },
    /// Take a grant back on this node, at once and for good
    Revoke {
        /// Its identifier, or the start of it
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        id: String,
    },
}

/// A grant to be made.
#[derive(Debug, clap::Args)]
#[group(id = "new")]
#[command(group = clap::ArgGroup::new("subject").required(true), group = clap::ArgGroup::new("signed").required(true))]
struct New {
    /// An image, by its digest (alone or after its name), or by its name in containerd's store
    #[arg(long, group = "subject", value_name = "IMAGE", value_parser = NonEmptyStringValueParser::new())]
    image: Option<String>,
    /// A container, by its whole id; with or without the containerd:// that kubectl shows
    #[arg(long, group = "subject", value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
    container: Option<String>,
    /// How long, such as 30m or 8h; 24h at most
    #[arg(long = "for", value_name = "TIME", value_parser = time)]
    lasting: SignedDuration,
    /// From when on, such as 2027-01-31T22:00:00Z; now, where it is not given
    #[arg(long, value_name = "TIME")]
    from: Option<Timestamp>,
    /// Why: it is shown wherever the grant is used
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Also open what [rule.exec] refuses to start in the container
    #[arg(long)]
    exec: bool,
    /// The node that it counts on, by its host name; this one, where neither is given
    #[arg(long, value_name = "NAME", conflicts_with = "fleet")]
    node: Option<String>,
    /// It counts on every node that trusts its key and is given it
    #[arg(long)]
    fleet: bool,
    /// File of the private key: PKCS #8 in PEM, or what 'cosign generate-key-pair' writes
    #[arg(long, group = "signed", value_name = "FILE")]
    key: Option<PathBuf>,
    /// Write what is to be signed elsewhere, to --output; 'assay grant add --signature' takes both
    #[arg(long, group = "signed", requires = "output")]
    unsigned: bool,
    /// Write the grant to a file for other nodes, and do not add it to this one
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// containerd namespace of the image or container
    #[arg(long, default_value = "k8s.io", value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    namespace: String,
    /// containerd's socket
    #[arg(long, default_value = "/run/containerd/containerd.sock", value_name = "PATH", value_parser = super::verify::socket)]
    address: String,
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
enum GrantError {
    #[error("{0}")]
    Grant(#[from] Fault),
    #[error("{0}")]
    Sign(#[from] SignError),
    #[error("{0}; {fix}", fix = .0.fix())]
    Policy(#[from] LoadError),
    #[error("{0}")]
    State(#[from] store::Error),
    #[error("the image is not known: {0}; {1}; or name it by its digest")]
    Image(String, String),
    #[error("{} is there already; name a file that is not", .0.display())]
    Exists(PathBuf),
    #[error("no identifier can be made: the system has no randomness")]
    Random,
}

/// A grant of the list, for programs.
#[derive(Debug, Serialize)]
struct Listed<'a> {
    grant: &'a Grant,
    key: &'a str,
    added: Timestamp,
    state: &'static str,
    note: String,
    uses: usize,
}

/// Makes, adds, lists or revokes.
#[must_use]
pub fn run(args: &Args, config: &Config) -> Exit {
    let done = match (&args.command, &args.new) {
        (Some(Command::Add { file, signature }), _) => {
            envelope(file, signature.as_deref()).and_then(|envelope| add(config, &envelope))
        }
        (Some(Command::Ls { output }), _) => list(config, *output),
        (Some(Command::Revoke { id }), _) => revoke(config, id),
        (None, Some(new)) => make(config, new),
        // The command line asks for one or the other.
        (None, None) => return Exit::Usage,
    };
    let Err(error) = done else { return Exit::Done };
    let code = match &error {
        GrantError::Grant(fault) => format!("[{}]", fault.code()),
        GrantError::Policy(error) => format!("[{}]", error.code()),
        _ => String::new(),
    };
    complain(printable(&format!("error{code}: {error}")));
    match error {
        GrantError::Grant(Fault::Missing(_)) | GrantError::Image(..) => Exit::NotFound,
        GrantError::Grant(Fault::Unknown | Fault::KeyUse(_) | Fault::KeyEnded { .. }) => Exit::SignatureInvalid,
        _ => Exit::Failed,
    }
}

/// A time span such as `30m`, of at most a day.
fn time(text: &str) -> Result<SignedDuration, String> {
    let span: Option<Span> = text.parse().ok();
    span.and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()).ok())
        .filter(|time| time.is_positive() && *time <= LONGEST)
        .ok_or_else(|| format!("'{text}' is not a time such as 30m or 8h, of 24h at most"))
}

fn make(config: &Config, new: &New) -> Result<(), GrantError> {
    let unsigned = Unsigned::new(&grant(new)?)?;
    let Some(key) = &new.key else {
        return write(new, &unsigned.message());
    };
    let signature = PrivateKey::read(key, sign::password)?.sign(&unsigned.message())?;
    let envelope = unsigned.sealed(&signature)?;
    match &new.output {
        Some(_) => write(new, &envelope),
        None => add(config, &envelope),
    }
}

/// What the arguments ask for.
fn grant(new: &New) -> Result<Grant, GrantError> {
    let mut id = [0; 16];
    aws_lc_rs::rand::fill(&mut id).map_err(|_| GrantError::Random)?;
    let scope = match (&new.node, new.fleet) {
        (_, true) => Scope::Fleet,
        (Some(node), _) => Scope::Node(node.clone()),
        (None, false) => Scope::Node(grant::node()),
    };
    let not_before = new.from.unwrap_or_else(Timestamp::now);
    let (digest, container) = (new.image.as_deref(), new.container.as_deref());
    let subject = match (digest, container) {
        (Some(image), _) => Subject::Image(digest_of(new, image)?),
        (_, container) => {
            let id = container.unwrap_or_default();
            Subject::container(&new.namespace, id.strip_prefix("containerd://").unwrap_or(id))
        }
    };
    Ok(Grant {
        version: grant::VERSION,
        id: hex::encode(id),
        subject,
        scope,
        exec: new.exec,
        reason: new.reason.clone(),
        owner: owner(),
        not_before,
        not_after: not_before.saturating_add(new.lasting).unwrap_or(Timestamp::MAX),
    })
}

fn digest_of(new: &New, image: &str) -> Result<Digest, GrantError> {
    let named = image.rsplit_once('@').map_or(image, |(_, digest)| digest);
    if let Ok(digest) = named.parse() {
        return Ok(digest);
    }
    let found =
        admission::image(&new.address, &new.namespace, image).map_err(|(why, fix)| GrantError::Image(why, fix))?;
    // Not an index that lists it: others may list it too, beside what nobody asked for.
    Ok(*found.manifests.first().unwrap_or(&found.config))
}

/// Who runs this, as far as is known: behind sudo, whoever called it.
fn owner() -> String {
    let named = |name: &str| std::env::var(name).ok().filter(|name| !name.is_empty());
    let user = || format!("user {}", rustix::process::getuid().as_raw());
    let name = named("SUDO_USER").or_else(|| named("USER")).unwrap_or_else(user);
    printable(&name).chars().take(80).collect()
}

fn write(new: &New, bytes: &[u8]) -> Result<(), GrantError> {
    let Some(path) = &new.output else { return Ok(()) };
    let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
    // It may be the very key that was named.
    if path.exists() {
        return Err(GrantError::Exists(path));
    }
    store::replace(&path, bytes, 0o644)?;
    let next = if new.unsigned {
        format!(
            "sign it and run, on the node: assay grant add {0} --signature SIGNATURE",
            path.display()
        )
    } else {
        format!("run on each node that it is for: assay grant add {}", path.display())
    };
    complain(printable(&format!("{} is written; {next}", path.display())));
    Ok(())
}

/// What is to be added.
fn envelope(file: &Path, signature: Option<&Path>) -> Result<Vec<u8>, GrantError> {
    let bytes = store::read_bounded(file, MAX_ENVELOPE)?;
    let Some(signature) = signature else {
        return Ok(bytes);
    };
    let signature = store::read_bounded(signature, MAX_SIGNATURE)?;
    Ok(Unsigned::of_message(&bytes)?.sealed(&sign::decoded(&signature))?)
}

/// What grants are judged by on this node.
fn ground(config: &Config) -> Result<(StateDir, Active, Clock), GrantError> {
    let state = StateDir::open(&config.state)?;
    let (active, _) = load_active(&state)?;
    let clock = Clock::read(&state);
    Ok((state, active, clock))
}

fn add(config: &Config, envelope: &[u8]) -> Result<(), GrantError> {
    let (state, active, clock) = ground(config)?;
    let held = grant::add(&state, envelope, &active, clock, |record| log::record(&state, record))?;
    let opens = if held.grant.exec { "start and exec" } else { "start" };
    let counts = match &held.state {
        State::Active { until } => format!("until {until:.0}"),
        State::Not(_) => format!("from {:.0} to {:.0}", held.grant.not_before, held.grant.not_after),
    };
    print(printable(&format!(
        "grant {} opens {opens} of {} on {}, {counts}",
        held.grant.id, held.grant.subject, held.grant.scope
    )));
    Ok(())
}

fn revoke(config: &Config, id: &str) -> Result<(), GrantError> {
    let (state, active, clock) = ground(config)?;
    let grant = grant::revoke(&state, id, &active, clock, |record| log::record(&state, record))?;
    print(printable(&format!(
        "grant {} of {} is revoked on this node",
        grant.id, grant.subject
    )));
    Ok(())
}

fn list(config: &Config, output: Output) -> Result<(), GrantError> {
    let (state, active, clock) = ground(config)?;
    let Grants { held, faults } = Grants::load(&state, &active, clock);
    let uses = uses(&state)?;
    let listed: Vec<Listed<'_>> = held
        .iter()
        .map(|held| {
            let (state, note) = standing(held);
            Listed {
                grant: &held.grant,
                key: &held.key,
                added: held.added,
                state,
                note,
                uses: uses.get(&held.grant.id).copied().unwrap_or_default(),
            }
        })
        .collect();
    for Unusable { name, fault, .. } in &faults {
        complain(printable(&format!(
            "note: grant {name} does not count: {}: {fault}",
            fault.code()
        )));
    }
    match output {
        Output::Json => {
            // Strings, numbers and lists only: there is always a JSON form.
            print(crate::diagnostic::json(&listed).unwrap_or_default());
        }
        Output::Text if listed.is_empty() && faults.is_empty() => complain("this node has no grants"),
        Output::Text if listed.is_empty() => {}
        Output::Text => {
            let mut table = columns(&[
                "ID", "STATE", "USED", "UNTIL", "OPENS", "SUBJECT", "KEY", "OWNER", "REASON",
            ]);
            for line in &listed {
                let Grant {
                    id,
                    not_after,
                    exec,
                    subject,
                    owner,
                    reason,
                    ..
                } = line.grant;
                let cells = [
                    id.get(..12).unwrap_or(id).to_owned(),
                    line.state.to_owned(),
                    line.uses.to_string(),
                    format!("{not_after:.0}"),
                    (if *exec { "start, exec" } else { "start" }).to_owned(),
                    subject.to_string(),
                    line.key.to_owned(),
                    owner.clone(),
                    reason.clone(),
                ];
                table.add_row(cells.map(|cell| printable(&cell).into_owned()));
            }
            print(table.trim_fmt());
        }
    }
    Ok(())
}

/// Where a grant stands, in a word, and more about it.
fn standing(held: &Held) -> (&'static str, String) {
    match &held.state {
        State::Active { .. } => ("active", String::new()),
        State::Not(fault) => {
            let word = match fault {
                Fault::Pending(_) => "pending",
                Fault::Expired(_) => "expired",
                Fault::Revoked(_) => "revoked",
                _ => "not in force",
            };
            (word, format!("{}: {fault}", fault.code()))
        }
    }
}

/// How often each grant was used, as far as the log goes back.
fn uses(state: &StateDir) -> Result<BTreeMap<String, usize>, GrantError> {
    let mut uses: BTreeMap<String, usize> = BTreeMap::new();
    log::follow(state, &mut Bookmark::default(), |line| {
        let (granted, verdict) = match line {
            log::Line::Decision(entry) => (entry.decision.grant, entry.decision.verdict),
            log::Line::Exec(_, record) => (record.grant, record.verdict),
            log::Line::Reevaluation(..) | log::Line::Grant(..) => return,
        };
        if let (Some(granted), Verdict::Allow) = (granted, verdict) {
            *uses.entry(granted.id).or_default() += 1;
        }
    })?;
    Ok(uses)
}
