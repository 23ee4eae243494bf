use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::Command;

use super::*;
use crate::packages::{Ecosystem, Package};

/// A small image.
struct Image {
    folder: tempfile::TempDir,
    packages: Vec<Package>,
}

impl Image {
    fn new() -> Self {
        let image = Self {
            folder: tempfile::tempdir().unwrap(),
            packages: Vec::new(),
        };
        image.directory("/usr/bin").directory("/usr/lib").directory("/etc");
        symlink("usr/bin", image.at("/bin")).unwrap();
        symlink("usr/lib", image.at("/lib")).unwrap();
        image
    }

    fn at(&self, path: &str) -> std::path::PathBuf {
        self.folder.path().join(path.trim_start_matches('/'))
    }

    fn directory(&self, path: &str) -> &Self {
        fs::create_dir_all(self.at(path)).unwrap();
        self
    }

    fn file(&self, path: &str, text: impl AsRef<[u8]>, mode: u32) -> &Self {
        fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        fs::write(self.at(path), text).unwrap();
        fs::set_permissions(self.at(path), fs::Permissions::from_mode(mode)).unwrap();
        self
    }

    /// Scripts that call nothing, as programs to be found.
    fn programs(&self, names: &[&str]) -> &Self {
        for name in names {
            let path = if name.starts_with('/') {
                (*name).to_owned()
            } else {
                format!("/usr/bin/{name}")
            };
            self.file(&path, "\x7fELF is damaged, and nobody reads it", 0o755);
            // A program without a dynamic section: the smallest that can be followed.
            self.compile(&path, "void _start(void) { for (;;) {} }", &["-static", "-nostdlib"]);
        }
        self
    }

    fn link(&self, path: &str, target: &str) -> &Self {
        fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        symlink(target, self.at(path)).unwrap();
        self
    }

    fn compile(&self, path: &str, source: &str, flags: &[&str]) -> &Self {
        fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        let code = self.folder.path().with_extension("c");
        fs::write(&code, source).unwrap();
        let output = Command::new("cc")
            .arg(&code)
            .arg("-o")
            .arg(self.at(path))
            .args(
                flags
                    .iter()
                    .map(|flag| flag.replace("ROOT", self.folder.path().to_str().unwrap())),
            )
            .output()
            .unwrap();
        fs::remove_file(&code).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        self
    }

    /// A shared object that needs nothing.
    fn library(&self, path: &str, needed: &[&str]) -> &Self {
        let name = path.rsplit('/').next().unwrap();
        let mut flags = vec![
            "-shared".to_owned(),
            "-nostdlib".to_owned(),
            format!("-Wl,-soname,{name}"),
            "-Wl,--no-as-needed".to_owned(),
        ];
        flags.extend(needed.iter().map(|needed| format!("ROOT{needed}")));
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        self.compile(path, "int f(void) { return 1; }", &flags)
    }

    fn package(&mut self, name: &str, files: &[&str]) {
        self.packages.push(Package {
            ecosystem: Ecosystem::Dpkg,
            name: name.to_owned(),
            version: "1".to_owned(),
            architecture: None,
            database: "/var/lib/dpkg/status".to_owned(),
            files: files.iter().map(|path| (*path).to_owned()).collect(),
        });
    }

    fn close(&self, roots: &Roots, level: Level) -> Closure {
        let tree = Tree::scan(fs::File::open(self.folder.path()).unwrap().into()).unwrap();
        let inventory = Inventory::new(self.packages.clone());
        close(&tree, &inventory, &Rules::builtin().unwrap(), roots, level, &|_| true)
    }

    fn run(&self, args: &[&str]) -> Closure {
        self.close(&roots(args), Level::Balanced)
    }
}

fn roots(args: &[&str]) -> Roots {
    Roots {
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        env: vec!["PATH=/usr/bin:/bin".to_owned()],
        cwd: "/".to_owned(),
        ..Roots::default()
    }
}

/// The kept programs, libraries and scripts.
fn executables(closure: &Closure) -> BTreeSet<String> {
    closure
        .paths()
        .filter(|path| closure.class(path) != Class::Data)
        .map(str::to_owned)
        .collect()
}

fn names(list: &[&str]) -> BTreeSet<String> {
    list.iter()
        .map(|name| {
            if name.starts_with('/') {
                (*name).to_owned()
            } else {
                format!("/usr/bin/{name}")
            }
        })
        .collect()
}

#[test]
fn libraries_are_found_where_the_loader_finds_them() {
    let image = Image::new();
    let triplet = "/usr/lib/x86_64-linux-gnu";
    image.library(&format!("{triplet}/libdeep.so.1"), &[]);
    image.library(
        &format!("{triplet}/libplain.so.1.2"),
        &[&format!("{triplet}/libdeep.so.1")],
    );
    image.link(&format!("{triplet}/libplain.so.1"), "libplain.so.1.2");
    image.library("/opt/conf/libconf.so", &[]).compile(
        "/opt/x/lib/liborigin.so",
        "extern void *dlopen(const char *, int); void *g(void) { return dlopen(\"libnamed.so.7\", 1) + (long)dlopen(\"libc.so.6\", 1); }",
        &["-shared", "-nostdlib", "-fPIC", "-Wl,-soname,liborigin.so"],
    );
    image.library(&format!("{triplet}/glibc-hwcaps/x86-64-v3/libplain.so.1.2"), &[]);
    image
        .library(&format!("{triplet}/libunused.so.1"), &[])
        .library(&format!("{triplet}/libc.so.6"), &[])
        .library(&format!("{triplet}/libnamed.so.7"), &[]);
    image
        .file("/etc/ld.so.conf", "include /etc/ld.so.conf.d/*.conf\n", 0o644)
        .file("/etc/ld.so.conf.d/x.conf", "# a\n/opt/conf\n", 0o644);
    image.file(
        "/lib64/ld-linux-x86-64.so.2",
        fs::read("/lib64/ld-linux-x86-64.so.2").unwrap(),
        0o755,
    );
    image.compile(
        "/opt/x/bin/program",
        "extern int f(void); void _start(void) { f(); }",
        &[
            "-nostdlib",
            "-Wl,--no-as-needed",
            &format!("ROOT{triplet}/libplain.so.1"),
            "ROOT/opt/x/lib/liborigin.so",
            "ROOT/opt/conf/libconf.so",
            "-Wl,-rpath,$ORIGIN/../lib",
            "-Wl,--enable-new-dtags",
            "-Wl,--unresolved-symbols=ignore-all",
        ],
    );
    let closure = image.run(&["/opt/x/bin/program"]);
    let kept = executables(&closure);
    for path in [
        "/opt/x/lib/liborigin.so",
        "/opt/conf/libconf.so",
        "/usr/lib/x86_64-linux-gnu/libdeep.so.1",
        "/lib64/ld-linux-x86-64.so.2",
        "/usr/lib/x86_64-linux-gnu/glibc-hwcaps/x86-64-v3/libplain.so.1.2",
        "/usr/lib/x86_64-linux-gnu/libnamed.so.7",
    ] {
        assert!(kept.contains(path), "{path} {kept:?}");
    }
    assert!(!kept.contains("/usr/lib/x86_64-linux-gnu/libunused.so.1"));
    assert_eq!(closure.objects.get("/opt/x/bin/program").unwrap().how, How::Program);
    assert_eq!(
        closure
            .objects
            .get("/usr/lib/x86_64-linux-gnu/libnamed.so.7")
            .unwrap()
            .how,
        How::Dlopen
    );
    // The C library is never taken for a plugin, all of which can be called.
    let plugins: Vec<&String> = closure
        .linked
        .plugins
        .iter()
        .filter_map(|order| order.first()?.first())
        .collect();
    assert!(kept.contains("/usr/lib/x86_64-linux-gnu/libc.so.6"));
    assert_eq!(plugins, ["/usr/lib/x86_64-linux-gnu/libnamed.so.7"]);
    let inventory = Inventory::default();
    let why = closure
        .explain("/usr/lib/x86_64-linux-gnu/libdeep.so.1", &inventory)
        .unwrap();
    assert_eq!(why.first().unwrap(), "the container's arguments");
    assert_eq!(why.len(), 4, "{why:?}");
    let why = closure
        .explain("/usr/lib/x86_64-linux-gnu/libunused.so.1", &inventory)
        .unwrap();
    assert_eq!(
        why,
        ["/usr/lib/x86_64-linux-gnu/libunused.so.1 is hidden: nothing that the container runs loads it"]
    );
    assert_eq!(closure.explain("/none", &inventory), None);
    assert_eq!(closure.findings, Vec::<String>::new());
}

#[test]
fn a_script_keeps_its_interpreter_and_what_it_calls() {
    let image = Image::new();
    image.programs(&[
        "sh", "sed", "cut", "gosu", "server", "unused", "grep", "tool", "env", "sort",
    ]);
    image.file("/lib.sh", "helper() { sed s/a/b/; }\nTOOL=/usr/bin/tool\n", 0o644);
    image.file(
        "/entry.sh",
        "#!/usr/bin/env sh\n. /lib.sh\nif [ \"${1#-}\" != \"$1\" ]; then set -- server \"$@\"; fi\nx=$(cut -d: -f1 </etc/passwd | helper)\n\
         sort <<E\nunused text $(grep x y)\nE\n$TOOL\nexec gosu nobody \"$@\"\n",
        0o755,
    );
    for args in [&["/entry.sh", "server"][..], &["/entry.sh", "--port"]] {
        let closure = image.run(args);
        assert_eq!(closure.unfollowed, []);
        assert_eq!(
            executables(&closure),
            names(&[
                "sh",
                "sed",
                "cut",
                "gosu",
                "server",
                "grep",
                "tool",
                "env",
                "sort",
                "/entry.sh"
            ]),
            "{args:?}"
        );
    }
}

#[test]
fn programs_that_a_script_writes_into_a_configuration_are_kept() {
    let image = Image::new();
    image.programs(&["sh", "cat", "server", "first", "second", "third", "unused"]);
    image.file("/script", "#!/bin/sh\n", 0o755);
    image.file(
        "/entry.sh",
        "#!/bin/sh\ncat >/tmp/c <<E\nextend hello /usr/bin/first $PORT\n# extend /usr/bin/unused\nE\n\
         echo \"piped: |\\\"/usr/bin/second\\\"\" >>/tmp/c\n{ if true; then printf 'a\\tb /usr/bin/third'; fi; } >>/tmp/c\n\
         echo \"run '/usr/bin/unused' yourself\" >/dev/stderr\n\
         cat <<'E' >>/tmp/c\npass=/script\nE\nexec server -c /tmp/c\n",
        0o755,
    );
    let closure = image.run(&["/entry.sh"]);
    assert_eq!(closure.unfollowed, []);
    assert_eq!(
        executables(&closure),
        names(&[
            "sh",
            "cat",
            "server",
            "first",
            "second",
            "third",
            "/script",
            "/entry.sh"
        ])
    );
}

#[test]
fn what_a_shell_script_makes_up_leaves_every_executable_of_packages() {
    let mut image = Image::new();
    image.programs(&["sh", "tool", "suid", "other"]);
    fs::set_permissions(image.at("/usr/bin/suid"), fs::Permissions::from_mode(0o4755)).unwrap();
    image.package("tools", &["/usr/bin/sh", "/usr/bin/tool", "/usr/bin/suid"]);
    for (text, why) in [
        (
            "eval \"$(tool)\"",
            "evaluates a text whose command is made when it runs",
        ),
        ("$(tool) x", "runs a command that is named when it runs: $(…)"),
        ("read x; exec $x", "runs a command that is named when it runs: $x"),
        (
            "read x; a=($x tool); ${a[@]}",
            "runs a command that is named when it runs: $a",
        ),
        ("tool | sh", "runs a shell that reads its commands from its input"),
        (
            "read x; . \"$x\"",
            "reads commands from a file that is named when it runs: $x",
        ),
        ("x=$(tool", "is a script that cannot be read: a `$(` in it has no end"),
    ] {
        let closure = image.run(&["sh", "-c", text]);
        assert_eq!(
            closure.unfollowed.first().map(|unfollowed| unfollowed.why.as_str()),
            Some(why),
            "{text}"
        );
        // What no package owns is the application's, and is kept only when it is reached.
        assert_eq!(executables(&closure), names(&["sh", "tool"]), "{text}");
    }
    assert_eq!(image.run(&["sh"]).unfollowed.len(), 1);
    let closure = image.run(&["suid"]);
    assert_eq!(executables(&closure), names(&["suid"]), "a root names it");
}

#[test]
fn a_command_of_which_the_name_or_the_directory_is_known_is_followed() {
    let mut image = Image::new();
    image.programs(&[
        "sh",
        "tool",
        "other",
        "/opt/a/bin/java",
        "/opt/b/java",
        "/opt/c/one",
        "/opt/c/two",
    ]);
    image.package(
        "tools",
        &[
            "/usr/bin/sh",
            "/usr/bin/tool",
            "/usr/bin/other",
            "/opt/a/bin/java",
            "/opt/b/java",
        ],
    );
    image.file("/opt/lib/functions", "other\n", 0o644);
    for (text, wanted) in [
        // Wherever it is.
        (
            "read d; exec \"$d/java\"",
            &["sh", "/opt/a/bin/java", "/opt/b/java"][..],
        ),
        (
            "read d; eval exec \"\\\"$d/bin/java\\\"\" -x",
            &["sh", "/opt/a/bin/java", "/opt/b/java"],
        ),
        ("read d; sh -c \"/opt/b/java $d\"", &["sh", "/opt/b/java"]),
        ("read d; . \"$d/functions\"", &["sh", "other"]),
        // Whichever it is.
        ("read n; /opt/c/$n x", &["sh", "/opt/c/one", "/opt/c/two"]),
        ("cmd_a() { tool; }; read n; cmd_$n", &["sh", "tool"]),
        // What the image does not have prints nothing.
        (
            "h=`cygpath x`; [ -n \"$h\" ] || h=/opt/b; exec $h/java",
            &["sh", "/opt/b/java"],
        ),
        ("j=`which tool`; exec $j", &["sh", "tool"]),
        ("read n; eval \"E$n=\\$1\"; tool", &["sh", "tool"]),
        ("read x; a=(tool -x $x); a+=(\"$x\"); exec \"${a[@]}\"", &["sh", "tool"]),
    ] {
        let closure = image.run(&["sh", "-c", text]);
        assert_eq!(closure.unfollowed, [], "{text}");
        assert_eq!(executables(&closure), names(wanted), "{text}");
    }
    // What a command prints is known only where the image has it.
    image.programs(&["dirname", "ls"]);
    // What lies beside the name that it was started by.
    image.file("/opt/real/run", "#!/bin/sh\n. \"$(dirname \"$0\")/env\"\n", 0o755);
    image
        .file("/opt/real/env", "tool\n", 0o755)
        .link("/opt/link/env", "../real/env");
    image.link("/opt/link/run", "../real/run");
    let closure = image.run(&["/opt/link/run"]);
    assert_eq!(closure.unfollowed, []);
    assert!(closure.kept.contains_key("/opt/link/env") && closure.kept.contains_key("/usr/bin/tool"));
    // The loop with which start scripts follow the links to themselves.
    image.link("/usr/bin/start", "/opt/a/start.sh");
    image.file(
        "/opt/a/start.sh",
        "#!/bin/sh\np=\"$0\"\nwhile [ -h \"$p\" ]; do ls=`ls -ld \"$p\"`\nlink=`expr \"$ls\" : '.*-> \\(.*\\)$'`\np=\"$link\"\ndone\n\
         exec \"`dirname \"$p\"`/bin/java\"\n",
        0o755,
    );
    image.file("/usr/bin/expr", "", 0o755);
    let closure = image.run(&["start"]);
    assert_eq!(closure.unfollowed, []);
    assert!(closure.kept.contains_key("/opt/a/bin/java") && !closure.kept.contains_key("/opt/b/java"));
    // A file that may lie in a mount that could not be read is not known.
    let mut given = roots(&["sh", "-c", "read d; exec \"$d/java\""]);
    given.mounts.push(Mounted {
        destination: "/data".to_owned(),
        content: Content::Unknown,
        writable: true,
        programs: true,
    });
    assert_eq!(image.close(&given, Level::Balanced).unfollowed.len(), 1);
}

#[test]
fn a_command_that_a_function_of_the_script_looks_for_is_followed() {
    let mut image = Image::new();
    image.programs(&["sh", "sed", "/usr/bin/defaults", "server", "unused"]);
    image.package("tools", &["/usr/bin/unused"]);
    // As mariadb-install-db finds its programs.
    image.file(
        "/install.sh",
        "#!/bin/sh\nargument() {\n  echo \"$1\" | sed -e 's/^[^=]*=//'\n}\n\
         find_in() {\n  file=$1; shift\n  for dir in \"$@\"\n  do\n    if test -f \"$dir/$file\"\n    then\n      \
         echo \"$dir/$file\"\n      break\n    fi\n  done\n}\n\
         other() {\n  echo nothing to do with it\n}\n\
         base=`argument \"$1\"`\nif test -n \"$base\"\nthen\n  defaults=`find_in defaults $base/bin $base/extra`\n\
         else\n  defaults=/usr/bin/defaults\nfi\nother x\n\"$defaults\" --server\nexec server\n",
        0o755,
    );
    let closure = image.run(&["/install.sh", "--base=/usr"]);
    assert_eq!(closure.unfollowed, []);
    assert_eq!(
        executables(&closure),
        names(&["sh", "sed", "defaults", "server", "/install.sh"])
    );
    // What another program prints is not known.
    image.file("/other.sh", "#!/bin/sh\nf() { server; }\n$(f) x\n", 0o755);
    assert_eq!(image.run(&["/other.sh"]).unfollowed.len(), 1);
}

#[test]
fn what_is_mounted_is_a_root_and_hides_what_lies_below_it() {
    let image = Image::new();
    image.programs(&["sh", "tool", "/data/old"]);
    let script = Mounted {
        destination: "/scripts/run.sh".to_owned(),
        content: Content::File(b"#!/bin/sh\ntool\n".to_vec(), 0o755),
        writable: false,
        programs: true,
    };
    let unknown = || Mounted {
        destination: "/data".to_owned(),
        content: Content::Unknown,
        writable: true,
        programs: true,
    };
    let mut given = roots(&["/scripts/run.sh"]);
    given.mounts = vec![script, unknown()];
    let closure = image.close(&given, Level::Balanced);
    assert_eq!(closure.unfollowed, []);
    assert_eq!(executables(&closure), names(&["sh", "tool"]));
    assert!(closure.kept.get("/scripts/run.sh").unwrap().is_mounted);
    assert_eq!(closure.hidden.get("/data/old"), Some(&Hidden::Shadowed));
    // A program in a mount that cannot be read is not known.
    let mut given = roots(&["/data/program"]);
    given.mounts = vec![unknown()];
    assert_eq!(image.close(&given, Level::Balanced).unfollowed.len(), 1);
    // A volume with a program in it.
    let volume = Image::new();
    volume.programs(&["/program"]);
    let mut given = roots(&["/data/program"]);
    given.mounts = vec![Mounted {
        content: Content::Tree(Tree::scan(fs::File::open(volume.folder.path()).unwrap().into()).unwrap()),
        ..unknown()
    }];
    let closure = image.close(&given, Level::Balanced);
    assert_eq!(closure.unfollowed, []);
    assert!(closure.objects.get("/data/program").unwrap().is_mounted);
}

#[test]
fn data_is_kept_by_the_package_and_executables_one_by_one() {
    let mut image = Image::new();
    image.programs(&["server", "helper"]);
    image
        .file("/usr/share/server/page", "x", 0o644)
        .file("/usr/share/doc/server/README", "x", 0o644);
    image
        .file("/usr/share/other/page", "x", 0o644)
        .file("/etc/passwd", "root:x:0:0::/:/bin/sh\n", 0o644);
    image
        .file("/srv/own", "x", 0o644)
        .file("/var/lib/dpkg/status", "x", 0o644)
        .directory("/var/lib/server");
    image.package(
        "server",
        &[
            "/usr/bin/server",
            "/usr/bin/helper",
            "/usr/share/server/page",
            "/usr/share/doc/server/README",
        ],
    );
    image.package("other", &["/usr/share/other/page"]);
    let kept = |level| {
        let closure = image.close(&roots(&["server"]), level);
        let inventory = Inventory::new(image.packages.clone());
        for (path, _) in Tree::scan(fs::File::open(image.folder.path()).unwrap().into())
            .unwrap()
            .nodes()
        {
            assert!(closure.explain(path, &inventory).is_some(), "{path} has no reason");
            assert!(
                closure.kept.contains_key(path) != closure.hidden.contains_key(path),
                "{path}"
            );
        }
        [
            "/usr/bin/server",
            "/usr/bin/helper",
            "/usr/share/server/page",
            "/usr/share/doc/server/README",
            "/usr/share/other/page",
            "/etc/passwd",
            "/srv/own",
            "/var/lib/dpkg/status",
            "/var/lib/server",
        ]
        .map(|path| u8::from(closure.kept.contains_key(path)))
    };
    assert_eq!(kept(Level::Balanced), [1, 0, 1, 0, 0, 1, 1, 0, 1]);
    assert_eq!(kept(Level::Packages), [1, 1, 1, 1, 0, 1, 1, 0, 1]);
    assert_eq!(kept(Level::Files), [1, 0, 0, 0, 0, 1, 1, 0, 1]);
}

#[test]
fn what_a_servers_configuration_names_is_found() {
    let image = Image::new();
    image.programs(&["apache2", "ask", "log", "unused"]);
    image.file(
        "/etc/apache2/ssl.conf",
        "# SSLPassPhraseDialog exec:/usr/bin/unused\nSSLPassPhraseDialog exec:/usr/bin/ask\nCustomLog \"|/usr/bin/log\" x\n\
         Redirect / https://usr/bin/unused\n",
        0o644,
    );
    assert_eq!(executables(&image.run(&["apache2"])), names(&["apache2", "ask", "log"]));
}

#[test]
fn an_interpreters_modules_stay_and_the_programs_that_they_start_are_found() {
    let mut image = Image::new();
    image.programs(&["python3.11", "sh", "convert", "identify", "unused"]);
    image.link("/usr/bin/python3", "python3.11");
    image.file(
        "/usr/lib/python3.11/base64.py",
        "#!/usr/bin/env python3\nos.system('unused')",
        0o755,
    );
    image.file(
        "/usr/lib/python3/dist-packages/used/a.py",
        "subprocess.run(['identify', 'log'])",
        0o644,
    );
    image.file(
        "/usr/lib/python3/dist-packages/idle/a.py",
        "subprocess.run(['unused'])",
        0o644,
    );
    let tests = "/usr/lib/python3/dist-packages/used/tests/a.py";
    image.file(tests, "subprocess.run(['unused'])", 0o644);
    image.package("used", &[tests]);
    image.library("/usr/lib/python3.11/lib-dynload/x.cpython-311.so", &[]);
    image.file(
        "/app/main.py",
        "import used\nsubprocess.check_call([\"convert\", x])\n",
        0o644,
    );
    let closure = image.run(&["python3", "/app/main.py"]);
    assert_eq!(
        executables(&closure),
        names(&[
            "python3.11",
            "convert",
            "identify",
            "/usr/lib/python3.11/base64.py",
            "/usr/lib/python3.11/lib-dynload/x.cpython-311.so"
        ])
    );
    assert!(
        closure.kept.contains_key("/usr/bin/python3")
            && closure.kept.contains_key("/usr/lib/python3/dist-packages/idle/a.py")
    );
    // A variable leads from the text to the call.
    image.file(
        "/app/main.py",
        "tool = ['convert', '-x']\nsubprocess.run(tool)\nprint('unused')\n",
        0o644,
    );
    let kept = executables(&image.run(&["python3", "/app/main.py"]));
    assert!(kept.contains("/usr/bin/convert") && kept.contains("/usr/bin/unused"));
    image.file(
        "/app/main.py",
        "subprocess.run(['sh', '-c', 'convert x | identify y'])\nprint('a b unused')\n",
        0o644,
    );
    let kept = executables(&image.run(&["python3", "/app/main.py"]));
    assert!(kept.is_superset(&names(&["sh", "convert", "identify"])) && !kept.contains("/usr/bin/unused"));
    image.file("/app/main.py", "print('convert')\n", 0o644);
    assert!(!executables(&image.run(&["python3", "/app/main.py"])).contains("/usr/bin/convert"));
    let closure = image.run(&["python3", "-c", "import os; os.system('convert x')"]);
    assert!(executables(&closure).is_superset(&names(&["sh", "convert"])));
}

#[test]
fn compiled_classes_are_searched_for_the_programs_that_they_start() {
    let image = Image::new();
    image.programs(&["java", "sh", "first", "second", "unused"]);
    let class = |texts: &[&str]| {
        let mut bytes = b"\xca\xfe\xba\xbe\0\0\0\x3d\0\x20".to_vec();
        for text in texts {
            bytes.push(1);
            bytes.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
            bytes.extend(text.as_bytes());
            bytes.extend([7, 0, 2]);
        }
        bytes
    };
    let starts = class(&["java/lang/ProcessBuilder", "sh", "-c", "first -x | second"]);
    image.file("/app/Main.class", &starts, 0o644).file(
        "/app/Other.class",
        class(&["java/lang/String", "unused"]),
        0o644,
    );
    let expected = names(&["java", "sh", "first", "second"]);
    assert_eq!(executables(&image.run(&["java", "-cp", "/app", "Main"])), expected);
    let image = Image::new();
    image.programs(&["java", "sh", "first", "second", "unused"]);
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    archive
        .start_file("Main.class", zip::write::SimpleFileOptions::default())
        .unwrap();
    std::io::Write::write_all(&mut archive, &starts).unwrap();
    let archive = archive.finish().unwrap().into_inner();
    image.file("/app/main.jar", &archive, 0o644);
    assert_eq!(executables(&image.run(&["java", "-jar", "/app/main.jar"])), expected);
    image.file("/app/main.jar", &archive[..archive.len() / 2], 0o644);
    assert_eq!(
        executables(&image.run(&["java", "-jar", "/app/main.jar"])),
        names(&["java"])
    );
}

#[test]
fn an_application_is_searched_wherever_it_lies() {
    let mut image = Image::new();
    image.programs(&["python3", "first", "second", "third", "unused"]);
    image
        .file("/usr/bin/serve", "#!/usr/bin/python3\nimport server\n", 0o755)
        .file("/srv/app/main.py", "subprocess.run([\"first\"])\n", 0o644)
        .file("/srv/app/owned.py", "subprocess.run([\"unused\"])\n", 0o644);
    image.package("server", &["/usr/bin/serve", "/srv/app/owned.py"]);
    let mounted = |destination: &str, content| Mounted {
        destination: destination.to_owned(),
        content,
        writable: false,
        programs: true,
    };
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("m.py"), "subprocess.run([\"second\"])\n").unwrap();
    let tree = Tree::scan(fs::File::open(folder.path()).unwrap().into()).unwrap();
    let mut given = roots(&["serve", "--app-dir", "/srv/app", "main:app"]);
    given.mounts = vec![
        mounted("/mnt", Content::Tree(tree)),
        mounted(
            "/mnt2/m.py",
            Content::File(b"subprocess.run([\"third\"])\n".to_vec(), 0o644),
        ),
    ];
    let closure = image.close(&given, Level::Balanced);
    assert_eq!(closure.unfollowed, []);
    assert_eq!(
        executables(&closure),
        names(&["python3", "serve", "first", "second", "third"])
    );
}

#[test]
fn a_program_that_starts_programs_keeps_those_that_its_texts_begin_with() {
    let image = Image::new();
    image.programs(&["sh", "mailer", "tool", "python3"]);
    image.file("/usr/share/server/page", "x", 0o644);
    let source = |call: &str| {
        format!(
            "extern int system(const char *); extern int execv(const char *, char **); const char *a = \"/usr/bin/mailer\", *b = \"PYTHON=/usr/bin/python3\", *c = \"/usr/share/server/\"; void _start(void) {{ {call}; }}"
        )
    };
    let flags = ["-shared", "-nostdlib", "-fPIC"];
    image.compile("/usr/bin/runs", &source("execv(a, 0)"), &flags).compile(
        "/usr/bin/shell",
        &source("system(a)"),
        &flags,
    );
    image.compile("/usr/bin/still", &source(""), &flags);
    assert_eq!(executables(&image.run(&["runs"])), names(&["runs", "mailer"]));
    assert_eq!(executables(&image.run(&["shell"])), names(&["shell", "mailer", "sh"]));
    let closure = image.run(&["still"]);
    assert_eq!(executables(&closure), names(&["still"]));
    assert!(closure.kept.contains_key("/usr/share/server/page"));
}

#[test]
fn a_program_that_was_installed_below_a_prefix_keeps_what_its_texts_name_below_it() {
    let image = Image::new();
    image.programs(&[
        "/usr/share/server/helper",
        "/usr/lib/server/plugins/tool",
        "/opt/share/server/helper",
    ]);
    image.file("/usr/share/server/other", "x", 0o644);
    let flags = ["-shared", "-nostdlib", "-fPIC"];
    let source = |call: &str| {
        format!(
            "extern int execv(const char *, char **); const char *a = \"share/server/helper\", *b = \"../lib/server/plugins/tool\", *c = \"see share/server/other\"; void _start(void) {{ {call}; }}"
        )
    };
    image.compile("/usr/bin/runs", &source("execv(a, 0)"), &flags);
    image.compile("/usr/bin/still", &source(""), &flags);
    let closure = image.run(&["runs"]);
    let kept = names(&["runs", "/usr/share/server/helper", "/usr/lib/server/plugins/tool"]);
    assert_eq!(executables(&closure), kept);
    assert_eq!(executables(&image.run(&["still"])), names(&["still"]));
}

#[test]
fn commands_are_found_in_configuration_and_in_sources_of_unknown_languages() {
    let mut image = Image::new();
    image.programs(&[
        "sh", "server", "expr", "uname", "tac", "cat", "tr", "rev", "sort", "df", "host", "unused", "oddlang",
    ]);
    let settings = "# run \"unused\"\nhost = uname\nUserParameter=a,expr 6 \\* 7\ncommand[x]=/bin/sh -c \"seq 3; tac /etc/x\"\n\
                    destination x { program(\"cat > /out\"); };\ncheck with path \"/bin/sh -c 'df -P'\"\ncommand=sh -c \"sort -u | rev\"\n\
                    * * * * * root (id -un; tr a b)\n";
    image.file("/etc/server/settings", settings, 0o644);
    image.package("server", &["/usr/bin/server", "/etc/server/settings"]);
    let found = ["server", "sh", "expr", "tac", "cat", "df", "sort", "rev", "tr"];
    assert_eq!(executables(&image.run(&["server"])), names(&found));
    image.file(
        "/app/main.odd",
        "(display (pipe \"tr a b | rev\")) (process \"uname\")\n\"host\"",
        0o644,
    );
    let closure = image.run(&["oddlang", "-s", "/app/main.odd"]);
    assert_eq!(executables(&closure), names(&["oddlang", "tr", "rev", "uname"]));
    let closure = image.run(&["oddlang", "-e", "(run \"sort x\")"]);
    assert_eq!(executables(&closure), names(&["oddlang", "sort"]));
    image.file("/usr/bin/odd", "#!/usr/bin/oddlang\n(pipe \"tac /etc/x\")", 0o755);
    assert_eq!(executables(&image.run(&["odd"])), names(&["odd", "oddlang", "tac"]));
    let closure = image.run(&["oddlang", "LISTEN:1", "SYSTEM:tr a-z A-Z"]);
    assert_eq!(executables(&closure), names(&["oddlang", "tr"]));
    assert!(closure.unfollowed.is_empty());
}

#[test]
fn much_configuration_that_reads_as_no_command_is_searched_to_its_end() {
    let mut image = Image::new();
    image.programs(&["server", "sort", "unused"]);
    let mut text = "name, value = 'a text', other: \"one more\"\n".repeat(20_000);
    text.push_str("command = sort -u\n");
    image.file("/etc/server/settings", &text, 0o644);
    image.package("server", &["/usr/bin/server", "/etc/server/settings"]);
    let closure = image.run(&["server"]);
    assert!(closure.unfollowed.is_empty(), "{:?}", closure.unfollowed);
    assert_eq!(executables(&closure), names(&["server", "sort"]));
}

#[test]
fn a_module_is_one_whatever_its_suffix_and_its_permissions() {
    let mut image = Image::new();
    image.programs(&["lisp"]);
    image.library("/usr/lib/lisp-1/sockets.fas", &[]);
    fs::set_permissions(
        image.at("/usr/lib/lisp-1/sockets.fas"),
        fs::Permissions::from_mode(0o755),
    )
    .unwrap();
    image.package("lisp", &["/usr/bin/lisp", "/usr/lib/lisp-1/sockets.fas"]);
    let closure = image.run(&["lisp"]);
    assert_eq!(closure.class("/usr/lib/lisp-1/sockets.fas"), Class::Library);
    assert!(closure.kept.contains_key("/usr/lib/lisp-1/sockets.fas"));
}

#[test]
fn what_only_begins_as_a_script_is_read_no_further_and_loaded_as_data() {
    let mut image = Image::new();
    image.programs(&["vm", "sh", "unused"]);
    let mut code = b"#!/usr/bin/vm\n\0".to_vec();
    code.resize(3 << 20, 1);
    image
        .file("/usr/bin/code", &code, 0o755)
        .file("/usr/lib/vm/1/boot.image", &code, 0o755);
    image.file("/usr/lib/vm/1/tool", "#!/bin/sh\nunused", 0o755);
    let closure = image.run(&["code"]);
    assert_eq!(executables(&closure), names(&["code", "vm"]));
    assert!(closure.unfollowed.is_empty());
    let flags = ["-shared", "-nostdlib", "-fPIC"];
    image.compile(
        "/usr/bin/vm",
        "const char *a = \"/usr/lib/vm/1\"; void _start(void) {}",
        &flags,
    );
    image.package("vm", &["/usr/bin/vm", "/usr/lib/vm/1/boot.image", "/usr/lib/vm/1/tool"]);
    assert_eq!(
        executables(&image.run(&["vm"])),
        names(&["vm", "/usr/lib/vm/1/boot.image"])
    );
}

#[test]
fn a_shell_of_a_language_that_is_not_read_keeps_every_executable() {
    let mut image = Image::new();
    image.programs(&["fish", "ls", "other"]);
    image.file("/usr/bin/start", "#!/usr/bin/fish\nls /etc | count", 0o755);
    image.package(
        "all",
        &["/usr/bin/fish", "/usr/bin/ls", "/usr/bin/other", "/usr/bin/start"],
    );
    for args in [&["fish", "-c", "ls (math 1)"][..], &["start"]] {
        let closure = image.run(args);
        assert_eq!(closure.unfollowed.len(), 1, "{args:?}");
        assert!(
            executables(&closure).is_superset(&names(&["fish", "ls", "other"])),
            "{args:?}"
        );
    }
}

#[test]
fn a_library_that_a_module_finds_in_the_process_is_not_missing() {
    let mut image = Image::new();
    image
        .library("/usr/lib/vm/server/libvm.so", &[])
        .library("/usr/lib/gone.so", &[])
        .library(
            "/usr/lib/vm/libnet.so",
            &["/usr/lib/vm/server/libvm.so", "/usr/lib/gone.so"],
        );
    let flags = ["-shared", "-nostdlib", "-fPIC"];
    let source =
        "extern void *dlopen(const char *, int); void _start(void) { dlopen(\"/usr/lib/vm/server/libvm.so\", 1); }";
    image.compile("/usr/bin/vm", source, &flags);
    image.compile(
        "/usr/bin/lost",
        "void _start(void) {}",
        &[
            "-shared",
            "-nostdlib",
            "-fPIC",
            "-Wl,--no-as-needed",
            "ROOT/usr/lib/vm/server/libvm.so",
        ],
    );
    fs::remove_file(image.at("/usr/lib/gone.so")).unwrap();
    image.package(
        "vm",
        &["/usr/bin/vm", "/usr/lib/vm/server/libvm.so", "/usr/lib/vm/libnet.so"],
    );
    let findings = image.run(&["vm"]).findings;
    assert_eq!(
        findings,
        ["/usr/lib/vm/libnet.so needs gone.so, which the image does not have"]
    );
    // A program finds only what its own process has.
    let findings = image.run(&["lost"]).findings;
    assert_eq!(
        findings,
        ["/usr/bin/lost needs libvm.so, which the image does not have"]
    );
}

#[test]
fn what_an_interpreted_text_starts_without_quotes_is_found() {
    let image = Image::new();
    image.programs(&["sh", "perl", "tclsh8.6", "gawk", "octave-cli", "convert", "unused"]);
    for (path, text) in [
        ("/app/a.pl", "my $x = `convert -v`;"),
        ("/app/b.pl", "my $x = qx{convert -v};"),
        ("/app/c.pl", "open(my $f, '-|', 'convert');"),
        ("/app/a.tcl", "puts [exec convert -v]"),
        ("/app/b.tcl", "set f [open \"|convert -v\" r]"),
        ("/app/a.awk", "BEGIN { \"convert -v\" | getline x; system(\"\") }"),
        ("/app/a.m", "[s, o] = system('convert -v');"),
    ] {
        image.file(path, text, 0o644);
        let interpreter = match path.rsplit_once('.').unwrap().1 {
            "pl" => &["perl"][..],
            "tcl" => &["tclsh8.6"],
            "awk" => &["gawk", "-f"],
            _ => &["octave-cli"],
        };
        let kept = executables(&image.run(&[interpreter, &[path]].concat()));
        assert!(
            kept.contains("/usr/bin/convert") && !kept.contains("/usr/bin/unused"),
            "{text}: {kept:?}"
        );
    }
}

#[test]
fn a_program_that_looks_commands_up_keeps_those_that_it_names() {
    let image = Image::new();
    image.programs(&["mailer", "ls", "cron"]);
    image.file("/usr/bin/service", "#!/bin/sh\n", 0o755);
    let source = |call: &str| {
        format!(
            "extern int {call}(const char *, char **); const char *a = \"mailer\", *b = \"service\", *c = \"ls\", *d = \"cron\"; void _start(void) {{ {call}(a, 0); }}"
        )
    };
    let flags = ["-shared", "-nostdlib", "-fPIC"];
    image.compile("/usr/bin/runs", &source("execvp"), &flags);
    image.compile("/usr/bin/runs-paths", &source("execv"), &flags);
    assert_eq!(executables(&image.run(&["runs"])), names(&["runs", "mailer"]));
    assert_eq!(executables(&image.run(&["runs-paths"])), names(&["runs-paths"]));
}

#[test]
fn the_jobs_of_cron_that_every_debian_image_has_can_be_followed() {
    let mut image = Image::new();
    image.programs(&["/usr/sbin/cron", "sh", "test", "lsblk", "backup", "unused"]);
    image.package("tools", &["/usr/bin/unused"]);
    image.file(
        "/etc/cron.d/e2scrub_all",
        "10 3 * * * root test -e /run/systemd/system || SERVICE_MODE=1 /usr/sbin/e2scrub_all -A -r\n",
        0o644,
    );
    image.file("/etc/cron.d/own", "@daily root cd /tmp && exec backup\n", 0o644);
    image.file(
        "/usr/sbin/e2scrub_all",
        "#!/bin/sh\nlsblk -P | while read vars ; do\neval \"${vars}\"\ndone\n",
        0o755,
    );
    let closure = image.run(&["cron", "-f"]);
    assert_eq!(closure.unfollowed, []);
    let kept = executables(&closure);
    assert!(
        kept.contains("/usr/bin/backup") && kept.contains("/usr/bin/lsblk"),
        "{kept:?}"
    );
    assert!(!kept.contains("/usr/bin/unused"), "{kept:?}");
}

#[test]
fn elf_files_for_linkers_and_interpreters_are_data() {
    let mut image = Image::new();
    image.programs(&["cc"]);
    let object = "/usr/lib/gcc/12/crtbegin.o";
    let bytecode = "/usr/lib/guile/3.0/ccache/a.go";
    image.compile(object, "int x;", &["-c"]).library(bytecode, &[]);
    let mut bytes = fs::read(image.at(bytecode)).unwrap();
    bytes[18..20].fill(0);
    image.file(bytecode, bytes, 0o644);
    image.package("gcc", &["/usr/bin/cc", object, bytecode]);
    let closure = image.run(&["cc"]);
    assert_eq!(closure.unfollowed, []);
    for path in [object, bytecode] {
        assert!(
            closure.kept.contains_key(path) && !closure.objects.contains_key(path),
            "{path}"
        );
    }
}

#[test]
fn a_rule_says_what_a_script_starts_that_cannot_be_followed() {
    let mut image = Image::new();
    image.programs(&["sh", "tool", "other"]);
    image.file("/usr/bin/start", "#!/bin/sh\nread x; $x\n", 0o755);
    image.package("tools", &["/usr/bin/tool", "/usr/bin/other"]);
    let rule = "[[rule]]\nname='a'\nreason='b'\nreached=['start']\nrun=['tool']\nknown=true\n";
    let rules = Rules::with(&[("a.toml".to_owned(), rule.to_owned())]).unwrap();
    let tree = Tree::scan(fs::File::open(image.folder.path()).unwrap().into()).unwrap();
    let inventory = Inventory::new(image.packages.clone());
    let closure = close(&tree, &inventory, &rules, &roots(&["start"]), Level::Balanced, &|_| {
        true
    });
    assert_eq!(closure.unfollowed, []);
    assert_eq!(executables(&closure), names(&["start", "sh", "tool"]));
}

#[test]
fn an_interpreter_that_calls_libraries_by_names_of_its_own_is_said() {
    let image = Image::new();
    image.programs(&["sbcl", "lua5.4"]);
    assert_eq!(image.run(&["sbcl"]).foreign.len(), 1);
    assert_eq!(image.run(&["lua5.4"]).foreign.len(), 0);
}

#[test]
fn a_compiler_that_starts_its_parts_by_names_that_it_puts_together_keeps_them() {
    let image = Image::new();
    let (tool, unused) = (
        "/usr/lib/go-1.19/pkg/tool/linux_amd64/compile",
        "/usr/lib/go-1.19/misc/x",
    );
    image.programs(&["/usr/lib/go-1.19/bin/go", tool, unused, "git", "other"]);
    image.link("/usr/bin/go", "../lib/go-1.19/bin/go");
    image.file("/srv/main.go", "exec.Command(\"other\")\n", 0o644);
    let closure = image.run(&["go", "run", "/srv/main.go"]);
    assert!(executables(&closure).is_superset(&names(&["/usr/lib/go-1.19/bin/go", tool, "git", "other"])));
    assert!(!closure.kept.contains_key(unused));
    // What it makes of the source is started, and is in no file.
    assert_eq!(closure.foreign.len(), 1);
    image.programs(&["x86_64-linux-gnu-gfortran-12", "/usr/lib/gcc/x86_64-linux-gnu/12/f951"]);
    image.link("/usr/bin/gfortran", "x86_64-linux-gnu-gfortran-12");
    for command in ["gfortran", "x86_64-linux-gnu-gfortran-12"] {
        assert!(
            executables(&image.run(&[command])).contains("/usr/lib/gcc/x86_64-linux-gnu/12/f951"),
            "{command}"
        );
    }
}

#[test]
fn what_a_description_of_libraries_names_is_loaded_and_called() {
    let image = Image::new();
    image.library("/usr/lib/x86_64-linux-gnu/libgirepository-1.0.so.1", &[]);
    image.library("/usr/lib/x86_64-linux-gnu/libdescribed.so.2", &[]);
    image.programs(&["sh"]);
    image.compile(
        "/usr/bin/gjs-console",
        "void _start(void) { for (;;) {} }",
        &[
            "-nostdlib",
            "-Wl,--no-as-needed",
            "ROOT/usr/lib/x86_64-linux-gnu/libgirepository-1.0.so.1",
        ],
    );
    let closure = image.run(&["gjs-console"]);
    assert!(closure.kept.contains_key("/usr/lib/x86_64-linux-gnu/libdescribed.so.2"));
    assert_eq!(closure.foreign.len(), 1);
}

#[test]
fn a_text_that_is_a_command_by_itself_is_started() {
    let image = Image::new();
    image.programs(&["regina", "picolisp", "newlisp", "sh", "date", "uname", "unused"]);
    image.file("/srv/a.rexx", "/* */\nsay 1\n'date'\n", 0o644);
    let kept = executables(&image.run(&["regina", "/srv/a.rexx"]));
    assert!(kept.is_superset(&names(&["sh", "date"])) && !kept.contains("/usr/bin/unused"));
    image.file("/srv/a.l", "(call \"uname\")\n(in '(date) (line))\n", 0o644);
    assert!(executables(&image.run(&["picolisp", "/srv/a.l"])).contains("/usr/bin/uname"));
    image.file("/srv/a.lsp", "(exec \"uname -s\")\n", 0o644);
    assert!(image.run(&["newlisp", "/srv/a.lsp"]).foreign.is_empty());
    image.file("/srv/a.lsp", "(import \"libc.so.6\" \"mount\")\n", 0o644);
    assert_eq!(image.run(&["newlisp", "/srv/a.lsp"]).foreign.len(), 1);
}

#[test]
fn where_the_search_of_configuration_ends_is_said() {
    let image = Image::new();
    image.programs(&["server", "tool"]);
    for number in 0..8 {
        image.file(
            &format!("/srv/{number}"),
            format!("include /srv/{}\n", number + 1),
            0o644,
        );
    }
    image.file("/srv/8", "/usr/bin/tool\n", 0o644);
    let closure = image.run(&["server", "/srv/0"]);
    assert!(
        closure
            .findings
            .iter()
            .any(|finding| finding.contains("was not searched")),
        "{:?}",
        closure.findings
    );
    for number in 0..2100 {
        image.file(&format!("/srv/data/{number}"), "", 0o644);
    }
    let closure = image.run(&["server", "/srv/data"]);
    assert!(
        closure
            .findings
            .iter()
            .any(|finding| finding.contains("the first 2000")),
        "{:?}",
        closure.findings
    );
}

#[test]
fn damaged_and_lying_programs_end_and_are_said() {
    let image = Image::new();
    image.programs(&["good"]);
    let good = fs::read(image.at("/usr/bin/good")).unwrap();
    let libc = fs::read("/lib/x86_64-linux-gnu/libz.so.1").unwrap();
    let mut number = 0;
    for bytes in [&good, &libc] {
        for at in (0..bytes.len().min(1024)).step_by(3) {
            let mut lying = bytes.clone();
            lying[at..(at + 8).min(bytes.len())].fill(0xff);
            image.file(&format!("/usr/bin/p{number}"), &lying, 0o755);
            number += 1;
        }
        image.file(&format!("/usr/bin/p{number}"), &bytes[..bytes.len() / 2], 0o755);
        number += 1;
    }
    image
        .link("/usr/bin/loop", "loop")
        .file("/usr/bin/header", "\x7fELF", 0o755);
    let mut given = roots(&["loop", "header"]);
    given.exec = (0..number)
        .map(|number| format!("p{number}"))
        .chain(["header".to_owned()])
        .collect();
    let closure = image.close(&given, Level::Balanced);
    assert!(
        closure
            .unfollowed
            .iter()
            .any(|unfollowed| unfollowed.what == "/usr/bin/header"),
        "{:?}",
        closure.unfollowed
    );
}

#[test]
fn the_same_image_and_roots_give_the_same_closure() {
    let image = Image::new();
    image
        .programs(&["sh", "a", "b", "c"])
        .file("/x.sh", "#!/bin/sh\na; b | c\n", 0o755);
    let one = image.run(&["/x.sh"]);
    let other = image.run(&["/x.sh"]);
    assert_eq!(one.kept, other.kept);
    assert_eq!(one.objects, other.objects);
    assert_eq!(one.hidden, other.hidden);
}

#[test]
fn what_a_program_is_given_as_configuration_leads_to_what_it_names() {
    let image = Image::new();
    image
        .programs(&[
            "server",
            "helper",
            "included",
            "mounted",
            "commented",
            "hook-tool",
            "other",
        ])
        .file(
            "/srv/given.conf",
            "# /usr/bin/commented\nhelper /usr/bin/helper -x\ninclude \"/srv/more.conf\"\n",
            0o644,
        )
        .file("/srv/more.conf", "exec=/usr/bin/included\n", 0o644)
        .file("/srv/data.conf", "\0/usr/bin/other\n", 0o644)
        .file("/srv/repository/hooks/post-receive", "#!/usr/bin/helper\n", 0o755)
        .file("/srv/repository/hooks/pre-push.sample", "#!/usr/bin/other\n", 0o755);
    let mut given = roots(&[
        "server",
        "--config=/srv/given.conf",
        "-d",
        "/srv/data.conf",
        "--base=/srv/repository",
    ]);
    given.mounts.push(Mounted {
        destination: "/etc/mounted".to_owned(),
        content: Content::File(b"program '/usr/bin/mounted'".to_vec(), 0o644),
        writable: false,
        programs: true,
    });
    let closure = image.close(&given, Level::Balanced);
    assert_eq!(
        executables(&closure),
        names(&[
            "server",
            "helper",
            "included",
            "mounted",
            "/srv/repository/hooks/post-receive"
        ])
    );
    assert!(closure.unfollowed.is_empty(), "{:?}", closure.unfollowed);
}

#[test]
fn a_directory_that_configuration_names_keeps_the_images_own_scripts_and_what_they_start() {
    let mut image = Image::new();
    image
        .programs(&[
            "httpd",
            "sh",
            "tool",
            "date",
            "/usr/share/httpd/plugin",
            "packaged",
            "other",
        ])
        .link("/etc/httpd/plugins/one", "/usr/share/httpd/plugin")
        .file(
            "/etc/httpd/site.conf",
            "ScriptAlias /cgi-bin/ /usr/lib/cgi-bin/\nDocumentRoot /srv\n",
            0o644,
        )
        .file("/srv/cgi/site", "#!/usr/bin/sh\ndate\n", 0o755)
        .file("/etc/other/other.conf", "run /usr/bin/other\n", 0o644)
        .file("/usr/lib/cgi-bin/own", "#!/usr/bin/sh\ntool\n", 0o755)
        .file("/usr/lib/cgi-bin/brought", "#!/usr/bin/sh\npackaged\n", 0o755);
    image.package("httpd", &["/usr/bin/httpd", "/etc/httpd/site.conf"]);
    image.package("scripts", &["/usr/lib/cgi-bin/brought", "/etc/other/other.conf"]);
    assert_eq!(
        executables(&image.run(&["httpd"])),
        names(&[
            "httpd",
            "sh",
            "tool",
            "date",
            "/usr/share/httpd/plugin",
            "/usr/lib/cgi-bin/own",
            "/srv/cgi/site"
        ])
    );
}

#[test]
fn scripts_below_the_directory_that_an_applet_serves_are_kept() {
    let image = Image::new();
    image
        .programs(&["busybox"])
        .file("/www/index.html", "text", 0o644)
        .file(
            "/www/start.sh",
            "#!/usr/bin/busybox sh\nset -e\nexec busybox httpd -f -p \"$1\" -h /www -r corpus\n",
            0o755,
        )
        .file("/www/cgi-bin/who.sh", "#!/usr/bin/busybox sh\nbusybox seq 3\n", 0o755);
    let closure = image.run(&["busybox", "sh", "/www/start.sh", "8080"]);
    assert_eq!(
        executables(&closure),
        names(&["busybox", "/www/cgi-bin/who.sh", "/www/start.sh"])
    );
    assert!(closure.unfollowed.is_empty(), "{:?}", closure.unfollowed);
}

#[test]
fn an_element_of_an_array_that_is_set_is_no_command() {
    let image = Image::new();
    image.programs(&["bash", "first", "unused"]).file(
        "/start",
        "#!/usr/bin/bash\ni=0\nfor one in \"$@\"; do\n  tools[$i]=\"fir$x\"\n  tools[$((i+1))]+=-x\ndone\nfirst\n",
        0o755,
    );
    let closure = image.run(&["/start"]);
    assert_eq!(executables(&closure), names(&["/start", "bash", "first"]));
    assert!(closure.unfollowed.is_empty(), "{:?}", closure.unfollowed);
}

#[test]
fn a_directory_that_a_link_of_a_package_leads_to_stays() {
    let mut image = Image::new();
    image
        .programs(&["draw"])
        .file("/usr/share/draw/data", "x", 0o644)
        .file("/usr/share/color/profiles/a", "x", 0o644)
        .file("/usr/share/color/others/a", "x", 0o644)
        .file("/usr/share/doc/draw/README", "x", 0o644)
        .link("/usr/share/draw/profiles", "../color/profiles")
        .link("/usr/share/draw/doc", "../doc/draw")
        .link("/usr/share/draw/all", "/usr/share")
        .link("/usr/share/none/others", "../color/others");
    image.package(
        "draw",
        &[
            "/usr/bin/draw",
            "/usr/share/draw/data",
            "/usr/share/draw/profiles",
            "/usr/share/draw/doc",
            "/usr/share/draw/all",
            "/usr/share/doc/draw/README",
        ],
    );
    image.package("colors", &["/usr/share/color/profiles/a", "/usr/share/color/others/a"]);
    image.package("none", &["/usr/share/none/others"]);
    let kept = image.run(&["draw"]).kept;
    assert!(kept.contains_key("/usr/share/color/profiles/a"));
    for hidden in ["/usr/share/color/others/a", "/usr/share/doc/draw/README"] {
        assert!(!kept.contains_key(hidden), "{hidden}");
    }
}

#[test]
fn what_a_script_makes_its_arguments_is_started() {
    let image = Image::new();
    image
        .programs(&["sh", "first", "second", "third", "given", "unused"])
        .file(
            "/start",
            "#!/bin/sh\nretry() { \"$@\" || exec \"$@\"; }\nretry first -x\nretry second\nset -- \"$@\" -extra\n\
             NAME=third\nset -- \"$NAME\" -z \"$@\"\nset -- \"$VAL\" \"$@\"\nexec \"$@\"\n",
            0o755,
        );
    for args in [&["/start"][..], &["/start", "/srv/file", "1"], &["/start", "given"]] {
        let closure = image.run(args);
        let mut expected = names(&["/start", "sh", "first", "second", "third"]);
        expected.extend(names(
            args.get(1..2).filter(|args| args == &["given"]).unwrap_or_default(),
        ));
        assert_eq!(executables(&closure), expected, "{args:?}");
        assert!(closure.unfollowed.is_empty(), "{:?}", closure.unfollowed);
    }
}

#[test]
fn a_source_that_makes_calls_by_number_is_told() {
    let image = Image::new();
    image
        .programs(&["perl"])
        .file("/srv/plain.pl", "#!/usr/bin/perl\nprint 1;\n", 0o755);
    assert!(image.run(&["/srv/plain.pl"]).foreign.is_empty());
    image.file("/srv/numbers.pl", "#!/usr/bin/perl\nsyscall(39);\n", 0o755);
    let closure = image.run(&["/srv/numbers.pl"]);
    assert_eq!(
        closure.foreign,
        ["/srv/numbers.pl has `syscall(`: it makes system calls by number, or by names that lie in no ELF file"]
    );
    image.programs(&["python3"]);
    for (path, count) in [("/srv/packaging/_manylinux.py", 0), ("/srv/other.py", 1)] {
        image.file(path, "#!/usr/bin/python3\nctypes.CDLL(None)\n", 0o755);
        assert_eq!(image.run(&[path]).foreign.len(), count, "{path}");
    }
    // What a reviewed module looks up by name, an application asks it for.
    let image = Image::new();
    image.programs(&["python3"]);
    let module = "/usr/lib/python3/dist-packages/numpy/ctypeslib.py";
    image.file(module, "def load_library(path):\n  return ctypes.cdll[path]\n", 0o644);
    for (text, count) in [("numpy.zeros(1)", 0), ("numpy.ctypeslib.load_library('x')", 1)] {
        image.file(
            "/srv/array.py",
            format!("#!/usr/bin/python3\nimport numpy\n{text}\n"),
            0o755,
        );
        let foreign = image.run(&["/srv/array.py"]).foreign;
        assert!(
            foreign.len() == count && !foreign.iter().any(|why| why.contains("dist-packages")),
            "{foreign:?}"
        );
    }
}

#[test]
fn what_a_server_is_told_to_hand_out_stays_whole() {
    let mut image = Image::new();
    image
        .programs(&["httpd"])
        .file("/usr/share/licenses/GPL", "text", 0o644)
        .file("/usr/lib/base/data", "text", 0o644)
        .file("/usr/lib/none/data", "text", 0o644);
    image.package("base", &["/usr/share/licenses/GPL", "/usr/lib/base/data"]);
    image.package("none", &["/usr/lib/none/data"]);
    let mut given = roots(&["httpd"]);
    given.mounts.push(Mounted {
        destination: "/etc/httpd.conf".to_owned(),
        content: Content::File(b"server {\n  root /usr/share;\n  dirs /usr/lib;\n}\n".to_vec(), 0o644),
        writable: false,
        programs: true,
    });
    let closure = image.close(&given, Level::Balanced);
    let kept: Vec<&str> = closure.paths().collect();
    assert!(kept.contains(&"/usr/share/licenses/GPL"), "{kept:?}");
    assert!(!kept.contains(&"/usr/lib/none/data"), "everybody's: {kept:?}");
    assert!(
        !kept.contains(&"/usr/lib/base/data"),
        "a licence that is handed out needs nothing of its package: {kept:?}"
    );
}

#[test]
fn a_directory_at_the_start_of_a_text_without_end_is_found() {
    let mut image = Image::new();
    image
        .file("/usr/share/licenses/GPL", "text", 0o644)
        .file("/usr/share/other/data", "text", 0o644)
        .compile(
            "/usr/bin/server",
            "const char a[] = \"Go buildinf:\"; const char b[] = \"/usr/share/licensesand more\"; void _start(void) { for (;;); }",
            &["-static", "-nostdlib"],
        );
    image.package("base", &["/usr/share/licenses/GPL"]);
    image.package("other", &["/usr/share/other/data"]);
    let closure = image.run(&["server"]);
    let kept: Vec<&str> = closure.paths().collect();
    assert!(kept.contains(&"/usr/share/licenses/GPL"), "{kept:?}");
    assert!(!kept.contains(&"/usr/share/other/data"), "{kept:?}");
}

#[test]
fn a_command_that_a_text_replaces_the_shell_by_is_started() {
    let image = Image::new();
    image.programs(&["sh", "compiler", "other"]).compile(
        "/usr/bin/server",
        "extern int system(const char *); const char *a = \"exec compiler -shared -o %o %s\"; void _start(void) { system(a); }",
        &["-shared", "-nostdlib", "-fPIC"],
    );
    assert_eq!(
        executables(&image.run(&["server"])),
        names(&["server", "sh", "compiler"])
    );
}

/// Whether the work for the image's texts came to its end.
fn is_too_much(closure: &Closure) -> bool {
    let mut whys = closure.unfollowed.iter().map(|unfollowed| &unfollowed.why);
    whys.any(|why| why.contains("lead to more than is followed"))
}

#[test]
fn a_long_chain_of_scripts_is_followed_to_its_end() {
    let image = Image::new();
    image.programs(&["sh", "last", "unused"]);
    for number in 0..3000 {
        let next = number + 1;
        image.file(
            &format!("/usr/bin/c{number}"),
            format!("#!/bin/sh\n/bin/c{next}\n"),
            0o755,
        );
        image.file(
            &format!("/usr/bin/d{number}"),
            format!("#!/bin/sh\nsh /bin/d{next}\n"),
            0o755,
        );
    }
    image
        .file("/usr/bin/c3000", "#!/bin/sh\nlast\n", 0o755)
        .file("/usr/bin/d3000", "#!/bin/sh\nlast\n", 0o755);
    for first in ["c0", "d0"] {
        let closure = image.run(&[first]);
        assert_eq!(closure.unfollowed, []);
        assert!(closure.kept.contains_key("/usr/bin/last"));
        assert!(!closure.kept.contains_key("/usr/bin/unused"));
    }
}

#[test]
fn a_text_that_starts_itself_is_followed_once() {
    let image = Image::new();
    image.programs(&["sh", "tool", "unused"]);
    let mut given = roots(&["sh", "-c", "sh -c \"$AGAIN\""]);
    given.env.push("AGAIN=tool; sh -c \"$AGAIN\"".to_owned());
    let closure = image.close(&given, Level::Balanced);
    assert_eq!(closure.unfollowed, []);
    assert_eq!(executables(&closure), names(&["sh", "tool"]));
}

#[test]
fn a_long_chain_of_configuration_is_followed_to_its_end() {
    let image = Image::new();
    image.programs(&["server", "last", "unused"]);
    for number in 0..3000 {
        let next = number + 1;
        image.file(
            &format!("/etc/c{number}.conf"),
            format!("command = server /etc/c{next}.conf\n"),
            0o644,
        );
    }
    image.file("/etc/c3000.conf", "command = last\n", 0o644);
    let closure = image.run(&["server", "/etc/c0.conf"]);
    assert_eq!(executables(&closure), names(&["server", "last"]));
}

#[test]
fn interpreters_are_followed_as_far_as_the_kernel_does() {
    let image = Image::new();
    image.programs(&["end", "unused"]);
    for number in 0..100 {
        image.file(
            &format!("/usr/bin/c{number}"),
            format!("#!/usr/bin/c{}\n", number + 1),
            0o755,
        );
    }
    image.file("/usr/bin/c100", "#!/usr/bin/end\n", 0o755);
    let closure = image.run(&["c96"]);
    assert_eq!(closure.unfollowed, []);
    assert_eq!(
        executables(&closure),
        names(&["c96", "c97", "c98", "c99", "c100", "end"])
    );
    let closure = image.run(&["c0"]);
    assert_eq!(closure.unfollowed.len(), 1, "{:?}", closure.unfollowed);
    assert!(!closure.kept.contains_key("/usr/bin/c50"));
}

#[test]
fn scripts_that_read_too_much_again_and_again_keep_everything() {
    let mut image = Image::new();
    image.programs(&["sh", "unused"]);
    image.package("unused", &["/usr/bin/unused"]);
    image.file("/etc/lib.sh", format!("#{}\n", "x".repeat(1 << 20)), 0o644);
    let mut start = "#!/bin/sh\n".to_owned();
    for number in 0..40 {
        image.file(&format!("/usr/bin/c{number}"), "#!/bin/sh\n. /etc/lib.sh\n", 0o755);
        start.push_str(&format!("/usr/bin/c{number}\n"));
    }
    image.file("/usr/bin/few", "#!/bin/sh\n/usr/bin/c0\n/usr/bin/c1\n", 0o755);
    image.file("/usr/bin/start", start, 0o755);
    let closure = image.run(&["few"]);
    assert_eq!(closure.unfollowed, []);
    assert!(!closure.kept.contains_key("/usr/bin/unused"));
    let closure = image.run(&["start"]);
    assert!(is_too_much(&closure), "{:?}", closure.unfollowed);
    assert!(closure.kept.contains_key("/usr/bin/unused"));
}

#[test]
fn patterns_over_many_names_keep_everything_when_they_are_too_many() {
    let mut image = Image::new();
    image.programs(&["sh", "unused"]);
    image.package("unused", &["/usr/bin/unused"]);
    for number in 0..2000 {
        image.file(&format!("/etc/p/{}{number}", "a".repeat(200)), "", 0o644);
    }
    let globs = |count: usize| format!("#!/bin/sh\n{}", ". /etc/p/*a*a*a*a*b\n".repeat(count));
    image
        .file("/usr/bin/few", globs(4), 0o755)
        .file("/usr/bin/start", globs(1000), 0o755);
    let closure = image.run(&["few"]);
    assert_eq!(closure.unfollowed, []);
    assert!(!closure.kept.contains_key("/usr/bin/unused"));
    let closure = image.run(&["start"]);
    assert!(is_too_much(&closure), "{:?}", closure.unfollowed);
    assert!(closure.kept.contains_key("/usr/bin/unused"));
}

#[test]
fn a_script_of_nothing_but_braces_and_redirections_is_read_once() {
    let image = Image::new();
    image.programs(&["sh"]);
    let text = format!(
        "#!/bin/sh\n{}\n{}",
        "{ ".repeat(300_000),
        "> /tmp/x\n:\n".repeat(60_000)
    );
    image.file("/entry.sh", text, 0o755);
    assert_eq!(image.run(&["/entry.sh"]).unfollowed, []);
}

#[test]
fn an_evaluated_text_or_a_command_that_is_too_long_is_said() {
    let image = Image::new();
    image.programs(&["sh"]);
    image
        .file("/a", format!("#!/bin/sh\neval \"x {}\"\n", "y".repeat(70_000)), 0o755)
        .file("/b", format!("#!/bin/sh\nenv {}sh\n", "x ".repeat(5000)), 0o755);
    for path in ["/a", "/b"] {
        let closure = image.run(&[path]);
        let whys: Vec<&str> = closure
            .unfollowed
            .iter()
            .map(|unfollowed| unfollowed.why.as_str())
            .collect();
        assert!(whys.iter().any(|why| why.contains("too")), "{path}: {whys:?}");
    }
}

#[test]
fn a_mount_of_more_files_than_are_searched_is_said() {
    let image = Image::new();
    image.programs(&["server"]);
    let volume = tempfile::tempdir().unwrap();
    let closed = |count: usize| {
        for number in 0..count {
            fs::write(volume.path().join(format!("{number}.conf")), "key = value\n").unwrap();
        }
        let tree = Tree::scan(fs::File::open(volume.path()).unwrap().into()).unwrap();
        let mut given = roots(&["server"]);
        given.mounts = vec![Mounted {
            destination: "/etc/server".to_owned(),
            content: Content::Tree(tree),
            writable: false,
            programs: true,
        }];
        image.close(&given, Level::Balanced).findings
    };
    assert!(closed(1000).iter().all(|finding| !finding.contains("was not searched")));
    let findings = closed(1001);
    assert!(
        findings
            .iter()
            .any(|finding| finding.contains("was not searched") && finding.contains("/etc/server")),
        "{findings:?}"
    );
}

#[test]
fn an_engine_of_openssl_stays_only_where_a_program_or_a_configuration_asks_for_one() {
    const ENGINE: &str = "/usr/lib/x86_64-linux-gnu/engines-3/afalg.so";
    const CRYPTO: &str = "/usr/lib/libcrypto.so.3";
    const CONFIGURATION: &str = "/etc/ssl/openssl.cnf";
    let image = |source: &str, configuration: &str| {
        let mut image = Image::new();
        image
            .compile(
                CRYPTO,
                "static const char directory[] = \"/usr/lib/x86_64-linux-gnu/engines-3\"; \
                 int ENGINE_by_id(int n) { return directory[n & 31]; } int f(void) { return 2; }",
                &["-shared", "-fPIC", "-nostdlib", "-Wl,-soname,libcrypto.so.3"],
            )
            .library(ENGINE, &[])
            .compile(
                "/usr/lib/x86_64-linux-gnu/ossl-modules/legacy.so",
                "int ENGINE_by_id(int n); int provide(int n) { return ENGINE_by_id(n); }",
                &["-shared", "-fPIC", "-nostdlib"],
            )
            .file(CONFIGURATION, configuration, 0o644)
            .compile(
                "/usr/bin/server",
                source,
                &["-nostdlib", &format!("ROOT{CRYPTO}"), "-Wl,-e,main"],
            );
        // Debian has both in one package.
        image.package("libssl3", &[CRYPTO, ENGINE]);
        image
    };
    let (plain, asking) = (
        "int f(void); int main(void) { return f(); }",
        "int ENGINE_by_id(void); int main(void) { return ENGINE_by_id(); }",
    );
    let listing = "openssl_conf = init\n[init]\nengines = engine_section\n";
    for (source, configuration, stays) in [
        (plain, "# engines = none\n[ca]\n", false),
        (asking, "", true),
        (plain, listing, true),
        (plain, ".include other.cnf\n", true),
    ] {
        let closure = image(source, configuration).run(&["server"]);
        let kept: Vec<&str> = closure.paths().collect();
        assert!(kept.contains(&CRYPTO), "{kept:?}");
        assert_eq!(kept.contains(&ENGINE), stays, "{configuration:?}: {kept:?}");
    }
    let elsewhere = image(plain, "");
    elsewhere.file("/srv/openssl.cnf", listing, 0o644);
    let mut given = roots(&["server"]);
    given.env.push("OPENSSL_CONF=/srv/openssl.cnf".to_owned());
    let closure = elsewhere.close(&given, Level::Balanced);
    assert!(closure.paths().any(|path| path == ENGINE));
}

#[test]
fn a_variable_that_is_made_from_itself_is_followed_to_what_a_script_starts() {
    let image = Image::new();
    // As ZooKeeper finds the file that says where Java is.
    image.programs(&["bash", "java", "dirname", "grep"]);
    image.file("/etc/server/environment", "JAVA=/usr/bin/java\n", 0o644);
    image.link("/usr/share/server/env.sh", "/etc/server/environment");
    image.file(
        "/usr/share/server/server.sh",
        "#!/usr/bin/env bash\nBIN=\"${BASH_SOURCE-$0}\"\nBIN=\"$(dirname \"${BIN}\")\"\nDIR=\"$(cd \"${BIN}\"; pwd)\"\n\
         if [ -e \"$BIN/../libexec/env.sh\" ]; then\n. \"$DIR\"/../libexec/env.sh\nelse\n. \"$DIR\"/env.sh\nfi\n\
         case $1 in\nforeground)\nCMD=(exec \"$JAVA\")\nif [ \"${NOEXEC}\" != \"\" ]; then\nCMD=(\"$JAVA\")\nfi\n\
         \"${CMD[@]}\" $AUTO \"-Dlog=${LOG}\" \\\n-XX:OnError='kill -9 %p' \\\n-cp \"$CLASSPATH\" $FLAGS\n;;\nesac\n",
        0o755,
    );
    let closure = image.run(&["/usr/share/server/server.sh", "foreground"]);
    assert_eq!(closure.unfollowed, []);
    assert!(executables(&closure).contains("/usr/bin/java"));
}

#[test]
fn a_library_that_looks_for_modules_beside_it_keeps_those_of_its_name() {
    let image = Image::new();
    let loading = "void *dlopen(const char *, int); int dladdr(void *, void *); void *opendir(const char *);\n\
                   void *f(void) { dladdr(0, 0); opendir(0); return dlopen(0, 0); }";
    let library = |path: &str, source: &str| {
        let name = format!("-Wl,-soname,{}", path.rsplit('/').next().unwrap());
        image.compile(path, source, &["-shared", "-nostdlib", &name]);
    };
    library("/usr/lib/libloop.so.1", loading);
    library("/usr/lib/libother.so.1", &loading.replace("opendir(0);", ""));
    for module in ["libloop-epoll.so.1", "liblooped.so.1", "libother-epoll.so.1"] {
        image.library(&format!("/usr/lib/{module}"), &[]);
    }
    let flags = [
        "-nostdlib",
        "-Wl,--no-as-needed",
        "ROOT/usr/lib/libloop.so.1",
        "ROOT/usr/lib/libother.so.1",
        "-Wl,--allow-shlib-undefined",
    ];
    image.compile("/usr/bin/server", "void _start(void) { for (;;) {} }", &flags);
    let closure = image.run(&["server"]);
    let kept = executables(&closure);
    assert!(kept.contains("/usr/lib/libloop-epoll.so.1"), "{kept:?}");
    assert!(
        !kept.contains("/usr/lib/liblooped.so.1") && !kept.contains("/usr/lib/libother-epoll.so.1"),
        "{kept:?}"
    );
    // Which of its functions the program calls is not known.
    assert_eq!(closure.objects["/usr/lib/libloop-epoll.so.1"].how, How::Dlopen);
}

#[test]
fn a_directory_of_etc_that_has_a_programs_name_configures_it_whoever_brought_it_along() {
    let mut image = Image::new();
    image
        .programs(&["/usr/sbin/radiusd", "/usr/sbin/served", "echo", "notify", "unused"])
        .file(
            "/etc/radius/mods/echo",
            "exec {\n  program = \"/bin/echo x\"\n}\n",
            0o644,
        )
        .file("/etc/served/served.conf", "on_change /usr/bin/notify\n", 0o644)
        .file("/etc/other/other.conf", "on_change /usr/bin/unused\n", 0o644);
    image.package("radius", &["/usr/sbin/radiusd"]);
    image.package("radius-config", &["/etc/radius/mods/echo"]);
    let kept = executables(&image.run(&["/usr/sbin/radiusd"]));
    assert_eq!(kept, names(&["/usr/sbin/radiusd", "echo"]));
    let kept = executables(&image.run(&["/usr/sbin/served"]));
    assert_eq!(kept, names(&["/usr/sbin/served", "notify"]));
}

#[test]
fn functions_that_print_a_variable_which_they_share_are_followed_to_their_end() {
    let image = Image::new();
    image.programs(&["sh", "cut", "grep", "tool"]);
    let mut script = "#!/bin/sh\n".to_owned();
    for number in 0..4 {
        let inner = (number + 3) % 4;
        script += &format!(
            "option{number} () {{\n  OPTION=$1\n  VALUE=$(option{inner} Default$OPTION)\n  VALUE=${{VALUE##*=}}\n  \
             VALUE=`grep \"$OPTION\" \"$FILE\" | cut -d' ' -f2-`\n  printf '%s' \"$VALUE\"\n}}\n"
        );
    }
    for number in 0..40 {
        script += &format!(
            "SIZE{number}=$(option{} name{number})\necho \"$SIZE{number}\"\n",
            number % 4
        );
    }
    image.file("/start.sh", script + "exec tool\n", 0o755);
    let closure = image.run(&["/start.sh"]);
    assert_eq!(closure.unfollowed, []);
    assert_eq!(
        executables(&closure),
        names(&["sh", "cut", "grep", "tool", "/start.sh"])
    );
}
