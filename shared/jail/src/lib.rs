//! What a program gets to see of the host when a guest may have taken it over.
//!
//! A VMM runs a guest, and tools such as `e2fsck` and `git` parse what a guest wrote: each is a program
//! that a guest could break. [`Jail::enter`] puts such a process into a root of its own; [`Tool`] runs
//! a tool of the host in one, within bounds.

mod confine;
mod elf;
mod jail;
mod mapped;
mod seccomp;
mod tool;

pub use elf::{is_dynamic, is_elf};
pub use jail::{
    End, JAIL, Jail, Seen, User, libraries, loaded, own_user, plain, program, weak_root,
};
pub use tool::{Limits, Tool, weaker};
