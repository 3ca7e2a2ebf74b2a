//! The configuration: readable, and where each value in force comes from.

use crate::{fail, info, pass, warn};
use banger_config::{Config, DEFAULT_KERNEL, HostDefaults, PULLED_KEEP_DAYS, Size};
use banger_doc::Check;
use std::fs;

pub(crate) fn checks() -> Vec<Check> {
    let place = Config::location().map_or_else(|| "nowhere".into(), |p| p.display().to_string());
    let config = match Config::load() {
        Ok(config) => config,
        Err(error) => {
            let remedy = error.hint_text().unwrap_or("check its owner and mode").to_owned();
            return vec![fail("config", error.chain(), remedy)];
        }
    };
    let there = Config::location().is_some_and(|path| path.exists());
    let message = if there { format!("'{place}' is read") } else { format!("none at '{place}'") };
    let mut checks = vec![pass("config", message)];
    for (key, path) in [
        ("binaries.qemu", &config.binaries.qemu),
        ("binaries.firecracker", &config.binaries.firecracker),
        ("binaries.jailer", &config.binaries.jailer),
        ("binaries.pasta", &config.binaries.pasta),
        ("binaries.ssh", &config.binaries.ssh),
    ] {
        let Some(path) = path else { continue };
        checks.push(if fs::metadata(path).is_ok_and(|meta| meta.is_file()) {
            pass(key, format!("{} (config)", path.display()))
        } else {
            let message = format!("'{}' is not there", path.display());
            fail(key, message, format!("mend {key} in '{place}'"))
        });
    }
    for entry in &config.file_sync {
        let path = entry.host.strip_prefix("~/").map_or_else(
            || entry.host.clone(),
            |rest| format!("{}/{rest}", std::env::var("HOME").unwrap_or_default()),
        );
        if fs::symlink_metadata(&path).is_err() {
            checks.push(warn(
                "file_sync",
                format!("'{path}' is not there and is skipped"),
                format!("mend file_sync in '{place}'"),
            ));
        }
    }
    checks
}

/// Returns the values in force; none if the configuration cannot be read.
pub(crate) fn settings() -> Vec<Check> {
    let Ok(config) = Config::load() else { return Vec::new() };
    let host = HostDefaults::of_this_host();
    let sizes = &config.vm_defaults;
    let from =
        |chosen: bool, otherwise: &str| if chosen { "config".into() } else { otherwise.to_owned() };
    let mut settings = vec![
        info(
            "default-image",
            format!("{} ({})", config.image(), from(config.default_image.is_some(), "built in")),
        ),
        info(
            "default-kernel",
            format!(
                "{} ({})",
                config.default_kernel.as_ref().map_or(DEFAULT_KERNEL, |name| name.as_str()),
                from(config.default_kernel.is_some(), "built in")
            ),
        ),
        info(
            "vcpu",
            format!(
                "{} ({})",
                sizes.vcpu.unwrap_or(host.vcpu),
                from(sizes.vcpu.is_some(), "a quarter of this host's")
            ),
        ),
        info(
            "memory",
            format!(
                "{} MiB ({})",
                sizes.memory.map_or(host.memory_mib, Size::mib),
                from(sizes.memory.is_some(), "an eighth of this host's")
            ),
        ),
        info(
            "disk",
            format!(
                "{} ({})",
                sizes.disk.unwrap_or(Size::of(host.disk_bytes)),
                from(sizes.disk.is_some(), "built in")
            ),
        ),
        info(
            "overlay",
            format!(
                "{} ({})",
                sizes.overlay.unwrap_or(Size::of(host.overlay_bytes)),
                from(sizes.overlay.is_some(), "built in")
            ),
        ),
        info(
            "vmm",
            format!(
                "{} ({})",
                config.vmm.unwrap_or_default(),
                from(config.vmm.is_some(), "built in")
            ),
        ),
        info(
            "net",
            format!(
                "{} ({})",
                config.net.unwrap_or_default(),
                from(config.net.is_some(), "built in")
            ),
        ),
        info(
            "exports",
            format!(
                "{} days ({}), {} ({})",
                config.exports.age().as_secs() / 86400,
                from(config.exports.keep_days.is_some(), "built in"),
                Size::of(config.exports.room()),
                from(config.exports.bytes.is_some(), "built in")
            ),
        ),
    ];
    let listed = |items: &[String]| {
        if items.is_empty() { "none".to_owned() } else { items.join(", ") }
    };
    let paths: Vec<String> =
        config.catalogs.iter().map(|path| path.display().to_string()).collect();
    let synced: Vec<String> = config.file_sync.iter().map(|entry| entry.host.clone()).collect();
    let trusted: Vec<String> =
        config.trusted_git_dirs.iter().map(|path| path.display().to_string()).collect();
    for (name, items) in [
        ("trusted-git-dirs", &trusted),
        ("workspace-include", &config.workspace_include),
        ("insecure-registries", &config.insecure_registries),
        ("catalogs", &paths),
        ("file-sync", &synced),
    ] {
        let source = from(!items.is_empty(), "built in");
        settings.push(info(name, format!("{} ({source})", listed(items))));
    }
    let days = config.pulled_keep_days;
    let source = from(days.is_some(), "built in");
    let days = days.unwrap_or(PULLED_KEEP_DAYS);
    settings.push(info("pulled-keep-days", format!("{days} ({source})")));
    if let Some(user) = &config.run_as {
        settings.push(info("run-as", format!("{user} (config)")));
    }
    settings
}
