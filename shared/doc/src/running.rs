//! `banger.wanted/1` and `banger.running/1`: what is asked of a supervisor, what it answers.

use crate::{Document, Error, Forward, HostPorts, Kind, Report, Result, Vmm};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{fmt, str::FromStr, time::Duration};

/// What a note of the guest's boot begins with; any other is about the host.
pub const IN_GUEST: &str = "in the guest: ";

/// How long a guest may take to come up, unless told.
const NATIVE_LIMIT: Duration = Duration::from_secs(90);
const EMULATED_LIMIT: Duration = Duration::from_mins(5);

/// What is asked of a VM.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Desire {
    /// Run.
    Running,
    /// Be held still.
    Paused,
    /// Shut down in order; insist after `grace_ms`.
    Stopped,
    /// End at once.
    Killed,
}

/// `banger.wanted/1`, kept as `vms/NAME/wanted.json`: replaced whole by whoever asks, watched by the
/// supervisor.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Wanted {
    /// What is asked.
    pub desire: Desire,
    /// How long an orderly stop may take before it is forced, in milliseconds.
    #[serde(default = "default_grace_ms")]
    pub grace_ms: u64,
    /// How long the program that starts it waits for the guest, in milliseconds; absent: 90 s, emulated 5
    /// minutes. What has to be there before the guest is waited for as long, and never shorter than that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_ms: Option<u64>,
    /// Whether a start is to show the kernel's whole boot on the console.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub console: bool,
    /// Which ports of the host are to lead into the guest; absent: as the spec says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<HostPorts>,
    /// Fields of a newer banger, kept as they are.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

fn default_grace_ms() -> u64 {
    30_000
}

impl Wanted {
    /// Asks for `desire`, with the usual grace.
    pub fn new(desire: Desire) -> Self {
        Self {
            desire,
            grace_ms: default_grace_ms(),
            limit_ms: None,
            console: false,
            ports: None,
            extra: Map::new(),
        }
    }

    /// How long a start may take, of a guest that is emulated or not.
    pub fn limit(&self, emulated: bool) -> Duration {
        let usual = if emulated { EMULATED_LIMIT } else { NATIVE_LIMIT };
        self.limit_ms.map_or(usual, Duration::from_millis)
    }
}

impl Document for Wanted {
    const SCHEMA: &'static str = "banger.wanted/1";
}

/// How far a live VM has come.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The supervisor makes disks and starts the VMM.
    Preparing,
    /// The VMM runs; the agent has not answered yet.
    Booting,
    /// The agent answers; `booted` says how far the image's init is.
    Ready,
    /// Held still.
    Paused,
    /// On its way down.
    Stopping,
}

/// How far the image's init is with what it does before logins.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Booted {
    /// Past it.
    Yes,
    /// Past it, but something of it failed; the notes say what.
    Degraded,
    /// Not past it yet.
    #[default]
    No,
    /// Nobody can tell: banger does not know this init.
    Unknown,
}

impl Booted {
    /// The word in documents.
    pub fn word(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::Degraded => "degraded",
            Self::No => "no",
            Self::Unknown => "unknown",
        }
    }

    /// Says whether there is nothing left to wait for.
    pub fn is_over(self) -> bool {
        self != Self::No
    }
}

/// How far a start waits.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Mark {
    /// The agent answers.
    Agent,
    /// The image's init is past what it does before logins.
    #[default]
    Booted,
}

impl Mark {
    /// Returns the option that asks a start for this one, unless it would wait for it anyway.
    pub fn option(self) -> Option<String> {
        (self != Self::default()).then(|| format!("--wait={self}"))
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Agent => "agent",
            Self::Booted => "booted",
        })
    }
}

impl FromStr for Mark {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "agent" => Ok(Self::Agent),
            "booted" => Ok(Self::Booted),
            _ => Err(Error::usage(format!("'{text}' is none of agent, booted"))),
        }
    }
}

/// A process, told apart from a later one of the same number by its start time.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Process {
    /// Its number, in the PID namespace of the supervisor.
    pub pid: u32,
    /// Field 22 of `/proc/PID/stat` (proc_pid_stat(5)), in clock ticks after boot.
    pub start_ticks: u64,
}

/// `banger.running/1`, kept as `vms/NAME/running.json`: written by the supervisor, trusted only
/// while the VM's lock is held.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Running {
    /// How far it has come.
    pub phase: Phase,
    /// The supervisor.
    pub supervisor: Process,
    /// PID 1 of the namespace that everything of this VM runs in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stub: Option<Process>,
    /// The VMM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vmm_process: Option<Process>,
    /// Which VMM it is; never `auto`.
    pub vmm: Vmm,
    /// What runs the guest's instructions: `kvm` or `tcg`.
    pub accelerator: String,
    /// When the supervisor began, in milliseconds since 1970.
    pub started_unix_ms: u64,
    /// From that to the VMM running the guest, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launched_ms: Option<u64>,
    /// From that to the agent's first answer, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_ms: Option<u64>,
    /// From that to the image's init being past what it does before logins, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub booted_ms: Option<u64>,
    /// Whether it is.
    #[serde(default)]
    pub booted: Booted,
    /// While it is not: what it last said it waits for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waits_for: Vec<String>,
    /// Addresses of the guest, with prefix length.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Ports of the host that lead into the guest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forwards: Vec<Forward>,
    /// What `wanted.json` or the spec asked of them when this was written.
    #[serde(default, skip_serializing_if = "HostPorts::is_empty")]
    pub ports: HostPorts,
    /// What the user is to know: software emulation, a weaker network, a jail that is not there, what
    /// went wrong in the guest's boot; the latter begins with `in the guest: `.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What it was asked last that it did not do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refused>,
}

/// Something that a running VM was asked and did not do.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Refused {
    /// What was asked.
    pub desire: Desire,
    /// When it was refused, in milliseconds since 1970.
    pub refused_unix_ms: u64,
    /// What sort of failure it was.
    pub kind: Kind,
    /// Why, in words.
    pub message: String,
    /// What to type next, where there is something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Refused {
    /// Records that something was not done.
    pub fn new(desire: Desire, why: &Error, refused_unix_ms: u64) -> Self {
        let Report { kind, message, hint } = why.report();
        Self { desire, refused_unix_ms, kind, message, hint }
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        Report { kind: refused.kind, message: refused.message, hint: refused.hint }.into()
    }
}

impl Running {
    /// Says whether the VM has come so far, as far as anybody can tell.
    pub fn has_reached(&self, mark: Mark) -> bool {
        let answers = self.phase == Phase::Ready || self.agent_ms.is_some();
        answers && (mark == Mark::Agent || self.booted.is_over())
    }

    /// Returns what the supervisor said when it was last asked for this, if it did not do it.
    pub fn refused_for(&self, desire: Desire) -> Option<&Refused> {
        self.refused.as_ref().filter(|refused| refused.desire == desire)
    }

    /// What the boot waits for, as the end of a sentence; nothing if that is not known.
    pub fn waits_in_words(&self) -> String {
        if self.waits_for.is_empty() {
            return String::new();
        }
        let names: Vec<String> = self.waits_for.iter().map(|name| format!("'{name}'")).collect();
        format!(": it waits for {}", names.join(", "))
    }
}

impl Document for Running {
    const SCHEMA: &'static str = "banger.running/1";
}
