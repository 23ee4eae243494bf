//! Each way against a plain overlay mount of the same layers: what is kept is the same, what is not is not there.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::process::Command;

use assay::identity::Mount;
use assay::shim::mount::mount_all;
use assay::view::{View, Way};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use crate::image::{Facts, Image, KEEP, Root, attribute, closed, facts, listing, overlay};
use crate::kernels::ways;

#[test]
fn exactly_the_kept_names_are_there_and_are_as_in_the_image() {
    let image = Image::new();
    let plain = image.mount(&image.request("plain", &[]), None);
    let mut expected = listing(&plain.0);
    let all = expected.len();
    let kept = closed(&KEEP);
    expected.retain(|name, _| kept.contains(name));
    assert_eq!(expected.len(), kept.len());
    assert!(all >= kept.len() + 4);
    for way in ways() {
        let root = image.shown(way.name(), way, &KEEP);
        let seen = listing(&root.0);
        for (name, facts) in &expected {
            assert_eq!(seen.get(name), Some(facts), "{way:?}");
        }
        let extra: Vec<_> = seen.keys().filter(|name| !expected.contains_key(*name)).collect();
        assert!(extra.is_empty(), "{way:?} shows {extra:?}");
        let links = fs::metadata(root.at("usr/bin/first")).unwrap();
        assert_eq!(
            links.ino(),
            fs::metadata(root.at("usr/bin/second")).unwrap().ino(),
            "{way:?}"
        );
        for hidden in [
            "usr/bin/sh",
            "etc/shadow",
            "usr/lib/deep/er/secret",
            "usr/bin/third",
            "etc/removed",
        ] {
            let error = fs::symlink_metadata(root.at(hidden)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound, "{way:?} {hidden}");
        }
    }
}

/// What a container may do to the names that it sees, and to those that it does not.
fn work(root: &Root) {
    for hidden in ["usr/bin/sh", "etc/shadow"] {
        assert!(fs::read(root.at(hidden)).is_err());
        fs::write(root.at(hidden), "own").unwrap();
    }
    fs::OpenOptions::new()
        .append(true)
        .open(root.at("usr/lib/libc.so"))
        .unwrap()
        .write_all(b" and more")
        .unwrap();
    fs::set_permissions(root.at("usr/bin/app"), Permissions::from_mode(0o700)).unwrap();
    chown(root.at("etc/passwd"), Some(1), Some(2)).unwrap();
    fs::rename(root.at("etc/replaced"), root.at("etc/renamed")).unwrap();
    fs::remove_file(root.at("usr/bin/suid")).unwrap();
    fs::remove_dir(root.at("var/empty")).unwrap();
    fs::hard_link(root.at("usr/lib/deep/er/kept"), root.at("tmp/linked")).unwrap();
    fs::create_dir(root.at("usr/lib/deep/er/secret")).unwrap();
    fs::File::options()
        .write(true)
        .truncate(true)
        .open(root.at("was-file-dir"))
        .unwrap();
    attribute(&root.at("etc/acl"), "user.own", b"x");
    // A directory of a lower layer: as everywhere on overlayfs without redirect_dir.
    let error = fs::rename(root.at("usr/lib"), root.at("usr/other")).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::CrossesDevices);
}

#[test]
fn what_a_container_changes_is_as_on_a_plain_mount_and_so_is_the_upper_directory() {
    let image = Image::new();
    let state = |root: &Root| {
        assert_eq!(root.read("usr/lib/libc.so"), "libc and more");
        assert_eq!(root.read("usr/bin/app"), "app");
        assert_eq!(root.read("etc/renamed"), "new");
        assert_eq!(root.read("tmp/linked"), "kept");
        assert_eq!(root.read("usr/bin/sh"), "own");
    };
    // All but the times of what has just been changed.
    let upper = |image: &Image, name: &str| -> BTreeMap<String, Facts> {
        let mut all = listing(&image.upper(name));
        all.values_mut().for_each(|facts| facts.modified = None);
        all
    };
    // A plain mount of an image that has only what is kept: what the container could see.
    let slim = Image::new();
    for layer in &slim.layers {
        for hidden in [
            "usr/bin/sh",
            "etc/shadow",
            "usr/lib/deep/er/secret",
            "usr/bin/third",
            "var/old/gone",
        ] {
            let _ = fs::remove_file(layer.join(hidden));
        }
    }
    let plain = slim.mount(&slim.request("plain", &[]), None);
    work(&plain);
    drop(plain);
    let expected = upper(&slim, "plain");
    for way in ways() {
        let mounts = image.request(way.name(), &[]);
        let view = image.view(&mounts, way, &KEEP);
        let root = image.mount(&mounts, Some(&view));
        work(&root);
        state(&root);
        drop(root);
        assert_eq!(upper(&image, way.name()), expected, "{way:?}");
        // Mounted again, as after a restart of the container.
        let root = image.mount(&mounts, Some(&view));
        state(&root);
        assert!(fs::metadata(root.at("usr/bin/suid")).is_err());
    }
}

#[test]
fn files_of_the_upper_directory_need_no_view_to_be_read() {
    for way in ways() {
        let image = Image::new();
        let root = image.shown("one", way, &KEEP);
        fs::set_permissions(root.at("usr/bin/app"), Permissions::from_mode(0o700)).unwrap();
        chown(root.at("etc/passwd"), Some(1), Some(2)).unwrap();
        fs::rename(root.at("usr/lib/libc.so"), root.at("etc/libc.so")).unwrap();
        drop(root);
        let upper = image.upper("one");
        assert_eq!(fs::read_to_string(upper.join("usr/bin/app")).unwrap(), "app", "{way:?}");
        assert_eq!(
            fs::read_to_string(upper.join("etc/libc.so")).unwrap(),
            "libc",
            "{way:?}"
        );
        let plain = image.mount(&image.request("one", &[]), None);
        assert_eq!(plain.read("usr/bin/app"), "app", "{way:?}");
        assert_eq!(plain.read("etc/passwd"), "root", "{way:?}");
        assert_eq!(plain.read("etc/libc.so"), "libc", "{way:?}");
    }
}

#[test]
fn programs_run_with_their_capabilities_and_hidden_ones_are_reached_by_no_path() {
    let image = Image::new();
    for way in ways() {
        let root = image.shown(way.name(), way, &KEEP);
        let run = |arguments: &[&str]| {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]);
            command
                .arg(root.at("usr/bin/busybox-capable"))
                .args(arguments)
                .output()
                .unwrap()
        };
        let said = run(&["grep", "CapEff", "/proc/self/status"]);
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.trim_end().ends_with("0000000000002000"), "{way:?}: {said}");
        // As process 1 of a namespace of its own, by every way around.
        fs::create_dir(root.at("proc")).unwrap();
        let script = "mount -t proc proc $0/proc && exec chroot $0 /usr/bin/busybox cat /usr/bin/sh \
                      /proc/1/root/usr/bin/sh /proc/self/cwd/usr/bin/sh /bin/sh /usr/lib/../bin/sh /proc/1/root/etc/passwd";
        let said = Command::new("unshare")
            .args(["--mount", "--pid", "--fork", "sh", "-c", script])
            .arg(&root.0)
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&said.stdout), "root", "{way:?}: {said:?}");
    }
}

#[test]
fn nothing_is_left_when_the_root_file_system_is_unmounted() {
    for way in ways() {
        let mut image = Image::new();
        // Layers and views on a loop device of their own, which lives as long as anything uses its file system.
        let (disk, file) = (image.path("disk"), image.path("file"));
        fs::File::create(&file).unwrap().set_len(32 << 20).unwrap();
        assert!(
            Command::new("mke2fs")
                .args(["-q", "-t", "ext4"])
                .arg(&file)
                .status()
                .unwrap()
                .success()
        );
        let request = Mount {
            r#type: "ext4".to_owned(),
            source: file.display().to_string(),
            target: String::new(),
            options: vec!["loop".to_owned()],
        };
        mount_all(&[request], None, &disk).unwrap();
        let is_used = || {
            let devices = fs::read_dir("/sys/block").unwrap();
            let mut files = devices.map(|device| device.unwrap().path().join("loop/backing_file"));
            files.any(|path| fs::read_to_string(path).is_ok_and(|text| text.trim() == file.display().to_string()))
        };
        let eventually = |wanted: bool| {
            (0..300).any(|_| {
                std::thread::sleep(std::time::Duration::from_millis(10));
                is_used() == wanted
            })
        };
        let status = Command::new("cp")
            .arg("-a")
            .arg(image.path("snapshots"))
            .arg(&disk)
            .status()
            .unwrap();
        assert!(status.success());
        image.layers = (0..2).map(|n| disk.join(format!("snapshots/{n}/fs"))).collect();
        for part in ["fs", "work"] {
            fs::create_dir_all(disk.join("snapshots/c").join(part)).unwrap();
        }
        let mounts = vec![overlay(vec![
            format!("workdir={}", disk.join("snapshots/c/work").display()),
            format!("upperdir={}", disk.join("snapshots/c/fs").display()),
            image.lower(),
        ])];
        let view = image.view(&mounts, way, &KEEP);
        assert!(
            view.layer.starts_with(disk.canonicalize().unwrap().join("assay-views")),
            "{view:?}"
        );
        let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let own = |table: &str| {
            table
                .lines()
                .filter(|line| line.contains(image.place.path().to_str().unwrap()))
                .count()
        };
        let root = image.mount(&mounts, Some(&view));
        assert_eq!(root.read("usr/bin/app"), "app");
        let after = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert_eq!(own(&after), own(&before) + 1);
        // A child that another test has just forked holds what was open here until it is another program.
        let is_unmounted = (0..300).any(|_| match unmount(&disk, UnmountFlags::empty()) {
            Ok(()) => true,
            Err(Errno::BUSY) => {
                std::thread::sleep(std::time::Duration::from_millis(10));
                false
            }
            Err(other) => panic!("{other}"),
        });
        assert!(is_unmounted, "{way:?}: the disk stays busy");
        assert!(is_used());
        assert_eq!(root.read("usr/bin/app"), "app");
        // What containerd does when it finds a bundle whose shim is gone.
        unmount(&root.0, UnmountFlags::empty()).unwrap();
        assert!(eventually(false), "{way:?}: something still uses the layers");
    }
}

#[test]
fn images_of_many_layers_are_shown() {
    let image = Image::empty(130);
    for (n, layer) in image.layers.iter().enumerate() {
        fs::create_dir(layer.join("data")).unwrap();
        fs::write(layer.join(format!("data/{n}")), n.to_string()).unwrap();
        fs::write(layer.join("data/all"), n.to_string()).unwrap();
    }
    let keep: Vec<String> = (0..130).filter(|n| n % 3 == 0).map(|n| format!("/data/{n}")).collect();
    let mut keep: Vec<&str> = keep.iter().map(String::as_str).collect();
    keep.push("/data/all");
    for way in ways() {
        let mounts = image.request(way.name(), &[]);
        assert!(mounts[0].options.join(",").len() > 4096);
        let view = image.view(&mounts, way, &keep);
        let root = image.mount(&mounts, Some(&view));
        assert_eq!(fs::read_dir(root.at("data")).unwrap().count(), keep.len(), "{way:?}");
        assert_eq!(root.read("data/all"), "0");
        assert_eq!(root.read("data/129"), "129");
        fs::write(root.at("data/129"), "own").unwrap();
        assert_eq!(
            fs::read_to_string(image.upper(way.name()).join("data/129")).unwrap(),
            "own"
        );
    }
}

#[test]
fn a_mapping_of_ids_holds_for_the_view_too() {
    let image = Image::new();
    let map = ["uidmap=0:100000:65536", "gidmap=0:200000:65536"];
    let plain = image.mount(&image.request("plain", &map), None);
    let mut expected = listing(&plain.0);
    let kept = closed(&KEEP);
    expected.retain(|name, _| kept.contains(name));
    assert_eq!(expected["/etc/passwd"].owner, (100_000, 200_000));
    for way in ways() {
        let mounts = image.request(way.name(), &map);
        let view = image.view(&mounts, way, &KEEP);
        let root = image.mount(&mounts, Some(&view));
        assert_eq!(listing(&root.0), expected, "{way:?}");
        fs::write(root.at("etc/passwd"), "changed").unwrap();
        assert_eq!(fs::metadata(root.at("etc/passwd")).unwrap().uid(), 100_000);
        assert_eq!(
            fs::read_to_string(image.upper(way.name()).join("etc/passwd")).unwrap(),
            "changed"
        );
    }
}

#[test]
fn snapshots_without_an_upper_directory_are_shown_read_only() {
    let image = Image::new();
    let whole = image.mount(&image.request("plain", &[]), None);
    let native = Mount {
        r#type: "bind".to_owned(),
        source: whole.0.display().to_string(),
        target: String::new(),
        options: vec!["rbind".to_owned(), "rw".to_owned()],
    };
    // Of the native snapshotter: a copy, since an overlay of an overlay of an overlay is one too many.
    let copy = image.path("snapshots/native");
    assert!(
        Command::new("cp")
            .arg("-a")
            .arg(&whole.0)
            .arg(&copy)
            .status()
            .unwrap()
            .success()
    );
    let native = Mount {
        source: copy.display().to_string(),
        ..native
    };
    let layers = overlay(vec![image.lower(), "ro".to_owned()]);
    let top = {
        let plain = image.mount(std::slice::from_ref(&layers), None);
        facts(&plain.0, "/")
    };
    let mut expected = listing(&whole.0);
    let kept = closed(&KEEP);
    expected.retain(|name, _| kept.contains(name));
    for mounts in [vec![native], vec![layers]] {
        for way in ways() {
            let view = image.view(&mounts, way, &KEEP);
            let root = image.mount(&mounts, Some(&view));
            assert_eq!(listing(&root.0), expected, "{way:?}");
            if mounts[0].r#type == "overlay" {
                assert_eq!(facts(&root.0, "/"), top, "{way:?}");
            }
            let error = fs::write(root.at("etc/new"), "x").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ReadOnlyFilesystem, "{way:?}");
        }
    }
}

#[test]
fn layers_may_be_erofs() {
    let image = Image::new();
    let mut mounted = Vec::new();
    let mut layers = Vec::new();
    for (n, layer) in image.layers.iter().enumerate() {
        let (file, place) = (image.path(&format!("{n}.erofs")), image.path(&format!("erofs-{n}")));
        let made = Command::new("mkfs.erofs").arg(&file).arg(layer).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        fs::create_dir(&place).unwrap();
        let request = Mount {
            r#type: "erofs".to_owned(),
            source: file.display().to_string(),
            target: String::new(),
            options: vec!["loop".to_owned(), "ro".to_owned()],
        };
        mount_all(&[request], None, &place).unwrap();
        layers.push(place.display().to_string());
        mounted.push(Root(place));
    }
    for way in ways() {
        let mut mounts = image.request(way.name(), &[]);
        mounts[0].options[3] = format!("lowerdir={}", layers.join(":"));
        let plain = image.mount(&mounts, None);
        let mut expected = listing(&plain.0);
        let kept = closed(&KEEP);
        expected.retain(|name, _| kept.contains(name));
        drop(plain);
        let view = image.view(&mounts, way, &KEEP);
        let root = image.mount(&mounts, Some(&view));
        assert_eq!(listing(&root.0), expected, "{way:?}");
        fs::set_permissions(root.at("usr/bin/app"), Permissions::from_mode(0o700)).unwrap();
        assert_eq!(
            fs::read_to_string(image.upper(way.name()).join("usr/bin/app")).unwrap(),
            "app"
        );
    }
}

#[test]
fn names_that_are_no_text_are_hidden_and_an_empty_keep_set_shows_nothing() {
    use std::os::unix::ffi::OsStrExt as _;
    let image = Image::new();
    fs::write(image.layers[1].join(std::ffi::OsStr::from_bytes(b"etc/\xff")), "secret").unwrap();
    for way in ways() {
        let root = image.shown(way.name(), way, &["/etc/passwd", "/usr"]);
        let names = |name: &str| fs::read_dir(root.at(name)).unwrap().count();
        assert_eq!((names(""), names("etc"), names("usr")), (2, 1, 0), "{way:?}");
        drop(root);
        let root = image.shown(&format!("{}-none", way.name()), way, &[]);
        assert_eq!(fs::read_dir(&root.0).unwrap().count(), 0, "{way:?}");
    }
}

#[test]
fn metacopy_never_meets_an_upper_directory_and_no_layer_of_others_is_mounted() {
    let image = Image::new();
    let mounts = image.request("c", &[]);
    let view = image.view(&mounts, Way::Two, &KEEP);
    let mut asked = mounts.clone();
    asked[0].options.push("metacopy=on".to_owned());
    let root = image.path("root");
    assert!(mount_all(&asked, Some(&view), &root).is_err());
    let open = View {
        layer: image.layers[0].clone(),
        ..view.clone()
    };
    let link = image.path("link");
    symlink(view.layer.parent().unwrap(), &link).unwrap();
    let linked = View {
        layer: link.join("layer"),
        ..view
    };
    for view in [open, linked] {
        let error = mount_all(&mounts, Some(&view), &root).unwrap_err();
        assert!(!error.to_string().is_empty());
    }
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0, "nothing is mounted");
}

#[test]
fn the_same_view_has_the_same_digest_wherever_it_is_built() {
    let (one, two) = (Image::new(), Image::empty(2));
    for (from, to) in one.layers.iter().zip(&two.layers) {
        let from = from.join(".");
        assert!(
            Command::new("cp")
                .arg("-a")
                .arg(from)
                .arg(to)
                .status()
                .unwrap()
                .success()
        );
    }
    for way in [Way::Two, Way::Whiteouts] {
        let digest = |image: &Image, keep: &[&str]| image.view(&image.request("c", &[]), way, keep).digest;
        assert_eq!(digest(&one, &KEEP), digest(&two, &KEEP), "{way:?}");
        assert_ne!(digest(&one, &KEEP), digest(&two, &KEEP[1..]), "{way:?}");
    }
}
