//! The user's terminal.

use banger_channel::exec::Window;
use banger_doc::{Context, Result};
use nix::{
    libc,
    sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr},
};
use std::io::{IsTerminal, stdin};

mod size {
    #![allow(missing_docs, reason = "the macro's function")]
    nix::ioctl_read_bad!(window_size, nix::libc::TIOCGWINSZ, nix::libc::winsize);
}

/// Returns the size of the terminal, or the usual one if there is none.
pub(crate) fn window() -> Window {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    for fd in [libc::STDOUT_FILENO, libc::STDIN_FILENO, libc::STDERR_FILENO] {
        // SAFETY: the request writes one `winsize`, which lives until the call returns.
        let known = unsafe { size::window_size(fd, &raw mut size) }.is_ok();
        if known && size.ws_row > 0 && size.ws_col > 0 {
            return Window { rows: size.ws_row, cols: size.ws_col };
        }
    }
    Window { rows: 24, cols: 80 }
}

/// A terminal that passes every key on; as it was again when dropped.
#[derive(Debug)]
pub(crate) struct Raw(Option<Termios>);

impl Raw {
    /// Changes the terminal at stdin, if there is one.
    pub(crate) fn enter() -> Result<Self> {
        if !stdin().is_terminal() {
            return Ok(Self(None));
        }
        let before = tcgetattr(stdin()).context("cannot read the terminal's settings")?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(stdin(), SetArg::TCSADRAIN, &raw).context("cannot change the terminal")?;
        Ok(Self(Some(before)))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(stdin(), SetArg::TCSADRAIN, before);
        }
    }
}
