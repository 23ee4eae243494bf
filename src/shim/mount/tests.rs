use std::fs::{create_dir, create_dir_all, read_to_string, write};
use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::process::Command;

use tempfile::TempDir;

use super::*;

/// A place for mounts that leaves none behind.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(TempDir::new().unwrap());
        create_dir(place.root()).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn root(&self) -> PathBuf {
        self.path("rootfs")
    }

    /// A directory with a file of the same name in it.
    fn layer(&self, name: &str) -> String {
        let path = self.path(name);
        create_dir_all(&path).unwrap();
        write(path.join(Path::new(name).file_name().unwrap()), name).unwrap();
        path.display().to_string()
    }

    fn mounts(&self) -> usize {
        table::read()
            .unwrap()
            .iter()
            .filter(|entry| entry.point.starts_with(self.0.path()))
            .count()
    }

    fn options_of(&self, path: &Path) -> String {
        let path = path.display().to_string();
        let text = read_to_string("/proc/self/mountinfo").unwrap();
        let line = text.lines().rfind(|line| line.split(' ').nth(4) == Some(&path));
        line.unwrap().split(' ').nth(5).unwrap().to_owned()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        unmount_recursive(&self.root()).unwrap();
        assert_eq!(self.mounts(), 0);
    }
}

fn request(fs_type: &str, source: &str, target: &str, options: &[&str]) -> Mount {
    Mount {
        r#type: fs_type.to_owned(),
        source: source.to_owned(),
        target: target.to_owned(),
        options: options.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn a_bind_mount_gets_all_its_flags_and_keeps_those_of_its_source() {
    let place = Place::new();
    let source = place.layer("source");
    mount_all(
        &[request("bind", &source, "", &["rbind", "ro", "nodev", "noexec"])],
        None,
        &place.root(),
    )
    .unwrap();
    assert_eq!(read_to_string(place.root().join("source")).unwrap(), "source");
    let options = place.options_of(&place.root());
    for option in ["ro", "nodev", "noexec"] {
        assert!(options.split(',').any(|known| known == option), "{option} in {options}");
    }
    assert!(write(place.root().join("new"), "").is_err());
    unmount_recursive(&place.root()).unwrap();
    assert_eq!(place.mounts(), 0);

    // The source's own mount forbids set-user-id; a flag more must not take that away.
    let tmpfs = request("tmpfs", "tmpfs", "", &["nosuid", "size=1M"]);
    mount_all(&[tmpfs], None, &place.root()).unwrap();
    create_dir(place.root().join("again")).unwrap();
    let source = place.root().display().to_string();
    mount_all(
        &[request("bind", &source, "/again", &["bind", "nodev"])],
        None,
        &place.root(),
    )
    .unwrap();
    let options = place.options_of(&place.root().join("again"));
    assert!(options.contains("nosuid") && options.contains("nodev"), "{options}");
}

#[test]
fn read_write_bind_mounts_are_writable() {
    let place = Place::new();
    let source = place.layer("source");
    mount_all(&[request("bind", &source, "", &["rbind", "rw"])], None, &place.root()).unwrap();
    write(place.root().join("new"), "x").unwrap();
    assert_eq!(read_to_string(place.path("source/new")).unwrap(), "x");
}

#[test]
fn overlays_tmpfs_and_propagation() {
    let place = Place::new();
    let lower = [place.layer("one"), place.layer("t:wo")]
        .map(|path| path.replace(':', r"\:"))
        .join(":");
    let (upper, work) = (place.layer("upper"), place.layer("work"));
    let options = [
        format!("lowerdir={lower}"),
        format!("upperdir={upper}"),
        format!("workdir={work}"),
    ];
    let words: Vec<&str> = options
        .iter()
        .map(String::as_str)
        .chain(["index=off", "private"])
        .collect();
    let mounts = [
        request("overlay", "overlay", "", &words),
        request(
            "tmpfs",
            "tmpfs",
            "tmp",
            &["size=1M", "mode=1777", "shared", "noatime", "sync"],
        ),
    ];
    create_dir(place.path("one/tmp")).unwrap();
    mount_all(&mounts, None, &place.root()).unwrap();
    assert_eq!(read_to_string(place.root().join("one")).unwrap(), "one");
    assert_eq!(read_to_string(place.root().join("t:wo")).unwrap(), "t:wo");
    let text = read_to_string("/proc/self/mountinfo").unwrap();
    let tmp = place.root().join("tmp").display().to_string();
    let line = text.lines().find(|line| line.contains(&tmp)).unwrap();
    assert!(
        line.contains("shared:") && line.contains("noatime") && line.contains("sync"),
        "{line}"
    );
    // Inner before outer, in one call.
    unmount_recursive(&place.root()).unwrap();
    assert_eq!(place.mounts(), 0);
    unmount_recursive(&place.root()).unwrap();
    unmount_recursive(Path::new("/nowhere/at/all")).unwrap();
}

#[test]
fn the_root_is_made_and_what_is_busy_is_detached() {
    let place = Place::new();
    std::fs::remove_dir(place.root()).unwrap();
    mount_all(&[request("tmpfs", "tmpfs", "", &[])], None, &place.root()).unwrap();
    write(place.root().join("file"), "x").unwrap();
    let busy = std::fs::File::open(place.root().join("file")).unwrap();
    unmount_recursive(&place.root()).unwrap();
    assert_eq!(place.mounts(), 0);
    drop(busy);
}

#[test]
fn targets_never_leave_the_root() {
    let place = Place::new();
    create_dir(place.path("outside")).unwrap();
    symlink(place.path("outside"), place.root().join("absolute")).unwrap();
    symlink("../outside", place.root().join("dots")).unwrap();
    for target in ["absolute", "dots", "../outside", "missing"] {
        let error = mount_all(&[request("tmpfs", "tmpfs", target, &[])], None, &place.root()).unwrap_err();
        assert!(matches!(error, MountError::Target { .. }), "{error}");
    }
    assert_eq!(place.mounts(), 0);
}

#[test]
fn a_failure_takes_the_mounts_before_it_away() {
    let place = Place::new();
    let source = place.layer("source");
    let good = request("bind", &source, "", &["rbind", "ro"]);
    let bad = [
        request("tmpfs", "tmpfs", "", &["size=x"]),
        request("overlay", "overlay", "", &["lowerdir=/nowhere"]),
        request("ext4", &source, "", &["loop"]),
        request("nosuchfs", "x", "", &[]),
        request("bind", "/nowhere", "", &["rbind"]),
        request("format/overlay", "overlay", "", &[]),
        request("fuse3.fuse-overlayfs", "overlay", "", &[]),
        request("overlay", "overlay", "", &["lowerdir=/a", "uidmap=0:1:1", "gidmap=x"]),
        request(
            "overlay",
            "overlay",
            "",
            &["lowerdir=/nowhere", "uidmap=0:1:1", "gidmap=0:1:1"],
        ),
    ];
    let mut messages = Vec::new();
    for bad in bad {
        let error = mount_all(&[good.clone(), bad], None, &place.root()).unwrap_err();
        assert_eq!(place.mounts(), 0, "{error}");
        messages.push(error.to_string().replace(&place.0.path().display().to_string(), "DIR"));
    }
    insta::assert_snapshot!(messages.join("\n"), @r"
    cannot mount 'tmpfs' (tmpfs) at DIR/rootfs: Invalid argument (os error 22)
    cannot mount 'overlay' (overlay) at DIR/rootfs: No such file or directory (os error 2)
    loop device for DIR/source: Is a directory (os error 21)
    cannot mount 'x' (nosuchfs) at DIR/rootfs: No such device (os error 19)
    cannot bind '/nowhere' (bind) at DIR/rootfs: No such file or directory (os error 2)
    mount type 'format/overlay' is for containerd's mount manager, which should have mounted it
    mount type 'fuse3.fuse-overlayfs' needs a FUSE helper, which this shim does not run; use another snapshotter
    mount option 'x' is not a mapping of ids; expected inside:outside:count, separated by commas
    cannot map the ids of 'overlay' (overlay) at DIR/rootfs: No such file or directory (os error 2)
    ");
}

#[test]
fn more_layers_than_fit_in_a_page() {
    let place = Place::new();
    let layers: Vec<String> = (0..120)
        .map(|n| place.layer(&format!("{}/{n}/fs", "a-directory-with-a-rather-long-name")))
        .collect();
    write(format!("{}/zero", layers[0]), "").unwrap();
    let option = format!("lowerdir={}", layers.join(":"));
    assert!(option.len() > 4096);
    let before = std::env::current_dir().unwrap();
    mount_all(&[request("overlay", "overlay", "", &[&option])], None, &place.root()).unwrap();
    assert!(place.root().join("zero").exists());
    assert_eq!(std::env::current_dir().unwrap(), before);
    unmount_recursive(&place.root()).unwrap();

    // The same with mapped ids, through short names.
    let options = [&option, "uidmap=0:100000:65536", "gidmap=0:200000:65536"];
    mount_all(&[request("overlay", "overlay", "", &options)], None, &place.root()).unwrap();
    assert_eq!(std::fs::metadata(place.root().join("zero")).unwrap().uid(), 100_000);
    unmount_recursive(&place.root()).unwrap();

    let error = mount_all(
        &[request("tmpfs", "tmpfs", "", &["x".repeat(5000).as_str()])],
        None,
        &place.root(),
    )
    .unwrap_err();
    insta::assert_snapshot!(error, @"the options of a mount of type tmpfs are 5000 bytes long; the kernel takes less than 4096");
}

#[test]
fn an_overlay_with_mapped_ids_shows_its_layers_mapped() {
    let place = Place::new();
    let lower = [place.layer("one"), place.layer("two")];
    chown(place.path("two/two"), Some(7), Some(8)).unwrap();
    let (upper, work) = (place.layer("upper"), place.layer("work"));
    let options = [
        format!("lowerdir={}", lower.join(":")),
        format!("upperdir={upper}"),
        format!("workdir={work}"),
        "uidmap=0:100000:65536".to_owned(),
        "gidmap=0:200000:65536".to_owned(),
    ];
    let words: Vec<&str> = options.iter().map(String::as_str).collect();
    mount_all(&[request("overlay", "overlay", "", &words)], None, &place.root()).unwrap();
    let owner = |name: &str| {
        let metadata = std::fs::metadata(place.root().join(name)).unwrap();
        (metadata.uid(), metadata.gid())
    };
    assert_eq!(owner("one"), (100_000, 200_000));
    assert_eq!(owner("two"), (100_007, 200_008));
    // The layers themselves are as they were, and no step on the way is left mounted.
    assert_eq!(std::fs::metadata(place.path("two/two")).unwrap().uid(), 7);
    assert_eq!(place.mounts(), 1);
    write(place.root().join("two"), "changed").unwrap();
    assert_eq!(read_to_string(place.path("upper/two")).unwrap(), "changed");
    assert_eq!(read_to_string(place.path("two/two")).unwrap(), "two");
}

#[test]
fn a_bind_mount_with_mapped_ids_has_its_flags_too() {
    let place = Place::new();
    let source = place.layer("source");
    let options = [
        "rbind",
        "ro",
        "nosuid",
        "noatime",
        "uidmap=0:100000:10",
        "gidmap=0:200000:10",
    ];
    mount_all(&[request("bind", &source, "", &options)], None, &place.root()).unwrap();
    let metadata = std::fs::metadata(place.root().join("source")).unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (100_000, 200_000));
    let options = place.options_of(&place.root());
    assert!(
        ["ro", "nosuid", "noatime"]
            .iter()
            .all(|option| options.contains(option)),
        "{options}"
    );
    assert_eq!(place.mounts(), 1);
}

fn image(path: &Path) {
    let file = std::fs::File::create(path).unwrap();
    file.set_len(4 << 20).unwrap();
    let made = Command::new("mkfs.ext4").args(["-q", "-F"]).arg(path).status().unwrap();
    assert!(made.success());
}

fn loop_devices_of(path: &Path) -> usize {
    let devices = std::fs::read_dir("/sys/block").unwrap();
    let backing = devices.filter_map(|entry| read_to_string(entry.unwrap().path().join("loop/backing_file")).ok());
    backing.filter(|file| file.trim() == path.display().to_string()).count()
}

#[test]
fn images_are_mounted_through_a_loop_device_that_goes_away() {
    let place = Place::new();
    let file = place.path("image");
    image(&file);
    let source = file.display().to_string();
    for (options, writable) in [(&["loop", "rw"][..], true), (&["loop", "ro"][..], false)] {
        mount_all(&[request("ext4", &source, "", options)], None, &place.root()).unwrap();
        assert!(place.root().join("lost+found").exists());
        assert_eq!(write(place.root().join("x"), "").is_ok(), writable);
        assert_eq!(loop_devices_of(&file), 1);
        unmount_recursive(&place.root()).unwrap();
        // The kernel clears it when the last opener is gone, which may be udev.
        let gone = (0..50).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            loop_devices_of(&file) == 0
        });
        assert!(gone, "the loop device stays");
    }
    // A file system with mapped ids as a whole.
    let options = ["loop", "ro", "uidmap=0:100000:10", "gidmap=0:100000:10"];
    mount_all(&[request("ext4", &source, "", &options)], None, &place.root()).unwrap();
    assert_eq!(
        std::fs::metadata(place.root().join("lost+found")).unwrap().uid(),
        100_000
    );
    assert_eq!(place.mounts(), 1);
}

#[test]
fn remounting_changes_what_is_there() {
    let place = Place::new();
    mount_all(&[request("tmpfs", "tmpfs", "", &["size=1M"])], None, &place.root()).unwrap();
    write(place.root().join("x"), "").unwrap();
    mount_all(
        &[request("tmpfs", "tmpfs", "", &["remount", "ro", "size=2M"])],
        None,
        &place.root(),
    )
    .unwrap();
    assert!(write(place.root().join("y"), "").is_err());
    assert_eq!(place.mounts(), 1);
}
