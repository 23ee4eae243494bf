//! What each kernel can do, and that all of it is tested on each.

use std::fs;
use std::path::Path;
use std::process::Command;

use assay::view::{Cache, Snapshot, Way};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::image::{Image, KEEP};

/// Version of the running kernel.
fn version() -> (u32, u32) {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split('.').map(|number| number.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// The ways that a kernel of this version has, by what is known of overlayfs; the probe has no say in it.
pub fn ways() -> Vec<Way> {
    [(Way::One, (6, 16)), (Way::Two, (6, 5)), (Way::Whiteouts, (0, 0))]
        .into_iter()
        .filter(|(_, since)| version() >= *since)
        .map(|(way, _)| way)
        .collect()
}

#[test]
fn the_probe_finds_the_best_way_of_this_kernel() {
    let image = Image::new();
    let mounts = image.request("c", &[]);
    let snapshot = Snapshot::of(&mounts, false).unwrap();
    let cache = Cache::open(&image.dir("state"), &image.dir("run"), &snapshot).unwrap();
    println!("kernel {:?}: {:?}", version(), ways());
    assert_eq!(cache.way().unwrap(), ways()[0]);
    assert_eq!(cache.way().unwrap(), ways()[0], "from memory");
}

/// Why there are two mounts where one overlay does not do: `metacopy=on` over an upper directory leaves files there that
/// have no content of their own.
#[test]
fn metacopy_under_an_upper_directory_would_leave_files_that_cannot_be_read() {
    if !ways().contains(&Way::Two) {
        // No kernel before 6.5 has data-only layers, so there is nothing to fall into.
        assert_eq!(ways(), [Way::Whiteouts]);
        return;
    }
    let image = Image::new();
    let mounts = image.request("c", &[]);
    let view = image.view(&mounts, Way::Two, &KEEP);
    let root = image.path("trap");
    fs::create_dir(&root).unwrap();
    let layers: Vec<String> = [&view.layer]
        .into_iter()
        .chain(&image.layers)
        .map(|l| l.display().to_string())
        .collect();
    let options = format!(
        "lowerdir={},upperdir={},workdir={},metacopy=on,redirect_dir=on",
        layers.join("::"),
        image.upper("c").display(),
        image.path("snapshots/c/work").display()
    );
    mount(
        "overlay",
        &root,
        "overlay",
        MountFlags::empty(),
        std::ffi::CString::new(options).unwrap().as_c_str(),
    )
    .unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(root.join("usr/bin/app"), mode).unwrap();
    unmount(&root, UnmountFlags::empty()).unwrap();
    let plain = image.mount(&mounts, None);
    let read = fs::read_to_string(plain.at("usr/bin/app"));
    assert!(!matches!(read.as_deref(), Ok("app")), "the trap is gone: {read:?}");
}

/// Debian 12's kernel: whiteouts.
#[test]
fn all_of_this_holds_on_linux_6_1() {
    everything_passes_on("6.1");
}

/// Debian 13's kernel: two mounts.
#[test]
fn all_of_this_holds_on_linux_6_12() {
    everything_passes_on("6.12");
}

/// Boots a kernel with this very program, which runs all tests but those that boot.
fn everything_passes_on(kernel: &str) {
    let boot = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/view/boot");
    let run = || {
        let output = Command::new(&boot)
            .arg(kernel)
            .arg(std::env::current_exe().unwrap())
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        text.concat()
    };
    // The emulator itself dies now and then before the guest gets through; the guest's own word is never repeated.
    let mut console = run();
    if !console.contains("guest: tests ended") {
        console = run();
    }
    let ended = console
        .lines()
        .find_map(|line| line.trim_end().strip_prefix("guest: tests ended with "));
    assert_eq!(ended, Some("0"), "{console}");
    assert!(console.contains(&format!("guest: Linux {kernel}.")), "{console}");
    let passed = console.matches(" ... ok").count();
    assert!(passed >= 13, "only {passed} tests ran:\n{console}");
}
