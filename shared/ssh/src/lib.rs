//! Makes ssh trust a VM and a VM trust banger.
//!
//! Both keys are made on the host: banger's own once, a VM's host key when the VM is made. The guest is
//! given the one to let in and the other to show, so from the first connection on neither side has to
//! take anybody's word.

mod guest;
mod keys;
mod login;
mod reach;
mod words;

pub use guest::{GuestSide, guest_side};
pub use keys::{ensure_user_key, host_name, known_host, make_host_key, user_key};
pub use login::{Login, is_noted, note_login};
pub use reach::{LIMIT, late, reach, reach_until};
pub use words::{
    FIRMLY, KNOWN_TERMINALS, PATTERN, Programs, STAND_IN, is_known_terminal, ssh_words,
};

/// What follows a VM's name where a host name is wanted: `ssh web.vm`.
pub const SUFFIX: &str = ".vm";
