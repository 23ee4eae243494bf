//! What goes past Assay: other handlers, pods that use them, and whoever can talk to containerd.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use toml::Table;

use super::cri::Pod;
use super::handlers::assay;
use super::{Check, Group, Patient};
use crate::cli::configure::handler::Reading;

const BYPASS: Group = Group("bypass");

/// How many names a person is shown.
const MAX_SHOWN: usize = 5;

pub(super) fn checks(patient: &Patient<'_>) -> Vec<Check> {
    let reading = patient.reading();
    let socket = Path::new(&patient.node.socket);
    let mode = fs::metadata(socket)
        .ok()
        .map(|found| (found.mode() & 0o777, found.gid()));
    vec![
        default_handler(reading),
        other_handlers(reading),
        pods(reading, patient.cri.pods()),
        socket_mode(socket, mode),
        tcp(&patient.files),
        mounted(socket, patient.cri.mounts()),
    ]
}

fn default_handler(reading: Reading<'_>) -> Check {
    const CODE: &str = "default-handler";
    let default = reading.default().unwrap_or_default();
    if assay(reading).any(|(name, _)| name == default) {
        return BYPASS.pass(CODE, format!("pods that name no handler get {default}"));
    }
    BYPASS.warn(
        CODE,
        format!("pods that name no handler get {default}, which is not Assay's"),
        "assay configure --set-as-default, or require the RuntimeClass by an admission policy",
    )
}

fn other_handlers(reading: Reading<'_>) -> Check {
    const CODE: &str = "other-handlers";
    let ours: Vec<&str> = assay(reading).map(|(name, _)| name).collect();
    let others: Vec<&str> = reading
        .handlers()
        .map(|(name, _)| name)
        .filter(|name| !ours.contains(name))
        .collect();
    if others.is_empty() {
        return BYPASS.pass(CODE, "every handler is Assay's");
    }
    BYPASS.warn(
        CODE,
        format!("a pod can choose {}, and starts without Assay", shown(&others)),
        "delete the RuntimeClasses that name them, or forbid them by an admission policy",
    )
}

fn pods(reading: Reading<'_>, pods: Result<Vec<Pod>, String>) -> Check {
    const CODE: &str = "pods-outside";
    let pods = match pods {
        Ok(pods) => pods,
        Err(why) => return BYPASS.fail(CODE, format!("pods cannot be listed: {why}"), "see containerd's log"),
    };
    let default = reading.default().unwrap_or_default();
    let is_ours = |pod: &Pod| {
        let handler = if pod.handler.is_empty() { default } else { &pod.handler };
        assay(reading).any(|(name, _)| name == handler)
    };
    let outside: Vec<&str> = pods
        .iter()
        .filter(|pod| pod.runs && !is_ours(pod))
        .map(|pod| pod.name.as_str())
        .collect();
    if outside.is_empty() {
        let running = pods.iter().filter(|pod| pod.runs).count();
        return BYPASS.pass(CODE, format!("all {running} running pods use Assay"));
    }
    BYPASS.warn(
        CODE,
        format!("{} running pods do not use Assay: {}", outside.len(), shown(&outside)),
        "set runtimeClassName in them, or: assay configure --set-as-default",
    )
}

/// Whoever can open the socket is root on this node.
fn socket_mode(socket: &Path, mode: Option<(u32, u32)>) -> Check {
    const CODE: &str = "socket-mode";
    let Some((mode, group)) = mode else {
        return BYPASS.fail(
            CODE,
            format!("{} cannot be looked at", socket.display()),
            "run this as root",
        );
    };
    let fix = "set uid, gid and mode of [grpc] in containerd's configuration to root's, then restart containerd";
    if mode & 0o002 != 0 {
        return BYPASS.fail(CODE, format!("everyone can open {}", socket.display()), fix);
    }
    if mode & 0o020 != 0 && group != 0 {
        return BYPASS.fail(CODE, format!("group {group} can open {}", socket.display()), fix);
    }
    BYPASS.pass(CODE, format!("only root can open {}", socket.display()))
}

fn tcp(files: &Table) -> Check {
    const CODE: &str = "socket-tcp";
    let text = |path: &[&str]| {
        let mut here = files.get(*path.first()?)?;
        for key in path.iter().skip(1) {
            here = here.get(*key)?;
        }
        here.as_str().filter(|text| !text.is_empty())
    };
    let listens =
        text(&["grpc", "tcp_address"]).or_else(|| text(&["plugins", "io.containerd.server.v1.grpc-tcp", "address"]));
    match listens {
        Some(address) => BYPASS.fail(
            CODE,
            format!("containerd listens on {address}: whoever reaches it is root on this node"),
            "take tcp_address out of containerd's configuration",
        ),
        None => BYPASS.pass(CODE, "containerd listens on no network address"),
    }
}

fn mounted(socket: &Path, mounts: Result<Vec<(String, Vec<String>)>, String>) -> Check {
    const CODE: &str = "socket-mounted";
    let mounts = match mounts {
        Ok(mounts) => mounts,
        Err(why) => {
            return BYPASS.fail(
                CODE,
                format!("containers cannot be listed: {why}"),
                "see containerd's log",
            );
        }
    };
    let reach: Vec<&str> = mounts
        .iter()
        .filter(|(_, paths)| paths.iter().any(|path| reaches(path, socket)))
        .map(|(name, _)| name.as_str())
        .collect();
    if reach.is_empty() {
        return BYPASS.pass(CODE, "no container mounts containerd's socket");
    }
    BYPASS.warn(
        CODE,
        format!(
            "{} can reach containerd's socket by a mount and start anything",
            shown(&reach)
        ),
        "take the hostPath volume away, or trust these containers as you trust root",
    )
}

/// Whether a mount of `path` shows the socket. `/var/run` is `/run` on every distribution.
fn reaches(path: &str, socket: &Path) -> bool {
    let path = path
        .strip_prefix("/var")
        .filter(|rest| rest.starts_with("/run"))
        .unwrap_or(path);
    socket.starts_with(path)
}

fn shown(names: &[&str]) -> String {
    let mut text = names.iter().take(MAX_SHOWN).copied().collect::<Vec<_>>().join(", ");
    if let Some(more) = names.len().checked_sub(MAX_SHOWN).filter(|more| *more > 0) {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::Standing;
    use super::*;

    fn table(text: &str) -> Table {
        text.parse().unwrap()
    }

    fn files(default: &str, others: &str) -> Table {
        table(&format!(
            "[plugins.'io.containerd.grpc.v1.cri'.containerd]\ndefault_runtime_name = '{default}'\n\
             [plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.assay]\nruntime_type = \
             'io.containerd.assay.v1'\n{others}"
        ))
    }

    const RUNC: &str =
        "[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc]\nruntime_type = 'io.containerd.runc.v2'\n";

    fn pod(name: &str, handler: &str, runs: bool) -> Pod {
        Pod {
            name: name.to_owned(),
            handler: handler.to_owned(),
            runs,
        }
    }

    #[test]
    fn handlers_and_pods_past_assay_are_found() {
        let (open, shut) = (files("runc", RUNC), files("assay", ""));
        let (open, shut) = (Reading(&open), Reading(&shut));
        assert_eq!(default_handler(open).standing, Standing::Warn);
        assert_eq!(default_handler(shut).standing, Standing::Pass);
        assert_eq!(other_handlers(open).standing, Standing::Warn);
        assert_eq!(other_handlers(shut).standing, Standing::Pass);
        let found = |reading, list: &[Pod]| pods(reading, Ok(list.to_vec()));
        assert_eq!(found(open, &[pod("a/b", "assay", true)]).standing, Standing::Pass);
        assert_eq!(found(open, &[pod("a/b", "", false)]).standing, Standing::Pass);
        assert_eq!(found(shut, &[pod("a/b", "", true)]).standing, Standing::Pass);
        let check = found(open, &[pod("a/b", "", true), pod("c/d", "runc", true)]);
        assert_eq!(check.standing, Standing::Warn);
        assert!(check.reason.contains("a/b, c/d"), "{}", check.reason);
        assert_eq!(pods(open, Err("x".to_owned())).standing, Standing::Fail);
    }

    #[test]
    fn a_socket_that_others_can_open_is_found() {
        let of = |mode| socket_mode(Path::new("/run/containerd/containerd.sock"), mode).standing;
        assert_eq!(of(Some((0o660, 0))), Standing::Pass);
        assert_eq!(of(Some((0o600, 998))), Standing::Pass);
        assert_eq!(of(Some((0o660, 998))), Standing::Fail);
        assert_eq!(of(Some((0o666, 0))), Standing::Fail);
        assert_eq!(of(None), Standing::Fail);
    }

    #[test]
    fn a_network_address_is_found() {
        assert_eq!(tcp(&table("[grpc]\ntcp_address = ''\n")).standing, Standing::Pass);
        assert_eq!(tcp(&table("")).standing, Standing::Pass);
        assert_eq!(
            tcp(&table("[grpc]\ntcp_address = '0.0.0.0:1234'\n")).standing,
            Standing::Fail
        );
        let newer = "[plugins.'io.containerd.server.v1.grpc-tcp']\naddress = '0.0.0.0:1234'\n";
        assert_eq!(tcp(&table(newer)).standing, Standing::Fail);
    }

    #[test]
    fn containers_that_mount_the_socket_are_found() {
        let socket = Path::new("/run/containerd/containerd.sock");
        for (path, standing) in [
            ("/run/containerd/containerd.sock", Standing::Warn),
            ("/var/run/containerd", Standing::Warn),
            ("/run", Standing::Warn),
            ("/", Standing::Warn),
            ("/run/containerd-other", Standing::Pass),
            ("/var/lib", Standing::Pass),
        ] {
            let mounts = vec![("kube-system/agent/main".to_owned(), vec![path.to_owned()])];
            assert_eq!(mounted(socket, Ok(mounts)).standing, standing, "{path}");
        }
        assert_eq!(mounted(socket, Err("x".to_owned())).standing, Standing::Fail);
    }
}
