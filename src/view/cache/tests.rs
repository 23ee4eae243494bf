use std::os::unix::fs::PermissionsExt as _;

use rustix::fs::{FileType, Mode};
use tempfile::TempDir;

use super::*;
use crate::identity::Mount;
use crate::shim::mount::{mount_all, unmount_recursive};

const KEEP: [&str; 3] = ["/etc/passwd", "/usr/bin/app", "/usr/bin/suid"];

/// A snapshot of two layers.
struct Image {
    place: TempDir,
    layers: [PathBuf; 2],
}

impl Image {
    fn new() -> Self {
        let place = TempDir::new().unwrap();
        let layers = [1, 0].map(|n| place.path().join(format!("snapshots/{n}/fs")));
        for (layer, name) in [
            (1, "etc/passwd"),
            (1, "etc/shadow"),
            (1, "etc/removed"),
            (1, "usr/bin/app"),
            (1, "usr/bin/suid"),
            (1, "var/old/gone"),
            (1, "was-file-dir/x/y"),
            (0, "var/old/fresh"),
            (0, "was-file-dir"),
        ] {
            let path = layers[layer].join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, name).unwrap();
        }
        std::os::unix::fs::symlink("usr/bin", layers[1].join("bin")).unwrap();
        fs::create_dir(layers[0].join("etc")).unwrap();
        let removed = layers[0].join("etc/removed");
        rustix::fs::mknodat(rustix::fs::CWD, removed, FileType::CharacterDevice, Mode::empty(), 0).unwrap();
        attribute(&layers[0].join("var/old"), "trusted.overlay.opaque", b"y");
        Self { place, layers }
    }

    fn dir(&self, name: &str) -> StateDir {
        StateDir::open(&self.place.path().canonicalize().unwrap().join(name)).unwrap()
    }

    fn request(&self, more: &[&str]) -> Vec<Mount> {
        let of = |part: &str| {
            let path = self.place.path().join("snapshots/c").join(part);
            fs::create_dir_all(&path).unwrap();
            path.display().to_string()
        };
        let layers: Vec<_> = self.layers.iter().map(|layer| layer.display().to_string()).collect();
        let options = [
            format!("workdir={}", of("work")),
            format!("upperdir={}", of("fs")),
            format!("lowerdir={}", layers.join(":")),
        ];
        vec![Mount {
            r#type: "overlay".to_owned(),
            source: "overlay".to_owned(),
            target: String::new(),
            options: options
                .into_iter()
                .chain(more.iter().map(ToString::to_string))
                .collect(),
        }]
    }
}

fn attribute(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, rustix::fs::XattrFlags::empty()).unwrap();
}

fn set(paths: &[&str]) -> BTreeSet<String> {
    paths.iter().map(ToString::to_string).collect()
}

fn open(image: &Image) -> (Snapshot, Cache) {
    let snapshot = Snapshot::of(&image.request(&[]), false).unwrap();
    let cache = Cache::open(&image.dir("state"), &image.dir("run"), &snapshot).unwrap();
    (snapshot, cache)
}

fn key(n: usize) -> Digest {
    Digest::of(n.to_string().as_bytes())
}

fn names(cache: &Cache) -> Vec<String> {
    let mut names: Vec<_> = store::names(cache.home.as_fd(), cache.home.path())
        .unwrap()
        .map(Result::unwrap)
        .collect();
    names.sort_unstable();
    names
}

const NONE: Limits = Limits {
    views: 0,
    names: 0,
    grace: Duration::ZERO,
};

#[test]
fn a_view_is_built_once_and_its_form_is_shared_by_two_ways() {
    let image = Image::new();
    let (snapshot, cache) = open(&image);
    assert_eq!(cache.find(&key(1), Way::One).unwrap(), None);
    let built = cache.build(&key(1), Way::One, &snapshot, &set(&KEEP)).unwrap();
    let inode = |view: &View| {
        fs::metadata(&view.layer)
            .map(|m| std::os::unix::fs::MetadataExt::ino(&m))
            .unwrap()
    };
    // The keep set of a view that is there is not looked at.
    let again = cache.build(&key(1), Way::Two, &snapshot, &set(&["/nothing"])).unwrap();
    assert_eq!(
        (&again.layer, again.digest, again.way),
        (&built.layer, built.digest, Way::Two)
    );
    assert_eq!(inode(&built), inode(&again));
    assert_eq!(cache.find(&key(1), Way::One).unwrap(), Some(built));
    assert_eq!(cache.find(&key(1), Way::Whiteouts).unwrap(), None);
    assert_eq!(cache.find(&key(2), Way::One).unwrap(), None);
}

#[test]
fn many_who_need_the_same_view_at_once_get_one() {
    let image = Image::new();
    let (snapshot, cache) = open(&image);
    let views: Vec<View> = std::thread::scope(|scope| {
        let build = || {
            let (_, cache) = open(&image);
            cache.build(&key(1), Way::One, &snapshot, &set(&KEEP)).unwrap()
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(build)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(views.iter().all(|view| view == &views[0]));
    assert_eq!(names(&cache), [name_of(&key(1), Form::Metadata)]);
}

#[test]
fn after_a_boot_a_view_is_compared_with_its_digest_and_built_again_when_a_part_is_lost() {
    let image = Image::new();
    let (snapshot, cache) = open(&image);
    for way in [Way::One, Way::Whiteouts] {
        let build = || cache.build(&key(1), way, &snapshot, &set(&KEEP)).unwrap();
        let boot = || fs::remove_file(cache.run.path().join(name_of(&key(1), way.form())));
        let built = build();
        boot().unwrap();
        assert_eq!(
            cache.find(&key(1), way).unwrap(),
            Some(built.clone()),
            "a whole one is used"
        );
        let description = built.layer.with_file_name(DESCRIPTION);
        let some = if way == Way::One { "etc/passwd" } else { "etc/shadow" };
        let damages: [&dyn Fn(); 6] = [
            &|| fs::remove_file(built.layer.join(some)).unwrap(),
            &|| fs::write(built.layer.join("more"), "x").unwrap(),
            &|| fs::set_permissions(built.layer.join("etc"), fs::Permissions::from_mode(0o700)).unwrap(),
            &|| fs::write(&description, "").unwrap(),
            &|| fs::remove_file(&description).unwrap(),
            &|| fs::remove_dir_all(&built.layer).unwrap(),
        ];
        for damage in damages {
            damage();
            boot().unwrap();
            assert_eq!(cache.find(&key(1), way).unwrap(), None);
            let broken = names(&cache).iter().filter(|name| name.starts_with(BROKEN)).count();
            assert_eq!(broken, 1, "it is set aside");
            assert_eq!(build().digest, built.digest);
            assert_eq!(
                cache
                    .collect(&Limits {
                        grace: Duration::ZERO,
                        ..Limits::default()
                    })
                    .unwrap()
                    .leftovers,
                1
            );
        }
    }
}

#[test]
fn a_view_that_another_directory_took_the_place_of_is_not_used() {
    let image = Image::new();
    let (snapshot, cache) = open(&image);
    let built = cache.build(&key(1), Way::One, &snapshot, &set(&KEEP)).unwrap();
    fs::remove_dir_all(&built.layer).unwrap();
    fs::create_dir(&built.layer).unwrap();
    assert_eq!(cache.find(&key(1), Way::One).unwrap(), None);
}

#[test]
fn what_is_mounted_or_was_just_handed_out_stays_and_the_rest_goes_oldest_first() {
    let image = Image::new();
    let (snapshot, cache) = open(&image);
    for way in [Way::One, Way::Two, Way::Whiteouts] {
        let views: Vec<View> = (0..4)
            .map(|n| {
                std::thread::sleep(Duration::from_millis(1100));
                cache.build(&key(n), way, &snapshot, &set(&KEEP)).unwrap()
            })
            .collect();
        let root = image.place.path().join("root");
        for map in [&[][..], &["uidmap=0:1000:65536", "gidmap=0:1000:65536"]] {
            mount_all(&image.request(map), Some(&views[1]), &root).unwrap();
            let few = Limits { views: 3, ..NONE };
            let few = Limits {
                names: usize::MAX,
                ..few
            };
            assert_eq!(cache.collect(&Limits { grace: GRACE, ..few }).unwrap().views, 0);
            let found = |n: usize| cache.layer(&name_of(&key(n), way.form())).unwrap().is_some();
            cache.collect(&few).unwrap();
            assert_eq!([0, 1, 2, 3].map(found), [false, true, true, true], "{way:?}");
            cache.collect(&NONE).unwrap();
            assert_eq!([0, 1, 2, 3].map(found), [false, true, false, false], "{way:?} {map:?}");
            unmount_recursive(&root).unwrap();
            for n in [0, 2, 3] {
                std::thread::sleep(Duration::from_millis(1100));
                cache.build(&key(n), way, &snapshot, &set(&KEEP)).unwrap();
            }
            cache.find(&key(1), way).unwrap().unwrap();
        }
        cache.collect(&NONE).unwrap();
        assert!(names(&cache).is_empty());
    }
}

#[test]
fn every_place_of_views_is_known() {
    let image = Image::new();
    let (_, cache) = open(&image);
    let all = || Cache::all(&image.dir("state"), &image.dir("run")).unwrap();
    assert_eq!(all().len(), 1);
    assert!(cache.home.path().ends_with("state/views"));
    let other = image.place.path().canonicalize().unwrap().join("other");
    fs::create_dir(&other).unwrap();
    remember(&cache.home, &other).unwrap();
    remember(&cache.home, &other).unwrap();
    fs::set_permissions(&other, fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(all().len(), 2);
    fs::remove_dir(&other).unwrap();
    assert_eq!(all().len(), 1);
}

#[test]
fn keys_are_found_in_tables_of_mounts() {
    let mut keys = BTreeSet::new();
    let (one, two) = (key(1).hex(), key(2).hex());
    let table =
        format!("1 2 0:3 / / rw - overlay overlay rw,lowerdir+=/v/{one}.metadata/layer\n2 2 lowerdir={two},x={one}0\n");
    collect_keys(table.as_bytes(), &mut keys);
    assert_eq!(keys, BTreeSet::from([one, two]));
    assert_eq!(key_in(&name_of(&key(1), Form::Metadata)), Some(key(1).hex().as_str()));
    assert_eq!(key_in(".new-1"), None);
    assert_eq!(key_in("places"), None);
}

#[test]
fn what_no_view_can_be_made_of_is_refused_and_nothing_is_left() {
    let image = Image::new();
    let (snapshot, cache) = open(&image);
    let mut messages = BTreeSet::new();
    let mut refuse = |keep: &[&str]| {
        for way in [Way::One, Way::Whiteouts] {
            let error = cache.build(&Digest::of(b"k"), way, &snapshot, &set(keep)).unwrap_err();
            messages.insert(error.to_string());
        }
    };
    refuse(&["/usr/bin/nothing"]);
    refuse(&["/nothing/at/all"]);
    refuse(&["/etc/removed"]);
    refuse(&["/var/old/gone"]);
    refuse(&["/was-file-dir/x/y"]);
    refuse(&["/bin/app"]);
    refuse(&["/usr/../etc"]);
    attribute(
        &image.layers[1].join("etc/passwd"),
        "trusted.overlay.redirect",
        b"/etc/shadow",
    );
    refuse(&["/etc/passwd"]);
    attribute(&image.layers[0].join("var/old"), "trusted.overlay.opaque", b"x");
    refuse(&["/var/old/fresh"]);
    assert!(names(&cache).is_empty());
    let messages: Vec<_> = messages.into_iter().collect();
    insta::assert_snapshot!(messages.join("\n"), @r#"
    "/bin" is no directory, and something below it is to be kept
    "/etc/passwd" has the extended attribute trusted.overlay.redirect in a layer, which makes it something else than the file that it is; no image needs that
    "/etc/removed" is to be kept and is in no layer
    "/nothing" is to be kept and is in no layer
    "/usr/bin/nothing" is to be kept and is in no layer
    "/var/old" has the extended attribute trusted.overlay.opaque in a layer, which makes it something else than the file that it is; no image needs that
    "/var/old/gone" is to be kept and is in no layer
    "/was-file-dir" is no directory, and something below it is to be kept
    '/usr/../etc' is not an absolute path without '.', '..' and doubled slashes
    "#);
}
