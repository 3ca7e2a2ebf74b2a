//! `banger.vm/1`, `banger.spec/1`, `banger.view/1`: what a VM is, how large, how it stands.

use crate::{Document, Exit, HostPorts, Name, Running, vmm::Vmm, words::words};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fmt;

/// `banger.vm/1`, kept as `vms/NAME/vm.json` and never rewritten.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Vm {
    /// Its name.
    pub name: Name,
    /// 32 hexadecimal digits that no other VM ever has; the guest's machine-id too.
    pub id: String,
    /// The image its base disk is of.
    pub image: Name,
    /// The kernel it boots.
    pub kernel: Name,
    /// Hardware address of its network interface.
    pub mac: String,
    /// When it was created, in seconds since 1970.
    pub created_unix_s: u64,
}

impl Document for Vm {
    const SCHEMA: &'static str = "banger.vm/1";
}

/// How a VM reaches the network.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetMode {
    /// Outbound connections work, without root.
    #[default]
    User,
    /// No interface but loopback.
    None,
}

/// What runs as a guest's first program.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Init {
    /// The image's init, unless the image says what else to run.
    #[default]
    Auto,
    /// The image's init, whatever else the image says.
    Image,
    /// banger's own, which starts the image's entrypoint.
    Minimal,
}

impl Init {
    /// Says whether the image decides.
    pub fn is_auto(&self) -> bool {
        *self == Self::Auto
    }
}

/// `banger.spec/1`, kept as `vms/NAME/spec.json` and replaced whole.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Spec {
    /// Virtual processors, 1 to 32.
    pub vcpu: u32,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// Size of the overlay disk, in bytes; it holds all changes to the image's files.
    pub overlay_bytes: u64,
    /// Size of the work disk, in bytes; it is the home of the guest's user.
    pub disk_bytes: u64,
    /// The guest's user, `user`, `uid`, `user:group` or `uid:gid`; the image's if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// How it reaches the network.
    #[serde(default)]
    pub net: NetMode,
    /// The program that plays the machine.
    #[serde(default)]
    pub vmm: Vmm,
    /// What runs as its first program.
    #[serde(default, skip_serializing_if = "Init::is_auto")]
    pub init: Init,
    /// Whether the guest reaches services on the host's loopback, under its gateway's address.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_host: bool,
    /// Which ports of the host lead into the guest.
    #[serde(default, skip_serializing_if = "HostPorts::is_empty")]
    pub ports: HostPorts,
    /// Fields of a newer banger, kept as they are.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Document for Spec {
    const SCHEMA: &'static str = "banger.spec/1";
}

/// Reads whom a guest belongs to, as far as that can be told without its lists of users.
pub fn parse_user(text: &str) -> crate::Result<String> {
    let is_plain = |c: char| !c.is_whitespace() && !c.is_control();
    let has_user = !text.is_empty() && !text.starts_with(':');
    if has_user && text.len() <= 256 && text.chars().all(is_plain) && text.matches(':').count() <= 1
    {
        return Ok(text.to_owned());
    }
    Err(crate::Error::usage(format!(
        "'{}' is none of user, uid, user:group, uid:gid",
        text.escape_debug()
    )))
}

/// How a VM stands, computed from its lock and its documents, never stored.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Never started.
    Created,
    /// Its supervisor lives, its agent has not answered yet.
    Starting,
    /// Its agent answers.
    Running,
    /// Held still by `vm pause`.
    Paused,
    /// On its way down.
    Stopping,
    /// Ended as asked, or by the guest itself.
    Stopped,
    /// Ended otherwise; `last_exit` says how.
    Error,
}

impl Status {
    /// Says whether a supervisor holds the VM's lock.
    pub fn is_live(self) -> bool {
        matches!(self, Self::Starting | Self::Running | Self::Paused | Self::Stopping)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Error => "error",
        })
    }
}

/// `banger.view/1`: a VM as shown: its documents together with its computed status.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct View {
    /// How it stands now.
    pub status: Status,
    /// What it is.
    #[serde(flatten)]
    pub vm: Vm,
    /// How large it is.
    pub spec: Spec,
    /// Absolute path of its folder.
    pub folder: String,
    /// What its supervisor says, while one lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<Running>,
    /// How its last run ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_exit: Option<Exit>,
}

impl Document for View {
    const SCHEMA: &'static str = "banger.view/1";
}

words!(NetMode: "user" => NetMode::User, "none" => NetMode::None);
words!(Init: "auto" => Init::Auto, "image" => Init::Image, "minimal" => Init::Minimal);
