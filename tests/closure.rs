//! What the closure keeps of a Debian 12 root really runs: the kept files alone are copied into a directory, and real
//! programs are started in it with nothing else to be seen.
//!
//! The root is built once, with mmdebstrap, below `target/closure`. Needs root.
#![allow(
    clippy::unwrap_used,
    clippy::tests_outside_test_module,
    reason = "all of this file is test"
)]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use assay::closure::{Class, Closure, Content, Level, Mounted, Roots, Rules, close};
use assay::packages::{Ecosystem, Inventory, Package};
use assay::tree::{Kind, Tree};

const PACKAGES: &str = "nginx,redis-server,memcached,apache2,postgresql-15,python3,gunicorn,ca-certificates,perl,curl,tini,gosu,busybox-static";
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The root, built once for all tests and runs.
fn root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/closure");
        fs::create_dir_all(&folder).unwrap();
        let root = folder.join("bookworm");
        let stamp = folder.join("bookworm.packages");
        if fs::read_to_string(&stamp).is_ok_and(|packages| packages == PACKAGES) {
            return root;
        }
        let _ = fs::remove_dir_all(&root);
        let status = Command::new("mmdebstrap")
            .args(["--variant=minbase", "--mode=root", "--quiet"])
            .arg(format!("--include={PACKAGES}"))
            .arg("bookworm")
            .arg(&root)
            .status()
            .expect("mmdebstrap is installed by `make setup`");
        assert!(status.success(), "mmdebstrap failed");
        fs::write(&stamp, PACKAGES).unwrap();
        root
    })
}

fn tree() -> Tree {
    Tree::scan(fs::File::open(root()).unwrap().into()).unwrap()
}

/// The packages of dpkg's lists.
fn inventory(tree: &Tree) -> Inventory {
    let mut lists: Vec<_> = fs::read_dir(root().join("var/lib/dpkg/info"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "list"))
        .collect();
    lists.sort();
    let packages = lists.into_iter().map(|list| {
        let files = fs::read_to_string(&list).unwrap();
        let files = files
            .lines()
            .filter_map(|line| tree.resolve_parent(line))
            .map(|found| found.path);
        Package {
            ecosystem: Ecosystem::Dpkg,
            name: list.file_stem().unwrap().to_str().unwrap().to_owned(),
            version: "1".to_owned(),
            architecture: None,
            database: "/var/lib/dpkg/status".to_owned(),
            files: files.filter(|path| !tree.node(path).unwrap().is_directory()).collect(),
        }
    });
    Inventory::new(packages.collect())
}

struct View {
    folder: tempfile::TempDir,
    closure: Closure,
    executables: usize,
}

/// A directory with what `args` need of the root, and nothing else.
fn view(args: &[&str], mounts: Vec<Mounted>) -> View {
    let tree = tree();
    let roots = Roots {
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        env: vec![PATH.to_owned()],
        cwd: "/".to_owned(),
        mounts,
        ..Roots::default()
    };
    let closure = close(
        &tree,
        &inventory(&tree),
        &Rules::builtin().unwrap(),
        &roots,
        Level::Balanced,
        &|_| true,
    );
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for path in closure.paths().skip(1) {
        let node = tree
            .node(path)
            .unwrap_or_else(|| panic!("{path} is kept and does not exist"));
        let (from, to) = (root().join(&path[1..]), folder.path().join(&path[1..]));
        match &node.kind {
            Kind::Directory => fs::create_dir_all(&to).unwrap(),
            Kind::Symlink(target) => symlink(target, &to).unwrap(),
            Kind::File => {
                fs::copy(&from, &to).unwrap();
            }
            Kind::Special => {}
        }
        if !matches!(node.kind, Kind::Special) {
            std::os::unix::fs::lchown(&to, Some(node.uid), Some(node.gid)).unwrap();
        }
        if !matches!(node.kind, Kind::Special | Kind::Symlink(_)) {
            fs::set_permissions(&to, fs::Permissions::from_mode(node.mode)).unwrap();
        }
    }
    for (destination, content) in roots.mounts.iter().map(|mount| (&mount.destination, &mount.content)) {
        if let Content::File(bytes, mode) = content {
            let to = folder.path().join(&destination[1..]);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::write(&to, bytes).unwrap();
            fs::set_permissions(&to, fs::Permissions::from_mode(*mode)).unwrap();
        }
    }
    let executables = closure.classes.values().count();
    View {
        folder,
        closure,
        executables,
    }
}

impl View {
    /// Runs a program in the view, with `/proc`, `/dev` and a network of its own, as pid 1's child of a shell that
    /// lies outside of it. `client` runs beside it, outside, once `ready` succeeds there.
    fn run(&self, args: &[&str], client: &str) -> Output {
        let script = r#"
            set -eu
            ip link set lo up
            mkdir -p "$VIEW/proc" "$VIEW/dev"
            mount -t proc proc "$VIEW/proc"
            mount --rbind /dev "$VIEW/dev"
            if [ -z "$CLIENT" ]; then exec chroot "$VIEW" "$@"; fi
            chroot "$VIEW" "$@" &
            server=$!
            for _ in $(seq 100); do
                if bash -c "$CLIENT"; then kill "$server"; wait "$server" || true; exit 0; fi
                kill -0 "$server" || { wait "$server"; exit 9; }
                sleep 0.1
            done
            exit 8
        "#;
        // Not a gentle signal: unshare would pass none on.
        Command::new("timeout")
            .args([
                "--signal=KILL",
                "120",
                "unshare",
                "--mount",
                "--pid",
                "--net",
                "--fork",
                "--kill-child",
                "bash",
                "-c",
                script,
                "bash",
            ])
            .args(args)
            .env_clear()
            .env("PATH", &PATH[5..])
            .env("VIEW", self.folder.path())
            .env("CLIENT", client)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn succeeds(&self, args: &[&str], client: &str) -> String {
        let output = self.run(args, client);
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(
            output.status.success(),
            "{args:?}: {:?}\n{text}\nunfollowed {:?}\nfindings {:?}",
            output.status,
            self.closure.unfollowed,
            self.closure.findings
        );
        text
    }

    /// Executables that are hidden, in percent of all.
    fn hidden(&self) -> usize {
        let kept = self
            .closure
            .paths()
            .filter(|path| self.closure.classes.contains_key(*path))
            .count();
        100 - kept * 100 / self.executables
    }

    /// The kept executables, each with the last step that led to it: what a failed test shows.
    fn reasons(&self) -> String {
        let kept = self
            .closure
            .classes
            .keys()
            .filter_map(|path| Some((path, self.closure.kept.get(path)?)));
        let lines: Vec<_> = kept
            .map(|(path, kept)| format!("{path}: {} {:?}", kept.rule, kept.origin))
            .collect();
        lines.join("\n")
    }

    fn has(&self, path: &str) -> bool {
        self.closure.kept.contains_key(path)
    }
}

#[test]
fn nginx_serves_and_has_no_shell() {
    let view = view(&["nginx", "-g", "daemon off;"], Vec::new());
    view.succeeds(&["nginx", "-t"], "");
    let text = view.succeeds(
        &["nginx", "-g", "daemon off;"],
        "exec 3<>/dev/tcp/127.0.0.1/80 && printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3 && grep -a -m1 'Server: nginx' <&3",
    );
    assert!(text.contains("Server: nginx"), "{text}");
    assert!(view.closure.unfollowed.is_empty(), "{:?}", view.closure.unfollowed);
    assert!(!view.has("/usr/bin/dash") && !view.has("/usr/bin/bash") && !view.has("/usr/bin/apt-get"));
    assert!(view.hidden() >= 95, "{}", view.reasons());
    let tree = tree();
    let kept_set_id = view.closure.paths().filter(|path| {
        tree.node(path)
            .is_some_and(|node| node.is_file() && node.mode & 0o6000 != 0)
    });
    assert_eq!(kept_set_id.count(), 0);
}

#[test]
fn redis_answers_and_saves() {
    let view = view(&["redis-server", "--port", "6379"], Vec::new());
    let text = view.succeeds(
        &["redis-server", "--port", "6379", "--dir", "/tmp"],
        "exec 3<>/dev/tcp/127.0.0.1/6379 && printf 'SET a b\\r\\nSAVE\\r\\nEVAL \"return 7\" 0\\r\\nINFO\\r\\nQUIT\\r\\n' >&3 && cat <&3 | grep redis_version",
    );
    assert!(text.contains("redis_version"), "{text}");
    assert!(view.hidden() >= 95 && !view.has("/usr/bin/dash"), "{}", view.reasons());
}

#[test]
fn postgres_makes_a_cluster_and_serves_it() {
    let initdb = "/usr/lib/postgresql/15/bin/initdb";
    let entry = format!(
        "gosu postgres {initdb} -D /tmp/data && exec gosu postgres /usr/lib/postgresql/15/bin/postgres -D /tmp/data -k /tmp"
    );
    let view = view(&["sh", "-c", &entry], Vec::new());
    assert!(view.closure.unfollowed.is_empty(), "{:?}", view.closure.unfollowed);
    let text = view.succeeds(
        &["sh", "-c", &entry],
        // A startup packet for user and database `postgres`, a query, and the end of the session.
        "exec 3<>/dev/tcp/127.0.0.1/5432 && printf '\\0\\0\\0\\x29\\0\\x03\\0\\0user\\0postgres\\0database\\0postgres\\0\\0' >&3 \
         && printf 'Q\\0\\0\\0\\x0fselect 6*7\\0X\\0\\0\\0\\x04' >&3 && timeout 5 cat <&3 | grep -aq 42",
    );
    assert!(text.contains("ready to accept connections"), "{text}");
    assert!(!view.has("/usr/bin/apt-get") && !view.has("/usr/bin/perl"));
}

#[test]
fn python_finds_its_modules_and_gunicorn_serves_an_application() {
    let application = "import ssl, sqlite3, ctypes, hashlib, json, zoneinfo, pwd, socket\n\
        def app(environ, start):\n    start('200 OK', [])\n    return [ssl.OPENSSL_VERSION.encode()]\n";
    let mounts = vec![Mounted {
        destination: "/app/web.py".to_owned(),
        content: Content::File(application.as_bytes().to_vec(), 0o644),
        writable: false,
        programs: true,
    }];
    let args = ["gunicorn", "--chdir", "/app", "--bind", "127.0.0.1:8000", "web:app"];
    let view = view(&args, mounts);
    let text = view.succeeds(
        &args,
        "exec 3<>/dev/tcp/127.0.0.1/8000 && printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3 && grep -a OpenSSL <&3",
    );
    assert!(text.contains("OpenSSL 3"), "{text}");
    assert!(view.closure.unfollowed.is_empty(), "{:?}", view.closure.unfollowed);
    assert!(!view.has("/usr/bin/apt-get"));
}

#[test]
fn a_mounted_entrypoint_finds_the_tools_that_it_calls() {
    let script = "#!/bin/sh\nset -eu\n: \"${WORKERS:=3}\"\nSED=$(command -v sed)\nfor f in /etc/hosts /etc/passwd; do\n  test -e $f && cut -d: -f1 \"$f\" | sort | head -n1\ndone\n\
        \"$SED\" \"s/@W@/$WORKERS/\" <<EOF >/tmp/out.conf\nworkers @W@\nEOF\ncat /tmp/out.conf\nexec \"$@\"\n";
    let mounts = vec![Mounted {
        destination: "/scripts/entry.sh".to_owned(),
        content: Content::File(script.as_bytes().to_vec(), 0o755),
        writable: false,
        programs: true,
    }];
    let args = ["tini", "--", "/scripts/entry.sh", "busybox", "echo", "done"];
    let view = view(&args, mounts);
    let text = view.succeeds(&args, "");
    assert!(text.contains("workers 3\ndone"), "{text}");
    assert!(view.closure.unfollowed.is_empty(), "{:?}", view.closure.unfollowed);
    for tool in ["sed", "cut", "sort", "head", "cat", "dash"] {
        assert!(view.has(&format!("/usr/bin/{tool}")), "{tool}");
    }
    assert!(view.hidden() >= 95 && !view.has("/usr/bin/awk"), "{}", view.reasons());
}

#[test]
fn apache_starts_by_its_script_and_serves() {
    let args = ["apachectl", "-D", "FOREGROUND"];
    let view = view(&args, Vec::new());
    assert!(view.closure.unfollowed.is_empty(), "{:?}", view.closure.unfollowed);
    let text = view.succeeds(
        &args,
        "exec 3<>/dev/tcp/127.0.0.1/80 && printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3 && grep -a -m1 'It works' <&3",
    );
    assert!(text.contains("It works"), "{text}");
}

#[test]
fn what_cannot_be_followed_leaves_every_executable_but_those_that_change_the_user() {
    let view = view(&["bash", "-c", "eval \"$(cat /run/command)\""], Vec::new());
    assert!(!view.closure.unfollowed.is_empty());
    let tree = tree();
    for (path, class) in &view.closure.classes {
        let node = tree.node(path).unwrap();
        let changes_user = node.mode & 0o6000 != 0;
        let is_owned = inventory_owns(path);
        if is_owned && *class != Class::Data {
            assert_eq!(view.has(path), !changes_user, "{path}");
        }
    }
    view.succeeds(
        &[
            "bash",
            "-c",
            "perl -MPOSIX -e 1 && python3 -c 'import ssl' && awk 1 /etc/passwd | tar --version",
        ],
        "",
    );
}

fn inventory_owns(path: &str) -> bool {
    static OWNERS: OnceLock<Inventory> = OnceLock::new();
    OWNERS.get_or_init(|| inventory(&tree())).owner(path).is_some()
}
