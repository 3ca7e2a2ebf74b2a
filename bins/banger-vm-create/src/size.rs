//! How large a VM becomes: what is asked, else configured, else fitting for this host.

use crate::Args;
use banger_config::{Config, HostDefaults, Size, limits};
use banger_doc::{HostPorts, Result, Spec};

pub(crate) fn spec(args: &Args, config: &Config) -> Result<Spec> {
    let host = HostDefaults::of_this_host();
    let defaults = &config.vm_defaults;
    let memory = args.memory.or(defaults.memory);
    Ok(Spec {
        vcpu: limits::vcpu(args.vcpu.or(defaults.vcpu).unwrap_or(host.vcpu))?,
        memory_mib: memory.map_or_else(|| limits::memory_mib(host.memory_mib), limits::memory)?,
        overlay_bytes: disk(
            args.overlay_size.or(defaults.overlay),
            host.overlay_bytes,
            "--overlay-size",
        )?,
        disk_bytes: disk(args.disk_size.or(defaults.disk), host.disk_bytes, "--disk-size")?,
        user: args.user.clone(),
        net: args.net.or(config.net).unwrap_or_default(),
        vmm: args.vmm.or(config.vmm).unwrap_or_default(),
        init: args.init.unwrap_or_default(),
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
    limits::disk_bytes(asked.map_or(default, Size::bytes), option)
}
