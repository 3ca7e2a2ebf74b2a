//! Starts and drives a VMM.
//!
//! A [`Machine`] knows how its VMM is called and how one talks to it; whoever holds the VM's lock
//! starts the process, keeps it, and ends it.

mod api;
mod ask;
mod cgroup;
mod firecracker;
mod kvm;
mod plan;
mod qemu;
mod qmp;
mod versions;
mod vmm;

pub use api::BUSY;
pub use ask::ask;
pub use cgroup::{forget, groups, remove_group, strays};
pub use firecracker::{Firecracker, complaint};
pub use kvm::{Kvm, group, join_hint, kvm};
pub use plan::{Disk, Plan};
pub use qemu::{Qemu, number, streams};
pub use versions::{Answer, Fault, GET_FIRECRACKER, Version};
pub use vmm::{Accelerator, Event, Launch, Machine, OUTPUT, Way};

use banger_config::Binaries;
use banger_doc::{Result, Vmm};
use std::fs::File;

/// Makes the pipe for what a VMM prints and logs; returns its end for reading, which never waits.
pub fn output() -> Result<File> {
    firecracker::named_pipe(OUTPUT)
}

/// Chooses the VMM for a plan and prepares it; returns also what the user is to know of the choice.
pub fn machine(
    wanted: Vmm,
    plan: Plan,
    binaries: &Binaries,
) -> Result<(Box<dyn Machine>, Vec<String>)> {
    let mut notes = Vec::new();
    match (wanted, kvm()) {
        (Vmm::Firecracker, found) => {
            if found == Kvm::NotReal {
                notes.push(
                    "KVM here is an imitation that runs only kernels made for it: an ordinary one \
                     stops early ('--vmm qemu' runs it in software)"
                        .to_owned(),
                );
            }
            return Ok((Box::new(Firecracker::new(plan, binaries)?), notes));
        }
        (Vmm::Auto, Kvm::Works) => match firecracker::usable(&plan, binaries) {
            Ok(()) => return Ok((Box::new(Firecracker::new(plan, binaries)?), notes)),
            Err(error) => {
                notes.push(format!("QEMU instead of Firecracker: {}", error.chain()));
            }
        },
        _ => {}
    }
    let qemu = Qemu::new(plan, binaries)?;
    notes.extend(qemu.unjailed());
    Ok((Box::new(qemu), notes))
}
