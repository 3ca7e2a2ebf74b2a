//! How large a VM becomes: what is asked, else configured, else fitting for this host.

use crate::Args;
use banger_config::{Config, HostDefaults, Size};
use banger_doc::{Error, HostPorts, Result, Spec};
use std::fs;

/// A guest with less does not get through its boot.
const LEAST_MEMORY_MIB: u64 = 64;
const LEAST_DISK: u64 = 16 << 20;
/// What ext4 with 32-bit block numbers holds.
const MOST_DISK: u64 = 8 << 40;

pub(crate) fn spec(args: &Args, config: &Config) -> Result<Spec> {
    let host = HostDefaults::of_this_host();
    let defaults = &config.vm_defaults;
    let vcpu = args.vcpu.or(defaults.vcpu).unwrap_or(host.vcpu);
    if !(1..=32).contains(&vcpu) {
        return Err(Error::usage(format!("a VM cannot have {vcpu} processors"))
            .hint("'--vcpu' takes 1 to 32"));
    }
    let memory_mib = args.memory.or(defaults.memory).map_or(host.memory_mib, Size::mib);
    let most = host_memory_mib().unwrap_or(u64::MAX);
    if !(LEAST_MEMORY_MIB..=most).contains(&memory_mib) {
        return Err(Error::usage(format!("a VM cannot have {memory_mib} MiB of memory here"))
            .hint(format!("'--memory' takes {LEAST_MEMORY_MIB}M to {most}M, what this host has; a number alone is bytes")));
    }
    Ok(Spec {
        vcpu,
        memory_mib,
        overlay_bytes: disk(
            args.overlay_size.or(defaults.overlay),
            host.overlay_bytes,
            "--overlay-size",
        )?,
        disk_bytes: disk(args.disk_size.or(defaults.disk), host.disk_bytes, "--disk-size")?,
        net: args.net.or(config.net).unwrap_or_default(),
        vmm: args.vmm.or(config.vmm).unwrap_or_default(),
        allow_host: args.allow_host,
        ports: ports(args)?,
        extra: serde_json::Map::new(),
    })
}

/// Returns the ports that are asked for; the loopback address is another matter.
fn ports(args: &Args) -> Result<HostPorts> {
    let mut publish = args.publish.clone();
    publish.sort();
    publish.dedup();
    let ports = HostPorts { publish, auto: args.ports.unwrap_or(false), loopback: None };
    ports.check()?;
    Ok(ports)
}

fn disk(asked: Option<Size>, default: u64, option: &str) -> Result<u64> {
    // Whole blocks, whatever was asked.
    let bytes = asked.map_or(default, |size| size.bytes().next_multiple_of(4096));
    if (LEAST_DISK..=MOST_DISK).contains(&bytes) {
        return Ok(bytes);
    }
    Err(Error::usage(format!("a disk cannot have {bytes} bytes")).hint(format!(
        "'{option}' takes {} to {}; a number alone is bytes",
        Size::of(LEAST_DISK),
        Size::of(MOST_DISK)
    )))
}

fn host_memory_mib() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib / 1024)
}
