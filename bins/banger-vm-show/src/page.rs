//! A VM for people.

use banger_cli::{Page, human_bytes};
use banger_doc::{Booted, Running, Status, View};
use banger_state::place;
use std::{fs, net::SocketAddr, os::unix::fs::MetadataExt, path::Path};

pub(crate) fn words(view: &View) -> String {
    let mut page = Page::default();
    let mut line = |key: &'static str, value: String| page.row(key, value);
    line("name", view.vm.name.to_string());
    line("status", view.status.to_string());
    line("image", view.vm.image.to_string());
    line("kernel", view.vm.kernel.to_string());
    line("vcpu", view.spec.vcpu.to_string());
    line("memory", human_bytes(view.spec.memory_mib << 20));
    if let Some(user) = &view.spec.user {
        line("user", user.clone());
    }
    let used = |disk: &str| human_bytes(allocated(&Path::new(&view.folder).join(disk)));
    let disk = human_bytes(view.spec.disk_bytes);
    line("disk", format!("{disk} at home, {} used", used(place::VM_WORK)));
    let overlay = human_bytes(view.spec.overlay_bytes);
    line("overlay", format!("{overlay}, {} used", used(place::VM_OVERLAY)));
    line("network", format!("{}, {}", view.spec.net, view.vm.mac));
    for publish in &view.spec.ports.publish {
        line("publishes", publish.to_string());
    }
    if view.spec.ports.auto {
        line("ports", "auto".into());
    }
    line("folder", view.folder.clone());
    line("id", view.vm.id.clone());
    if let Some(running) = &view.running {
        running_lines(running, &mut line);
    }
    if let Some(exit) = &view.last_exit {
        line("last run", exit.message.clone());
        line("disks", if exit.disks_clean { "clean" } else { "not left clean" }.into());
        if view.status == Status::Error {
            for text in &exit.console_tail {
                line("console", text.clone());
            }
        }
    } else if view.status == Status::Error {
        line("last run", "its supervisor was killed".into());
    }
    page.words()
}

/// What a sparse file takes.
fn allocated(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |meta| meta.blocks() * 512)
}

fn running_lines(running: &Running, line: &mut impl FnMut(&'static str, String)) {
    line("machine", format!("{} ({})", running.vmm, running.accelerator));
    for address in &running.addresses {
        line("address", address.clone());
    }
    if let Some(loopback) = running.ports.loopback {
        line("on this host", loopback.to_string());
    }
    for forward in &running.forwards {
        let place = SocketAddr::new(forward.address, forward.host_port);
        let why = forward.problem.iter().map(|why| format!(", not there: {why}"));
        let why = why.chain(forward.note.iter().map(|why| format!(", since {why}")));
        let why: String = why.collect();
        line("port", format!("{place} leads to {}{why}", forward.guest_port));
    }
    line("supervisor", format!("pid {}", running.supervisor.pid));
    if let Some(vmm) = running.vmm_process {
        line("vmm", format!("pid {}", vmm.pid));
    }
    let after = |ms: u64| format!("after {:.1} s", ms as f64 / 1000.0);
    if let Some(ms) = running.agent_ms {
        line("agent", after(ms));
        let booted = match (running.booted, running.booted_ms.map(after)) {
            (Booted::Yes, Some(when)) => when,
            (Booted::Degraded, Some(when)) => format!("{when}, degraded"),
            (Booted::Unknown, _) => "nobody can tell".into(),
            _ => format!("not yet{}", running.waits_in_words()),
        };
        line("booted", booted);
    }
    for note in &running.notes {
        line("note", note.clone());
    }
}
