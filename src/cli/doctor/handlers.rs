//! Assay's handlers: written, loaded by the containerd that runs, and as they should be.

use std::ffi::OsStr;
use std::path::Path;

use toml::{Table, Value};

use super::cri::Loaded;
use super::programs::{shim_program, text};
use super::{Check, Group, Patient};
use crate::cli::configure::handler::{ANNOTATIONS, RUNC, Reading, is_assay};
use crate::cli::configure::node::Release;
use crate::cli::configure::plan::FIRST_WITH_PATH;
use crate::config;

const HANDLERS: Group = Group("handlers");

/// How to get a containerd to read its files again.
const RESTART: &str = "restart containerd (systemctl restart containerd); containers keep running";

/// The handlers of Assay.
pub(super) fn assay<'a>(reading: Reading<'a>) -> impl Iterator<Item = (&'a str, &'a Table)> {
    reading
        .handlers()
        .filter(|(_, handler)| is_assay(text(handler, "runtime_type"), text(handler, "runtime_path")))
}

pub(super) fn checks(patient: &Patient<'_>) -> Vec<Check> {
    let reading = patient.reading();
    let mut checks = as_configured(reading, &patient.loaded);
    let default = reading.default().and_then(|name| reading.handler(name));
    for (name, handler) in assay(reading) {
        checks.push(path_ignored(name, handler, &patient.node.release));
        checks.push(annotations(name, handler));
        checks.push(options(name, handler, default));
        let path = text(handler, "runtime_path");
        if !path.is_empty() {
            checks.push(shim_program(Path::new(path)));
        }
    }
    let theirs = patient.node.environment.get(OsStr::new(config::ENVIRONMENT));
    checks.push(same_configuration(
        theirs.map(|path| path.to_string_lossy().into_owned()),
        std::env::var(config::ENVIRONMENT).ok(),
    ));
    checks
}

/// Whether there is a handler, and containerd has it as its files do.
pub(super) fn as_configured(reading: Reading<'_>, running: &Loaded) -> Vec<Check> {
    vec![configured(reading), loaded(reading, running)]
}

fn configured(reading: Reading<'_>) -> Check {
    let names: Vec<&str> = assay(reading).map(|(name, _)| name).collect();
    if names.is_empty() {
        HANDLERS.fail(
            "handler-configured",
            "no handler of Assay is in containerd's configuration",
            "assay configure",
        )
    } else {
        HANDLERS.pass(
            "handler-configured",
            format!("containerd's files have {}", names.join(", ")),
        )
    }
}

fn loaded(reading: Reading<'_>, loaded: &Loaded) -> Check {
    let differs = assay(reading).find(|(name, handler)| {
        let running = loaded.handlers.get(*name);
        running.is_none_or(|(kind, path)| {
            (kind.as_str(), path.as_str()) != (text(handler, "runtime_type"), text(handler, "runtime_path"))
        })
    });
    match differs {
        Some((name, _)) => HANDLERS.fail(
            "handler-loaded",
            format!("the containerd that runs does not have the handler {name} as its files do"),
            RESTART,
        ),
        None if reading.default() != loaded.default.as_deref() => HANDLERS.fail(
            "handler-loaded",
            "the containerd that runs has another default handler than its files",
            RESTART,
        ),
        None => HANDLERS.pass("handler-loaded", "the containerd that runs has what its files say"),
    }
}

/// containerd before 1.6.21 runs the stock shim instead, without a word.
fn path_ignored(name: &str, handler: &Table, release: &Release) -> Check {
    const CODE: &str = "runtime-path-ignored";
    if text(handler, "runtime_type") == RUNC && release.number < FIRST_WITH_PATH {
        return HANDLERS.fail(
            CODE,
            format!(
                "containerd {} ignores runtime_path: pods of the handler {name} run without Assay",
                release.text
            ),
            format!("assay configure --name {name}, or upgrade containerd to 1.6.21 or newer"),
        );
    }
    HANDLERS.pass(
        CODE,
        format!("containerd {} runs Assay's shim for {name}", release.text),
    )
}

fn annotations(name: &str, handler: &Table) -> Check {
    let passes = |key: &str| {
        let list = handler.get(key).and_then(Value::as_array).into_iter().flatten();
        list.filter_map(Value::as_str)
            .any(|pattern| pattern == ANNOTATIONS || pattern == "*")
    };
    if passes("pod_annotations") && passes("container_annotations") {
        return HANDLERS.pass("handler-annotations", format!("{name} gets annotations {ANNOTATIONS}"));
    }
    HANDLERS.warn(
        "handler-annotations",
        format!("containerd keeps annotations {ANNOTATIONS} from {name}: policy that honours them finds none"),
        format!("assay configure --name {name}"),
    )
}

/// A handler with another cgroup driver than the node's own starts no pod of a kubelet.
fn options(name: &str, handler: &Table, default: Option<&Table>) -> Check {
    const CODE: &str = "handler-options";
    let systemd = |handler: &Table| {
        let option = handler.get("options").and_then(|options| options.get("SystemdCgroup"));
        option.and_then(Value::as_bool).unwrap_or(false)
    };
    // A shim that goes by its own name gets its options in a file.
    let in_file = handler
        .get("options")
        .is_some_and(|options| options.get("ConfigPath").is_some());
    match default {
        Some(default) if text(default, "runtime_type") == RUNC && !in_file && systemd(default) != systemd(handler) => {
            HANDLERS.fail(
                CODE,
                format!(
                    "SystemdCgroup is {} in the handler {name} and {} in the default one",
                    systemd(handler),
                    systemd(default)
                ),
                format!("assay configure --name {name}"),
            )
        }
        _ => HANDLERS.pass(CODE, format!("{name} uses the cgroup driver of the default handler")),
    }
}

fn same_configuration(containerd: Option<String>, own: Option<String>) -> Check {
    const CODE: &str = "configuration-same";
    let shown = |path: &Option<String>| path.clone().unwrap_or_else(|| config::DEFAULT_PATH.to_owned());
    if shown(&containerd) == shown(&own) {
        return HANDLERS.pass(CODE, format!("shims and this program read {}", shown(&own)));
    }
    HANDLERS.fail(
        CODE,
        format!(
            "shims read {}, and this program reads {}",
            shown(&containerd),
            shown(&own)
        ),
        format!(
            "set {}={} for this command too, or take it out of containerd's environment",
            config::ENVIRONMENT,
            shown(&containerd)
        ),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::Standing;
    use super::*;

    fn files(handler: &str) -> Table {
        format!(
            "[plugins.'io.containerd.cri.v1.runtime'.containerd]\ndefault_runtime_name = 'runc'\n\
             [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]\nruntime_type = '{RUNC}'\n\
             options = {{ SystemdCgroup = true }}\n\
             [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.assay]\n{handler}\n"
        )
        .parse()
        .unwrap()
    }

    const PATH: &str = "/usr/bin/containerd-shim-assay-v1";

    fn by_path() -> Table {
        files(&format!(
            "runtime_type = '{RUNC}'\nruntime_path = '{PATH}'\noptions = {{ SystemdCgroup = true }}\n\
             pod_annotations = ['assay.dev/*']\ncontainer_annotations = ['*']"
        ))
    }

    fn handler(table: &Table) -> &Table {
        Reading(table).handler("assay").unwrap()
    }

    #[test]
    fn a_handler_that_is_not_written_or_not_loaded_is_found() {
        let table = by_path();
        let reading = Reading(&table);
        assert_eq!(configured(reading).standing, Standing::Pass);
        let none = files("runtime_type = 'io.containerd.kata.v2'");
        assert_eq!(configured(Reading(&none)).standing, Standing::Fail);

        let mut running = Loaded {
            handlers: BTreeMap::from([("assay".to_owned(), (RUNC.to_owned(), PATH.to_owned()))]),
            default: Some("runc".to_owned()),
        };
        assert_eq!(loaded(reading, &running).standing, Standing::Pass);
        running.default = Some("assay".to_owned());
        assert_eq!(loaded(reading, &running).standing, Standing::Fail);
        running.handlers.clear();
        assert_eq!(loaded(reading, &running).standing, Standing::Fail);
    }

    #[test]
    fn a_containerd_that_ignores_the_path_is_found() {
        let release = |number| Release {
            number,
            text: "x".to_owned(),
        };
        let table = by_path();
        let of = |number| path_ignored("assay", handler(&table), &release(number)).standing;
        assert_eq!(of((1, 6, 21)), Standing::Pass);
        assert_eq!(of((1, 6, 20)), Standing::Fail);
        let named = files("runtime_type = 'io.containerd.assay.v1'");
        let check = path_ignored("assay", handler(&named), &release((1, 6, 20)));
        assert_eq!(check.standing, Standing::Pass);
    }

    #[test]
    fn annotations_and_options_that_do_not_arrive_are_found() {
        let table = by_path();
        let default = Reading(&table).handler("runc");
        assert_eq!(annotations("assay", handler(&table)).standing, Standing::Pass);
        assert_eq!(options("assay", handler(&table), default).standing, Standing::Pass);
        let bare = files(&format!("runtime_type = '{RUNC}'\nruntime_path = '{PATH}'"));
        assert_eq!(annotations("assay", handler(&bare)).standing, Standing::Warn);
        assert_eq!(options("assay", handler(&bare), default).standing, Standing::Fail);
    }

    #[test]
    fn a_containerd_with_another_configuration_of_assay_is_found() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(same_configuration(None, None).standing, Standing::Pass);
        assert_eq!(
            same_configuration(None, some(config::DEFAULT_PATH)).standing,
            Standing::Pass
        );
        assert_eq!(same_configuration(some("/a"), None).standing, Standing::Fail);
    }
}
