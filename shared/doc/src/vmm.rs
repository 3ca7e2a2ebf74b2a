//! The programs that play a machine.

use crate::words::words;
use serde::{Deserialize, Serialize};

/// The program that plays the machine.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Vmm {
    /// Firecracker where KVM works, else QEMU.
    #[default]
    Auto,
    /// Firecracker; needs KVM.
    Firecracker,
    /// QEMU, with KVM where it works, else in software.
    Qemu,
}

words!(Vmm: "auto" => Vmm::Auto, "firecracker" => Vmm::Firecracker, "qemu" => Vmm::Qemu);
