//! What a view costs: building its layer from a real Debian root file system, mounting it, and opening files through it,
//! beside a plain overlay mount of the same snapshot. Everything in turn on one machine, medians.
// A benchmark that meets a surprise stops and shows it.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use assay::digest::Digest;
use assay::identity::Mount;
use assay::shim::mount::{mount_all, unmount_recursive};
use assay::store::StateDir;
use assay::tree::{Kind, Tree};
use assay::view::{Cache, Snapshot, View, Way};

/// Rounds of each measurement.
const BUILDS: usize = 9;
const MOUNTS: usize = 150;
const WALKS: usize = 15;
const WAYS: [Way; 3] = [Way::One, Way::Two, Way::Whiteouts];

fn main() {
    let node = Node::new();
    let files: Vec<&String> = node
        .keep
        .iter()
        .filter(|path| is_file(&node.layer.join(&path[1..])))
        .collect();
    println!(
        "Debian root with {} names, {} MB; kept: {} names, {} of them files; Linux {}",
        node.all.len(),
        node.bytes / 1_000_000,
        node.keep.len(),
        files.len(),
        rustix::system::uname().release().to_string_lossy(),
    );

    println!(
        "\nbuilding, ms, median of {BUILDS}\n{:<28}{:>10}{:>12}",
        "", "", "processor"
    );
    for (what, keep) in [("what is kept", &node.keep), ("everything", &node.all)] {
        for way in [Way::One, Way::Whiteouts] {
            let times = (0..BUILDS).map(|n| node.build(&format!("{what} {n}"), way, keep).0);
            let (wall, processor) = medians(times.collect());
            println!(
                "{:<28}{wall:>10.1}{processor:>12.1}",
                format!("{what}, {:?}", way.form())
            );
        }
    }
    let views = WAYS.map(|way| node.build("views", way, &node.keep).1);
    let since = Instant::now();
    node.cache().find(&Digest::of(b"views"), Way::One).unwrap().unwrap();
    println!("{:<28}{:>10.3}", "found again", since.elapsed().as_secs_f64() * 1e3);

    let mut shown: Vec<(&str, Option<&View>)> = vec![("plain overlay", None)];
    shown.extend(WAYS.iter().zip(&views).map(|(way, view)| (way.name(), Some(view))));
    node.mounts(&shown);
    node.opens(&shown, &files);
}

fn is_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|file| file.is_file())
}

/// Wall clock and processor time: the latter says something on a busy machine too.
#[derive(Clone, Copy)]
struct Clock(Instant, Duration);

impl Clock {
    fn start() -> Self {
        Self(Instant::now(), processor())
    }

    fn stop(self) -> (Duration, Duration) {
        (self.0.elapsed(), processor() - self.1)
    }
}

/// Time that this process has used the processor for.
fn processor() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap())
}

fn medians(times: Vec<(Duration, Duration)>) -> (f64, f64) {
    let (wall, processor): (Vec<_>, Vec<_>) = times.into_iter().unzip();
    (median(wall.into_iter()) * 1e3, median(processor.into_iter()) * 1e3)
}

fn median(times: impl Iterator<Item = Duration>) -> f64 {
    let mut times: Vec<f64> = times.map(|time| time.as_secs_f64()).collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// A snapshot as the overlayfs snapshotter leaves it, on the disk and not in memory.
struct Node {
    place: PathBuf,
    layer: PathBuf,
    root: PathBuf,
    all: BTreeSet<String>,
    keep: BTreeSet<String>,
    bytes: u64,
}

impl Node {
    fn new() -> Self {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let place = here.join("target").join(format!("bench-view-{}", std::process::id()));
        let layer = place.join("snapshots/1/fs");
        fs::create_dir_all(&layer).unwrap();
        for part in ["fs", "work"] {
            fs::create_dir_all(place.join("snapshots/2").join(part)).unwrap();
        }
        // The one layer of the image is by far the largest of its blobs.
        let blobs = fs::read_dir(here.join("target/images/nginx/blobs/sha256")).expect("run make setup");
        let blob = blobs
            .map(|blob| blob.unwrap())
            .max_by_key(|blob| blob.metadata().unwrap().len())
            .unwrap();
        let unpacked = Command::new("tar")
            .arg("-xf")
            .arg(blob.path())
            .arg("-C")
            .arg(&layer)
            .status()
            .unwrap();
        assert!(unpacked.success());
        let tree = Tree::scan(File::open(&layer).unwrap().into()).unwrap();
        // What the balanced level would keep of most images: data, libraries and a few programs.
        let is_kept = |path: &str, kind: &Kind, executable: bool| {
            let library = path.contains("/lib") && *kind == Kind::File;
            *kind != Kind::Directory && (!executable || library || path.ends_with("/nginx"))
        };
        Self {
            all: tree.nodes().map(|(path, _)| path.to_owned()).collect(),
            keep: tree
                .nodes()
                .filter(|(path, node)| is_kept(path, &node.kind, node.is_executable()))
                .map(|(path, _)| path.to_owned())
                .collect(),
            bytes: tree
                .nodes()
                .filter(|(_, node)| node.is_file())
                .map(|(_, node)| node.size)
                .sum(),
            root: place.join("rootfs"),
            layer,
            place,
        }
    }

    fn request(&self) -> Vec<Mount> {
        let at = |name: &str| self.place.join("snapshots").join(name).display().to_string();
        vec![Mount {
            r#type: "overlay".to_owned(),
            source: "overlay".to_owned(),
            target: String::new(),
            options: vec![
                "index=off".to_owned(),
                format!("workdir={}", at("2/work")),
                format!("upperdir={}", at("2/fs")),
                format!("lowerdir={}", at("1/fs")),
            ],
        }]
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot::of(&self.request(), false).unwrap()
    }

    fn cache(&self) -> Cache {
        let dir = |name: &str| StateDir::open(&self.place.join(name)).unwrap();
        Cache::open(&dir("state"), &dir("run"), &self.snapshot()).unwrap()
    }

    fn build(&self, key: &str, way: Way, keep: &BTreeSet<String>) -> ((Duration, Duration), View) {
        let (cache, snapshot) = (self.cache(), self.snapshot());
        let since = Clock::start();
        let view = cache.build(&Digest::of(key.as_bytes()), way, &snapshot, keep).unwrap();
        (since.stop(), view)
    }

    fn mount(&self, view: Option<&View>) -> (Duration, Duration) {
        let request = self.request();
        let since = Clock::start();
        mount_all(&request, view, &self.root).unwrap();
        since.stop()
    }

    fn mounts(&self, shown: &[(&str, Option<&View>)]) {
        let mut times = vec![Vec::new(); shown.len()];
        for _ in 0..MOUNTS {
            for ((_, view), times) in shown.iter().zip(&mut times) {
                times.push(self.mount(*view));
                unmount_recursive(&self.root).unwrap();
            }
        }
        println!(
            "\nmounting, ms, median of {MOUNTS}\n{:<28}{:>10}{:>10}{:>12}",
            "", "", "more", "processor"
        );
        let mut plain = None;
        for ((name, _), times) in shown.iter().zip(times) {
            let (time, processor) = medians(times);
            let more = time - *plain.get_or_insert(time);
            println!("{name:<28}{time:>10.3}{more:>+10.3}{processor:>12.3}");
        }
    }

    fn opens(&self, shown: &[(&str, Option<&View>)], files: &[&String]) {
        let mut times = vec![(Vec::new(), Vec::new()); shown.len()];
        // Processor time: nothing waits for a disk here, and the machine may be busy.
        let walk = || {
            let since = Clock::start();
            for file in files {
                File::open(self.root.join(&file[1..])).unwrap();
            }
            since.stop().1
        };
        for _ in 0..WALKS {
            for ((_, view), (first, warm)) in shown.iter().zip(&mut times) {
                self.mount(*view);
                first.push(walk());
                warm.push(walk());
                unmount_recursive(&self.root).unwrap();
            }
        }
        println!(
            "\nopening {} files, ms of processor time, median of {WALKS}\n{:<28}{:>10}{:>8}{:>10}{:>8}",
            files.len(),
            "",
            "first",
            "",
            "warm",
            ""
        );
        let mut plain = None;
        for ((name, _), (first, warm)) in shown.iter().zip(times) {
            let (first, warm) = (median(first.into_iter()) * 1e3, median(warm.into_iter()) * 1e3);
            let (whole, again) = *plain.get_or_insert((first, warm));
            println!(
                "{name:<28}{first:>10.2}{:>8.2}{warm:>10.2}{:>8.2}",
                first / whole,
                warm / again
            );
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = unmount_recursive(&self.root);
        let _ = fs::remove_dir_all(&self.place);
    }
}
