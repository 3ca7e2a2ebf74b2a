//! `banger.guest/1`: what a guest is told at boot.

use crate::{Document, ImageConfig, Init};
use serde::{Deserialize, Serialize};

/// `banger.guest/1`, `/banger/guest.json` in the initramfs and `/run/banger/guest.json` afterwards.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Guest {
    /// Host name.
    pub hostname: String,
    /// 32 hexadecimal digits for `/etc/machine-id` (machine-id(5)).
    pub machine_id: String,
    /// Block devices by role.
    pub disks: Disks,
    /// How the host talks to the agent.
    pub channel: Channel,
    /// Network interfaces, in order.
    #[serde(default)]
    pub interfaces: Vec<Interface>,
    /// Name servers for `/etc/resolv.conf`.
    #[serde(default)]
    pub dns: Vec<String>,
    /// What the image says of how to run it.
    #[serde(default)]
    pub config: ImageConfig,
    /// Whether an image without an init runs its entrypoint.
    #[serde(default)]
    pub run_entrypoint: bool,
    /// What is to run as the first program.
    #[serde(default, skip_serializing_if = "Init::is_auto")]
    pub init: Init,
    /// Lines for `authorized_keys` of root and of the guest's user.
    #[serde(default)]
    pub authorized_keys: Vec<String>,
    /// Files to write before the image's init runs; contents lie in the same archive.
    #[serde(default)]
    pub files: Vec<GuestFile>,
    /// The host's time when the document was written, in milliseconds since 1970.
    pub clock_unix_ms: u64,
}

impl Document for Guest {
    const SCHEMA: &'static str = "banger.guest/1";
}

/// How the host talks to the agent: the one device for it that the guest has. Its VMM decides.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Channel {
    /// A virtio socket (vsock(7)), Firecracker's.
    Vsock,
    /// A virtio-serial port, QEMU's.
    VirtioSerial,
}

/// Block devices by role. They are attached in this order on every VMM.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Disks {
    /// The image, read-only.
    pub base: String,
    /// The upper layer of the root.
    pub overlay: String,
    /// The home of the guest's user, or what stands in for it.
    pub work: String,
    /// `/lib/modules/RELEASE`, read-only, if the kernel has modules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modules: Option<String>,
}

/// A network interface, found by its hardware address.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Interface {
    /// Hardware address.
    pub mac: String,
    /// Addresses with prefix length.
    pub addresses: Vec<String>,
    /// Default gateways, at most one per family.
    #[serde(default)]
    pub gateways: Vec<String>,
    /// Largest packet, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
}

/// A file to write into the guest before its init runs.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct GuestFile {
    /// Absolute path in the guest; root's. Or `~/` and a path below the home of the guest's user, whose it
    /// then is.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Path of the contents inside the archive.
    pub content: String,
}
