//! What every VMM can do: how it is started, what it tells, what it can be told.

use banger_channel::bridge::Device;
use banger_doc::{Channel, Desire, Result, Vmm};
use banger_jail::Jail;
use nix::unistd::Uid;
use std::{
    fmt,
    os::fd::{BorrowedFd, OwnedFd},
    process::Command,
};

/// Where what a VMM prints comes out, a pipe in the VM's folder: see [`crate::output`].
pub const OUTPUT: &str = "run/output";

/// What runs the guest's instructions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Accelerator {
    /// The processor itself.
    Kvm,
    /// QEMU's translator, which is much slower.
    Tcg,
}

impl fmt::Display for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        })
    }
}

/// How to start a VMM.
#[derive(Debug)]
pub struct Launch {
    /// The ways to start it, the first of which that works is taken: a later one is for a host that
    /// does not allow the jail of the one before.
    pub ways: Vec<Way>,
    /// Descriptors that the command lines name by number; the VMM has to inherit them, and nobody
    /// else.
    pub inherit: Vec<OwnedFd>,
    /// The host's end of the socket behind the guest's interface, where there is one.
    pub carried: Option<OwnedFd>,
    /// What becomes its standard output, if that is the console; a log of the caller's otherwise.
    pub stdout: Option<OwnedFd>,
}

/// One way to start a VMM.
#[derive(Debug)]
pub struct Way {
    /// The command, without its standard streams.
    pub command: Command,
    /// What it is put into just before it begins.
    pub jail: Option<Jail>,
    /// The same for a host on which no tap can be had after all; none if the VMM needs one.
    pub without_tap: Option<(Command, Option<Jail>)>,
    /// The user it becomes, who therefore has to own its tap; none, it stays the caller's.
    pub user: Option<Uid>,
}

/// What a VMM tells.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// The guest runs.
    Launched,
    /// The guest is held still.
    Paused,
    /// The guest runs again.
    Resumed,
    /// The guest shut itself down.
    GuestShutdown,
    /// The guest restarted itself; the VMM ends instead.
    GuestReset,
    /// The guest's kernel gave up.
    GuestPanic,
    /// Why it did not do what it was told.
    Refused(Desire, String),
    /// Words for the log.
    Note(String),
}

/// A VMM: how it is started, what it tells, what it can be told.
pub trait Machine: fmt::Debug {
    /// Which VMM it is; never `auto`.
    fn vmm(&self) -> Vmm;

    /// What runs the guest's instructions.
    fn accelerator(&self) -> Accelerator;

    /// Returns how to start it. To be called once.
    fn launch(&mut self) -> Result<Launch>;

    /// Says that the VMM's process is there: what talks to it may begin. To be called once, after
    /// [`Machine::launch`]; until then no thread is started, since the caller copies its process.
    fn started(&mut self) -> Result<()> {
        Ok(())
    }

    /// Says which device the guest reaches the host by; its document has to say the same.
    fn guest_channel(&self) -> Channel;

    /// Returns the host's end of that device. To be called once, after [`Machine::launch`].
    fn channel(&mut self) -> Device;

    /// Returns where the guest's serial console comes out.
    fn console(&self) -> BorrowedFd<'_>;

    /// Returns what is readable when the VMM has something to tell.
    fn control(&self) -> BorrowedFd<'_>;

    /// Returns where the VMM's own measurements come out, one JSON object a line, if it has any.
    fn metrics(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Reads what the VMM tells, without waiting; `Ok(None)` when it will tell nothing more. An
    /// error means that the guest cannot run, and says why.
    fn events(&mut self) -> Result<Option<Vec<Event>>>;

    /// Asks it to hold the guest still; [`Event::Paused`] answers. An error says why this VMM must not.
    fn pause(&mut self) -> Result<()>;

    /// Asks it to let the guest run; [`Event::Resumed`] answers.
    fn resume(&mut self) -> Result<()>;

    /// Presses the machine's power button, for a guest whose agent does not answer; says whether the
    /// machine has one.
    fn press_power(&mut self) -> Result<bool>;
}
