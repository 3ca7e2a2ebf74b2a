//! How loaded the guest is.

use banger_channel::control::{Disk, Stats};
use banger_doc::{Context, Result};
use nix::{
    sys::statvfs::statvfs,
    unistd::{SysconfVar, sysconf},
};
use std::fs;

/// Looks at memory, processors, disks and interfaces.
pub(crate) fn now() -> Result<Stats> {
    let memory = read("/proc/meminfo")?;
    let load = read("/proc/loadavg")?;
    let cpu = read("/proc/stat")?;
    let kib = |name: &str| {
        let line = memory.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
            * 1024
    };
    let load: Vec<&str> = load.split_whitespace().collect();
    let processes = load.get(3).and_then(|running| running.split_once('/')?.1.parse().ok());
    // user nice system idle iowait irq softirq steal (proc_stat(5)); guest time is in user's.
    let ticks: Vec<u64> = cpu
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .take(8)
        .filter_map(|field| field.parse().ok())
        .collect();
    let (received_bytes, sent_bytes) = traffic(&read("/proc/net/dev")?);
    let idle = ticks.iter().skip(3).take(2).sum::<u64>();
    let hertz =
        sysconf(SysconfVar::CLK_TCK).ok().flatten().map_or(100, |hertz| hertz.max(1) as u64);
    let work = crate::account::work_disk();
    Ok(Stats {
        memory_total_bytes: kib("MemTotal"),
        memory_available_bytes: kib("MemAvailable"),
        load1: load.first().and_then(|load| load.parse().ok()).unwrap_or(0.0),
        processes: processes.unwrap_or(0),
        cpu_busy_ms: (ticks.iter().sum::<u64>() - idle) * 1000 / hertz,
        cpu_idle_ms: idle * 1000 / hertz,
        disks: ["/", work.as_deref().unwrap_or("/root")].into_iter().filter_map(disk).collect(),
        received_bytes,
        sent_bytes,
    })
}

/// Adds up what came in and went out (proc_pid_net(5): fields 1 and 9 after the name).
fn traffic(table: &str) -> (u64, u64) {
    let counts = table.lines().filter_map(|line| {
        let (name, rest) = line.split_once(':')?;
        let fields: Vec<u64> = rest.split_whitespace().filter_map(|f| f.parse().ok()).collect();
        (name.trim() != "lo").then_some((*fields.first()?, *fields.get(8)?))
    });
    counts.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read '{path}'"))
}

fn disk(path: &str) -> Option<Disk> {
    let disk = statvfs(path).ok()?;
    let block = disk.fragment_size();
    Some(Disk {
        path: path.to_owned(),
        total_bytes: disk.blocks() * block,
        free_bytes: disk.blocks_free() * block,
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_machine_has_memory_and_a_disk() {
        let stats = super::now().unwrap();
        assert!(stats.memory_total_bytes > stats.memory_available_bytes);
        assert!(stats.memory_available_bytes > 0 && stats.processes > 0 && stats.cpu_idle_ms > 0);
        assert!(stats.disks[0].total_bytes >= stats.disks[0].free_bytes);
    }

    #[test]
    fn traffic_is_of_all_interfaces_but_the_loopback() {
        let table = "Inter-| Receive | Transmit\n face |bytes packets|bytes packets\n\
            \x20   lo: 7 1 0 0 0 0 0 0 7 1 0 0 0 0 0 0\n\
            \x20 eth0:100 2 0 0 0 0 0 0 200 3 0 0 0 0 0 0\n\
            docker0: 1 2 0 0 0 0 0 0 2 3 0 0 0 0 0 0\n";
        assert_eq!(super::traffic(table), (101, 202));
        assert_eq!(super::traffic(""), (0, 0));
    }
}
