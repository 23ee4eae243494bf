//! Metrics of cgroup v1, one directory per controller.

use std::path::{Path, PathBuf};

use containerd_shim_protos::cgroups::metrics::{
    BlkIOEntry, BlkIOStat, CPUStat, CPUUsage, HugetlbStat, MemoryEntry, MemoryOomControl, MemoryStat, Metrics,
    PidsStat, RdmaEntry, RdmaStat, Throttle,
};
use protobuf::MessageField;

use super::{StatsError, Table, find, huge_page_sizes, number, rdma, read, read_number};

const NANOSECONDS: u64 = 1_000_000_000;

pub(super) fn collect(directories: &[(String, PathBuf)]) -> Result<Metrics, StatsError> {
    let mut metrics = Metrics::new();
    metrics.cpu = Some(cpu(find(directories, "cpu"), find(directories, "cpuacct"))?).into();
    if let Some(directory) = find(directories, "memory") {
        metrics.memory = memory(directory)?;
        metrics.memory_oom_control = oom_control(directory)?;
    }
    if let Some(directory) = find(directories, "pids") {
        metrics.pids = pids(directory)?;
    }
    if let Some(directory) = find(directories, "blkio") {
        metrics.blkio = Some(blkio(directory)?).into();
    }
    if let Some(directory) = find(directories, "hugetlb") {
        for size in huge_page_sizes() {
            metrics.hugetlb.extend(hugetlb(directory, size)?);
        }
    }
    if let Some(directory) = find(directories, "rdma") {
        let entries = |name| -> Result<Vec<RdmaEntry>, StatsError> {
            let bytes = read(&directory.join(name))?.unwrap_or_default();
            Ok(rdma(&bytes).into_iter().map(rdma_entry).collect())
        };
        let (current, limit) = (entries("rdma.current")?, entries("rdma.max")?);
        metrics.rdma = Some(RdmaStat {
            current,
            limit,
            ..RdmaStat::default()
        })
        .into();
    }
    Ok(metrics)
}

fn cpu(cpu: Option<&Path>, cpuacct: Option<&Path>) -> Result<CPUStat, StatsError> {
    let mut throttling = Throttle::new();
    if let Some(directory) = cpu {
        let table = Table::read(&directory.join("cpu.stat"))?.unwrap_or_default();
        throttling.periods = table.get("nr_periods");
        throttling.throttled_periods = table.get("nr_throttled");
        throttling.throttled_time = table.get("throttled_time");
    }
    let mut usage = CPUUsage::new();
    if let Some(directory) = cpuacct {
        let table = Table::read(&directory.join("cpuacct.stat"))?.unwrap_or_default();
        let ticks = rustix::param::clock_ticks_per_second();
        let nanoseconds = |name| scale(table.get(name), NANOSECONDS, ticks);
        usage.user = nanoseconds("user");
        usage.kernel = nanoseconds("system");
        usage.total = read_number(&directory.join("cpuacct.usage"), 0)?.unwrap_or(0);
        let each = read(&directory.join("cpuacct.usage_percpu"))?.unwrap_or_default();
        usage.per_cpu = String::from_utf8_lossy(&each)
            .split_whitespace()
            .filter_map(number)
            .collect();
    }
    Ok(CPUStat {
        usage: Some(usage).into(),
        throttling: Some(throttling).into(),
        ..CPUStat::default()
    })
}

/// `value * by / over` without overflow in between.
fn scale(value: u64, by: u64, over: u64) -> u64 {
    let scaled = u128::from(value) * u128::from(by) / u128::from(over.max(1));
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

fn memory(directory: &Path) -> Result<MessageField<MemoryStat>, StatsError> {
    let Some(table) = Table::read(&directory.join("memory.stat"))? else {
        return Ok(MessageField::none());
    };
    let mut stat = memory_stat(&table);
    stat.usage = Some(memory_entry(directory, "memory")?).into();
    stat.swap = Some(memory_entry(directory, "memory.memsw")?).into();
    stat.kernel = Some(memory_entry(directory, "memory.kmem")?).into();
    stat.kernel_tcp = Some(memory_entry(directory, "memory.kmem.tcp")?).into();
    Ok(Some(stat).into())
}

pub(super) fn memory_stat(table: &Table) -> MemoryStat {
    MemoryStat {
        cache: table.get("cache"),
        rss: table.get("rss"),
        rss_huge: table.get("rss_huge"),
        mapped_file: table.get("mapped_file"),
        dirty: table.get("dirty"),
        writeback: table.get("writeback"),
        pg_pg_in: table.get("pgpgin"),
        pg_pg_out: table.get("pgpgout"),
        pg_fault: table.get("pgfault"),
        pg_maj_fault: table.get("pgmajfault"),
        inactive_anon: table.get("inactive_anon"),
        active_anon: table.get("active_anon"),
        inactive_file: table.get("inactive_file"),
        active_file: table.get("active_file"),
        unevictable: table.get("unevictable"),
        hierarchical_memory_limit: table.get("hierarchical_memory_limit"),
        hierarchical_swap_limit: table.get("hierarchical_memsw_limit"),
        total_cache: table.get("total_cache"),
        total_rss: table.get("total_rss"),
        total_rss_huge: table.get("total_rss_huge"),
        total_mapped_file: table.get("total_mapped_file"),
        total_dirty: table.get("total_dirty"),
        total_writeback: table.get("total_writeback"),
        total_pg_pg_in: table.get("total_pgpgin"),
        total_pg_pg_out: table.get("total_pgpgout"),
        total_pg_fault: table.get("total_pgfault"),
        total_pg_maj_fault: table.get("total_pgmajfault"),
        total_inactive_anon: table.get("total_inactive_anon"),
        total_active_anon: table.get("total_active_anon"),
        total_inactive_file: table.get("total_inactive_file"),
        total_active_file: table.get("total_active_file"),
        total_unevictable: table.get("total_unevictable"),
        ..MemoryStat::default()
    }
}

fn memory_entry(directory: &Path, prefix: &str) -> Result<MemoryEntry, StatsError> {
    let value = |name: &str| read_number(&directory.join(format!("{prefix}.{name}")), 0).map(|n| n.unwrap_or(0));
    Ok(MemoryEntry {
        limit: value("limit_in_bytes")?,
        usage: value("usage_in_bytes")?,
        max: value("max_usage_in_bytes")?,
        failcnt: value("failcnt")?,
        ..MemoryEntry::default()
    })
}

fn oom_control(directory: &Path) -> Result<MessageField<MemoryOomControl>, StatsError> {
    let control = Table::read(&directory.join("memory.oom_control"))?.map(|table| MemoryOomControl {
        oom_kill_disable: table.get("oom_kill_disable"),
        under_oom: table.get("under_oom"),
        oom_kill: table.get("oom_kill"),
        ..MemoryOomControl::default()
    });
    Ok(control.into())
}

fn pids(directory: &Path) -> Result<MessageField<PidsStat>, StatsError> {
    let Some(current) = read_number(&directory.join("pids.current"), 0)? else {
        return Ok(MessageField::none());
    };
    // No limit is 0 in this version.
    let limit = read_number(&directory.join("pids.max"), 0)?.unwrap_or(0);
    Ok(Some(PidsStat {
        current,
        limit,
        ..PidsStat::default()
    })
    .into())
}

fn blkio(directory: &Path) -> Result<BlkIOStat, StatsError> {
    let devices = devices(&read(Path::new("/proc/partitions"))?.unwrap_or_default());
    let entries = |name: &str| -> Result<Vec<BlkIOEntry>, StatsError> {
        let bytes = read(&directory.join(format!("blkio.{name}")))?.unwrap_or_default();
        Ok(blkio_entries(&bytes, &devices))
    };
    // The statistics of the CFQ scheduler, where a kernel still has it.
    let mut stat = BlkIOStat {
        io_service_bytes_recursive: entries("io_service_bytes_recursive")?,
        io_serviced_recursive: entries("io_serviced_recursive")?,
        io_queued_recursive: entries("io_queued_recursive")?,
        io_service_time_recursive: entries("io_service_time_recursive")?,
        io_wait_time_recursive: entries("io_wait_time_recursive")?,
        io_merged_recursive: entries("io_merged_recursive")?,
        io_time_recursive: entries("time_recursive")?,
        sectors_recursive: entries("sectors_recursive")?,
        ..BlkIOStat::default()
    };
    if stat == BlkIOStat::default() {
        stat.io_service_bytes_recursive = entries("throttle.io_service_bytes")?;
        stat.io_serviced_recursive = entries("throttle.io_serviced")?;
    }
    Ok(stat)
}

/// Lines of `major:minor [operation] amount`; the totals of all devices are left out.
pub(super) fn blkio_entries(bytes: &[u8], devices: &[(u64, u64, String)]) -> Vec<BlkIOEntry> {
    let text = String::from_utf8_lossy(bytes);
    let lines = text.lines().filter_map(|line| {
        let words: Vec<_> = line.split([' ', ':']).collect();
        let (major, minor, op, value) = match words[..] {
            [major, minor, value] => (major, minor, "", value),
            [major, minor, op, value] => (major, minor, op, value),
            _ => return None,
        };
        let (major, minor) = (major.parse().ok()?, minor.parse().ok()?);
        let device = devices.iter().find(|device| (device.0, device.1) == (major, minor));
        Some(BlkIOEntry {
            op: op.to_owned(),
            device: device.map_or_else(String::new, |device| device.2.clone()),
            major,
            minor,
            value: number(value)?,
            ..BlkIOEntry::default()
        })
    });
    lines.collect()
}

/// `/proc/partitions` as numbers and paths.
pub(super) fn devices(bytes: &[u8]) -> Vec<(u64, u64, String)> {
    let text = String::from_utf8_lossy(bytes);
    let lines = text.lines().filter_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let [major, minor, _, name] = words[..] else {
            return None;
        };
        Some((major.parse().ok()?, minor.parse().ok()?, format!("/dev/{name}")))
    });
    lines.collect()
}

fn hugetlb(directory: &Path, pagesize: String) -> Result<Option<HugetlbStat>, StatsError> {
    let value = |name: &str| read_number(&directory.join(format!("hugetlb.{pagesize}.{name}")), 0);
    let Some(usage) = value("usage_in_bytes")? else {
        return Ok(None);
    };
    let max = value("max_usage_in_bytes")?.unwrap_or(0);
    let failcnt = value("failcnt")?.unwrap_or(0);
    Ok(Some(HugetlbStat {
        usage,
        max,
        failcnt,
        pagesize,
        ..HugetlbStat::default()
    }))
}

fn rdma_entry((device, hca_handles, hca_objects): (String, u32, u32)) -> RdmaEntry {
    RdmaEntry {
        device,
        hca_handles,
        hca_objects,
        ..RdmaEntry::default()
    }
}
