//! Metrics of cgroup v2, all in one directory.

use std::path::Path;

use containerd_shim_protos::cgroups_v2::metrics::{
    CPUStat, HugeTlbStat, IOEntry, IOStat, MemoryEvents, MemoryStat, Metrics, PSIData, PSIStats, PidsStat, RdmaEntry,
    RdmaStat,
};
use protobuf::MessageField;

use super::{StatsError, Table, huge_page_sizes, rdma, read, read_number};

pub(super) fn collect(directory: &Path) -> Result<Metrics, StatsError> {
    let mut metrics = Metrics::new();
    // No limit is the greatest number in this version.
    let value = |name: &str| read_number(&directory.join(name), u64::MAX).map(|n| n.unwrap_or(0));
    metrics.pids = Some(PidsStat {
        current: value("pids.current")?,
        limit: value("pids.max")?,
        ..PidsStat::default()
    })
    .into();

    let table = Table::read(&directory.join("cpu.stat"))?.unwrap_or_default();
    metrics.cpu = Some(CPUStat {
        psi: pressure(directory, "cpu")?,
        ..cpu_stat(&table)
    })
    .into();

    let table = Table::read(&directory.join("memory.stat"))?.unwrap_or_default();
    metrics.memory = Some(MemoryStat {
        usage: value("memory.current")?,
        usage_limit: value("memory.max")?,
        max_usage: value("memory.peak")?,
        swap_usage: value("memory.swap.current")?,
        swap_limit: value("memory.swap.max")?,
        swap_max_usage: value("memory.swap.peak")?,
        psi: pressure(directory, "memory")?,
        ..memory_stat(&table)
    })
    .into();
    metrics.memory_events = Table::read(&directory.join("memory.events"))?
        .map(|table| memory_events(&table))
        .into();

    let usage = read(&directory.join("io.stat"))?.unwrap_or_default();
    metrics.io = Some(IOStat {
        usage: io_entries(&usage),
        psi: pressure(directory, "io")?,
        ..IOStat::default()
    })
    .into();

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

    for pagesize in huge_page_sizes() {
        let file = |name: &str| directory.join(format!("hugetlb.{pagesize}.{name}"));
        let Some(current) = read_number(&file("current"), u64::MAX)? else {
            continue;
        };
        let max = read_number(&file("max"), u64::MAX)?.unwrap_or(0);
        let failcnt = Table::read(&file("events"))?.unwrap_or_default().get("max");
        metrics.hugetlb.push(HugeTlbStat {
            current,
            max,
            failcnt,
            pagesize,
            ..HugeTlbStat::default()
        });
    }
    Ok(metrics)
}

pub(super) fn cpu_stat(table: &Table) -> CPUStat {
    CPUStat {
        usage_usec: table.get("usage_usec"),
        user_usec: table.get("user_usec"),
        system_usec: table.get("system_usec"),
        nr_periods: table.get("nr_periods"),
        nr_throttled: table.get("nr_throttled"),
        throttled_usec: table.get("throttled_usec"),
        nr_bursts: table.get("nr_bursts"),
        burst_usec: table.get("burst_usec"),
        ..CPUStat::default()
    }
}

pub(super) fn memory_stat(table: &Table) -> MemoryStat {
    // Kernels since 5.9 count these separately for anonymous memory and files.
    let both = |name: &str| {
        let part = |kind: &str| table.get(&format!("{name}_{kind}"));
        table
            .find(name)
            .unwrap_or_else(|| part("anon").saturating_add(part("file")))
    };
    MemoryStat {
        anon: table.get("anon"),
        file: table.get("file"),
        kernel_stack: table.get("kernel_stack"),
        slab: table.get("slab"),
        sock: table.get("sock"),
        shmem: table.get("shmem"),
        file_mapped: table.get("file_mapped"),
        file_dirty: table.get("file_dirty"),
        file_writeback: table.get("file_writeback"),
        anon_thp: table.get("anon_thp"),
        inactive_anon: table.get("inactive_anon"),
        active_anon: table.get("active_anon"),
        inactive_file: table.get("inactive_file"),
        active_file: table.get("active_file"),
        unevictable: table.get("unevictable"),
        slab_reclaimable: table.get("slab_reclaimable"),
        slab_unreclaimable: table.get("slab_unreclaimable"),
        pgfault: table.get("pgfault"),
        pgmajfault: table.get("pgmajfault"),
        workingset_refault: both("workingset_refault"),
        workingset_activate: both("workingset_activate"),
        workingset_nodereclaim: table.get("workingset_nodereclaim"),
        pgrefill: table.get("pgrefill"),
        pgscan: table.get("pgscan"),
        pgsteal: table.get("pgsteal"),
        pgactivate: table.get("pgactivate"),
        pgdeactivate: table.get("pgdeactivate"),
        pglazyfree: table.get("pglazyfree"),
        pglazyfreed: table.get("pglazyfreed"),
        thp_fault_alloc: table.get("thp_fault_alloc"),
        thp_collapse_alloc: table.get("thp_collapse_alloc"),
        ..MemoryStat::default()
    }
}

fn memory_events(table: &Table) -> MemoryEvents {
    MemoryEvents {
        low: table.get("low"),
        high: table.get("high"),
        max: table.get("max"),
        oom: table.get("oom"),
        oom_kill: table.get("oom_kill"),
        oom_group_kill: table.get("oom_group_kill"),
        ..MemoryEvents::default()
    }
}

/// Lines of `major:minor name=value …`.
pub(super) fn io_entries(bytes: &[u8]) -> Vec<IOEntry> {
    let text = String::from_utf8_lossy(bytes);
    let lines = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (major, minor) = words.next()?.split_once(':')?;
        let mut entry = IOEntry {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            ..IOEntry::default()
        };
        for (name, value) in words.filter_map(|word| word.split_once('=')) {
            let field = match name {
                "rbytes" => &mut entry.rbytes,
                "wbytes" => &mut entry.wbytes,
                "rios" => &mut entry.rios,
                "wios" => &mut entry.wios,
                _ => continue,
            };
            *field = value.parse().ok()?;
        }
        Some(entry)
    });
    lines.collect()
}

fn pressure(directory: &Path, resource: &str) -> Result<MessageField<PSIStats>, StatsError> {
    Ok(read(&directory.join(format!("{resource}.pressure")))?
        .map(|bytes| psi(&bytes))
        .into())
}

/// Lines of `some|full avg10=… avg60=… avg300=… total=…`.
pub(super) fn psi(bytes: &[u8]) -> PSIStats {
    let mut stats = PSIStats::new();
    for line in String::from_utf8_lossy(bytes).lines() {
        let mut words = line.split_whitespace();
        let kind = words.next();
        let mut data = PSIData::new();
        for (name, value) in words.filter_map(|word| word.split_once('=')) {
            let field = match name {
                "avg10" => &mut data.avg10,
                "avg60" => &mut data.avg60,
                "avg300" => &mut data.avg300,
                "total" => {
                    data.total = value.parse().unwrap_or(0);
                    continue;
                }
                _ => continue,
            };
            *field = value.parse().unwrap_or(0.0);
        }
        match kind {
            Some("some") => stats.some = Some(data).into(),
            Some("full") => stats.full = Some(data).into(),
            _ => {}
        }
    }
    stats
}

fn rdma_entry((device, hca_handles, hca_objects): (String, u32, u32)) -> RdmaEntry {
    RdmaEntry {
        device,
        hca_handles,
        hca_objects,
        ..RdmaEntry::default()
    }
}
