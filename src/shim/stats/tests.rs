use std::fs;
use std::process::{Child, Command};

use containerd_shim_protos::{cgroups, cgroups_v2};

use super::*;

fn mounts(text: &str) -> Vec<Entry> {
    table::parse(text.as_bytes())
}

const LEGACY: &str = "\
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";
const UNIFIED: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";

#[test]
fn cgroups_are_found_in_every_layout() {
    let v1 = "5:memory:/k/a\n4:cpu,cpuacct:/k/b:c\n1:name=systemd:/k/a\n0::/k/a\n";
    let expected = vec![
        ("memory".to_owned(), PathBuf::from("/sys/fs/cgroup/memory/k/a")),
        ("cpu".to_owned(), PathBuf::from("/sys/fs/cgroup/cpu,cpuacct/k/b:c")),
        ("cpuacct".to_owned(), PathBuf::from("/sys/fs/cgroup/cpu,cpuacct/k/b:c")),
    ];
    assert_eq!(locate(v1, &mounts(LEGACY)), Some(Place::V1(expected)));

    let v2 = |mount: &str, path: &str| {
        Some(Place::V2 {
            mount: mount.into(),
            path: path.into(),
        })
    };
    assert_eq!(
        locate("0::/k/a\n", &mounts(UNIFIED)),
        v2("/sys/fs/cgroup", "/sys/fs/cgroup/k/a")
    );
    // A hybrid layout whose version 1 has no controllers.
    let hybrid = "1:name=systemd:/k/a\n0::/k/a\n";
    assert_eq!(
        locate(hybrid, &mounts(LEGACY)),
        v2("/sys/fs/cgroup/unified", "/sys/fs/cgroup/unified/k/a")
    );
    // Inside a container that sees a part of the hierarchy.
    let part = "30 23 0:26 /docker/x /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
    assert_eq!(
        locate("0::/docker/x/k/a\n", &mounts(part)),
        v2("/sys/fs/cgroup", "/sys/fs/cgroup/k/a")
    );
}

#[test]
fn what_is_not_a_cgroup_of_ones_own_is_not_found() {
    for membership in [
        "",
        "0::/\n",
        "5:memory:/\n0::/\n",
        "0::/../../other\n",
        "junk",
        "0::relative\n",
    ] {
        assert_eq!(locate(membership, &mounts(UNIFIED)), None, "{membership:?}");
        assert_eq!(locate(membership, &mounts(LEGACY)), None, "{membership:?}");
    }
    assert!(Cgroup::of(i32::MAX).unwrap_err().is_not_found());
}

/// A protobuf field with a number that is its value too.
fn numbered_field(n: u8) -> Vec<u8> {
    // A tag is the number and three bits of type, 0 here, in groups of seven bits.
    if n < 16 {
        vec![n << 3, n]
    } else {
        vec![n << 3 & 0x7f | 0x80, n >> 4, n]
    }
}

#[test]
fn a_recorded_memory_stat_of_v1_is_read_field_by_field() {
    let names = "cache rss rss_huge mapped_file dirty writeback pgpgin pgpgout pgfault pgmajfault inactive_anon \
        active_anon inactive_file active_file unevictable hierarchical_memory_limit hierarchical_memsw_limit \
        total_cache total_rss total_rss_huge total_mapped_file total_dirty total_writeback total_pgpgin total_pgpgout \
        total_pgfault total_pgmajfault total_inactive_anon total_active_anon total_inactive_file total_active_file \
        total_unevictable";
    let text: String = names
        .split_whitespace()
        .zip(1..)
        .map(|(name, n)| format!("{name} {n}\nnew_{name} 99\n"))
        .collect();
    let stat = v1::memory_stat(&Table::parse(text.as_bytes()));
    // The numbers are those of the fields in containerd's definition of the message.
    let bytes = stat.write_to_bytes().unwrap();
    let expected: Vec<u8> = (1..=32).flat_map(numbered_field).collect();
    assert_eq!(bytes, expected);
}

#[test]
fn a_recorded_memory_stat_of_v2_is_read_field_by_field() {
    let names = "anon file kernel_stack slab sock shmem file_mapped file_dirty file_writeback anon_thp inactive_anon \
        active_anon inactive_file active_file unevictable slab_reclaimable slab_unreclaimable pgfault pgmajfault \
        workingset_refault workingset_activate workingset_nodereclaim pgrefill pgscan pgsteal pgactivate pgdeactivate \
        pglazyfree pglazyfreed thp_fault_alloc thp_collapse_alloc";
    let text: String = names
        .split_whitespace()
        .zip(1..)
        .map(|(name, n)| format!("{name} {n}\n"))
        .collect();
    let stat = v2::memory_stat(&Table::parse(text.as_bytes()));
    let bytes = stat.write_to_bytes().unwrap();
    let expected: Vec<u8> = (1..=31).flat_map(numbered_field).collect();
    assert_eq!(bytes, expected);

    let newer = "workingset_refault_anon 3\nworkingset_refault_file 4\nworkingset_activate_file 5\n";
    let stat = v2::memory_stat(&Table::parse(newer.as_bytes()));
    assert_eq!((stat.workingset_refault, stat.workingset_activate), (7, 5));
}

#[test]
fn recorded_io_files_are_read() {
    let devices = v1::devices(b"major minor  #blocks  name\n\n 254        0  268435456 vda\n   7        0   1 loop0\n");
    let text = b"254:0 Read 4096\n254:0 Write 8192\n259:3 Sync 1\n8:0 77\nTotal 12288\n";
    let entries: Vec<_> = v1::blkio_entries(text, &devices)
        .into_iter()
        .map(|entry| (entry.device, entry.major, entry.minor, entry.op, entry.value))
        .collect();
    let entry = |device: &str, major, minor, op: &str, value| (device.to_owned(), major, minor, op.to_owned(), value);
    assert_eq!(
        entries,
        [
            entry("/dev/vda", 254, 0, "Read", 4096),
            entry("/dev/vda", 254, 0, "Write", 8192),
            entry("", 259, 3, "Sync", 1),
            entry("", 8, 0, "", 77),
        ]
    );

    let text = b"8:16 rbytes=1459200 wbytes=314773504 rios=192 wios=353 dbytes=0 dios=0\n8:0 rbytes=90 wios=2\nbad\n";
    let entries: Vec<_> = v2::io_entries(text)
        .into_iter()
        .map(|entry| {
            [
                entry.major,
                entry.minor,
                entry.rbytes,
                entry.wbytes,
                entry.rios,
                entry.wios,
            ]
        })
        .collect();
    assert_eq!(
        entries,
        [[8, 16, 1_459_200, 314_773_504, 192, 353], [8, 0, 90, 0, 0, 2]]
    );
}

#[test]
fn recorded_pressure_rdma_and_page_sizes_are_read() {
    let psi = v2::psi(
        b"some avg10=1.50 avg60=0.25 avg300=0.01 total=1234\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=56\n",
    );
    assert_eq!(
        (psi.some.avg10, psi.some.avg60, psi.some.avg300, psi.some.total),
        (1.5, 0.25, 0.01, 1234)
    );
    assert_eq!(psi.full.total, 56);
    let expected = [("mlx4_0".to_owned(), 2, 2000), ("ocrdma1".to_owned(), 3, u32::MAX)];
    assert_eq!(
        rdma(b"mlx4_0 hca_handle=2 hca_object=2000\nocrdma1 hca_handle=3 hca_object=max\nx y\n"),
        expected
    );
    let sizes = ["hugepages-64kB", "hugepages-2048kB", "hugepages-1048576kB"]
        .map(|name| huge_page_size(huge_page_kilobytes(name).unwrap()));
    assert_eq!(sizes, ["64KB", "2MB", "1GB"]);
    assert_eq!(huge_page_kilobytes("hugepages-2M"), None);
}

/// Cgroups of the same name in some hierarchies of version 1.
struct Groups(Vec<PathBuf>);

impl Groups {
    fn new(name: &str) -> Self {
        let controllers = ["memory", "cpu", "cpuacct", "pids", "devices", "blkio"];
        let path = |controller| {
            let path = PathBuf::from(format!(
                "/sys/fs/cgroup/{controller}/assay-test-{name}-{}",
                std::process::id()
            ));
            fs::create_dir(&path).unwrap();
            path
        };
        Self(controllers.map(path).to_vec())
    }

    fn run(&self, below: &str, script: &str) -> Child {
        let join = self
            .0
            .iter()
            .map(|path| format!("echo $$ >{}{below}/cgroup.procs; ", path.display()));
        Command::new("sh")
            .args(["-c", &(join.collect::<String>() + script)])
            .spawn()
            .unwrap()
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = fs::remove_dir(path.join("below"));
            let _ = fs::remove_dir(path);
        }
    }
}

fn settled() {
    std::thread::sleep(std::time::Duration::from_millis(400));
}

#[test]
fn a_real_cgroup_of_v1_is_measured() {
    let groups = Groups::new("stats");
    fs::write(groups.0[0].join("memory.limit_in_bytes"), "64M").unwrap();
    fs::write(groups.0[3].join("pids.max"), "33").unwrap();
    for path in &groups.0 {
        fs::create_dir(path.join("below")).unwrap();
    }
    let mut child = groups.run("", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; exec sleep 100");
    let mut grandchild = groups.run("/below", "exec sleep 100");
    settled();
    let cgroup = Cgroup::of(i32::try_from(child.id()).unwrap()).unwrap();
    let mut expected = [child.id(), grandchild.id()];
    expected.sort_unstable();
    assert_eq!(cgroup.pids().unwrap(), expected);

    let any = cgroup.metrics().unwrap();
    assert_eq!(any.type_url, "io.containerd.cgroups.v1.Metrics");
    let metrics = cgroups::metrics::Metrics::parse_from_bytes(&any.value).unwrap();
    assert_eq!((metrics.pids.current, metrics.pids.limit), (2, 33));
    assert_eq!(metrics.memory.usage.limit, 64 << 20);
    assert_eq!(metrics.memory.hierarchical_memory_limit, 64 << 20);
    assert!(metrics.memory.usage.usage > 0 && metrics.memory.usage.max >= metrics.memory.usage.usage);
    assert!(metrics.memory.pg_fault > 0);
    assert!(metrics.cpu.usage.total > 1_000_000);
    assert_eq!(
        metrics.cpu.usage.per_cpu.len(),
        std::thread::available_parallelism().unwrap().get()
    );
    assert_eq!(metrics.cpu.usage.per_cpu.iter().sum::<u64>(), metrics.cpu.usage.total);
    assert!(metrics.cpu.throttling.is_some() && metrics.memory_oom_control.is_some() && metrics.blkio.is_some());

    for process in [&mut child, &mut grandchild] {
        process.kill().unwrap();
        process.wait().unwrap();
    }
    // Still there, and empty.
    assert!(cgroup.pids().unwrap().is_empty());
    cgroup.metrics().unwrap();
    drop(groups);
    assert!(cgroup.metrics().unwrap_err().is_not_found());
    assert!(cgroup.pids().unwrap_err().is_not_found());
}

#[test]
fn a_real_cgroup_of_v2_is_measured_with_what_it_has() {
    let path = PathBuf::from(format!("/sys/fs/cgroup/unified/assay-test-{}", std::process::id()));
    fs::create_dir(&path).unwrap();
    let script = format!(
        "echo $$ >{}/cgroup.procs; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; exec sleep 100",
        path.display()
    );
    let mut child = Command::new("sh").args(["-c", &script]).spawn().unwrap();
    settled();
    let cgroup = Cgroup {
        pid: 1,
        place: Place::V2 {
            mount: "/sys/fs/cgroup/unified".into(),
            path: path.clone(),
        },
    };
    assert_eq!(cgroup.pids().unwrap(), [child.id()]);
    let any = cgroup.metrics().unwrap();
    assert_eq!(any.type_url, "io.containerd.cgroups.v2.Metrics");
    let metrics = cgroups_v2::metrics::Metrics::parse_from_bytes(&any.value).unwrap();
    assert!(metrics.cpu.usage_usec > 0);
    // Each of the three is rounded to microseconds by the kernel.
    let parts = metrics.cpu.user_usec + metrics.cpu.system_usec;
    assert!(parts.abs_diff(metrics.cpu.usage_usec) <= 2, "{:?}", metrics.cpu);
    // No controller is left for this hierarchy, which is no reason to fail.
    cgroup.enable_controllers();
    child.kill().unwrap();
    child.wait().unwrap();
    fs::remove_dir(&path).unwrap();
    assert!(cgroup.metrics().unwrap_err().is_not_found());
}

#[test]
fn files_of_cgroup_v2_become_metrics() {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in [
        (
            "cpu.stat",
            "usage_usec 300\nuser_usec 200\nsystem_usec 100\nnr_periods 9\nnr_throttled 8\nthrottled_usec 7\nnr_bursts 6\nburst_usec 5\n",
        ),
        ("pids.current", "3\n"),
        ("pids.max", "max\n"),
        ("memory.current", "4096\n"),
        ("memory.max", "max\n"),
        ("memory.peak", "8192\n"),
        ("memory.stat", "anon 11\n"),
        (
            "memory.events",
            "low 1\nhigh 2\nmax 3\noom 4\noom_kill 5\noom_group_kill 6\n",
        ),
        ("hugetlb.2MB.current", "2097152\n"),
        ("hugetlb.2MB.max", "max\n"),
        ("hugetlb.2MB.events", "max 13\n"),
    ] {
        fs::write(directory.path().join(name), text).unwrap();
    }
    let metrics = v2::collect(directory.path()).unwrap();
    assert_eq!((metrics.pids.current, metrics.pids.limit), (3, u64::MAX));
    let cpu = &metrics.cpu;
    let fields = [
        cpu.usage_usec,
        cpu.user_usec,
        cpu.system_usec,
        cpu.nr_periods,
        cpu.nr_throttled,
        cpu.throttled_usec,
    ];
    assert_eq!(fields, [300, 200, 100, 9, 8, 7]);
    assert_eq!((cpu.nr_bursts, cpu.burst_usec), (6, 5));
    let memory = &metrics.memory;
    assert_eq!(
        (memory.usage, memory.usage_limit, memory.max_usage, memory.anon),
        (4096, u64::MAX, 8192, 11)
    );
    let events = &metrics.memory_events;
    let counts = [
        events.low,
        events.high,
        events.max,
        events.oom,
        events.oom_kill,
        events.oom_group_kill,
    ];
    assert_eq!(counts, [1, 2, 3, 4, 5, 6]);
    let huge: Vec<_> = metrics
        .hugetlb
        .iter()
        .map(|page| (&*page.pagesize, page.current, page.max, page.failcnt))
        .collect();
    assert_eq!(huge, [("2MB", 2_097_152, u64::MAX, 13)]);
}

/// The kernel's files, written by hand; real ones need a machine with cgroup v2 only.
#[test]
fn controllers_are_enabled_in_every_ancestor_and_only_there() {
    let directory = tempfile::tempdir().unwrap();
    let container = directory.path().join("a/b");
    fs::create_dir_all(&container).unwrap();
    for path in container.ancestors().take(3) {
        fs::write(path.join("cgroup.controllers"), "cpu memory\n").unwrap();
        fs::write(path.join("cgroup.subtree_control"), "cpu\n").unwrap();
    }
    let cgroup = Cgroup {
        pid: 1,
        place: Place::V2 {
            mount: directory.path().into(),
            path: container.clone(),
        },
    };
    cgroup.enable_controllers();
    let written = |path: &Path| fs::read_to_string(path.join("cgroup.subtree_control")).unwrap();
    assert_eq!(written(directory.path()), "+memory");
    assert_eq!(written(&directory.path().join("a")), "+memory");
    assert_eq!(written(&container), "cpu\n");
}
