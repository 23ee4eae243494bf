//! Asking a parser what a container needs of its image: SBOM, package databases, scripts and ELF files are read in a
//! cage, after the verdict.
//!
//! The child is this same program, started with [`ARGUMENT`]. Its root is the image's layers; the SBOM and what is
//! mounted over the image are further descriptors. It says which paths stay visible; the broker checks the form of what
//! it says, and the paths once more against the layers when it builds the view. A parser that was broken into can hide
//! too much, which breaks the container, or too little, which leaves what there was before; it can widen nothing.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::process::{Command, ExitCode};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::child::{self, ChildFault};
use super::roots::Roots;
use super::sandbox;
use super::survey::{self, Package, Survey};
use crate::attest::predicate;
use crate::closure::{self, Class, Closure, Rules};
use crate::diagnostic::printable;
use crate::digest::Digest;
use crate::packages::{self, Inventory, PackageId, Standing, Standings, Verdict};
use crate::policy::Level;
use crate::sbom::{self, Sbom};
use crate::syscalls::Order;
use crate::tree::{Kind, MAX_NODES, Tree};

/// First argument of a parser of an image; the second is the number of the descriptor of its root.
pub const ARGUMENT: &str = "parse-needs";

/// Largest question in bytes.
const MAX_QUESTION: u64 = 16 << 20;
/// Largest answer in bytes: the paths of a large image.
const MAX_ANSWER: u64 = 128 << 20;
/// Largest statement in bytes.
pub(super) const MAX_STATEMENT: u64 = 64 << 20;
/// Largest mounted file in bytes that is read as a program or script.
const MAX_FILE: u64 = 64 << 20;
/// Most members of all processes together.
const MAX_MEMBERS: usize = 1 << 18;
/// Most entries of each list that a decision shows.
const MAX_LISTED: usize = 64;
/// Longest text of a list, in characters.
const MAX_TEXT: usize = 400;

/// What is asked about an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    pub(super) roots: Roots,
    pub(super) level: Level,
    pub(super) exec: Vec<String>,
    pub(super) keep: Vec<String>,
    /// Directories that the image declares as volumes.
    pub(super) volumes: Vec<String>,
    /// Digest of the SBOM that was verified; none where the package databases of the image have to do.
    pub(super) sbom: Option<Digest>,
    /// Rules that the administrator adds to the built-in ones, file by file.
    pub(super) rules: Vec<(String, String)>,
    /// Everything stays visible; asked is only what can run.
    pub(super) everything: bool,
    /// A path whose reason is asked for.
    pub(super) explain: Option<String>,
    /// Whether every name of the image is to be listed.
    pub(super) survey: bool,
}

/// The question with the numbers of the descriptors that go with it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Posed {
    question: Question,
    /// Statements or their envelopes, of which one holds the SBOM.
    statements: Vec<RawFd>,
    /// What is mounted, in the order of the mounts that have content.
    contents: Vec<RawFd>,
}

/// What a container needs of its image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Needs {
    /// Paths that stay visible, without links before their last component.
    pub keep: BTreeSet<String>,
    /// ELF files among them and in mounts that the analysis of system calls has to read.
    pub objects: Vec<Elf>,
    /// Search orders of the processes, as indexes of `objects`.
    pub processes: Vec<Order>,
    /// Search orders of what is loaded into a running process.
    pub plugins: Vec<Order>,
    /// Needed executables of packages that the SBOM lacks, or lists in another version: path, package, what it lists.
    pub unlisted: Vec<Unlisted>,
    /// Needed executables that no package owns.
    pub unattested: Vec<String>,
    /// What could not be followed, and why.
    pub unfollowed: Vec<String>,
    /// Why the system calls of `objects` are not all that the container makes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub foreign: Vec<String>,
    /// What is wrong with the image.
    pub findings: Vec<String>,
    /// Image against view.
    pub counts: Counts,
    /// Why the path that was asked about is visible or hidden.
    pub explanation: Vec<String>,
    /// Every name of the image, where it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub survey: Option<Survey>,
}

/// An ELF file that can run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Elf {
    /// Where the container sees it, without links.
    pub path: String,
    /// The number of the mount in which it lies, and its path there; none for a file of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount: Option<(u32, String)>,
    /// It loads programs.
    #[serde(default)]
    pub is_interpreter: bool,
    /// Name and version of its package; empty where none owns it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub package: String,
    /// What accounts for it: the attested SBOM, or the package database of the image.
    #[serde(default)]
    pub standing: Accounted,
}

/// What accounts for a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accounted {
    /// The attested SBOM.
    Sbom,
    /// The package database in the image.
    Database,
    /// Nothing.
    #[default]
    Nobody,
}

/// A needed executable that the SBOM does not cover.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unlisted {
    /// The executable.
    pub path: String,
    /// Name and version of its package in the image.
    pub package: String,
    /// As what the SBOM lists it instead; empty where it does not.
    pub instead: Vec<String>,
}

/// How much of an image a view shows: of the image, of the view.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Regular files.
    pub files: (u64, u64),
    /// Their bytes.
    pub bytes: (u64, u64),
    /// Programs, libraries and scripts.
    pub executables: (u64, u64),
    /// Set-uid and set-gid executables.
    pub set_id: (u64, u64),
    /// Packages with a file.
    pub packages: (u64, u64),
}

/// Why it is not known what a container needs.
#[derive(Debug, thiserror::Error)]
pub(super) enum NeedsFault {
    /// The parser gave no answer.
    #[error("the image parser {0}")]
    Child(#[from] ChildFault),
    /// It said something that is no answer.
    #[error("the image parser's answer is unusable: {0}")]
    Garbage(String),
    /// The image or its SBOM cannot be read.
    #[error("{0}")]
    Image(String),
    /// There is more to ask than fits.
    #[error("there is more to ask about the image than {MAX_QUESTION} bytes hold")]
    QuestionTooLarge,
}

impl NeedsFault {
    /// Stable code of the decision.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Child(ChildFault::Start(_)) => "image-parser-start",
            Self::Child(ChildFault::Sandbox(_)) => "image-parser-sandbox",
            Self::Child(ChildFault::Timeout(_)) => "image-parser-timeout",
            Self::Child(ChildFault::Crashed(_)) => "image-parser-crashed",
            Self::Child(ChildFault::TooLarge(_)) => "image-parser-oversize",
            Self::Garbage(_) => "image-parser-garbage",
            Self::Image(_) => "image-unreadable",
            Self::QuestionTooLarge => "image-question",
        }
    }

    /// What to do next.
    pub(super) fn fix(&self) -> &'static str {
        match self {
            Self::Child(ChildFault::Start(_)) => "free memory or processes on this node and start the container again",
            Self::Child(ChildFault::Sandbox(_)) => {
                "use Linux 5.12 or newer, and let assay admit create mount, network and IPC namespaces"
            }
            Self::Child(ChildFault::Timeout(_)) => "raise admit_timeout in /etc/assay/config.toml",
            Self::Child(_) | Self::Garbage(_) => {
                "run an earlier build of the image and report this one: its files may be made to break the parser"
            }
            Self::Image(_) => "rebuild the image or its SBOM; assay sbom IMAGE says more",
            Self::QuestionTooLarge => "shorten the arguments, the environment or the rules",
        }
    }
}

/// What a parser says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Reply {
    Needs(Box<Needs>),
    Unreadable(String),
}

/// Has a parser find out what a container needs.
///
/// # Errors
///
/// See [`NeedsFault`]; the parser is dead when this returns.
pub(super) fn ask(
    root: BorrowedFd<'_>,
    question: Question,
    statements: &[File],
    contents: &[OwnedFd],
    deadline: Instant,
) -> Result<Needs, NeedsFault> {
    // Inherited by the child, so these copies must not be closed on exec. Nothing else is started meanwhile.
    let io_fault = |error: rustix::io::Errno| ChildFault::Start(error.into());
    let inherit = |fd: BorrowedFd<'_>| rustix::io::dup(fd).map_err(io_fault);
    use std::os::fd::AsFd as _;
    let root = inherit(root)?;
    let statements: Vec<OwnedFd> = statements
        .iter()
        .map(|file| inherit(file.as_fd()))
        .collect::<Result<_, _>>()?;
    let contents: Vec<OwnedFd> = contents
        .iter()
        .map(|fd| inherit(fd.as_fd()))
        .collect::<Result<_, _>>()?;
    let numbers = |list: &[OwnedFd]| list.iter().map(std::os::fd::AsRawFd::as_raw_fd).collect::<Vec<_>>();
    let posed = Posed {
        question,
        statements: numbers(&statements),
        contents: numbers(&contents),
    };
    let json = serde_json::to_vec(&posed).map_err(|error| ChildFault::Start(error.into()))?;
    if json.len() as u64 > MAX_QUESTION {
        return Err(NeedsFault::QuestionTooLarge);
    }
    let mut command = Command::new("/proc/self/exe");
    command.args([ARGUMENT, &root.as_raw_fd().to_string()]);
    // Before it shuts itself in, it has to know which descriptors to keep.
    command.args(statements.iter().chain(&contents).map(|fd| fd.as_raw_fd().to_string()));
    let answer = child::run(command, &json, MAX_ANSWER, deadline)?;
    accept(&answer)
}

/// Reads what a parser said and accepts only what can be an answer.
fn accept(reply: &[u8]) -> Result<Needs, NeedsFault> {
    let garbage = |what: &str| NeedsFault::Garbage(what.to_owned());
    let reply: Reply = serde_json::from_slice(reply)
        .map_err(|error| NeedsFault::Garbage(format!("not a reply at column {}", error.column())))?;
    let needs = match reply {
        Reply::Needs(needs) => needs,
        Reply::Unreadable(why) => {
            return Err(NeedsFault::Image(printable(&why).chars().take(MAX_TEXT).collect()));
        }
    };
    if needs.keep.len() > MAX_NODES || needs.objects.len() > MAX_NODES {
        return Err(garbage("it keeps more files than an image has"));
    }
    let orders = || needs.processes.iter().chain(&needs.plugins);
    if orders().flatten().flatten().any(|index| *index >= needs.objects.len())
        || orders()
            .map(|order| order.iter().map(Vec::len).sum::<usize>())
            .sum::<usize>()
            > MAX_MEMBERS
    {
        return Err(garbage("it puts files into processes that it does not list"));
    }
    let is_path = |path: &String| {
        path.starts_with('/')
            && !path.contains('\0')
            && (path == "/" || path.split('/').skip(1).all(|name| !matches!(name, "" | "." | "..")))
    };
    let objects = needs.objects.iter().flat_map(|elf| {
        let mounted = elf.mount.iter().map(|(_, path)| path);
        mounted.chain([&elf.path])
    });
    let surveyed = needs
        .survey
        .iter()
        .flat_map(|survey| &survey.names)
        .map(|name| &name.path);
    if !needs.keep.iter().chain(objects).chain(surveyed).all(is_path) {
        return Err(garbage("it has a path that is none"));
    }
    let lists = [
        &needs.unattested,
        &needs.unfollowed,
        &needs.foreign,
        &needs.findings,
        &needs.explanation,
    ];
    let unlisted = needs
        .unlisted
        .iter()
        .flat_map(|one| one.instead.iter().chain([&one.path, &one.package]));
    let is_text = |text: &String| text.chars().count() <= MAX_TEXT && printable(text) == text.as_str();
    if let Some(survey) = &needs.survey
        && (survey.names.len() > MAX_NODES
            || survey.packages.len() > MAX_NODES
            || !survey.packages.iter().flat_map(Package::texts).all(is_text))
    {
        return Err(garbage("it surveys what no image has"));
    }
    if lists.iter().any(|list| list.len() > MAX_LISTED)
        || needs.unlisted.len() > MAX_LISTED
        || !lists.into_iter().flatten().chain(unlisted).all(is_text)
        || !needs.objects.iter().all(|elf| is_text(&elf.package))
    {
        return Err(garbage("it has a text that cannot be shown"));
    }
    Ok(*needs)
}

/// The parser's own `main`: shuts itself in, reads the question, reads the image, answers. `arguments` are the numbers of
/// the descriptor of its root and of those that it keeps beside it.
#[must_use]
pub fn main(root: &str, further: &[String]) -> ExitCode {
    let further: Vec<RawFd> = further.iter().filter_map(|number| number.parse().ok()).collect();
    let root = match child::enter(root, |root| sandbox::enter_image(sandbox::Root::Mount(root), &further)) {
        Ok(root) => root,
        Err(status) => return status,
    };
    match answer(root) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(child::NO_PIPE),
    }
}

fn answer(root: OwnedFd) -> io::Result<()> {
    let mut bytes = Vec::new();
    io::stdin().take(MAX_QUESTION).read_to_end(&mut bytes)?;
    let posed: Posed = serde_json::from_slice(&bytes)?;
    let reply = match find_out(root, posed) {
        Ok(needs) => Reply::Needs(Box::new(needs)),
        Err(why) => Reply::Unreadable(why),
    };
    serde_json::to_writer(io::BufWriter::new(io::stdout().lock()), &reply)?;
    Ok(())
}

fn find_out(root: OwnedFd, posed: Posed) -> Result<Needs, String> {
    let question = posed.question;
    let tree = Tree::scan(root).map_err(|error| error.to_string())?;
    let inventory = packages::scan(&tree);
    let sbom = match question.sbom {
        Some(digest) => Some(attested(digest, posed.statements)?),
        None => None,
    };
    let standings = packages::standing(&inventory, sbom.as_ref());
    let rules = Rules::with(&question.rules).map_err(|faults| match faults.first() {
        Some(fault) => fault.line(),
        None => "the rules of closure.d cannot be read".to_owned(),
    })?;
    let roots = starts(&question, posed.contents);
    let eligible = |id| matches!(standings.package(id), Some(Verdict::Attested | Verdict::Database));
    if question.everything {
        let closure = closure::everything(&tree, &inventory, &rules, &roots);
        let mut needs = Needs::default();
        can_run(&tree, &inventory, &standings, &closure, &mut needs);
        return Ok(needs);
    }
    let closure = closure::close(&tree, &inventory, &rules, &roots, question.level, &eligible);
    let mut needs = weigh(&tree, &inventory, &standings, &closure, question.explain.as_deref());
    if question.survey {
        needs.survey = Some(survey::of(&tree, &inventory, &standings, &closure, &needs.keep));
    }
    Ok(needs)
}

/// The SBOM among the statements: the one whose predicate has the digest that was verified.
fn attested(digest: Digest, statements: Vec<RawFd>) -> Result<Sbom, String> {
    for number in statements {
        let Some(file) = child::inherited(&number.to_string()) else {
            continue;
        };
        let mut bytes = Vec::new();
        if File::from(file).take(MAX_STATEMENT).read_to_end(&mut bytes).is_err() {
            continue;
        }
        if let Some(predicate) = predicate::find(&bytes, digest) {
            return sbom::read(&predicate).map_err(|error| error.to_string());
        }
    }
    Err(format!(
        "the SBOM whose predicate is {digest} is not in the evidence that was verified"
    ))
}

fn starts(question: &Question, contents: Vec<RawFd>) -> closure::Roots {
    let mut contents = contents.into_iter();
    let mounts = question.roots.mounts.iter().map(|mount| {
        let content = mount.content.as_ref().and_then(|content| {
            let descriptor = child::inherited(&contents.next()?.to_string())?;
            Some(match content.file {
                None => closure::Content::Tree(Tree::scan(descriptor).ok()?),
                Some(mode) => {
                    let mut bytes = Vec::new();
                    File::from(descriptor).take(MAX_FILE).read_to_end(&mut bytes).ok()?;
                    closure::Content::File(bytes, mode)
                }
            })
        });
        closure::Mounted {
            destination: mount.destination.clone(),
            writable: mount.writable,
            programs: mount.programs,
            content: content.unwrap_or(closure::Content::Unknown),
        }
    });
    closure::Roots {
        mounts: mounts.collect(),
        args: question.roots.args.clone(),
        env: question.roots.env.clone(),
        cwd: question.roots.cwd.clone(),
        exec: question.exec.clone(),
        keep: question.keep.clone(),
        volumes: question.volumes.clone(),
    }
}

/// Wanted and eligible: what stays visible, and what is to be said about it.
fn weigh(
    tree: &Tree,
    inventory: &Inventory,
    standings: &Standings<'_>,
    closure: &Closure,
    explain: Option<&str>,
) -> Needs {
    let mut needs = Needs::default();
    let mut packages = (BTreeSet::new(), BTreeSet::new());
    for (path, node) in tree.nodes() {
        let kept = closure.kept.get(path).is_some_and(|kept| !kept.is_mounted);
        let is_executable = closure.class(path) != Class::Data;
        let owner = inventory.owner(path);
        let standing = if kept { standings.file(tree, path) } else { None };
        let mut shown = kept;
        match standing {
            Some(Standing::Attributed) if node.is_file() && is_executable => {
                if let (true, Some(owner)) = (needs.unlisted.len() < MAX_LISTED, owner) {
                    needs.unlisted.push(unlisted(path, owner, inventory, standings));
                }
            }
            // Data of a package that the SBOM lacks is not what was attested.
            Some(Standing::Attributed) => shown = false,
            Some(Standing::Unattested) if node.is_file() && is_executable && needs.unattested.len() < MAX_LISTED => {
                needs.unattested.push(text(path));
            }
            _ => {}
        }
        if node.kind == Kind::File {
            let add = |count: &mut (u64, u64), much: u64| {
                count.0 += much;
                count.1 += if shown { much } else { 0 };
            };
            add(&mut needs.counts.files, 1);
            add(&mut needs.counts.bytes, node.size);
            if is_executable {
                add(&mut needs.counts.executables, 1);
            }
            if node.is_executable() && node.mode & 0o6000 != 0 {
                add(&mut needs.counts.set_id, 1);
            }
        }
        if let Some(owner) = owner {
            packages.0.insert(owner);
            if shown {
                packages.1.insert(owner);
            }
        }
        if shown {
            needs.keep.insert(path.to_owned());
        }
    }
    needs.counts.packages = (packages.0.len() as u64, packages.1.len() as u64);
    can_run(tree, inventory, standings, closure, &mut needs);
    let of_packages = inventory
        .findings
        .iter()
        .map(|finding| format!("{}: {}", finding.path, finding.text));
    needs.findings = (closure.findings.iter().cloned().chain(of_packages))
        .take(MAX_LISTED)
        .map(|finding| text(&finding))
        .collect();
    if let Some(path) = explain {
        needs.explanation = explanation(tree, inventory, closure, &needs, path)
            .iter()
            .take(MAX_LISTED)
            .map(|line| text(line))
            .collect();
    }
    needs
}

/// The ELF files that can run, how they meet, and what could not be followed.
fn can_run(tree: &Tree, inventory: &Inventory, standings: &Standings<'_>, closure: &Closure, needs: &mut Needs) {
    let paths: Vec<&String> = closure.objects.keys().collect();
    let index = |path: &String| paths.binary_search(&path).ok();
    let orders = |orders: &[closure::Order]| -> Vec<Order> {
        let order = |order: &closure::Order| {
            order
                .iter()
                .map(|place| place.iter().filter_map(index).collect())
                .collect()
        };
        orders.iter().map(order).collect()
    };
    needs.processes = orders(&closure.linked.processes);
    needs.plugins = orders(&closure.linked.plugins);
    needs.objects = paths
        .iter()
        .map(|path| {
            let place = closure.mounted_at(path);
            let owner = inventory.owner(path).filter(|_| place.is_none());
            let package = owner.and_then(|owner| inventory.package(owner));
            let by_hash = place.is_none() && matches!(standings.file(tree, path), Some(Standing::Attested));
            let standing = match owner.and_then(|owner| standings.package(owner)) {
                Some(Verdict::Attested) => Accounted::Sbom,
                Some(Verdict::Database) => Accounted::Database,
                _ if by_hash => Accounted::Sbom,
                _ => Accounted::Nobody,
            };
            Elf {
                path: (*path).clone(),
                mount: place.and_then(|(number, path)| Some((u32::try_from(*number).ok()?, path.clone()))),
                is_interpreter: closure.linked.interpreters.contains(*path),
                package: package.map_or_else(String::new, |package| {
                    text(&format!("{} {}", package.name, package.version))
                }),
                standing,
            }
        })
        .collect();
    needs.foreign = closure.foreign.iter().take(MAX_LISTED).map(|why| text(why)).collect();
    needs.unfollowed = (closure.unfollowed.iter())
        .take(MAX_LISTED)
        .map(|unfollowed| text(&format!("{} {}", unfollowed.what, unfollowed.why)))
        .collect();
}

fn unlisted(path: &str, owner: PackageId, inventory: &Inventory, standings: &Standings<'_>) -> Unlisted {
    let package = inventory.package(owner);
    let instead = match standings.package(owner) {
        Some(Verdict::Drift(listed)) => listed.iter().map(|listed| text(listed)).collect(),
        _ => Vec::new(),
    };
    Unlisted {
        path: text(path),
        package: package.map_or_else(String::new, |package| {
            text(&format!("{} {}", package.name, package.version))
        }),
        instead,
    }
}

/// What can be shown of a text from the image.
pub(super) fn text(text: &str) -> String {
    printable(text).chars().take(MAX_TEXT).collect()
}

/// Why a path is visible or hidden, from the root that leads to it.
fn explanation(tree: &Tree, inventory: &Inventory, closure: &Closure, needs: &Needs, path: &str) -> Vec<String> {
    let Some(resolved) = tree.resolve_parent(path) else {
        return vec![format!("{path} is not in the image")];
    };
    let path = resolved.path.as_str();
    if closure.kept.contains_key(path) && !needs.keep.contains(path) {
        let package = inventory.owner(path).and_then(|id| inventory.package(id));
        let package = package.map_or("its package", |package| package.name.as_str());
        return vec![format!(
            "{path} is hidden: the SBOM does not list {package} as it is installed"
        )];
    }
    closure
        .explain(path, inventory)
        .unwrap_or_else(|| vec![format!("{path} is not in the image")])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_breaks_the_parser_does_not_get_its_view_lifted() {
        let faults = [
            NeedsFault::Child(ChildFault::Crashed("signal 11".to_owned())),
            NeedsFault::Child(ChildFault::TooLarge(1)),
            NeedsFault::Child(ChildFault::Timeout(std::time::Duration::ZERO)),
            NeedsFault::Garbage("no JSON".to_owned()),
        ];
        for fault in faults {
            assert!(!fault.fix().contains("full"), "{fault}: {}", fault.fix());
        }
    }

    /// A Debian image of a shell and a tool, each of a package of its own.
    fn image() -> tempfile::TempDir {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str, mode: u32| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        write("usr/bin/tool", "#!/usr/bin/sh\necho done\n", 0o755);
        std::fs::copy("/bin/busybox", dir.path().join("usr/bin/sh")).unwrap();
        write("usr/bin/other", "#!/usr/bin/sh\n", 0o755);
        write("opt/own", "#!/usr/bin/sh\n", 0o755);
        write("etc/os-release", "ID=debian\nVERSION_ID=12\n", 0o644);
        let package = |name: &str| {
            format!("Package: {name}\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1.0-1\n\n")
        };
        write("var/lib/dpkg/status", &(package("tool") + &package("dash")), 0o644);
        write(
            "var/lib/dpkg/info/tool.list",
            "/.\n/usr/bin/tool\n/usr/bin/other\n",
            0o644,
        );
        write("var/lib/dpkg/info/dash.list", "/.\n/usr/bin/sh\n", 0o644);
        dir
    }

    fn needs(image: &tempfile::TempDir, program: &str, sbom: Option<&[&str]>) -> Needs {
        use std::io::Write as _;
        use std::os::fd::IntoRawFd as _;
        let packages: Vec<_> = sbom
            .unwrap_or_default()
            .iter()
            .map(|package| {
                let (name, version) = package.split_once(' ').unwrap();
                let purl = format!("pkg:deb/debian/{name}@{version}?arch=amd64&distro=debian-12");
                serde_json::json!({ "type": "library", "name": name, "version": version, "purl": purl })
            })
            .collect();
        let predicate = serde_json::json!({ "bomFormat": "CycloneDX", "specVersion": "1.5", "components": packages });
        let statement = format!(r#"{{"_type":"https://in-toto.io/Statement/v1","predicate":{predicate}}}"#);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(statement.as_bytes()).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        let question = Question {
            roots: Roots {
                args: vec![program.to_owned()],
                cwd: "/".to_owned(),
                ..Roots::default()
            },
            level: Level::Balanced,
            exec: Vec::new(),
            keep: Vec::new(),
            volumes: Vec::new(),
            sbom: sbom.map(|_| Digest::of(predicate.to_string().as_bytes())),
            rules: Vec::new(),
            everything: false,
            explain: Some("/usr/bin/other".to_owned()),
            survey: true,
        };
        let root = std::fs::File::open(image.path()).unwrap();
        let posed = Posed {
            question,
            statements: vec![file.into_raw_fd()],
            contents: Vec::new(),
        };
        find_out(root.into(), posed).unwrap()
    }

    #[test]
    fn the_sbom_decides_which_programs_may_be_needed() {
        let image = image();
        let all = needs(&image, "/usr/bin/tool", Some(&["tool 1.0-1", "dash 1.0-1"]));
        assert_eq!(all.unlisted, []);
        assert!(
            all.keep.contains("/usr/bin/tool") && all.keep.contains("/usr/bin/sh"),
            "{:?}",
            all.keep
        );
        assert!(
            !all.keep.contains("/usr/bin/other"),
            "{:?} {:?}",
            all.explanation,
            all.unfollowed
        );
        insta::assert_snapshot!(all.explanation.join("\n"), @"/usr/bin/other is hidden: nothing that the container runs starts it");

        let without = needs(&image, "/usr/bin/tool", Some(&["tool 1.0-1"]));
        let unlisted = |needs: &Needs| {
            needs
                .unlisted
                .iter()
                .map(|one| (one.path.clone(), one.instead.len()))
                .collect::<Vec<_>>()
        };
        assert_eq!(unlisted(&without), [("/usr/bin/sh".to_owned(), 0)]);
        let drifted = needs(&image, "/usr/bin/tool", Some(&["tool 1.0-2", "dash 1.0-1"]));
        assert_eq!(unlisted(&drifted), [("/usr/bin/tool".to_owned(), 1)]);
        assert_eq!(unlisted(&needs(&image, "/usr/bin/tool", None)), []);
    }

    #[test]
    fn a_survey_has_every_name_and_what_it_counts_as() {
        let image = image();
        let other = image.path().join("usr/bin/other");
        std::os::unix::fs::symlink("other", image.path().join("usr/bin/link")).unwrap();
        // Version 2 with cap_net_raw, as setcap writes it.
        let mut capability = [0u8; 20];
        capability[..8].copy_from_slice(&[1, 0, 0, 2, 0, 0x20, 0, 0]);
        rustix::fs::setxattr(
            &other,
            "security.capability",
            &capability,
            rustix::fs::XattrFlags::empty(),
        )
        .unwrap();
        let survey = needs(&image, "/usr/bin/tool", Some(&["tool 1.0-1"])).survey.unwrap();
        let name = |path: &str| survey.names.iter().find(|name| name.path == path).unwrap();
        let other = name("/usr/bin/other");
        assert!(
            other.capability && other.executable && !other.visible && !other.set_id,
            "{other:?}"
        );
        assert!(name("/usr/bin/tool").visible && !name("/usr/bin/tool").capability);
        assert!(name("/usr/bin/link").executable && !name("/etc/os-release").executable);
        let package = |name: &str| survey.packages.iter().find(|package| package.name == name).unwrap();
        // Its list in the database is its own too.
        assert_eq!((package("tool").files, package("tool").listed), ((3, 1), Some(true)));
        assert_eq!(package("dash").listed, Some(false));
    }

    #[test]
    fn a_program_that_no_package_owns_is_reported() {
        let own = needs(&image(), "/opt/own", None);
        assert_eq!(own.unattested, ["/opt/own"]);
        assert!(own.counts.executables.0 > own.counts.executables.1, "{:?}", own.counts);
    }

    #[test]
    fn only_what_can_be_an_answer_is_one() {
        let reply = |needs: Needs| serde_json::to_vec(&Reply::Needs(Box::new(needs))).unwrap();
        let keep = |paths: &[&str]| Needs {
            keep: paths.iter().map(ToString::to_string).collect(),
            ..Needs::default()
        };
        assert!(accept(&reply(keep(&["/", "/bin", "/bin/sh"]))).is_ok());
        for path in ["", "bin", "/bin/../etc", "/bin//sh", "/./bin", "/bin/", "/a\0b"] {
            let fault = accept(&reply(keep(&[path]))).unwrap_err();
            assert_eq!(fault.code(), "image-parser-garbage", "{path:?}");
        }
        let talkative = |text: &str| Needs {
            findings: vec![text.to_owned()],
            ..Needs::default()
        };
        assert!(accept(&reply(talkative("a line"))).is_ok());
        for text in ["two\nlines", "\u{1b}[2J", &"x".repeat(MAX_TEXT + 1)] {
            assert!(accept(&reply(talkative(text))).is_err(), "{text:?}");
        }
        assert!(accept(b"").is_err());
        assert!(accept(br#"{"needs":{"keep":[],"more":1}}"#).is_err());
        let unreadable = serde_json::to_vec(&Reply::Unreadable("no\u{7}".to_owned())).unwrap();
        insta::assert_snapshot!(accept(&unreadable).unwrap_err().to_string(), @r"no\u{7}");
    }
}
