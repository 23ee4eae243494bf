//! Debian's dpkg, and the reduced form of its database that distroless images have.
//!
//! `status` says what is installed, `info/NAME.list` what was unpacked, `info/NAME.md5sums` the digests of what is
//! no configuration file. Distroless images have one file per package in `status.d` and md5sums beside it, no lists.
//! <https://manpages.debian.org/stable/dpkg/dpkg-query.1.en.html>, deb-md5sums(5), deb822(5), dpkg-divert(1);
//! <https://github.com/GoogleContainerTools/distroless/blob/main/PACKAGE_METADATA.md>

use std::collections::{HashMap, HashSet};

use super::register::Register;
use super::{Ecosystem, PackageId, Recorded};
use crate::tree::join;

const DIRECTORY: &str = "/var/lib/dpkg";
/// Largest `status` in bytes.
const MAX_STATUS: u64 = 128 << 20;
/// Largest list of files in bytes.
const MAX_LIST: u64 = 64 << 20;
/// Largest file of `status.d` in bytes.
const MAX_ENTRY: u64 = 1 << 20;
/// Largest list of diversions in bytes.
const MAX_DIVERSIONS: u64 = 8 << 20;

pub(super) fn read(register: &mut Register<'_>) {
    let Some(directory) = register.tree.resolve(DIRECTORY).map(|resolved| resolved.path) else {
        return;
    };
    let diversions = diversions(register, &directory);
    if let Some(status) = register.file(&join(&directory, "status")) {
        installed(register, &directory, &status, &diversions);
    }
    distroless(register, &join(&directory, "status.d"));
}

/// Where a diverted file really is, by where packages unpack it, and the package that may stay there.
type Diversions = HashMap<String, (String, String)>;

fn diversions(register: &mut Register<'_>, directory: &str) -> Diversions {
    let Some(path) = register.file(&join(directory, "diversions")) else {
        return Diversions::new();
    };
    let text = register.text(&path, MAX_DIVERSIONS).unwrap_or_default();
    let mut diversions = Diversions::new();
    let mut lines = text.lines();
    while let (Some(from), Some(to), Some(by)) = (lines.next(), lines.next(), lines.next()) {
        diversions.insert(from.to_owned(), (to.to_owned(), by.to_owned()));
    }
    diversions
}

fn installed(register: &mut Register<'_>, directory: &str, path: &str, diversions: &Diversions) {
    let text = register.text(path, MAX_STATUS).unwrap_or_default();
    for paragraph in paragraphs(&text) {
        let Some(name) = paragraph.get("Package") else {
            register.find("database-invalid", path, "a paragraph of it names no package");
            continue;
        };
        // Only configuration files are left of a package that was removed.
        let state = paragraph.get("Status").and_then(|status| status.split(' ').nth(2));
        if matches!(state, Some("not-installed" | "config-files")) {
            continue;
        }
        let Some(id) = add(register, path, &paragraph) else {
            continue;
        };
        let configuration: HashSet<&str> = paragraph
            .get("Conffiles")
            .into_iter()
            .flat_map(|value| value.lines())
            .filter_map(|line| line.trim().split(' ').next())
            .collect();
        let info = |suffix: &str| {
            let architecture = paragraph.get("Architecture").unwrap_or_default();
            [format!("{name}:{architecture}.{suffix}"), format!("{name}.{suffix}")]
                .map(|file| format!("{directory}/info/{file}"))
                .into_iter()
                .find(|path| !name.contains('/') && register.tree.node(path).is_some_and(|node| node.is_file()))
        };
        let (list, sums) = (info("list"), info("md5sums"));
        let digests = sums
            .as_ref()
            .and_then(|sums| register.text(sums, MAX_LIST))
            .unwrap_or_default();
        let digests: HashMap<&str, Recorded> = md5sums(&digests).collect();
        let Some(list) = list else {
            register.find(
                "file-list-missing",
                path,
                format_args!("{name} is installed and has no list of files; what it owns has no owner here"),
            );
            continue;
        };
        let files = register.text(&list, MAX_LIST).unwrap_or_default();
        for file in files.lines().filter(|file| !matches!(*file, "" | "/.")) {
            let (file, diverted) = match diversions.get(file) {
                Some((to, by)) if by != name => (to.as_str(), true),
                _ => (file, false),
            };
            // A configuration file is there to be changed.
            let recorded = digests
                .get(file.trim_start_matches('/'))
                .filter(|_| !diverted && !configuration.contains(file));
            if !register.own(id, &list, file, recorded.copied()) {
                return;
            }
        }
    }
}

fn distroless(register: &mut Register<'_>, directory: &str) {
    const SUMS: &str = ".md5sums";
    let tree = register.tree;
    let entries = tree
        .children(directory)
        .filter(|(path, node)| node.is_file() && !path.ends_with(SUMS));
    for (path, _) in entries {
        let Some(text) = register.text(path, MAX_ENTRY) else {
            continue;
        };
        let Some(id) = paragraphs(&text)
            .next()
            .and_then(|paragraph| add(register, path, &paragraph))
        else {
            continue;
        };
        let sums = format!("{path}{SUMS}");
        if tree.node(&sums).is_none() {
            register.find(
                "file-list-missing",
                path,
                "it has no list of files; what the package owns has no owner here",
            );
            continue;
        }
        let digests = register.text(&sums, MAX_LIST).unwrap_or_default();
        for (file, recorded) in md5sums(&digests) {
            if !register.own(id, &sums, &join("/", file), Some(recorded)) {
                return;
            }
        }
    }
}

fn add(register: &mut Register<'_>, path: &str, paragraph: &Paragraph<'_>) -> Option<PackageId> {
    let field = |name| paragraph.get(name);
    let (Some(name), Some(version)) = (field("Package"), field("Version")) else {
        register.find("database-invalid", path, "a package in it has no name or no version");
        return None;
    };
    register.add(Ecosystem::Dpkg, name, version, field("Architecture"), path)
}

/// The lines of a `.md5sums`: paths without a leading slash, and their digests.
fn md5sums(text: &str) -> impl Iterator<Item = (&str, Recorded)> {
    text.lines().filter_map(|line| {
        let (digest, file) = line.split_once(' ')?;
        let mut md5 = [0; 16];
        hex::decode_to_slice(digest, &mut md5).ok()?;
        let file = file.trim_start();
        Some((file.strip_prefix("./").unwrap_or(file), Recorded::Md5(md5)))
    })
}

/// A paragraph of a control file.
struct Paragraph<'t>(Vec<(&'t str, &'t str)>);

impl<'t> Paragraph<'t> {
    /// The value of a field with all its lines; field names have no case.
    fn get(&self, name: &str) -> Option<&'t str> {
        let field = self.0.iter().find(|(field, _)| field.eq_ignore_ascii_case(name));
        field.map(|(_, value)| *value)
    }
}

fn paragraphs(text: &str) -> impl Iterator<Item = Paragraph<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches('\n');
        if rest.is_empty() {
            return None;
        }
        let end = rest.find("\n\n").unwrap_or(rest.len());
        let (paragraph, after) = rest.split_at(end);
        rest = after;
        Some(fields(paragraph))
    })
}

fn fields(paragraph: &str) -> Paragraph<'_> {
    let mut fields = Vec::new();
    let mut rest = paragraph;
    while !rest.is_empty() {
        // A field goes on in lines that begin with a space or tab.
        let mut end = 0;
        for (at, _) in rest.match_indices('\n') {
            if !rest.get(at + 1..).is_some_and(|next| next.starts_with([' ', '\t'])) {
                end = at;
                break;
            }
        }
        let end = if end == 0 { rest.len() } else { end };
        let (field, after) = rest.split_at(end);
        rest = after.strip_prefix('\n').unwrap_or(after);
        if let Some((name, value)) = field.split_once(':') {
            fields.push((name, value.trim()));
        }
    }
    Paragraph(fields)
}
