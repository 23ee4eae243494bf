//! What input that means harm costs: SBOMs, package databases and files of an image for `assay sbom`, signatures and
//! attestations for a verdict. Each must end in what this file says, and the table says in how much processor time and
//! memory. docs/sbom.md and docs/attacks.md keep the tables.
// A benchmark that meets a surprise stops and shows it.
#![allow(clippy::unwrap_used)]

mod evidence;

use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

const SPDX: &str = r#"{"spdxVersion":"SPDX-2.3","SPDXID":"SPDXRef-DOCUMENT","name":"hostile""#;
const CYCLONEDX: &str = r#"{"bomFormat":"CycloneDX","specVersion":"1.5""#;
const STATUS: &str = "Package: innocent\nStatus: install ok installed\nVersion: 1\nArchitecture: amd64\n\n";

/// Writes one input below the folder; answers the SBOM, where it is one.
type Make = fn(&Path) -> Option<PathBuf>;

/// What is written, the codes of what is found, and how it is written.
const INPUTS: [(&str, &[&str], Make); 13] = [
    ("SPDX, a million files without digest", &[], |place| {
        spdx(place, 1_000_000, false)
    }),
    ("SPDX, 400 001 files with SHA-256", &["sbom-unusable"], |place| {
        spdx(place, 400_001, true)
    }),
    ("CycloneDX, a million files", &[], |place| {
        document(place, CYCLONEDX, "components", |out| {
            items(out, 1_000_000, |out, n| {
                write!(out, r#"{{"type":"file","name":"/f/{n}"}}"#).unwrap();
            });
        })
    }),
    ("SPDX, 400 000 relationships in a circle", &[], |place| {
        let kind = r#""relationshipType":"DEPENDS_ON""#;
        document(place, SPDX, "relationships", |out| {
            items(out, 400_000, |out, n| {
                let next = (n + 1) % 400_000;
                let ids = format!(r#""spdxElementId":"SPDXRef-{n}","relatedSpdxElement":"SPDXRef-{next}""#);
                write!(out, "{{{ids},{kind}}}").unwrap();
            });
        })
    }),
    ("CycloneDX, 600 000 dependencies in a circle", &[], |place| {
        document(place, CYCLONEDX, "dependencies", |out| {
            items(out, 600_000, |out, n| {
                let next = (n + 1) % 600_000;
                write!(out, r#"{{"ref":"c{n}","dependsOn":["c{next}"]}}"#).unwrap();
            });
        })
    }),
    (
        "CycloneDX, components nested 10 000 deep",
        &["sbom-unusable"],
        |place| {
            document(place, CYCLONEDX, "components", |out| {
                for n in 0..10_000 {
                    write!(out, r#"{{"type":"library","name":"c{n}","components":["#).unwrap();
                }
                out.write_all("]}".repeat(10_000).as_bytes()).unwrap();
            })
        },
    ),
    (
        "dpkg's list of a million paths that lead out",
        &["path-escapes"],
        |place| {
            write(&place.join("var/lib/dpkg/status"), |out| {
                out.write_all(STATUS.as_bytes()).unwrap();
            });
            write(&place.join("var/lib/dpkg/info/innocent.list"), |out| {
                for n in 0..1_000_000 {
                    writeln!(out, "/../../etc/{n}").unwrap();
                }
            });
            None
        },
    ),
    (
        "Python's RECORD of a million paths that lead out",
        &["path-escapes"],
        |place| {
            let package = place.join("usr/lib/python3/dist-packages/innocent-1.dist-info");
            write(&package.join("METADATA"), |out| {
                out.write_all(b"Metadata-Version: 2.1\nName: innocent\nVersion: 1\n")
                    .unwrap();
            });
            write(&package.join("RECORD"), |out| {
                for n in 0..1_000_000 {
                    writeln!(out, "../../../../../e/{n},,").unwrap();
                }
            });
            None
        },
    ),
    (
        "apk's database, two million files in ../..",
        &["files-too-many", "path-escapes"],
        |place| {
            write(&place.join("lib/apk/db/installed"), |out| {
                out.write_all(b"P:innocent\nV:1-r0\nA:x86_64\nF:../..\n").unwrap();
                for n in 0..2_000_000 {
                    writeln!(out, "R:f{n}").unwrap();
                }
            });
            None
        },
    ),
    ("400 truncated and lying ELF files", &[], |place| {
        let program = fs::read("/bin/ls").unwrap();
        for n in 0..400_usize {
            write(&place.join(format!("usr/bin/program{n}")), |out| {
                let mut bytes = program[..program.len() * n / 400].to_vec();
                // Offsets, sizes and counts of the header, and every other byte of the tables.
                for byte in bytes.iter_mut().skip(24 + n % 8).step_by(2 + n).take(400) {
                    *byte = 0xff;
                }
                out.write_all(&bytes).unwrap();
            });
        }
        None
    }),
    ("2000 links in a circle, 90 000 paths through them", &[], |place| {
        fs::create_dir_all(place.join("l")).unwrap();
        for n in 0..2000 {
            symlink(format!("/l/{}", (n + 1) % 2000), place.join(format!("l/{n}"))).unwrap();
        }
        write(&place.join("var/lib/dpkg/status"), |out| {
            out.write_all(STATUS.as_bytes()).unwrap();
        });
        write(&place.join("var/lib/dpkg/info/innocent.list"), |out| {
            for n in 0..90_000 {
                writeln!(out, "/l/{}/{n}", n % 2000).unwrap();
            }
        });
        None
    }),
    ("dpkg's status: 50 MB of zeros", &["database-invalid"], |place| {
        write(&place.join("var/lib/dpkg/status"), |out| {
            out.write_all(&vec![0; 50 << 20]).unwrap();
        });
        None
    }),
    ("rpm's databases: 30 MB of noise", &["database-invalid"], |place| {
        let place = place.join("var/lib/rpm");
        for (name, magic) in [("rpmdb.sqlite", &b"SQLite format 3\0"[..]), ("Packages.db", b"RpmP")] {
            write(&place.join(name), |out| {
                out.write_all(magic).unwrap();
                let mut noise = File::open("/dev/urandom").unwrap().take(30 << 20);
                std::io::copy(&mut noise, out).unwrap();
            });
        }
        None
    }),
];

fn main() {
    println!("{:<52}{:<32}{:>8}{:>6}", "input", "found", "s", "MB");
    for (name, codes, make) in INPUTS {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        fs::create_dir(&root).unwrap();
        let sbom = make(&root);
        let mut command = command(folder.path(), "");
        command.args(["sbom", "-o", "json", "--rootfs"]).arg(&root);
        if let Some(sbom) = sbom {
            command.arg("--file").arg(sbom);
        }
        let (answer, seconds, megabytes) = run(&mut command, &folder.path().join("answer"));
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        let mut found: Vec<&str> = answer["findings"]
            .as_array()
            .unwrap()
            .iter()
            .map(|finding| finding["code"].as_str().unwrap())
            .collect();
        found.sort_unstable();
        found.dedup();
        assert_eq!(found, codes, "{name}: {answer}");
        println!("{name:<52}{:<32}{seconds:>8.2}{megabytes:>6}", found.join(", "));
    }
    for (name, code, make) in evidence::INPUTS {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path();
        let table = make(here);
        let more = format!("policy = '{0}/policy.toml'\ntrust = '{0}/trust.d'\n", here.display());
        let mut command = command(here, &more);
        command.args(["policy", "test"]).arg(table);
        let (answer, seconds, megabytes) = run(&mut command, &here.join("answer"));
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.contains(&format!("refuse {code}\n")), "{name}: {answer}");
        println!("{name:<52}{code:<32}{seconds:>8.2}{megabytes:>6}");
    }
}

/// `assay` with a configuration of its own.
fn command(folder: &Path, more: &str) -> Command {
    let config = folder.join("config.toml");
    let here = folder.display();
    fs::write(&config, format!("state = '{here}/state'\nrun = '{here}/run'\n{more}")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_assay"));
    command.env("ASSAY_CONFIG", config);
    command
}

/// What it answers, its processor time with that of all its processes, and the most memory of any of them.
// It is waited for by a call that the lint does not know.
#[allow(clippy::zombie_processes)]
fn run(command: &mut Command, answer: &Path) -> (Vec<u8>, f64, i64) {
    // The most memory of a process counts from before it became another program, which is what this one had.
    // SAFETY: it takes no pointer and gives back what nobody uses.
    unsafe { libc::malloc_trim(0) };
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let child = command.stdout(File::create(answer).unwrap()).spawn().unwrap();
    let mut status = 0;
    // SAFETY: both places are this function's own, and zeros are a `rusage`.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        let pid = i32::try_from(child.id()).unwrap();
        assert_eq!(libc::wait4(pid, &raw mut status, 0, &raw mut usage), pid);
        usage
    };
    assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "{status:#x}");
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    (
        fs::read(answer).unwrap(),
        seconds(usage.ru_utime) + seconds(usage.ru_stime),
        usage.ru_maxrss / 1000,
    )
}

fn write(path: &Path, content: impl FnOnce(&mut dyn Write)) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut out = BufWriter::new(File::create(path).unwrap());
    content(&mut out);
    out.flush().unwrap();
}

/// An SBOM that starts with `head` and has one list. Beside the root, so that it is in no image.
fn document(place: &Path, head: &str, list: &str, content: impl FnOnce(&mut dyn Write)) -> Option<PathBuf> {
    let path = place.with_file_name("sbom.json");
    write(&path, |out| {
        write!(out, "{head},\"{list}\":[").unwrap();
        content(out);
        out.write_all(b"]}").unwrap();
    });
    Some(path)
}

fn items(out: &mut dyn Write, count: usize, item: impl Fn(&mut dyn Write, usize)) {
    for n in 0..count {
        if n > 0 {
            out.write_all(b",").unwrap();
        }
        item(out, n);
    }
}

fn spdx(place: &Path, count: usize, digests: bool) -> Option<PathBuf> {
    document(place, SPDX, "files", |out| {
        items(out, count, |out, n| {
            let digest = if digests {
                format!(r#","checksums":[{{"algorithm":"SHA256","checksumValue":"{n:064x}"}}]"#)
            } else {
                String::new()
            };
            write!(out, r#"{{"fileName":"/f/{n}","SPDXID":"{n}"{digest}}}"#).unwrap();
        });
    })
}
