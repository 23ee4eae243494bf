//! Ruby gems: `specifications/NAME-VERSION.gemspec`, and the directories of that name beside it.

use std::collections::HashMap;

use super::Ecosystem;
use super::register::Register;
use crate::tree::join;

/// Largest specification in bytes.
const LIMIT: u64 = 1 << 20;

pub(super) fn read(register: &mut Register<'_>) {
    let tree = register.tree;
    let mut builds: HashMap<&str, Vec<&str>> = HashMap::new();
    for (path, node) in tree.nodes() {
        let Some(stem) = path.strip_suffix(".gemspec") else {
            continue;
        };
        if !node.is_file() || register.is_owned(path) {
            continue;
        }
        let Some((directory, full_name)) = stem.rsplit_once('/') else {
            continue;
        };
        // Gems that come with Ruby have theirs one level deeper.
        let directory = directory.strip_suffix("/default").unwrap_or(directory);
        let Some(home) = directory.strip_suffix("/specifications") else {
            continue;
        };
        let Some(text) = register.text(path, LIMIT) else {
            continue;
        };
        let (Some(name), Some(version)) = (value(&text, "name"), value(&text, "version")) else {
            register.find("database-invalid", path, "it names no gem or no version");
            continue;
        };
        let Some(id) = register.add(Ecosystem::Gem, name, version, None, path) else {
            continue;
        };
        let mut more = register.own(id, path, path, None);
        more = more && register.own_below(id, &join(&join(home, "gems"), full_name));
        // extensions/PLATFORM/RUBY/NAME-VERSION
        let builds = builds.entry(home).or_insert_with(|| {
            tree.children(&join(home, "extensions"))
                .flat_map(|(platform, _)| tree.children(platform))
                .map(|(path, _)| path)
                .collect()
        });
        for build in builds.iter() {
            more = more && register.own_below(id, &join(build, full_name));
        }
        if !more {
            return;
        }
    }
}

/// The text that `s.FIELD = "…"` assigns; what is not a plain text is not evaluated.
fn value<'t>(specification: &'t str, field: &str) -> Option<&'t str> {
    specification.lines().find_map(|line| {
        let (target, value) = line.split_once('=')?;
        let (_, name) = target.trim().split_once('.')?;
        if name != field {
            return None;
        }
        let value = value.trim();
        let quote = value.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
        value.get(1..)?.split(quote).next()
    })
}
